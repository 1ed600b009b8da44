//! Requests until the merchant has confirmed and the points are deducted.

mod buying;
mod counted;
mod sale;
mod steps;
mod telling;
mod truth;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stack::Progress;
use store::{redemptions, relay};

use crate::baseline;
use crate::load::{self, Latencies};
use crate::options::Options;
use crate::report::{Report, median};
use crate::sampling::Uses;
use crate::system::{MERCHANT, System};
use buying::{At, Buying, CLIENTS, CUSTOMERS};
use counted::Counted;
use sale::Sale;

/// How many redemptions are under way at once.
const AT_ONCE: usize = 50;
/// How many of each are done before anything is measured.
const WARM_UP: usize = 200;
/// How many are done one after the other.
const ALONE: usize = 200;
/// How long half of the saturation rate lasts, in seconds.
const HALF_SECONDS: usize = 10;
/// How long a sale lasts, in seconds; and how long after it everything is to be as before.
const SALE_SECONDS: usize = 30;
/// How many times the saturation rate come in a sale.
const SALE_TIMES: f64 = 10.0;
/// How long everything that was begun before may take to come to rest.
const REST_WITHIN: Duration = Duration::from_secs(60);

/// One measure at full load.
struct Full {
    rate: f64,
    uses: Uses,
}

/// What one round found.
struct Round {
    full: Vec<Full>,
    /// What the api counted at full load.
    counted: String,
    alone: Alone,
    half: Latencies,
}

/// How long redemptions took of which there was one at a time.
struct Alone {
    /// Until the request was answered.
    answered: Latencies,
    /// Until it was known that the merchant has confirmed.
    confirmed: Latencies,
}

struct Bench<'a> {
    options: &'a Options,
    system: System,
    buying: Buying,
    /// How many were confirmed by now, at Meed.
    confirmed: usize,
}

/// Measures it.
///
/// # Errors
/// When something does not run, or what comes of it is wrong.
pub async fn measure(options: &Options) -> Result<Report> {
    let system = System::start(options).await?;
    for service in ["partners", "worker", "api"] {
        system.start_service(service, &[]).await?;
    }
    let baselines = baseline::start(&system).await?;
    let buying = Buying::begin(&system, baselines).await?;
    let mut bench = Bench {
        options,
        system,
        buying,
        confirmed: 0,
    };
    let task = Progress::shown().task("redeem: warming up");
    for at in At::ALL {
        bench
            .at_once(at, "warm-up", options.scaled(WARM_UP))
            .await?;
    }
    task.done("");
    let mut rounds = Vec::new();
    for number in 1..=options.rounds.max(1) {
        rounds.push(bench.round(number).await?);
    }
    let saturation = median(&rates(&rounds, At::Meed));
    let task = Progress::shown().task("redeem: a flash sale");
    let (sale, finished_after, after) = bench.sale(saturation).await?;
    task.done(&format!("{} accepted, {} shed", sale.accepted, sale.shed));
    let task = Progress::shown().task("redeem: whether it is right");
    let in_sale = bench.truth(&sale).await?;
    task.done("");

    let mut report = Report::new("redeem");
    bench.settings(&mut report).await?;
    telling::rates(&mut report, &rounds);
    telling::latencies(&mut report, &rounds);
    telling::sale(&mut report, &sale, finished_after, &rounds, &after);
    report.notes.push(in_sale);
    let last = options.rounds.max(1);
    for (prefix, when) in [
        ("one", "one at a time"),
        ("meed", "at 50 at once"),
        ("half", "at half of the rate"),
    ] {
        let steps = steps::of(&bench.system.pool, &format!("{prefix}-{last}-")).await?;
        report.notes.push(steps.told(when));
    }
    report.notes.extend(rounds.pop().map(|round| round.counted));
    Ok(report)
}

fn rates(rounds: &[Round], at: At) -> Vec<f64> {
    let of_round = |round: &Round| round.full[at as usize].rate;
    rounds.iter().map(of_round).collect()
}

