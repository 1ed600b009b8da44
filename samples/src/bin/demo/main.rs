//! The demonstration: streams a sample day through Kafka and checks what came of it.
//!
//! `demo run [--file F] [--redeliver]` sends everything but the redemptions, waits until
//! all of it is posted, then sends the redemptions and waits for their outcomes. It ends
//! with tables and compares the ledger with a plain recomputation of the same file;
//! where they differ it lists the first differences and exits with 1.
//!
//! `demo people` makes a player and somebody of the staff who can log in to the page.

mod kafka;
mod ledger;
mod partners;
mod people;
mod progress;
mod report;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use samples::feed::{self, Delivery};
use samples::recompute::recompute;

use kafka::{DeadLetters, Kafka};
use ledger::{Backlog, Ledger, Totals};
use progress::Progress;

const REDEMPTIONS: &str = "redeem-events";
/// What is published about customers; a redelivery must add nothing to these.
const OUTBOUND: [&str; 4] = [
    "reward-confirmed",
    "redeem-confirmed",
    "loyalty.pointsAdded.v2",
    "loyalty.tierUpgraded.v1",
];
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Streams a sample day through a running Meed and checks the outcome.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends the file, waits for the outcome and checks it.
    Run(Run),
    /// Makes people for the page, in the dev profile, and says how to log in.
    People {
        /// The API.
        #[arg(long, env = "MEED_API_URL")]
        api: String,
    },
}

#[derive(Args)]
struct Run {
    /// The sample file.
    #[arg(long, default_value = "samples/day.jsonl.gz")]
    file: PathBuf,
    /// Sends the file a second time and checks that nothing changed.
    #[arg(long)]
    redeliver: bool,
    /// Gives up when nothing has moved for this long.
    #[arg(long, default_value_t = 360)]
    stall_limit_seconds: u64,
    /// Kafka to stream through.
    #[arg(long, env = "KAFKA_BROKERS")]
    brokers: String,
    /// Consumer group of the intake, to see how far it is.
    #[arg(long, default_value = "meed-intake")]
    group: String,
    /// The ledger.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database: String,
    /// The API, asked whether it is ready before anything is sent.
    #[arg(long, env = "MEED_API_URL")]
    api: Option<String>,
    /// The partner simulator, whose books are compared with the ledger.
    #[arg(long, env = "PARTNERS_URL")]
    partners: Option<String>,
}

