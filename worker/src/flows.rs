//! How flows are started: ids, queues, policies, and what operators see of them.

use std::{sync::Arc, time::Duration};

use boot::{Settings, claim::ClaimStarter, redeem::RedeemStarter};
use domain::{CustomerId, MerchantId, Points, RedeemRequestId, Tier};
use opentelemetry::context::FutureExt;
use temporalio_client::{
    Client, RetryOptions, RpcOptions, WorkflowCountOptions, WorkflowDescribeOptions,
    WorkflowExecutionStatus, WorkflowGetResultOptions, WorkflowIdConflictPolicy,
    WorkflowIdReusePolicy, WorkflowSignalOptions, WorkflowStartOptions,
    errors::{ClientError, WorkflowGetResultError, WorkflowInteractionError, WorkflowStartError},
};
use workflows::{
    AssignPromotion, AwardBatch, Redeem, Relay, TierUpgrade,
    assign_promotion::AssignPromotionInput,
    contract::{BatchOutcome, MessageRange, PromotionClaim, TierOrder},
    id,
    tier_upgrade::TierUpgradeInput,
    visibility::{self, StartVisibility},
};

use crate::traces;

/// How long the server may take to accept a start or a signal.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one question for a batch's outcome may take; the server answers within 20 s or so,
/// and then it is asked again.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(40);
/// How long after a worker was killed another one may go on with its award batch.
const AWARD_TASK_TIMEOUT: Duration = Duration::from_secs(5);

/// One attempt: whoever calls decides about trying again.
pub fn once() -> RpcOptions {
    within(CALL_TIMEOUT)
}

/// One attempt of a call that may take this long.
pub fn within(timeout: Duration) -> RpcOptions {
    RpcOptions::builder()
        .timeout(timeout)
        .retry_options(RetryOptions::no_retries())
        .build()
}

/// Starting what is running gives the running one; starting what has ended runs it again, which
/// the rows make harmless.
fn start(queue: &str, id: String, seen: StartVisibility) -> WorkflowStartOptions {
    let mut options = bare(queue, id);
    options.static_summary = Some(seen.summary);
    options.search_attributes = Some(seen.attributes);
    options
}

fn bare(queue: &str, id: String) -> WorkflowStartOptions {
    WorkflowStartOptions::new(queue, id)
        .id_reuse_policy(WorkflowIdReusePolicy::AllowDuplicate)
        .id_conflict_policy(WorkflowIdConflictPolicy::UseExisting)
        .rpc_options(once())
        .build()
}

/// Starts flows.
#[derive(Clone)]
pub struct Flows {
    client: Client,
    settings: Arc<Settings>,
    redeem: RedeemStarter,
    claim: ClaimStarter,
}

/// A redemption that is to be started.
#[derive(Debug, Clone)]
pub struct RedemptionToStart {
    /// Which one.
    pub id: RedeemRequestId,
    /// Whose.
    pub customer: CustomerId,
    /// Where.
    pub merchant: MerchantId,
    /// How much.
    pub points: Points,
    /// The trace to start it in, if not in the one under way.
    pub traceparent: Option<String>,
}

impl Flows {
    /// Flows on this connection, with the time limits of these settings.
    pub fn new(client: Client, settings: Arc<Settings>) -> Self {
        let redeem = RedeemStarter::new(client.clone(), Arc::clone(&settings), false);
        let claim = ClaimStarter::new(client.clone(), Arc::clone(&settings), false);
        Self {
            client,
            settings,
            redeem,
            claim,
        }
    }

    /// Starts an award batch, eagerly: its worker is in this process.
    ///
    /// # Errors
    /// What the server or the connection reports; it may have been started all the same.
    pub async fn start_award(&self, range: &MessageRange) -> Result<(), WorkflowStartError> {
        let mut options = start(
            id::AWARD_TASK_QUEUE,
            id::award(range),
            visibility::award(range),
        );
        options.enable_eager_workflow_start = true;
        options.task_timeout = Some(AWARD_TASK_TIMEOUT);
        self.client
            .start_workflow(AwardBatch::run, range.clone(), options)
            .await
            .map(drop)
    }

    /// Waits for the outcome of an award batch.
    ///
    /// # Errors
    /// How the workflow ended, if not well, or what the server or the connection reports.
    pub async fn award_outcome(
        &self,
        range: &MessageRange,
    ) -> Result<BatchOutcome, WorkflowGetResultError> {
        let handle = self
            .client
            .get_workflow_handle::<AwardBatch>(id::award(range));
        let options = WorkflowGetResultOptions::builder()
            .rpc_options(within(OUTCOME_TIMEOUT))
            .build();
        handle.get_result(options).await
    }

    /// Starts a redemption on the redeem queue, whose workers are elsewhere.
    ///
    /// # Errors
    /// What the server or the connection reports; it may have been started all the same.
    pub async fn start_redeem(
        &self,
        redemption: &RedemptionToStart,
    ) -> Result<(), WorkflowStartError> {
        let RedemptionToStart {
            id,
            customer,
            merchant,
            points,
            traceparent,
        } = redemption;
        faultpoint::reach("starter", "before-start");
        self.redeem
            .start(id, customer, merchant, *points)
            .with_context(traces::of_row(traceparent.as_deref()))
            .await?;
        faultpoint::reach("starter", "after-start");
        Ok(())
    }

