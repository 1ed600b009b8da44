//! Steps of flows that fail when they are told to: before they have done anything, or after they have
//! done everything and nobody learns of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use activities::{assign::AssignSteps, claim::ClaimSteps, redeem::RedeemSteps, tier::TierSteps};
use domain::{AssignmentJobId, CustomerId, RedeemRequestId, Tier};
use temporalio_common::error::ApplicationFailure;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use workflows::contract::{
    Acknowledgement, AssignPlayers, AssignmentView, BatchOutcome, ClaimStep, ClaimView,
    ConfirmWithPartner, EvaluateTier, GatherContext, MessageRange, OrderHistory, PartnerReply,
    PromotionClaim, RecordCompletion, RedemptionView, RelayProgress, Release, Reserve,
    RollBackClaim, Settle, TierAccount, TierContext, TierOrder, UpgradeResult, UpgradeTier,
    definition,
};

/// When a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before it has done anything.
    Before,
    /// After it has done everything: the work is done, its answer is lost.
    After,
}

/// Which step fails, when, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The step's wire name.
    pub step: &'static str,
    /// Before or after its work.
    pub when: When,
    /// How many attempts fail.
    pub times: u32,
}

/// Counts attempts and fails those it is told to.
#[derive(Debug, Default)]
pub struct Faults {
    fault: Mutex<Option<Fault>>,
    attempts: Mutex<BTreeMap<&'static str, u32>>,
}

impl Faults {
    /// Fails as `fault` says, from now on.
    ///
    /// # Panics
    /// When a test has panicked meanwhile.
    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = Some(fault);
    }

    /// How often a step was attempted.
    ///
    /// # Panics
    /// When a test has panicked meanwhile.
    pub fn attempts(&self, step: &str) -> u32 {
        self.attempts
            .lock()
            .unwrap()
            .get(step)
            .copied()
            .unwrap_or_default()
    }

    fn strikes(&self, step: &'static str, when: When) -> bool {
        let mut fault = self.fault.lock().unwrap();
        match fault.as_mut() {
            Some(fault) if fault.step == step && fault.when == when && fault.times > 0 => {
                fault.times -= 1;
                true
            }
            _ => false,
        }
    }

    pub(crate) async fn around<T>(
        &self,
        step: &'static str,
        work: impl Future<Output = Result<T, ActivityError>>,
    ) -> Result<T, ActivityError> {
        *self.attempts.lock().unwrap().entry(step).or_default() += 1;
        let lost = |when: &str| {
            ActivityError::application(ApplicationFailure::new(format!("forced {when} {step}")))
        };
        if self.strikes(step, When::Before) {
            return Err(lost("before"));
        }
        let result = work.await;
        if self.strikes(step, When::After) {
            return Err(lost("after"));
        }
        result
    }
}

/// The steps of a redemption, with faults.
pub struct FaultyRedeemSteps {
    /// The real steps.
    pub steps: Arc<RedeemSteps>,
    /// What fails.
    pub faults: Arc<Faults>,
}

#[activities]
impl FaultyRedeemSteps {
    #[activity(definition = definition::Reserve)]
    pub async fn reserve(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: Reserve,
    ) -> Result<RedemptionView, ActivityError> {
        let work = RedeemSteps::reserve.run(self.steps.clone(), ctx, input);
        self.faults.around("reserve", work).await
    }

    #[activity(definition = definition::ConfirmWithPartner)]
    pub async fn confirm_with_partner(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: ConfirmWithPartner,
    ) -> Result<PartnerReply, ActivityError> {
        let work = RedeemSteps::confirm_with_partner.run(self.steps.clone(), ctx, input);
        self.faults.around("confirm-with-partner", work).await
    }

    #[activity(definition = definition::AskPartnerStatus)]
    pub async fn ask_partner_status(
        self: Arc<Self>,
        ctx: ActivityContext,
        id: RedeemRequestId,
    ) -> Result<PartnerReply, ActivityError> {
        let work = RedeemSteps::ask_partner_status.run(self.steps.clone(), ctx, id);
        self.faults.around("ask-partner-status", work).await
    }

