//! Both kinds of index over a real PostgreSQL and a real Redis: the same tests for both, then what
//! only Redis can suffer.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where something is missing"
)]

use std::{sync::Arc, time::Duration};

use domain::CustomerId;
use kv::{Redis, testing::RedisServer};
use ranking::{Error, Options, Place, Ranking, Standing};
use sqlx::PgConnection;
use store::{PgPool, testing::TestDatabase};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Embedded,
    Redis,
}

/// A ledger and a ranking of it.
struct World {
    database: TestDatabase,
    redis: Option<RedisServer>,
    ranking: Arc<Ranking>,
    keepers: Vec<Keeper>,
}

/// Somebody who keeps it.
struct Keeper {
    stop: CancellationToken,
    work: JoinHandle<()>,
}

impl Keeper {
    fn of(ranking: &Arc<Ranking>) -> Self {
        let stop = CancellationToken::new();
        let work = tokio::spawn({
            let (ranking, stop) = (Arc::clone(ranking), stop.clone());
            async move { ranking.keep(&stop).await }
        });
        Self { stop, work }
    }

    async fn end(self) {
        self.stop.cancel();
        self.work.await.unwrap();
    }
}

fn options(max_lag: Duration) -> Options {
    Options {
        name: "test".to_owned(),
        poll: Duration::from_millis(20),
        max_lag,
    }
}

impl World {
    /// With nobody who keeps the ranking.
    async fn unkept(kind: Kind, max_lag: Duration) -> Self {
        let database = store::testing::database().await;
        let redis = match kind {
            Kind::Embedded => None,
            Kind::Redis => Some(RedisServer::new().await),
        };
        let mut world = Self {
            ranking: Arc::new(Ranking::embedded(database.pool.clone(), options(max_lag))),
            database,
            redis,
            keepers: Vec::new(),
        };
        if world.redis.is_some() {
            world.ranking = world.another(max_lag);
        }
        world
    }

    async fn new(kind: Kind) -> Self {
        let mut world = Self::unkept(kind, PATIENCE).await;
        world.keepers.push(Keeper::of(&world.ranking));
        world
    }

    /// The view of another process on the same Redis.
    fn another(&self, max_lag: Duration) -> Arc<Ranking> {
        let url = self.redis.as_ref().unwrap().url();
        let redis = Redis::at(&url, Duration::from_secs(60)).unwrap();
        let pool = self.database.pool.clone();
        Arc::new(Ranking::in_redis(pool, redis, options(max_lag)))
    }

    fn pool(&self) -> &PgPool {
        &self.database.pool
    }

    async fn earn(&self, customer: &str, points: i64) {
        let mut conn = self.pool().acquire().await.unwrap();
        earn(&mut conn, customer, points).await;
    }

    async fn run(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(self.pool()).await.unwrap();
    }

