//! Promotions: made, listed, assigned, claimed.

use axum::http::StatusCode;
use domain::{AssignmentJobId, promotion::PLAYERS_MAX};
use serde_json::{Value, json};
use store::assignments;

use crate::support::{Answer, Api, api, api_on};

fn welcome() -> Value {
    json!({
        "title": "Welcome", "description": "To begin with", "type": "WELCOME_BONUS",
        "amount": "50.00", "startDate": "2020-01-01", "endDate": "2096-01-01T00:00:00Z"
    })
}

/// `body` with another value of a member.
fn with(mut body: Value, member: &str, value: Value) -> Value {
    body[member] = value;
    body
}

impl Api {
    fn staff(&self) -> String {
        self.token("anna", "", &["staff"], None)
    }

    async fn make(&self, key: &str, body: &Value) -> Answer {
        self.post_as(&self.staff(), "/api/v1/promotions", key, body)
            .await
    }

    /// A promotion of which there may be several: its id.
    async fn promotion(&self, key: &str, amount: &str) -> String {
        let body = with(welcome(), "type", json!("DEPOSIT_MATCH"));
        let made = self.make(key, &with(body, "amount", json!(amount))).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
        made.body["id"].as_str().unwrap().to_owned()
    }

    async fn assign(&self, promotion: &str, key: &str, players: &Value) -> Answer {
        let path = format!("/api/v1/promotions/{promotion}/assign");
        let body = json!({ "playerIds": players });
        self.post_as(&self.staff(), &path, key, &body).await
    }

    /// Assigns a promotion to these players, as the worker does.
    async fn assigned(&self, promotion: &str, key: &str, players: &[&str]) -> String {
        let accepted = self.assign(promotion, key, &json!(players)).await;
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{}", accepted.body);
        let id = accepted.body["jobId"].as_str().unwrap().to_owned();
        let job = AssignmentJobId::new(id).unwrap();
        while assignments::assign_next(&self.pool, &job, 100)
            .await
            .unwrap()
            .left()
            > 0
        {}
        assignments::end(&self.pool, &job).await.unwrap();
        accepted.headers["location"].to_str().unwrap().to_owned()
    }

    async fn claim(&self, player: &str, key: &str, promotion: &str) -> Answer {
        let body = json!({ "promotionId": promotion });
        let token = self.player(player);
        self.post_as(&token, "/api/v1/promotions/claim", key, &body)
            .await
    }

    async fn open(&self, customers: &[&str]) {
        for customer in customers {
            sqlx::query("INSERT INTO customers (customer_id) VALUES ($1)")
                .bind(customer)
                .execute(&self.pool)
                .await
                .unwrap();
        }
    }
}

