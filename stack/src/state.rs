//! What runs, on disk, so that another process can see, end or restart it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cache;
use crate::launch::Launch;
use crate::process::Identity;

const FILE: &str = "state.json";

/// What a data directory's stack consists of.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct State {
    /// The process that ends the stack when it ends itself; none for a detached stack.
    pub(crate) owner: Option<Identity>,
    /// How many there are of each service of which there may be several.
    #[serde(default)]
    pub(crate) replicas: Option<u16>,
    /// In the order of their starts.
    pub(crate) processes: Vec<Entry>,
}

/// One process of a stack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) launch: Launch,
    pub(crate) identity: Identity,
    pub(crate) since_unix_seconds: u64,
    pub(crate) program_stamp: String,
    /// Why it does not run, if somebody wanted it so.
    pub(crate) ended: Option<String>,
}

impl State {
    /// Reads the state; a data directory without one has an empty state.
    pub(crate) fn read(data_dir: &Path) -> Result<Self> {
        match fs::read(data_dir.join(FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} cannot be understood", data_dir.join(FILE).display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error)
                .with_context(|| format!("{} cannot be read", data_dir.join(FILE).display())),
        }
    }

    /// Changes the state under its lock.
    pub(crate) fn update<T>(data_dir: &Path, change: impl FnOnce(&mut Self) -> T) -> Result<T> {
        let _lock = cache::lock(&data_dir.join("state.lock"), || {})?;
        let mut state = Self::read(data_dir)?;
        let result = change(&mut state);
        let unfinished = data_dir.join("state.json.unfinished");
        // The environment of the processes is in it.
        let file = fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        serde_json::to_writer_pretty(file, &state)?;
        fs::rename(&unfinished, data_dir.join(FILE))?;
        Ok(result)
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Entry> {
        self.processes
            .iter()
            .find(|entry| entry.launch.name == name)
    }

    pub(crate) fn put(&mut self, entry: Entry) {
        match self
            .processes
            .iter_mut()
            .find(|known| known.launch.name == entry.launch.name)
        {
            Some(known) => *known = entry,
            None => self.processes.push(entry),
        }
    }
}

/// Tells one build of a program from another.
pub(crate) fn program_stamp(program: &Path) -> String {
    fs::metadata(program).map_or_else(
        |_| String::new(),
        |metadata| {
            format!(
                "{}.{}-{}",
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.size()
            )
        },
    )
}

pub(crate) fn now_unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
