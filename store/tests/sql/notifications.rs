//! Notifications: once each, numbered in the order in which they can be seen.

use std::time::Duration;

use domain::{
    Command, Notification, Prunable,
    inbound::{self, Message, topic},
};
use store::{
    Error, PgPool,
    notifications::{self, Arrival, Arrivals, Marked, Stored},
    pruning::Keep,
    testing,
};

use crate::{
    pruning,
    support::{customer, noon},
};

fn notification(user: &str, id: &str, content: &str) -> Notification {
    let body = format!(r#"{{"user_id":"{user}","eventType":"PROMOTION","content":{content}}}"#);
    let message = Message {
        topic: topic::NOTIFICATIONS,
        partition: 0,
        offset: 0,
        key: None,
        headers: &[("ce_id".to_owned(), id.as_bytes().to_vec())],
        value: Some(body.as_bytes()),
        timestamp: noon(),
    };
    match inbound::read(&message, noon()) {
        Ok(Some(Command::Notify(notification))) => notification,
        other => panic!("{body} is {other:?}"),
    }
}

async fn write(pool: &PgPool, notifications: &[Notification]) -> Result<Vec<Stored>, Error> {
    let mut tx = pool.begin().await.unwrap();
    let stored = notifications::write(&mut tx, notifications).await?;
    tx.commit().await.unwrap();
    Ok(stored)
}

async fn numbers(pool: &PgPool, user: &str, after: i64) -> Vec<i64> {
    let page = notifications::after(pool, &customer(user), after, 1_000, u32::MAX)
        .await
        .unwrap();
    page.iter().map(|n| n.notification_id).collect()
}

#[tokio::test]
async fn each_is_stored_once_and_numbered_for_its_player() {
    let database = testing::database().await;
    let pool = &database.pool;
    let [a, b, c] =
        [("A", "1"), ("B", "2"), ("A", "3")].map(|(user, id)| notification(user, id, r#"{"a":1}"#));
    let other = notification("A", "1", r#"{"a":2}"#);
    let of_another = notification("B", "1", r#"{"a":1}"#);
    let in_other_words = notification("A", "3", r#"{ "a" : 1.0 }"#);
    let batch = [a.clone(), b, a.clone(), other.clone(), c];
    let stored = write(pool, &batch).await.unwrap();
    assert_eq!(
        stored,
        [
            Stored::New,
            Stored::New,
            Stored::Same,
            Stored::Conflict,
            Stored::New
        ]
    );
    let again = write(pool, &[other, of_another, in_other_words, a]).await;
    assert_eq!(
        again.unwrap(),
        [
            Stored::Conflict,
            Stored::Conflict,
            Stored::Same,
            Stored::Same
        ]
    );
    assert_eq!(numbers(pool, "A", 0).await, [1, 2]);
    assert_eq!(numbers(pool, "B", 0).await, [1]);
    assert_eq!(write(pool, &[]).await.unwrap(), []);
    let newest = notifications::last_ids(pool, &["A", "B", "C"])
        .await
        .unwrap();
    let mut newest = newest;
    newest.sort();
    assert_eq!(newest, [("A".to_owned(), 2), ("B".to_owned(), 1)]);
    let nobody = notifications::last_id(pool, &customer("C")).await;
    assert_eq!(nobody.unwrap(), 0);
}

#[tokio::test]
async fn what_it_says_stays_as_it_was_written() {
    let database = testing::database().await;
    let contents = [
        r#"{"b":1.50,"a":[1e400, -0.0],"text":"\u0000 \ud83d\ude00 ü"}"#,
        "{ }",
    ];
    let all: Vec<Notification> = (0..)
        .zip(contents)
        .map(|(n, content)| notification("A", &n.to_string(), content))
        .collect();
    write(&database.pool, &all).await.unwrap();
    let a = customer("A");
    let page = notifications::page(&database.pool, &a, true, None, 10);
    let kept: Vec<String> = page.await.unwrap().into_iter().map(|n| n.content).collect();
    assert_eq!(kept, [contents[1], contents[0]]);
}

/// A number that can be seen has all before it that can be seen too, whoever commits first.
#[tokio::test]
async fn a_number_is_seen_only_with_all_before_it() {
    let database = testing::database().await;
    let pool = &database.pool;
    write(pool, &[notification("A", "1", "{}")]).await.unwrap();
    let mut first = pool.begin().await.unwrap();
    let two = [notification("A", "2", "{}")];
    notifications::write(&mut first, &two).await.unwrap();
    let second = tokio::spawn({
        let pool = pool.clone();
        async move { write(&pool, &[notification("A", "3", "{}")]).await }
    });
    // The second waits for the first; another player's do not.
    let other = write(pool, &[notification("B", "4", "{}")]).await;
    assert_eq!(other.unwrap(), [Stored::New]);
    assert_eq!(numbers(pool, "A", 0).await, [1]);
    first.rollback().await.unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(numbers(pool, "A", 0).await, [1, 2], "without a gap");
}

#[tokio::test]
async fn one_identity_for_two_players_at_once_is_tried_again_and_then_refused() {
    let database = testing::database().await;
    let pool = &database.pool;
    let mut first = pool.begin().await.unwrap();
    let of_a = [notification("A", "1", "{}")];
    notifications::write(&mut first, &of_a).await.unwrap();
    let second = tokio::spawn({
        let pool = pool.clone();
        async move { write(&pool, &[notification("B", "1", "{}")]).await }
    });
    // It waits for the first, which it cannot see.
    let waits = async || {
        let (waiting,): (i64,) = sqlx::query_as(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        waiting > 0
    };
    while !waits().await {
        tokio::task::yield_now().await;
    }
    first.commit().await.unwrap();
    assert!(matches!(second.await.unwrap(), Err(Error::Raced)));
    let again = write(pool, &[notification("B", "1", "{}")]).await;
    assert_eq!(again.unwrap(), [Stored::Conflict]);
    assert_eq!(numbers(pool, "B", 0).await, Vec::<i64>::new());
}

#[tokio::test]
async fn a_page_is_bounded_in_number_and_bytes_but_never_empty() {
    let database = testing::database().await;
    let pool = &database.pool;
    let content = format!(r#"{{"t":"{}"}}"#, "x".repeat(92));
    let all: Vec<Notification> = (0..5)
        .map(|n| notification("A", &n.to_string(), &content))
        .collect();
    write(pool, &all).await.unwrap();
    for (after, limit, max_bytes, expected) in [
        (0, 2, 1_000, &[1, 2][..]),
        (0, 10, 1, &[1]),
        (3, 10, 1, &[4]),
        (0, 10, 100, &[1]),
        (0, 10, 101, &[1, 2]),
        (1, 10, 1_000, &[2, 3, 4, 5]),
        (5, 10, 1_000, &[]),
    ] {
        let a = customer("A");
        let page = notifications::after(pool, &a, after, limit, max_bytes);
        let page: Vec<i64> = page
            .await
            .unwrap()
            .iter()
            .map(|n| n.notification_id)
            .collect();
        assert_eq!(page, expected, "{after}, {limit}, {max_bytes}");
    }
}

#[tokio::test]
async fn whoever_listens_hears_whose_they_are_once_they_are_committed() {
    let database = testing::database().await;
    let pool = &database.pool;
    let mut arrivals = Arrivals::listen(pool).await.unwrap();
    let mut lost = pool.begin().await.unwrap();
    let one = [notification("A", "1", "{}")];
    notifications::write(&mut lost, &one).await.unwrap();
    lost.rollback().await.unwrap();
    let two = [notification("C", "2", "{}"), notification("B", "3", "{}")];
    write(pool, &two).await.unwrap();
    // Nothing new is nothing to hear of.
    write(pool, &two).await.unwrap();
    write(pool, &one).await.unwrap();
    let heard = |users: &[&str]| Arrival::For(users.iter().map(|u| (*u).to_owned()).collect());
    assert_eq!(arrivals.next().await.unwrap(), heard(&["B", "C"]));
    assert_eq!(arrivals.next().await.unwrap(), heard(&["A"]));

    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND query LIKE 'LISTEN%'",
    )
    .execute(pool)
    .await
    .unwrap();
    assert_eq!(arrivals.next().await.unwrap(), Arrival::Unknown);
    write(pool, &[notification("D", "4", "{}")]).await.unwrap();
    assert_eq!(
        arrivals.next().await.unwrap(),
        heard(&["D"]),
        "it listens again"
    );
}

#[tokio::test]
async fn what_was_read_long_ago_is_removed_and_nothing_else() {
    let database = testing::database().await;
    let pool = &database.pool;
    let all: Vec<Notification> = (1..=4)
        .map(|n| notification("A", &n.to_string(), "{}"))
        .collect();
    write(pool, &all).await.unwrap();
    let mut conn = pool.acquire().await.unwrap();
    let a = customer("A");
    for (number, marked) in [(1, Marked::Now), (1, Marked::Before), (5, Marked::Unknown)] {
        let got = notifications::mark_read(&mut conn, &a, number).await;
        assert_eq!(got.unwrap(), marked, "{number}");
    }
    notifications::mark_read(&mut conn, &a, 2).await.unwrap();
    sqlx::query(
        "UPDATE notifications SET read_at = read_at - interval '40 days' WHERE notification_id = 2",
    )
    .execute(pool)
    .await
    .unwrap();
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let prune = async |read_notifications| {
        let keep = Keep {
            read_notifications,
            ..pruning::KEEP
        };
        store::pruning::prune(pool, Prunable::ReadNotifications, keep)
            .await
            .unwrap()
    };
    for (keep, removed, left) in [(days(41), 0, &[1, 2, 3, 4][..]), (days(39), 1, &[1, 3, 4])] {
        assert_eq!(prune(keep).await, removed);
        assert_eq!(numbers(pool, "A", 0).await, left);
    }
    // A number is never given again.
    let marked = notifications::mark_all_read(&mut conn, &a).await.unwrap();
    assert_eq!(marked, 2);
    assert_eq!(prune(Duration::ZERO).await, 3);
    write(pool, &[notification("A", "6", "{}")]).await.unwrap();
    assert_eq!(numbers(pool, "A", 0).await, [5]);
}
