//! What api and worker measure after a journey, and whether every panel and rule finds it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tests::{
    observability::{Query, metrics_of, panels, rules},
    system::{System, system_alone, unique},
};

/// The most series of one metric in one process; a histogram's buckets count once.
const SERIES_OF_A_METRIC: usize = 300;
/// The most series of one process.
const SERIES: usize = 8_000;

/// One sample of a scrape.
struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
}

fn samples(text: &str) -> Vec<Sample<'_>> {
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, _value) = line.rsplit_once(' ').expect("a sample has a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            Sample { name, labels }
        })
        .collect()
}

/// The metrics of a service of the shared system.
async fn scrape(system: &System, service: &str) -> String {
    let address = system.components.stack.address(service).expect("its port");
    let answer = system
        .http
        .get(format!("http://{address}/metrics"))
        .send()
        .await;
    answer.expect("it answers").text().await.expect("text")
}

/// Points come, are redeemed, refused, and asked for; letters are dead. What was said in ids.
async fn journey(system: &System) -> Vec<String> {
    let customer = system.customer_with(10).await;
    let mut ids = vec![customer.clone()];
    for merchant in ["M1", "M3", &unique("nobody")] {
        let id = unique("R");
        let body = json!({
            "redeemRequestId": id, "customerId": customer, "requestedPoints": 5,
            "merchantContext": { "merchantId": merchant, "orderId": format!("O-{id}") },
        });
        let accepted = system.redeem(&id, &body).await;
        assert!(accepted.status().is_success(), "{accepted:?}");
        system.ended(&id).await;
        ids.extend([id, merchant.to_owned()]);
    }
    ids.retain(|id| !id.starts_with('M'));
    let broken = unique("broken");
    system.send("orders", &broken, &[], b"not json").await;
    let mine = broken.clone();
    system
        .await_published("dead-letter", 1, move |m| m.key == mine)
        .await;
    ids.push(broken);
    for path in [
        format!("/api/v1/rewards/{customer}"),
        format!("/nowhere/{customer}"),
    ] {
        system.get(&path).await;
    }
    let method = reqwest::Method::from_bytes(b"MADEUP").expect("a method");
    let made_up = system
        .http
        .request(method, system.url("/loyalty"))
        .send()
        .await;
    made_up.expect("it answers");
    ids
}

/// Metrics are named by Prometheus' conventions and explained, and no id becomes a label, however
/// many customers come.
#[tokio::test]
async fn a_journey_is_measured_with_few_series() {
    let system = system_alone().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.extend(journey(&system).await);
    }
    for (service, expected) in [
        (
            "api",
            &[
                "meed_http_requests_total",
                "meed_redemptions_total",
                "meed_redemption_duration_seconds_bucket",
                "meed_points_redeemed_total",
                "meed_partner_request_duration_seconds_bucket",
                "meed_cache_lookups_total",
                "meed_problems_total",
                "meed_database_connections",
                "meed_build_info",
                "process_resident_memory_bytes",
                "temporal_request_latency_seconds_bucket",
                "temporal_workflow_completed_total",
                "temporal_local_activity_execution_latency_seconds_bucket",
            ][..],
        ),
        (
            "worker",
            &[
                "meed_events_processed_total",
                "meed_points_awarded_bucket",
                "meed_points_issued_total",
                "meed_event_delay_seconds_bucket",
                "meed_dead_letters_total",
                "meed_outbox_oldest_age_seconds",
                "meed_workflows_open",
                "meed_redemptions_open",
                "meed_consumer_lag_messages",
                "meed_database_connections",
                "meed_build_info",
                "process_open_fds",
                "temporal_activity_execution_latency_seconds_bucket",
            ],
        ),
    ] {
        for name in expected {
            system
                .until(&format!("{service} has {name}"), async || {
                    let text = scrape(&system, service).await;
                    samples(&text).iter().any(|sample| sample.name == *name)
                })
                .await;
        }
        let text = scrape(&system, service).await;
        conventional(service, &text);
        let samples = samples(&text);
        assert!(
            samples.len() < SERIES,
            "{service} has {} series",
            samples.len()
        );
        let mut of_metric: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for sample in &samples {
            for id in &ids {
                assert!(
                    !sample.labels.contains(id.as_str()),
                    "{id} is a label of {}",
                    sample.name
                );
            }
            let labels = sample
                .labels
                .split(',')
                .filter(|label| !label.starts_with("le="));
            let labels = labels.collect::<Vec<_>>().join(",");
            of_metric.entry(sample.name).or_default().insert(labels);
        }
        for (name, series) in of_metric {
            assert!(
                series.len() <= SERIES_OF_A_METRIC,
                "{service}: {name} has {} series",
                series.len()
            );
        }
    }
}

