//! `meed ranking`: how the ranking is, and making it anew from the ledger.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Subcommand;
use comfy_table::Table;
use indicatif::{ProgressBar, ProgressStyle};
use store::ranking as ledger;
use temporalio_client::{
    Client, WorkflowDescribeOptions, WorkflowGetResultOptions, WorkflowHandle,
    WorkflowIdConflictPolicy, WorkflowIdReusePolicy, WorkflowStartOptions,
};
use workflows::{
    RebuildRanking,
    contract::{RankingRebuildRequest, RankingRebuilt},
    id, visibility,
};

/// How often the flow is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// What is to be done with the ranking.
#[derive(Debug, Subcommand)]
pub enum Ranking {
    /// Make it anew from the ledger, in Redis or in every api, while the old one is looked at
    Rebuild,
    /// Say how it is, wherever it is kept
    Status,
}

/// Does it.
///
/// # Errors
/// When something is out of reach.
pub async fn run(command: Ranking) -> Result<()> {
    match command {
        Ranking::Rebuild => rebuild().await,
        Ranking::Status => status().await,
    }
}

type Handle = WorkflowHandle<Client, RebuildRanking>;

async fn rebuild() -> Result<()> {
    let client = boot::temporal::connect(&crate::addresses::temporal()?, "meed").await?;
    let request = RankingRebuildRequest {
        asked_by: crate::addresses::operator(),
    };
    let workflow_id = id::RANKING_BY_HAND_WORKFLOW_ID.to_owned();
    // Whoever asks while one is under way joins it.
    let options = WorkflowStartOptions::new(id::RANKING_TASK_QUEUE, workflow_id)
        .id_reuse_policy(WorkflowIdReusePolicy::AllowDuplicate)
        .id_conflict_policy(WorkflowIdConflictPolicy::UseExisting)
        .static_summary(visibility::rebuild_ranking(&request))
        .build();
    let started = client
        .start_workflow(RebuildRanking::run, request, options)
        .await
        .context("the rebuild could not be started")?;
    let flow: Handle = client.get_workflow_handle(started.info().workflow_id.clone());
    let rebuilt = follow(&flow).await?;
    println!("{}", rebuilt.to_string().replace("\n\n", "\n"));
    Ok(())
}

/// Waits for the end and shows how far it is.
async fn follow(flow: &Handle) -> Result<RankingRebuilt> {
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("{bar:40} {human_pos} of about {human_len} customers {msg}")
            .context("the progress bar")?,
    );
    let result = flow.get_result(WorkflowGetResultOptions::default());
    tokio::pin!(result);
    let mut ask = tokio::time::interval(ASK_EVERY);
    loop {
        tokio::select! {
            ended = &mut result => {
                bar.finish_and_clear();
                return ended.context("the rebuild did not end well");
            }
            _ = ask.tick() => {
                if let Some(progress) = progress(flow).await {
                    show(&bar, &progress);
                }
            }
        }
    }
}

/// All indexes together.
fn show(bar: &ProgressBar, progress: &RankingRebuilt) {
    let number = |count: i64| u64::try_from(count).unwrap_or_default();
    let indexes = &progress.indexes;
    bar.set_position(indexes.iter().map(|index| number(index.customers)).sum());
    let expected = indexes.iter().map(|index| {
        let customers = index.expected.unwrap_or_default().max(index.customers);
        number(customers)
    });
    bar.set_length(expected.sum());
    let done = indexes.iter().filter(|index| index.rebuilt).count();
    let trouble = indexes.iter().find_map(|index| index.trouble.as_deref());
    bar.set_message(match trouble {
        Some(trouble) => format!("({trouble})"),
        None => format!("({done} of {} indexes ready)", indexes.len()),
    });
}

/// How far the indexes are, as the heartbeats tell.
async fn progress(flow: &Handle) -> Option<RankingRebuilt> {
    let described = flow
        .describe(WorkflowDescribeOptions::default())
        .await
        .ok()?;
    let pending = described.raw_description.pending_activities.first()?;
    let details = pending.heartbeat_details.as_ref()?.payloads.first()?;
    serde_json::from_slice(&details.data).ok()
}

async fn status() -> Result<()> {
    let pool = crate::addresses::pool().await?;
    let indexes = ledger::indexes(&pool)
        .await
        .context("the indexes could not be read")?;
    let wanted = ledger::look(&pool)
        .await
        .context("the ledger could not be read")?
        .wanted;
    let mut table = Table::new();
    table.set_header([
        "index",
        "customers",
        "up to",
        "made for rebuild",
        "being made",
        "trouble",
    ]);
    let text = |value: Option<String>| value.unwrap_or_default();
    for index in &indexes {
        let made = index.loaded.zip(index.expected);
        table.add_row([
            index.index_name.clone(),
            text(index.customers.map(|count| count.to_string())),
            text(
                index
                    .as_of
                    .map(|at| at.format("%Y-%m-%d %H:%M:%S%.3f UTC").to_string()),
            ),
            text(
                index
                    .rebuild_id
                    .map(|made_for| format!("{made_for} of {wanted}")),
            ),
            text(made.map(|(loaded, expected)| format!("{loaded} of about {expected}"))),
            text(index.trouble.clone()),
        ]);
    }
    println!("{table}");
    if indexes.is_empty() {
        println!("Nobody keeps a ranking now: neither an api nor, with Redis, a worker is up.");
    }
    Ok(())
}
