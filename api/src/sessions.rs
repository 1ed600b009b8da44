//! Whether the session of one of Meed's own users goes on, asked for every request with a token of
//! one, so that logging out and deactivating count at once and not when the token has run out.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use store::{PgPool, sessions};
use uuid::Uuid;

use crate::error::ApiError;

/// How long a session that was seen open counts as open in this process. What another replica ends
/// is refused here after this.
const COUNTS_FOR: Duration = Duration::from_secs(5);
/// How long the database is waited for.
const ASK_WITHIN: Duration = Duration::from_millis(500);
/// How many sessions are remembered.
const REMEMBERED_MAX: usize = 10_000;

/// Sessions that were seen open a moment ago.
#[derive(Debug, Default)]
pub struct OpenSessions {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    open: HashMap<Uuid, Instant>,
    /// How often this process has ended sessions: what was asked before may be told after.
    ends: u64,
}

impl OpenSessions {
    /// Whether the session goes on and its user may; nothing while the database is out of reach, or
    /// too slow to be waited for.
    ///
    /// # Errors
    /// What the database reports, unless it is out of reach.
    pub async fn is_open(&self, pool: &PgPool, session: Uuid) -> Result<Option<bool>, ApiError> {
        let now = Instant::now();
        let ends = {
            let seen = self.seen();
            let at = seen.open.get(&session);
            if at.is_some_and(|at| now.duration_since(*at) < COUNTS_FOR) {
                return Ok(Some(true));
            }
            seen.ends
        };
        let open = match tokio::time::timeout(ASK_WITHIN, sessions::is_open(pool, session)).await {
            Ok(Ok(open)) => open,
            Ok(Err(error)) if !error.is_retryable() => return Err(error.into()),
            Ok(Err(_)) | Err(_) => return Ok(None),
        };
        let mut seen = self.seen();
        if !open {
            seen.open.remove(&session);
        } else if seen.ends == ends {
            if seen.open.len() >= REMEMBERED_MAX {
                seen.open
                    .retain(|_, at| now.duration_since(*at) < COUNTS_FOR);
            }
            if seen.open.len() < REMEMBERED_MAX {
                seen.open.insert(session, now);
            }
        }
        Ok(Some(open))
    }

    /// Sessions that this process has ended do not count any more.
    pub fn ended(&self, sessions: &[Uuid]) {
        let mut seen = self.seen();
        seen.ends += 1;
        for session in sessions {
            seen.open.remove(session);
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
