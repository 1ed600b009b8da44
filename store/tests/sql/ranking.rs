//! What the ranking is fed from.

use std::collections::{BTreeMap, BTreeSet};

use store::{
    PgPool, ledger,
    ranking::{self, Changes, Everybody, Position},
    transaction,
};

use crate::support::{points, post, programme, spend, stay};

/// Reads what is new, and says whose points it tells.
async fn follow(pool: &PgPool, position: &mut Position) -> BTreeMap<String, i64> {
    let look = ranking::look(pool).await.unwrap();
    let changes = ranking::changes(pool, &look, position, 1_000)
        .await
        .unwrap();
    assert_eq!(changes.as_of, Some(look.at));
    *position = changes.position.clone();
    told(&changes)
}

fn told(changes: &Changes) -> BTreeMap<String, i64> {
    let earned = changes.earned.iter();
    earned
        .map(|earned| (earned.customer_id.clone(), earned.points))
        .collect()
}

fn is(customer: &str, points: i64) -> BTreeMap<String, i64> {
    BTreeMap::from([(customer.to_owned(), points)])
}

#[tokio::test]
async fn what_commits_late_is_told_and_what_is_rolled_back_is_forgotten() {
    let database = store::testing::database().await;
    let pool = &database.pool;
    let mut position = ranking::beginning(pool).await.unwrap();
    assert_eq!(position, Position::default());
    post(pool, &[stay("e1", "A", 1)]).await;
    assert_eq!(follow(pool, &mut position).await, is("A", 100));
    assert_eq!(follow(pool, &mut position).await, BTreeMap::new());

    // Two take ids and do not commit; a third overtakes them.
    let mut late = transaction::begin(pool).await.unwrap();
    let programme = programme();
    let two = [stay("e2", "B", 1), stay("e3", "C", 2)];
    ledger::post_awards(&mut late, &programme, "test", &two)
        .await
        .unwrap();
    let mut never = transaction::begin(pool).await.unwrap();
    let one = [stay("e4", "D", 1)];
    ledger::post_awards(&mut never, &programme, "test", &one)
        .await
        .unwrap();
    post(pool, &[stay("e5", "A", 1)]).await;
    for round in 0..3 {
        let expected = if round == 0 {
            is("A", 200)
        } else {
            BTreeMap::new()
        };
        assert_eq!(follow(pool, &mut position).await, expected);
        let missing: Vec<_> = position.missing.iter().map(|m| (m.first, m.last)).collect();
        assert_eq!((position.read_to, missing), (5, vec![(2, 4)]));
        assert_eq!(position.missing[0].writers.len(), 2);
    }
    // Whoever goes on elsewhere goes on from what is written down.
    let written = serde_json::to_string(&position).unwrap();
    position = serde_json::from_str(&written).unwrap();
    never.rollback().await.unwrap();
    for _ in 0..2 {
        assert_eq!(follow(pool, &mut position).await, BTreeMap::new());
        assert_eq!(position.missing.len(), 1, "the late one may still come");
    }
    late.commit().await.unwrap();
    let both: BTreeMap<_, _> = [("B".to_owned(), 100), ("C".to_owned(), 200)].into();
    assert_eq!(follow(pool, &mut position).await, both);
    follow(pool, &mut position).await;
    let all = Position {
        read_to: 5,
        missing: Vec::new(),
    };
    assert_eq!(position, all, "4 was rolled back");

    // Whoever begins now has to wait for what is under way.
    let mut under_way = transaction::begin(pool).await.unwrap();
    let one = [stay("e6", "E", 1)];
    ledger::post_awards(&mut under_way, &programme, "test", &one)
        .await
        .unwrap();
    post(pool, &[stay("e7", "A", 1)]).await;
    let (beginning, ()) = tokio::join!(ranking::beginning(pool), async {
        // However late it commits.
        tokio::task::yield_now().await;
        under_way.commit().await.unwrap();
    });
    let mut everybody = Everybody::begin(pool).await.unwrap();
    let page = everybody.next().await.unwrap();
    assert!(everybody.next().await.unwrap().is_empty());
    assert_eq!(beginning.unwrap().read_to, 7);
    let names: BTreeSet<&str> = page
        .iter()
        .map(|earned| earned.customer_id.as_str())
        .collect();
    assert_eq!(names, ["A", "B", "C", "E"].into());
}

/// Who never earned anything is told by nobody, and spending changes nothing.
#[tokio::test]
async fn only_what_was_earned_is_told() {
    let database = store::testing::database().await;
    let pool = &database.pool;
    let mut position = Position::default();
    post(pool, &[spend("e1", "none", 3), stay("e2", "A", 3)]).await;
    assert_eq!(follow(pool, &mut position).await, is("A", 300));
    let adjustment = store::adjustments::Adjustment {
        id: "taken",
        customer: &crate::support::customer("A"),
        what: store::adjustments::What::Points(-100),
        reason: "a test",
        actor: "a test",
    };
    store::adjustments::post(pool, &adjustment).await.unwrap();
    assert_eq!(follow(pool, &mut position).await, is("A", 300));
    assert_eq!(
        crate::support::balance(pool, "A").await.available,
        points(200)
    );
    let both = ["A".to_owned(), "none".to_owned(), "nobody".to_owned()];
    let mut earned = ranking::earned(pool, &both).await.unwrap();
    earned.sort_by(|a, b| a.customer_id.cmp(&b.customer_id));
    let earned: Vec<_> = earned
        .iter()
        .map(|e| (e.customer_id.as_str(), e.points))
        .collect();
    assert_eq!(earned, [("A", 300), ("none", 0)]);
}

