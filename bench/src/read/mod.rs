//! Balances over HTTP, beside a bare handler that reads the same row.

mod staleness;
mod telling;
mod wrk;

use std::time::Duration;

use anyhow::{Result, ensure};
use domain::CustomerId;
use serde_json::Value;
use stack::Progress;
use tokio_util::sync::CancellationToken;

use crate::accounts;
use crate::baseline;
use crate::load::Latencies;
use crate::options::Options;
use crate::report::Report;
use crate::sampling::Uses;
use crate::system::{System, repository};
use staleness::Watcher;
use wrk::{Done, Wrk};

/// How many customers are asked for.
const CUSTOMERS: usize = 1_000;
/// How many points each has.
const POINTS: i64 = 1_000;
/// How many clients ask: so many that the limits for one are never the limit.
const CLIENTS: usize = 64;
/// How many customers change while the others are asked for.
const CHANGING: usize = 4;
/// How long each measure lasts, in seconds.
const SECONDS: usize = 6;
/// A balance without what it is made of, which is what the bare handler shows.
const BALANCE: &str = "/api/v1/rewards/%s?breakdown=false";
/// The bare handler's.
const BARE: &str = "/balance/%s";

/// Somebody who is asked.
#[derive(Clone)]
struct Asked {
    name: &'static str,
    server: String,
    path: &'static str,
}

/// What one round found of one that is asked.
struct Found {
    rate: f64,
    uses: Uses,
    /// At half of that rate.
    half: (Done, Uses),
}

struct Bench<'a> {
    options: &'a Options,
    system: System,
    tokens: Vec<String>,
    customers: Vec<String>,
    wrk: Wrk,
}

/// Measures it.
///
/// # Errors
/// When something does not run, or what is shown is wrong.
pub async fn measure(options: &Options) -> Result<Report> {
    let system = System::start(options).await?;
    let fresh = format!("fresh_ms = {}", system.settings.cache.fresh().as_millis());
    let not_cached = system.configured("not-cached", &[(&fresh, "fresh_ms = 0")])?;
    let not_cached = not_cached.display().to_string();
    system.start_service("partners", &[]).await?;
    system.start_service("api", &[]).await?;
    system
        .start_service("api-2", &[("MEED_CONFIG", &not_cached)])
        .await?;
    let bare = baseline::start(&system).await?;
    let second = format!("http://127.0.0.1:{}", system.stack.ports().get("api-2")?);
    let asked = |name, server: &str, path| Asked {
        name,
        server: server.to_owned(),
        path,
    };
    let all = [
        asked("a bare handler", &bare, BARE),
        asked("Meed, not cached", &second, BALANCE),
        asked("Meed, cached", &system.api, BALANCE),
    ];
    let bench = Bench::begin(options, system).await?;
    let task = Progress::shown().task("read: warming up");
    for asked in &all {
        bench.is_right(asked).await?;
        bench.at(asked, None).await?;
    }
    task.done("");

    let mut rounds: Vec<Vec<Found>> = Vec::new();
    let mut shown_after = Vec::new();
    for number in 1..=options.rounds.max(1) {
        let mut round = Vec::new();
        for (place, asked) in all.iter().enumerate() {
            let task = Progress::shown().task(&format!("read: round {number}, {}", asked.name));
            let (full, uses) = bench.at(asked, None).await?;
            let rate = full.rate();
            let half = bench.at(asked, Some(rate / 2.0)).await?;
            if place == 2 {
                shown_after.push(bench.staleness(asked, rate / 4.0, number).await?);
            }
            task.done(&format!("{rate:.0}/s"));
            round.push(Found { rate, uses, half });
        }
        rounds.push(round);
    }
    for asked in &all {
        bench.is_right(asked).await?;
    }

    let mut report = Report::new("read");
    bench.settings(&mut report);
    telling::all(&mut report, &all, &rounds, &shown_after);
    Ok(report)
}