    async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let waited = async {
            while !is_so().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, waited).await;
        assert!(in_time.is_ok(), "waited in vain until {what}");
    }

    /// Everybody, recomputed the plain way.
    async fn expected(&self) -> Vec<Place> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT customer_id, sum(amount)::bigint FROM transfers WHERE debit_account = 'ISSUANCE'
             GROUP BY customer_id",
        )
        .fetch_all(self.pool())
        .await
        .unwrap();
        let mut rows = rows;
        rows.sort_by(|a, b| {
            b.1.cmp(&a.1)
                .then_with(|| a.0.as_bytes().cmp(b.0.as_bytes()))
        });
        let places = (1..).zip(rows);
        places
            .map(|(rank, (customer_id, points))| Place {
                customer_id,
                points,
                rank,
            })
            .collect()
    }

    async fn top(&self, count: usize) -> Option<Vec<Place>> {
        Some(self.ranking.top(count).await.ok()?.customers)
    }

    async fn standing(&self, customer: &str) -> Standing {
        let customer = CustomerId::new(customer).unwrap();
        let standing = self.ranking.standing(&customer).await.unwrap();
        standing.expect("the customer has an account")
    }

    /// Waits until the first thousand are those of the ledger.
    async fn agrees(&self) {
        let mut expected = self.expected().await;
        expected.truncate(1_000);
        let what = format!("the ranking is {expected:?}");
        self.until(&what, async || {
            self.top(1_000).await.as_ref() == Some(&expected)
        })
        .await;
    }

    async fn request_rebuild(&self, request: &str) -> i64 {
        store::ranking::request_rebuild(self.pool(), request, "test")
            .await
            .unwrap()
    }

    /// Waits until it was made anew for a rebuild.
    async fn rebuilt(&self, rebuild_id: i64) {
        self.until("it was made anew", async || {
            let indexes = store::ranking::indexes(self.pool()).await.unwrap();
            indexes
                .iter()
                .any(|index| index.rebuild_id == Some(rebuild_id))
        })
        .await;
    }

    async fn redis(&self, command: &[&str]) -> redis::Value {
        let client = redis::Client::open(self.redis.as_ref().unwrap().url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut line = redis::cmd(command[0]);
        line.arg(&command[1..]);
        line.query_async(&mut connection).await.unwrap()
    }

    async fn end(self) {
        for keeper in self.keepers {
            keeper.end().await;
        }
    }
}

/// Posts an award, as the ledger does.
async fn earn(conn: &mut PgConnection, customer: &str, points: i64) {
    sqlx::query(
        "WITH account AS (
             INSERT INTO customers AS c (customer_id, available, lifetime_earned, version)
             VALUES ($1, $2, $2, 1)
             ON CONFLICT (customer_id) DO UPDATE
             SET available = c.available + $2, lifetime_earned = c.lifetime_earned + $2,
                 version = c.version + 1
             RETURNING available, held, version)
         INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account,
                customer_id, amount, reason, workflow_id, customer_version, available_after,
                held_after, occurred_at)
         SELECT 'test', gen_random_uuid()::text, 'award', 'ISSUANCE', 'AVAILABLE', $1, $2, 'TEST',
                '', version, available, held, clock_timestamp()
         FROM account",
    )
    .bind(customer)
    .bind(points)
    .execute(conn)
    .await
    .unwrap();
}

/// Who they are.
fn names(places: &[Place]) -> Vec<&str> {
    places
        .iter()
        .map(|place| place.customer_id.as_str())
        .collect()
}

// ------------------------------------------------------------------------------- the same for both

async fn everybody_stands_by_points_and_then_by_id(kind: Kind) {
    let world = World::new(kind).await;
    world
        .until("it is there", async || world.top(1).await.is_some())
        .await;
    assert_eq!(
        world.top(10).await,
        Some(Vec::new()),
        "an empty ledger has an empty ranking"
    );
    for (customer, points) in [
        ("B", 100),
        ("a", 100),
        ("A", 100),
        ("ä", 100),
        ("AA", 100),
        ("A:1 {x} *", 100),
        ("Z", 7),
        ("first", 2_000_000_000_000),
        ("last", 1),
    ] {
        world.earn(customer, points).await;
    }
    world.agrees().await;
    let all = world.top(1_000).await.unwrap();
    let order = ["first", "A", "A:1 {x} *", "AA", "B", "a", "ä", "Z", "last"];
    assert_eq!(names(&all), order);
    assert_eq!(world.top(3).await.unwrap(), all[..3]);
    for (at, place) in all.iter().enumerate() {
        let standing = world.standing(&place.customer_id).await;
        assert_eq!(standing.rank, Some(place.rank));
        assert_eq!(standing.points, place.points);
        assert_eq!(standing.above, all[at.saturating_sub(2)..at]);
        assert_eq!(standing.below, all[at + 1..(at + 3).min(all.len())]);
    }
    // A tie is joined, and left upwards.
    world.earn("Z", 93).await;
    world.agrees().await;
    assert_eq!(world.standing("Z").await.rank, Some(6));
    world.earn("Z", 1).await;
    world.agrees().await;
    assert_eq!(world.standing("Z").await.rank, Some(2));
    world.end().await;
}

