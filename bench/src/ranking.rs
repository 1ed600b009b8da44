//! Looking up ranks among five million customers, in memory and in Redis, while customers go on
//! earning points: what it takes to make the ranking, to look at it and to follow the ledger.
//!
//! PostgreSQL, Redis and whoever earns share the machine with what is measured; Kafka and Temporal,
//! which have no part in it, do not run.

use std::future::poll_fn;
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, Utc};
use domain::CustomerId;
use kv::Redis;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use ranking::Ranking;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, PgPool};
use stack::{Component, Ports, Progress, Service, Stack};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::load::{Latencies, a_second};
use crate::options::Options;
use crate::report::{Figure, Report};
use crate::sampling::{Sampler, Uses, resident_mib};
use crate::system::repository;

/// How many customers there are; each has been given points once.
const CUSTOMERS: usize = 5_000_000;
/// How many of them earn points each second, and in how many batches.
const CHANGES: i64 = 2_000;
const BATCHES: i64 = 10;
/// How many ranks are looked up each second in a round, and for how long.
const LOOKUPS: f64 = 500.0;
const ROUND: Duration = Duration::from_secs(4);
/// How often it is measured in a round how long a commit takes to be in the ranks.
const FOLLOWED: u64 = 15;
/// How many customers are looked up, one after the other.
const LOOKED_UP: i64 = 10_000;
/// How often the ledger is looked at for changes, in milliseconds, as meed.toml has it.
const POLL_MS: u64 = 200;
/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_mins(10);
/// The measure of a look at the index, without the ledger.
const LOOKUP: &str = "meed_ranking_lookup_seconds";

/// What the goals are.
const LOOKUP_MS: f64 = 2.0;
const MADE_SECONDS: f64 = 120.0;
const FOLLOWED_MS: f64 = 1_000.0;

/// PostgreSQL and Redis.
struct Servers {
    stack: Stack,
    redis: String,
}

/// A ledger with everybody in it.
#[derive(Clone)]
struct Ledger {
    pool: PgPool,
    customers: i64,
    looked_up: Arc<Vec<CustomerId>>,
}

/// Where the ranking is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Embedded,
    Redis,
}

/// What was found of one kind.
struct Found {
    made_seconds: f64,
    made_uses: Uses,
    mib: f64,
    rounds: Vec<Round>,
    made_anew_seconds: f64,
    made_anew_uses: Uses,
    most_mib: f64,
    meanwhile: Latencies,
    changes_a_second: f64,
}

/// What one round found.
struct Round {
    at_rest: Latencies,
    index: Latencies,
    whole: Latencies,
    followed: Latencies,
}

/// Measures.
///
/// # Errors
/// When something does not run, or is not done in time.
pub async fn measure(options: &Options) -> Result<Report> {
    let asked = options.clone();
    let servers = tokio::task::spawn_blocking(move || Servers::start(&asked)).await??;
    let ledger = Ledger::filled(&servers, options).await?;
    let mut report = Report::new("ranking");
    report.set("customers", ledger.customers);
    report.set("changesPerSecond", CHANGES);
    report.set("lookupsPerSecond", LOOKUPS);
    report.set("pollMilliseconds", POLL_MS);
    let version: String = sqlx::query_scalar("SHOW server_version")
        .fetch_one(&ledger.pool)
        .await?;
    report.set("postgres", version);
    let version = Command::new("redis-server").arg("--version").output()?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    report.set("redis", version);
    for kind in [Kind::Embedded, Kind::Redis] {
        let found = kind.measure(&servers, &ledger, options.rounds).await?;
        kind.report(&found, &mut report);
    }
    report.notes.extend([
        "A rank is looked up with its neighbours; in the index means without the points, which are \
         read in the ledger. Lookups begin at even distances, however long the earlier ones take."
            .to_owned(),
        "Memory in each api is what this process has more than before; that of Redis is what its \
         process has more than when it is empty."
            .to_owned(),
        "Beside what it takes to make it, the processor time is that of the whole.".to_owned(),
    ]);
    Ok(report)
}