#[tokio::test]
async fn staff_make_a_promotion_once_for_each_key() {
    let api = api().await;
    let made = api.make("k1", &welcome()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let mut expected = welcome();
    expected["id"] = made.body["id"].clone();
    expected["createdAt"] = made.body["createdAt"].clone();
    expected["amount"] = json!("50");
    expected["startDate"] = json!("2020-01-01T00:00:00Z");
    expected["isActive"] = json!(true);
    assert_eq!(made.body, expected);
    let again = api.make("k1", &welcome()).await;
    assert_eq!(again.body, made.body);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(api.count("SELECT count(*) FROM promotions").await, 1);
    let audited = "SELECT count(*) FROM audit_records WHERE action = 'promotion.create'";
    assert_eq!(api.count(audited).await, 1);
}

#[tokio::test]
async fn exclusive_types_do_not_overlap() {
    let api = api().await;
    let first = api.make("k1", &welcome()).await;
    let overlaps = api.make("k2", &welcome()).await;
    assert_eq!(overlaps.problem(), (409, "PROMOTION_OVERLAPS"));
    let detail = overlaps.body["detail"].as_str().unwrap();
    assert!(
        detail.contains(first.body["id"].as_str().unwrap()),
        "{detail}"
    );
    // The refusal is the answer to its key, also when the way is free by now.
    sqlx::query("UPDATE promotions SET is_active = false")
        .execute(&api.pool)
        .await
        .unwrap();
    let kept = api.make("k2", &welcome()).await;
    assert_eq!(kept.problem(), (409, "PROMOTION_OVERLAPS"));
    assert_eq!(api.make("k3", &welcome()).await.status, StatusCode::CREATED);
    let idle = with(welcome(), "isActive", json!(false));
    assert_eq!(api.make("k4", &idle).await.status, StatusCode::CREATED);
    for key in ["k5", "k6"] {
        api.promotion(key, "5").await;
    }
}

#[tokio::test]
async fn of_two_replicas_and_many_requests_one_makes_an_exclusive_promotion() {
    let database = store::testing::database().await;
    let replicas = [
        api_on(&database, |text| text),
        api_on(&database, |text| text),
    ];
    let all = (0..20).map(|n: usize| {
        let api = &replicas[n % 2];
        async move { api.make(&format!("k{n}"), &welcome()).await.status }
    });
    let all = futures::future::join_all(all).await;
    let made = all.iter().filter(|status| **status == StatusCode::CREATED);
    assert_eq!(made.count(), 1, "{all:?}");
    let refused = all.iter().filter(|status| **status == StatusCode::CONFLICT);
    assert_eq!(refused.count(), 19, "{all:?}");
}

#[tokio::test]
async fn a_promotion_that_makes_no_sense_is_refused() {
    let api = api().await;
    for (member, value, code) in [
        ("amount", json!("0"), "INVALID_AMOUNT"),
        ("amount", json!(-1), "INVALID_AMOUNT"),
        ("amount", json!("0.99"), "INVALID_AMOUNT"),
        ("amount", json!("1e18"), "INVALID_AMOUNT"),
        ("amount", json!("0.0000000001"), "INVALID_AMOUNT"),
        ("amount", json!("ten"), "INVALID_AMOUNT"),
        ("amount", json!(true), "INVALID_AMOUNT"),
        ("currency", json!("euro"), "UNKNOWN_CURRENCY"),
        ("currency", json!("CHF"), "UNKNOWN_CURRENCY"),
        ("type", json!("welcome"), "INVALID_BODY"),
        ("title", json!(""), "INVALID_BODY"),
        ("title", json!("x".repeat(121)), "INVALID_BODY"),
        ("description", json!("x".repeat(2_001)), "INVALID_BODY"),
        ("description", json!("a\u{0}b"), "INVALID_BODY"),
        ("startDate", json!("soon"), "INVALID_TIMESTAMP"),
        ("endDate", json!("2020-01-01"), "INVALID_TIMESTAMP"),
        ("isActive", json!("yes"), "INVALID_BODY"),
        ("owner", json!("anna"), "INVALID_BODY"),
    ] {
        let body = with(welcome(), member, value);
        let answer = api.make("k", &body).await;
        assert_eq!(answer.problem(), (400, code), "{body}: {}", answer.body);
    }
    for missing in ["title", "type", "amount", "startDate", "endDate"] {
        let mut body = welcome();
        body.as_object_mut().unwrap().remove(missing);
        assert_eq!(api.make("k", &body).await.problem(), (400, "INVALID_BODY"));
    }
    assert_eq!(
        api.make("", &welcome()).await.code(),
        "IDEMPOTENCY_KEY_MISSING"
    );
    assert_eq!(api.count("SELECT count(*) FROM promotions").await, 0);
    let number = with(welcome(), "amount", json!(12.5));
    let number = with(number, "currency", json!("EUR"));
    let made = api.make("k", &number).await;
    assert_eq!(
        (&made.body["amount"], &made.body["currency"]),
        (&json!("12.5"), &json!("EUR"))
    );
}

#[tokio::test]
async fn promotions_are_listed_by_filters_and_pages() {
    let api = api().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(api.promotion(&format!("k{n}"), "5").await);
    }
    let early = with(welcome(), "endDate", json!("2021-01-01"));
    let early = api.make("k5", &early).await.body["id"].clone();
    ids.reverse();
    let staff = api.staff();
    let mut seen = Vec::new();
    let mut next = Some("/api/v1/promotions?type=DEPOSIT_MATCH&active=true&limit=2".to_owned());
    while let Some(path) = next {
        let page = api.get_as(&staff, &path).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        let promotions = page.body["promotions"].as_array().unwrap();
        assert!(promotions.len() <= 2);
        seen.extend(
            promotions
                .iter()
                .map(|p| p["id"].as_str().unwrap().to_owned()),
        );
        next = page.body["next"].as_str().map(str::to_owned);
    }
    assert_eq!(seen, ids);
    let count = async |query: &str| {
        let path = format!("/api/v1/promotions?{query}");
        let page = api.get_as(&staff, &path).await;
        page.body["promotions"].as_array().unwrap().len()
    };
    assert_eq!(count("").await, 6);
    assert_eq!(count("at=2020-06-01").await, 6);
    assert_eq!(count("at=2021-01-01").await, 5);
    assert_eq!(count("active=false").await, 0);
    let page = api
        .get_as(&staff, "/api/v1/promotions?type=WELCOME_BONUS")
        .await;
    assert_eq!(page.body["promotions"][0]["id"], early);
    for wrong in [
        "type=welcome",
        "active=perhaps",
        "at=soon",
        "limit=0",
        "limit=101",
        "cursor=x",
        "colour=red",
    ] {
        let path = format!("/api/v1/promotions?{wrong}");
        let answer = api.get_as(&staff, &path).await;
        assert_eq!(answer.problem(), (400, "INVALID_PARAMETER"), "{wrong}");
    }
}

