//! The steps behind a rebuild of the ranking: asking for it, and waiting until all have done it.

use std::{sync::Arc, time::Duration};

use activities::activity_error;
use store::{
    PgPool,
    ranking::{self as ledger, IndexState},
};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use tokio::time::Instant;
use workflows::contract::{RankingIndex, RankingRebuildRequest, RankingRebuilt, definition};

/// How often the indexes are looked at, and Temporal is told how far they are.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long somebody is waited for who keeps a ranking, when nobody does.
const SOMEBODY_WITHIN: Duration = Duration::from_secs(20);

/// What the steps work with.
pub struct Steps {
    /// The database.
    pub pool: PgPool,
}

#[activities]
impl Steps {
    /// Asks for it, once for each run of the workflow.
    #[activity(definition = definition::RequestRankingRebuild)]
    pub async fn request_ranking_rebuild(
        self: Arc<Self>,
        ctx: ActivityContext,
        request: RankingRebuildRequest,
    ) -> Result<i64, ActivityError> {
        let run = ctx.info().workflow_run_id.clone().unwrap_or_default();
        ledger::request_rebuild(&self.pool, &run, &request.asked_by)
            .await
            .map_err(activity_error)
    }

    /// Waits for it.
    #[activity(definition = definition::AwaitRankingRebuild)]
    pub async fn await_ranking_rebuild(
        self: Arc<Self>,
        ctx: ActivityContext,
        rebuild_id: i64,
    ) -> Result<RankingRebuilt, ActivityError> {
        let began = Instant::now();
        loop {
            let indexes = ledger::indexes(&self.pool).await.map_err(activity_error)?;
            let rebuilt = RankingRebuilt {
                indexes: indexes
                    .into_iter()
                    .map(|index| told(index, rebuild_id))
                    .collect(),
            };
            let nobody = rebuilt.indexes.is_empty() && began.elapsed() < SOMEBODY_WITHIN;
            if !nobody && rebuilt.indexes.iter().all(|index| index.rebuilt) {
                return Ok(rebuilt);
            }
            if let Err(error) = ctx.record_heartbeat(rebuilt).await {
                tracing::warn!(%error, "the heartbeat of a rebuild was not written");
            }
            tokio::select! {
                () = ctx.cancelled() => return Err(ActivityError::cancelled()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

fn told(index: IndexState, rebuild_id: i64) -> RankingIndex {
    // A later rebuild is one for this too.
    let rebuilt = index
        .rebuild_id
        .is_some_and(|made_for| made_for >= rebuild_id);
    let customers = if rebuilt {
        index.customers
    } else {
        index.loaded
    };
    RankingIndex {
        index: index.index_name,
        rebuilt,
        customers: customers.unwrap_or_default(),
        expected: index.expected.filter(|_| !rebuilt),
        trouble: index.trouble,
    }
}
