//! The limit: PostgreSQL posting the same batches, with no Kafka and no Temporal.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use domain::{Award, Programme};
use futures::future::try_join_all;
use sqlx::PgPool;
use stack::Progress;
use store::{
    ledger::{self, Posting},
    transaction,
};

use super::orders::{self, Orders};
use super::{Run, per_second};
use crate::system::System;

/// Posts orders in batches of at most `max_batch`, as many at once as there are partitions. As on
/// Kafka, all orders of a customer are in one of these, and its batches follow one another.
///
/// # Errors
/// When one is not posted.
pub async fn measure(
    system: &System,
    programme: &Arc<Programme>,
    orders: &Orders,
    partitions: usize,
) -> Result<Run> {
    let task = Progress::shown().task("(a) PostgreSQL alone");
    let max_batch = system.settings.worker.intake.max_batch as usize;
    let mut lanes: Vec<Vec<Award>> = vec![Vec::new(); partitions];
    for order in orders.all() {
        lanes[order.customer_number % partitions].push(orders::read(order.json().as_bytes())?);
    }
    let watching = system.watch()?;
    let began = Instant::now();
    let lanes = lanes.into_iter().map(|lane| {
        let (pool, programme) = (system.pool.clone(), Arc::clone(programme));
        tokio::spawn(async move {
            for batch in lane.chunks(max_batch) {
                post(&pool, &programme, "bench/ledger-alone", batch).await?;
            }
            Ok(())
        })
    });
    try_join_all(lanes)
        .await?
        .into_iter()
        .collect::<Result<()>>()?;
    let took = began.elapsed();
    let (uses, _) = watching.stop(orders.count);
    let per_second = per_second(orders.count, took);
    task.done(&format!("{per_second:.0} events/s"));
    Ok(Run { per_second, uses })
}

/// Posts awards in one transaction, each for the first time.
///
/// # Errors
/// When one is not posted.
pub async fn post(
    pool: &PgPool,
    programme: &Programme,
    workflow_id: &str,
    awards: &[Award],
) -> Result<()> {
    let mut transaction = transaction::begin(pool).await?;
    let postings = ledger::post_awards(&mut transaction, programme, workflow_id, awards).await?;
    transaction::commit(transaction, "award").await?;
    let posted = postings
        .iter()
        .filter(|posting| matches!(posting, Posting::Posted(_)));
    ensure!(posted.count() == awards.len(), "not every event was posted");
    Ok(())
}