impl Bench<'_> {
    /// Meed and every baseline once, all within a minute or so.
    async fn round(&mut self, number: usize) -> Result<Round> {
        let mut full = Vec::new();
        let mut counted = String::new();
        for at in At::ALL {
            let task = Progress::shown().task(&format!("redeem: round {number}, {}", at.name()));
            self.rest().await?;
            let before = Counted::now(&self.system).await?;
            let amount = self.options.scaled(at.amount());
            let watching = self.system.watch()?;
            let began = Instant::now();
            self.at_once(at, &number.to_string(), amount).await?;
            let rate = per_second(amount, began.elapsed());
            let (uses, _) = watching.stop(amount);
            if at == At::Meed {
                let after = Counted::now(&self.system).await?;
                counted = after.told(&before, amount, "at 50 at once");
            }
            task.done(&format!("{rate:.0}/s"));
            full.push(Full { rate, uses });
        }
        let task = Progress::shown().task(&format!("redeem: round {number}, latencies"));
        self.rest().await?;
        let alone = self.alone(&format!("one-{number}")).await?;
        let half = self
            .half(number, full[At::Meed as usize].rate / 2.0)
            .await?;
        task.done(&format!("{:.1} ms alone", alone.confirmed.median()));
        Ok(Round {
            full,
            counted,
            alone,
            half,
        })
    }

    /// So many redemptions, 50 at once.
    async fn at_once(&mut self, at: At, name: &str, amount: usize) -> Result<()> {
        let buying = self.buying.clone();
        let redeem = move |number| {
            let id = format!("{}-{name}-{number}", at.word());
            buying.clone().redeem(at, id, number)
        };
        load::at_once(AT_ONCE, amount, redeem).await?;
        if at == At::Meed {
            self.confirmed += amount;
        }
        Ok(())
    }

    /// One redemption after the other, while there is no other load.
    async fn alone(&mut self, prefix: &str) -> Result<Alone> {
        let mut waited = Vec::new();
        for number in 0..self.options.scaled(ALONE).max(20) {
            let id = format!("{prefix}-{number}");
            waited.push(self.buying.clone().redeem(At::Meed, id, number).await?);
        }
        self.confirmed += waited.len();
        Ok(Alone {
            answered: Latencies::of(waited.iter().map(|waited| waited.answered))?,
            confirmed: Latencies::of(waited.iter().map(|waited| waited.confirmed))?,
        })
    }

    /// Redemptions at even distances.
    async fn half(&mut self, round: usize, rate: f64) -> Result<Latencies> {
        let buying = self.buying.clone();
        let redeem = move |number| {
            let id = format!("half-{round}-{number}");
            buying.clone().redeem(At::Meed, id, number)
        };
        let lasting = Duration::from_secs(self.options.scaled(HALF_SECONDS).max(3) as u64);
        let ended = load::a_second(rate, lasting, redeem).await?;
        let mut latencies = Vec::new();
        for (took, redeemed) in ended {
            redeemed?;
            latencies.push(took);
        }
        self.confirmed += latencies.len();
        Latencies::of(latencies)
    }

    /// A sale; how long it took to finish what was accepted in it, in seconds; and what latencies
    /// are half a minute after its end.
    async fn sale(&mut self, saturation: f64) -> Result<(Sale, f64, Alone)> {
        self.rest().await?;
        let lasting = Duration::from_secs(self.options.scaled(SALE_SECONDS).max(3) as u64);
        let end = Instant::now() + lasting;
        let sale = sale::hold(&self.buying, "sale-", saturation * SALE_TIMES, lasting).await?;
        let pool = self.system.pool.clone();
        let finishing = tokio::spawn(async move { sale::finish(&pool, "sale-", end).await });
        tokio::time::sleep_until((end + lasting).into()).await;
        let after = self.alone("after").await?;
        Ok((sale, finishing.await??.as_secs_f64(), after))
    }

    /// Waits until nothing is open and everything that happened has been told, so that nobody pays
    /// for those before.
    async fn rest(&self) -> Result<()> {
        let deadline = Instant::now() + REST_WITHIN;
        loop {
            let pool = &self.system.pool;
            let open: i64 = redemptions::open(pool)
                .await?
                .iter()
                .map(|open| open.count)
                .sum();
            let untold = relay::backlog(pool).await?.messages;
            if open == 0 && untold == 0 {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "{open} redemptions stay open and {untold} messages unpublished"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // The last tasks of flows come a moment after their last steps.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(())
    }

    /// Everything that a client was told to be SUCCESS is, once; what came of the sale.
    async fn truth(&self, sale: &Sale) -> Result<String> {
        self.rest().await?;
        let pool = &self.system.pool;
        let mut successes = 0;
        for prefix in ["meed-", "one-", "half-", "after-"] {
            successes += truth::successes(pool, prefix).await?;
        }
        let confirmed = self.confirmed;
        ensure!(
            successes == confirmed,
            "{confirmed} redemptions were confirmed to clients, and {successes} are SUCCESS"
        );
        let succeeded = truth::successes(pool, "sale-").await?;
        let failed = truth::failures(pool, "sale-").await?;
        ensure!(
            succeeded + failed >= sale.accepted,
            "{} were accepted in the sale, and {} have ended",
            sale.accepted,
            succeeded + failed
        );
        let asked = truth::check(&self.system).await?;
        Ok(format!(
            "Of the sale's requests {succeeded} came to SUCCESS and {failed} to FAILED. {asked}; \
             the rows, the ledger and the merchant's book agree."
        ))
    }

    async fn settings(&self, report: &mut Report) -> Result<()> {
        let settings = &self.system.settings;
        report.set("at once", AT_ONCE);
        report.set("customers", CUSTOMERS);
        report.set("clients", CLIENTS);
        report.set("merchant", format!("{MERCHANT}, which confirms at once"));
        report.set("redeem.quick_attempt_ms", settings.redeem.quick_attempt_ms);
        report.set("api.outcome_wait_ms", settings.api.outcome_wait_ms);
        report.set(
            "database.max_connections",
            settings.database.max_connections,
        );
        report.set("limits.redeem", format!("{:?}", settings.limits.redeem));
        for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
            let value: String = sqlx::query_scalar("SELECT current_setting($1)")
                .bind(setting)
                .fetch_one(&self.system.pool)
                .await?;
            report.set(&format!("postgresql {setting}"), value);
        }
        let server = self.system.plan.root.join("deploy/temporal/server.yaml");
        let text = std::fs::read_to_string(server).context("server.yaml")?;
        for setting in ["numHistoryShards", "maxConns"] {
            let line = text
                .lines()
                .find_map(|line| line.trim().strip_prefix(setting));
            let value = line.unwrap_or_default().trim_start_matches(':').trim();
            report.set(&format!("temporal {setting}"), value);
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn per_second(amount: usize, took: Duration) -> f64 {
    amount as f64 / took.as_secs_f64()
}
