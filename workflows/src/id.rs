//! Workflow ids and task queues: the business id, so that what happened is found by its name.
//!
//! A redemption's id is its request id, which has no slash; every other id has one.

use domain::{AssignmentJobId, CustomerId, PromotionId, RedeemRequestId};

use crate::contract::MessageRange;

/// The task queue of redemptions; the api works on it, so that they can start eagerly.
pub const REDEEM_TASK_QUEUE: &str = "redeem";
/// The task queue of claims of promotions; the api works on it, so that they can start eagerly.
pub const CLAIM_TASK_QUEUE: &str = "claim";
/// The task queue of jobs that assign promotions.
pub const ASSIGN_TASK_QUEUE: &str = "assign-promotion";
/// The task queue of award batches; only workers that read Kafka work on it.
pub const AWARD_TASK_QUEUE: &str = "award";
/// The task queue of tier upgrades.
pub const TIER_TASK_QUEUE: &str = "tier-upgrade";
/// The task queue of the relay.
pub const RELAY_TASK_QUEUE: &str = "relay";
/// The task queue of reconciliations and of pruning.
pub const RECONCILE_TASK_QUEUE: &str = "reconcile";
/// The task queue of rebuilds of the ranking.
pub const RANKING_TASK_QUEUE: &str = "ranking";

/// The queues that the worker can be told to work on.
pub const WORKER_TASK_QUEUES: [&str; 6] = [
    AWARD_TASK_QUEUE,
    RELAY_TASK_QUEUE,
    TIER_TASK_QUEUE,
    ASSIGN_TASK_QUEUE,
    RECONCILE_TASK_QUEUE,
    RANKING_TASK_QUEUE,
];

/// The schedule of reconciliations, as the Web UI shows it.
pub const RECONCILE_SCHEDULE_ID: &str = "reconciliation";
/// What the ids of scheduled reconciliations begin with; the server adds the time.
pub const RECONCILE_SCHEDULED_WORKFLOW_ID: &str = "reconcile/scheduled";
/// The one reconciliation that somebody asked for.
pub const RECONCILE_BY_HAND_WORKFLOW_ID: &str = "reconcile/by-hand";

/// The schedule of pruning.
pub const PRUNE_SCHEDULE_ID: &str = "pruning";
/// What the ids of scheduled pruning begin with; the server adds the time.
pub const PRUNE_SCHEDULED_WORKFLOW_ID: &str = "prune/scheduled";

/// The schedule of rebuilds of the ranking, as the Web UI shows it.
pub const RANKING_SCHEDULE_ID: &str = "ranking-rebuild";
/// What the ids of scheduled rebuilds begin with; the server adds the time.
pub const RANKING_SCHEDULED_WORKFLOW_ID: &str = "ranking/scheduled";
/// The one rebuild that somebody asked for.
pub const RANKING_BY_HAND_WORKFLOW_ID: &str = "ranking/by-hand";

/// The one relay.
pub const RELAY_WORKFLOW_ID: &str = "relay/outbox";

/// The id of a redemption's workflow: the request id itself.
pub fn redeem(id: &RedeemRequestId) -> String {
    id.as_str().to_owned()
}

/// The id of an award batch: topic, partition and offset range.
pub fn award(range: &MessageRange) -> String {
    format!(
        "award/{}/{}/{}-{}",
        range.topic, range.partition, range.first_offset, range.last_offset
    )
}

/// The id of a claim: the promotion and the player.
pub fn claim(promotion_id: &PromotionId, customer: &CustomerId) -> String {
    format!("claim/{promotion_id}/{customer}")
}

/// The id of a job that assigns a promotion.
pub fn assign_promotion(job_id: &AssignmentJobId) -> String {
    format!("assign-promotion/{job_id}")
}

/// The id of a tier upgrade: the customer and the order to look.
pub fn tier_upgrade(customer: &CustomerId, order_id: i64) -> String {
    format!("tier-upgrade/{customer}/{order_id}")
}
