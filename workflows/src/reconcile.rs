//! Reconcile: records of the same things that are kept apart are compared; what is safe is
//! repaired, the rest is reported.
//!
//! Input: whether to repair, and from when on to look. Outcome: what each comparison found. The
//! five comparisons run one after the other. Balances come first, because the others build on
//! them; a comparison that cannot be finished, such as while Kafka is away, does not keep the next
//! ones from running, and is made up for by the next run.

use chrono::{DateTime, Utc};
use domain::Comparison;
use temporalio_common::ActivityDefinition;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{WorkflowContext, WorkflowContextView, WorkflowResult};

use crate::{
    contract::{
        Compare, Compared, ComparisonOutcome, ReconcileActivities, ReconcileReport,
        ReconcileRequest, RecordReconciliation,
    },
    options,
    visibility::STATUS,
};

/// One reconciliation.
#[workflow]
pub struct Reconcile {
    request: ReconcileRequest,
    report: ReconcileReport,
}

#[workflow_methods]
impl Reconcile {
    #[init]
    fn new(_ctx: &WorkflowContextView, request: ReconcileRequest) -> Self {
        Self {
            request,
            report: ReconcileReport::default(),
        }
    }

    /// Compares, and records what came of it.
    #[run(name = "Reconcile")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<ReconcileReport> {
        let request = ctx.state(|s| s.request.clone());
        let compare = Compare {
            repair: request.repair,
            since: request.since,
            started_at: ctx
                .workflow_time()
                .map(DateTime::<Utc>::from)
                .unwrap_or_default(),
        };
        let of = Comparison::Balances;
        Self::compare(ctx, of, ReconcileActivities::compare_balances, &compare).await;
        let of = Comparison::Events;
        Self::compare(ctx, of, ReconcileActivities::compare_events, &compare).await;
        let of = Comparison::Confirmations;
        let activity = ReconcileActivities::compare_confirmations;
        Self::compare(ctx, of, activity, &compare).await;
        let of = Comparison::Flows;
        Self::compare(ctx, of, ReconcileActivities::compare_flows, &compare).await;
        let of = Comparison::Partners;
        Self::compare(ctx, of, ReconcileActivities::compare_partners, &compare).await;
        Self::end(ctx, compare).await
    }

    /// What was asked.
    #[query(name = "request")]
    pub fn request(&self, _ctx: &WorkflowContextView) -> ReconcileRequest {
        self.request.clone()
    }

    /// What has been compared so far.
    #[query(name = "report")]
    pub fn report(&self, _ctx: &WorkflowContextView) -> ReconcileReport {
        self.report.clone()
    }

    async fn compare<A>(
        ctx: &WorkflowContext<Self>,
        comparison: Comparison,
        activity: A,
        compare: &Compare,
    ) where
        A: ActivityDefinition<Input = Compare, Output = ComparisonOutcome>,
    {
        ctx.upsert_search_attributes([STATUS.value_set(comparison.as_str().to_uppercase())]);
        Self::tell(ctx, &format!("Now: {}", comparison.title()));
        let mut summary = format!("Compares {}", comparison.title());
        if !compare.repair {
            summary.push_str(", repairs nothing");
        }
        let compared = ctx
            .execute_activity(activity, compare.clone(), options::comparison(summary))
            .await;
        let compared = match compared {
            Ok(outcome) => Compared {
                comparison,
                outcome: Some(outcome),
                trouble: None,
            },
            Err(error) => Compared {
                comparison,
                outcome: None,
                trouble: Some(root_cause(&error)),
            },
        };
        ctx.state_mut(|s| s.report.compared.push(compared));
    }

    async fn end(ctx: &WorkflowContext<Self>, compare: Compare) -> WorkflowResult<ReconcileReport> {
        let report = ctx.state(|s| s.report.clone());
        let status = if report.unfinished() > 0 {
            "UNFINISHED"
        } else if report.open() > 0 {
            "DISAGREES"
        } else {
            "AGREES"
        };
        let record = RecordReconciliation {
            compare,
            report: report.clone(),
        };
        ctx.execute_activity(
            ReconcileActivities::record_reconciliation,
            record,
            options::until_done("Records what came of it".to_owned()),
        )
        .await?;
        Self::tell(ctx, "Ended.");
        ctx.upsert_search_attributes([STATUS.value_set(status.to_owned())]);
        Ok(report)
    }

    /// Says in plain words what has been compared, and what is next.
    fn tell(ctx: &WorkflowContext<Self>, last: &str) {
        let mut lines: Vec<String> =
            ctx.state(|s| s.report.compared.iter().map(Compared::to_string).collect());
        lines.push(last.to_owned());
        ctx.set_current_details(lines.join("\n\n"));
    }
}

/// What was at the bottom of a failure, in one line.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
