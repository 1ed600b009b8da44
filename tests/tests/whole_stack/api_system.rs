//! A system for tests that know the API alone: they may tell its merchants how to behave, and guess
//! and register as often as they like.

use std::{collections::HashMap, fs, path::Path, sync::OnceLock};

use tests::{
    components::{Components, configuration, repository, set_up, started_as},
    system::{System, bring_back, system_on},
};
use tokio::sync::Semaphore;

/// Where its block of ports is, counted from the shared one.
const BLOCK: u16 = 1;

/// One test at a time.
static TURN: Semaphore = Semaphore::const_new(1);

/// The system, started by whoever asks first.
pub(crate) async fn api_system() -> System {
    static STARTED: OnceLock<&Components> = OnceLock::new();
    let turn = TURN.acquire().await.expect("it is never closed");
    let components = tokio::task::spawn_blocking(|| {
        let components = *STARTED.get_or_init(|| Box::leak(Box::new(start())));
        // A journey that failed may have left them ended or paused.
        bring_back(&components.stack, &["api", "worker"]);
        components
    });
    let components = components.await.expect("the system starts");
    system_on(components, Box::new(turn)).await
}

fn start() -> Components {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("api_system.toml");
    fs::write(&file, generous()).expect("it can be written");
    let components = started_as(BLOCK, |builder| {
        builder.variable("MEED_CONFIG", file.to_string_lossy())
    });
    set_up(&components.env, &["migrate"]);
    set_up(&components.env, &["topics", "apply"]);
    for service in components.stack.services() {
        let started = components.stack.start_planned(&service);
        started.expect("the service starts");
    }
    components
}

/// The configuration of the dev profile without limits for attempts and for requests of an address.
fn generous() -> String {
    configuration(&[
        (
            "\nauth = { capacity = 100, refill_per_second = 10,",
            "\nauth = { capacity = 10000, refill_per_second = 10000,",
        ),
        (
            "\nfailures_per_account_and_address = 5",
            "\nfailures_per_account_and_address = 10000",
        ),
        (
            "\nfailures_per_account = 20",
            "\nfailures_per_account = 10000",
        ),
        (
            "\nfailures_per_address = 30",
            "\nfailures_per_address = 10000",
        ),
        (
            "\nregistrations_per_address = 20",
            "\nregistrations_per_address = 10000",
        ),
    ])
}

/// What makes `./dev` find a system, from wherever it is run.
pub(crate) fn found_by_dev(system: &System) -> HashMap<&'static str, String> {
    let components = system.components;
    let base = components.stack.ports().base().to_string();
    let plan = repository().join("dev.toml");
    HashMap::from([
        ("MEED_PLAN", plan.to_string_lossy().into_owned()),
        ("MEED_PORT_BASE", base),
        ("MEED_CONFIG", components.env["MEED_CONFIG"].clone()),
    ])
}
