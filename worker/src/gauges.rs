//! What every worker measures all the time, whoever does the work: what waits does not go unseen
//! because nobody works on it.

use std::time::Duration;

use store::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{flows::Flows, measures};

/// How often it is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(5);
/// The same for what costs more.
const MEASURE_SLOWLY_EVERY: Duration = Duration::from_secs(30);
/// Within how long a single customer's points are added up.
const TO_ONE_CUSTOMER_WITHIN: Duration = Duration::from_mins(10);
/// How long one measurement may take before what it would have said is not known.
const MEASURE_WITHIN: Duration = Duration::from_secs(10);

/// Measures until told to stop.
pub async fn run(pool: &PgPool, flows: &Flows, stop: &CancellationToken) {
    let often = again(MEASURE_EVERY, || async move {
        tokio::join!(
            measure("outbox", store::relay::backlog(pool), measures::outbox),
            measure("chain", store::chain::unsealed(pool), measures::unsealed),
            measure(
                "holds",
                store::redemptions::holds_over_limit(pool),
                measures::holds_over_limit
            ),
            measure(
                "redemptions",
                store::redemptions::open(pool),
                measures::redemptions_open
            ),
            measure(
                "tier-orders",
                store::tiers::open(pool),
                measures::tier_orders_open
            ),
        );
    });
    let slowly = again(MEASURE_SLOWLY_EVERY, || async move {
        measure(
            "awards",
            store::ledger::most_awarded_to_one(pool, TO_ONE_CUSTOMER_WITHIN),
            measures::most_to_one_customer,
        )
        .await;
        for workflow in workflows::NAMES {
            measure("flows", flows.count_open(workflow), |count| {
                measures::workflows_open(workflow, count);
            })
            .await;
        }
    });
    tokio::select! {
        () = stop.cancelled() => {}
        _ = futures::future::join(often, slowly) => {}
    }
}

/// Does it again and again, with pauses.
async fn again<F: Future<Output = ()>>(every: Duration, work: impl Fn() -> F) {
    let mut turns = tokio::time::interval(every);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        work().await;
    }
}

async fn measure<T, E: std::fmt::Display>(
    what: &'static str,
    work: impl Future<Output = Result<T, E>>,
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
    measures::measured(what, measured.is_some());
    set(measured);
}
