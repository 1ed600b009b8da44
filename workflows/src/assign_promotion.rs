//! AssignPromotion: a promotion for many players, some at a time.
//!
//! Input: which job; its players are in the database. Outcome: how many got it, had it, or are not
//! known. The rows say who has been looked at, so that a run that is cut off goes on where it
//! stood. Taken back, by a request or from the Web UI, it stops: who has the promotion keeps it.

use domain::{AssignmentJobId, PromotionId};
use serde::{Deserialize, Serialize};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{WorkflowContext, WorkflowContextView, WorkflowResult};

use crate::{
    contract::{AssignActivities, AssignPlayers, AssignmentView},
    options,
    visibility::STATUS,
};

/// Which job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignPromotionInput {
    /// The job.
    pub job_id: AssignmentJobId,
    /// The promotion, for people who read the history.
    pub promotion_id: PromotionId,
    /// How many players, for people who read the history.
    pub players: u32,
}

/// One job.
#[workflow]
pub struct AssignPromotion {
    input: AssignPromotionInput,
    last: Option<AssignmentView>,
}

#[workflow_methods]
impl AssignPromotion {
    #[init]
    fn new(_ctx: &WorkflowContextView, input: AssignPromotionInput) -> Self {
        Self { input, last: None }
    }

    /// Assigns, some players at a time, until nobody is left or it is taken back; then closes the
    /// job.
    #[run(name = "AssignPromotion")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<AssignmentView> {
        while !ctx.cancellation_token().is_cancelled() {
            let view = Self::assign_players(ctx).await?;
            if view.done() == view.players || view.cancel_requested || view.state.is_final() {
                break;
            }
        }
        Self::end_assignment(ctx).await
    }

    /// How far it has come.
    #[query(name = "progress")]
    pub fn progress(&self, _ctx: &WorkflowContextView) -> Option<AssignmentView> {
        self.last.clone()
    }

    async fn assign_players(ctx: &WorkflowContext<Self>) -> WorkflowResult<AssignmentView> {
        let done = ctx.state(|s| s.last.as_ref().map_or(0, AssignmentView::done));
        let input = AssignPlayers {
            job_id: ctx.state(|s| s.input.job_id.clone()),
            at_most: options::ASSIGNED_AT_A_TIME,
        };
        let summary = format!("Up to {} players after {done}", input.at_most);
        let view = ctx
            .execute_activity(
                AssignActivities::assign_players,
                input,
                options::assign(summary),
            )
            .await?;
        Ok(Self::keep(ctx, view))
    }

    async fn end_assignment(ctx: &WorkflowContext<Self>) -> WorkflowResult<AssignmentView> {
        let job = ctx.state(|s| s.input.job_id.clone());
        let summary = "Closes the job".to_owned();
        let view = ctx
            .execute_activity(
                AssignActivities::end_assignment,
                job,
                options::assign(summary),
            )
            .await?;
        Ok(Self::keep(ctx, view))
    }

    /// Shows operators how far it has come.
    fn keep(ctx: &WorkflowContext<Self>, view: AssignmentView) -> AssignmentView {
        ctx.set_current_details(format!("{}: {view}", view.state));
        let before = ctx.state(|s| s.last.as_ref().map(|last| last.state));
        if before != Some(view.state) {
            ctx.upsert_search_attributes([STATUS.value_set(view.state.to_string())]);
        }
        ctx.state_mut(|s| s.last = Some(view.clone()));
        view
    }
}
