//! What workflows and activities agree on: activity definitions, their wire names, inputs and
//! results.
//!
//! Names and fields stand in recorded histories. Fields are only ever added, with a default.

#![expect(
    clippy::needless_pass_by_value,
    reason = "declarations have no bodies that could use their input"
)]

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::{
    AssignmentJobId, Comparison, CustomerId, Points, PromotionId, Prunable, RedeemRequestId, Tier,
    message::Recommendation,
    promotion::{AssignmentState, ClaimRefusal, ClaimState},
    redemption::{FailureReason, PartnerVerdict, RedemptionState},
};
use serde::{Deserialize, Serialize};
use temporalio_common::ActivityError;
use temporalio_macros::activity_definitions;

// ---------------------------------------------------------------------------------------- award

/// Consecutive messages of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageRange {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first message's offset.
    pub first_offset: i64,
    /// The last message's offset, included.
    pub last_offset: i64,
    /// How many messages there are; offsets may have gaps.
    pub messages: u32,
}

/// What became of a batch of messages. Small on purpose: it stands in the workflow's history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchOutcome {
    /// Events posted now, with or without points.
    pub posted: u32,
    /// Points awarded now.
    pub points: i64,
    /// Events that had been posted before.
    pub duplicates: u32,
    /// Messages of a kind that Meed has no use for.
    pub ignored: u32,
    /// Messages sent to the dead letters, by class.
    pub refused: BTreeMap<String, u32>,
    /// The first few refusals: offset and reason.
    pub refusals: Vec<String>,
}

/// Activities of an award batch.
pub struct AwardActivities;

#[activity_definitions]
impl AwardActivities {
    /// Reads the range, posts every event of it in one transaction and sends each refused one to
    /// the dead letters. Posting a range again changes nothing.
    #[activity(name = "post-batch")]
    pub fn post_batch(range: MessageRange) -> Result<BatchOutcome, ActivityError> {
        unimplemented!()
    }
}

// --------------------------------------------------------------------------------------- redeem

/// A redemption's row as a step left it. The workflow follows this, never its memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedemptionView {
    /// Where it stands.
    pub state: RedemptionState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<FailureReason>,
    /// What the partner has finally said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<PartnerVerdict>,
    /// Whether the client took it back.
    #[serde(default)]
    pub cancel_requested: bool,
    /// When the hold's time is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_expires_at: Option<DateTime<Utc>>,
    /// Points deducted.
    #[serde(default)]
    pub points_deducted: Points,
    /// The customer's available balance after it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance_after: Option<Points>,
}

/// Input of `reserve`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reserve {
    /// Which redemption.
    pub redeem_request_id: RedeemRequestId,
    /// How long the hold may last, in milliseconds.
    pub hold_ttl_ms: u64,
}

/// Input of `confirm-with-partner`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmWithPartner {
    /// Which redemption.
    pub redeem_request_id: RedeemRequestId,
    /// Set on the short first attempt: how long the partner may take, in milliseconds. It is not
    /// asked at all while its circuit is open or its bulkhead full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quick_attempt_ms: Option<u64>,
}

/// What the partner said, or why there is no word of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PartnerAnswer {
    /// It delivers; its confirmation id, if it gave one.
    Confirmed {
        /// The partner's confirmation id.
        confirmation_id: Option<String>,
    },
    /// It will call back.
    Pending,
    /// It does not deliver; recorded in the row.
    Refused,
    /// It will never confirm this id; recorded in the row.
    Voided,
    /// It knows nothing of this id, which proves nothing: a request may still be on its way.
    Unknown,
    /// It was not asked: the row had moved on, or a quick attempt was not possible.
    NotAsked,
}

/// Result of every activity that speaks with a partner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartnerReply {
    /// What it said.
    pub answer: PartnerAnswer,
    /// The row after what was said has been recorded.
    pub view: RedemptionView,
}

/// Input of `settle`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settle {
    /// Which redemption.
    pub redeem_request_id: RedeemRequestId,
    /// The partner's confirmation id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmation_id: Option<String>,
    /// Settle although the client took it back: the partner has said that it cannot be undone.
    #[serde(default)]
    pub beyond_cancel: bool,
}

/// Input of `release`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Which redemption.
    pub redeem_request_id: RedeemRequestId,
    /// Why nothing is deducted.
    pub reason: FailureReason,
}

/// Activities of a redemption.
pub struct RedeemActivities;

#[activity_definitions]
impl RedeemActivities {
    /// Moves the points from available to held, or ends FAILED. Mints the callback id.
    #[activity(name = "reserve")]
    pub fn reserve(input: Reserve) -> Result<RedemptionView, ActivityError> {
        unimplemented!()
    }

