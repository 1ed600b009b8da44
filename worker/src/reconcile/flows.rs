//! Holds, tier orders, claims and assignments against open workflows.
//!
//! Whether a workflow is open is asked of the server itself, by its id; the server's search only
//! names candidates. A row without an open run is started again under the same id, as the starters
//! do. Points that are held for nothing are reported.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::Comparison;
use futures::{StreamExt, TryStreamExt, stream};
use store::{
    assignments,
    claims::{self, Assignment},
    reconcile::{
        findings::{self, Found},
        flows::{self, HeldForNothing, OpenRedemption},
    },
};
use temporalio_client::WorkflowListOptions;
use workflows::{contract::TierOrder, id};

use super::{
    Steps,
    work::{Trouble, Work},
};
use crate::{
    flows::RedemptionToStart,
    starters::{to_assignment, to_claim},
};

const NOT_AT_WORK: &str = "REDEMPTION_WITHOUT_FLOW";
const TIER_NOT_AT_WORK: &str = "TIER_ORDER_WITHOUT_FLOW";
const CLAIM_NOT_AT_WORK: &str = "CLAIM_WITHOUT_FLOW";
const ASSIGNMENT_NOT_AT_WORK: &str = "ASSIGNMENT_WITHOUT_FLOW";
const NO_ROW: &str = "FLOW_WITHOUT_REDEMPTION";
const HELD: &str = "POINTS_HELD_FOR_NOTHING";
/// What changed more recently may be just starting or just ending.
const YOUNG: chrono::Duration = chrono::Duration::seconds(10);
/// How many rows are looked at together.
const AT_A_TIME: i64 = 500;
/// How many questions to Temporal are under way.
const QUESTIONS: usize = 16;
/// How many holds over their limit are named.
const NAMED: i64 = 20;

/// Looks at every open redemption, tier order, claim, assignment and flow.
pub async fn compare(steps: &Steps, work: &mut Work) -> Result<(), Trouble> {
    redemptions(steps, work).await?;
    tier_orders(steps, work).await?;
    claims_under_way(steps, work).await?;
    assignments_under_way(steps, work).await?;
    open_flows(steps, work).await?;
    held(work).await?;
    for (id, state, limit) in flows::over_limit(&work.pool, NAMED).await? {
        work.list(format!(
            "the hold of redemption {id} ({state}) has been over its limit since {}",
            limit.format("%Y-%m-%d %H:%M:%S UTC")
        ));
    }
    let kinds = [
        NOT_AT_WORK,
        TIER_NOT_AT_WORK,
        CLAIM_NOT_AT_WORK,
        ASSIGNMENT_NOT_AT_WORK,
        NO_ROW,
        HELD,
    ];
    let started_at = work.input.started_at;
    findings::end_unseen(&work.pool, Comparison::Flows, &kinds, started_at, None).await?;
    Ok(())
}

fn temporal(error: impl std::fmt::Display) -> Trouble {
    Trouble::Temporal(error.to_string())
}

fn is_young(at: DateTime<Utc>) -> bool {
    at > Utc::now() - YOUNG
}

/// Those whose flow has no open run.
async fn without_run<T>(
    steps: &Steps,
    rows: Vec<T>,
    workflow_id: impl Fn(&T) -> String,
) -> Result<Vec<T>, Trouble> {
    let asked = stream::iter(rows).map(|row| {
        let id = workflow_id(&row);
        async move {
            let is_open = steps.flows.is_open(&id).await.map_err(temporal)?;
            Ok::<_, Trouble>((!is_open).then_some(row))
        }
    });
    let rows: Vec<Option<T>> = asked.buffer_unordered(QUESTIONS).try_collect().await?;
    Ok(rows.into_iter().flatten().collect())
}

// -------------------------------------------------------------------------------- redemptions

async fn redemptions(steps: &Steps, work: &mut Work) -> Result<(), Trouble> {
    let mut after: String = work.cursor().unwrap_or_default();
    loop {
        let page = flows::open_redemptions(&work.pool, &after, AT_A_TIME).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = last.redeem_request_id.to_string();
        let count = page.len();
        let old = page.into_iter().filter(|row| !is_young(row.updated_at));
        let workflow_id = |row: &OpenRedemption| id::redeem(&row.redeem_request_id);
        let stopped = without_run(steps, old.collect(), workflow_id).await?;
        let mut stopped_now = Vec::new();
        for row in stopped {
            // It may have ended, or moved, while Temporal was asked.
            let now = flows::state(&work.pool, row.redeem_request_id.as_str()).await?;
            if now == Some((row.state.clone(), row.updated_at)) {
                stopped_now.push(row);
            }
        }
        work.looked_at(count, count - stopped_now.len());
        for row in stopped_now {
            start_again(steps, work, row).await?;
        }
        work.reached(&after);
    }
}

