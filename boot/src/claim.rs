//! How a claim of a promotion is started: by the api, and by whoever finds one that is not
//! running. Both start the same workflow under the same id.

use std::{sync::Arc, time::Duration};

use temporalio_client::{
    Client, RetryOptions, RpcOptions, WorkflowIdConflictPolicy, WorkflowIdReusePolicy,
    WorkflowStartOptions, errors::WorkflowStartError,
};
use workflows::{ClaimPromotion, contract::PromotionClaim, id, options, visibility};

use crate::{Settings, customer_key};

/// How long a start may take. What is not known to have started is started again later.
const START_WITHIN: Duration = Duration::from_secs(1);

/// Starts claims.
#[derive(Clone)]
pub struct ClaimStarter {
    client: Client,
    settings: Arc<Settings>,
    eager: bool,
}

impl ClaimStarter {
    /// Starts over this connection. `eager` where a worker of the claim queue runs on the same
    /// connection: it gets the first task with the answer.
    pub fn new(client: Client, settings: Arc<Settings>, eager: bool) -> Self {
        Self {
            client,
            settings,
            eager,
        }
    }

    /// Starts the claim's workflow unless it is running, also when it has ended before: a claim
    /// that was rolled back may be claimed again, and the row makes every other start harmless.
    ///
    /// # Errors
    /// An error means unknown, never failed: the start may have come about.
    pub async fn start(&self, claim: &PromotionClaim) -> Result<(), WorkflowStartError> {
        let shown = visibility::claim(&customer_key(&self.settings, &claim.customer_id), claim);
        let workflow_id = id::claim(&claim.promotion_id, &claim.customer_id);
        let start = WorkflowStartOptions::new(id::CLAIM_TASK_QUEUE, workflow_id)
            .task_timeout(options::CLAIM_TASK_TIMEOUT)
            .id_conflict_policy(WorkflowIdConflictPolicy::UseExisting)
            .id_reuse_policy(WorkflowIdReusePolicy::AllowDuplicate)
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
        self.client
            .start_workflow(ClaimPromotion::run, claim.clone(), start)
            .await
            .map(drop)
    }
}
