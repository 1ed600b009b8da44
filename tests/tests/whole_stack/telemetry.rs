//! One redemption is one trace over HTTP, Temporal, PostgreSQL and the merchant; messages link to
//! the trace that they were made in; and logs say which request, flow and trace a line is of, and
//! nothing that is a secret or a person's.

use std::fs;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};
use tests::{
    otlp::{Collector, Sent},
    own::{end, own_system},
    system::{Published, System, patiently, unique},
};

/// How far the ports of this system are from those of the shared one, in blocks.
const BLOCK: u16 = 9;

/// A trace that a client has begun, and its own span in it.
struct Begun {
    trace: String,
    span: String,
}

impl Begun {
    fn new() -> Self {
        let id = || uuid::Uuid::new_v4().simple().to_string();
        Self {
            trace: id(),
            span: id()[..16].to_owned(),
        }
    }

    fn header(&self) -> String {
        format!("00-{}-{}-01", self.trace, self.span)
    }
}

/// Who stands between a span and the one that the client began, the nearest first.
fn ancestors<'a>(spans: &'a [Sent], of: &Sent, begun: &Begun) -> Vec<&'a str> {
    let mut names = Vec::new();
    let mut parent = of.parent.clone();
    while parent != begun.span {
        let Some(span) = spans.iter().find(|span| span.id == parent) else {
            panic!("{} has a parent {parent} that was not sent", of.name);
        };
        names.push(span.name.as_str());
        parent.clone_from(&span.parent);
    }
    names
}

async fn redeemed(system: &System, customer: &str, begun: &Begun) -> String {
    let id = unique("R");
    let body = json!({
        "redeemRequestId": id, "customerId": customer, "requestedPoints": 25,
        "merchantContext": { "merchantId": "M1", "orderId": format!("O-{id}") },
    });
    let request = system
        .request("POST", "/api/v1/redeem")
        .await
        .header("idempotency-key", &id)
        .header("traceparent", begun.header())
        .json(&body);
    let answer = patiently(request).await;
    assert_eq!(answer.status(), 202);
    assert_eq!(system.ended(&id).await["status"], "SUCCESS");
    id
}

/// A customer whose one event came in a trace of its own.
async fn awarded(system: &System, begun: &Begun) -> String {
    let customer = unique("C");
    let event = json!({
        "eventId": unique("stay"), "eventType": "HOTEL_STAY", "customerId": customer,
        "timestamp": "2026-03-14T10:00:00Z", "payload": { "nights": 2 }
    });
    let trace = begun.header();
    let headers = [("traceparent", trace.as_str())];
    system
        .send(
            "reward-events",
            &customer,
            &headers,
            event.to_string().as_bytes(),
        )
        .await;
    system
        .until("the points arrive", async || {
            system.available(&customer).await == Some(200)
        })
        .await;
    customer
}

async fn message(system: &System, topic: &str, key: &str) -> Published {
    let mine = key.to_owned();
    let found = system
        .await_published(topic, 1, move |m| m.key == mine)
        .await;
    found.into_iter().next().expect("one")
}

