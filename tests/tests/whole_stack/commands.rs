//! Commands of the operations program that ask a running system.

use std::{process::Output, time::Instant};

use serde_json::json;
use tests::{
    components::repository,
    system::{PATIENCE, System, system, unique},
};

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks it until the outcome is as wanted: beside other tests a step may take too long once.
async fn smoked(system: &System, arguments: &[&str], wanted: impl Fn(&Output) -> bool) -> Output {
    let started = Instant::now();
    loop {
        let output = system.run_meed(arguments).await;
        if wanted(&output) {
            return output;
        }
        assert!(started.elapsed() < PATIENCE, "{output:?}");
    }
}

#[tokio::test]
async fn smoke_checks_a_system_from_end_to_end() {
    let system = system().await;
    let url = system.url("");
    let id = unique("smoke");
    let scope = "rewards.read rewards.write rewards.redeem";
    let client = [
        "clients",
        "add",
        "--id",
        &id,
        "--all-merchants",
        "--scope",
        scope,
    ];
    let secret = said(&system.run_meed(&client).await.stdout);
    let client = ["--client", &id, "--secret", secret.trim()];
    for more in [&[][..], &["--merchant", "M1"], &client] {
        let arguments = [&["smoke", "--url", &url], more].concat();
        let output = smoked(&system, &arguments, |output| output.status.success()).await;
        let out = said(&output.stdout);
        assert!(out.contains("a redemption runs to its end"), "{out}");
        assert!(out.contains(" works. "), "{out}");
    }
    system.assert_ledger_agrees().await;
}

#[tokio::test]
async fn smoke_says_what_does_not_work() {
    let system = system().await;
    // Nobody listens there.
    let output = system
        .run_meed(&["smoke", "--url", "http://127.0.0.1:9"])
        .await;
    assert!(!output.status.success());
    assert!(said(&output.stderr).contains("it is ready"), "{output:?}");
    let url = system.url("");
    let client = ["--client", "nobody", "--secret", "wrong"];
    let arguments = [&["smoke", "--url", &url][..], &client].concat();
    let says_token = |output: &Output| said(&output.stderr).contains("a token");
    let output = smoked(&system, &arguments, says_token).await;
    assert!(!output.status.success());
    assert!(!said(&output.stderr).contains("wrong"), "{output:?}");
    // It fails where the merchant refuses.
    let refused = ["smoke", "--url", &url, "--merchant", "M3"];
    let says_why = |output: &Output| said(&output.stderr).contains("PARTNER_REFUSED");
    let output = smoked(&system, &refused, says_why).await;
    assert!(!output.status.success());
}

#[tokio::test]
async fn config_check_names_every_fault_at_once() {
    let system = system().await;
    let file = std::env::temp_dir().join(format!("{}.toml", unique("meed")));
    let good = std::fs::read_to_string(repository().join("meed.toml")).expect("there");
    let rules = repository().join("programme.toml");
    let here = good.replace("\"programme.toml\"", &json!(rules).to_string());
    let path = file.to_str().expect("a path").to_owned();
    std::fs::write(&file, &here).expect("written");
    let output = system.run_meed(&["config", "check", &path]).await;
    assert!(output.status.success(), "{output:?}");
    assert!(said(&output.stdout).contains("is good"), "{output:?}");
    let broken = here
        .replace("max_connections = 16", "max_connections = \"many\"")
        .replace("hold_ttl_seconds = 900", "hold_ttl_seconds = 0")
        .replace("[merchants.M7]", "[merchants.meed]");
    std::fs::write(&file, broken).expect("written");
    let output = system.run_meed(&["config", "check", &path]).await;
    std::fs::remove_file(&file).expect("removed");
    assert!(!output.status.success());
    let err = said(&output.stderr);
    for fault in [
        "max_connections",
        "0 is not a whole number",
        "is built in",
        "has 3 faults",
    ] {
        let told =
            err.contains(fault) || fault == "max_connections" && err.contains("invalid type");
        assert!(told, "{fault}: {err}");
    }
}