    #[activity(definition = definition::VoidAtPartner)]
    pub async fn void_at_partner(
        self: Arc<Self>,
        ctx: ActivityContext,
        id: RedeemRequestId,
    ) -> Result<PartnerReply, ActivityError> {
        let work = RedeemSteps::void_at_partner.run(self.steps.clone(), ctx, id);
        self.faults.around("void-at-partner", work).await
    }

    #[activity(definition = definition::Settle)]
    pub async fn settle(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: Settle,
    ) -> Result<RedemptionView, ActivityError> {
        let work = RedeemSteps::settle.run(self.steps.clone(), ctx, input);
        self.faults.around("settle", work).await
    }

    #[activity(definition = definition::Release)]
    pub async fn release(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: Release,
    ) -> Result<RedemptionView, ActivityError> {
        let work = RedeemSteps::release.run(self.steps.clone(), ctx, input);
        self.faults.around("release", work).await
    }

    #[activity(definition = definition::RequestCancel)]
    pub async fn request_cancel(
        self: Arc<Self>,
        ctx: ActivityContext,
        id: RedeemRequestId,
    ) -> Result<RedemptionView, ActivityError> {
        let work = RedeemSteps::request_cancel.run(self.steps.clone(), ctx, id);
        self.faults.around("request-cancel", work).await
    }

    #[activity(definition = definition::ReadRedemption)]
    pub async fn read_redemption(
        self: Arc<Self>,
        ctx: ActivityContext,
        id: RedeemRequestId,
    ) -> Result<RedemptionView, ActivityError> {
        let work = RedeemSteps::read_redemption.run(self.steps.clone(), ctx, id);
        self.faults.around("read-redemption", work).await
    }
}

/// The steps of a tier upgrade, with faults.
pub struct FaultyTierSteps {
    /// The real steps.
    pub steps: Arc<TierSteps>,
    /// What fails.
    pub faults: Arc<Faults>,
}

#[activities]
impl FaultyTierSteps {
    #[activity(definition = definition::ReadAccount)]
    pub async fn read_account(
        self: Arc<Self>,
        ctx: ActivityContext,
        order: TierOrder,
    ) -> Result<TierAccount, ActivityError> {
        let work = TierSteps::read_account.run(self.steps.clone(), ctx, order);
        self.faults.around("read-account", work).await
    }

    #[activity(definition = definition::EvaluateTier)]
    pub async fn evaluate_tier(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: EvaluateTier,
    ) -> Result<Option<Tier>, ActivityError> {
        let work = TierSteps::evaluate_tier.run(self.steps.clone(), ctx, input);
        self.faults.around("evaluate-tier", work).await
    }

    #[activity(definition = definition::GatherContext)]
    pub async fn gather_context(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: GatherContext,
    ) -> Result<TierContext, ActivityError> {
        let work = TierSteps::gather_context.run(self.steps.clone(), ctx, input);
        self.faults.around("gather-context", work).await
    }

    #[activity(definition = definition::FetchOrderHistory)]
    pub async fn fetch_order_history(
        self: Arc<Self>,
        ctx: ActivityContext,
        customer: CustomerId,
    ) -> Result<OrderHistory, ActivityError> {
        let work = TierSteps::fetch_order_history.run(self.steps.clone(), ctx, customer);
        self.faults.around("fetch-order-history", work).await
    }

    #[activity(definition = definition::UpgradeTier)]
    pub async fn upgrade_tier(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: UpgradeTier,
    ) -> Result<UpgradeResult, ActivityError> {
        let work = TierSteps::upgrade_tier.run(self.steps.clone(), ctx, input);
        self.faults.around("upgrade-tier", work).await
    }

    #[activity(definition = definition::AwaitNotificationAck)]
    pub async fn await_notification_ack(
        self: Arc<Self>,
        ctx: ActivityContext,
        order: TierOrder,
    ) -> Result<Acknowledgement, ActivityError> {
        let work = TierSteps::await_notification_ack.run(self.steps.clone(), ctx, order);
        self.faults.around("await-notification-ack", work).await
    }

    #[activity(definition = definition::RecordCompletion)]
    pub async fn record_completion(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: RecordCompletion,
    ) -> Result<(), ActivityError> {
        let work = TierSteps::record_completion.run(self.steps.clone(), ctx, input);
        self.faults.around("record-completion", work).await
    }
}