#[tokio::test]
async fn a_promotion_is_assigned_by_a_job_that_is_looked_at() {
    let api = api().await;
    api.open(&["C1", "C2", "C3"]).await;
    let promotion = api.promotion("k1", "5").await;
    let accepted = api
        .assign(&promotion, "k2", &json!(["C1", "C9", "C1", "C2", "C8"]))
        .await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{}", accepted.body);
    assert_eq!(
        accepted.body["players"], 4,
        "somebody named twice counts once"
    );
    assert_eq!(accepted.body["status"], "QUEUED");
    let location = accepted.headers["location"].to_str().unwrap().to_owned();
    let again = api
        .assign(&promotion, "k2", &json!(["C1", "C9", "C1", "C2", "C8"]))
        .await;
    assert_eq!(again.body, accepted.body);
    assert_eq!(api.count("SELECT count(*) FROM assignment_jobs").await, 1);

    let job = AssignmentJobId::new(accepted.body["jobId"].as_str().unwrap()).unwrap();
    assignments::assign_next(&api.pool, &job, 2).await.unwrap();
    let staff = api.staff();
    let seen = api.get_as(&staff, &location).await;
    assert_eq!(seen.status, StatusCode::OK, "{}", seen.body);
    let numbers = [
        "players", "done", "assigned", "already", "unknown", "notDone",
    ];
    let counts = |body: &Value| numbers.map(|name| body[name].as_i64().unwrap());
    assert_eq!(seen.body["status"], "RUNNING");
    assert_eq!(counts(&seen.body), [4, 2, 1, 0, 1, 2]);
    assert_eq!(seen.body["unknownPlayers"], json!(["C9"]));

    let cancelled = api
        .post_as(&staff, &format!("{location}/cancel"), "k3", &Value::Null)
        .await;
    assert_eq!(cancelled.status, StatusCode::ACCEPTED, "{}", cancelled.body);
    assignments::assign_next(&api.pool, &job, 2).await.unwrap();
    assignments::end(&api.pool, &job).await.unwrap();
    let seen = api.get_as(&staff, &location).await;
    assert_eq!(seen.body["status"], "CANCELLED");
    assert_eq!(counts(&seen.body), [4, 2, 1, 0, 1, 2]);
    assert!(seen.body["endedAt"].is_string());
    let late = api
        .post_as(&staff, &format!("{location}/cancel"), "k4", &Value::Null)
        .await;
    assert_eq!(late.problem(), (409, "ALREADY_ENDED"));

    let location = api
        .assigned(&promotion, "k5", &["C7", "C1", "C6", "C2"])
        .await;
    let first = api.get_as(&staff, &format!("{location}?limit=1")).await;
    assert_eq!(counts(&first.body), [4, 4, 1, 1, 2, 0]);
    assert_eq!(first.body["unknownPlayers"], json!(["C7"]));
    let next = first.body["next"].as_str().unwrap();
    let second = api.get_as(&staff, next).await;
    assert_eq!(second.body["unknownPlayers"], json!(["C6"]));
    assert!(second.body.get("next").is_none());
    let nobody = api.get_as(&staff, "/api/v1/promotions/jobs/none").await;
    assert_eq!(nobody.problem(), (404, "ASSIGNMENT_JOB_NOT_FOUND"));
    let nothing = api
        .post_as(
            &staff,
            "/api/v1/promotions/jobs/none/cancel",
            "k6",
            &Value::Null,
        )
        .await;
    assert_eq!(nothing.problem(), (404, "ASSIGNMENT_JOB_NOT_FOUND"));
    let actions = "SELECT count(*) FROM audit_records WHERE action LIKE 'promotion.assign%'";
    assert_eq!(api.count(actions).await, 3);
}

