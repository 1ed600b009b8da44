//! Copies of accounts over several replicas: what one has shown, it shows no older version of; with
//! Redis, no other one does either.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use domain::CustomerId;
use kv::testing::RedisServer;
use store::{PgPool, history::Wanted, testing::TestDatabase};
use tokio_util::sync::CancellationToken;

use crate::support::{Api, api_on, post_events, stay};

const CUSTOMERS: usize = 3;
/// Fewer copies than that, so that some are given up all the time.
const TOO_FEW: &str = "max_customers = 2";
const READERS: usize = 3;
const POSTS: usize = 120;

/// The newest version that anybody has been shown, by customer.
type Floor = Arc<[AtomicI64; CUSTOMERS]>;

struct Reader {
    api: Arc<Api>,
    floor: Floor,
    customers: Arc<Vec<CustomerId>>,
    hits: Arc<AtomicU64>,
}

impl Reader {
    /// Asks in all the ways there are, until told to stop.
    async fn read(self, seed: usize, stop: Arc<AtomicBool>) {
        let mut round = seed;
        while !stop.load(Ordering::SeqCst) {
            round += 1;
            let which = round % CUSTOMERS;
            let customer = &self.customers[which];
            let floor = self.floor[which].load(Ordering::SeqCst);
            let wanted = Wanted {
                breakdown: round.is_multiple_of(5),
                recent: if round.is_multiple_of(7) { 20 } else { 0 },
            };
            if round.is_multiple_of(31) {
                self.api.app.cache.lapse(customer);
            }
            let ask_ledger = round.is_multiple_of(17);
            let shown = self.api.app.cache.read(customer, wanted, ask_ledger).await;
            let shown = match shown {
                Ok(shown) => shown.expect("an account"),
                // Replaced again and again while it was read: nothing is shown then.
                Err(store::Error::Raced) => continue,
                Err(error) => panic!("{customer}: {error}"),
            };
            let account = &shown.account;
            let version = account.version.account;
            assert!(
                version >= floor,
                "{customer}: version {version} after {floor} ({:?})",
                shown.source
            );
            self.floor[which].fetch_max(version, Ordering::SeqCst);
            // Each award is 100 points and one version: what is shown is of one moment.
            assert_eq!(account.available, version * 100);
            if wanted.breakdown {
                let lines = account.breakdown.as_ref().expect("it was wanted");
                let total: i64 = lines.iter().map(|line| line.points).sum();
                assert_eq!(total, account.available);
            }
            if wanted.recent > 0 {
                let recent = account.recent.as_ref().expect("it was wanted");
                assert_eq!(recent[0].customer_version, version);
            }
            if shown.source == api::cache::Source::Copy {
                self.hits.fetch_add(1, Ordering::Relaxed);
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn write(pool: PgPool, writer: usize, customers: Arc<Vec<CustomerId>>) {
    for post in 0..POSTS {
        let customer = customers[(post + writer) % CUSTOMERS].as_str();
        let event = stay(&format!("E-{customer}-{writer}-{post}"), customer, 1);
        post_events(&pool, &[event.to_string()]).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// Two replicas over one database, writers and readers at the same time. `one_floor` is whether
/// what one replica has shown binds the other; `room` is how many copies each keeps.
async fn replicas_read_and_writers_write(
    database: &TestDatabase,
    redis: Option<&str>,
    one_floor: bool,
    room: &str,
    meanwhile: impl AsyncFnOnce(),
) {
    let customers: Arc<Vec<CustomerId>> = Arc::new(
        (0..CUSTOMERS)
            .map(|n| CustomerId::new(format!("C{n}-{}", uuid::Uuid::new_v4().simple())).unwrap())
            .collect(),
    );
    for customer in customers.iter() {
        let event = stay(&format!("E-{customer}"), customer.as_str(), 1);
        post_events(&database.pool, &[event.to_string()]).await;
    }
    let change = |text: String| {
        text.replace("fresh_ms = 160", "fresh_ms = 20")
            .replace("max_customers = 20000", room)
            // A busy machine is not a Redis that is away.
            .replace("answer_within_ms = 150", "answer_within_ms = 10000")
            .replace("${REDIS_URL:-}", redis.unwrap_or_default())
    };
    let stop = Arc::new(AtomicBool::new(false));
    let token = CancellationToken::new();
    let hits = Arc::new(AtomicU64::new(0));
    let shared_floor = Floor::default();
    let mut readers = Vec::new();
    for replica in 0..2 {
        let api = Arc::new(api_on(database, change));
        tokio::spawn({
            let (api, token) = (Arc::clone(&api), token.clone());
            async move { api.app.cache.keep_fresh(&token).await }
        });
        let own_floor = Floor::default();
        for reader in 0..READERS {
            let floor = if one_floor { &shared_floor } else { &own_floor };
            let read = Reader {
                api: Arc::clone(&api),
                floor: Arc::clone(floor),
                customers: Arc::clone(&customers),
                hits: Arc::clone(&hits),
            };
            readers.push(tokio::spawn(
                read.read(replica * 10 + reader, Arc::clone(&stop)),
            ));
        }
    }
    let writers = (0..2).map(|n| write(database.pool.clone(), n, Arc::clone(&customers)));
    tokio::join!(futures::future::join_all(writers), meanwhile());
    stop.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.expect("no older version was shown");
    }
    token.cancel();
    assert!(hits.load(Ordering::Relaxed) > 0, "some were copies");

    // After the last commit every replica shows it, once a copy's time is up.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let last = Arc::new(api_on(database, change));
    for customer in customers.iter() {
        let shown = last
            .app
            .cache
            .read(customer, Wanted::default(), false)
            .await;
        let shown = shown.unwrap().expect("an account");
        let (version,): (i64,) =
            sqlx::query_as("SELECT version FROM customers WHERE customer_id = $1")
                .bind(customer.as_str())
                .fetch_one(&database.pool)
                .await
                .unwrap();
        assert_eq!(shown.account.version.account, version);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_replica_shows_an_older_version_after_a_newer_one() {
    let database = store::testing::database().await;
    replicas_read_and_writers_write(&database, None, false, TOO_FEW, async || ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_redis_no_other_replica_does_either() {
    let redis = RedisServer::new().await;
    let database = store::testing::database().await;
    replicas_read_and_writers_write(&database, Some(&redis.url()), true, TOO_FEW, async || ())
        .await;
}

/// Redis ends in the middle and comes back empty: only slower, and each replica keeps the rule.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_redis_for_a_while_it_is_only_slower() {
    let mut redis = RedisServer::new().await;
    let database = store::testing::database().await;
    let url = redis.url();
    let room = "max_customers = 20";
    replicas_read_and_writers_write(&database, Some(&url), false, room, async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        redis.end();
        tokio::time::sleep(Duration::from_millis(200)).await;
        redis.start().await;
    })
    .await;
}

/// A copy in one replica reaches the other one, also when the ledger is out of reach.
#[tokio::test]
async fn replicas_share_their_copies_in_redis() {
    let redis = RedisServer::new().await;
    let database = store::testing::database().await;
    let change = |text: String| {
        text.replace("fresh_ms = 160", "fresh_ms = 60000")
            .replace("${REDIS_URL:-}", &redis.url())
            .replace("answer_within_ms = 150", "answer_within_ms = 10000")
    };
    let customer = format!("C-{}", uuid::Uuid::new_v4().simple());
    let first = api_on(&database, change);
    first
        .stays(&customer, &[(&format!("E-{customer}"), 3)])
        .await;
    let path = format!("/api/v1/rewards/{customer}");
    let shown = first.get(&path).await;
    assert_eq!(shown.cache_status(), "fwd=miss", "{}", shown.body);
    let second = api_on(&database, change);
    let copy = second.get(&path).await;
    assert_eq!(
        (copy.cache_status(), &copy.body["breakdown"]),
        ("hit", &shown.body["breakdown"])
    );

    // What the first reads anew, the second shows.
    first
        .stays(&customer, &[(&format!("F-{customer}"), 1)])
        .await;
    first.app.cache.look().await.unwrap();
    assert_eq!(second.get(&path).await.body["totalPoints"], 300);
    second.app.cache.look().await.unwrap();
    let plain = first.get(&format!("{path}?breakdown=false")).await;
    assert_eq!(
        (plain.cache_status(), &plain.body["totalPoints"]),
        ("hit", &serde_json::json!(400))
    );

    let third = api_on(&database, change);
    database.pool.close().await;
    let away = third.get(&path).await;
    assert_eq!(
        away.problem(),
        (503, "LEDGER_UNAVAILABLE"),
        "the copy has no breakdown"
    );
    assert_eq!(away.body["totalPoints"], 400);
}

/// Whoever has waited long for the ledger does not show what others have replaced meanwhile.
#[tokio::test]
async fn a_slow_reader_shows_no_older_version_either() {
    let redis = RedisServer::new().await;
    let database = store::testing::database().await;
    let change = |text: String| {
        text.replace("answer_within_ms = 150", "answer_within_ms = 10000")
            .replace("${REDIS_URL:-}", &redis.url())
    };
    let (slow, quick) = (api_on(&database, change), api_on(&database, change));
    let customer = CustomerId::new(format!("C-{}", uuid::Uuid::new_v4().simple())).unwrap();
    slow.stays(customer.as_str(), &[(&format!("E-{customer}"), 1)])
        .await;
    let mut tx = database.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE transfers IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *tx)
        .await
        .unwrap();
    // It sees the account, and then waits for its transfers.
    let with_breakdown = Wanted {
        breakdown: true,
        ..Wanted::default()
    };
    let reading = slow.app.cache.read(&customer, with_breakdown, false);
    let others = async {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                     AND datname = current_database()";
        while slow.count(waits).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        sqlx::query("UPDATE customers SET version = version + 1 WHERE customer_id = $1")
            .bind(customer.as_str())
            .execute(&database.pool)
            .await
            .unwrap();
        let shown = quick.app.cache.read(&customer, Wanted::default(), false);
        let shown = shown.await.unwrap().expect("an account");
        // Longer than what was read is offered to others.
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        tx.rollback().await.unwrap();
        shown.account.version
    };
    let (late, newer) = tokio::join!(reading, others);
    let late = late.unwrap().expect("an account");
    assert_eq!(late.account.version, newer);
    assert!(late.account.breakdown.is_some());
}