#[tokio::test]
async fn a_redemption_is_one_trace_and_logs_name_it_and_nobody() {
    let (collector, endpoint) = Collector::begin();
    let system = own_system(BLOCK, move |builder| {
        builder
            .variable("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .variable("MEED_LOGS", "json")
    })
    .await;
    let (event, redemption) = (Begun::new(), Begun::new());
    let customer = awarded(&system, &event).await;
    let id = redeemed(&system, &customer, &redemption).await;
    let confirmed = message(&system, "redeem-confirmed", &customer).await;
    let planted = plant(&system).await;

    // What is published tells of the trace it was made in.
    assert!(
        confirmed.headers["traceparent"].contains(&redemption.trace),
        "{confirmed:?}"
    );

    one_trace(&system, &collector, &redemption).await;
    started_later(&system, &collector, &id, &redemption).await;
    links(&system, &collector, &event, &redemption).await;

    let mut secrets = planted;
    secrets.extend(
        [
            "dev-key-M1",
            "dev-own-signing-seed",
            "dev-visibility-key",
            "Bearer ",
        ]
        .map(str::to_owned),
    );
    logs(&system, &secrets, &id, &customer, &redemption.trace);
    end(system).await;
}

async fn one_trace(system: &System, collector: &Collector, redemption: &Begun) {
    let is_there = |name: &str| {
        let spans = collector.of_trace(&redemption.trace);
        spans.into_iter().find(|span| span.name == name)
    };
    let names = [
        "POST /api/v1/redeem",
        "StartWorkflow:Redeem",
        "RunWorkflow:Redeem",
        "redemptions.accept",
        "redemptions.reserve",
        "redemptions.begin_confirm",
        "redemptions.settle",
        "POST M1",
    ];
    // Those above them are sent when they have ended, so later.
    let steps = ["reserve", "confirm-with-partner", "settle"];
    let above = ["RunActivity", "StartActivity"].map(|kind| steps.map(|s| format!("{kind}:{s}")));
    let names = names.into_iter().map(str::to_owned);
    for name in names.chain(above.into_iter().flatten()) {
        system
            .until(&format!("the span {name} is sent"), async || {
                is_there(&name).is_some()
            })
            .await;
    }
    let spans = collector.of_trace(&redemption.trace);
    let chain = |name: &str| {
        let span = is_there(name).expect("it was sent");
        ancestors(&spans, &span, redemption).join(" < ")
    };
    let flow = "RunWorkflow:Redeem < StartWorkflow:Redeem < POST /api/v1/redeem";
    assert_eq!(chain("POST /api/v1/redeem"), "");
    assert_eq!(chain("redemptions.accept"), "POST /api/v1/redeem");
    assert_eq!(
        chain("RunWorkflow:Redeem"),
        "StartWorkflow:Redeem < POST /api/v1/redeem"
    );
    for (name, step) in [
        ("redemptions.reserve", "reserve"),
        ("redemptions.begin_confirm", "confirm-with-partner"),
        ("POST M1", "confirm-with-partner"),
        ("redemptions.settle", "settle"),
    ] {
        assert_eq!(
            chain(name),
            format!("RunActivity:{step} < StartActivity:{step} < {flow}")
        );
    }
    for (name, kind, attribute) in [
        (
            "POST /api/v1/redeem",
            SpanKind::Server,
            "http.response.status_code",
        ),
        ("redemptions.settle", SpanKind::Client, "db.system.name"),
        ("POST M1", SpanKind::Client, "http.response.status_code"),
    ] {
        // A first, quick word with a merchant may come to nothing.
        let said = spans.iter().find(|span| {
            span.name == name && span.attributes.iter().any(|known| known == attribute)
        });
        let said = said.unwrap_or_else(|| panic!("{name} without {attribute}"));
        assert_eq!(said.kind, kind, "{name}");
    }
}

/// A redemption whose flow the api did not start, like one accepted while Temporal is down, is in
/// the trace of its request all the same.
async fn started_later(system: &System, collector: &Collector, of: &str, requested: &Begun) {
    let (kept,): (String,) =
        sqlx::query_as("SELECT traceparent FROM redemptions WHERE redeem_request_id = $1")
            .bind(of)
            .fetch_one(&system.pool)
            .await
            .expect("the row says in which trace it was accepted");
    assert!(kept.contains(&requested.trace), "{kept}");
    let (left, begun) = (unique("R"), Begun::new());
    sqlx::query(
        "INSERT INTO redemptions (redeem_request_id, body_hash, customer_id, merchant_id, order_id,
                points, origin, requested_at, traceparent)
         SELECT $2, body_hash, customer_id, merchant_id, order_id, points, origin, requested_at, $3
         FROM redemptions WHERE redeem_request_id = $1",
    )
    .bind(of)
    .bind(&left)
    .bind(begun.header())
    .execute(&system.pool)
    .await
    .expect("a row without a flow");
    assert_eq!(system.ended(&left).await["status"], "SUCCESS");
    let is_there = |name: &str| {
        let spans = collector.of_trace(&begun.trace);
        spans.into_iter().find(|span| span.name == name)
    };
    system
        .until("the spans of its start and its flow are sent", async || {
            is_there("StartWorkflow:Redeem").is_some() && is_there("RunWorkflow:Redeem").is_some()
        })
        .await;
    let run = is_there("RunWorkflow:Redeem").expect("it was sent");
    let spans = collector.of_trace(&begun.trace);
    assert_eq!(ancestors(&spans, &run, &begun), ["StartWorkflow:Redeem"]);
}