#[tokio::test]
async fn as_many_as_may_be_are_assigned_and_no_more() {
    let api = api().await;
    let promotion = api.promotion("k1", "5").await;
    // The longest ids that there are.
    let ids: Vec<String> = (0..=PLAYERS_MAX).map(|n| format!("{n:0>128}")).collect();
    let most = api
        .assign(&promotion, "k2", &json!(ids[..PLAYERS_MAX]))
        .await;
    assert_eq!(most.status, StatusCode::ACCEPTED, "{}", most.body);
    let players = "SELECT count(*) FROM assignment_job_players";
    assert_eq!(api.count(players).await, 10_000);
    for (players, code) in [
        (json!(ids), "INVALID_BODY"),
        (json!([]), "INVALID_BODY"),
        (json!("C1"), "INVALID_BODY"),
        (json!(["C1", ""]), "INVALID_ID"),
        (json!(["x".repeat(129)]), "INVALID_ID"),
        (json!(["a\u{0}"]), "INVALID_ID"),
    ] {
        let answer = api.assign(&promotion, "k3", &players).await;
        assert_eq!(answer.problem(), (400, code), "{}", answer.body);
    }
    let large = api
        .assign(&promotion, "k3", &json!(["x".repeat(2_200_000)]))
        .await;
    assert_eq!(large.problem(), (413, "PAYLOAD_TOO_LARGE"));
    // Elsewhere, and for whoever is not known, the limit is what it is.
    let large = with(welcome(), "description", json!("x".repeat(70_000)));
    assert_eq!(
        api.make("k4", &large).await.problem(),
        (413, "PAYLOAD_TOO_LARGE")
    );
    let path = format!("/api/v1/promotions/{promotion}/assign");
    let body = json!({ "playerIds": ids[..1_000] });
    let unknown = api.post_as("nonsense", &path, "k5", &body).await;
    assert_eq!(unknown.problem(), (413, "PAYLOAD_TOO_LARGE"));
}