    /// Commits CONFIRMING, then asks the merchant to deliver, under the request id as key.
    #[activity(name = "confirm-with-partner")]
    pub fn confirm_with_partner(input: ConfirmWithPartner) -> Result<PartnerReply, ActivityError> {
        unimplemented!()
    }

    /// Asks the merchant what became of the redemption.
    #[activity(name = "ask-partner-status")]
    pub fn ask_partner_status(id: RedeemRequestId) -> Result<PartnerReply, ActivityError> {
        unimplemented!()
    }

    /// Takes the confirmation back at the merchant, for good; or learns that it stands.
    #[activity(name = "void-at-partner")]
    pub fn void_at_partner(id: RedeemRequestId) -> Result<PartnerReply, ActivityError> {
        unimplemented!()
    }

    /// Deducts the held points and writes the SUCCESS answer.
    #[activity(name = "settle")]
    pub fn settle(input: Settle) -> Result<RedemptionView, ActivityError> {
        unimplemented!()
    }

    /// Gives the held points back and writes the FAILED answer; the undo of `reserve`.
    #[activity(name = "release")]
    pub fn release(input: Release) -> Result<RedemptionView, ActivityError> {
        unimplemented!()
    }

    /// Records that the redemption is to be taken back.
    #[activity(name = "request-cancel")]
    pub fn request_cancel(id: RedeemRequestId) -> Result<RedemptionView, ActivityError> {
        unimplemented!()
    }

    /// Reads the row: what a callback or another run has recorded.
    #[activity(name = "read-redemption")]
    pub fn read_redemption(id: RedeemRequestId) -> Result<RedemptionView, ActivityError> {
        unimplemented!()
    }
}

// --------------------------------------------------------------------------------- tier upgrade

/// Which order to look at which customer's tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierOrder {
    /// The order.
    pub order_id: i64,
    /// The customer.
    pub customer_id: CustomerId,
}

/// What `read-account` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierAccount {
    /// Available and held points together.
    pub current_points: Points,
    /// The customer's tier.
    pub tier: Tier,
    /// How often the tier has changed; the optimistic lock.
    pub tier_version: i64,
    /// What this order has already done, when a run before this one was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub already_upgraded: Option<Upgraded>,
}

/// What came of asking the product services.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierContext {
    /// Up to three products.
    pub recommendations: Vec<Recommendation>,
    /// Services that did not answer.
    #[serde(default)]
    pub unreachable: Vec<String>,
}

/// Input of `gather-context`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatherContext {
    /// The customer.
    pub customer_id: CustomerId,
    /// The tier the customer is due.
    pub tier: Tier,
}

/// What came of asking the Order Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderHistory {
    /// How many orders the customer has placed.
    pub orders: u32,
}

/// Input of `upgrade-tier`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeTier {
    /// The order.
    pub order: TierOrder,
    /// The tier to give.
    pub tier: Tier,
    /// The tier version that was read; another one now means that somebody else was first.
    pub expected_tier_version: i64,
    /// What to recommend in the notification.
    pub recommendations: Vec<Recommendation>,
    /// How long the acknowledgement may take, in milliseconds.
    pub acknowledge_within_ms: u64,
}

/// A tier that was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upgraded {
    /// The tier before.
    pub previous_tier: Tier,
    /// The tier now.
    pub new_tier: Tier,
    /// When it was given.
    pub upgraded_at: DateTime<Utc>,
    /// Until when the acknowledgement counts.
    pub acknowledge_until: DateTime<Utc>,
}

/// What `upgrade-tier` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UpgradeResult {
    /// The tier was given and `loyalty.tierUpgraded.v1` written in the same transaction.
    Upgraded(Upgraded),
    /// The tier version had changed; nothing was written.
    Conflict,
}

/// Whether the customer was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Acknowledgement {
    /// Nobody has answered.
    Waiting,
    /// The acknowledger answered success.
    Acknowledged,
    /// The acknowledger answered failure.
    Failed,
    /// Nobody answered in time.
    TimedOut,
}

/// How a tier upgrade ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TierOutcome {
    /// The customer was below the next threshold.
    NotDue,
    /// Another change of the tier came first.
    Conflict,
    /// The tier was given and acknowledged.
    Acknowledged,
    /// The tier was given; the acknowledger reported failure.
    NotificationFailed,
    /// The tier was given; nobody acknowledged in time.
    NotAcknowledged,
}

