//! Meed itself under load: from Kafka to Kafka.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chrono::{DateTime, Utc};
use domain::inbound::topic;
use sqlx::PgPool;
use stack::{Progress, Task};
use store::relay;

use super::kafka::{Confirmations, Producer};
use super::orders::Orders;
use super::{Run, per_second};
use crate::load::Latencies;
use crate::sampling::Look;
use crate::system::System;

/// How long whoever sends many events waits for more of them.
const LINGER: Duration = Duration::from_millis(5);
/// How long what was posted may take to be published and sealed.
const SETTLED_WITHIN: Duration = Duration::from_secs(300);
/// How often it is looked whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Meed on a running system, its workers stopped or not.
pub struct Meed<'a> {
    system: &'a System,
    producer: Producer,
}

/// A backlog that was drained.
pub struct Drained {
    /// The rate, from before the worker was started.
    pub run: Run,
    /// The memory of the processes on the way, by name.
    pub looks: Vec<Look>,
    /// How long after the last confirmation the hash chain was complete.
    pub sealed_after: Duration,
}

/// How long single events took.
pub struct Idle {
    /// Until they were in the ledger.
    pub posted: Latencies,
    /// Until they were confirmed.
    pub confirmed: Latencies,
}

impl<'a> Meed<'a> {
    /// On this system.
    ///
    /// # Errors
    /// When a producer cannot be made.
    pub fn new(system: &'a System) -> Result<Self> {
        Ok(Self {
            system,
            producer: Producer::new(&system.brokers, LINGER)?,
        })
    }

    /// Starts workers by name and waits until nothing is left lying. A few events make sure that
    /// all of it is at work.
    ///
    /// # Errors
    /// When one cannot be started, or something stays.
    pub async fn start(&self, workers: &[&str], warm_up: &Orders) -> Result<()> {
        for worker in workers {
            self.system.start_service(worker, &[]).await?;
        }
        let task = Progress::shown().task("warming up");
        self.confirm(warm_up, &task).await?;
        self.settle().await?;
        task.done("");
        Ok(())
    }

    /// Stops workers by name.
    ///
    /// # Errors
    /// When one does not run or does not end.
    pub async fn stop(&self, workers: &[&str]) -> Result<()> {
        for worker in workers {
            self.system.stop_service(worker).await?;
        }
        Ok(())
    }

    /// Sends orders and waits until all of them are confirmed. What is used is counted until what
    /// Meed does behind that is done too.
    ///
    /// # Errors
    /// When one is not in the ledger and confirmed exactly once.
    pub async fn run(&self, name: &str, orders: &Orders) -> Result<Run> {
        let task = Progress::shown().task(name);
        let watching = self.system.watch()?;
        let took = self.confirm(orders, &task).await?;
        self.settle().await?;
        let (uses, _) = watching.stop(orders.count);
        let per_second = per_second(orders.count, took);
        task.done(&format!("{per_second:.0} events/s"));
        Ok(Run { per_second, uses })
    }

    /// Sends one order after the other, each when the one before it is confirmed: how long
    /// they took. The first is sent on a new connection and does not count.
    ///
    /// # Errors
    /// When one is not confirmed exactly once.
    pub async fn idle(&self, orders: &Orders) -> Result<Idle> {
        let task = Progress::shown().task("Meed, one event at a time");
        let producer = Producer::new(&self.system.brokers, Duration::ZERO)?;
        let before = last_transfer(&self.system.pool).await?;
        let confirmations = self.confirmations()?;
        let (mut sent_at, mut confirmed) = (Vec::new(), Vec::new());
        for (number, order) in orders.all().enumerate() {
            // Out of step with whatever happens at regular intervals.
            tokio::time::sleep(Duration::from_millis(10 + (number as u64 * 17) % 53)).await;
            let sent = Instant::now();
            sent_at.push(Utc::now());
            producer.send(topic::ORDERS, &order)?;
            confirmed.push(confirmations.reach(number + 1, None).await? - sent);
        }
        self.check(before, orders, &confirmations).await?;
        let posted_at: Vec<DateTime<Utc>> = sqlx::query_scalar(
            "SELECT posted_at FROM transfers WHERE transfer_id > $1 ORDER BY transfer_id",
        )
        .bind(before)
        .fetch_all(&self.system.pool)
        .await?;
        let posted = posted_at.iter().zip(&sent_at);
        let posted = posted.map(|(posted, sent)| (*posted - *sent).to_std().unwrap_or_default());
        task.done(&format!("{} events", orders.count));
        Ok(Idle {
            posted: Latencies::of(posted.skip(1))?,
            confirmed: Latencies::of(confirmed.into_iter().skip(1))?,
        })
    }

