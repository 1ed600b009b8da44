//! The flows as the handlers see them: started and signalled, never waited for.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use boot::{Settings, claim::ClaimStarter, redeem::RedeemStarter};
use domain::{CustomerId, MerchantId, Points, RedeemRequestId};
use futures::future::BoxFuture;
use temporalio_client::{
    Client, RetryOptions, RpcOptions, WorkflowSignalOptions,
    errors::{WorkflowInteractionError, WorkflowStartError},
    tonic::{self, IntoRequest},
};
use temporalio_common::protos::temporal::api::workflowservice::v1::GetSystemInfoRequest;
use workflows::{Redeem, TierUpgrade, contract::PromotionClaim};

/// How long one signal may take. What is not known to be signalled is signalled again later.
const SIGNAL_WITHIN: Duration = Duration::from_secs(1);
/// How long Temporal may take to say that it is there.
const CHECK_WITHIN: Duration = Duration::from_secs(1);

/// A flow could not be reached; whether the request arrived is unknown.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// A start is in doubt.
    #[error(transparent)]
    Start(#[from] WorkflowStartError),
    /// A signal is in doubt.
    #[error(transparent)]
    Signal(#[from] WorkflowInteractionError),
    /// Temporal does not answer.
    #[error(transparent)]
    Unreachable(#[from] tonic::Status),
    /// Temporal has been away since this process was started.
    #[error("Temporal has not been reached yet")]
    NotReachedYet,
}

/// What a flow can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The client's wish to take a redemption back has been stored.
    CancelRequested,
    /// The merchant's late answer has been stored.
    PartnerCalledBack,
    /// The acknowledgement of a tier upgrade has been stored.
    NotificationAcknowledged,
}

/// Starts and signals flows.
pub trait Flows: Send + Sync {
    /// Starts a redemption unless it is running.
    fn start_redemption<'a>(
        &'a self,
        redemption: &'a RedeemRequestId,
        customer: &'a CustomerId,
        merchant: &'a MerchantId,
        points: Points,
    ) -> BoxFuture<'a, Result<(), FlowError>>;

    /// Starts a claim of a promotion unless it is running.
    fn start_claim<'a>(&'a self, claim: &'a PromotionClaim)
    -> BoxFuture<'a, Result<(), FlowError>>;

    /// Tells a flow that something has been stored for it. One that has ended needs no telling.
    fn signal<'a>(
        &'a self,
        workflow_id: &'a str,
        signal: Signal,
    ) -> BoxFuture<'a, Result<(), FlowError>>;

    /// Whether Temporal answers.
    fn check(&self) -> BoxFuture<'_, Result<(), FlowError>>;
}

/// The flows in Temporal, as soon as it has been reached: what is accepted before that is started
/// later.
#[derive(Default)]
pub struct TemporalFlows(OnceLock<Reached>);

struct Reached {
    client: Client,
    starter: RedeemStarter,
    claims: ClaimStarter,
}

impl TemporalFlows {
    /// From now on the flows are behind this connection, on which this process also works on
    /// redemptions and claims.
    pub fn reached(&self, client: Client, settings: Arc<Settings>) {
        let starter = RedeemStarter::new(client.clone(), Arc::clone(&settings), true);
        let claims = ClaimStarter::new(client.clone(), settings, true);
        self.0.get_or_init(|| Reached {
            client,
            starter,
            claims,
        });
    }

    fn get(&self) -> Result<&Reached, FlowError> {
        self.0.get().ok_or(FlowError::NotReachedYet)
    }
}

fn signal_options() -> WorkflowSignalOptions {
    let rpc = RpcOptions::builder()
        .timeout(SIGNAL_WITHIN)
        .retry_options(RetryOptions::no_retries())
        .build();
    WorkflowSignalOptions::builder().rpc_options(rpc).build()
}

impl Flows for TemporalFlows {
    fn start_redemption<'a>(
        &'a self,
        redemption: &'a RedeemRequestId,
        customer: &'a CustomerId,
        merchant: &'a MerchantId,
        points: Points,
    ) -> BoxFuture<'a, Result<(), FlowError>> {
        Box::pin(async move {
            match self
                .get()?
                .starter
                .start_once(redemption, customer, merchant, points)
                .await
            {
                Ok(()) | Err(WorkflowStartError::AlreadyStarted { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn start_claim<'a>(
        &'a self,
        claim: &'a PromotionClaim,
    ) -> BoxFuture<'a, Result<(), FlowError>> {
        Box::pin(async move { Ok(self.get()?.claims.start(claim).await?) })
    }

    fn signal<'a>(
        &'a self,
        workflow_id: &'a str,
        signal: Signal,
    ) -> BoxFuture<'a, Result<(), FlowError>> {
        Box::pin(async move {
            let options = signal_options();
            let client = &self.get()?.client;
            let redeem = || client.get_workflow_handle::<Redeem>(workflow_id);
            let signalled = match signal {
                Signal::CancelRequested => {
                    redeem().signal(Redeem::cancel_requested, (), options).await
                }
                Signal::PartnerCalledBack => {
                    redeem()
                        .signal(Redeem::partner_called_back, (), options)
                        .await
                }
                Signal::NotificationAcknowledged => {
                    let upgrade = client.get_workflow_handle::<TierUpgrade>(workflow_id);
                    upgrade
                        .signal(TierUpgrade::notification_acknowledged, (), options)
                        .await
                }
            };
            match signalled {
                Ok(()) | Err(WorkflowInteractionError::NotFound(_)) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), FlowError>> {
        Box::pin(async move {
            let mut service = self.get()?.client.connection().workflow_service();
            let mut request = GetSystemInfoRequest::default().into_request();
            request.set_timeout(CHECK_WITHIN);
            tokio::time::timeout(CHECK_WITHIN, service.get_system_info(request))
                .await
                .map_err(|_| tonic::Status::deadline_exceeded("Temporal does not answer"))??;
            Ok(())
        })
    }
}
