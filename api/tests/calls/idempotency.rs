//! One effect and one answer, however often and wherever a request comes at once.

use std::{sync::Arc, time::Duration};

use axum::http::{Method, StatusCode};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{Answer, Api, api_on, stay};

/// How many come at once.
const TIMES: usize = 200;
/// How often one that is told to try again does so.
const TRIES_MAX: usize = 200;

/// Two replicas over one database, which take as much as comes.
struct Replicas {
    all: Vec<Arc<Api>>,
}

/// A request, and what is told of it besides by status and code.
struct Case {
    path: String,
    token: Option<String>,
    body: Value,
    status: u16,
    code: Option<&'static str>,
    /// What there is of each of these afterwards.
    effects: &'static [(&'static str, i64)],
}

impl Case {
    fn new(path: &str, token: Option<String>, body: Value, status: u16) -> Self {
        Self {
            path: path.to_owned(),
            token,
            body,
            status,
            code: None,
            effects: &[],
        }
    }
}

/// Leaves no limit on how many come, and makes hashes cheap.
fn generous(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| match line.split_once(" = { capacity = ") {
            Some((class, _)) => format!(
                "{class} = {{ capacity = 10000, refill_per_second = 10000, \
                 max_concurrent = 10000 }}"
            ),
            None => line.to_owned(),
        });
    let text = lines.collect::<Vec<_>>().join("\n");
    let changes = [
        ("memory_kib = 19456", "memory_kib = 64"),
        ("iterations = 2", "iterations = 1"),
        (
            "registrations_per_address = 20",
            "registrations_per_address = 10000",
        ),
    ];
    changes.into_iter().fold(text, |text, (old, new)| {
        assert!(text.contains(old), "meed.toml has {old}");
        text.replace(old, new)
    })
}

impl Replicas {
    async fn new() -> Self {
        let database = store::testing::database().await;
        let api = || Arc::new(api_on(&database, |text| generous(&text)));
        Self {
            all: vec![api(), api()],
        }
    }

    fn one(&self) -> &Api {
        &self.all[0]
    }

    /// Sends it until it is answered: one that is under way is asked for again.
    async fn ask(api: Arc<Api>, case: Arc<Case>) -> Answer {
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-key", "the-same"),
        ];
        let body = case.body.to_string();
        for _ in 0..TRIES_MAX {
            let answer = api
                .send(
                    Method::POST,
                    &case.path,
                    case.token.as_deref(),
                    &headers,
                    &body,
                )
                .await;
            let under_way = answer.status == StatusCode::CONFLICT
                && answer.body["code"] == "REQUEST_IN_PROGRESS";
            if !under_way {
                return answer;
            }
            assert_eq!(answer.headers["retry-after"], "1");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{} has no answer", case.path);
    }

    /// Sends it so many times at once, to one replica and the other in turns.
    async fn all_at_once(&self, case: Case) {
        let case = Arc::new(case);
        let asked = self.all.iter().cycle().take(TIMES).map(|api| {
            let (api, case) = (Arc::clone(api), Arc::clone(&case));
            tokio::spawn(Self::ask(api, case))
        });
        let mut first: Option<(Value, Option<String>)> = None;
        let mut not_replayed = 0;
        for answer in join_all(asked).await {
            let mut answer = answer.unwrap();
            let what = format!("{}: {}", case.path, answer.body);
            assert_eq!(answer.status.as_u16(), case.status, "{what}");
            if let Some(code) = case.code {
                assert_eq!(answer.code(), code, "{what}");
                // Each request has an id of its own.
                answer.body["requestId"].take();
            }
            not_replayed += usize::from(!answer.headers.contains_key("idempotent-replayed"));
            let location = answer.headers.get("location");
            let location = location.map(|at| at.to_str().unwrap().to_owned());
            let told = (answer.body, location);
            assert_eq!(first.get_or_insert_with(|| told.clone()), &told, "{what}");
        }
        assert_eq!(not_replayed, 1, "{}: one was the first", case.path);
        for (query, count) in case.effects {
            assert_eq!(
                self.one().count(query).await,
                *count,
                "{}: {query}",
                case.path
            );
        }
    }

    /// An account with so many points.
    async fn customer(&self, id: &str, nights: u32) {
        self.one()
            .stays(id, &[(&format!("stay-{id}"), nights)])
            .await;
    }
}

