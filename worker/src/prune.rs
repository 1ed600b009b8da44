//! The step behind pruning: removes old records of one kind.

use std::{sync::Arc, time::Duration};

use activities::activity_error;
use domain::Prunable;
use store::{PgPool, pruning::Keep};
use temporalio_common::error::ApplicationFailure;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use workflows::contract::definition;

use crate::measures;

/// How often Temporal is told that it is alive.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);

/// What pruning works with.
pub struct Pruning {
    /// The database.
    pub pool: PgPool,
    /// How long what is kept.
    pub keep: Keep,
}

#[activities]
impl Pruning {
    /// Removes what of a kind is older than it is kept: how many.
    #[activity(definition = definition::Prune)]
    pub async fn prune(
        self: Arc<Self>,
        ctx: ActivityContext,
        what: Prunable,
    ) -> Result<u64, ActivityError> {
        let pruned = store::pruning::prune(&self.pool, what, self.keep);
        tokio::pin!(pruned);
        let mut heartbeat = tokio::time::interval(HEARTBEAT_EVERY);
        loop {
            tokio::select! {
                removed = &mut pruned => {
                    let removed = removed.map_err(activity_error)?;
                    measures::pruned(what, removed);
                    tracing::info!(%what, removed, "old records were removed");
                    return Ok(removed);
                }
                // The process ends; another one goes on.
                () = ctx.cancelled() => {
                    let cut_off = ApplicationFailure::builder("the worker stops").type_name("CutOff".to_owned());
                    return Err(ActivityError::application(cut_off.build()));
                }
                _ = heartbeat.tick() => {
                    if let Err(error) = ctx.record_heartbeat(()).await {
                        tracing::warn!(%error, "a heartbeat was not written");
                    }
                }
            }
        }
    }
}
