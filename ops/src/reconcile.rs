//! `meed reconcile`: compares the books now, and says what does not agree and what puts it right.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, Utc};
use clap::Args;
use comfy_table::Table;
use domain::Comparison;
use indicatif::ProgressBar;
use store::{
    PgPool,
    reconcile::findings::{self, Acceptance, Accepted, Finding, Together},
};
use temporalio_client::{
    Client, WorkflowDescribeOptions, WorkflowExecutionStatus, WorkflowGetResultOptions,
    WorkflowHandle, WorkflowIdConflictPolicy, WorkflowIdReusePolicy, WorkflowQueryOptions,
    WorkflowStartOptions, errors::WorkflowInteractionError, schedules::ScheduleError, tonic::Code,
};
use workflows::{
    Reconcile as Flow,
    contract::{Compared, ReconcileReport, ReconcileRequest},
    id, visibility,
};

use crate::adjust::text;

/// How many findings of a kind are printed.
const PRINTED: usize = 20;
/// How often the flow is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// How to compare.
#[derive(Debug, Args)]
pub struct Reconcile {
    /// Put right what is safe; so it is unless --report-only is given
    #[arg(long, conflicts_with = "report_only")]
    repair: bool,
    /// Change nothing but the list of findings
    #[arg(long)]
    report_only: bool,
    /// From when on to look, such as 2026-03-14T10:00:00Z, or how long ago, such as 2h; otherwise
    /// from where the last one ended
    #[arg(long, value_parser = instant)]
    since: Option<DateTime<Utc>>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Compare nothing; accept the open finding of this number, so that it is not reported again
    #[arg(long, value_name = "FINDING", requires = "reason", group = "accepting")]
    accept: Option<i64>,
    /// Compare nothing; accept the open findings of this kind that happened before --until and not
    /// before --since
    #[arg(long, value_name = "KIND", requires_all = ["reason", "until"], group = "accepting")]
    accept_kind: Option<String>,
    /// The instant, or how long ago, before which what is accepted happened
    #[arg(long, value_parser = instant, requires = "accept_kind")]
    until: Option<DateTime<Utc>>,
    /// Accept also what may be points lost or given twice
    #[arg(long, requires = "accept_kind")]
    including_points: bool,
    /// Only say what would be accepted
    #[arg(long, requires = "accept_kind")]
    dry_run: bool,
    /// Why it is accepted; it stands in the audit record
    #[arg(long, requires = "accepting")]
    reason: Option<String>,
}

fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    let ago = humantime::parse_duration(text)
        .map_err(|_| "neither an instant nor a length of time".to_owned())?;
    chrono::Duration::from_std(ago)
        .ok()
        .and_then(|ago| Utc::now().checked_sub_signed(ago))
        .ok_or_else(|| "that is too long ago".to_owned())
}

/// Compares, or accepts findings.
///
/// # Errors
/// When findings are open afterwards, a comparison could not be finished, or something is out of
/// reach.
pub async fn run(reconcile: Reconcile) -> Result<()> {
    let pool = crate::addresses::pool().await?;
    let reason = reconcile.reason.as_deref().unwrap_or_default();
    if let Some(finding_id) = reconcile.accept {
        return accept(&pool, finding_id, text("reason", reason)?).await;
    }
    if let (Some(kind), Some(until)) = (&reconcile.accept_kind, reconcile.until) {
        let together = Together {
            kind,
            since: reconcile.since,
            until,
            including_points: reconcile.including_points,
        };
        let reason = text("reason", reason)?;
        return accept_together(&pool, together, reason, reconcile.dry_run).await;
    }
    let request = ReconcileRequest {
        repair: !reconcile.report_only,
        since: reconcile.since,
    };
    let client = boot::temporal::connect(&crate::addresses::temporal()?, "meed").await?;
    let flow = start_or_join(&client, request).await?;
    let report = follow(&flow).await?;
    let open = findings::open(&pool, None)
        .await
        .context("the findings could not be read")?;
    let open: Vec<Finding> = open.into_iter().map(with_number).collect();
    if reconcile.json {
        let document = serde_json::json!({ "report": report, "findings": open });
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        print(&report, &open);
    }
    if report.unfinished() > 0 {
        bail!(
            "{} of {} comparisons could not be finished",
            report.unfinished(),
            Comparison::ALL.len()
        );
    }
    if !open.is_empty() {
        bail!("{} findings are open", open.len());
    }
    Ok(())
}

