//! Whether the API does what its OpenAPI document says: schemathesis makes requests from the
//! document, right ones and wrong ones, and judges every answer.

use std::{fs, path::Path, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use stack::{Progress, cache::Cache, toolchain};
use tests::{
    components::{meed, repository},
    system::{System, patiently, unique},
};
use tokio::{process::Command, time::timeout};

use crate::api_system::api_system;

/// How long the run may take; it takes about a minute.
const PATIENCE: Duration = Duration::from_secs(900);

const SCOPES: &str = "rewards.read rewards.write rewards.redeem callbacks.write";

/// A token of the dev profile, with a role or as a client.
async fn token(system: &System, sub: &str, role: Option<&str>) -> String {
    let url = format!("{}/dev/token", system.components.env["MEED_API_URL"]);
    let mut query = vec![("sub", sub), ("scope", SCOPES)];
    query.extend(role.map(|role| ("role", role)));
    let request = system.http.get(url).query(&query);
    let answer: Value = patiently(request).await.json().await.expect("JSON");
    answer["access_token"].as_str().expect("a token").to_owned()
}

/// A client's id and secret, as they stand in a header.
async fn client_secret(system: &System) -> String {
    let env = &system.components.env;
    let client = [
        "clients",
        "add",
        "--all-merchants",
        "--scope",
        SCOPES,
        "--id",
        "contract",
    ];
    let secret = tokio::task::spawn_blocking(move || meed(env, &client));
    let secret = secret.await.expect("there is one");
    BASE64_STANDARD.encode(format!("contract:{}", secret.trim()))
}

/// The addresses and methods of the document that the run has not tried.
fn not_tried(document: &Value, report: &str) -> Vec<String> {
    let mut missing = Vec::new();
    for (path, calls) in document["paths"].as_object().expect("paths") {
        for method in calls.as_object().expect("methods").keys() {
            let label = format!("{} {path}", method.to_uppercase());
            if !report.contains(&format!("\"{label}\"")) {
                missing.push(label);
            }
        }
    }
    missing
}

#[tokio::test]
async fn the_api_does_what_its_document_says() {
    let program = tokio::task::spawn_blocking(|| {
        let cache = Cache::open().expect("the cache");
        toolchain::tool("schemathesis", &cache, &Progress::quiet()).expect("the tool")
    });
    let program = program.await.expect("it is had").join("schemathesis");

    let system = api_system().await;
    // The example of the document, so that some requests meet what is there.
    let customer = "C-42";
    system.stay(customer, 20).await;
    let points = async || system.available(customer).await.is_some();
    system.until("the points arrive", points).await;
    let redemption = json!({
        "redeemRequestId": "R-1001", "customerId": customer, "requestedPoints": 250,
        "merchantContext": { "merchantId": "M1", "orderId": "ORD-77" }
    });
    system.redeem(&unique("key"), &redemption).await;

    let url = format!("{}/openapi.json", system.components.env["MEED_API_URL"]);
    let answer = system.http.get(&url).send().await;
    let document: Value = answer.expect("the api answers").json().await.expect("JSON");
    let here = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let report = here.join("api_contract.ndjson");
    let mut run = Command::new(program);
    run.arg("--config-file")
        .arg(repository().join("tests/contract/schemathesis.toml"))
        .args(["--no-color", "run", &url, "--checks", "all"])
        .arg("--report-ndjson-path")
        .arg(&report)
        .env("PYTHONPATH", repository().join("tests/contract"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("MEED_CLIENT_SECRET", client_secret(&system).await)
        .env("MEED_CLIENT_TOKEN", token(&system, "contract", None).await)
        .env(
            "MEED_ADMIN_TOKEN",
            token(&system, "admin", Some("admin")).await,
        )
        .env(
            "MEED_PLAYER_TOKEN",
            token(&system, customer, Some("player")).await,
        )
        .current_dir(here)
        .kill_on_drop(true);
    let output = timeout(PATIENCE, run.output()).await.expect("in time");
    let output = output.expect("it runs");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let report = fs::read_to_string(report).expect("a report");
    assert_eq!(not_tried(&document, &report), [""; 0]);
    system.assert_ledger_agrees().await;
}
