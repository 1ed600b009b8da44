//! What reconciliation has found, as metrics: from the database, so that a worker that has just
//! started tells it too.

use std::time::Duration;

use store::{
    PgPool,
    reconcile::{findings, runs},
};
use tokio_util::sync::CancellationToken;

use crate::measures;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// Measures until told to stop.
pub async fn watch(pool: &PgPool, stop: &CancellationToken) {
    let again = async {
        loop {
            if let Err(error) = look(pool).await {
                tracing::debug!(%error, "the findings cannot be counted");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = again => {}
    }
}

async fn look(pool: &PgPool) -> Result<(), store::Error> {
    for (comparison, open) in findings::open_counts(pool).await? {
        measures::findings_open(comparison, open);
    }
    if let Some(last) = runs::last_complete(pool).await? {
        measures::reconciled_at(last);
    }
    Ok(())
}