/// The steps of a claim, with faults.
pub struct FaultyClaimSteps {
    /// The real steps.
    pub steps: Arc<ClaimSteps>,
    /// What fails.
    pub faults: Arc<Faults>,
}

#[activities]
impl FaultyClaimSteps {
    #[activity(definition = definition::MarkClaimed)]
    pub async fn mark_claimed(
        self: Arc<Self>,
        ctx: ActivityContext,
        claim: PromotionClaim,
    ) -> Result<ClaimStep, ActivityError> {
        let work = ClaimSteps::mark_claimed.run(self.steps.clone(), ctx, claim);
        self.faults.around("mark-claimed", work).await
    }

    #[activity(definition = definition::CreditBonus)]
    pub async fn credit_bonus(
        self: Arc<Self>,
        ctx: ActivityContext,
        claim: PromotionClaim,
    ) -> Result<ClaimStep, ActivityError> {
        let work = ClaimSteps::credit_bonus.run(self.steps.clone(), ctx, claim);
        self.faults.around("credit-bonus", work).await
    }

    #[activity(definition = definition::RollBackClaim)]
    pub async fn roll_back_claim(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: RollBackClaim,
    ) -> Result<ClaimView, ActivityError> {
        let work = ClaimSteps::roll_back_claim.run(self.steps.clone(), ctx, input);
        self.faults.around("roll-back-claim", work).await
    }
}

/// The steps of an assignment, with faults.
pub struct FaultyAssignSteps {
    /// The real steps.
    pub steps: Arc<AssignSteps>,
    /// What fails.
    pub faults: Arc<Faults>,
}

#[activities]
impl FaultyAssignSteps {
    #[activity(definition = definition::AssignPlayers)]
    pub async fn assign_players(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: AssignPlayers,
    ) -> Result<AssignmentView, ActivityError> {
        let work = AssignSteps::assign_players.run(self.steps.clone(), ctx, input);
        self.faults.around("assign-players", work).await
    }

    #[activity(definition = definition::EndAssignment)]
    pub async fn end_assignment(
        self: Arc<Self>,
        ctx: ActivityContext,
        job: AssignmentJobId,
    ) -> Result<AssignmentView, ActivityError> {
        let work = AssignSteps::end_assignment.run(self.steps.clone(), ctx, job);
        self.faults.around("end-assignment", work).await
    }
}

/// Posts one event for a batch, really, with faults.
pub struct FaultyAwardSteps {
    /// The database.
    pub pool: store::PgPool,
    /// The rules.
    pub programme: domain::programme::Programme,
    /// The event that every batch holds.
    pub award: domain::command::Award,
    /// What fails.
    pub faults: Arc<Faults>,
}

#[activities]
impl FaultyAwardSteps {
    #[activity(definition = definition::PostBatch)]
    pub async fn post_batch(
        self: Arc<Self>,
        _ctx: ActivityContext,
        _range: MessageRange,
    ) -> Result<BatchOutcome, ActivityError> {
        self.faults.around("post-batch", self.post()).await
    }
}

impl FaultyAwardSteps {
    async fn post(&self) -> Result<BatchOutcome, ActivityError> {
        use store::{
            ledger::{self, Posting},
            transaction,
        };
        let mut tx = transaction::begin(&self.pool).await?;
        let awards = std::slice::from_ref(&self.award);
        let postings = ledger::post_awards(&mut tx, &self.programme, "test", awards).await?;
        transaction::commit(tx, "test").await?;
        let posted = matches!(postings[0], Posting::Posted(_));
        Ok(BatchOutcome {
            posted: u32::from(posted),
            duplicates: u32::from(!posted),
            ..BatchOutcome::default()
        })
    }
}

/// A relay that publishes nothing and ends its shift at once, with faults.
pub struct FaultyRelaySteps {
    /// What fails.
    pub faults: Arc<Faults>,
}

#[activities]
impl FaultyRelaySteps {
    #[activity(definition = definition::PublishOutbox)]
    pub async fn publish_outbox(
        self: Arc<Self>,
        _ctx: ActivityContext,
        _shift_seconds: u64,
    ) -> Result<RelayProgress, ActivityError> {
        let shift = async { Ok(RelayProgress { published: 1 }) };
        self.faults.around("publish-outbox", shift).await
    }
}
