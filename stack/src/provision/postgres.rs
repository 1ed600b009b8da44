//! PostgreSQL: an installed one that is new enough, or the binaries that Maven Central has.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use lzma_rust2::XzReader;
use zip::ZipArchive;

use crate::cache::Cache;
use crate::command;
use crate::maven;
use crate::places;
use crate::progress::{Progress, Task};
use crate::toolchain;
use crate::versions::Versions;

/// A PostgreSQL that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    /// The directory of `postgres` and `initdb`.
    pub programs: PathBuf,
    /// Its major version.
    pub major: u32,
}

/// The PostgreSQL that `MEED_POSTGRES_BIN` names, or the newest installed one that works.
pub(super) fn installed() -> Result<Option<Postgres>> {
    if let Some(dir) = std::env::var_os("MEED_POSTGRES_BIN").filter(|dir| !dir.is_empty()) {
        let dir = PathBuf::from(dir);
        let named = usable(&dir).with_context(|| {
            format!(
                "MEED_POSTGRES_BIN is {}, where `postgres` and `initdb` of version {} or newer do not run",
                dir.display(),
                Versions::get().postgres.minimum_major
            )
        })?;
        return Ok(Some(named));
    }
    let mut dirs: Vec<PathBuf> = std::env::var_os("PATH")
        .iter()
        .flat_map(|path| std::env::split_paths(path).collect::<Vec<_>>())
        .collect();
    if let Ok(majors) = fs::read_dir("/usr/lib/postgresql") {
        dirs.extend(majors.filter_map(|major| Some(major.ok()?.path().join("bin"))));
    }
    dirs.push(PathBuf::from("/usr/local/pgsql/bin"));
    let found = dirs
        .iter()
        .filter(|dir| dir.join("postgres").exists())
        .filter_map(|dir| usable(dir));
    Ok(found.max_by_key(|postgres| postgres.major))
}

/// Checks that both programs run, as the account that will run them, and agree on a version that is new enough.
fn usable(dir: &Path) -> Option<Postgres> {
    // Links in a common place lead to the directory where the rest of the installation is.
    let server = fs::canonicalize(dir.join("postgres")).ok()?;
    let programs = server.parent()?.to_owned();
    let account = places::unprivileged_account().ok()?;
    let major = |program: &str| -> Option<u32> {
        let mut command = Command::new(programs.join(program));
        command.arg("--version").current_dir("/");
        if let Some(account) = account {
            command.uid(account.uid).gid(account.gid);
        }
        major_version(&command::output(&mut command).ok()?)
    };
    let (server, initdb) = (major("postgres")?, major("initdb")?);
    let fits = server == initdb && server >= Versions::get().postgres.minimum_major;
    fits.then_some(Postgres {
        programs,
        major: server,
    })
}

/// 15 out of `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major_version(text: &str) -> Option<u32> {
    let number = text.split(") ").nth(1)?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn platform() -> Result<String> {
    Ok(toolchain::go_platform()?
        .replace("linux-arm64", "linux-arm64v8")
        .replace("darwin-arm64", "darwin-arm64v8"))
}

fn entry_name() -> Result<String> {
    Ok(format!(
        "postgres-{}-{}",
        Versions::get().postgres.version,
        platform()?
    ))
}

pub(super) fn is_missing(cache: &Cache) -> Result<bool> {
    Ok(cache.find(&entry_name()?).is_none())
}

/// PostgreSQL from Maven Central, checked and unpacked into the cache.
pub fn from_maven(cache: &Cache, progress: &Progress) -> Result<Postgres> {
    let name = entry_name()?;
    let dir = if let Some(dir) = cache.find(&name) {
        dir
    } else {
        let task = progress.task(&format!(
            "fetching PostgreSQL {} with Maven",
            Versions::get().postgres.version
        ));
        let dir = cache.entry(&name, &task, |dir| fetch(dir, &task))?;
        task.done("");
        dir
    };
    usable(&dir.join("bin")).with_context(|| {
        let account = if places::is_root() {
            "; user `nobody` has to be able to enter that directory"
        } else {
            ""
        };
        format!(
            "the PostgreSQL in {} does not run here{account}",
            dir.display()
        )
    })
}

fn fetch(dir: &Path, task: &Task) -> Result<()> {
    let versions = &Versions::get().postgres;
    let platform = platform()?;
    let expected = versions.sha256.get(&platform).with_context(|| {
        format!("there is no PostgreSQL for {platform} at Maven Central; install one")
    })?;
    let artifact = format!("{}-{platform}", versions.artifact);
    let jar = maven::fetch(&artifact, &versions.version, expected, dir, task)?;

    task.line("unpacking");
    let mut archive = ZipArchive::new(File::open(&jar)?)?;
    let index = (0..archive.len())
        .find(|index| {
            archive
                .by_index(*index)
                .is_ok_and(|file| file.name().is_ok_and(|name| name.ends_with(".txz")))
        })
        .context("there is no archive in the jar")?;
    let mut compressed = Vec::new();
    archive.by_index(index)?.read_to_end(&mut compressed)?;
    tar::Archive::new(XzReader::new(compressed.as_slice(), true)).unpack(dir)?;
    Ok(fs::remove_file(jar)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(
            major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            Some(15)
        );
        assert_eq!(major_version("initdb (PostgreSQL) 18.4"), Some(18));
        assert_eq!(major_version("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(major_version("something else"), None);
    }
}
