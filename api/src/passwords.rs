//! Passwords and client secrets: hashed on threads of their own, a few at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use boot::{password::Hasher, settings::PasswordSettings};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use crate::error::ApiError;

/// How long a request waits until a hash can be computed for it.
const WAIT_FOR_TURN: Duration = Duration::from_secs(2);
/// How long a client's secret that was right counts without another look at its hash.
const SECRET_COUNTS_FOR: Duration = Duration::from_secs(300);
/// How many clients' secrets are remembered.
const REMEMBERED_MAX: usize = 1_000;

/// A secret that was right.
#[derive(Debug)]
struct Right {
    /// The hash that it was checked against: after a rotation it is another one.
    hash: String,
    digest: [u8; 32],
    until: Instant,
}

/// Hashes and checks.
#[derive(Debug)]
pub struct Passwords {
    hasher: Hasher,
    /// What is checked when there is nobody, so that the answer takes as long.
    nobody: String,
    turns: Arc<Semaphore>,
    right: Mutex<HashMap<String, Right>>,
}

impl Passwords {
    /// With the costs of the configuration.
    ///
    /// # Errors
    /// When argon2 cannot work with such costs.
    pub fn new(settings: &PasswordSettings) -> anyhow::Result<Self> {
        let hasher = Hasher::new(settings)?;
        let nobody = hasher.hash(&boot::password::secret())?;
        let turns = usize::try_from(settings.max_concurrent).unwrap_or(1);
        Ok(Self {
            hasher,
            nobody,
            turns: Arc::new(Semaphore::new(turns)),
            right: Mutex::default(),
        })
    }

    /// A hash of the password.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when too many others wait.
    pub async fn hash(&self, password: String) -> Result<String, ApiError> {
        let hasher = self.hasher.clone();
        self.compute(move || hasher.hash(&password))
            .await?
            .map_err(|error| ApiError::Internal(error.to_string()))
    }

    /// Whether the password is the one of the hash. Without a hash it is not, after the same time.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when too many others wait.
    pub async fn verify(&self, password: String, hash: Option<&str>) -> Result<bool, ApiError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or(&self.nobody).to_owned();
        let hasher = self.hasher.clone();
        let right = self
            .compute(move || hasher.verify(&password, &hash))
            .await?;
        Ok(right && known)
    }

    /// Whether the hash was made with other costs than new ones are.
    pub fn is_outdated(&self, hash: &str) -> bool {
        self.hasher.is_outdated(hash)
    }

    /// Whether the client's secret was found right against this hash a moment ago.
    pub fn was_right(&self, client: &str, secret: &str, hash: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right.get(client).is_some_and(|right| {
            right.until > Instant::now()
                && right.hash == hash
                && bool::from(right.digest.ct_eq(&digest))
        })
    }

    /// Remembers that the client's secret is the one of the hash.
    pub fn remember(&self, client: &str, secret: &str, hash: &str) {
        let now = Instant::now();
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.len() >= REMEMBERED_MAX {
            right.retain(|_, right| right.until > now);
        }
        if right.len() < REMEMBERED_MAX {
            let remembered = Right {
                hash: hash.to_owned(),
                digest: Sha256::digest(secret.as_bytes()).into(),
                until: now + SECRET_COUNTS_FOR,
            };
            right.insert(client.to_owned(), remembered);
        }
    }

    /// Computes on a thread for blocking work. The turn is held until it is done, also when the
    /// request is given up meanwhile.
    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let turns = Arc::clone(&self.turns);
        let turn = tokio::time::timeout(WAIT_FOR_TURN, turns.acquire_owned())
            .await
            .map_err(|_| ApiError::Unavailable("too many hashes are computed".to_owned()))?
            .map_err(|error| ApiError::Internal(error.to_string()))?;
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        })
        .await
        .map_err(|error| ApiError::Internal(error.to_string()))
    }
}
