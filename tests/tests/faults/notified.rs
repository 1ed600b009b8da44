//! Notifications on two replicas that are restarted one after the other: each is stored once, and
//! told to its player wherever that one is connected, once and in order.

use std::sync::Arc;

use serde_json::{Value, json};
use tests::{
    own::{end, own_system},
    system::{PATIENCE, System, patiently, unique},
    watcher::{Ended, Watcher, come_again},
};
use tokio::{sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;

/// A block of ports, counted from the shared one.
const NOTIFIED: u16 = 4;
/// How many notifications each player gets in each of the three parts.
const EACH: i64 = 20;
/// The replicas are asked directly too.
const REPLICAS: [&str; 2] = ["api", "api-2"];

/// Sends a player so many notifications, every one twice.
async fn tell(system: &System, player: &str, count: i64) {
    for _ in 0..count {
        let id = unique("n");
        let headers = [("ce_id", id.as_str()), ("ce_source", "/shop")];
        let body = json!({ "user_id": player, "eventType": "PROMOTION", "content": { "id": id } });
        for _ in 0..2 {
            let body = body.to_string();
            system
                .send("notifications", player, &headers, body.as_bytes())
                .await;
        }
    }
}

async fn list(system: &System, api: &str, player: &str) -> Value {
    let token = system.player_token(player).await;
    let url = format!("{api}/api/v1/notifications?limit=1");
    let answer = patiently(system.http.get(url).bearer_auth(token)).await;
    answer.json().await.expect("JSON")
}

/// A player's client that reads all the time, as an app does: one that does not read answers no
/// ping, and is cut off.
struct Reader {
    last: watch::Receiver<i64>,
    ended: AbortOnDropHandle<Ended>,
}

impl Reader {
    fn of(mut watcher: Watcher) -> Self {
        let (read, last) = watch::channel(watcher.last);
        let ended = tokio::spawn(async move {
            loop {
                if let Err(ended) = watcher.next().await {
                    return ended;
                }
                read.send_replace(watcher.last);
            }
        });
        Self {
            last,
            ended: AbortOnDropHandle::new(ended),
        }
    }

    /// The last number that it has.
    fn last(&self) -> i64 {
        *self.last.borrow()
    }

    /// Whether it gets this number before its socket ends.
    async fn gets(&mut self, number: i64) -> bool {
        let has = self.last.wait_for(|last| *last >= number);
        timeout(PATIENCE, has).await.expect("in time").is_ok()
    }

    /// How the server closes its socket.
    async fn closed(&mut self) -> Ended {
        let ended = timeout(PATIENCE, &mut self.ended).await;
        ended.expect("in time").expect("one after the other")
    }
}

#[tokio::test]
async fn players_are_told_everything_once_while_replicas_are_restarted() {
    let system = own_system(NOTIFIED, |builder| builder.replicas(2)).await;
    let system = Arc::new(system);
    let stack = &system.components.stack;
    let direct = REPLICAS.map(|name| {
        let address = stack.address(name).expect("an address");
        format!("http://{address}")
    });
    let proxy = system.components.env["MEED_API_URL"].clone();
    assert!(!direct.contains(&proxy), "there is a proxy");
    let players = [unique("P"), unique("P")];
    let tokens = [
        system.player_token(&players[0]).await,
        system.player_token(&players[1]).await,
    ];
    // The first one is at the second replica, and at the first as well; the other one behind the
    // proxy, from a page.
    let second = Watcher::connect(&direct[1], &tokens[0], 0).await;
    let mut second = Reader::of(second.expect("let in"));
    let first = Watcher::connect(&direct[0], &tokens[0], 0).await;
    let mut first = Reader::of(first.expect("let in"));
    let behind = Watcher::connect_as_page(&proxy, &tokens[1], 0).await;
    let mut behind = Reader::of(behind.expect("let in"));

    for player in &players {
        tell(&system, player, EACH).await;
    }
    for watcher in [&mut second, &mut first, &mut behind] {
        assert!(watcher.gets(EACH).await, "it stays open");
    }
    for api in &direct {
        let list = list(&system, api, &players[0]).await;
        assert_eq!(list["notifications"][0]["id"], EACH, "{list}");
    }

    // What comes while a replica is restarted is told when its clients come again.
    let restarted = {
        let system = Arc::clone(&system);
        tokio::task::spawn_blocking(move || system.components.stack.restart("api-2"))
    };
    assert_eq!(
        second.closed().await,
        Some(1012),
        "it is told to come again"
    );
    tell(&system, &players[0], EACH).await;
    restarted.await.expect("no panic").expect("it is restarted");
    let mut second = Reader::of(come_again(&direct[1], &tokens[0], second.last()).await);
    for watcher in [&mut second, &mut first] {
        assert!(watcher.gets(2 * EACH).await, "it stays open");
    }

    // One that dies says nothing.
    let killed = {
        let system = Arc::clone(&system);
        tokio::task::spawn_blocking(move || system.components.stack.kill("api"))
    };
    killed.await.expect("no panic").expect("it is killed");
    assert_eq!(first.closed().await, None, "it says nothing");
    tell(&system, &players[0], EACH).await;
    tell(&system, &players[1], EACH).await;
    let mut first = Reader::of(come_again(&proxy, &tokens[0], first.last()).await);
    for watcher in [&mut second, &mut first] {
        assert!(watcher.gets(3 * EACH).await, "it stays open");
    }
    // The proxy has lost one of its replicas; who was on the other one noticed nothing.
    while !behind.gets(2 * EACH).await {
        behind.closed().await;
        behind = Reader::of(come_again(&proxy, &tokens[1], behind.last()).await);
    }

    // Refused, and in nobody's way.
    let refused = json!({ "user_id": players[0], "eventType": "PROMOTION" }).to_string();
    system
        .send("notifications", &players[0], &[], refused.as_bytes())
        .await;
    let wanted = refused.clone();
    system
        .await_published("dead-letter", 1, move |m| m.body == wanted.as_bytes())
        .await;
    let counts: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT user_id, count(*), max(notification_id) FROM notifications
         GROUP BY user_id ORDER BY 2 DESC",
    )
    .fetch_all(&system.pool)
    .await
    .expect("counts");
    let expected = [
        (players[0].clone(), 3 * EACH, 3 * EACH),
        (players[1].clone(), 2 * EACH, 2 * EACH),
    ];
    assert_eq!(counts, expected);
    drop((first, second, behind));
    end(Arc::into_inner(system).expect("nobody else has it")).await;
}