async fn only_who_has_earned_something_stands_in_it(kind: Kind) {
    let world = World::new(kind).await;
    world.earn("A", 5).await;
    world
        .run("INSERT INTO customers (customer_id) VALUES ('new')")
        .await;
    world.agrees().await;
    let new = world.standing("new").await;
    assert_eq!((new.points, new.rank), (0, None));
    assert_eq!((new.above, new.below), (Vec::new(), Vec::new()));
    let nobody = CustomerId::new("nobody").unwrap();
    assert_eq!(world.ranking.standing(&nobody).await.unwrap(), None);
    world.earn("new", 6).await;
    let own = world.standing("new").await;
    assert_eq!(
        own.rank,
        Some(1),
        "one's own points are in one's rank at once"
    );
    world.end().await;
}

/// The trap: the id of a transfer is taken before its transaction commits.
async fn who_commits_late_is_not_missed(kind: Kind) {
    let world = World::new(kind).await;
    world.earn("before", 10).await;
    world.agrees().await;
    let mut late = world.pool().begin().await.unwrap();
    earn(&mut late, "late", 30).await;
    let mut rolled_back = world.pool().begin().await.unwrap();
    earn(&mut rolled_back, "never", 99).await;
    for round in 0..30 {
        world.earn("after", 1).await;
        // Many looks pass between the higher ids and the commit of the lower one.
        world
            .until("what comes after is seen", async || {
                let top = world.top(10).await.unwrap_or_default();
                top.iter()
                    .any(|p| p.customer_id == "after" && p.points == round + 1)
                    && top.len() == 2
            })
            .await;
        if round == 10 {
            rolled_back.rollback().await.unwrap();
            rolled_back = world.pool().begin().await.unwrap();
        }
    }
    rolled_back.rollback().await.unwrap();
    late.commit().await.unwrap();
    world.agrees().await;
    assert_eq!(
        names(&world.top(10).await.unwrap()),
        ["after", "late", "before"]
    );
    world.end().await;
}

async fn what_happens_while_it_is_made_anew_is_not_lost_and_nobody_sees_half_of_it(kind: Kind) {
    let world = World::new(kind).await;
    sqlx::raw_sql(
        "WITH account AS (
             INSERT INTO customers (customer_id, available, lifetime_earned, version)
             SELECT 'C' || n, 1 + n % 500, 1 + n % 500, 1 FROM generate_series(1, 45000) n
             RETURNING *)
         INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account,
                customer_id, amount, reason, workflow_id, customer_version, available_after,
                held_after, occurred_at)
         SELECT 'test', customer_id, 'award', 'ISSUANCE', 'AVAILABLE', customer_id, available,
                'TEST', '', 1, available, 0, clock_timestamp() FROM account",
    )
    .execute(world.pool())
    .await
    .unwrap();
    world.agrees().await;
    let stop = CancellationToken::new();
    let reader = tokio::spawn({
        let (ranking, stop) = (Arc::clone(&world.ranking), stop.clone());
        async move {
            let mut looks = 0;
            while !stop.is_cancelled() {
                let top = ranking.top(1_000).await.expect("it is there all the time");
                assert_eq!(top.customers.len(), 1_000);
                assert!(
                    top.customers.iter().all(|place| place.points >= 489),
                    "half of it was seen: {:?}",
                    top.customers.last()
                );
                looks += 1;
            }
            looks
        }
    });
    let writer = tokio::spawn({
        let (pool, stop) = (world.pool().clone(), stop.clone());
        async move {
            let mut conn = pool.acquire().await.unwrap();
            let mut written: u64 = 0;
            while !stop.is_cancelled() {
                let customer = format!("C{}", 1 + (written * 7_919) % 45_000);
                earn(&mut conn, &customer, 1).await;
                written += 1;
            }
            written
        }
    });
    for request in ["one", "two", "three"] {
        let rebuild = world.request_rebuild(request).await;
        assert_eq!(world.request_rebuild(request).await, rebuild);
        world.rebuilt(rebuild).await;
    }
    stop.cancel();
    assert!(reader.await.unwrap() > 0);
    assert!(writer.await.unwrap() > 0);
    world.agrees().await;
    world.end().await;
}

