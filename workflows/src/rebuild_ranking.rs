//! RebuildRanking: every index of the ranking is made anew from the ledger, beside the one that is
//! looked at, which it then takes the place of.
//!
//! Input: who has asked. Outcome: what each index has come to. The work is done where the index is, by whoever keeps it (an
//! api in its memory, a worker in Redis); this asks for it, once however often the step is
//! repeated, and waits until all have done it.

use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{WorkflowContext, WorkflowContextView, WorkflowResult};

use crate::{
    contract::{RankingActivities, RankingRebuildRequest, RankingRebuilt},
    options,
    visibility::STATUS,
};

/// One rebuild of the ranking.
#[workflow]
pub struct RebuildRanking {
    request: RankingRebuildRequest,
    rebuild_id: Option<i64>,
}

#[workflow_methods]
impl RebuildRanking {
    #[init]
    fn new(_ctx: &WorkflowContextView, request: RankingRebuildRequest) -> Self {
        Self {
            request,
            rebuild_id: None,
        }
    }

    /// Asks for it, and waits for it.
    #[run(name = "RebuildRanking")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<RankingRebuilt> {
        let request = ctx.state(|s| s.request.clone());
        ctx.upsert_search_attributes([STATUS.value_set("REBUILDING".to_owned())]);
        let rebuild_id = ctx
            .execute_activity(
                RankingActivities::request_ranking_rebuild,
                request,
                options::until_done("Asks every index of the ranking to be made anew".to_owned()),
            )
            .await?;
        ctx.state_mut(|s| s.rebuild_id = Some(rebuild_id));
        ctx.set_current_details(format!(
            "Rebuild {rebuild_id}: waiting for the indexes; the step's heartbeat tells how far they are."
        ));
        let rebuilt = ctx
            .execute_activity(
                RankingActivities::await_ranking_rebuild,
                rebuild_id,
                options::ranking_rebuild(format!("Waits for rebuild {rebuild_id}")),
            )
            .await?;
        ctx.set_current_details(rebuilt.to_string());
        ctx.upsert_search_attributes([STATUS.value_set("REBUILT".to_owned())]);
        Ok(rebuilt)
    }

    /// The rebuild's number, once it has been asked for.
    #[query(name = "rebuild")]
    pub fn rebuild(&self, _ctx: &WorkflowContextView) -> Option<i64> {
        self.rebuild_id
    }
}
