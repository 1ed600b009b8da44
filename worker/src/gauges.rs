//! What every worker measures all the time, whoever does the work: what waits does not go unseen
//! because nobody works on it.

use std::time::Duration;

use store::PgPool;
use tokio_util::sync::CancellationToken;

use crate::measures;

/// How often it is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(5);
/// How long one measurement may take before what it would have said is not known.
const MEASURE_WITHIN: Duration = Duration::from_secs(10);

/// Measures until told to stop.
pub async fn run(pool: &PgPool, stop: &CancellationToken) {
    let again = async {
        let mut turns = tokio::time::interval(MEASURE_EVERY);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            tokio::join!(
                measure("outbox", store::relay::backlog(pool), measures::outbox),
                measure("chain", store::chain::unsealed(pool), measures::unsealed),
                measure(
                    "holds",
                    store::redemptions::holds_over_limit(pool),
                    measures::holds_over_limit
                ),
            );
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = again => {}
    }
}

async fn measure<T>(
    what: &'static str,
    work: impl Future<Output = Result<T, store::Error>>,
    set: impl FnOnce(Option<T>),
) {
    let measured = match tokio::time::timeout(MEASURE_WITHIN, work).await {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            tracing::warn!(what, %error, "this cannot be measured");
            None
        }
        Err(_) => {
            tracing::warn!(what, "this could not be measured in time");
            None
        }
    };
    if measured.is_none() {
        measures::not_measured(what);
    }
    set(measured);
}