async fn accept(pool: &PgPool, finding_id: i64, reason: &str) -> Result<()> {
    let actor = crate::addresses::operator();
    let finding = findings::accept(pool, finding_id, &actor, reason).await?;
    println!("Accepted, and not reported again: {}", finding.detail);
    Ok(())
}

async fn accept_together(
    pool: &PgPool,
    together: Together<'_>,
    reason: &str,
    dry_run: bool,
) -> Result<()> {
    let found = if dry_run {
        let found = findings::would_accept(pool, together).await?;
        println!("{} would be accepted.", of_all(&found));
        found
    } else {
        let acceptance = Acceptance {
            actor: &crate::addresses::operator(),
            reason,
            request_id: &format!("accept-{}", uuid::Uuid::new_v4()),
        };
        let found = findings::accept_together(pool, together, acceptance).await?;
        println!(
            "{} are accepted, and not reported again; in the audit record: {}.",
            of_all(&found),
            acceptance.request_id
        );
        found
    };
    let left_open: Vec<Finding> = found.left_open.into_iter().map(with_number).collect();
    print_findings(&left_open);
    if !left_open.is_empty() {
        bail!(
            "{} findings are left open, as points may be lost or given twice; --including-points \
             accepts them too",
            left_open.len()
        );
    }
    Ok(())
}

fn of_all(found: &Accepted) -> String {
    let accepted = found.accepted.len();
    format!(
        "{accepted} of {} findings",
        accepted + found.left_open.len()
    )
}

/// The command of a finding names it by its number.
fn with_number(mut finding: Finding) -> Finding {
    let number = format!("--accept {}", finding.finding_id);
    finding.fix = finding.fix.replace("--accept FINDING", &number);
    finding
}

// ---------------------------------------------------------------------------------------- the flow

type Handle = WorkflowHandle<Client, Flow>;

/// Joins the reconciliation that is running when it was asked the same; waits for its end when it
/// was asked something else; then starts one.
async fn start_or_join(client: &Client, request: ReconcileRequest) -> Result<Handle> {
    while let Some(running) = running(client).await? {
        let asked = running
            .query(Flow::request, (), WorkflowQueryOptions::default())
            .await;
        if asked.is_ok_and(|asked| asked == request) {
            eprintln!("Joining the reconciliation that is running.");
            return Ok(running);
        }
        eprintln!("Waiting for the end of another reconciliation.");
        // However it ends.
        let _ = running
            .get_result(WorkflowGetResultOptions::default())
            .await;
    }
    let workflow_id = id::RECONCILE_BY_HAND_WORKFLOW_ID.to_owned();
    let options = WorkflowStartOptions::new(id::RECONCILE_TASK_QUEUE, workflow_id)
        .id_reuse_policy(WorkflowIdReusePolicy::AllowDuplicate)
        .id_conflict_policy(WorkflowIdConflictPolicy::UseExisting)
        .static_summary(visibility::reconcile(&request))
        .build();
    let started = client.start_workflow(Flow::run, request, options).await;
    let started = started.context("the reconciliation could not be started")?;
    Ok(client.get_workflow_handle::<Flow>(started.info().workflow_id.clone()))
}

async fn running(client: &Client) -> Result<Option<Handle>> {
    let schedule = client.get_schedule_handle(id::RECONCILE_SCHEDULE_ID);
    let mut candidates = vec![id::RECONCILE_BY_HAND_WORKFLOW_ID.to_owned()];
    match schedule
        .describe(temporalio_client::RpcOptions::default())
        .await
    {
        Ok(description) => candidates.extend(
            description
                .running_actions()
                .into_iter()
                .map(|action| action.workflow_id),
        ),
        Err(ScheduleError::Rpc(status)) if status.code() == Code::NotFound => {}
        Err(error) => return Err(anyhow!(error).context("the schedule could not be described")),
    }
    for candidate in candidates {
        let handle = client.get_workflow_handle::<Flow>(candidate);
        match handle.describe(WorkflowDescribeOptions::default()).await {
            Ok(found) if found.status() == WorkflowExecutionStatus::Running => {
                return Ok(Some(handle));
            }
            Ok(_) | Err(WorkflowInteractionError::NotFound(_)) => {}
            Err(error) => return Err(anyhow!(error).context("a flow could not be described")),
        }
    }
    Ok(None)
}