    /// Sends orders while no worker runs, then starts one and waits until all are confirmed.
    ///
    /// # Errors
    /// When one is not in the ledger and confirmed exactly once.
    pub async fn drain(&self, worker: &str, orders: &Orders) -> Result<Drained> {
        let task = Progress::shown().task(&format!("sending a backlog of {}", orders.count));
        let before = last_transfer(&self.system.pool).await?;
        self.producer.send_all(topic::ORDERS, orders).await?;
        task.done("");
        let confirmations = self.confirmations()?;
        let began = Instant::now();
        self.system.start_service(worker, &[]).await?;
        let task = Progress::shown().task("Meed, draining the backlog");
        let watching = self.system.watch()?;
        let last = confirmations.reach(orders.count, Some(&task)).await?;
        self.settle().await?;
        let sealed_after = last.elapsed();
        let (uses, looks) = watching.stop(orders.count);
        self.check(before, orders, &confirmations).await?;
        let per_second = per_second(orders.count, last - began);
        task.done(&format!("{per_second:.0} events/s"));
        Ok(Drained {
            run: Run { per_second, uses },
            looks,
            sealed_after,
        })
    }

    fn confirmations(&self) -> Result<Confirmations> {
        tokio::task::block_in_place(|| Confirmations::from_now(&self.system.brokers))
    }

    /// Sends orders: how long it took until the last of them was confirmed.
    async fn confirm(&self, orders: &Orders, task: &Task) -> Result<Duration> {
        let before = last_transfer(&self.system.pool).await?;
        let confirmations = self.confirmations()?;
        let began = Instant::now();
        let sending = self.producer.send_all(topic::ORDERS, orders);
        let confirmed = confirmations.reach(orders.count, Some(task));
        let ((), last) = tokio::try_join!(sending, confirmed)?;
        self.check(before, orders, &confirmations).await?;
        Ok(last - began)
    }

    /// A benchmark whose result is wrong has failed.
    async fn check(&self, before: i64, orders: &Orders, confirmed: &Confirmations) -> Result<()> {
        confirmed.none_but(orders.count).await?;
        let (transfers, points): (i64, i64) = sqlx::query_as(
            "SELECT count(*), coalesce(sum(amount), 0)::bigint FROM transfers
             WHERE transfer_id > $1",
        )
        .bind(before)
        .fetch_one(&self.system.pool)
        .await?;
        let wanted = i64::try_from(orders.count)?;
        ensure!(
            transfers == wanted && points == wanted,
            "{transfers} transfers of {points} points for {wanted} events of one point each"
        );
        Ok(())
    }

    /// Waits until the outbox is empty and the hash chain complete.
    async fn settle(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let waiting = relay::backlog(&self.system.pool).await?.messages;
            let unsealed: i64 = sqlx::query_scalar(
                "SELECT coalesce((SELECT max(transfer_id) FROM transfers), 0)
                      - coalesce((SELECT max(transfer_id) FROM transfer_hashes), 0)",
            )
            .fetch_one(&self.system.pool)
            .await?;
            if waiting == 0 && unsealed == 0 {
                return Ok(());
            }
            ensure!(
                began.elapsed() < SETTLED_WITHIN,
                "{waiting} messages wait in the outbox and about {unsealed} transfers are not sealed"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// The ledger's last transfer.
async fn last_transfer(pool: &PgPool) -> Result<i64> {
    let query = sqlx::query_scalar("SELECT coalesce(max(transfer_id), 0) FROM transfers");
    Ok(query.fetch_one(pool).await?)
}
