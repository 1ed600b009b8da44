//! Starts every component, kills each, and sees it serve again with its data.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where something is missing"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stack::probe::{self, PostgresAddress};
use stack::{Component, Health, Service, Stack};

const LIMIT: Duration = Duration::from_secs(180);
/// A probe that fails after this long was given up, after two seconds; who is not there is so at once.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(1);
/// How long a probe is repeated that was given up.
const PROBED_FOR: Duration = Duration::from_secs(60);

/// The first of four blocks of ports.
fn port_base() -> u16 {
    let of_this_run = std::env::var("MEED_TEST_PORT_BASE");
    of_this_run.map_or(23500, |base| base.parse::<u16>().unwrap() + 400)
}

/// A directory that the account PostgreSQL runs as may enter.
fn data_dir(name: &str) -> PathBuf {
    std::env::temp_dir()
        .join("stack-tests")
        .join(format!("{name}-{}", port_base()))
}

fn ask(stack: &Stack, sql: &str) -> Vec<Vec<String>> {
    ask_in(stack, "app", "app", sql)
}

fn ask_in(stack: &Stack, user: &str, database: &str, sql: &str) -> Vec<Vec<String>> {
    let port = stack.ports().get("postgres").unwrap();
    let address = PostgresAddress {
        port,
        user,
        database,
    };
    probe::query(address, sql).unwrap()
}

fn health(stack: &Stack, name: &str) -> Health {
    let statuses = stack.status().unwrap();
    statuses
        .into_iter()
        .find(|status| status.name == name)
        .unwrap()
        .health
}

/// It serves, however slow the machine is.
fn until_well(probe: impl Fn() -> anyhow::Result<()>) {
    let deadline = Instant::now() + PROBED_FOR;
    loop {
        let asked = Instant::now();
        let Err(error) = probe() else { return };
        assert!(asked.elapsed() >= GIVEN_UP_AFTER, "{error:#}");
        assert!(asked < deadline, "{error:#}");
    }
}

fn until_health(stack: &Stack, name: &str, expected: &Health) {
    until_well(|| {
        let health = health(stack, name);
        anyhow::ensure!(health == *expected, "{name} is {health:?}");
        Ok(())
    });
}

#[test]
fn each_component_comes_back_after_a_kill() {
    let dir = data_dir("all");
    let stack = Stack::builder()
        .ports(port_base())
        .data_dir(&dir)
        .namespace("trial")
        .fresh()
        .start()
        .unwrap();
    for name in ["postgres", "kafka", "temporal", "temporal-ui"] {
        until_health(&stack, name, &Health::Ready);
    }
    // A workflow has an entry only in the indexes of attributes that it has a value for.
    let entered_always = "SELECT i.indexrelid::regclass FROM pg_index AS i
        JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[1]
        WHERE i.indrelid = 'executions_visibility'::regclass AND i.indpred IS NULL AND NOT a.attnotnull";
    let indexes = ask_in(&stack, "temporal", "temporal_visibility", entered_always);
    assert!(indexes.is_empty(), "{indexes:?}");
    let by_keyword = "SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'by_keyword_0%'";
    let indexes = ask_in(&stack, "temporal", "temporal_visibility", by_keyword);
    assert_eq!(indexes, [["9"]], "none of them is lost");
    ask(&stack, "CREATE TABLE kept (id int)");
    ask(&stack, "INSERT INTO kept VALUES (7)");

    let kafka = stack.ports().get("kafka").unwrap();
    stack.kill("kafka").unwrap();
    assert!(probe::kafka_answers(kafka).is_err());
    assert!(!stack.is_running("kafka"));
    stack.restart("kafka").unwrap();
    until_well(|| probe::kafka_answers(kafka));

    stack.kill("postgres").unwrap();
    assert_eq!(health(&stack, "postgres"), Health::Ended("killed".into()));
    stack.restart("postgres").unwrap();
    assert_eq!(ask(&stack, "SELECT id FROM kept"), [["7"]]);

    let http = stack.ports().get("temporal-http").unwrap();
    let namespace = format!("http://127.0.0.1:{http}/api/v1/namespaces/trial");
    stack.kill("temporal").unwrap();
    assert!(probe::http_answers(&namespace).is_err());
    stack.restart("temporal").unwrap();
    until_well(|| probe::http_answers(&namespace));

    stack.pause("postgres").unwrap();
    until_health(&stack, "postgres", &Health::Paused);
    stack.resume("postgres").unwrap();
    stack.wait_ready("postgres", LIMIT).unwrap();

    let pids =
        ["postgres", "kafka", "temporal", "temporal-ui"].map(|name| stack.pid(name).unwrap());
    drop(stack);
    for pid in pids {
        assert!(!runs(pid), "process {pid} outlived its stack");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

fn runs(pid: i32) -> bool {
    let output = std::process::Command::new("kill")
        .args(["-0", &pid.to_string()])
        .output();
    output.unwrap().status.success()
}

/// A stack without components, for what concerns services alone.
fn bare(name: &str, ports: u16) -> Stack {
    let builder = Stack::builder()
        .ports(ports)
        .data_dir(data_dir(name))
        .components(&[]);
    builder.fresh().start().unwrap()
}

#[test]
fn a_service_that_dies_at_its_start_leaves_its_last_words() {
    let stack = bare("dying", port_base() + 100);
    let mut service = Service::new("dying", "sh");
    service.args = vec!["-c".into(), "echo the wheel is broken; exit 3".into()];
    service.ready_url = Some(format!("http://{}/", stack.address("temporal-ui").unwrap()));
    let message = stack.start_service(service).unwrap_err().to_string();
    assert!(message.contains("the wheel is broken"), "{message}");
    assert!(message.contains("exit status 3"), "{message}");
    stack.end_all().unwrap();
    stack.wipe().unwrap();
}

#[test]
fn a_service_is_started_again_only_when_it_has_changed() {
    let stack = bare("changing", port_base() + 200);
    let service = |seconds: &str| {
        let mut service = Service::new("sleeper", "sleep");
        service.args = vec![seconds.into()];
        service
    };
    stack.start_service(service("600")).unwrap();
    let first = stack.pid("sleeper").unwrap();
    stack.start_service(service("600")).unwrap();
    assert_eq!(stack.pid("sleeper").unwrap(), first);
    stack.start_service(service("601")).unwrap();
    assert_ne!(stack.pid("sleeper").unwrap(), first);
    stack.stop("sleeper").unwrap();
    assert_eq!(health(&stack, "sleeper"), Health::Ended("stopped".into()));
    stack.end_all().unwrap();
    stack.wipe().unwrap();
    assert!(!Path::new(stack.data_dir()).exists());
}

#[test]
fn a_taken_port_is_refused_before_anything_starts() {
    let base = port_base() + 300;
    let _taken = std::net::TcpListener::bind(("127.0.0.1", base + 10)).unwrap();
    let stack = Stack::builder()
        .ports(base)
        .data_dir(data_dir("taken"))
        .components(&[Component::Postgres]);
    let message = stack.start().unwrap_err().to_string();
    assert!(message.contains(&(base + 10).to_string()), "{message}");
    assert!(message.contains("MEED_POSTGRES_PORT"), "{message}");
    std::fs::remove_dir_all(data_dir("taken")).unwrap();
}
