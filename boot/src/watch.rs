//! Files that are followed while the process runs, such as rules and limits.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// How often a file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A file that may change. Where a mounted file is replaced by another one, that is a change too.
pub struct Watched {
    path: PathBuf,
    seen: Option<SystemTime>,
}

impl Watched {
    /// Watches from now on.
    pub fn new(path: PathBuf) -> Self {
        Self {
            seen: modified(&path),
            path,
        }
    }

    /// Waits until it is not what it was.
    pub async fn changed(&mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = modified(&self.path);
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .ok()
}
