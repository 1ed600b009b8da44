//! What comes on sockets: everything, in order, once, on whichever replica.

use std::sync::Arc;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use store::notifications::Stored;

use crate::support::{Replica, notification, store, tell};

#[tokio::test]
async fn what_is_stored_is_told_to_its_player_alone_with_the_words_of_the_list() {
    let replica = Replica::new(&[]).await;
    let mut with_header = replica.player("C1", None).await;
    assert_eq!(with_header.ready().await, 0);
    let mut with_message = replica.stranger().await;
    with_message
        .authenticate(&replica.token("C1", "player"), None)
        .await;
    assert_eq!(with_message.ready().await, 0);
    let mut other = replica.player("C2", None).await;
    assert_eq!(other.ready().await, 0);

    let welcome = notification("C1", "1", &json!({ "title": "Welcome", "amount": 50.25 }));
    let once = store(replica.pool(), std::slice::from_ref(&welcome)).await;
    assert_eq!(once, [Stored::New]);
    assert_eq!(store(replica.pool(), &[welcome]).await, [Stored::Same]);
    tell(replica.pool(), "C2", 1).await;
    for socket in [&mut with_header, &mut with_message] {
        let told = socket.next().await.expect("it is open");
        let list = crate::app::get("/api/v1/notifications", &replica.token("C1", "player"));
        let list = replica.api.send(list).await;
        assert_eq!(told["user_id"], "C1");
        assert_eq!(told["notifications"], list.body["notifications"]);
        assert_eq!(told["notifications"][0]["content"]["amount"], 50.25);
        assert_eq!(told["notifications"][0]["read"], false);
    }
    assert_eq!(other.told(1).await, [1]);
}

#[tokio::test]
async fn a_client_that_comes_again_is_told_what_came_after_the_last_it_has() {
    let replica = Replica::new(&[]).await;
    tell(replica.pool(), "C1", 120).await;
    for (last_seen, ready) in [
        (Some(0), 0),
        (Some(117), 117),
        (Some(120), 120),
        (None, 120),
    ] {
        let mut socket = replica.player("C1", last_seen).await;
        assert_eq!(socket.ready().await, ready);
        let missed = usize::try_from(120 - ready).expect("positive");
        let expected: Vec<i64> = (ready + 1..=120).collect();
        assert_eq!(socket.told(missed).await, expected, "{last_seen:?}");
    }
    // Numbers that were never given, such as before a backup was restored.
    let mut ahead = replica.stranger().await;
    ahead
        .authenticate(&replica.token("C1", "player"), Some(i64::from(u32::MAX)))
        .await;
    assert_eq!(ahead.ready().await, 120);
    tell(replica.pool(), "C1", 1).await;
    assert_eq!(ahead.told(1).await, [121]);
}

#[tokio::test]
async fn large_notifications_come_too() {
    let replica = Replica::new(&[]).await;
    let content = json!({ "text": "x".repeat(16_000) });
    let all: Vec<_> = (0..30)
        .map(|n| notification("C1", &n.to_string(), &content))
        .collect();
    store(replica.pool(), &all).await;
    let mut socket = replica.player("C1", Some(0)).await;
    socket.ready().await;
    let expected: Vec<i64> = (1..=30).collect();
    assert_eq!(socket.told(30).await, expected);
}

#[tokio::test]
async fn nothing_is_missed_while_postgresql_is_not_heard() {
    let replica = Replica::new(&[]).await;
    let mut socket = replica.player("C1", None).await;
    socket.ready().await;
    for number in 1..=5 {
        let (ended,): (i64,) = sqlx::query_as(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = current_database() AND query LIKE 'LISTEN%'",
        )
        .fetch_one(replica.pool())
        .await
        .expect("ended");
        assert!(ended <= 1, "one connection listens");
        tell(replica.pool(), "C1", 1).await;
        assert_eq!(socket.told(1).await, [number]);
    }
}

/// Many write, clients come and go on two replicas, and each is told every number once, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_comes_and_goes_misses_nothing_and_is_told_nothing_twice() {
    const USERS: usize = 3;
    const WRITERS: usize = 6;
    const EACH: usize = 40;
    const CLIENTS: usize = 8;
    // However late the end of a socket is seen.
    let many = [("max_per_user = 10", "max_per_user = 1000")];
    let first = Replica::new(&many).await;
    let second = Replica::on(first.api.database.clone(), &many).await;
    let replicas = Arc::new([first, second]);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let replicas = Arc::clone(&replicas);
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(writer as u64);
                for n in 0..EACH {
                    // Several players in one transaction, some of it a second time.
                    let of: Vec<_> = (0..USERS)
                        .map(|user| {
                            let id = format!("{writer}-{n}-{user}");
                            notification(&format!("C{user}"), &id, &json!({ "n": n }))
                        })
                        .collect();
                    let pool = replicas[0].pool();
                    loop {
                        let mut tx = store::transaction::begin(pool)
                            .await
                            .expect("a transaction");
                        store::notifications::write(&mut tx, &of)
                            .await
                            .expect("written");
                        if random.random_bool(0.2) {
                            // It did not come to a commit.
                            continue;
                        }
                        store::transaction::commit(tx, "test")
                            .await
                            .expect("committed");
                        if random.random_bool(0.8) {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    let total = i64::try_from(WRITERS * EACH).expect("few");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let replicas = Arc::clone(&replicas);
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(1_000 + client as u64);
                let user = format!("C{}", client % USERS);
                let mut last = 0;
                let mut comings = 0;
                while last < total {
                    comings += 1;
                    let replica = &replicas[random.random_range(0..2)];
                    let mut socket = replica.player(&user, Some(last)).await;
                    assert_eq!(socket.ready().await, last);
                    let stays_for = random.random_range(1..30);
                    for _ in 0..stays_for {
                        if last == total {
                            break;
                        }
                        let told = socket.next().await.expect("it is open");
                        for number in crate::support::numbers(&told) {
                            assert_eq!(number, last + 1, "{user} on its {comings}. coming");
                            last = number;
                        }
                    }
                    // Half of them say goodbye.
                    if random.random_bool(0.5) {
                        let _ = socket.0.close(None).await;
                    }
                }
                last
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("it has written");
    }
    for client in clients {
        assert_eq!(client.await.expect("it was told all"), total);
    }
}
