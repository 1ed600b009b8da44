//! Whether this process can take requests.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::App;

/// For how long a look at the database and at Temporal counts, so that asking often costs nothing.
const LOOK_COUNTS_FOR: Duration = Duration::from_secs(1);
/// How long the database may take to answer.
const DATABASE_WITHIN: Duration = Duration::from_secs(2);

/// How ready this process is, by part.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(example = json!({
    "ready": true, "database": true, "temporal": true, "worker": true, "draining": false
}))]
pub struct Ready {
    /// Whether all of it is.
    pub ready: bool,
    /// The database answers and has the schema.
    pub database: bool,
    /// Temporal answers.
    pub temporal: bool,
    /// The worker of the redeem queue runs.
    pub worker: bool,
    /// The process is about to end: new work belongs elsewhere.
    pub draining: bool,
}

/// What is known of the process's state.
#[derive(Debug, Default)]
pub struct Readiness {
    worker: AtomicBool,
    leaving: AtomicBool,
    draining: CancellationToken,
    last_look: Mutex<Option<(Instant, bool, bool)>>,
}

impl Readiness {
    /// The worker of the redeem queue runs, or has ended.
    pub fn set_worker(&self, running: bool) {
        self.worker.store(running, Ordering::Relaxed);
    }

    /// The process will end: it is no longer ready, and takes what still comes.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// The process takes no new work from now on.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Cancelled when the process takes no new work: whoever waits, waits no longer.
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Looks at everything that requests need.
    pub async fn look(&self, app: &App) -> Ready {
        let mut last = self.last_look.lock().await;
        let (database, temporal) = match *last {
            Some((at, database, temporal)) if at.elapsed() < LOOK_COUNTS_FOR => {
                (database, temporal)
            }
            _ => {
                let database =
                    tokio::time::timeout(DATABASE_WITHIN, store::health::check(&app.pool));
                let (database, temporal) = tokio::join!(database, app.flows.check());
                let database = matches!(database, Ok(Ok(())));
                *last = Some((Instant::now(), database, temporal.is_ok()));
                (database, temporal.is_ok())
            }
        };
        let worker = self.worker.load(Ordering::Relaxed);
        let draining = self.leaving.load(Ordering::Relaxed) || self.draining.is_cancelled();
        Ready {
            ready: database && temporal && worker && !draining,
            database,
            temporal,
            worker,
            draining,
        }
    }
}
