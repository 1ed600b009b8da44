//! The steps behind a reconciliation, one file per comparison.

mod balances;
mod confirmations;
mod events;
mod flows;
mod partners;
mod reading;
mod watch;
mod work;

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use activities::{activity_error, partner::Partners};
use domain::{Comparison, MerchantId};
use store::{PgPool, reconcile::runs};
use temporalio_client::Client;
use temporalio_common::error::ApplicationFailure;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use workflows::contract::{Compare, ComparisonOutcome, RecordReconciliation, definition};

pub use watch::watch;
use work::{Progress, Trouble, Work};

use crate::{
    flows::Flows,
    intake::{Notifying, Redeeming},
    kafka::Kafka,
};

/// How often Temporal is told that a comparison is alive, and how far it has come.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(2);

/// What the comparisons work with.
pub struct Steps {
    /// The database.
    pub pool: PgPool,
    /// The topics.
    pub kafka: Kafka,
    /// Starts flows, and says whether they are open.
    pub flows: Flows,
    /// Lists flows.
    pub client: Client,
    /// Where they are.
    pub namespace: String,
    /// Takes requests to redeem in.
    pub redeeming: Redeeming,
    /// Takes notifications in.
    pub notifying: Notifying,
    /// The merchants' clients: apart from those of redemptions, so that questions asked here take
    /// no place from them and open none of their circuits.
    pub partners: Partners,
    /// The merchants.
    pub merchants: Vec<MerchantId>,
    /// How many redemptions a second they are asked about.
    pub partner_requests_per_second: u32,
}

#[activities]
impl Steps {
    /// Kafka events against ledger.
    #[activity(definition = definition::CompareEvents)]
    pub async fn compare_events(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: Compare,
    ) -> Result<ComparisonOutcome, ActivityError> {
        self.run(&ctx, Comparison::Events, input).await
    }

    /// Ledger against balances.
    #[activity(definition = definition::CompareBalances)]
    pub async fn compare_balances(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: Compare,
    ) -> Result<ComparisonOutcome, ActivityError> {
        self.run(&ctx, Comparison::Balances, input).await
    }

    /// Ledger against confirmations.
    #[activity(definition = definition::CompareConfirmations)]
    pub async fn compare_confirmations(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: Compare,
    ) -> Result<ComparisonOutcome, ActivityError> {
        self.run(&ctx, Comparison::Confirmations, input).await
    }

    /// Holds and tier orders against open workflows.
    #[activity(definition = definition::CompareFlows)]
    pub async fn compare_flows(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: Compare,
    ) -> Result<ComparisonOutcome, ActivityError> {
        self.run(&ctx, Comparison::Flows, input).await
    }

    /// The merchants' books against redemptions that have ended.
    #[activity(definition = definition::ComparePartners)]
    pub async fn compare_partners(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: Compare,
    ) -> Result<ComparisonOutcome, ActivityError> {
        self.run(&ctx, Comparison::Partners, input).await
    }

    /// Records the run, for people and alerts.
    #[activity(definition = definition::RecordReconciliation)]
    pub async fn record_reconciliation(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: RecordReconciliation,
    ) -> Result<(), ActivityError> {
        let info = ctx.info();
        let run = runs::Run {
            workflow_id: info.workflow_id.as_deref().unwrap_or_default(),
            run_id: info.workflow_run_id.as_deref().unwrap_or_default(),
            started_at: input.compare.started_at,
            repairs: input.compare.repair,
            complete: input.report.unfinished() == 0,
            report: serde_json::to_value(&input.report).unwrap_or_default(),
        };
        runs::record(&self.pool, &run).await.map_err(activity_error)
    }
}

impl Steps {
    /// Runs a comparison, or goes on with it where an earlier attempt was, and tells Temporal
    /// meanwhile how far it is.
    async fn run(
        &self,
        ctx: &ActivityContext,
        comparison: Comparison,
        input: Compare,
    ) -> Result<ComparisonOutcome, ActivityError> {
        let before: Option<Progress> = ctx.heartbeat_details().deserialize().ok().flatten();
        let work = Work::new(self.pool.clone(), comparison, input, before);
        let progress = work.progress();
        let compared = self.compare(comparison, work);
        tokio::pin!(compared);
        let mut heartbeat = tokio::time::interval(HEARTBEAT_EVERY);
        loop {
            tokio::select! {
                outcome = &mut compared => return outcome.map_err(told),
                // The process ends; another one goes on.
                () = ctx.cancelled() => {
                    return Err(told(Trouble::CutOff("the worker stops".to_owned())));
                }
                _ = heartbeat.tick() => {
                    let now = progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    if let Err(error) = ctx.record_heartbeat(now).await {
                        tracing::warn!(%error, "a comparison's heartbeat was not written");
                    }
                }
            }
        }
    }

    async fn compare(
        &self,
        comparison: Comparison,
        mut work: Work,
    ) -> Result<ComparisonOutcome, Trouble> {
        match comparison {
            Comparison::Events => events::compare(self, &mut work).await?,
            Comparison::Balances => balances::compare(&mut work).await?,
            Comparison::Confirmations => confirmations::compare(self, &mut work).await?,
            Comparison::Flows => flows::compare(self, &mut work).await?,
            Comparison::Partners => partners::compare(self, &mut work).await?,
        }
        work.outcome().await
    }
}

/// Tells Temporal what went wrong.
fn told(trouble: Trouble) -> ActivityError {
    tracing::warn!(error = %trouble, "a comparison is not finished yet");
    let name = match trouble {
        Trouble::Store(error) => return activity_error(error),
        Trouble::Kafka(_) => "KafkaUnavailable",
        Trouble::Temporal(_) => "TemporalUnavailable",
        Trouble::CutOff(_) => "CutOff",
    };
    ActivityError::application(
        ApplicationFailure::builder(trouble)
            .type_name(name.to_owned())
            .build(),
    )
}