impl Servers {
    fn start(options: &Options) -> Result<Self> {
        let mut ports = Ports::at(options.port_base);
        ports.declare("redis", 65, "MEED_REDIS_PORT");
        let stack = Stack::builder()
            .components(&[Component::Postgres])
            .chosen_ports(ports)
            .data_dir(stack::places::data_dir(&repository(), options.port_base)?)
            .database("meed")
            .progress(Progress::shown())
            .fresh()
            .start()?;
        let port = stack.ports().get("redis")?.to_string();
        let arguments = ["--port", &port, "--bind", "127.0.0.1"];
        let nothing_is_written = ["--save", "", "--appendonly", "no"];
        let mut redis = Service::new("redis", "redis-server");
        redis.args = arguments
            .into_iter()
            .chain(nothing_is_written)
            .map(str::to_owned)
            .collect();
        stack.start_service(redis)?;
        Ok(Self {
            redis: format!("redis://{}", stack.address("redis")?),
            stack,
        })
    }

    /// Begins to watch what they and this process use.
    fn watch(&self) -> Result<Sampler> {
        let mut roots = vec![("bench".to_owned(), own_pid()?)];
        for name in ["postgres", "redis"] {
            roots.push((name.to_owned(), self.stack.pid(name)?));
        }
        Ok(Sampler::start(roots))
    }
}

fn own_pid() -> Result<i32> {
    Ok(i32::try_from(std::process::id())?)
}