/// As `promtool check metrics` and the conventions want it: a word of explanation, counters in
/// `_total`, histograms in their unit.
fn conventional(service: &str, text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is there; `./dev test` installs it");
    let mut input = promtool.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("it is read");
    drop(input);
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("meed_"))
        .collect();
    assert!(ours.is_empty(), "{service}: {ours:#?}");
    assert!(!said.contains("error while linting"), "{service}: {said}");
    for line in text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE meed_"))
    {
        let (name, kind) = line.split_once(' ').expect("a type");
        let units = ["_seconds", "_messages", "_awarded"];
        match kind {
            "counter" => assert!(name.ends_with("_total"), "{service}: {name}"),
            "histogram" => assert!(
                units.iter().any(|unit| name.ends_with(unit)),
                "{service}: {name}"
            ),
            _ => {}
        }
    }
}

async fn ask(system: &System, path: &str, query: &[(&str, &str)]) -> Value {
    let address = system
        .components
        .stack
        .address("prometheus")
        .expect("a port");
    let url = format!("http://{address}/api/v1/{path}");
    let answer = system.http.get(url).query(query).send().await;
    let answer = answer.expect("Prometheus answers");
    answer.json().await.expect("JSON")
}

/// Whether a query returns something.
///
/// # Panics
/// When Prometheus refuses it.
async fn returns(system: &System, query: &Query) -> bool {
    // What Grafana makes of this with a scrape every five seconds.
    let expr = query.expr.replace("$__rate_interval", "1m");
    let answer = ask(system, "query", &[("query", &expr)]).await;
    assert_eq!(answer["status"], "success", "{}: {answer}", query.of);
    !answer["data"]["result"]
        .as_array()
        .expect("a result")
        .is_empty()
}

/// Whether a metric has been scraped.
async fn exists(system: &System, name: &str) -> bool {
    let query = Query {
        of: name.to_owned(),
        expr: name.to_owned(),
    };
    returns(system, &query).await
}

/// What there is only once something goes wrong.
fn comes_with_trouble(metric: &str) -> bool {
    let begins = [
        "temporal_request_failure_total",
        "temporal_workflow_task_execution_failed_total",
        "temporal_sticky_cache_miss_total",
    ];
    begins.contains(&metric)
}

/// Every query of every panel and rule is run against a real Prometheus that watches the real
/// system, and finds what it asks for.
#[tokio::test]
async fn every_panel_and_rule_finds_what_it_asks_for() {
    let system = system_alone().await;
    let components = system.components;
    tokio::task::spawn_blocking(move || {
        let started = components.stack.start_prometheus("prometheus".as_ref());
        started.expect("Prometheus starts");
    })
    .await
    .expect("starting it does not panic");
    // A rate is that of what goes on.
    let goes_on = async {
        loop {
            journey(&system).await;
        }
    };
    tokio::select! {
        () = goes_on => unreachable!("it goes on"),
        () = everything_is_found(&system) => {}
    }
    tokio::task::spawn_blocking(move || components.stack.stop("prometheus"))
        .await
        .expect("stopping it does not panic")
        .expect("it ends");
}

async fn everything_is_found(system: &System) {
    // A tier for the dashboards, and a comparison of the books.
    system.customer_with(6).await;
    let components = system.components;
    tokio::task::spawn_blocking(move || {
        // Whatever it finds: other tests may have left something.
        Command::new(tests::components::repository().join("target/debug/meed"))
            .args(["reconcile", "--report-only"])
            .envs(&components.env)
            .output()
    })
    .await
    .expect("it does not panic")
    .expect("the books are compared");
    system
        .until("every target is up", async || {
            let targets = ask(system, "targets", &[]).await;
            let targets = targets["data"]["activeTargets"]
                .as_array()
                .expect("targets")
                .clone();
            targets.len() == 3 && targets.iter().all(|target| target["health"] == "up")
        })
        .await;

    for rule in rules() {
        let of = rule.record.clone().or(rule.alert.clone()).expect("a name");
        let query = Query {
            of: of.clone(),
            expr: rule.expr,
        };
        if rule.record.is_some() {
            system
                .until(&format!("{of} is recorded"), async || {
                    returns(system, &query).await
                })
                .await;
        } else {
            returns(system, &query).await;
        }
        for metric in metrics_of(&query.expr) {
            if !comes_with_trouble(&metric) {
                system
                    .until(&format!("{of} finds {metric}"), async || {
                        exists(system, &metric).await
                    })
                    .await;
            }
        }
    }
    for panel in panels() {
        if metrics_of(&panel.expr)
            .iter()
            .any(|metric| comes_with_trouble(metric))
        {
            returns(system, &panel).await;
            continue;
        }
        let what = format!("the panel {} shows something: {}", panel.of, panel.expr);
        system
            .until(&what, async || returns(system, &panel).await)
            .await;
    }
    let rules = ask(system, "rules", &[]).await;
    let groups = rules["data"]["groups"].as_array().expect("groups");
    for rule in groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"))
    {
        assert_ne!(rule["health"], "err", "{rule}");
    }
}
