//! Where things are kept: the cache of components and the data of a stack.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The account a program runs under instead of root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// True when this process is root.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// The account for programs that refuse to run as root; none when this process is not root.
pub fn unprivileged_account() -> Result<Option<Account>> {
    if !is_root() {
        return Ok(None);
    }
    let nobody = User::from_name("nobody")
        .context("the user database cannot be read")?
        .context("there is no user `nobody` to run PostgreSQL as; run as an ordinary user instead of root")?;
    Ok(Some(Account {
        uid: nobody.uid.as_raw(),
        gid: nobody.gid.as_raw(),
    }))
}

/// The cache: `MEED_CACHE_DIR`, or `/var/cache/meed` for root, or `~/.cache/meed`.
pub fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("MEED_CACHE_DIR").filter(|dir| !dir.is_empty()) {
        return std::path::absolute(&dir)
            .with_context(|| format!("MEED_CACHE_DIR is {}", dir.display()));
    }
    if is_root() {
        return Ok(PathBuf::from("/var/cache/meed"));
    }
    let home = std::env::var_os("HOME")
        .context("HOME is not set: set MEED_CACHE_DIR to a directory for the cache")?;
    Ok(PathBuf::from(home).join(".cache/meed"))
}

/// The data of the stack of `repository` at `port_base`: under `MEED_DATA_DIR` if set, else in the repository, else,
/// for root and a repository that user `nobody` cannot enter, under `/var/lib/meed`.
pub fn data_dir(repository: &Path, port_base: u16) -> Result<PathBuf> {
    let base = port_base.to_string();
    if let Some(dir) = std::env::var_os("MEED_DATA_DIR").filter(|dir| !dir.is_empty()) {
        let dir = std::path::absolute(&dir)
            .with_context(|| format!("MEED_DATA_DIR is {}", dir.display()))?;
        return Ok(dir.join(base));
    }
    if is_root() && !everyone_may_enter(repository) {
        let digest = hex::encode(Sha256::digest(repository.as_os_str().as_encoded_bytes()));
        return Ok(Path::new("/var/lib/meed").join(&digest[..12]).join(base));
    }
    Ok(repository.join(".meed").join(base))
}

fn everyone_may_enter(dir: &Path) -> bool {
    dir.ancestors()
        .all(|dir| fs::metadata(dir).is_ok_and(|metadata| metadata.mode() & 0o001 != 0))
}

/// Makes a directory, and for root makes it enterable by everyone whatever the umask says.
pub(crate) fn create_dir(dir: &Path) -> Result<()> {
    let mut missing = Vec::new();
    let mut next = Some(dir);
    while let Some(dir) = next.filter(|dir| !dir.as_os_str().is_empty() && !dir.exists()) {
        missing.push(dir);
        next = dir.parent();
    }
    for dir in missing.into_iter().rev() {
        match fs::create_dir(dir) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot create {}", dir.display()));
            }
        }
        if is_root() {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("cannot open {} to others", dir.display()))?;
        }
    }
    Ok(())
}

/// Gives everyone the rights to read that the owner has, below `dir`.
pub(crate) fn make_readable(dir: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(dir)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.mode();
    // Owners may always write: what is fetched read-only could otherwise not be replaced.
    let mode = mode
        | 0o600
        | 0o044
        | if metadata.is_dir() || mode & 0o100 != 0 {
            0o111
        } else {
            0
        };
    fs::set_permissions(dir, fs::Permissions::from_mode(mode & 0o777))
        .with_context(|| format!("cannot change the rights of {}", dir.display()))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(dir)? {
            make_readable(&entry?.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_below_a_closed_one_is_closed() {
        let root = std::env::temp_dir().join(format!("stack-places-{}", std::process::id()));
        let inner = root.join("closed/inner");
        fs::create_dir_all(&inner).unwrap();
        fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!everyone_may_enter(&inner));
        fs::remove_dir_all(&root).unwrap();
    }
}
