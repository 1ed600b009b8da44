//! PostgreSQL, Kafka and Temporal, started once for all tests of a process.

use std::{
    collections::HashMap,
    process::{Command, Output},
    sync::OnceLock,
    time::{Duration, Instant},
};

use stack::{Plan, Stack, StackBuilder};
use temporalio_client::{Client, ClientOptions, Connection, ConnectionOptions, RetryOptions};

use crate::system::PATIENCE;

/// Where the tests' own block of ports begins when nobody says.
const PORT_BASE: u16 = 26_000;

/// How many ports a stack uses.
const BLOCK_SIZE: u16 = 100;

/// Longer than any test: how often schedules do their work.
const YEAR_SECONDS: u32 = 365 * 24 * 3_600;

/// The running components.
pub struct Components {
    /// The stack that holds them; ended with this process.
    pub stack: Stack,
    /// Their addresses.
    pub env: HashMap<String, String>,
}

/// The components, started by whoever asks first.
///
/// # Panics
/// When they cannot be had: a test that cannot run has failed.
pub fn components() -> &'static Components {
    static COMPONENTS: OnceLock<Components> = OnceLock::new();
    COMPONENTS.get_or_init(|| started(0))
}

/// Components of their own, this many blocks of ports after the shared ones.
///
/// # Panics
/// When they cannot be had.
pub fn started(block: u16) -> Components {
    started_as(block, |builder| builder)
}

/// The same, made as `shape` says.
///
/// # Panics
/// When they cannot be had.
pub fn started_as(block: u16, shape: impl FnOnce(StackBuilder) -> StackBuilder) -> Components {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let base = std::env::var("MEED_TEST_PORT_BASE")
        .ok()
        .and_then(|base| base.parse().ok())
        .unwrap_or(PORT_BASE)
        + block * BLOCK_SIZE;
    let root = repository();
    let data = stack::places::data_dir(&root, base).expect("a place for the data");
    let builder = Stack::builder()
        .plan(plan())
        .ports(base)
        .data_dir(data)
        .database("meed")
        .namespace("meed")
        .fresh();
    let stack = shape(builder).start().expect("the components start");
    let env: HashMap<String, String> = stack.env().into_iter().collect();
    rest_schedules(&env);
    Components { stack, env }
}

/// Lets schedules work once a year: they would repair what a test has broken, so they run when a test
/// says so.
///
/// # Panics
/// When Temporal does not take it in time.
#[expect(clippy::implicit_hasher, reason = "the components' own map")]
pub fn rest_schedules(env: &HashMap<String, String>) {
    let yearly = YEAR_SECONDS.to_string();
    let apply = [
        "temporal",
        "apply",
        "--reconcile-every-seconds",
        &yearly,
        "--ranking-every-seconds",
        &yearly,
    ];
    set_up(env, &apply);
}

/// What runs on the components.
///
/// # Panics
/// When `dev.toml` cannot be read.
pub fn plan() -> Plan {
    Plan::load(&repository().join("dev.toml")).expect("dev.toml is readable")
}

/// The configuration of the dev profile with these changes.
///
/// # Panics
/// When it has no such line to change.
pub fn configuration(changes: &[(&str, &str)]) -> String {
    let root = repository();
    let mut text = std::fs::read_to_string(root.join("meed.toml")).expect("meed.toml");
    let rules = root.join("programme.toml").display().to_string();
    let rules = ("\"programme.toml\"", &*format!("{rules:?}"));
    for (from, to) in [&[rules], changes].concat() {
        assert!(text.contains(from), "meed.toml has no {from}");
        text = text.replacen(from, to, 1);
    }
    text
}

/// The root of the repository.
///
/// # Panics
/// Never: this crate is inside it.
pub fn repository() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is in the repository")
        .to_owned()
}

/// A client of the tests' Temporal server.
///
/// # Panics
/// When it does not answer.
pub async fn temporal() -> Client {
    let components = tokio::task::spawn_blocking(components)
        .await
        .expect("the components start");
    temporal_of(components).await
}

/// A client of these components' Temporal server.
///
/// # Panics
/// When it does not answer.
pub async fn temporal_of(components: &Components) -> Client {
    let address = format!("http://{}", components.env["TEMPORAL_ADDRESS"]);
    let patient = RetryOptions::builder()
        .max_elapsed_time(Some(PATIENCE))
        .max_retries(100)
        .build();
    let options = ConnectionOptions::new(address.parse::<reqwest::Url>().expect("an address"))
        .identity("tests".to_owned())
        .retry_options(patient)
        .build();
    let connection = Connection::connect(options)
        .await
        .expect("Temporal answers");
    let namespace = components.env["TEMPORAL_NAMESPACE"].clone();
    Client::new(connection, ClientOptions::new(namespace).build()).expect("a client")
}

/// A database of the test's own on the tests' server.
///
/// # Panics
/// When it does not answer.
pub async fn database() -> store::testing::TestDatabase {
    let url = tokio::task::spawn_blocking(|| components().stack.superuser_url())
        .await
        .expect("the components start")
        .expect("PostgreSQL runs");
    store::testing::database_on(&url).await
}

/// Sets up what there may be already: again, until it is there. A machine that starts several servers
/// at a time may not be quick enough the first time.
///
/// # Panics
/// When it is not in time.
#[expect(clippy::implicit_hasher, reason = "the components' own map")]
pub fn set_up(env: &HashMap<String, String>, arguments: &[&str]) {
    let started = Instant::now();
    loop {
        let output = run_meed(env, arguments);
        if output.status.success() {
            return;
        }
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(started.elapsed() < PATIENCE, "meed {arguments:?}: {told}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Runs the operations program, which `cargo build --workspace --bins` has made, whatever comes of it.
///
/// # Panics
/// When it is missing.
#[expect(clippy::implicit_hasher, reason = "the components' own map")]
pub fn run_meed(env: &HashMap<String, String>, arguments: &[&str]) -> Output {
    Command::new(repository().join("target/debug/meed"))
        .args(arguments)
        .envs(env)
        .current_dir(repository())
        .output()
        .expect("target/debug/meed is there; `./dev test` builds it first")
}

/// Runs the operations program: what it printed.
///
/// # Panics
/// When it is missing or fails.
#[expect(clippy::implicit_hasher, reason = "the components' own map")]
pub fn meed(env: &HashMap<String, String>, arguments: &[&str]) -> String {
    let output = run_meed(env, arguments);
    assert!(
        output.status.success(),
        "meed {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
