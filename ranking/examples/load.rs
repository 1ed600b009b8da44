//! What a ranking of millions costs: how long it takes to make, to look at and to follow, and how
//! much memory it needs, in memory and in Redis, while customers go on earning points.
//!
//! ```text
//! cargo run --release -p ranking --example load -- --database postgres://…/postgres
//! ```
//!
//! The database is made for the purpose and left behind under its name, so that plans can be looked
//! at; `--keep NAME` uses it again. Redis is started beside it unless `--redis` names one.

#![expect(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a measurement that cannot be made has failed"
)]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use domain::CustomerId;
use kv::{Redis, testing::RedisServer};
use metrics_util::{
    CompositeKey,
    debugging::{DebugValue, DebuggingRecorder, Snapshotter},
};
use ranking::{Options, Ranking};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, postgres::PgPoolOptions};
use store::PgPool;
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
struct Arguments {
    /// A server, as a superuser
    #[arg(long, env = "MEED_TEST_DATABASE_URL")]
    database: String,
    /// A database of an earlier run, which has everybody in it
    #[arg(long)]
    keep: Option<String>,
    /// A Redis whose ranking may be replaced
    #[arg(long)]
    redis: Option<String>,
    #[arg(long, default_value_t = 5_000_000)]
    customers: i64,
    #[arg(long, default_value_t = 10_000_000)]
    transfers: i64,
    /// How many lookups are measured
    #[arg(long, default_value_t = 20_000)]
    lookups: usize,
    /// How many customers earn points each second meanwhile
    #[arg(long, default_value_t = 2_000)]
    changes: usize,
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let recorder = DebuggingRecorder::new();
    let measured = recorder.snapshotter();
    recorder.install().unwrap();
    let url = match &arguments.keep {
        Some(name) => {
            let (server, _) = arguments.database.rsplit_once('/').unwrap();
            format!("{server}/{name}")
        }
        None => filled(&arguments).await,
    };
    let pool = PgPoolOptions::new()
        .max_connections(16)
        .connect(&url)
        .await
        .unwrap();
    eprintln!("the database is {url}");
    let plans = plans(&pool).await;
    let server = match &arguments.redis {
        Some(_) => None,
        None => Some(RedisServer::new().await),
    };
    let redis = arguments
        .redis
        .clone()
        .or(server.as_ref().map(RedisServer::url))
        .unwrap();
    let mut report = BTreeMap::new();
    for kind in ["embedded", "redis"] {
        eprintln!("{kind}");
        let ranking = if kind == "embedded" {
            Ranking::embedded(pool.clone(), options(kind))
        } else {
            let redis = Redis::at(&redis, Duration::from_secs(5)).unwrap();
            Ranking::in_redis(pool.clone(), redis, options(kind))
        };
        let figures = measure(&arguments, &pool, ranking, &redis, kind, &measured).await;
        report.insert(kind, figures);
    }
    if arguments.json {
        println!("{:#}", json!({ "plans": plans, "figures": report }));
        return;
    }
    for plan in plans {
        println!("{plan}\n");
    }
    println!("| | embedded | redis |\n|---|---|---|");
    for (name, embedded) in &report["embedded"] {
        println!("| {name} | {embedded} | {} |", report["redis"][name]);
    }
}

fn options(name: &str) -> Options {
    Options {
        name: name.to_owned(),
        poll: Duration::from_millis(200),
        max_lag: Duration::from_mins(1),
    }
}

/// A database with everybody in it.
async fn filled(arguments: &Arguments) -> String {
    let database = store::testing::database_on(&arguments.database).await;
    let mut conn = PgConnection::connect(&database.url).await.unwrap();
    let started = Instant::now();
    // Ids as Meed's own users have them; points with many ties and a few who have very many.
    sqlx::query("SET synchronous_commit = off")
        .execute(&mut conn)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO customers (customer_id, available, lifetime_earned, version)
         SELECT md5(n::text)::uuid::text, earned, earned, 2
         FROM generate_series(1, $1) n,
              LATERAL (SELECT 2 + (200000 * power(random(), 8))::bigint + n * 0 AS earned) e",
    )
    .bind(arguments.customers)
    .execute(&mut conn)
    .await
    .unwrap();
    eprintln!(
        "{} customers after {:?}",
        arguments.customers,
        started.elapsed()
    );
    sqlx::raw_sql("DROP INDEX transfers_by_customer; SET session_replication_role = replica")
        .execute(&mut conn)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account,
                customer_id, amount, reason, workflow_id, customer_version, available_after,
                held_after, occurred_at)
         SELECT 'load', lpad(n::text, 12, '0'), 'award', 'ISSUANCE', 'AVAILABLE',
                md5((1 + n % $2)::text)::uuid::text, 1, 'LOAD', 'load', 1 + n / $2, 1, 0,
                clock_timestamp()
         FROM generate_series(0, $1 - 1) n",
    )
    .bind(arguments.transfers)
    .bind(arguments.customers)
    .execute(&mut conn)
    .await
    .unwrap();
    sqlx::raw_sql(
        "CREATE UNIQUE INDEX transfers_by_customer ON transfers (customer_id, customer_version);
         SET session_replication_role = DEFAULT",
    )
    .execute(&mut conn)
    .await
    .unwrap();
    sqlx::raw_sql("VACUUM ANALYZE customers, transfers")
        .execute(&mut conn)
        .await
        .unwrap();
    eprintln!(
        "{} transfers after {:?}",
        arguments.transfers,
        started.elapsed()
    );
    database.url
}