impl<'a> Bench<'a> {
    async fn begin(options: &'a Options, system: System) -> Result<Self> {
        let mut tokens = Vec::with_capacity(CLIENTS);
        for number in 0..CLIENTS {
            let subject = format!("reader-{number}");
            tokens.push(system.token(&subject, "rewards.read").await?);
        }
        let customers: Vec<String> = (0..CUSTOMERS)
            .map(|number| format!("B-{number:04}"))
            .collect();
        accounts::open(&system.pool, &customers, POINTS).await?;
        let changing: Vec<String> = (0..CHANGING).map(changing).collect();
        accounts::open(&system.pool, &changing, POINTS).await?;
        let wrk = Wrk::new(&repository().join("target/bench"), &customers, &tokens)?;
        Ok(Self {
            options,
            system,
            tokens,
            customers,
            wrk,
        })
    }

    fn lasting(&self) -> Duration {
        Duration::from_secs(self.options.scaled(SECONDS).max(2) as u64)
    }

    /// As much as it answers, or about so much a second; and what that takes.
    async fn at(&self, asked: &Asked, rate: Option<f64>) -> Result<(Done, Uses)> {
        let watching = self.system.watch()?;
        let done = self
            .wrk
            .run(&asked.server, asked.path, self.lasting(), rate)
            .await?;
        let (uses, _) = watching.stop(done.requests);
        Ok((done, uses))
    }

    /// How long after commits they are shown, while others ask so much.
    async fn staleness(&self, asked: &Asked, rate: f64, round: usize) -> Result<Latencies> {
        let stop = CancellationToken::new();
        let mut watchers = Vec::new();
        for number in 0..CHANGING {
            let customer = changing(number);
            let watcher = Watcher {
                http: self.system.http.clone(),
                pool: self.system.pool.clone(),
                url: address(asked, &customer),
                token: self.system.token(&customer, "rewards.read").await?,
                customer: CustomerId::new(customer)?,
            };
            let name = format!("change-{round}-{number}");
            watchers.push(tokio::spawn(watcher.watch(name, stop.clone())));
        }
        self.at(asked, Some(rate)).await?;
        stop.cancel();
        let mut changes = Vec::new();
        for watcher in watchers {
            changes.extend(watcher.await??);
        }
        Latencies::of(changes)
    }

    /// Every customer has the points that the ledger says, and they come from where they should.
    async fn is_right(&self, asked: &Asked) -> Result<()> {
        for (customer, token) in self.customers.iter().zip(self.tokens.iter().cycle()) {
            let request = self
                .system
                .http
                .get(address(asked, customer))
                .bearer_auth(token);
            let answer = request.send().await?.error_for_status()?;
            let from = answer.headers().get("cache-status");
            let from = from.map(|from| from.to_str().unwrap_or_default().to_owned());
            let answer: Value = answer.json().await?;
            ensure!(
                answer["totalPoints"] == POINTS,
                "{}: {customer} is shown as {answer}",
                asked.name
            );
            let hit = from.as_deref() == Some("meed; hit");
            ensure!(
                !hit || asked.server == self.system.api,
                "{}: {customer} comes from a copy",
                asked.name
            );
        }
        Ok(())
    }

    fn settings(&self, report: &mut Report) {
        let settings = &self.system.settings;
        report.set("customers", CUSTOMERS);
        report.set("clients", CLIENTS);
        report.set("connections of wrk", wrk::CONNECTIONS);
        report.set("connections of wrk with pauses", wrk::PACED_CONNECTIONS);
        report.set("changing customers", CHANGING);
        report.set(
            "database.max_connections",
            settings.database.max_connections,
        );
        let fresh = settings.cache.fresh().as_millis();
        report.set("cache.fresh_ms", u64::try_from(fresh).unwrap_or(u64::MAX));
        report.set("limits.read", format!("{:?}", settings.limits.read));
    }
}

fn changing(number: usize) -> String {
    format!("C-{number}")
}

fn address(asked: &Asked, customer: &str) -> String {
    format!("{}{}", asked.server, asked.path.replace("%s", customer))
}