impl Ledger {
    /// Everybody's account and first transfer. Points are such that many have the same and a few
    /// have very many.
    ///
    /// Indexes are not kept while it is filled, only made in the end, which takes a third of the
    /// time: PostgreSQL has no command for that, so its catalogue is told that they are not ready.
    async fn filled(servers: &Servers, options: &Options) -> Result<Self> {
        let customers = i64::try_from(options.scaled(CUSTOMERS))?;
        let task = Progress::shown().task(&format!("filling a ledger with {customers} customers"));
        let server: PgConnectOptions = servers.stack.superuser_url()?.parse()?;
        let server = server.database("meed");
        let pool = PgPoolOptions::new()
            .max_connections(16)
            .connect_with(server.clone())
            .await?;
        store::MIGRATIONS.run(&pool).await?;
        let mut conn = server.connect().await?;
        task.line("accounts");
        sqlx::raw_sql(
            "SET synchronous_commit = off;
             SET maintenance_work_mem = '1GB';
             SET session_replication_role = replica;
             UPDATE pg_index SET indisready = false, indisvalid = false
             WHERE indrelid IN ('customers'::regclass, 'transfers'::regclass)",
        )
        .execute(&mut conn)
        .await?;
        sqlx::query(
            "INSERT INTO customers (customer_id, available, lifetime_earned, version)
             SELECT md5(n::text)::uuid::text, points, points, 1
             FROM generate_series(1, $1) n,
                  LATERAL (SELECT 1 + (200000 * power(random(), 8))::bigint + n * 0 AS points) p",
        )
        .bind(customers)
        .execute(&mut conn)
        .await?;
        task.line("transfers");
        sqlx::raw_sql(
            "INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account,
                    customer_id, amount, reason, workflow_id, customer_version, available_after,
                    held_after, occurred_at)
             SELECT 'load', 'first-' || customer_id, 'award', 'ISSUANCE', 'AVAILABLE', customer_id,
                    available, 'LOAD', '', version, available, held, opened_at
             FROM customers",
        )
        .execute(&mut conn)
        .await?;
        for last in [
            "REINDEX TABLE customers",
            "REINDEX TABLE transfers",
            "VACUUM ANALYZE customers, transfers",
            "CHECKPOINT",
        ] {
            task.line(last);
            sqlx::raw_sql(last).execute(&mut conn).await?;
        }
        let looked_up: Vec<String> = sqlx::query_scalar(
            "SELECT md5((1 + (n * 7919) % $1)::text)::uuid::text
             FROM generate_series(1::bigint, $2) n",
        )
        .bind(customers)
        .bind(LOOKED_UP)
        .fetch_all(&mut conn)
        .await?;
        let looked_up = looked_up.into_iter().map(CustomerId::new);
        let looked_up = looked_up.collect::<Result<Vec<_>, _>>()?;
        task.done("");
        Ok(Self {
            pool,
            customers,
            looked_up: Arc::new(looked_up),
        })
    }

    /// The rank of a customer, counted.
    async fn rank(&self, customer: &CustomerId) -> Result<u64> {
        let ahead: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM customers c, (SELECT * FROM customers WHERE customer_id = $1) own
             WHERE c.lifetime_earned > own.lifetime_earned
                OR c.lifetime_earned = own.lifetime_earned AND c.customer_id < own.customer_id",
        )
        .bind(customer.as_str())
        .fetch_one(&self.pool)
        .await?;
        Ok(1 + u64::try_from(ahead)?)
    }

    /// Customers earn points, in batches as the intake posts them, until it is stopped. How many
    /// did, each second.
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    async fn earn(self, stop: CancellationToken) -> Result<f64> {
        let batch = CHANGES / BATCHES;
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(BATCHES)?);
        let (mut earned, mut from) = (0, 0);
        let began = Instant::now();
        while !stop.is_cancelled() {
            ticks.tick().await;
            let done = sqlx::query(
                "WITH who AS (
                     SELECT md5((1 + ((n * 104729) % $2))::text)::uuid::text AS customer_id
                     FROM generate_series($1, $1 + $3 - 1) n),
                 account AS (
                     UPDATE customers c SET available = available + 50,
                            lifetime_earned = lifetime_earned + 50, version = version + 1
                     FROM who WHERE c.customer_id = who.customer_id
                     RETURNING c.customer_id, c.available, c.version)
                 INSERT INTO transfers (source, source_event_id, leg, debit_account,
                        credit_account, customer_id, amount, reason, workflow_id,
                        customer_version, available_after, held_after, occurred_at)
                 SELECT 'load', gen_random_uuid()::text, 'award', 'ISSUANCE', 'AVAILABLE',
                        customer_id, 50, 'LOAD', '', version, available, 0, clock_timestamp()
                 FROM account",
            )
            .bind(from)
            .bind(self.customers)
            .bind(batch)
            .execute(&self.pool)
            .await?;
            earned += done.rows_affected();
            from += batch;
        }
        Ok(earned as f64 / began.elapsed().as_secs_f64())
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Embedded => "in memory",
            Self::Redis => "in Redis",
        }
    }

    /// The process that holds it.
    fn process(self) -> &'static str {
        match self {
            Self::Embedded => "bench",
            Self::Redis => "redis",
        }
    }

    async fn measure(self, servers: &Servers, ledger: &Ledger, rounds: usize) -> Result<Found> {
        let progress = Progress::shown();
        let pid = match self {
            Self::Embedded => own_pid()?,
            Self::Redis => servers.stack.pid("redis")?,
        };
        let before_mib = resident_mib(pid)?;
        let options = ranking::Options {
            name: self.process().to_owned(),
            poll: Duration::from_millis(POLL_MS),
            max_lag: Duration::from_mins(1),
        };
        let pool = ledger.pool.clone();
        let ranking = Arc::new(match self {
            Self::Embedded => Ranking::embedded(pool, options),
            Self::Redis => {
                let redis = Redis::at(&servers.redis, Duration::from_secs(5))?;
                Ranking::in_redis(pool, redis, options)
            }
        });

        let task = progress.task(&format!("making the ranking {}", self.name()));
        let watching = servers.watch()?;
        let began = Instant::now();
        let stop = CancellationToken::new();
        let keeper = tokio::spawn({
            let (ranking, stop) = (Arc::clone(&ranking), stop.clone());
            async move { ranking.keep(&stop).await }
        });
        let made = until(async || Ok(ranking.top(1).await.is_ok()));
        made.await.context("the ranking was not made in time")?;
        let made_seconds = began.elapsed().as_secs_f64();
        let (made_uses, _) = watching.stop(1_000);
        let mib = resident_mib(pid)? - before_mib;
        let customer = &ledger.looked_up[0];
        let standing = ranking.standing(customer).await?;
        let rank = standing.and_then(|standing| standing.rank);
        let counted = ledger.rank(customer).await?;
        ensure!(
            rank == Some(counted),
            "{customer} has rank {rank:?}, and not {counted}"
        );
        task.done("");

        let mut at_rest = Vec::new();
        for number in 1..=rounds {
            let name = self.name();
            let task = progress.task(&format!("looking up ranks {name}, at rest, round {number}"));
            at_rest.push(look(&ranking, ledger, ROUND).await?.0);
            task.done("");
        }

        // Customers go on earning.
        let earning = CancellationToken::new();
        let earner = tokio::spawn(ledger.clone().earn(earning.clone()));
        let mut found = Vec::new();
        for (number, at_rest) in (1..).zip(at_rest) {
            let task = progress.task(&format!("looking up ranks {}, round {number}", self.name()));
            found.push(round(&ranking, ledger, at_rest).await?);
            task.done("");
        }
        let task = progress.task(&format!("making the ranking {} anew", self.name()));
        let anew = self.make_anew(servers, &ranking, ledger).await?;
        task.done("");
        earning.cancel();
        let changes_a_second = earner.await??;
        stop.cancel();
        keeper.await?;
        let peak_mib = anew
            .uses
            .get(self.process())
            .map_or(0.0, |used| used.peak_mib);
        Ok(Found {
            made_seconds,
            made_uses,
            mib,
            rounds: found,
            made_anew_seconds: anew.seconds,
            made_anew_uses: anew.uses,
            most_mib: peak_mib - before_mib,
            meanwhile: anew.meanwhile,
            changes_a_second,
        })
    }

    /// Asks for it to be made anew, and looks up ranks until it is.
    async fn make_anew(
        self,
        servers: &Servers,
        ranking: &Arc<Ranking>,
        ledger: &Ledger,
    ) -> Result<Anew> {
        let watching = servers.watch()?;
        let began = Instant::now();
        let request = Uuid::new_v4().to_string();
        let wanted = store::ranking::request_rebuild(&ledger.pool, &request, "bench").await?;
        let made = CancellationToken::new();
        let making = async {
            let is_made = until(async || {
                let indexes = store::ranking::indexes(&ledger.pool).await?;
                let own = indexes
                    .iter()
                    .find(|index| index.index_name == self.process());
                Ok(own.is_some_and(|index| index.rebuild_id == Some(wanted)))
            });
            is_made.await.context("it was not made anew in time")?;
            let seconds = began.elapsed().as_secs_f64();
            made.cancel();
            Ok(seconds)
        };
        let looking = async {
            let mut looks = Vec::new();
            while !made.is_cancelled() {
                looks.extend(look(ranking, ledger, Duration::from_secs(1)).await?.0);
            }
            anyhow::Ok(looks)
        };
        let (seconds, meanwhile) = tokio::try_join!(making, looking)?;
        let (uses, _) = watching.stop(1_000);
        Ok(Anew {
            seconds,
            uses,
            meanwhile: Latencies::of(meanwhile)?,
        })
    }

    fn report(self, found: &Found, report: &mut Report) {
        let kind = self.name();
        let each = |what: fn(&Round) -> f64| found.rounds.iter().map(what).collect::<Vec<_>>();
        for (what, seconds, uses) in [
            ("made from nothing in", found.made_seconds, &found.made_uses),
            (
                "made anew while customers earn in",
                found.made_anew_seconds,
                &found.made_anew_uses,
            ),
        ] {
            let name = format!("{kind}: {what}");
            report.add(Figure::new(name, "s", vec![seconds], uses.clone()));
        }
        let mut add = |what: &str, unit, rounds| {
            report.add(Figure::new(
                format!("{kind}: {what}"),
                unit,
                rounds,
                Uses::new(),
            ))
        };
        add("memory", "MiB", vec![found.mib]);
        let most = "memory at most, while it is made anew";
        add(most, "MiB", vec![found.most_mib]);
        let earned = "customers who earned meanwhile";
        add(earned, "a second", vec![found.changes_a_second]);
        add(
            "a rank in the index while nobody earns, p50",
            "ms",
            each(|round| round.at_rest.median()),
        );
        let at_rest = add(
            "a rank in the index while nobody earns, p99",
            "ms",
            each(|round| round.at_rest.p99()),
        );
        let p50 = add(
            "a rank in the index, p50",
            "ms",
            each(|round| round.index.median()),
        );
        let p99 = add(
            "a rank in the index, p99",
            "ms",
            each(|round| round.index.p99()),
        );
        let meanwhile = "the same while it is made anew, p99";
        add(meanwhile, "ms", vec![found.meanwhile.p99()]);
        add(
            "a rank with the ledger, p50",
            "ms",
            each(|round| round.whole.median()),
        );
        add(
            "a rank with the ledger, p99",
            "ms",
            each(|round| round.whole.p99()),
        );
        let followed = "from a commit until it is in the ranks";
        let median = each(|round| round.followed.median());
        add(&format!("{followed}, p50"), "ms", median);
        let followed_p99 = each(|round| round.followed.p99());
        let followed = add(&format!("{followed}, p99"), "ms", followed_p99);
        report.at_most(
            &format!("{kind}: a rank within 2 ms at the 99th percentile, while nobody earns"),
            at_rest,
            LOOKUP_MS,
            "whoever looks up works on the same processors",
        );
        report.at_most(
            &format!("{kind}: the same while {CHANGES} customers earn each second"),
            p99,
            LOOKUP_MS,
            &format!(
                "half of them take {p50:.2} ms; the others wait for a processor, which PostgreSQL, \
                 who earns and what follows the ledger want too"
            ),
        );
        report.at_most(
            &format!("{kind}: made, and made anew, within 120 s"),
            found.made_seconds.max(found.made_anew_seconds),
            MADE_SECONDS,
            "everybody is read in PostgreSQL and written to the index one page after the other, \
             beside the lookups and those who earn",
        );
        report.at_most(
            &format!("{kind}: a commit is in the ranks within 1,000 ms at the 99th percentile"),
            followed,
            FOLLOWED_MS,
            "the ledger is looked at every 200 ms, and what follows it waits for its turn at the \
             processors",
        );
    }
}

