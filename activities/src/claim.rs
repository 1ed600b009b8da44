//! The steps of a claim. Each is a change of the assigned promotion's row.

use std::sync::Arc;

use domain::{Programme, promotion::ClaimState};
use store::{
    PgPool,
    claims::{self, Assignment, Claim},
};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use workflows::{
    contract::{ClaimStep, ClaimView, PromotionClaim, RollBackClaim, definition},
    id,
};

use crate::{activity_error, outcomes::Outcomes};

/// Gives the rules in force.
pub type Rules = Arc<dyn Fn() -> Arc<Programme> + Send + Sync>;

/// What the steps work with.
#[derive(Clone)]
pub struct ClaimSteps {
    /// The primary database.
    pub pool: PgPool,
    /// The rules in force.
    pub rules: Rules,
    /// Who waits for a claim to move on.
    pub outcomes: Outcomes,
}

fn view(row: &Assignment) -> ClaimView {
    ClaimView {
        state: row.state,
        points: row.points,
        refusal: row.refusal,
    }
}

fn row_of(claim: &PromotionClaim) -> Claim {
    Claim {
        promotion_id: claim.promotion_id.clone(),
        customer_id: claim.customer_id.clone(),
        number: claim.number,
    }
}

#[activities]
impl ClaimSteps {
    #[activity(definition = definition::MarkClaimed)]
    pub async fn mark_claimed(
        self: Arc<Self>,
        _ctx: ActivityContext,
        claim: PromotionClaim,
    ) -> Result<ClaimStep, ActivityError> {
        let rules = (self.rules)();
        let step = claims::mark(&self.pool, &row_of(&claim), &rules)
            .await
            .map_err(activity_error)?;
        Ok(self.changed(&step))
    }

    #[activity(definition = definition::CreditBonus)]
    pub async fn credit_bonus(
        self: Arc<Self>,
        _ctx: ActivityContext,
        claim: PromotionClaim,
    ) -> Result<ClaimStep, ActivityError> {
        let rules = (self.rules)();
        let workflow_id = id::claim(&claim.promotion_id, &claim.customer_id);
        let step = claims::credit(&self.pool, &row_of(&claim), &workflow_id, rules.tiers())
            .await
            .map_err(activity_error)?;
        Ok(self.changed(&step))
    }

    #[activity(definition = definition::RollBackClaim)]
    pub async fn roll_back_claim(
        self: Arc<Self>,
        _ctx: ActivityContext,
        input: RollBackClaim,
    ) -> Result<ClaimView, ActivityError> {
        let row = claims::roll_back(&self.pool, &row_of(&input.claim), input.refusal)
            .await
            .map_err(activity_error)?;
        self.tell(&row);
        Ok(view(&row))
    }
}

impl ClaimSteps {
    fn changed(&self, step: &claims::Step) -> ClaimStep {
        let row = &step.row;
        self.tell(row);
        ClaimStep {
            view: view(row),
            refused: step.refused,
        }
    }

    fn tell(&self, row: &Assignment) {
        let rests = row.state != ClaimState::Claiming;
        self.outcomes
            .claim_changed(&row.promotion_id, &row.customer_id, rests);
    }
}
