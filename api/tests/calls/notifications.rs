//! What players were told, in lists, and what they have read.

use serde_json::{Value, json};
use store::testing::TestDatabase;

use crate::support::{Api, api};

const PATH: &str = "/api/v1/notifications";

/// Stores notifications of a player, as the worker does: each its own number as content.
async fn tell(api: &Api, user: &str, count: i64) {
    use domain::{Command, inbound};
    let now = chrono::Utc::now();
    let notifications: Vec<_> = (1..=count)
        .map(|n| {
            let id = uuid::Uuid::new_v4().to_string();
            let body = json!({ "user_id": user, "eventType": "PROMOTION", "content": { "n": n } });
            let body = body.to_string();
            let message = inbound::Message {
                topic: inbound::topic::NOTIFICATIONS,
                partition: 0,
                offset: 0,
                key: None,
                headers: &[("ce_id".to_owned(), id.into_bytes())],
                value: Some(body.as_bytes()),
                timestamp: now,
            };
            match inbound::read(&message, now) {
                Ok(Some(Command::Notify(notification))) => notification,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    let mut tx = store::transaction::begin(&api.pool).await.unwrap();
    store::notifications::write(&mut tx, &notifications)
        .await
        .unwrap();
    store::transaction::commit(tx, "test").await.unwrap();
}

fn ids(page: &Value) -> Vec<i64> {
    let notifications = page["notifications"].as_array().unwrap().iter();
    notifications.map(|n| n["id"].as_i64().unwrap()).collect()
}

async fn audited(database: &TestDatabase) -> Vec<(String, String, String, Value)> {
    sqlx::query_as("SELECT actor, action, subject, detail FROM audit_records ORDER BY audit_id")
        .fetch_all(&database.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_player_sees_what_they_were_told_newest_first() {
    let api = api().await;
    let token = api.player("C1");
    let none = api.get_as(&token, PATH).await;
    assert_eq!(none.body, json!({ "user_id": "C1", "notifications": [] }));
    tell(&api, "C1", 2).await;
    tell(&api, "C2", 1).await;
    let mut list = api.get_as(&token, PATH).await.body;
    for told in list["notifications"].as_array_mut().unwrap() {
        let at = told.as_object_mut().unwrap().remove("createdAt").unwrap();
        assert!(chrono::DateTime::parse_from_rfc3339(at.as_str().unwrap()).is_ok());
    }
    assert_eq!(
        list,
        json!({
            "user_id": "C1",
            "notifications": [
                { "id": 2, "type": "PROMOTION", "content": { "n": 2 }, "read": false },
                { "id": 1, "type": "PROMOTION", "content": { "n": 1 }, "read": false }
            ]
        })
    );
    assert_eq!(ids(&api.get_as(&api.player("C2"), PATH).await.body), [1]);
}

#[tokio::test]
async fn pages_lead_through_all_of_it_whatever_comes_and_is_read_meanwhile() {
    let api = api().await;
    let token = api.player("C1");
    tell(&api, "C1", 25).await;
    for (limit, unread) in [(1, false), (7, true), (25, false), (100, true)] {
        let mut path = format!("{PATH}?limit={limit}&unread={unread}");
        let mut seen = Vec::new();
        loop {
            let page = api.get_as(&token, &path).await;
            assert_eq!(page.status, 200, "{path}: {}", page.body);
            let on_page = ids(&page.body);
            assert!(on_page.len() <= limit);
            seen.extend(on_page);
            tell(&api, "C1", 1).await;
            match page.body["next"].as_str() {
                Some(next) => next.clone_into(&mut path),
                None => break,
            }
        }
        seen.retain(|id| *id <= 25);
        let expected: Vec<i64> = (1..=25).rev().collect();
        assert_eq!(seen, expected, "{limit}, {unread}");
    }
    // Where a page begins, is told only of this player's list.
    let page = api.get_as(&token, &format!("{PATH}?limit=1")).await;
    let next = page.body["next"].as_str().unwrap();
    let others = api.get_as(&api.player("C2"), next).await;
    assert_eq!(others.problem(), (400, "INVALID_PARAMETER"));
    for query in ["limit=0", "limit=101", "unread=maybe", "cursor=x", "page=1"] {
        let answer = api.get_as(&token, &format!("{PATH}?{query}")).await;
        assert_eq!(answer.problem(), (400, "INVALID_PARAMETER"), "{query}");
    }
}

#[tokio::test]
async fn what_is_read_is_marked_once_and_recorded() {
    let database = store::testing::database().await;
    let api = crate::support::api_on(&database, |text| text);
    let token = api.player("C1");
    tell(&api, "C1", 4).await;
    tell(&api, "C2", 1).await;
    let post = async |path: &str, key: &str| {
        let path = format!("{PATH}/{path}");
        api.post_as(&token, &path, key, &json!({})).await
    };
    let unread = async || {
        let list = api.get_as(&token, &format!("{PATH}?unread=true")).await;
        ids(&list.body)
    };
    let read = post("2/read", "a").await;
    assert_eq!(
        (read.status.as_u16(), read.body),
        (200, json!({ "id": 2, "read": true }))
    );
    assert_eq!(unread().await, [4, 3, 1]);
    // The same request again, and another one for what is done.
    let again = post("2/read", "a").await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(post("2/read", "b").await.status, 200);
    assert_eq!(
        post("3/read", "a").await.problem(),
        (422, "IDEMPOTENCY_KEY_REUSED")
    );
    assert_eq!(
        post("3/read", "").await.problem(),
        (400, "IDEMPOTENCY_KEY_MISSING")
    );
    for unknown in ["5", "0", "-1", "x", "2.0", "99999999999999999999"] {
        let answer = post(&format!("{unknown}/read"), "c").await;
        assert_eq!(
            answer.problem(),
            (404, "NOTIFICATION_NOT_FOUND"),
            "{unknown}"
        );
    }
    let all = post("read-all", "d").await;
    assert_eq!(
        (all.status.as_u16(), all.body),
        (200, json!({ "marked": 3 }))
    );
    assert_eq!(unread().await, Vec::<i64>::new());
    tell(&api, "C1", 1).await;
    // What came after the request that is repeated stays unread.
    assert_eq!(post("read-all", "d").await.body, json!({ "marked": 3 }));
    assert_eq!(unread().await, [5]);
    assert_eq!(post("read-all", "e").await.body, json!({ "marked": 1 }));
    assert_eq!(post("read-all", "f").await.body, json!({ "marked": 0 }));
    let list = api.get_as(&token, PATH).await;
    assert!(
        list.body["notifications"]
            .as_array()
            .unwrap()
            .iter()
            .all(|n| n["read"] == true)
    );
    let others = api
        .get_as(&api.player("C2"), &format!("{PATH}?unread=true"))
        .await;
    assert_eq!(ids(&others.body), [1]);

    let record = audited(&database).await;
    let what: Vec<_> = record
        .iter()
        .map(|(_, action, subject, detail)| (action.as_str(), subject.as_str(), detail.clone()))
        .collect();
    assert_eq!(
        what,
        [
            ("notification.read", "C1", json!({ "notificationId": 2 })),
            ("notification.read-all", "C1", json!({ "marked": 3 })),
            ("notification.read-all", "C1", json!({ "marked": 1 })),
        ]
    );
    assert!(record.iter().all(|(actor, ..)| actor.ends_with(" C1")));
}