/// What making it anew came to.
struct Anew {
    seconds: f64,
    uses: Uses,
    meanwhile: Latencies,
}

/// Waits until something is so.
async fn until(is_so: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let waited = async {
        while !is_so().await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, waited).await?
}

async fn round(ranking: &Arc<Ranking>, ledger: &Ledger, at_rest: Vec<Duration>) -> Result<Round> {
    let (index, whole) = look(ranking, ledger, ROUND).await?;
    let mut followed = Vec::new();
    for number in 0..FOLLOWED {
        // At another moment between two looks at the ledger each time.
        tokio::time::sleep(Duration::from_millis(number * 61 % POLL_MS)).await;
        let committed: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()")
            .fetch_one(&ledger.pool)
            .await?;
        let began = Instant::now();
        while ranking.top(1).await?.as_of < committed {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        followed.push(began.elapsed());
    }
    Ok(Round {
        at_rest: Latencies::of(at_rest)?,
        index: Latencies::of(index)?,
        whole: Latencies::of(whole)?,
        followed: Latencies::of(followed)?,
    })
}

/// Looks up ranks at even distances. How long each look at the index took, and each lookup with the
/// points in the ledger.
async fn look(
    ranking: &Arc<Ranking>,
    ledger: &Ledger,
    lasting: Duration,
) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let recorder = Arc::new(DebuggingRecorder::new());
    let looked = recorder.snapshotter();
    let (ranking, looked_up) = (Arc::clone(ranking), Arc::clone(&ledger.looked_up));
    let ended = a_second(LOOKUPS, lasting, move |number| {
        let (ranking, recorder) = (Arc::clone(&ranking), Arc::clone(&recorder));
        let looked_up = Arc::clone(&looked_up);
        async move {
            let customer = &looked_up[number % looked_up.len()];
            let standing = recorded(&recorder, ranking.standing(customer)).await?;
            standing.with_context(|| format!("{customer} has no account"))
        }
    });
    let mut whole = Vec::new();
    for (took, standing) in ended.await? {
        standing?;
        whole.push(took);
    }
    let mut index = Vec::new();
    for (key, _, _, value) in looked.snapshot().into_vec() {
        if key.key().name() == LOOKUP
            && let DebugValue::Histogram(seconds) = value
        {
            let seconds = seconds.into_iter().map(f64::from);
            index.extend(seconds.map(Duration::from_secs_f64));
        }
    }
    Ok((index, whole))
}

/// What this comes to; what it measures of itself goes to the recorder.
async fn recorded<T>(recorder: &DebuggingRecorder, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| metrics::with_local_recorder(recorder, || work.as_mut().poll(context))).await
}
