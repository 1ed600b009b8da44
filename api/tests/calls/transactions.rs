//! The history of a customer's points.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::api;

const PATH: &str = "/api/v1/customers/C1/transactions";

fn ids(page: &Value) -> Vec<String> {
    let transactions = page["transactions"].as_array().unwrap();
    let ids = transactions.iter().map(|t| t["eventId"].as_str().unwrap());
    ids.map(str::to_owned).collect()
}

#[tokio::test]
async fn each_change_is_told_with_its_signs_and_the_balance_after_it() {
    let api = api().await;
    api.stays("C1", &[("E1", 10)]).await;
    api.redeem("R1", "C1", 250).await;
    let page = api.get(PATH).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    assert!(page.body.get("next").is_none());
    let mut changes = page.body["transactions"].as_array().unwrap().clone();
    for change in &mut changes {
        let change = change.as_object_mut().unwrap();
        assert!(change.remove("transactionId").unwrap().is_string());
        assert!(change.remove("postedAt").unwrap().is_string());
        let version = change.remove("ruleSetVersion");
        assert_eq!(version.is_some(), change["leg"] == "award");
        if change["leg"] == "hold" {
            change.remove("occurredAt").unwrap();
        }
    }
    assert_eq!(
        Value::from(changes),
        json!([
            {
                "source": "redeem", "eventId": "R1", "leg": "hold", "reason": "REDEMPTION",
                "points": -250, "held": 250, "balanceAfter": 750, "heldAfter": 250,
                "merchantId": "M1"
            },
            {
                "source": "reward-event", "eventId": "E1", "leg": "award", "reason": "HOTEL_STAY",
                "points": 1000, "held": 0, "balanceAfter": 1000, "heldAfter": 0,
                "occurredAt": "2026-03-14T10:00:00Z"
            }
        ])
    );
}

#[tokio::test]
async fn pages_lead_through_all_of_it_whatever_comes_meanwhile() {
    let api = api().await;
    let events: Vec<String> = (0..25).map(|n| format!("E{n:02}")).collect();
    for event in &events {
        api.stays("C1", &[(event, 1)]).await;
    }
    for limit in [1, 7, 20, 25, 100] {
        let mut path = format!("{PATH}?limit={limit}");
        let mut seen = Vec::new();
        let mut pages = 0;
        loop {
            let page = api.get(&path).await;
            assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.body);
            let on_page = ids(&page.body);
            assert!(on_page.len() <= limit);
            seen.extend(on_page);
            pages += 1;
            // It comes before the first page.
            api.stays("C1", &[(&format!("later-{limit}-{pages}"), 1)])
                .await;
            match page.body["next"].as_str() {
                Some(next) => next.clone_into(&mut path),
                None => break,
            }
        }
        let first: Vec<String> = seen
            .iter()
            .filter(|id| id.starts_with('E'))
            .cloned()
            .collect();
        let expected: Vec<String> = events.iter().rev().cloned().collect();
        assert_eq!(first, expected, "limit {limit}");
        let mut once = seen.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), seen.len(), "none twice");
    }
}

#[tokio::test]
async fn the_newest_page_comes_from_a_copy_with_the_same_words() {
    let api = api().await;
    api.stays("C1", &[("E1", 1), ("E2", 2)]).await;
    let first = api.get(PATH).await;
    assert_eq!(first.cache_status(), "fwd=miss");
    let copy = api.get(PATH).await;
    assert_eq!((copy.cache_status(), &copy.body), ("hit", &first.body));
    let one = api.get(&format!("{PATH}?limit=1")).await;
    assert_eq!(
        (one.cache_status(), ids(&one.body)),
        ("hit", vec!["E2".to_owned()])
    );
    let next = api.get(one.body["next"].as_str().unwrap()).await;
    assert_eq!(ids(&next.body), ["E1"]);
    api.redeem("R1", "C1", 50).await;
    assert_eq!(ids(&api.get(PATH).await.body), ["R1", "E2", "E1"]);
}

#[tokio::test]
async fn only_what_is_within_reach_is_told() {
    let api = api().await;
    api.stays("C1", &[("E1", 10)]).await;
    api.stays("C2", &[("E2", 10)]).await;
    api.redeem("R1", "C1", 250).await;
    let of = async |token: &str, path: &str| api.get_as(token, path).await;
    let own = of(&api.player("C1"), PATH).await;
    assert_eq!(ids(&own.body), ["R1", "E1"]);
    let other = of(&api.player("C2"), PATH).await;
    assert_eq!(other.problem(), (403, "CUSTOMER_NOT_ALLOWED"));
    let partner = |merchant| api.token("partner", "rewards.read", &[], Some(merchant));
    let theirs = of(&partner("M1"), PATH).await;
    assert_eq!(theirs.body["transactions"][0]["merchantId"], "M1");
    let not_theirs = of(&partner("M2"), PATH).await;
    let hold = &not_theirs.body["transactions"][0];
    assert!(
        hold.get("merchantId").is_none() && hold.get("eventId").is_none(),
        "{hold}"
    );
    assert_eq!(hold["points"], -250);

    let of_c2 = api.get("/api/v1/customers/C2/transactions").await;
    assert_eq!(ids(&of_c2.body), ["E2"]);
    let page = api.get(&format!("{PATH}?limit=1")).await;
    let next = page.body["next"].as_str().unwrap().replace("/C1/", "/C2/");
    assert_eq!(api.get(&next).await.problem(), (400, "INVALID_PARAMETER"));
    for query in [
        "limit=0",
        "limit=101",
        "limit=x",
        "cursor=x",
        "cursor=",
        "page=1",
    ] {
        let answer = api.get(&format!("{PATH}?{query}")).await;
        assert_eq!(answer.problem(), (400, "INVALID_PARAMETER"), "{query}");
    }
    for path in [
        "/api/v1/customers/nobody/transactions",
        "/api/v1/customers/nobody/transactions?limit=50",
    ] {
        assert_eq!(api.get(path).await.problem(), (404, "CUSTOMER_NOT_FOUND"));
    }
}