#[tokio::test]
async fn what_has_ended_or_is_not_active_is_not_assigned() {
    let api = api().await;
    let ended = with(welcome(), "endDate", json!("2021-01-01"));
    let idle = with(welcome(), "isActive", json!(false));
    let future = with(welcome(), "startDate", json!("2095-01-01"));
    for (key, body, expected) in [
        ("k1", ended, Some("PROMOTION_ENDED")),
        ("k2", idle, Some("PROMOTION_INACTIVE")),
        ("k3", future, None),
    ] {
        let made = api.make(key, &body).await;
        let id = made.body["id"].as_str().unwrap();
        let answer = api
            .assign(id, &format!("{key}-assign"), &json!(["C1"]))
            .await;
        match expected {
            Some(code) => assert_eq!(answer.problem(), (409, code)),
            None => assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body),
        }
    }
    let answer = api.assign("none", "k4", &json!(["C1"])).await;
    assert_eq!(answer.problem(), (404, "PROMOTION_NOT_FOUND"));
}

#[tokio::test]
async fn a_player_claims_once_and_sees_it() {
    let api = api().await;
    api.open(&["C1", "C2"]).await;
    let promotion = api.promotion("k1", "600.75").await;
    api.assigned(&promotion, "k2", &["C1"]).await;
    let list = api
        .get_as(&api.player("C1"), "/api/v1/promotions/players/C1")
        .await;
    assert_eq!(list.body["playerId"], "C1");
    assert_eq!(list.body["promotions"][0]["id"], promotion.as_str());
    assert_eq!(list.body["promotions"][0]["status"], "UNCLAIMED");
    assert_eq!(list.body["promotions"][0]["canBeClaimed"], true);

    let claimed = api.claim("C1", "k3", &promotion).await;
    assert_eq!(claimed.status, StatusCode::ACCEPTED, "{}", claimed.body);
    assert_eq!(
        claimed.body,
        json!({ "promotionId": promotion, "playerId": "C1", "status": "CLAIMED", "points": 600 })
    );
    let again = api.claim("C1", "k3", &promotion).await;
    assert_eq!(again.body, claimed.body);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let other = api.claim("C1", "k4", &promotion).await;
    assert_eq!(other.problem(), (409, "PROMOTION_ALREADY_CLAIMED"));
    // The answer was lost with its process: whoever repeats the request hears that it was done.
    let forget = "UPDATE idempotency_keys SET response_status = NULL, response_body = NULL,
                response_headers = NULL, locked_until = clock_timestamp() WHERE key = 'k3'";
    sqlx::query(forget).execute(&api.pool).await.unwrap();
    let repeated = api.claim("C1", "k3", &promotion).await;
    assert_eq!(repeated.status, StatusCode::ACCEPTED, "{}", repeated.body);
    assert_eq!(repeated.body, claimed.body);
    let balance = api.get_as(&api.player("C1"), "/api/v1/loyalty").await;
    assert_eq!(balance.body["currentPoints"], 600);
    let list = api
        .get_as(&api.staff(), "/api/v1/promotions/players/C1")
        .await;
    assert_eq!(list.body["promotions"][0]["status"], "CLAIMED");
    assert_eq!(list.body["promotions"][0]["points"], 600);
    assert_eq!(list.body["promotions"][0]["canBeClaimed"], false);
    let audited = "SELECT count(*) FROM audit_records WHERE action = 'promotion.claim'";
    assert_eq!(api.count(audited).await, 1);

    // Of others it is not said whether there is such a promotion.
    for (player, key) in [("C2", "k5"), ("C9", "k6")] {
        let answer = api.claim(player, key, &promotion).await;
        assert_eq!(answer.problem(), (404, "PROMOTION_NOT_FOUND"));
    }
    let answer = api.claim("C1", "k7", "none").await;
    assert_eq!(answer.problem(), (404, "PROMOTION_NOT_FOUND"));
    let others = api
        .get_as(&api.player("C2"), "/api/v1/promotions/players/C1")
        .await;
    assert_eq!(others.problem(), (403, "CUSTOMER_NOT_ALLOWED"));
    let nothing = api
        .get_as(&api.player("C2"), "/api/v1/promotions/players/C2")
        .await;
    assert_eq!(nothing.body, json!({ "playerId": "C2", "promotions": [] }));
}

