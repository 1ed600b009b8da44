//! The rules in force: read from their file, and read again when it changes.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use domain::{Programme, ProgrammeError};

use crate::watch::Watched;

/// Why a rule file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("the rule file {path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It breaks its contract.
    #[error("{path}: {source}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line and the reason.
        source: ProgrammeError,
    },
}

/// The last good rules.
pub struct LiveProgramme {
    path: PathBuf,
    current: RwLock<Arc<Programme>>,
}

impl LiveProgramme {
    /// Reads the rules for the first time.
    ///
    /// # Errors
    /// [`Unusable`], with the line and the reason.
    pub fn load(path: &Path) -> Result<Self, Unusable> {
        Ok(Self {
            path: path.to_owned(),
            current: RwLock::new(Arc::new(read(path)?)),
        })
    }

    /// The rules in force.
    pub fn current(&self) -> Arc<Programme> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the file again. On a fault the rules in force stay.
    ///
    /// # Errors
    /// [`Unusable`], with the line and the reason.
    pub fn reload(&self) -> Result<(), Unusable> {
        let programme = Arc::new(read(&self.path)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = programme;
        Ok(())
    }

    /// Looks at the file for ever, and follows it.
    pub async fn follow(&self) {
        let mut file = Watched::new(self.path.clone());
        loop {
            file.changed().await;
            match self.reload() {
                Ok(()) => {
                    tracing::info!(
                        version = self.current().version(),
                        "the rules were read again"
                    );
                }
                Err(error) => {
                    let version = self.current().version().to_owned();
                    tracing::error!(%error, version, "the new rules are refused; the old ones stay");
                }
            }
        }
    }
}

fn read(path: &Path) -> Result<Programme, Unusable> {
    let text = std::fs::read_to_string(path).map_err(|source| Unusable::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    Programme::parse(&text).map_err(|source| Unusable::Invalid {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_file_keeps_the_last_good_one_and_says_where() {
        let good = include_str!("../../programme.toml");
        let path = std::env::temp_dir().join(format!("meed-rules-{}.toml", uuid::Uuid::new_v4()));
        std::fs::write(&path, good).expect("written");
        let live = LiveProgramme::load(&path).expect("the default rules are good");
        let version = live.current().version().to_owned();

        std::fs::write(&path, "version = 3\n[[rules").expect("written");
        let error = live.reload().expect_err("it is no rule file");
        assert!(error.to_string().contains("line "), "{error}");
        assert_eq!(live.current().version(), version, "the old rules stay");

        std::fs::write(&path, good.replace(&version, "next")).expect("written");
        live.reload().expect("good again");
        assert_eq!(live.current().version(), "next");
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(
            LiveProgramme::load(&path),
            Err(Unusable::Unreadable { .. })
        ));
    }
}
