//! Programs built from Go modules, whose checksums their `go.sum` holds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::command;
use crate::progress::{Progress, Task};
use crate::toolchain::{self, Go};
use crate::versions::{GO_TOOLS, Versions};

/// A module of this repository whose dependencies are programs.
#[derive(Debug)]
pub(crate) struct GoModule {
    /// Its `go.mod`.
    pub(crate) go_mod: &'static str,
    /// The checksums of everything behind it.
    pub(crate) go_sum: &'static str,
}

impl GoModule {
    /// Something that differs whenever the programs do.
    pub(crate) fn digest(&self) -> String {
        let digest = Sha256::digest([self.go_mod, self.go_sum].concat());
        hex::encode(digest)[..8].to_owned()
    }

    /// Writes the module into `dir`; returns what makes commands of Go that work in it.
    pub(crate) fn unpack(
        &self,
        go: &Go,
        dir: &Path,
    ) -> Result<impl Fn(&[&str]) -> Command + use<>> {
        let module = dir.join("module");
        fs::create_dir(&module)?;
        fs::write(module.join("go.mod"), self.go_mod)?;
        fs::write(module.join("go.sum"), self.go_sum)?;
        let program = go.program.clone();
        Ok(move |arguments: &[&str]| {
            let mut command = Command::new(&program);
            command
                .args(arguments)
                .current_dir(&module)
                .env("CGO_ENABLED", "0")
                .env("GOTOOLCHAIN", "local")
                .env("GOFLAGS", "-mod=readonly")
                .env("GOWORK", "off")
                .env_remove("GOROOT");
            command
        })
    }
}

/// Builds one program.
pub(crate) fn build(
    go: &impl Fn(&[&str]) -> Command,
    package: &str,
    output: &Path,
    task: &Task,
) -> Result<()> {
    let mut build = go(&["build", "-v", "-trimpath", "-ldflags=-s -w", "-o"]);
    command::run(task, build.arg(output).arg(package), None)
}

/// A tool of the version that `tools/versions.toml` names, built into the cache where it is missing; returns the
/// directory to put into `PATH`.
pub(crate) fn tool(name: &str, cache: &Cache, progress: &Progress) -> Result<PathBuf> {
    let version = &Versions::get().go_tools[name];
    let (_, package, module) = GO_TOOLS
        .iter()
        .find(|(known, ..)| *known == name)
        .with_context(|| format!("there is no module of `{name}`"))?;
    let platform = toolchain::go_platform()?;
    let entry = format!("{name}-{version}-{platform}-{}", module.digest());
    if let Some(dir) = cache.find(&entry) {
        return Ok(dir.join("bin"));
    }
    let task = progress.task(&format!("building {name} {version}, once, a few minutes"));
    let go = toolchain::go(cache, &task)?;
    let dir = cache.entry(&entry, &task, |dir| {
        let bin = dir.join("bin");
        fs::create_dir(&bin)?;
        build(&module.unpack(&go, dir)?, package, &bin.join(name), &task)
    })?;
    task.done("");
    Ok(dir.join("bin"))
}
