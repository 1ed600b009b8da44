//! Idempotency keys on a real PostgreSQL.

use std::time::Duration;

use store::{
    idempotency::{Answer, Begun, Key, begin, finish},
    testing::database,
};

const KEY: Key<'_> = Key {
    client: "c",
    route: "POST /r",
    key: "k",
};
const LOCK: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

fn answer() -> Answer {
    Answer {
        status: 202,
        body: serde_json::json!({ "status": "RESERVED" }),
        headers: serde_json::json!({ "location": "/x" }),
    }
}

#[tokio::test]
async fn one_request_runs_and_its_answer_is_replayed() {
    let database = database().await;
    let mut conn = database.pool.acquire().await.unwrap();
    assert_eq!(
        begin(&mut conn, KEY, &[1; 32], LOCK, DAY).await.unwrap(),
        Begun::New
    );
    assert_eq!(
        begin(&mut conn, KEY, &[1; 32], LOCK, DAY).await.unwrap(),
        Begun::Running
    );
    assert_eq!(
        begin(&mut conn, KEY, &[2; 32], LOCK, DAY).await.unwrap(),
        Begun::OtherBody
    );
    finish(&mut conn, KEY, &answer()).await.unwrap();
    finish(
        &mut conn,
        KEY,
        &Answer {
            status: 409,
            ..answer()
        },
    )
    .await
    .unwrap();
    assert_eq!(
        begin(&mut conn, KEY, &[1; 32], LOCK, DAY).await.unwrap(),
        Begun::Answered(answer()),
        "the first answer stays"
    );
    assert_eq!(
        begin(&mut conn, KEY, &[2; 32], LOCK, DAY).await.unwrap(),
        Begun::OtherBody
    );
    for other in [
        Key { client: "d", ..KEY },
        Key {
            route: "POST /s",
            ..KEY
        },
        Key { key: "l", ..KEY },
    ] {
        assert_eq!(
            begin(&mut conn, other, &[2; 32], LOCK, DAY).await.unwrap(),
            Begun::New
        );
    }
}

#[tokio::test]
async fn a_request_that_died_is_taken_over_by_the_same_one_only() {
    let database = database().await;
    let mut conn = database.pool.acquire().await.unwrap();
    let over = Duration::ZERO;
    assert_eq!(
        begin(&mut conn, KEY, &[1; 32], over, DAY).await.unwrap(),
        Begun::New
    );
    assert_eq!(
        begin(&mut conn, KEY, &[2; 32], LOCK, DAY).await.unwrap(),
        Begun::OtherBody
    );
    assert_eq!(
        begin(&mut conn, KEY, &[1; 32], LOCK, DAY).await.unwrap(),
        Begun::TakenOver
    );
    assert_eq!(
        begin(&mut conn, KEY, &[1; 32], LOCK, DAY).await.unwrap(),
        Begun::Running
    );
}

#[tokio::test]
async fn a_key_that_has_expired_is_free() {
    let database = database().await;
    let mut conn = database.pool.acquire().await.unwrap();
    begin(&mut conn, KEY, &[1; 32], LOCK, Duration::ZERO)
        .await
        .unwrap();
    finish(&mut conn, KEY, &answer()).await.unwrap();
    assert_eq!(
        begin(&mut conn, KEY, &[2; 32], LOCK, DAY).await.unwrap(),
        Begun::New
    );
}

#[tokio::test]
async fn of_many_at_once_one_runs() {
    let database = database().await;
    let attempts = (0..20).map(|_| {
        let pool = database.pool.clone();
        tokio::spawn(async move {
            let mut conn = pool.acquire().await.unwrap();
            begin(&mut conn, KEY, &[1; 32], LOCK, DAY).await.unwrap()
        })
    });
    let attempts: Vec<_> = attempts.collect();
    let mut new = 0;
    for attempt in attempts {
        match attempt.await.unwrap() {
            Begun::New => new += 1,
            other => assert_eq!(other, Begun::Running),
        }
    }
    assert_eq!(new, 1);
}
