//! Notifications on two replicas that are restarted one after the other: each is stored once, and
//! told to its player wherever that one is connected, once and in order.

use std::sync::Arc;

use serde_json::{Value, json};
use tests::{
    own::{end, own_system},
    system::{System, unique},
    watcher::{Watcher, come_again},
};

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
    let answer = system.http.get(url).bearer_auth(token).send().await;
    answer.expect("it answers").json().await.expect("JSON")
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
    let mut second = Watcher::connect(&direct[1], &tokens[0], 0)
        .await
        .expect("let in");
    let mut first = Watcher::connect(&direct[0], &tokens[0], 0)
        .await
        .expect("let in");
    let mut behind = Watcher::connect_as_page(&proxy, &tokens[1], 0)
        .await
        .expect("let in");

    for player in &players {
        tell(&system, player, EACH).await;
    }
    for watcher in [&mut second, &mut first, &mut behind] {
        watcher.until(EACH).await.expect("it stays open");
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
    let mut second = come_again(&direct[1], &tokens[0], second.last).await;
    for watcher in [&mut second, &mut first] {
        watcher.until(2 * EACH).await.expect("it stays open");
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
    let mut first = come_again(&proxy, &tokens[0], first.last).await;
    for watcher in [&mut second, &mut first] {
        watcher.until(3 * EACH).await.expect("it stays open");
    }
    // The proxy has lost one of its replicas; who was on the other one noticed nothing.
    while behind.last < 2 * EACH {
        if behind.until(2 * EACH).await.is_err() {
            behind = come_again(&proxy, &tokens[1], behind.last).await;
        }
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