    /// The same, but not when its flow has come to its end before: false then.
    ///
    /// # Errors
    /// What the server or the connection reports; it may have been started all the same.
    pub async fn start_redeem_once(
        &self,
        redemption: &RedemptionToStart,
    ) -> Result<bool, WorkflowStartError> {
        let RedemptionToStart {
            id,
            customer,
            merchant,
            points,
            traceparent,
        } = redemption;
        faultpoint::reach("starter", "before-start");
        let started = self
            .redeem
            .start_once(id, customer, merchant, *points)
            .with_context(traces::of_row(traceparent.as_deref()))
            .await;
        faultpoint::reach("starter", "after-start");
        match started {
            Ok(()) => Ok(true),
            Err(WorkflowStartError::AlreadyStarted { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Starts a tier upgrade.
    ///
    /// # Errors
    /// What the server or the connection reports; it may have been started all the same.
    pub async fn start_tier_upgrade(
        &self,
        order: TierOrder,
        tier: Tier,
    ) -> Result<(), WorkflowStartError> {
        let key = boot::customer_key(&self.settings, &order.customer_id);
        let seen = visibility::tier_upgrade(&key, &order, tier);
        let workflow_id = id::tier_upgrade(&order.customer_id, order.order_id);
        let options = start(id::TIER_TASK_QUEUE, workflow_id, seen);
        let acknowledge_within_ms =
            u64::try_from(self.settings.acknowledge_within().as_millis()).unwrap_or(u64::MAX);
        let input = TierUpgradeInput {
            order,
            acknowledge_within_ms,
        };
        faultpoint::reach("starter", "before-start");
        self.client
            .start_workflow(TierUpgrade::run, input, options)
            .await?;
        faultpoint::reach("starter", "after-start");
        Ok(())
    }

    /// Starts a claim on the claim queue, whose workers are elsewhere.
    ///
    /// # Errors
    /// What the server or the connection reports; it may have been started all the same.
    pub async fn start_claim(&self, claim: &PromotionClaim) -> Result<(), WorkflowStartError> {
        faultpoint::reach("starter", "before-start");
        self.claim.start(claim).await?;
        faultpoint::reach("starter", "after-start");
        Ok(())
    }

    /// Starts a job that assigns a promotion.
    ///
    /// # Errors
    /// What the server or the connection reports; it may have been started all the same.
    pub async fn start_assignment(
        &self,
        job: AssignPromotionInput,
    ) -> Result<(), WorkflowStartError> {
        let seen = visibility::assign_promotion(&job.promotion_id, job.players);
        let workflow_id = id::assign_promotion(&job.job_id);
        let options = start(id::ASSIGN_TASK_QUEUE, workflow_id, seen);
        faultpoint::reach("starter", "before-start");
        self.client
            .start_workflow(AssignPromotion::run, job, options)
            .await?;
        faultpoint::reach("starter", "after-start");
        Ok(())
    }

    /// Starts the relay, if it is not running.
    ///
    /// # Errors
    /// What the server or the connection reports; it may have been started all the same.
    pub async fn start_relay(&self) -> Result<(), WorkflowStartError> {
        let mut options = bare(id::RELAY_TASK_QUEUE, id::RELAY_WORKFLOW_ID.to_owned());
        options.static_summary = Some("Publishes what the ledger has to tell".to_owned());
        self.client
            .start_workflow(Relay::run, 0, options)
            .await
            .map(drop)
    }

    /// Tells a redemption that its merchant has called back.
    ///
    /// # Errors
    /// What the server or the connection reports; not found when it has ended.
    pub async fn partner_called_back(&self, id: &str) -> Result<(), WorkflowInteractionError> {
        let handle = self.client.get_workflow_handle::<Redeem>(id);
        handle
            .signal(Redeem::partner_called_back, (), signal())
            .await
    }

    /// Tells a redemption that the client has taken it back.
    ///
    /// # Errors
    /// What the server or the connection reports; not found when it has ended.
    pub async fn cancel_requested(
        &self,
        redemption: &RedeemRequestId,
    ) -> Result<(), WorkflowInteractionError> {
        let handle = self
            .client
            .get_workflow_handle::<Redeem>(id::redeem(redemption));
        handle.signal(Redeem::cancel_requested, (), signal()).await
    }

    /// Tells a tier upgrade that its notification was acknowledged.
    ///
    /// # Errors
    /// What the server or the connection reports; not found when it has ended.
    pub async fn notification_acknowledged(
        &self,
        id: &str,
    ) -> Result<(), WorkflowInteractionError> {
        let handle = self.client.get_workflow_handle::<TierUpgrade>(id);
        handle
            .signal(TierUpgrade::notification_acknowledged, (), signal())
            .await
    }

    /// How many flows of this name have not ended, as the server's search knows it.
    ///
    /// # Errors
    /// When the server gives no answer.
    pub async fn count_open(&self, workflow: &str) -> Result<f64, ClientError> {
        let query = format!("WorkflowType = '{workflow}' AND ExecutionStatus = 'Running'");
        let options = WorkflowCountOptions::builder().rpc_options(once()).build();
        let counted = self.client.count_workflows(query, options).await?;
        #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
        Ok(counted.count() as f64)
    }

    /// Whether a flow has an open run, asked of the server itself, not of its search.
    ///
    /// # Errors
    /// When the server gives no answer.
    pub async fn is_open(&self, id: &str) -> Result<bool, WorkflowInteractionError> {
        let handle = self.client.get_workflow_handle::<Redeem>(id);
        let options = WorkflowDescribeOptions::builder()
            .rpc_options(once())
            .build();
        match handle.describe(options).await {
            Ok(description) => Ok(matches!(
                description.status(),
                WorkflowExecutionStatus::Running | WorkflowExecutionStatus::Paused
            )),
            Err(WorkflowInteractionError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn signal() -> WorkflowSignalOptions {
    let mut options = WorkflowSignalOptions::default();
    options.rpc_options = once();
    options
}
