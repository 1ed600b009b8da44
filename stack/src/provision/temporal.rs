//! Temporal's server, its schema tool and its Web UI: built from Go modules, whose checksums `go.sum` holds.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::command;
use crate::go_tool;
use crate::progress::{Progress, Task};
use crate::toolchain::{self, Go};
use crate::versions::{TEMPORAL, Versions};

/// Name of the program, and the package that it is built from.
const PROGRAMS: [(&str, &str); 3] = [
    ("temporal-server", "go.temporal.io/server/cmd/server"),
    ("temporal-sql-tool", "go.temporal.io/server/cmd/tools/sql"),
    (
        "temporal-ui-server",
        "github.com/temporalio/ui-server/v2/cmd/server",
    ),
];
const SCHEMA: &str = "schema/postgresql/v12";

/// A Temporal that can be started.
#[derive(Debug, Clone)]
pub struct Temporal {
    /// All four services in one program.
    pub server: PathBuf,
    /// Makes and updates the databases.
    pub sql_tool: PathBuf,
    /// The Web UI.
    pub ui_server: PathBuf,
    /// The directory of `temporal` and `visibility`, each with its versioned schema.
    pub schema: PathBuf,
}

fn entry_name() -> Result<String> {
    Ok(format!(
        "temporal-{}-{}-{}",
        Versions::get().temporal,
        toolchain::go_platform()?,
        TEMPORAL.digest()
    ))
}

pub(super) fn is_missing(cache: &Cache) -> Result<bool> {
    Ok(cache.find(&entry_name()?).is_none())
}

pub(super) fn provision(cache: &Cache, progress: &Progress) -> Result<Temporal> {
    let name = entry_name()?;
    let dir = if let Some(dir) = cache.find(&name) {
        dir
    } else {
        let versions = Versions::get();
        let title = format!(
            "building Temporal {} and its Web UI {}",
            versions.temporal, versions.temporal_ui
        );
        let task = progress.task(&format!("{title}, once, a few minutes"));
        let go = toolchain::go(cache, &task)?;
        let dir = cache.entry(&name, &task, |dir| build(&go, dir, &task))?;
        task.done("");
        dir
    };
    let [server, sql_tool, ui_server] = PROGRAMS.map(|(name, _)| dir.join(name));
    Ok(Temporal {
        server,
        sql_tool,
        ui_server,
        schema: dir.join(SCHEMA),
    })
}

fn build(go: &Go, dir: &Path, task: &Task) -> Result<()> {
    let go = TEMPORAL.unpack(go, dir)?;
    for (name, package) in PROGRAMS {
        go_tool::build(&go, package, &dir.join(name), task)?;
    }
    let source = command::output(&mut go(&[
        "list",
        "-m",
        "-f",
        "{{.Dir}}",
        "go.temporal.io/server",
    ]))?;
    copy(&Path::new(&source).join(SCHEMA), &dir.join(SCHEMA))
        .context("the schema could not be copied")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::write(target, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}