/// What one sending of the file did.
struct Delivered {
    before: Totals,
    after: Totals,
    /// Messages sent, and the time until all of them were processed.
    awards: (usize, Duration),
    redemptions: (usize, Duration),
    dead_letters: DeadLetters,
    /// Messages published about customers meanwhile.
    published: i64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(run) => demonstrate(&run).await,
        Command::People { api } => people::prepare(&api).await.map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("The demonstration stopped: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demonstrate(run: &Run) -> anyhow::Result<bool> {
    let deliveries = feed::read(&run.file)
        .with_context(|| format!("the sample file {} cannot be read", run.file.display()))?;
    let expectation = recompute(&deliveries);
    let mut stage = Stage {
        kafka: Kafka::connect(&run.brokers, &run.group)?,
        ledger: Ledger::connect(&run.database).await?,
        stall_limit: Duration::from_secs(run.stall_limit_seconds),
    };
    partners::require_ready(run.api.as_deref()).await?;

    // What an earlier sending has left, such as one that was broken off, is not this one's.
    stage.clear(&deliveries).await?;
    let known = stage.ledger.known_events(&expectation).await?;
    let delivered = stage.deliver(&deliveries).await?;
    let findings = stage.ledger.findings(&expectation).await?;
    let books = partners::books(run.partners.as_deref(), &expectation).await?;

    report::print_tables(&expectation, &findings, &delivered);
    let mut differences = report::differences(&expectation, &findings, &delivered, &books);
    if known == expectation.events.len() {
        println!("The ledger knew every event of this file already: this was a redelivery.");
        differences.extend(report::changes(&delivered));
    }
    if run.redeliver {
        println!("Sending the whole file once more.");
        let again = stage.deliver(&deliveries).await?;
        let findings = stage.ledger.findings(&expectation).await?;
        differences.extend(report::changes(&again));
        differences.extend(report::differences(&expectation, &findings, &again, &books));
    }
    Ok(report::print_verdict(&expectation, &differences))
}

struct Stage {
    kafka: Kafka,
    ledger: Ledger,
    stall_limit: Duration,
}

impl Stage {
    async fn deliver(&mut self, deliveries: &[Delivery]) -> anyhow::Result<Delivered> {
        let before = self.ledger.totals().await?;
        let dead_letters_from = self
            .kafka
            .ends(&["dead-letter"])
            .context("Kafka cannot be asked for its topics")?;
        let published_before: i64 = self.kafka.ends(&OUTBOUND)?.values().sum();

        let (redemptions, awards): (Vec<&Delivery>, Vec<&Delivery>) = deliveries
            .iter()
            .partition(|delivery| delivery.topic == REDEMPTIONS);
        let awards = self.phase("awards", &awards).await?;
        let redemptions = self.phase("redemptions", &redemptions).await?;

        let published_after: i64 = self.kafka.ends(&OUTBOUND)?.values().sum();
        Ok(Delivered {
            before,
            after: self.ledger.totals().await?,
            awards,
            redemptions,
            dead_letters: self.kafka.dead_letters(&dead_letters_from)?,
            published: published_after - published_before,
        })
    }

    /// Sends, and waits until nothing that follows from it is open any more.
    async fn phase(
        &mut self,
        name: &'static str,
        deliveries: &[&Delivery],
    ) -> anyhow::Result<(usize, Duration)> {
        let started = Instant::now();
        let mut progress = Progress::new(name, deliveries.len());
        self.kafka.send(deliveries, &mut progress).await?;
        let topics = deliveries.iter().map(|d| d.topic.as_str());
        self.until_done(topics, deliveries.len(), &mut progress)
            .await?;
        progress.finish();
        Ok((deliveries.len(), started.elapsed()))
    }

    /// Waits until nothing is under way.
    async fn clear(&self, deliveries: &[Delivery]) -> anyhow::Result<()> {
        let topics = deliveries.iter().map(|d| d.topic.as_str());
        self.until_done(topics, 0, &mut Progress::new("earlier", 0))
            .await
    }

    /// Waits until this many messages of these topics are taken in, and all that follows is done.
    async fn until_done<'a>(
        &self,
        topics: impl Iterator<Item = &'a str>,
        sent: usize,
        progress: &mut Progress,
    ) -> anyhow::Result<()> {
        let topics: Vec<&str> = topics.collect::<BTreeSet<_>>().into_iter().collect();
        let mut last = (i64::MAX, Backlog::default());
        let mut moved = Instant::now();
        loop {
            let lag = match tokio::task::block_in_place(|| self.kafka.lag(&topics)) {
                Ok(lag) => lag,
                // A broker that is busy may have to be asked again.
                Err(_) if moved.elapsed() <= self.stall_limit => {
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                    continue;
                }
                Err(error) => return Err(error).context("asking Kafka how far the intake is"),
            };
            let backlog = self.ledger.backlog().await?;
            if lag == 0 && backlog == Backlog::default() {
                return Ok(());
            }
            if (lag, backlog) != last {
                last = (lag, backlog);
                moved = Instant::now();
            }
            if moved.elapsed() > self.stall_limit {
                bail!(
                    "nothing has moved for {} s: {lag} messages not taken in, {backlog}",
                    self.stall_limit.as_secs()
                );
            }
            let taken = sent.saturating_sub(usize::try_from(lag)?);
            progress.at(taken, &backlog.to_string());
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }
}
