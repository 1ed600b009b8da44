//! Waiting for something that is away: for as long as it takes, and not in silence.

use std::{fmt::Display, time::Duration};

use tokio::time::Instant;

/// How often it is tried.
pub const TRY_EVERY: Duration = Duration::from_millis(500);
/// How often the log says so.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// A wait for one thing.
pub struct Waiting {
    say_at: Instant,
}

impl Waiting {
    /// Begins; it is said at once that the first attempt was in vain.
    pub fn begin() -> Self {
        Self {
            say_at: Instant::now(),
        }
    }

    /// After an attempt that was in vain, for this reason: a pause, until `place` is tried again.
    pub async fn pause(&mut self, place: &str, reason: &impl Display) {
        if self.say_at <= Instant::now() {
            self.say_at = Instant::now() + SAY_EVERY;
            tracing::warn!(%reason, "waiting for {place}");
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}