impl TierOutcome {
    /// The outcome's name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotDue => "NOT_DUE",
            Self::Conflict => "CONFLICT",
            Self::Acknowledged => "ACKNOWLEDGED",
            Self::NotificationFailed => "NOTIFICATION_FAILED",
            Self::NotAcknowledged => "NOT_ACKNOWLEDGED",
        }
    }
}

/// Input of `record-completion`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordCompletion {
    /// The order.
    pub order: TierOrder,
    /// How it ended.
    pub outcome: TierOutcome,
}

/// Input of `evaluate-tier`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvaluateTier {
    /// Available and held points together.
    pub current_points: Points,
    /// The customer's tier.
    pub tier: Tier,
}

/// Activities of a tier upgrade.
pub struct TierActivities;

#[activity_definitions]
impl TierActivities {
    /// Reads the account and what this order has already done.
    #[activity(name = "read-account")]
    pub fn read_account(order: TierOrder) -> Result<TierAccount, ActivityError> {
        unimplemented!()
    }

    /// Decides which tier is due, by the thresholds in force.
    #[activity(name = "evaluate-tier")]
    pub fn evaluate_tier(input: EvaluateTier) -> Result<Option<Tier>, ActivityError> {
        unimplemented!()
    }

    /// Asks the Product Service and the Product Search Service at the same time.
    #[activity(name = "gather-context")]
    pub fn gather_context(input: GatherContext) -> Result<TierContext, ActivityError> {
        unimplemented!()
    }

    /// Asks the Order Service.
    #[activity(name = "fetch-order-history")]
    pub fn fetch_order_history(customer: CustomerId) -> Result<OrderHistory, ActivityError> {
        unimplemented!()
    }

    /// Gives the tier, mints the callback id and writes `loyalty.tierUpgraded.v1`, all at once.
    #[activity(name = "upgrade-tier")]
    pub fn upgrade_tier(input: UpgradeTier) -> Result<UpgradeResult, ActivityError> {
        unimplemented!()
    }

    /// Reads whether the notification has been acknowledged.
    #[activity(name = "await-notification-ack")]
    pub fn await_notification_ack(order: TierOrder) -> Result<Acknowledgement, ActivityError> {
        unimplemented!()
    }

    /// Closes the order, and opens the next one when a tier is still due.
    #[activity(name = "record-completion")]
    pub fn record_completion(input: RecordCompletion) -> Result<(), ActivityError> {
        unimplemented!()
    }
}

// ---------------------------------------------------------------------------------------- claim

/// One claim of a promotion by a player.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PromotionClaim {
    /// The promotion.
    pub promotion_id: PromotionId,
    /// The player.
    pub customer_id: CustomerId,
    /// Which of the player's claims, from 1: there are several where one was rolled back.
    pub number: i32,
}

/// A claim's row as a step left it. The workflow follows this, never its memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimView {
    /// How far it has come.
    pub state: ClaimState,
    /// What it is worth, once that is fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points: Option<Points>,
    /// Why it was rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<ClaimRefusal>,
}

/// What a step of a claim came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimStep {
    /// The row as the step left it.
    pub view: ClaimView,
    /// Why the claim has to be rolled back; the step has changed nothing then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<ClaimRefusal>,
}

/// Input of `roll-back-claim`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RollBackClaim {
    /// Which claim.
    pub claim: PromotionClaim,
    /// Why.
    pub refusal: ClaimRefusal,
}

/// Activities of a claim.
pub struct ClaimActivities;

#[activity_definitions]
impl ClaimActivities {
    /// Marks in the row what the claim is worth, by the rules in force.
    #[activity(name = "mark-claimed")]
    pub fn mark_claimed(claim: PromotionClaim) -> Result<ClaimStep, ActivityError> {
        unimplemented!()
    }

    /// Credits the points, tells of the new total and ends the claim, all at once.
    #[activity(name = "credit-bonus")]
    pub fn credit_bonus(claim: PromotionClaim) -> Result<ClaimStep, ActivityError> {
        unimplemented!()
    }

    /// Makes the promotion unclaimed again; the undo of claiming.
    #[activity(name = "roll-back-claim")]
    pub fn roll_back_claim(input: RollBackClaim) -> Result<ClaimView, ActivityError> {
        unimplemented!()
    }
}

// ----------------------------------------------------------------------------- assign promotion

/// Input of `assign-players`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignPlayers {
    /// Which job.
    pub job_id: AssignmentJobId,
    /// How many players to look at.
    pub at_most: u32,
}

