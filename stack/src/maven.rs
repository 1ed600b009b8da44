//! Single artifacts from Maven Central.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use zip::ZipArchive;

use crate::cache::Cache;
use crate::command;
use crate::progress::{Progress, Task};
use crate::toolchain::{self, Need};
use crate::versions::{MavenArtifact, Versions};

/// Brings a jar into a directory and checks it. `artifact` is its group and name, as `group:name`.
pub(crate) fn fetch(
    artifact: &str,
    version: &str,
    sha256: &str,
    dir: &Path,
    task: &Task,
) -> Result<PathBuf> {
    let plugin = &Versions::get().toolchain.maven_dependency_plugin;
    let mut maven = Command::new("mvn");
    maven
        .args([
            "-B",
            &format!("org.apache.maven.plugins:maven-dependency-plugin:{plugin}:copy"),
        ])
        .arg(format!("-Dartifact={artifact}:{version}"))
        .arg("-Dmdep.stripVersion=true")
        .arg(format!("-DoutputDirectory={}", dir.display()))
        .current_dir(dir);
    command::run(task, &mut maven, None)?;
    let (_, name) = artifact
        .split_once(':')
        .context("the artifact has no group")?;
    let jar = dir.join(format!("{name}.jar"));
    let bytes = fs::read(&jar).with_context(|| format!("Maven did not bring {}", jar.display()))?;
    let found = hex::encode(Sha256::digest(&bytes));
    ensure!(
        found == sha256,
        "{name} has the checksum {found}, tools/versions.toml says {sha256}"
    );
    Ok(jar)
}

/// Unpacks a tool's jar into the cache where it is missing; returns the directory of its files.
pub(crate) fn tool(
    name: &str,
    artifact: &MavenArtifact,
    cache: &Cache,
    progress: &Progress,
) -> Result<PathBuf> {
    let entry = format!("{name}-{}", artifact.version);
    if let Some(dir) = cache.find(&entry) {
        return Ok(dir);
    }
    toolchain::ensure(&[Need::Maven], cache, progress)?;
    let task = progress.task(&format!("fetching {name} {} with Maven", artifact.version));
    let dir = cache.entry(&entry, &task, |dir| {
        let MavenArtifact {
            artifact,
            version,
            sha256,
        } = artifact;
        let jar = fetch(artifact, version, sha256, dir, &task)?;
        ZipArchive::new(File::open(&jar)?)?.extract(dir)?;
        Ok(fs::remove_file(jar)?)
    })?;
    task.done("");
    Ok(dir)
}
