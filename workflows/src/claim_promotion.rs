//! ClaimPromotion: mark what the claim is worth, credit it; or roll the claim back.
//!
//! Input: which claim. Outcome: the row at its end. The row is the state machine: every step is a
//! conditional update of it, and this workflow follows the answer. What the rules or the account
//! refuse for good rolls the claim back; everything else is tried until it is done.

use domain::promotion::{ClaimRefusal, ClaimState};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{WorkflowContext, WorkflowContextView, WorkflowResult};

use crate::{
    contract::{ClaimActivities, ClaimStep, ClaimView, PromotionClaim, RollBackClaim},
    options,
    step::step,
    visibility::{POINTS, REASON, STATUS},
};

/// One claim.
#[workflow]
pub struct ClaimPromotion {
    claim: PromotionClaim,
}

#[workflow_methods]
impl ClaimPromotion {
    #[init]
    fn new(_ctx: &WorkflowContextView, claim: PromotionClaim) -> Self {
        Self { claim }
    }

    /// Marks and credits, or rolls back.
    #[run(name = "ClaimPromotion")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<ClaimView> {
        let mut step = Self::mark_claimed(ctx).await?;
        if step.refused.is_none() && step.view.state == ClaimState::Claiming {
            step = Self::credit_bonus(ctx, &step.view).await?;
        }
        let view = match step.refused {
            Some(refusal) => Self::roll_back_claim(ctx, refusal).await?,
            None => step.view,
        };
        Self::tell(ctx, &view);
        Ok(view)
    }

    /// Fixes what the claim is worth.
    async fn mark_claimed(ctx: &WorkflowContext<Self>) -> WorkflowResult<ClaimStep> {
        let claim = ctx.state(|s| s.claim.clone());
        let summary = "Marks what the claim is worth".to_owned();
        let budget = options::LOCAL_STEP_BUDGET;
        Ok(step(
            ctx,
            || ClaimActivities::mark_claimed,
            claim,
            summary,
            budget,
        )
        .await?)
    }

    /// Takes back that it was claimed: the undo of [`Self::mark_claimed`].
    async fn roll_back_claim(
        ctx: &WorkflowContext<Self>,
        refusal: ClaimRefusal,
    ) -> WorkflowResult<ClaimView> {
        let claim = ctx.state(|s| s.claim.clone());
        let summary = format!("Rolls the claim back: {refusal}");
        let budget = options::LOCAL_STEP_BUDGET;
        let input = RollBackClaim { claim, refusal };
        Ok(step(
            ctx,
            || ClaimActivities::roll_back_claim,
            input,
            summary,
            budget,
        )
        .await?)
    }

    /// Credits the points. Nothing undoes it.
    async fn credit_bonus(
        ctx: &WorkflowContext<Self>,
        view: &ClaimView,
    ) -> WorkflowResult<ClaimStep> {
        let claim = ctx.state(|s| s.claim.clone());
        let summary = format!("Credits {} points", view.points.unwrap_or_default());
        let budget = options::LOCAL_STEP_BUDGET;
        Ok(step(
            ctx,
            || ClaimActivities::credit_bonus,
            claim,
            summary,
            budget,
        )
        .await?)
    }

    /// Shows operators how it ended.
    fn tell(ctx: &WorkflowContext<Self>, view: &ClaimView) {
        let status = STATUS.value_set(view.state.to_string());
        match (view.refusal, view.points) {
            (Some(refusal), _) => {
                ctx.set_current_details(format!("Rolled back: {refusal}; nothing was credited"));
                ctx.upsert_search_attributes([status, REASON.value_set(refusal.to_string())]);
            }
            (None, Some(points)) => {
                ctx.set_current_details(format!("{}: {points} points", view.state));
                ctx.upsert_search_attributes([status, POINTS.value_set(points.get())]);
            }
            (None, None) => {
                ctx.set_current_details(view.state.to_string());
                ctx.upsert_search_attributes([status]);
            }
        }
    }
}