async fn start_again(steps: &Steps, work: &mut Work, row: OpenRedemption) -> Result<(), Trouble> {
    let found = Found {
        comparison: Comparison::Flows,
        kind: NOT_AT_WORK,
        subject: row.redeem_request_id.to_string(),
        detail: format!(
            "redemption {} ({}, {} points of customer {}) has no open workflow",
            row.redeem_request_id, row.state, row.points, row.customer_id
        ),
        fix: "meed reconcile --repair".to_owned(),
        happened_at: Some(row.updated_at),
        evidence: serde_json::json!({}),
    };
    if !work.input.repair {
        return work.found(&found).await;
    }
    let redemption = RedemptionToStart {
        id: row.redeem_request_id,
        customer: row.customer_id,
        merchant: row.merchant_id,
        points: row.points,
        traceparent: row.traceparent,
    };
    steps
        .flows
        .start_redeem(&redemption)
        .await
        .map_err(temporal)?;
    work.repaired(&found).await
}

// -------------------------------------------------------------------------------- tier orders

async fn tier_orders(steps: &Steps, work: &mut Work) -> Result<(), Trouble> {
    let young = YOUNG.to_std().unwrap_or_default();
    let orders = store::tiers::stale_orders(&work.pool, young, i64::MAX).await?;
    let count = orders.len();
    let workflow_id =
        |order: &store::tiers::Order| id::tier_upgrade(&order.customer_id, order.order_id);
    let stopped = without_run(steps, orders, workflow_id).await?;
    let mut stopped_now = Vec::new();
    for order in stopped {
        if store::tiers::is_open(&work.pool, order.order_id).await? {
            stopped_now.push(order);
        }
    }
    work.looked_at(count, count - stopped_now.len());
    for order in stopped_now {
        let found = Found {
            comparison: Comparison::Flows,
            kind: TIER_NOT_AT_WORK,
            subject: order.order_id.to_string(),
            detail: format!(
                "order {} to look at the tier of customer {} has no open workflow",
                order.order_id, order.customer_id
            ),
            fix: "meed reconcile --repair".to_owned(),
            happened_at: None,
            evidence: serde_json::json!({}),
        };
        if work.input.repair {
            let (order_id, tier) = (order.order_id, order.tier);
            let order = TierOrder {
                order_id,
                customer_id: order.customer_id,
            };
            let started = steps.flows.start_tier_upgrade(order, tier).await;
            started.map_err(temporal)?;
            store::tiers::mark_started(&work.pool, order_id).await?;
            work.repaired(&found).await?;
        } else {
            work.found(&found).await?;
        }
    }
    Ok(())
}

// --------------------------------------------------------------------------------- promotions

async fn claims_under_way(steps: &Steps, work: &mut Work) -> Result<(), Trouble> {
    let young = YOUNG.to_std().unwrap_or_default();
    let rows = claims::to_start(&work.pool, young, i64::MAX).await?;
    let count = rows.len();
    let workflow_id = |row: &Assignment| id::claim(&row.promotion_id, &row.customer_id);
    let stopped = without_run(steps, rows, workflow_id).await?;
    let mut stopped_now = Vec::new();
    let mut conn = work.pool.acquire().await.map_err(store::Error::from)?;
    for row in stopped {
        // It may have ended, or moved, while Temporal was asked.
        let now = claims::find(&mut conn, &row.promotion_id, &row.customer_id).await?;
        if now.as_ref() == Some(&row) {
            stopped_now.push(row);
        }
    }
    drop(conn);
    work.looked_at(count, count - stopped_now.len());
    for row in stopped_now {
        let found = Found {
            comparison: Comparison::Flows,
            kind: CLAIM_NOT_AT_WORK,
            subject: claims::event_id(&row.promotion_id, &row.customer_id),
            detail: format!(
                "the claim of promotion {} by customer {} has no open workflow",
                row.promotion_id, row.customer_id
            ),
            fix: "meed reconcile --repair".to_owned(),
            happened_at: None,
            evidence: serde_json::json!({}),
        };
        if work.input.repair {
            let started = steps.flows.start_claim(&to_claim(&row)).await;
            started.map_err(temporal)?;
            work.repaired(&found).await?;
        } else {
            work.found(&found).await?;
        }
    }
    Ok(())
}

