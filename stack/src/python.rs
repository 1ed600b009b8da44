//! Python's tools, each in a virtual environment of its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::command;
use crate::progress::Progress;
use crate::versions::{PYTHON_LOCKS, Versions};

/// A Python that is new enough and can make virtual environments.
#[derive(Debug)]
pub(crate) struct Python {
    program: &'static str,
    /// Its version and where it is; a virtual environment works with this one alone.
    identity: String,
}

/// Looks for Python in `PATH`.
pub(crate) fn find() -> Option<Python> {
    const PROGRAMS: [&str; 5] = [
        "python3",
        "python3.14",
        "python3.13",
        "python3.12",
        "python3.11",
    ];
    let minor = Versions::get().toolchain.python_minimum_minor;
    let check = format!(
        "import ensurepip, sys, venv; assert sys.version_info >= (3, {minor}); print(sys.version_info[:2], sys.base_prefix)"
    );
    PROGRAMS.into_iter().find_map(|program| {
        let identity = command::output(Command::new(program).args(["-I", "-c", &check])).ok()?;
        Some(Python { program, identity })
    })
}

/// Installs a tool with exactly the packages of its lock file; returns the directory to put into `PATH`, in which the
/// tool stands alone.
pub(crate) fn tool(name: &str, cache: &Cache, progress: &Progress) -> Result<PathBuf> {
    let version = &Versions::get().python_tools[name];
    let (_, lock) = PYTHON_LOCKS
        .iter()
        .find(|(locked, _)| *locked == name)
        .with_context(|| format!("there is no lock file of `{name}`"))?;
    let python = find().context("Python is not installed")?;
    let digest = hex::encode(Sha256::digest(format!("{}\n{lock}", python.identity)));
    let entry = format!("{name}-{version}-{}", &digest[..8]);
    if let Some(dir) = cache.find(&entry) {
        return Ok(dir.join("bin"));
    }
    let task = progress.task(&format!("installing {name} {version}"));
    let dir = cache.entry(&entry, &task, |dir| {
        let environment = dir.join("environment");
        let mut create = Command::new(python.program);
        create.args(["-I", "-m", "venv"]).arg(&environment);
        command::run(&task, &mut create, None)?;
        let requirements = dir.join("requirements.txt");
        fs::write(&requirements, lock)?;
        let mut install = Command::new(environment.join("bin/python"));
        install
            .args([
                "-I",
                "-m",
                "pip",
                "--disable-pip-version-check",
                "install",
                "--require-hashes",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--requirement",
            ])
            .arg(&requirements)
            .current_dir(dir);
        command::run(&task, &mut install, None)?;
        let program = environment.join("bin").join(name);
        move_script(&program, dir, &cache.dir().join(&entry))?;
        fs::create_dir(dir.join("bin"))?;
        let link = Path::new("../environment/bin").join(name);
        Ok(symlink(link, dir.join("bin").join(name))?)
    })?;
    task.done("");
    Ok(dir.join("bin"))
}

/// A script names the environment's interpreter by its whole path, and the environment is about to be moved.
fn move_script(script: &Path, from: &Path, to: &Path) -> Result<()> {
    let text =
        fs::read_to_string(script).with_context(|| format!("{} is missing", script.display()))?;
    let (from, to) = (from.to_string_lossy(), to.to_string_lossy());
    Ok(fs::write(script, text.replace(&*from, &to))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_script_names_its_interpreter_where_it_is() {
        let dir = std::env::temp_dir().join(format!("stack-script-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let script = dir.join("tool");
        let shebang = format!("#!{}/bin/python\nprint()\n", dir.display());
        fs::write(&script, shebang).unwrap();
        move_script(&script, &dir, Path::new("/elsewhere")).unwrap();
        let moved = fs::read_to_string(&script).unwrap();
        assert_eq!(moved, "#!/elsewhere/bin/python\nprint()\n");
        fs::remove_dir_all(&dir).unwrap();
    }
}