async fn what_is_wrong_in_it_is_put_right_by_making_it_anew(kind: Kind) {
    let world = World::new(kind).await;
    for (customer, points) in [("A", 30), ("B", 20), ("C", 10)] {
        world.earn(customer, points).await;
    }
    world.agrees().await;
    match kind {
        // The ledger's own projection was wrong for a moment.
        Kind::Embedded => {
            world
                .run("UPDATE customers SET lifetime_earned = 1000 WHERE customer_id = 'C'")
                .await;
            assert_eq!(world.standing("C").await.rank, Some(1));
            world
                .run("UPDATE customers SET lifetime_earned = 10 WHERE customer_id = 'C'")
                .await;
        }
        Kind::Redis => {
            world.redis(&["ZADD", "meed:{ranking}", "-1000", "C"]).await;
        }
    }
    let wrong = world.standing("C").await;
    assert_eq!(
        (wrong.rank, wrong.points),
        (Some(1), 10),
        "points are exact all the same"
    );
    let rebuild = world.request_rebuild("put right").await;
    world.rebuilt(rebuild).await;
    world.agrees().await;
    assert_eq!(world.standing("C").await.rank, Some(3));
    world.end().await;
}

async fn a_ledger_that_was_set_back_is_noticed(kind: Kind) {
    let world = World::new(kind).await;
    for (customer, points) in [("A", 30), ("B", 20), ("lost", 1000)] {
        world.earn(customer, points).await;
    }
    world.agrees().await;
    world
        .run(
            "ALTER TABLE transfers DISABLE TRIGGER transfers_append_only;
             DELETE FROM transfers WHERE customer_id = 'lost';
             DELETE FROM customers WHERE customer_id = 'lost'",
        )
        .await;
    world.agrees().await;
    world.end().await;
}

async fn it_is_not_shown_before_it_is_there_nor_when_it_lags(kind: Kind) {
    let lag = Duration::from_millis(300);
    let mut world = World::unkept(kind, lag).await;
    world.earn("A", 1).await;
    let not_ready = async |world: &World| {
        matches!(world.ranking.top(1).await, Err(Error::NotReady))
            && matches!(
                world.ranking.standing(&CustomerId::new("A").unwrap()).await,
                Err(Error::NotReady)
            )
    };
    assert!(not_ready(&world).await);
    world.keepers.push(Keeper::of(&world.ranking));
    world
        .until("it is shown", async || world.top(1).await.is_some())
        .await;
    world.keepers.remove(0).end().await;
    world
        .until("it lags too far", async || not_ready(&world).await)
        .await;
    world.keepers.push(Keeper::of(&world.ranking));
    world
        .until("it is shown again", async || world.top(1).await.is_some())
        .await;
    world.end().await;
}

macro_rules! for_both {
    ($($test:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test] async fn $test() { super::$test(super::Kind::Embedded).await; })*
        }
        mod in_redis {
            $(#[tokio::test] async fn $test() { super::$test(super::Kind::Redis).await; })*
        }
    };
}

for_both!(
    everybody_stands_by_points_and_then_by_id,
    only_who_has_earned_something_stands_in_it,
    who_commits_late_is_not_missed,
    what_happens_while_it_is_made_anew_is_not_lost_and_nobody_sees_half_of_it,
    what_is_wrong_in_it_is_put_right_by_making_it_anew,
    a_ledger_that_was_set_back_is_noticed,
    it_is_not_shown_before_it_is_there_nor_when_it_lags,
);