/// Over Kafka there are links, and no trace goes on.
async fn links(system: &System, collector: &Collector, event: &Begun, redemption: &Begun) {
    for (name, kind, trace) in [
        ("process reward-events", SpanKind::Consumer, &event.trace),
        (
            "send redeem-confirmed",
            SpanKind::Producer,
            &redemption.trace,
        ),
    ] {
        let linked = || {
            let spans = collector.spans().into_iter();
            spans
                .filter(|span| span.name == name)
                .find(|span| span.links.contains(trace))
        };
        system
            .until(
                &format!("{name} links to the trace of its message"),
                async || linked().is_some(),
            )
            .await;
        let span = linked().expect("it was sent");
        assert_ne!(&span.trace, trace, "{name}");
        assert_eq!(span.kind, kind, "{name}");
        for attribute in [
            "messaging.system",
            "messaging.operation.type",
            "messaging.destination.name",
        ] {
            assert!(
                span.attributes.iter().any(|known| known == attribute),
                "{span:?}"
            );
        }
    }
    let batch = collector
        .spans()
        .into_iter()
        .find(|span| span.name == "RunActivity:post-batch");
    let batch = batch.expect("a batch was posted");
    for name in ["StartWorkflow:AwardBatch", "ledger.post_awards"] {
        system
            .until(&format!("{name} is sent"), async || {
                let mut spans = collector.of_trace(&batch.trace).into_iter();
                spans.any(|span| span.name == name)
            })
            .await;
    }
}

/// Somebody registers, logs in wrongly and rightly, and uses tokens: what must not be in logs.
async fn plant(system: &System) -> Vec<String> {
    let name = format!("planted.{}@example.org", unique("person"));
    let (password, wrong) = (unique("planted-password"), unique("planted-wrong"));
    let key = unique("key");
    let register = json!({ "username": name, "password": password });
    let request = system
        .http
        .post(system.url("/api/v1/auth/register"))
        .header("idempotency-key", key)
        .json(&register);
    let registered = patiently(request).await;
    assert!(registered.status().is_success(), "{registered:?}");
    let mut planted = vec![name.clone(), password.clone(), wrong.clone()];
    for given in [&wrong, &password] {
        let login = json!({ "username": name, "password": given, "tokenDelivery": "body" });
        let request = system.http.post(system.url("/api/v1/auth/login"));
        let answer = patiently(request.json(&login)).await;
        let answer: Value = answer.json().await.expect("JSON");
        for token in [
            "accessToken",
            "refreshToken",
            "access_token",
            "refresh_token",
        ] {
            planted.extend(answer[token].as_str().map(str::to_owned));
        }
    }
    assert!(planted.len() >= 5, "tokens were given out");
    planted.push(system.token("planted", "rewards.read").await);
    // Callback ids are secrets; nobody has this one, and it is asked for all the same.
    let callback = unique("planted-callback");
    let path = format!("/api/v1/callbacks/{callback}/success");
    system
        .request("POST", &path)
        .await
        .send()
        .await
        .expect("it answers");
    planted.push(callback);
    planted
}

fn logs(system: &System, secrets: &[String], id: &str, customer: &str, trace: &str) {
    let read = |service: &str| {
        let file = system.components.stack.log_file(service).expect("its log");
        fs::read_to_string(file).expect("it is readable")
    };
    for service in ["api", "worker"] {
        let text = read(service);
        for secret in secrets {
            assert!(
                !text.contains(secret.as_str()),
                "{secret} is in the log of {service}"
            );
        }
        for line in text.lines() {
            let line: Value =
                serde_json::from_str(line).unwrap_or_else(|_| panic!("{service}: {line}"));
            for field in ["timestamp", "level", "target", "message"] {
                assert!(line[field].is_string(), "{service}: {line}");
            }
        }
    }
    let answered: Vec<Value> = read("api")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|line: &Value| line["message"] == "answered")
        .collect();
    for line in &answered {
        assert!(line["request_id"].is_string(), "of which request? {line}");
        assert!(line["trace_id"].is_string(), "of which trace? {line}");
    }
    let of_request = answered.iter().any(|line| {
        line["redeem_request_id"] == id
            && line["customer_id"] == customer
            && line["trace_id"] == trace
            && line["status"] == 202
    });
    assert!(of_request, "the request has its line with all its ids");
}
