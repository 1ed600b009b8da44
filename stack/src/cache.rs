//! The cache of what was fetched or built. Each entry is made once, under a lock, and moved into place whole.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::places;
use crate::progress::Task;

/// A directory of finished entries.
#[derive(Debug, Clone)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Opens the cache directory, making it where it is missing.
    pub fn open() -> Result<Self> {
        Self::at(&places::cache_dir()?)
    }

    /// Opens a cache at a chosen place.
    pub fn at(dir: &Path) -> Result<Self> {
        places::create_dir(&dir.join("locks"))?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Where the cache is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The finished entry of this name, if there is one.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        Some(self.dir.join(name)).filter(|entry| entry.exists())
    }

    /// The entry of this name. If it is missing, `make` fills an empty directory, which then becomes the entry; another
    /// process that wants the same entry waits and takes what the first one made.
    pub fn entry(
        &self,
        name: &str,
        task: &Task,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        if let Some(entry) = self.find(name) {
            return Ok(entry);
        }
        let _lock = lock(&self.dir.join("locks").join(name), || {
            task.line("waiting for another copy that is making the same thing");
        })?;
        if let Some(entry) = self.find(name) {
            return Ok(entry);
        }
        let unfinished = self.dir.join(format!("{name}.unfinished"));
        if unfinished.exists() {
            places::make_readable(&unfinished).ok();
            fs::remove_dir_all(&unfinished).with_context(|| {
                format!(
                    "cannot clear what an interrupted run left in {}",
                    unfinished.display()
                )
            })?;
        }
        places::create_dir(&unfinished)?;
        make(&unfinished)?;
        places::make_readable(&unfinished)?;
        let entry = self.dir.join(name);
        fs::rename(&unfinished, &entry)
            .with_context(|| format!("cannot move {} into place", entry.display()))?;
        Ok(entry)
    }
}

/// Takes the lock file, calling `wait` once if somebody else has it.
pub(crate) fn lock(path: &Path, wait: impl FnOnce()) -> Result<Flock<File>> {
    let open =
        || File::create(path).with_context(|| format!("cannot open the lock {}", path.display()));
    match Flock::lock(open()?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((file, _)) => {
            wait();
            Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, error)| error)
                .with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Takes the lock file if nobody has it.
pub(crate) fn try_lock(path: &Path) -> Result<Option<Flock<File>>> {
    let file =
        File::create(path).with_context(|| format!("cannot open the lock {}", path.display()))?;
    Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Progress;

    #[test]
    fn an_entry_is_made_once_and_only_whole() {
        let dir = std::env::temp_dir().join(format!("stack-cache-{}", std::process::id()));
        let cache = Cache::at(&dir).unwrap();
        let progress = Progress::quiet();
        let failed = cache.entry("thing", &progress.task("thing"), |dir| {
            fs::write(dir.join("half"), "x")?;
            anyhow::bail!("no room")
        });
        assert!(failed.is_err());
        assert!(cache.find("thing").is_none());
        for _ in 0..2 {
            let entry = cache
                .entry("thing", &progress.task("thing"), |dir| {
                    assert!(!dir.join("half").exists());
                    Ok(fs::write(dir.join("whole"), "x")?)
                })
                .unwrap();
            assert!(entry.join("whole").exists());
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
