//! How a redemption is started: by the api, by the intake of events, and by whoever finds one that
//! is not running. All start the same workflow under the same id.

use std::{sync::Arc, time::Duration};

use domain::{CustomerId, MerchantId, Points, RedeemRequestId};
use temporalio_client::{
    Client, RetryOptions, RpcOptions, WorkflowIdConflictPolicy, WorkflowIdReusePolicy,
    WorkflowStartOptions, errors::WorkflowStartError, tonic,
};
use temporalio_sdk::runtime::worker_tuner::{FixedSizeSlotSupplier, TunerHolder, WorkerTuner};
use tokio::sync::Semaphore;
use workflows::{Redeem, id, options, redeem::RedeemInput, visibility};

use crate::{Settings, customer_key};

/// How long a start may take. What is not known to have started is started again later. Whoever gives
/// up too soon loses the first task, which comes with the answer, and a server that is slow under
/// load has to do it all again.
const START_WITHIN: Duration = Duration::from_secs(10);

/// How many starts of a process are with Temporal at once; the others wait here. Each of its shards
/// takes one change after the other, and the ends of flows wait behind all starts it was given.
pub const STARTS_AT_ONCE: usize = 16;
/// How long a start waits for its turn, such as while Temporal hangs. It is started again later.
const TURN_WITHIN: Duration = Duration::from_secs(3);
/// How many flows of a process may have a task: more than are under way.
const FLOW_SLOTS: usize = 500;
/// How many steps of a process may be carried out at once, of each kind.
const STEP_SLOTS: usize = 100;

/// The slots of a worker on which redemptions are started eagerly. A flow has one from its start until
/// its last task is recorded. Without one a start gets no first task with its answer, and the flow
/// has to wait until it is polled for, behind everything else that its shard has to do.
pub fn slots() -> WorkerTuner {
    TunerHolder::builder()
        .workflow_task_slot_supplier(FixedSizeSlotSupplier::new(FLOW_SLOTS))
        .activity_task_slot_supplier(FixedSizeSlotSupplier::new(STEP_SLOTS))
        .local_activity_task_slot_supplier(FixedSizeSlotSupplier::new(STEP_SLOTS))
        .nexus_task_slot_supplier(FixedSizeSlotSupplier::new(1))
        .build()
        .into()
}

/// Starts redemptions.
#[derive(Clone)]
pub struct RedeemStarter {
    client: Client,
    settings: Arc<Settings>,
    eager: bool,
    turns: Arc<Semaphore>,
}

impl RedeemStarter {
    /// Starts over this connection. `eager` where a worker of the redeem queue runs on the same
    /// connection: it gets the first task with the answer.
    pub fn new(client: Client, settings: Arc<Settings>, eager: bool) -> Self {
        Self {
            client,
            settings,
            eager,
            turns: Arc::new(Semaphore::new(STARTS_AT_ONCE)),
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
                    .timeout(START_WITHIN)
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
        let turn = tokio::time::timeout(TURN_WITHIN, self.turns.acquire());
        let _turn = turn
            .await
            .map_err(|_| tonic::Status::unavailable("starts before it take too long"))?;
        self.client
            .start_workflow(Redeem::run, input, start)
            .await
            .map(drop)
    }
}