/// How the statements of a look are carried out.
async fn plans(pool: &PgPool) -> Vec<String> {
    let mut plans = Vec::new();
    let explain = |sql: &str| sqlx::AssertSqlSafe(format!("EXPLAIN (ANALYZE, BUFFERS) {sql}"));
    let look: Vec<(String,)> = sqlx::query_as(explain(store::ranking::LOOK))
        .fetch_all(pool)
        .await
        .unwrap();
    let look_at = store::ranking::look(pool).await.unwrap();
    let fresh: Vec<(String,)> = sqlx::query_as(explain(store::ranking::FRESH))
        .bind(look_at.last_transfer - 500)
        .bind(5_000_i64)
        .fetch_all(pool)
        .await
        .unwrap();
    let late: Vec<(String,)> = sqlx::query_as(explain(store::ranking::LATE))
        .bind(vec![
            look_at.last_transfer - 2_000,
            look_at.last_transfer - 1_000,
        ])
        .bind(vec![
            look_at.last_transfer - 1_999,
            look_at.last_transfer - 999,
        ])
        .fetch_all(pool)
        .await
        .unwrap();
    for plan in [look, fresh, late] {
        let lines: Vec<String> = plan.into_iter().map(|(line,)| line).collect();
        plans.push(lines.join("\n"));
    }
    plans
}