#[tokio::test]
async fn much_at_once_is_read_in_parts_and_a_look_reads_no_more_than_is_new() {
    let database = store::testing::database().await;
    sqlx::raw_sql(
        "INSERT INTO customers (customer_id, available, lifetime_earned, version)
         SELECT 'C' || n, 4, 4, 4 FROM generate_series(1, 5000) n;
         INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account,
                customer_id, amount, reason, workflow_id, customer_version, available_after,
                held_after, occurred_at)
         SELECT 'test', n || '/' || v, 'award', 'ISSUANCE', 'AVAILABLE', 'C' || n, 1, 'TEST', '',
                v, v, 0, clock_timestamp()
         FROM generate_series(1, 4) v, generate_series(1, 5000) n;
         ANALYZE",
    )
    .execute(&database.pool)
    .await
    .unwrap();
    let pool = &database.pool;
    let explain = |statement: &str| sqlx::AssertSqlSafe(format!("EXPLAIN {statement}"));
    let (from, to) = (vec![18_200_i64, 19_000], vec![18_300_i64, 19_001]);
    let plans: [Vec<(String,)>; 3] = [
        sqlx::query_as(explain(ranking::LOOK))
            .fetch_all(pool)
            .await
            .unwrap(),
        sqlx::query_as(explain(ranking::FRESH))
            .bind(19_750_i64)
            .bind(100_i64)
            .fetch_all(pool)
            .await
            .unwrap(),
        sqlx::query_as(explain(ranking::LATE))
            .bind(from)
            .bind(to)
            .fetch_all(pool)
            .await
            .unwrap(),
    ];
    for plan in plans {
        let plan: Vec<String> = plan.into_iter().map(|(line,)| line).collect();
        let plan = plan.join("\n");
        assert!(plan.contains("using transfers_pkey"), "{plan}");
        assert!(!plan.contains("Seq Scan on transfers"), "{plan}");
    }
    let look = ranking::look(pool).await.unwrap();
    assert_eq!(look.last_transfer, 20_000);
    let mut position = Position {
        read_to: 19_750,
        missing: Vec::new(),
    };
    let mut parts = Vec::new();
    loop {
        let changes = ranking::changes(pool, &look, &position, 100).await.unwrap();
        parts.push(changes.earned.len());
        position = changes.position;
        if changes.as_of.is_some() {
            break;
        }
    }
    assert_eq!(parts, [100, 100, 50]);
    assert_eq!(position.read_to, 20_000);
    let again = ranking::changes(pool, &look, &position, 1_000)
        .await
        .unwrap();
    assert!(again.earned.is_empty());
    let missing = ranking::Missing {
        first: 19_000,
        last: 19_001,
        writers: BTreeSet::from(["gone".to_owned()]),
    };
    position.missing.push(missing);
    let late = ranking::changes(pool, &look, &position, 1_000)
        .await
        .unwrap();
    assert_eq!(late.earned.len(), 2);
    assert_eq!(late.position.missing, []);
    // More than is read of a range at a time comes in parts too, and none of it is forgotten.
    position.missing[0].first = 18_200;
    position.missing[0].writers = BTreeSet::new();
    let mut parts = Vec::new();
    loop {
        let changes = ranking::changes(pool, &look, &position, 1_000)
            .await
            .unwrap();
        parts.push(changes.earned.len());
        position = changes.position;
        if changes.as_of.is_some() {
            break;
        }
    }
    assert_eq!((parts, position.missing), (vec![500, 302], Vec::new()));
}

#[tokio::test]
async fn indexes_tell_how_they_are_and_the_same_request_is_one_rebuild() {
    let database = store::testing::database().await;
    let pool = &database.pool;
    assert_eq!(ranking::look(pool).await.unwrap().wanted, 0);
    let one = ranking::request_rebuild(pool, "run 1", "me").await.unwrap();
    assert_eq!(
        ranking::request_rebuild(pool, "run 1", "me").await.unwrap(),
        one
    );
    let two = ranking::request_rebuild(pool, "run 2", "me").await.unwrap();
    assert!(two > one);
    assert_eq!(ranking::look(pool).await.unwrap().wanted, two);
    let mut index = ranking::IndexState {
        index_name: "redis".to_owned(),
        trouble: Some("away".to_owned()),
        ..Default::default()
    };
    ranking::tell(pool, &index).await.unwrap();
    assert_eq!(ranking::indexes(pool).await.unwrap(), [index.clone()]);
    index.rebuild_id = Some(two);
    index.customers = Some(7);
    index.trouble = None;
    ranking::tell(pool, &index).await.unwrap();
    assert_eq!(ranking::indexes(pool).await.unwrap(), [index]);
    sqlx::query("UPDATE ranking_indexes SET seen_at = seen_at - interval '1 minute'")
        .execute(pool)
        .await
        .unwrap();
    assert_eq!(
        ranking::indexes(pool).await.unwrap(),
        [],
        "nobody keeps it any more"
    );
    ranking::leave(pool, "redis").await.unwrap();
}