/// Waits for the end and shows how far it is.
async fn follow(flow: &Handle) -> Result<ReconcileReport> {
    let bar = ProgressBar::new_spinner();
    let mut told = 0;
    let result = flow.get_result(WorkflowGetResultOptions::default());
    tokio::pin!(result);
    let mut ask = tokio::time::interval(ASK_EVERY);
    loop {
        tokio::select! {
            ended = &mut result => {
                let report = ended.context("the reconciliation did not end well")?;
                tell(&bar, &report.compared, &mut told);
                bar.finish_and_clear();
                return Ok(report);
            }
            _ = ask.tick() => {
                let asked = flow.query(Flow::report, (), WorkflowQueryOptions::default()).await;
                if let Ok(report) = asked {
                    tell(&bar, &report.compared, &mut told);
                }
                if let Some(count) = looked_at(flow).await {
                    bar.set_message(format!("{count} looked at"));
                }
                bar.tick();
            }
        }
    }
}

/// Says what has been compared since the last time.
fn tell(bar: &ProgressBar, compared: &[Compared], told: &mut usize) {
    for compared in compared.iter().skip(*told) {
        bar.set_message("");
        bar.suspend(|| eprintln!("{compared}"));
    }
    *told = compared.len();
}

/// How much the comparison under way has looked at, as its heartbeats tell.
async fn looked_at(flow: &Handle) -> Option<u64> {
    let described = flow
        .describe(WorkflowDescribeOptions::default())
        .await
        .ok()?;
    let pending = described.raw_description.pending_activities.first()?;
    let details = pending.heartbeat_details.as_ref()?.payloads.first()?;
    let details: serde_json::Value = serde_json::from_slice(&details.data).ok()?;
    details["outcome"]["lookedAt"].as_u64()
}

// --------------------------------------------------------------------------------------- the table

fn print(report: &ReconcileReport, open: &[Finding]) {
    let mut table = Table::new();
    table.set_header([
        "comparison",
        "looked at",
        "agree",
        "repaired",
        "not compared",
        "open findings",
    ]);
    for comparison in Comparison::ALL {
        let compared = report.compared.iter().find(|c| c.comparison == comparison);
        let title = comparison.title().to_owned();
        match compared.and_then(|compared| compared.outcome.as_ref()) {
            Some(found) => table.add_row([
                title,
                found.looked_at.to_string(),
                found.agree.to_string(),
                found.repaired.to_string(),
                found.not_compared.to_string(),
                found.open.to_string(),
            ]),
            None => table.add_row([title, "not finished".to_owned()]),
        };
    }
    println!("{table}");
    for compared in &report.compared {
        if let Some(trouble) = &compared.trouble {
            println!(
                "{} could not be finished: {trouble}",
                compared.comparison.title()
            );
        }
        let listed = compared.outcome.iter().flat_map(|found| &found.listed);
        for line in listed {
            println!("Worth a look: {line}");
        }
    }
    print_findings(open);
    if open.is_empty() && report.unfinished() == 0 {
        println!("The books agree.");
    }
}

/// Prints the first findings of each kind, and how many more there are.
fn print_findings(findings: &[Finding]) {
    let mut met: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in findings {
        let met = met.entry(&finding.kind).or_default();
        *met += 1;
        if *met <= PRINTED {
            println!(
                "\n#{} {} (since {})\n  {}\n  to put it right: {}",
                finding.finding_id,
                finding.kind,
                finding.first_seen.format("%Y-%m-%d %H:%M:%S UTC"),
                finding.detail,
                finding.fix
            );
        }
    }
    for (kind, met) in met {
        if met > PRINTED {
            println!("\n{} more {kind}; --json prints all.", met - PRINTED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_an_instant_or_a_length_of_time() {
        let at = instant("2026-03-14T10:00:00Z").expect("an instant");
        assert_eq!(at.timestamp(), 1_773_482_400);
        let ago = Utc::now() - instant("2h").expect("a length of time");
        assert!((ago - chrono::Duration::hours(2)).num_seconds().abs() < 60);
        assert!(instant("yesterday").is_err());
    }
}