async fn measure(
    arguments: &Arguments,
    pool: &PgPool,
    ranking: Ranking,
    redis: &str,
    kind: &str,
    measured: &Snapshotter,
) -> BTreeMap<String, Value> {
    let mut figures = BTreeMap::new();
    let mut set = |name: &str, value: Value| {
        eprintln!("  {name}: {value}");
        figures.insert(name.to_owned(), value);
    };
    let before = resident("VmRSS");
    let ranking = Arc::new(ranking);
    let stop = CancellationToken::new();
    let started = Instant::now();
    let keeper = tokio::spawn({
        let (ranking, stop) = (Arc::clone(&ranking), stop.clone());
        async move { ranking.keep(&stop).await }
    });
    while ranking.top(1).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    set("made from nothing, s", seconds(started.elapsed()));
    if kind == "embedded" {
        set(
            "memory, MiB",
            json!((resident("VmRSS").saturating_sub(before)) / 1_024),
        );
    } else {
        set("memory, MiB", json!(redis_memory(redis).await / 1_048_576));
    }

    // Customers go on earning.
    let earning = CancellationToken::new();
    let writer = tokio::spawn(earn(
        pool.clone(),
        arguments.customers,
        arguments.changes,
        earning.clone(),
    ));
    drop(measured.snapshot());
    let mut standing = Vec::with_capacity(arguments.lookups);
    let mut top = Vec::new();
    for (n, at) in (0..arguments.lookups).zip(0_i64..) {
        let number = 1 + (at * 7_919) % arguments.customers;
        let customer = CustomerId::new(id(pool, number).await).unwrap();
        let asked = Instant::now();
        ranking.standing(&customer).await.unwrap().unwrap();
        standing.push(asked.elapsed());
        if n % 20 == 0 {
            let asked = Instant::now();
            ranking.top(10).await.unwrap();
            top.push(asked.elapsed());
        }
    }
    let mut lookups = Vec::new();
    for (key, _, _, value) in measured.snapshot().into_vec() {
        if let DebugValue::Histogram(values) = value
            && is_lookup(&key, "standing")
        {
            lookups.extend(
                values
                    .into_iter()
                    .map(|seconds| Duration::from_secs_f64(seconds.into_inner())),
            );
        }
    }
    set(
        "rank lookup in the index, p50 p99 max, ms",
        percentiles(&mut lookups),
    );
    set(
        "customer-info with the ledger, p50 p99 max, ms",
        percentiles(&mut standing),
    );
    set(
        "top 10 with the ledger, p50 p99 max, ms",
        percentiles(&mut top),
    );

    let mut lags = Vec::new();
    for _ in 0..50 {
        let (at,): (chrono::DateTime<chrono::Utc>,) = sqlx::query_as("SELECT clock_timestamp()")
            .fetch_one(pool)
            .await
            .unwrap();
        let asked = Instant::now();
        while ranking.top(1).await.unwrap().as_of < at {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        lags.push(asked.elapsed());
    }
    set(
        "until a commit is in the ranks, p50 p99 max, ms",
        percentiles(&mut lags),
    );

    let request = uuid::Uuid::new_v4().to_string();
    let asked = Instant::now();
    let rebuild = store::ranking::request_rebuild(pool, &request, "load")
        .await
        .unwrap();
    let mut slow = Vec::new();
    loop {
        let looked = Instant::now();
        ranking.top(10).await.unwrap();
        slow.push(looked.elapsed());
        let indexes = store::ranking::indexes(pool).await.unwrap();
        let made_for = |index: &store::ranking::IndexState| {
            index.index_name == kind && index.rebuild_id == Some(rebuild)
        };
        if indexes.iter().any(made_for) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    set("made anew under load, s", seconds(asked.elapsed()));
    set("top 10 meanwhile, p50 p99 max, ms", percentiles(&mut slow));
    if kind == "embedded" {
        set(
            "memory at most, MiB",
            json!((resident("VmHWM").saturating_sub(before)) / 1_024),
        );
    } else {
        set(
            "memory at most, MiB",
            json!(redis_peak(redis).await / 1_048_576),
        );
    }
    earning.cancel();
    set("changes a second meanwhile", json!(writer.await.unwrap()));
    stop.cancel();
    keeper.await.unwrap();
    figures
}

fn is_lookup(key: &CompositeKey, call: &str) -> bool {
    key.key().name() == "meed_ranking_lookup_seconds"
        && key.key().labels().any(|label| label.value() == call)
}

async fn id(pool: &PgPool, number: i64) -> String {
    sqlx::query_scalar("SELECT md5($1::text)::uuid::text")
        .bind(number.to_string())
        .fetch_one(pool)
        .await
        .unwrap()
}

/// So many customers a second earn points, in batches as the intake posts them: how many did.
async fn earn(pool: PgPool, customers: i64, each_second: usize, stop: CancellationToken) -> u64 {
    const BATCHES: usize = 10;
    let batch = i64::try_from(each_second / BATCHES).unwrap();
    let started = Instant::now();
    let (mut earned, mut from) = (0, 0);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(BATCHES).unwrap());
    while !stop.is_cancelled() {
        ticks.tick().await;
        let done = sqlx::query(
            "WITH who AS (
                 SELECT md5((1 + ((n * 104729) % $2))::text)::uuid::text AS customer_id, n
                 FROM generate_series($1, $1 + $3 - 1) n),
             account AS (
                 UPDATE customers c SET available = available + 50,
                        lifetime_earned = lifetime_earned + 50, version = version + 1
                 FROM who WHERE c.customer_id = who.customer_id
                 RETURNING c.customer_id, c.available, c.version)
             INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account,
                    customer_id, amount, reason, workflow_id, customer_version, available_after,
                    held_after, occurred_at)
             SELECT 'load', gen_random_uuid()::text, 'award', 'ISSUANCE', 'AVAILABLE', customer_id,
                    50, 'LOAD', '', version, available, 0, clock_timestamp()
             FROM account",
        )
        .bind(from)
        .bind(customers)
        .bind(batch)
        .execute(&pool)
        .await
        .unwrap();
        earned += done.rows_affected();
        from += batch;
    }
    earned / started.elapsed().as_secs().max(1)
}

fn percentiles(measured: &mut [Duration]) -> Value {
    measured.sort_unstable();
    let at = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is an index"
        )]
        let at = ((measured.len() - 1) as f64 * share) as usize;
        format!("{:.3}", measured[at].as_secs_f64() * 1_000.0)
    };
    json!(format!("{} {} {}", at(0.5), at(0.99), at(1.0)))
}

fn seconds(duration: Duration) -> Value {
    json!((duration.as_secs_f64() * 10.0).round() / 10.0)
}

/// What of this process is in memory, in KiB.
fn resident(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn redis_info(url: &str, what: &str) -> u64 {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let info: String = redis::cmd("INFO")
        .arg("memory")
        .query_async(&mut connection)
        .await
        .unwrap();
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    line.unwrap().trim().parse().unwrap()
}

async fn redis_memory(url: &str) -> u64 {
    redis_info(url, "used_memory_rss").await
}

async fn redis_peak(url: &str) -> u64 {
    redis_info(url, "used_memory_peak").await
}
