//! Events on Kafka until they are in the ledger and confirmed on Kafka.

mod flow_per_event;
mod kafka;
mod ledger_alone;
mod meed;
mod orders;
mod plain_consumer;
mod tell;

use std::time::Duration;

use anyhow::Result;
use boot::LiveProgramme;
use sqlx::PgPool;

use meed::Idle;
pub use meed::Meed;
pub use orders::{Customers, Orders};
pub use tell::costs;

use crate::options::Options;
use crate::report::Report;
use crate::sampling::Uses;
use crate::system::System;

/// The worker, where there is one.
const WORKER: &str = "worker";
/// Customers over whom events are spread.
const CUSTOMERS: usize = 10_000;
/// Events of a round, for Meed and for PostgreSQL alone.
const EVENTS: usize = 60_000;
/// Events of a round for the plain consumer.
const PLAIN_EVENTS: usize = 3_000;
/// Events of a round of which each has its own workflow.
const FLOW_EVENTS: usize = 200;
/// Events of a round that are sent one at a time.
const IDLE_EVENTS: usize = 200;
/// Events of the backlog.
const BACKLOG: usize = 1_000_000;
/// How fast something was, and what it used.
#[derive(Debug, Clone)]
pub struct Run {
    /// Events per second.
    pub per_second: f64,
    /// What processes used.
    pub uses: Uses,
}

/// What one round found.
struct Round {
    meed: Run,
    hot: Run,
    idle: Idle,
    ledger_alone: Run,
    plain_consumer: Run,
    flow_per_event: Run,
}

/// How many of something there were in a second.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
pub fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// Measures awards and their baselines.
///
/// # Errors
/// When something does not run, or its result is wrong.
pub async fn measure(options: &Options) -> Result<Report> {
    let system = System::start(options).await?;
    let partitions = partitions(&system)?;
    let mut report = Report::new("award");
    tell_settings(&mut report, &system, partitions).await?;
    let customers = options.scaled(CUSTOMERS);
    report.set("customers", customers);
    report.set("eventsInARound", options.scaled(EVENTS));

    let meed = Meed::new(&system)?;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        rounds.push(round(&system, &meed, options, number, partitions).await?);
    }
    let backlog = Customers::new("backlog", customers);
    backlog.open(&system.pool).await?;
    let backlog = Orders::new("backlog", &backlog, options.scaled(BACKLOG));
    let drained = meed.drain(WORKER, &backlog).await?;

    tell::rounds(&mut report, &rounds);
    tell::backlog(&mut report, &drained, backlog.count);
    report.notes.push(
        "(a), (b) and (c) run in the process `bench`, while no worker does. All post by the code \
         that Meed posts by, with its two messages of the outbox for each event; none of them \
         publishes those or seals the hash chain. CPU of Meed is counted until that is done too."
            .to_owned(),
    );
    Ok(report)
}

/// What every measurement of awards depends on.
///
/// # Errors
/// When it cannot be told.
pub async fn tell_settings(report: &mut Report, system: &System, partitions: usize) -> Result<()> {
    let settings: Vec<(String, String)> = sqlx::query_as(
        "SELECT name, setting FROM pg_settings
         WHERE name IN ('server_version', 'fsync', 'synchronous_commit', 'full_page_writes')",
    )
    .fetch_all(&system.pool)
    .await?;
    for (name, setting) in settings {
        report.set(&format!("postgres.{name}"), setting);
    }
    report.set("kafka.acks", "all");
    report.set("kafka.partitions", partitions);
    report.set(
        "worker.intake.max_batch",
        system.settings.worker.intake.max_batch,
    );
    report.set(
        "database.max_connections",
        system.settings.database.max_connections,
    );
    Ok(())
}

/// How many partitions events come from.
///
/// # Errors
/// When Kafka does not answer.
pub fn partitions(system: &System) -> Result<usize> {
    let topic = domain::inbound::topic::ORDERS;
    Ok(tokio::task::block_in_place(|| kafka::ends(&system.brokers, topic))?.len())
}

async fn round(
    system: &System,
    meed: &Meed<'_>,
    options: &Options,
    number: usize,
    partitions: usize,
) -> Result<Round> {
    let customers = options.scaled(CUSTOMERS);
    let spread = Customers::new("spread", customers);
    let hot = Customers::new(format!("hot-{number}"), 1);
    let lonely = Customers::new("ledger-alone", customers);
    let plain = Customers::new("plain-consumer", customers);
    let flows = Customers::new("flow-per-event", customers);
    for customers in [&spread, &hot, &lonely, &plain, &flows] {
        customers.open(&system.pool).await?;
    }
    let orders = |name: &str, customers: &Customers, amount: usize| {
        Orders::new(
            format!("{name}-{number}"),
            customers,
            options.scaled(amount),
        )
    };

    meed.start(&[WORKER], &orders("warm-up", &spread, CUSTOMERS))
        .await?;
    let of_meed = meed.run("Meed", &orders("spread", &spread, EVENTS)).await?;
    let of_one = orders("hot", &hot, EVENTS);
    let of_one = meed
        .run("Meed, all events of one customer", &of_one)
        .await?;
    let idle = meed.idle(&orders("idle", &spread, IDLE_EVENTS)).await?;
    meed.stop(&[WORKER]).await?;

    let programme = LiveProgramme::load(&system.settings.programme_file())?.current();
    let lonely = orders("ledger-alone", &lonely, EVENTS);
    let ledger_alone = ledger_alone::measure(system, &programme, &lonely, partitions).await?;
    let plain = orders("plain-consumer", &plain, PLAIN_EVENTS);
    let plain_consumer = plain_consumer::measure(system, &programme, &plain, partitions).await?;
    let few = Orders::new(
        format!("first-flows-{number}"),
        &flows,
        flow_per_event::CONCURRENT,
    );
    let flows = orders("flow-per-event", &flows, FLOW_EVENTS);
    let flow_per_event = flow_per_event::measure(system, &programme, &few, &flows).await?;
    forget_outbox(&system.pool).await?;
    Ok(Round {
        meed: of_meed,
        hot: of_one,
        idle,
        ledger_alone,
        plain_consumer,
        flow_per_event,
    })
}

/// Takes away what the baselines would have told, so that no worker publishes it later.
async fn forget_outbox(pool: &PgPool) -> Result<()> {
    let mut transaction = pool.begin().await?;
    sqlx::query("TRUNCATE outbox_messages, outbox_state")
        .execute(&mut *transaction)
        .await?;
    // Whoever compares the ledger with the outbox looks no further back.
    sqlx::query("UPDATE outbox_pruned SET pruned_before = clock_timestamp()")
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}