/// How far an assignment has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentView {
    /// Where it stands.
    pub state: AssignmentState,
    /// Whether somebody took it back.
    #[serde(default)]
    pub cancel_requested: bool,
    /// How many players it is about.
    pub players: u32,
    /// How many of them have the promotion by it.
    pub assigned: u32,
    /// How many had it before.
    pub already: u32,
    /// How many have no account.
    pub unknown: u32,
}

impl AssignmentView {
    /// How many players were looked at.
    pub const fn done(&self) -> u32 {
        self.assigned + self.already + self.unknown
    }
}

impl std::fmt::Display for AssignmentView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} of {} players looked at: {} assigned, {} had it before, {} unknown",
            self.done(),
            self.players,
            self.assigned,
            self.already,
            self.unknown
        )
    }
}

/// Activities of an assignment.
pub struct AssignActivities;

#[activity_definitions]
impl AssignActivities {
    /// Looks at the next players in one transaction: who has an account and not the promotion gets
    /// it, and a notification of it.
    #[activity(name = "assign-players")]
    pub fn assign_players(input: AssignPlayers) -> Result<AssignmentView, ActivityError> {
        unimplemented!()
    }

    /// Closes the job: done, or cancelled with players left.
    #[activity(name = "end-assignment")]
    pub fn end_assignment(job: AssignmentJobId) -> Result<AssignmentView, ActivityError> {
        unimplemented!()
    }
}

// ---------------------------------------------------------------------------------------- relay

/// What the relay has done, as its heartbeats tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayProgress {
    /// Messages that Kafka has acknowledged.
    pub published: u64,
}

/// Activities of the relay.
pub struct RelayActivities;

#[activity_definitions]
impl RelayActivities {
    /// Publishes the outbox for `shift_seconds`, then hands over.
    #[activity(name = "publish-outbox")]
    pub fn publish_outbox(shift_seconds: u64) -> Result<RelayProgress, ActivityError> {
        unimplemented!()
    }
}

// ------------------------------------------------------------------------------------ reconcile

/// Input of a reconciliation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReconcileRequest {
    /// Whether what is safe is put right. Otherwise nothing is changed but the list of findings.
    pub repair: bool,
    /// From when on to look; otherwise from where the last reconciliation ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
}

/// Input of every comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compare {
    /// Whether what is safe is put right.
    pub repair: bool,
    /// From when on to look, where somebody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// When this reconciliation began.
    pub started_at: DateTime<Utc>,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComparisonOutcome {
    /// How many things were looked at.
    pub looked_at: u64,
    /// How many of them agree.
    pub agree: u64,
    /// How many were put right.
    pub repaired: u64,
    /// How many findings are open, older ones included.
    pub open: u64,
    /// How many could not be compared, such as while a merchant was out of reach.
    #[serde(default)]
    pub not_compared: u64,
    /// What is no disagreement, and worth a look: the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listed: Vec<String>,
}

/// A comparison that has been made, or could not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    /// Which one.
    pub comparison: Comparison,
    /// What it found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<ComparisonOutcome>,
    /// Why it could not be finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl std::fmt::Display for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let title = self.comparison.title();
        match (&self.outcome, &self.trouble) {
            (Some(found), _) => {
                write!(
                    f,
                    "{title}: {} looked at, {} agree, {} repaired, {} findings open",
                    found.looked_at, found.agree, found.repaired, found.open
                )?;
                if found.not_compared > 0 {
                    write!(f, ", {} not compared", found.not_compared)?;
                }
                Ok(())
            }
            (None, trouble) => write!(
                f,
                "{title}: not finished ({})",
                trouble.as_deref().unwrap_or("for an unknown reason")
            ),
        }
    }
}

/// What a reconciliation came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReconcileReport {
    /// The comparisons, in the order in which they were made.
    pub compared: Vec<Compared>,
}

impl ReconcileReport {
    /// How many findings are open.
    pub fn open(&self) -> u64 {
        let outcomes = self.compared.iter().filter_map(|c| c.outcome.as_ref());
        outcomes.map(|outcome| outcome.open).sum()
    }

    /// How many comparisons could not be finished.
    pub fn unfinished(&self) -> usize {
        self.compared.iter().filter(|c| c.outcome.is_none()).count()
    }
}

/// Input of `record-reconciliation`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordReconciliation {
    /// What was asked.
    pub compare: Compare,
    /// What came of it.
    pub report: ReconcileReport,
}

/// Activities of a reconciliation.
pub struct ReconcileActivities;

#[activity_definitions]
impl ReconcileActivities {
    /// Kafka events against ledger: every message up to the intake's committed offsets has had
    /// its effect, or is a dead letter.
    #[activity(name = "compare-events")]
    pub fn compare_events(input: Compare) -> Result<ComparisonOutcome, ActivityError> {
        unimplemented!()
    }

