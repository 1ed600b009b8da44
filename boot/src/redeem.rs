//! How a redemption is started: by the api, by the intake of events, and by whoever finds one that
//! is not running. All start the same workflow under the same id.

use std::{sync::Arc, time::Duration};

use domain::{CustomerId, MerchantId, Points, RedeemRequestId};
use temporalio_client::{
    Client, RetryOptions, RpcOptions, WorkflowIdConflictPolicy, WorkflowIdReusePolicy,
    WorkflowStartOptions, errors::WorkflowStartError,
};
use workflows::{Redeem, id, options, redeem::RedeemInput, visibility};

use crate::{Settings, customer_key};

/// How long a start may take for which a client waits. What is not known to have started is started
/// again later.
const START_WITHIN: Duration = Duration::from_secs(1);
/// The same where nobody waits: a server that is slow under load is not asked more often for it.
const START_PATIENTLY_WITHIN: Duration = Duration::from_secs(10);

/// Starts redemptions.
#[derive(Clone)]
pub struct RedeemStarter {
    client: Client,
    settings: Arc<Settings>,
    eager: bool,
}

impl RedeemStarter {
    /// Starts over this connection. `eager` where a worker of the redeem queue runs on the same
    /// connection: it gets the first task with the answer.
    pub fn new(client: Client, settings: Arc<Settings>, eager: bool) -> Self {
        Self {
            client,
            settings,
            eager,
        }
    }

    /// Starts the redemption's workflow unless it is running, also when it has ended before.
    ///
    /// # Errors
    /// An error means unknown, never failed: the start may have come about.
    pub async fn start(
        &self,
        redemption: &RedeemRequestId,
        customer: &CustomerId,
        merchant: &MerchantId,
        points: Points,
    ) -> Result<(), WorkflowStartError> {
        let reuse = WorkflowIdReusePolicy::AllowDuplicate;
        self.start_with(redemption, customer, merchant, points, reuse)
            .await
    }

    /// Starts the redemption's workflow unless it is running or has come to its end: an earlier
    /// start may have come about without anybody's knowing.
    ///
    /// # Errors
    /// [`WorkflowStartError::AlreadyStarted`] when it has come to its end. Any other error means
    /// unknown, never failed.
    pub async fn start_once(
        &self,
        redemption: &RedeemRequestId,
        customer: &CustomerId,
        merchant: &MerchantId,
        points: Points,
    ) -> Result<(), WorkflowStartError> {
        let reuse = WorkflowIdReusePolicy::AllowDuplicateFailedOnly;
        self.start_with(redemption, customer, merchant, points, reuse)
            .await
    }

    async fn start_with(
        &self,
        redemption: &RedeemRequestId,
        customer: &CustomerId,
        merchant: &MerchantId,
        points: Points,
        reuse: WorkflowIdReusePolicy,
    ) -> Result<(), WorkflowStartError> {
        let within = if self.eager {
            START_WITHIN
        } else {
            START_PATIENTLY_WITHIN
        };
        let shown = visibility::redeem(&customer_key(&self.settings, customer), merchant, points);
        let start = WorkflowStartOptions::new(id::REDEEM_TASK_QUEUE, id::redeem(redemption))
            .task_timeout(options::REDEEM_TASK_TIMEOUT)
            .id_conflict_policy(WorkflowIdConflictPolicy::UseExisting)
            .id_reuse_policy(reuse)
            .enable_eager_workflow_start(self.eager)
            .static_summary(shown.summary)
            .search_attributes(shown.attributes)
            .rpc_options(
                RpcOptions::builder()
                    .timeout(within)
                    .retry_options(RetryOptions::no_retries())
                    .build(),
            )
            .build();
        let input = RedeemInput {
            redeem_request_id: redemption.clone(),
            merchant_id: merchant.clone(),
            points,
            limits: self.settings.redeem_limits(merchant),
        };
        self.client
            .start_workflow(Redeem::run, input, start)
            .await
            .map(drop)
    }
}