// -------------------------------------------------------------------------------------- Redis alone

#[tokio::test]
async fn what_redis_has_lost_is_noticed_and_made_anew() {
    let mut world = World::new(Kind::Redis).await;
    for (customer, points) in [("A", 30), ("B", 20), ("C", 10)] {
        world.earn(customer, points).await;
    }
    for loss in [
        &["FLUSHALL"][..],
        &["DEL", "meed:{ranking}"],
        &["DEL", "meed:{ranking}:state"],
        &["ZREM", "meed:{ranking}", "B"],
        &["ZADD", "meed:{ranking}", "-99", "somebody"],
        &["HSET", "meed:{ranking}:state", "position", "nonsense"],
    ] {
        world.agrees().await;
        world.redis(loss).await;
        let what = format!("{loss:?} is noticed");
        world
            .until(&what, async || {
                world.redis(&["EXISTS", "meed:{ranking}:state"]).await == redis::Value::Int(1)
                    && world.top(10).await.is_some_and(|top| top.len() == 3)
            })
            .await;
        world.agrees().await;
    }
    // It ends and comes back with nothing in it.
    world.redis.as_mut().unwrap().end();
    world
        .until("Redis is away", async || {
            matches!(world.ranking.top(10).await, Err(Error::Away))
        })
        .await;
    world.earn("D", 40).await;
    world.redis.as_mut().unwrap().start().await;
    world.agrees().await;
    world.end().await;
}

#[tokio::test]
async fn several_keep_the_one_in_redis_and_one_is_enough() {
    let mut world = World::new(Kind::Redis).await;
    let others = [world.another(PATIENCE), world.another(PATIENCE)];
    world.keepers.extend(others.iter().map(Keeper::of));
    for round in 0..20 {
        let mut late = world.pool().begin().await.unwrap();
        earn(&mut late, &format!("late-{round}"), 7).await;
        world.earn(&format!("C{round}"), round + 1).await;
        late.commit().await.unwrap();
    }
    world.agrees().await;
    let rebuild = world.request_rebuild("while three keep it").await;
    world.rebuilt(rebuild).await;
    for round in 0..2 {
        world.keepers.remove(0).end().await;
        world.earn("C3", 100 * (round + 1)).await;
        world.agrees().await;
    }
    // What was left behind by whoever died while making one is in nobody's way.
    world
        .redis(&["SET", "meed:{ranking}:maker", "dead", "PX", "500"])
        .await;
    world
        .redis(&["ZADD", "meed:{ranking}:next", "-5", "ghost"])
        .await;
    let rebuild = world.request_rebuild("after a death").await;
    world.rebuilt(rebuild).await;
    world.agrees().await;
    world.end().await;
}

/// Scores are doubles: beyond 2^53 two who differ by less than a rounding stand by their id. Points
/// are exact all the same.
#[tokio::test]
async fn beyond_what_a_score_can_tell_the_id_decides() {
    let world = World::new(Kind::Redis).await;
    let large = 1 << 53;
    world.earn("B", large + 2).await;
    world.earn("C", large + 1).await;
    world.earn("A", large).await;
    world
        .until("all are there", async || {
            world.top(10).await.is_some_and(|top| top.len() == 3)
        })
        .await;
    let top = world.top(10).await.unwrap();
    assert_eq!(names(&top), ["B", "A", "C"]);
    let points: Vec<i64> = top.iter().map(|place| place.points).collect();
    assert_eq!(points, [large + 2, large, large + 1]);
    world.earn("most", i64::MAX).await;
    world
        .until("the most there can be is there", async || {
            world.standing("most").await.rank == Some(1)
        })
        .await;
    world.end().await;
}
