//! How much is taken from one client, and at once; and what a browser may ask.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{Method, Request, StatusCode},
};
use futures::stream;
use kv::testing::RedisServer;
use serde_json::json;
use tokio::task::JoinHandle;
use tower::ServiceExt;

use crate::support::{Answer, Api, api_on, stay};

/// How many requests a client has at once, how many more each second, and how many may be under way.
type Three = (u32, u32, u32);

/// An api whose limits of this class are so.
async fn limited(class: &str, limits: Three) -> Api {
    api_on(&store::testing::database().await, |text| {
        limit_in(&text, class, limits)
    })
}

/// The shipped configuration with the line of this class replaced.
fn limit_in(
    text: &str,
    class: &str,
    (capacity, refill_per_second, max_concurrent): Three,
) -> String {
    let start = format!("{class} = {{ capacity");
    let line = text.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("meed.toml has limits.{class}"));
    let limits = format!(
        "{class} = {{ capacity = {capacity}, refill_per_second = {refill_per_second}, \
         max_concurrent = {max_concurrent} }}"
    );
    text.replace(line, &limits)
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers[name].to_str().unwrap()
}

const PATH: &str = "/api/v1/rewards/C-nobody";

#[tokio::test]
async fn a_client_has_so_many_requests_and_is_told_when_to_ask_again() {
    let api = limited("read", (3, 1, 9)).await;
    let busy = api.token("busy", "rewards.read", &[], None);
    let first = api.get_as(&busy, PATH).await;
    assert_eq!(first.problem(), (404, "CUSTOMER_NOT_FOUND"));
    assert_eq!(header(&first, "ratelimit-policy"), "\"read\";q=3;w=3");
    assert_eq!(header(&first, "ratelimit"), "\"read\";r=2;t=1");
    // However slow this machine is, asking in a row for long enough finds the bucket empty.
    let mut refused = None;
    for _ in 0..200 {
        let asked = (0..10).map(|_| api.get_as(&busy, PATH));
        let answers = futures::future::join_all(asked).await;
        refused = answers.into_iter().find(|a| a.status.as_u16() == 429);
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("an empty bucket");
    assert_eq!(refused.problem(), (429, "RATE_LIMITED"));
    assert_eq!(header(&refused, "retry-after"), "1");
    assert_eq!(header(&refused, "ratelimit"), "\"read\";r=0;t=3");

    let other = api.token("other", "rewards.read", &[], None);
    assert_eq!(api.get_as(&other, PATH).await.status, StatusCode::NOT_FOUND);
    // Another class has a bucket of its own.
    let sent = api
        .post_as(
            &api.token("busy", "rewards.write", &[], None),
            "/api/v1/rewards/events",
            "k",
            &stay("E-limits", "C-limits", 1),
        )
        .await;
    assert_eq!(sent.status, StatusCode::ACCEPTED, "{}", sent.body);
    assert!(header(&sent, "ratelimit").starts_with("\"write\";r="));
}

/// Who shows no token that counts is counted by address, so guessing is limited too.
#[tokio::test]
async fn whoever_is_not_known_is_counted_by_address() {
    let api = limited("read", (1, 1, 99)).await;
    let asked = (0..50).map(|n| {
        let (api, token) = (&api, format!("made-up-{n}"));
        async move { api.get_as(&token, PATH).await.status.as_u16() }
    });
    let statuses = futures::future::join_all(asked).await;
    assert!(statuses.contains(&401), "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    let known = api.get(PATH).await;
    assert_eq!(known.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn replicas_count_together_in_redis() {
    let redis = RedisServer::new().await;
    let database = store::testing::database().await;
    let change = |text: String| {
        limit_in(&text, "redeem", (100, 1, 99))
            .replace("answer_within_ms = 150", "answer_within_ms = 10000")
            .replace("${REDIS_URL:-}", &redis.url())
    };
    let (one, two) = (api_on(&database, change), api_on(&database, change));
    let client = format!("client-{}", uuid::Uuid::new_v4());
    let ask = async |api: &Api| {
        let token = api.token(&client, "rewards.redeem", &[], None);
        let answer = api
            .post_as(&token, "/api/v1/redeem/none/cancel", "", &json!({}))
            .await;
        let left = header(&answer, "ratelimit").to_owned();
        let left = left.split(['=', ';']).nth(2).unwrap().parse::<u32>();
        left.unwrap()
    };
    let began = Instant::now();
    let before = ask(&one).await;
    assert_eq!(before, 99);
    let mut asked = 0;
    while asked < 40 {
        tokio::join!(ask(&one), ask(&two));
        asked += 2;
    }
    let (left_one, left_two) = (ask(&one).await, ask(&two).await);
    // Each alone would have 78 left or more, and what came back meanwhile.
    let came_back = u32::try_from(began.elapsed().as_secs()).unwrap();
    let most = 70 + came_back;
    assert!(left_one < most && left_two < most, "{left_one} {left_two}");
}

/// What cannot be begun now is refused at once, and what is under way goes on. A client alone has
/// half of the places.
#[tokio::test]
async fn too_much_at_once_is_refused_at_once() {
    // What is held up is given up after some seconds: where the machine stood still for so long,
    // all begins anew.
    for _ in 0..5 {
        if refuses_while_the_rest_goes_on().await {
            return;
        }
    }
    panic!("what was under way did not go on");
}

/// Whether what was under way went on to its end: then what came meanwhile was refused.
async fn refuses_while_the_rest_goes_on() -> bool {
    let api = limited("write", (99, 99, 4)).await;
    let api = Arc::new(api);
    let mut tx = api.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE accepted_events IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *tx)
        .await
        .unwrap();
    let send = |client: &str, number: usize| {
        let (api, token) = (
            Arc::clone(&api),
            api.token(client, "rewards.write", &[], None),
        );
        let key = format!("{client}-{number}");
        tokio::spawn(async move {
            let event = stay(&format!("E-{key}"), "C-shed", 1);
            api.post_as(&token, "/api/v1/rewards/events", &key, &event)
                .await
        })
    };
    // The third of one client finds no place, and one of a third client finds none either.
    let mut under_way = Vec::new();
    let mut shed = Vec::new();
    for client in ["busy", "other"] {
        under_way.extend([send(client, 1), send(client, 2)]);
        until_locked(&api, &under_way).await;
        shed.push(send(client, 3).await.unwrap());
    }
    shed.push(send("third", 1).await.unwrap());
    assert_eq!(
        api.get(PATH).await.status,
        StatusCode::NOT_FOUND,
        "other classes have places of their own"
    );
    tx.rollback().await.unwrap();
    for first in under_way {
        let first = first.await.unwrap();
        if first.status == StatusCode::SERVICE_UNAVAILABLE && first.code() == "TIMED_OUT" {
            return false;
        }
        assert_eq!(first.status, StatusCode::ACCEPTED);
    }
    for answer in shed {
        assert_eq!(answer.problem(), (503, "OVERLOADED"));
        assert_eq!(header(&answer, "retry-after"), "1");
    }
    true
}

/// No more redemptions are accepted than come to an end. What was accepted is answered again, however
/// many there are.
#[tokio::test]
async fn redemptions_that_have_not_come_to_rest_hold_their_places() {
    let api = api_on(&store::testing::database().await, |text| {
        text.replace("max_starting = 128", "max_starting = 4")
    });
    api.stays("C1", &[("E1", 10)]).await;
    let redeem = async |client: &str, id: &str| {
        let token = api.token(client, "rewards.redeem", &[], None);
        let body = json!({
            "redeemRequestId": id, "customerId": "C1", "requestedPoints": 1,
            "merchantContext": { "merchantId": "M1", "orderId": "O1" },
        });
        api.post_as(&token, "/api/v1/redeem", id, &body).await
    };
    // However slow this machine is, one of several at once finds no place.
    let mut accepted = Vec::new();
    let mut shed = None;
    for round in 0.. {
        let ids: Vec<String> = (0..10)
            .map(|number| format!("R-{round}-{number}"))
            .collect();
        let asked = ids.iter().map(|id| redeem("busy", id));
        for (id, answer) in ids.iter().zip(futures::future::join_all(asked).await) {
            match answer.status {
                StatusCode::ACCEPTED => accepted.push(id.clone()),
                _ => shed = Some((id.clone(), answer)),
            }
        }
        if shed.is_some() {
            break;
        }
    }
    let (id, shed) = shed.unwrap();
    assert_eq!(shed.problem(), (503, "OVERLOADED"));
    assert_eq!(header(&shed, "retry-after"), "1");
    for id in &accepted {
        let again = redeem("busy", id).await;
        assert_eq!(again.status, StatusCode::ACCEPTED, "{id}");
        assert_eq!(header(&again, "idempotent-replayed"), "true");
    }
    let rows = api.count("SELECT count(*) FROM redemptions").await;
    assert_eq!(
        rows,
        i64::try_from(accepted.len()).unwrap(),
        "nothing was done"
    );
    // A client has half of the places, and they are not held for ever, whatever becomes of them.
    assert_eq!(
        redeem("other", "R-other").await.status,
        StatusCode::ACCEPTED
    );
    while redeem("busy", &id).await.status != StatusCode::ACCEPTED {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until these requests stand before a lock, or one of them has ended.
async fn until_locked(api: &Api, requests: &[JoinHandle<Answer>]) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND datname = current_database()";
    let all = i64::try_from(requests.len()).unwrap();
    while api.count(waiting).await < all && !requests.iter().any(JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// However it is written, waiting takes a place among those who wait.
#[tokio::test]
async fn who_waits_takes_no_place_from_those_who_read() {
    let api = Arc::new(limited("read", (999, 99, 1)).await);
    api.stays("C1", &[("E1", 10)]).await;
    api.redeem("R1", "C1", 100).await;
    for query in ["wait=30", "w%61it=30"] {
        let path = format!("/api/v1/redeem/R1?{query}");
        let waiting = tokio::spawn({
            let api = Arc::clone(&api);
            async move { api.get(&path).await.status }
        });
        for _ in 0..20 {
            assert_eq!(api.get(PATH).await.status, StatusCode::NOT_FOUND, "{query}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!waiting.is_finished());
        waiting.abort();
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let api = limited("write", (9, 9, 9)).await;
    let request = Request::builder()
        .method(Method::POST)
        .uri("/api/v1/rewards/events")
        .header("authorization", format!("Bearer {}", api.client()))
        .header("content-type", "application/json")
        .header("idempotency-key", "k")
        .body(Body::from_stream(stream::pending::<
            Result<Bytes, std::io::Error>,
        >()))
        .unwrap();
    let response = api.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn a_body_is_nested_no_deeper_than_32_levels() {
    let api = limited("write", (9, 9, 9)).await;
    let nested = format!("{}1{}", "[".repeat(33), "]".repeat(33));
    for path in [
        "/api/v1/rewards/events",
        "/api/v1/redeem",
        "/api/v1/loyalty",
    ] {
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-key", "k"),
        ];
        let answer = api
            .send(Method::POST, path, Some(&api.client()), &headers, &nested)
            .await;
        let answer = if answer.status == StatusCode::FORBIDDEN {
            api.send(
                Method::POST,
                path,
                Some(&api.player("C-1")),
                &headers,
                &nested,
            )
            .await
        } else {
            answer
        };
        assert_eq!(answer.problem(), (400, "INVALID_BODY"), "{path}");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains("32 levels"), "{detail}");
    }
}

#[tokio::test]
async fn pages_of_configured_origins_may_call() {
    let database = store::testing::database().await;
    let api = api_on(&database, |text| {
        text.replace(
            "cors_origins = []",
            "cors_origins = [\"https://app.example\"]",
        )
        .replace(
            "cookie_origins = [\"${MEED_PAGE_ORIGIN:-}\"]",
            "cookie_origins = [\"https://own.example\"]",
        )
    });
    let preflight = async |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            (
                "access-control-request-headers",
                "authorization,idempotency-key",
            ),
        ];
        api.send(Method::OPTIONS, "/api/v1/redeem", None, &headers, "")
            .await
    };
    let allowed = preflight("https://app.example").await;
    assert_eq!(allowed.status, StatusCode::OK);
    assert_eq!(
        header(&allowed, "access-control-allow-origin"),
        "https://app.example"
    );
    assert!(header(&allowed, "access-control-allow-headers").contains("idempotency-key"));
    assert!(
        !allowed
            .headers
            .contains_key("access-control-allow-credentials")
    );
    let own = preflight("https://own.example").await;
    assert_eq!(header(&own, "access-control-allow-credentials"), "true");
    let elsewhere = preflight("https://elsewhere.example").await;
    assert!(
        !elsewhere
            .headers
            .contains_key("access-control-allow-origin")
    );

    // A problem can be read there too.
    let refused = api
        .send(
            Method::GET,
            PATH,
            None,
            &[("origin", "https://app.example")],
            "",
        )
        .await;
    assert_eq!(refused.problem(), (401, "UNAUTHENTICATED"));
    assert_eq!(
        header(&refused, "access-control-allow-origin"),
        "https://app.example"
    );
    assert!(header(&refused, "access-control-expose-headers").contains("ratelimit"));
}

#[tokio::test]
async fn every_call_has_a_class() {
    let classes: Vec<String> = api::routes::document()
        .paths
        .paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = [
                (Method::GET, item.get.is_some()),
                (Method::POST, item.post.is_some()),
                (Method::DELETE, item.delete.is_some()),
                (Method::PUT, item.put.is_some()),
                (Method::PATCH, item.patch.is_some()),
            ];
            methods
                .into_iter()
                .filter(|(_, is_there)| *is_there)
                .map(move |(method, _)| {
                    let class = api::limits::Class::of_route(&method, path);
                    let class = class.map_or("none", api::limits::Class::as_str);
                    format!("{method} {path} {class}")
                })
        })
        .collect();
    assert_eq!(classes, CLASSES, "{classes:#?}");
}

const CLASSES: &[&str] = &[
    "GET /.well-known/jwks.json none",
    "GET /.well-known/oauth-authorization-server none",
    "GET /api/v1/audit read",
    "POST /api/v1/auth/login auth",
    "POST /api/v1/auth/logout auth",
    "POST /api/v1/auth/refresh auth",
    "POST /api/v1/auth/register auth",
    "POST /api/v1/auth/register-staff auth",
    "POST /api/v1/callbacks/{callbackId}/failure callback",
    "POST /api/v1/callbacks/{callbackId}/success callback",
    "GET /api/v1/customer-info read",
    "GET /api/v1/customers/{customerId}/transactions read",
    "GET /api/v1/loyalty read",
    "POST /api/v1/loyalty redeem",
    "GET /api/v1/notifications read",
    "POST /api/v1/notifications/read-all write",
    "GET /api/v1/notifications/ws read",
    "POST /api/v1/notifications/{notificationId}/read write",
    "POST /api/v1/partner-callbacks/{callbackId} callback",
    "GET /api/v1/promotions read",
    "POST /api/v1/promotions write",
    "POST /api/v1/promotions/claim write",
    "GET /api/v1/promotions/jobs/{jobId} read",
    "POST /api/v1/promotions/jobs/{jobId}/cancel write",
    "GET /api/v1/promotions/players/{playerId} read",
    "POST /api/v1/promotions/{promotionId}/assign write",
    "POST /api/v1/redeem redeem",
    "GET /api/v1/redeem/{redeemRequestId} read",
    "POST /api/v1/redeem/{redeemRequestId}/cancel redeem",
    "GET /api/v1/redeem/{redeemRequestId}/story read",
    "POST /api/v1/rewards/events write",
    "POST /api/v1/rewards/query read",
    "GET /api/v1/rewards/{customerId} read",
    "GET /api/v1/top-customers read",
    "POST /api/v1/users/{userId}/deactivate write",
    "GET /customer-info read",
    "GET /health/live none",
    "GET /health/ready none",
    "GET /loyalty read",
    "POST /loyalty redeem",
    "GET /metrics none",
    "POST /oauth/token auth",
    "GET /top-customers read",
];
