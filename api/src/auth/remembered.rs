//! Tokens that were checked a moment ago. Checking a signature takes longer than everything else
//! that a reading request needs, and clients send the same token over and over.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use lru::LruCache;
use sha2::{Digest, Sha256};

use super::Identity;

/// How many tokens are remembered; the one that was not sent for the longest time is forgotten.
const REMEMBERED_MAX: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// What stands for a token: nobody who reads this process's memory finds the token itself.
type Fingerprint = [u8; 32];

/// A token that counted.
struct Checked {
    identity: Identity,
    /// When the keys were read with one of which it was checked.
    keys_read_at: Instant,
}

/// Tokens that counted, while they count by the keys with which they were checked.
pub(super) struct Remembered(Mutex<LruCache<Fingerprint, Checked>>);

impl Default for Remembered {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED_MAX)))
    }
}

impl Remembered {
    fn tokens(&self) -> MutexGuard<'_, LruCache<Fingerprint, Checked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands for this token.
    pub(super) fn fingerprint(token: &str) -> Fingerprint {
        Sha256::digest(token).into()
    }

    /// Whom a token stands for that was checked before, unless it has run out. `keys_read_at` says
    /// when the keys of an issuer were read that are in force; none where they are to be read again.
    pub(super) fn find(
        &self,
        token: &Fingerprint,
        keys_read_at: impl FnOnce(&str) -> Option<Instant>,
    ) -> Option<Identity> {
        let mut tokens = self.tokens();
        let checked = tokens.get(token)?;
        let counts = keys_read_at(&checked.identity.issuer) == Some(checked.keys_read_at)
            && !checked.identity.valid_for().is_zero();
        if counts {
            return Some(checked.identity.clone());
        }
        tokens.pop(token);
        None
    }

    /// Remembers a token that was checked with keys that were read then.
    pub(super) fn keep(&self, token: Fingerprint, identity: Identity, keys_read_at: Instant) {
        let checked = Checked {
            identity,
            keys_read_at,
        };
        self.tokens().put(token, checked);
    }
}