    /// Ledger against balances: every balance is the fold of its transfers.
    #[activity(name = "compare-balances")]
    pub fn compare_balances(input: Compare) -> Result<ComparisonOutcome, ActivityError> {
        unimplemented!()
    }

    /// Ledger against confirmations: everything that happened was told, and nothing else.
    #[activity(name = "compare-confirmations")]
    pub fn compare_confirmations(input: Compare) -> Result<ComparisonOutcome, ActivityError> {
        unimplemented!()
    }

    /// Holds and tier orders against open workflows.
    #[activity(name = "compare-flows")]
    pub fn compare_flows(input: Compare) -> Result<ComparisonOutcome, ActivityError> {
        unimplemented!()
    }

    /// The merchants' books against redemptions that have ended.
    #[activity(name = "compare-partners")]
    pub fn compare_partners(input: Compare) -> Result<ComparisonOutcome, ActivityError> {
        unimplemented!()
    }

    /// Records the run, for people and alerts.
    #[activity(name = "record-reconciliation")]
    pub fn record_reconciliation(input: RecordReconciliation) -> Result<(), ActivityError> {
        unimplemented!()
    }
}

// -------------------------------------------------------------------------------------- pruning

/// What was removed of a kind of records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pruned {
    /// Which kind.
    pub what: Prunable,
    /// How many were removed; nothing when it could not be finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<u64>,
}

impl std::fmt::Display for Pruned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.removed {
            Some(removed) => write!(f, "{removed} {} removed", self.what.title()),
            None => write!(f, "{}: not finished", self.what.title()),
        }
    }
}

/// Activities of pruning.
pub struct PruneActivities;

#[activity_definitions]
impl PruneActivities {
    /// Removes what of a kind is older than it is kept: how many.
    #[activity(name = "prune")]
    pub fn prune(what: Prunable) -> Result<u64, ActivityError> {
        unimplemented!()
    }
}

// -------------------------------------------------------------------------------------- ranking

/// Input of a rebuild of the ranking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RankingRebuildRequest {
    /// Who has asked for it.
    pub asked_by: String,
}

/// How far an index of the ranking is with a rebuild, or what it has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RankingIndex {
    /// Its name.
    pub index: String,
    /// Whether it has been made anew.
    pub rebuilt: bool,
    /// How many customers are in it, or in the one that is being made.
    pub customers: i64,
    /// About how many there will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<i64>,
    /// What keeps it from its work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl std::fmt::Display for RankingIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            index, customers, ..
        } = self;
        match (self.rebuilt, self.expected, &self.trouble) {
            (true, _, _) => write!(f, "{index}: made anew with {customers} customers"),
            (_, _, Some(trouble)) => write!(f, "{index}: not yet ({trouble})"),
            (_, Some(expected), _) => {
                write!(f, "{index}: {customers} of about {expected} customers")
            }
            (_, None, _) => write!(f, "{index}: not begun"),
        }
    }
}

/// How far a rebuild of the ranking is, as its heartbeats tell, or what it came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RankingRebuilt {
    /// The indexes that are kept. Another one is made from the ledger when it is begun.
    pub indexes: Vec<RankingIndex>,
}

impl std::fmt::Display for RankingRebuilt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.indexes.is_empty() {
            return f.write_str(
                "Nobody keeps a ranking now; it is made from the ledger when somebody does.",
            );
        }
        let lines: Vec<String> = self.indexes.iter().map(RankingIndex::to_string).collect();
        f.write_str(&lines.join("\n\n"))
    }
}

/// Activities of a rebuild of the ranking.
pub struct RankingActivities;

#[activity_definitions]
impl RankingActivities {
    /// Asks for every index to be made anew; repeated, it is the same rebuild. Its number.
    #[activity(name = "request-ranking-rebuild")]
    pub fn request_ranking_rebuild(request: RankingRebuildRequest) -> Result<i64, ActivityError> {
        unimplemented!()
    }

    /// Waits until every index that is kept has been made anew for this rebuild.
    #[activity(name = "await-ranking-rebuild")]
    pub fn await_ranking_rebuild(rebuild_id: i64) -> Result<RankingRebuilt, ActivityError> {
        unimplemented!()
    }
}

/// The definitions by type, for those who implement them.
pub mod definition {
    pub use super::{
        assign_activities::*, award_activities::*, claim_activities::*, prune_activities::*,
        ranking_activities::*, reconcile_activities::*, redeem_activities::*, relay_activities::*,
        tier_activities::*,
    };
}