fn redemption(id: &str, points: i64) -> Value {
    json!({
        "redeemRequestId": id, "customerId": "C1", "requestedPoints": points,
        "merchantContext": { "merchantId": "M1", "orderId": "O1" }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn redemptions() {
    let replicas = Replicas::new().await;
    replicas.customer("C1", 10).await;
    let client = replicas.one().client();
    replicas
        .all_at_once(Case {
            effects: &[
                ("SELECT count(*) FROM redemptions", 1),
                ("SELECT count(*) FROM transfers WHERE leg = 'hold'", 1),
                ("SELECT held FROM customers WHERE customer_id = 'C1'", 250),
                ("SELECT count(*) FROM audit_records", 1),
                ("SELECT count(*) FROM idempotency_keys", 1),
            ],
            ..Case::new(
                "/api/v1/redeem",
                Some(client.clone()),
                redemption("R1", 250),
                202,
            )
        })
        .await;
    let cancels = "SELECT count(*) FROM audit_records WHERE action = 'redeem.cancel'";
    replicas
        .all_at_once(Case {
            effects: &[("SELECT count(*) FROM audit_records", 2)],
            ..Case::new(
                "/api/v1/redeem/R1/cancel",
                Some(client.clone()),
                json!({}),
                202,
            )
        })
        .await;
    assert_eq!(replicas.one().count(cancels).await, 1);
    // A refusal is an answer as well.
    let poor = replicas.one().token("poor", "rewards.redeem", &[], None);
    replicas
        .all_at_once(Case {
            code: Some("INSUFFICIENT_POINTS"),
            effects: &[
                ("SELECT count(*) FROM redemptions", 1),
                ("SELECT count(*) FROM audit_records", 2),
            ],
            ..Case::new("/api/v1/redeem", Some(poor), redemption("R2", 5_000), 409)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_that_a_customer_spends() {
    let replicas = Replicas::new().await;
    replicas.customer("C1", 10).await;
    let player = replicas.one().player("C1");
    for (path, spent) in [("/api/v1/loyalty", 900), ("/loyalty", 900)] {
        // Without a version in the address it is the same call, and so the same request.
        let case = Case::new(path, Some(player.clone()), json!({ "points": 100 }), 202);
        if path == "/loyalty" {
            let answer = Replicas::ask(Arc::clone(&replicas.all[1]), Arc::new(case)).await;
            assert_eq!(answer.headers["idempotent-replayed"], "true");
        } else {
            replicas.all_at_once(case).await;
        }
        let left = "SELECT available FROM customers WHERE customer_id = 'C1'";
        assert_eq!(replicas.one().count(left).await, spent, "{path}");
    }
    for (query, count) in [
        (
            "SELECT count(*) FROM redemptions WHERE state = 'SUCCESS'",
            1,
        ),
        ("SELECT count(*) FROM redemptions", 1),
        ("SELECT count(*) FROM transfers WHERE leg = 'settle'", 1),
        ("SELECT count(*) FROM audit_records", 1),
    ] {
        assert_eq!(replicas.one().count(query).await, count, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events() {
    let replicas = Replicas::new().await;
    let client = replicas.one().client();
    replicas
        .all_at_once(Case {
            effects: &[
                ("SELECT count(*) FROM accepted_events", 1),
                ("SELECT count(*) FROM outbox", 1),
                ("SELECT count(*) FROM audit_records", 1),
            ],
            ..Case::new(
                "/api/v1/rewards/events",
                Some(client),
                stay("E1", "C1", 2),
                202,
            )
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users() {
    let replicas = Replicas::new().await;
    let body = |name: &str| json!({ "username": name, "password": "correct horse battery" });
    replicas
        .all_at_once(Case {
            effects: &[
                ("SELECT count(*) FROM users", 1),
                ("SELECT count(*) FROM outbox WHERE topic = 'players'", 1),
                ("SELECT count(*) FROM audit_records", 1),
            ],
            ..Case::new("/api/v1/auth/register", None, body("anna"), 201)
        })
        .await;
    let admin = replicas.one().token("admin", "", &["admin"], None);
    replicas
        .all_at_once(Case {
            effects: &[
                ("SELECT count(*) FROM users WHERE role = 'staff'", 1),
                ("SELECT count(*) FROM audit_records", 2),
            ],
            ..Case::new(
                "/api/v1/auth/register-staff",
                Some(admin.clone()),
                body("stella"),
                201,
            )
        })
        .await;
    let (user,): (String,) = sqlx::query_as("SELECT user_id::text FROM users WHERE role = 'staff'")
        .fetch_one(&replicas.one().pool)
        .await
        .unwrap();
    replicas
        .all_at_once(Case {
            effects: &[(
                "SELECT count(*) FROM audit_records WHERE action = 'user.deactivate'",
                1,
            )],
            ..Case::new(
                &format!("/api/v1/users/{user}/deactivate"),
                Some(admin),
                json!({}),
                200,
            )
        })
        .await;
}
