use std::time::Duration;

use domain::CustomerId;
use futures::future::join_all;
use store::{history::Picture, pictures::Pictures, testing};

use crate::support::*;

/// Statements that wait for a lock.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
     WHERE wait_event_type = 'Lock' AND datname = current_database()";

fn available(picture: Option<&Picture>) -> Option<i64> {
    picture.map(|picture| picture.balance.available.get())
}

#[tokio::test]
async fn many_ask_in_few_statements_and_each_has_its_own_answer() {
    let db = testing::database().await;
    let pool = &db.pool;
    let names: Vec<CustomerId> = (0..40).map(|n| customer(&format!("C{n}"))).collect();
    for (n, name) in (1..).zip(&names[..30]) {
        post(pool, &[stay(&format!("E-{name}"), name.as_str(), n)]).await;
    }
    let pictures = Pictures::of(pool);
    let mut held_up = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *held_up)
        .await
        .unwrap();

    // Everybody asks twice, and one of each two hangs up.
    let (mut mine, mut others) = (Vec::new(), Vec::new());
    for (names, expected) in [(&names[..1], 1), (&names[1..20], 2), (&names[20..], 2)] {
        for name in names {
            for asked in [&mut mine, &mut others] {
                let (pictures, name) = (pictures.clone(), name.clone());
                asked.push(tokio::spawn(async move { pictures.read(&name).await }));
            }
        }
        let mut waiting = 0_i64;
        while waiting < expected {
            tokio::time::sleep(Duration::from_millis(50)).await;
            waiting = sqlx::query_scalar(WAITING).fetch_one(pool).await.unwrap();
        }
        assert_eq!(waiting, expected, "the rest waits for these statements");
    }
    others.iter().for_each(tokio::task::JoinHandle::abort);
    held_up.rollback().await.unwrap();
    for (n, answer) in (1..).zip(join_all(mine).await) {
        let found = answer.unwrap().unwrap();
        // An event gives 2,000 at most.
        let expected = (n <= 30).then_some((n * 100).min(2_000));
        assert_eq!(available(found.as_ref()), expected, "customer {n}");
    }

    // What was committed before somebody asked is seen.
    for n in 1..=20 {
        post(pool, &[stay(&format!("more-{n}"), "C39", 1)]).await;
        let found = pictures.read(&customer("C39")).await.unwrap();
        assert_eq!(available(found.as_ref()), Some(n * 100));
    }
}

#[tokio::test]
async fn a_failure_is_told_to_all_and_the_next_question_is_asked_anew() {
    let db = testing::database().await;
    let pool = &db.pool;
    post(pool, &[stay("E1", "A", 1)]).await;
    let pictures = Pictures::of(pool);
    let name = customer("A");
    let rename = |from: &str, to: &str| {
        let statement = format!("ALTER TABLE {from} RENAME TO {to}");
        async move {
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .execute(pool)
                .await
                .unwrap()
        }
    };
    rename("customers", "customers_elsewhere").await;
    let answers = join_all((0..10).map(|_| pictures.read(&name))).await;
    for answer in answers {
        let error = answer.unwrap_err();
        assert!(!error.is_retryable(), "{error}");
        assert!(error.to_string().contains("customers"), "{error}");
    }
    rename("customers_elsewhere", "customers").await;
    let found = pictures.read(&name).await.unwrap();
    assert_eq!(available(found.as_ref()), Some(100));
    // The database is out of reach: that may pass.
    pool.close().await;
    assert!(pictures.read(&name).await.unwrap_err().is_retryable());
}