#[tokio::test]
async fn a_players_promotions_come_in_pages() {
    let api = api().await;
    api.open(&["C1"]).await;
    let mut ids = Vec::new();
    for n in 0..3 {
        let id = api.promotion(&format!("k{n}"), "5").await;
        api.assigned(&id, &format!("a{n}"), &["C1"]).await;
        ids.push(id);
    }
    ids.reverse();
    let player = api.player("C1");
    let mut seen = Vec::new();
    let mut next = Some("/api/v1/promotions/players/C1?limit=2".to_owned());
    while let Some(path) = next {
        let page = api.get_as(&player, &path).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        let promotions = page.body["promotions"].as_array().unwrap();
        seen.extend(
            promotions
                .iter()
                .map(|p| p["id"].as_str().unwrap().to_owned()),
        );
        next = page.body["next"].as_str().map(str::to_owned);
    }
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn what_does_not_hold_or_gives_nothing_is_not_claimed() {
    let api = api().await;
    api.open(&["C1"]).await;
    let promotion = api.promotion("k1", "5").await;
    api.assigned(&promotion, "k2", &["C1"]).await;
    for (change, key, code) in [
        (
            "UPDATE promotions SET starts_at = '2095-01-01'",
            "k3",
            "PROMOTION_NOT_STARTED",
        ),
        (
            "UPDATE promotions SET starts_at = '2020-01-01', ends_at = '2021-01-01'",
            "k4",
            "PROMOTION_ENDED",
        ),
        (
            "UPDATE promotions SET ends_at = '2096-01-01', is_active = false",
            "k5",
            "PROMOTION_INACTIVE",
        ),
        (
            "UPDATE promotions SET is_active = true, amount = 0.5",
            "k6",
            "CLAIM_REFUSED",
        ),
    ] {
        sqlx::query(change).execute(&api.pool).await.unwrap();
        let answer = api.claim("C1", key, &promotion).await;
        assert_eq!(answer.problem(), (409, code), "{}", answer.body);
    }
    let list = api
        .get_as(&api.player("C1"), "/api/v1/promotions/players/C1")
        .await;
    assert_eq!(list.body["promotions"][0]["status"], "UNCLAIMED");
    assert_eq!(list.body["promotions"][0]["refusal"], "NO_POINTS");
    assert_eq!(api.count("SELECT count(*) FROM transfers").await, 0);
}

#[tokio::test]
async fn a_hundred_claims_at_once_over_two_replicas_credit_once() {
    let database = store::testing::database().await;
    let unlimited = |text: String| {
        text.replace(
            "capacity = 1000, refill_per_second = 500, max_concurrent = 256",
            "capacity = 1000, refill_per_second = 500, max_concurrent = 1000",
        )
    };
    let replicas = [api_on(&database, unlimited), api_on(&database, unlimited)];
    let api = &replicas[0];
    api.open(&["C1"]).await;
    let promotion = api.promotion("k1", "10").await;
    api.assigned(&promotion, "k2", &["C1"]).await;
    let all = (0..100).map(|n: usize| {
        let (api, promotion) = (&replicas[n % 2], &promotion);
        async move { api.claim("C1", &format!("claim-{n}"), promotion).await }
    });
    for answer in futures::future::join_all(all).await {
        match answer.status {
            StatusCode::ACCEPTED => assert_eq!(answer.body["status"], "CLAIMED"),
            _ => assert_eq!(answer.problem(), (409, "PROMOTION_ALREADY_CLAIMED")),
        }
    }
    assert_eq!(api.count("SELECT available FROM customers").await, 10);
    assert_eq!(api.count("SELECT count(*) FROM transfers").await, 1);
}