async fn assignments_under_way(steps: &Steps, work: &mut Work) -> Result<(), Trouble> {
    let young = YOUNG.to_std().unwrap_or_default();
    let jobs = assignments::to_start(&work.pool, young, i64::MAX).await?;
    let count = jobs.len();
    let workflow_id = |job: &assignments::Job| id::assign_promotion(&job.job_id);
    let old = jobs.into_iter().filter(|job| !is_young(job.requested_at));
    let stopped = without_run(steps, old.collect(), workflow_id).await?;
    let mut stopped_now = Vec::new();
    let mut conn = work.pool.acquire().await.map_err(store::Error::from)?;
    for job in stopped {
        let now = assignments::find(&mut conn, &job.job_id).await?;
        if now.as_ref() == Some(&job) {
            stopped_now.push(job);
        }
    }
    drop(conn);
    work.looked_at(count, count - stopped_now.len());
    for job in stopped_now {
        let found = Found {
            comparison: Comparison::Flows,
            kind: ASSIGNMENT_NOT_AT_WORK,
            subject: job.job_id.to_string(),
            detail: format!(
                "job {} that assigns promotion {} to {} players has no open workflow",
                job.job_id, job.promotion_id, job.players
            ),
            fix: "meed reconcile --repair".to_owned(),
            happened_at: Some(job.requested_at),
            evidence: serde_json::json!({}),
        };
        if work.input.repair {
            let started = steps.flows.start_assignment(to_assignment(&job)).await;
            started.map_err(temporal)?;
            work.repaired(&found).await?;
        } else {
            work.found(&found).await?;
        }
    }
    Ok(())
}

// --------------------------------------------------------------------------------- open flows

/// Open flows of redemptions that have ended, or that nobody knows.
async fn open_flows(steps: &Steps, work: &mut Work) -> Result<(), Trouble> {
    let query = format!(
        "WorkflowType = 'Redeem' AND ExecutionStatus = 'Running' AND TaskQueue = '{}'",
        id::REDEEM_TASK_QUEUE
    );
    let mut running = steps
        .client
        .list_workflows(query, WorkflowListOptions::default());
    while let Some(run) = running.next().await {
        let run = run.map_err(temporal)?;
        let begun = run.start_time().map(DateTime::<Utc>::from);
        let id = run.id().to_owned();
        let state = flows::state(&work.pool, &id).await?;
        let agrees = match &state {
            Some((state, ended_at)) => {
                !matches!(state.as_str(), "SUCCESS" | "FAILED") || is_young(*ended_at)
            }
            None => begun.is_none_or(is_young),
        };
        let agrees = agrees || !still_open(steps, &id).await?;
        work.looked_at(1, usize::from(agrees));
        if agrees {
            continue;
        }
        let what = match state {
            Some((state, _)) => format!("its redemption has ended {state}"),
            None => "there is no redemption of that id".to_owned(),
        };
        work.found(&Found {
            comparison: Comparison::Flows,
            kind: NO_ROW,
            subject: id.clone(),
            detail: format!("workflow {id} is open, and {what}"),
            fix: format!(
                "temporal workflow terminate --namespace {} --workflow-id {id} --reason \"{what}\"",
                steps.namespace
            ),
            happened_at: begun,
            evidence: serde_json::json!({}),
        })
        .await?;
    }
    Ok(())
}

/// Asked of the server itself, twice: its search may be behind, and the flow may be just ending.
async fn still_open(steps: &Steps, id: &str) -> Result<bool, Trouble> {
    if !steps.flows.is_open(id).await.map_err(temporal)? {
        return Ok(false);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    steps.flows.is_open(id).await.map_err(temporal)
}

// --------------------------------------------------------------------------------------- holds

async fn held(work: &mut Work) -> Result<(), Trouble> {
    let wrong = flows::held_for_nothing(&work.pool).await?;
    let holding = usize::try_from(flows::customers_with_holds(&work.pool).await?);
    let holding = holding.unwrap_or(usize::MAX).max(wrong.len());
    work.looked_at(holding, holding - wrong.len());
    for account in wrong {
        let found = held_for_nothing(&account);
        work.found(&found).await?;
    }
    Ok(())
}

fn held_for_nothing(account: &HeldForNothing) -> Found {
    let HeldForNothing {
        customer_id,
        held,
        under_way,
        stray_holds,
    } = account;
    let release = |hold: &String| {
        format!(
            "meed adjust --customer {customer_id} --release-hold {hold} --id release-{hold} \
             --reason \"no redemption is under way\""
        )
    };
    let fix = if stray_holds.is_empty() {
        format!("meed find {customer_id} and meed verify show where it comes from")
    } else {
        let commands: Vec<String> = stray_holds.iter().map(release).collect();
        commands.join(" && ")
    };
    Found {
        comparison: Comparison::Flows,
        kind: HELD,
        subject: customer_id.clone(),
        detail: format!(
            "customer {customer_id} has {held} points held, redemptions under way account for \
             {under_way}; holds without a redemption under way: {}",
            if stray_holds.is_empty() {
                "none".to_owned()
            } else {
                stray_holds.join(", ")
            }
        ),
        fix,
        happened_at: None,
        evidence: serde_json::json!({}),
    }
}
