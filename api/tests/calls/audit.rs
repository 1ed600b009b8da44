//! The audit record: written with each change, read by those who work for the programme.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Api, api, stay};

const PATH: &str = "/api/v1/audit";

async fn page(api: &Api, path: &str) -> Value {
    let staff = api.token("anna", "", &["staff"], None);
    let answer = api.get_as(&staff, path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
    answer.body
}

fn subjects(page: &Value) -> Vec<&str> {
    let records = page["records"].as_array().unwrap();
    records
        .iter()
        .map(|r| r["subject"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn staff_find_who_did_what_when_and_from_where() {
    let api = api().await;
    api.stays("C1", &[("E1", 10)]).await;
    for id in ["R1", "R2", "R3"] {
        assert_eq!(api.redeem(id, "C1", 10).await.status, StatusCode::ACCEPTED);
    }
    api.post("/api/v1/rewards/events", "k1", &stay("E9", "C1", 1))
        .await;
    let player = api.player("C1");
    let headers = [("idempotency-key", "k2"), ("x-request-id", "the-request")];
    let cancelled = api
        .send(
            Method::POST,
            "/api/v1/redeem/R2/cancel",
            Some(&player),
            &headers,
            "",
        )
        .await;
    assert_eq!(cancelled.status, StatusCode::ACCEPTED, "{}", cancelled.body);

    let all = page(&api, PATH).await;
    assert_eq!(
        subjects(&all),
        ["R2", "E9", "R3", "R2", "R1"],
        "newest first"
    );
    let newest = &all["records"][0];
    assert_eq!(newest["action"], "redeem.cancel");
    assert_eq!(newest["actor"], "http://127.0.0.1:21000 C1");
    assert_eq!(newest["requestId"], "the-request");
    assert_eq!(all["records"][1]["detail"]["customerId"], "C1");
    assert!(all.get("next").is_none());

    let actor = "actor=http%3A%2F%2F127.0.0.1%3A21000+client";
    for (query, expected) in [
        ("action=redeem.request", vec!["R3", "R2", "R1"]),
        (actor, vec!["E9", "R3", "R2", "R1"]),
        ("subject=R2", vec!["R2", "R2"]),
        ("subject=R2&action=redeem.cancel", vec!["R2"]),
        ("subject=nothing", vec![]),
        ("to=2020-01-01", vec![]),
        ("from=2020-01-01", vec!["R2", "E9", "R3", "R2", "R1"]),
        ("from=2999-01-01", vec![]),
    ] {
        let found = page(&api, &format!("{PATH}?{query}")).await;
        assert_eq!(subjects(&found), expected, "{query}");
    }
    let third = all["records"][2]["at"].as_str().unwrap();
    let since = page(&api, &format!("{PATH}?from={third}")).await;
    assert_eq!(subjects(&since), ["R2", "E9", "R3"]);
    let until = page(&api, &format!("{PATH}?to={third}")).await;
    assert_eq!(subjects(&until), ["R2", "R1"]);
}

#[tokio::test]
async fn pages_lead_through_all_of_it_also_where_instants_are_the_same() {
    let api = api().await;
    sqlx::query(
        "INSERT INTO audit_records (at, actor, action, subject, request_id)
         SELECT timestamptz '2026-03-14' + (n / 4) * interval '1 microsecond', 'a', 'b', 'S' || n, 'r'
         FROM generate_series(0, 29) AS n",
    )
    .execute(&api.pool)
    .await
    .unwrap();
    let mut path = format!("{PATH}?actor=a&limit=7");
    let mut seen = Vec::new();
    loop {
        let page = page(&api, &path).await;
        seen.extend(subjects(&page).into_iter().map(str::to_owned));
        let newer = "INSERT INTO audit_records (actor, action, subject, request_id)
                     VALUES ('a', 'b', 'newer', 'r')";
        sqlx::query(newer).execute(&api.pool).await.unwrap();
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut path),
            None => break,
        }
    }
    let expected: Vec<String> = (0..30).rev().map(|n| format!("S{n}")).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn nobody_else_reads_it() {
    let api = api().await;
    let admin = api.token("root", "", &["admin"], None);
    assert_eq!(api.get_as(&admin, PATH).await.status, StatusCode::OK);
    for token in [api.client(), api.player("C1")] {
        assert_eq!(
            api.get_as(&token, PATH).await.problem(),
            (403, "INSUFFICIENT_ROLE")
        );
    }
    let none = api.send(Method::GET, PATH, None, &[], "").await;
    assert_eq!(none.problem(), (401, "UNAUTHENTICATED"));
    for query in [
        "limit=0",
        "limit=101",
        "cursor=x",
        "from=soon",
        "from=2026-02-01&to=2026-01-01",
        "who=me",
        "subject=a%00b",
    ] {
        let answer = api.get_as(&admin, &format!("{PATH}?{query}")).await;
        assert_eq!(answer.problem(), (400, "INVALID_PARAMETER"), "{query}");
    }
}

/// What cannot be recorded does not happen.
#[tokio::test]
async fn a_change_and_its_record_are_one() {
    let api = api().await;
    api.stays("C1", &[("E1", 10)]).await;
    api.redeem("R1", "C1", 10).await;
    let (callback,): (String,) = sqlx::query_as("SELECT callback_id FROM redemptions")
        .fetch_one(&api.pool)
        .await
        .unwrap();
    let acknowledgement = "a".repeat(48);
    sqlx::query(
        "INSERT INTO callbacks (callback_id, kind, workflow_id, subject, expires_at)
         VALUES ($1, 'TIER_UPGRADE', 'w', '1', clock_timestamp() + interval '1 hour')",
    )
    .bind(&acknowledgement)
    .execute(&api.pool)
    .await
    .unwrap();
    let everything = "SELECT (SELECT count(*) FROM redemptions) * 1000
        + (SELECT count(*) FROM redemptions WHERE cancel_requested_at IS NOT NULL) * 100
        + (SELECT count(*) FROM redemptions WHERE partner_verdict IS NOT NULL) * 100
        + (SELECT count(*) FROM callbacks WHERE answer IS NOT NULL) * 100
        + (SELECT count(*) FROM outbox) + (SELECT count(*) FROM accepted_events)
        + (SELECT count(*) FROM idempotency_keys)";
    let before = api.count(everything).await;
    sqlx::raw_sql(
        "CREATE FUNCTION refuse_record() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'no record today'; END $$;
         CREATE TRIGGER refuse_record BEFORE INSERT ON audit_records
             FOR EACH ROW EXECUTE FUNCTION refuse_record()",
    )
    .execute(&api.pool)
    .await
    .unwrap();

    let refused = |answer: crate::support::Answer, what: &str| {
        assert_eq!(answer.problem(), (500, "INTERNAL"), "{what}");
        assert!(
            !answer.body.to_string().contains("today"),
            "{}",
            answer.body
        );
    };
    refused(api.redeem("R2", "C1", 10).await, "redeem");
    refused(
        api.post("/api/v1/redeem/R1/cancel", "k1", &json!({})).await,
        "cancel",
    );
    let spent = api
        .post_as(&api.player("C1"), "/loyalty", "k2", &json!({ "points": 1 }))
        .await;
    refused(spent, "loyalty");
    refused(
        api.post("/api/v1/rewards/events", "k3", &stay("E9", "C1", 1))
            .await,
        "event",
    );
    let path = format!("/api/v1/callbacks/{acknowledgement}/success");
    refused(api.post(&path, "", &json!({})).await, "callback");
    let now = chrono::Utc::now().timestamp();
    let body = r#"{"status":"CONFIRMED"}"#;
    let signed = activities::signature::sign(b"dev-key-M1", now, body.as_bytes());
    let headers = [
        ("meed-timestamp", &*now.to_string()),
        ("meed-signature", &signed),
    ];
    let path = format!("/api/v1/partner-callbacks/{callback}");
    refused(
        api.send(Method::POST, &path, None, &headers, body).await,
        "partner callback",
    );
    assert_eq!(api.count(everything).await, before, "nothing happened");

    // With the record there again, all of them happen.
    sqlx::query("DROP TRIGGER refuse_record ON audit_records")
        .execute(&api.pool)
        .await
        .unwrap();
    let recorded = api.count("SELECT count(*) FROM audit_records").await;
    api.redeem("R2", "C1", 10).await;
    api.post("/api/v1/redeem/R2/cancel", "k1", &json!({})).await;
    api.post_as(&api.player("C1"), "/loyalty", "k2", &json!({ "points": 1 }))
        .await;
    api.post("/api/v1/rewards/events", "k3", &stay("E9", "C1", 1))
        .await;
    let path = format!("/api/v1/callbacks/{acknowledgement}/success");
    api.post(&path, "", &json!({})).await;
    let path = format!("/api/v1/partner-callbacks/{callback}");
    api.send(Method::POST, &path, None, &headers, body).await;
    assert_eq!(
        api.count("SELECT count(*) FROM audit_records").await,
        recorded + 6
    );
}
