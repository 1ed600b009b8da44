//! Deploys and the loss of a broker: processes are ended one after another under load, and no client notices.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    groups::GroupInfo,
};
use stack::Signal;
use tests::{
    own::{end, own_system},
    stalls,
    system::System,
};

use crate::rolling_load::Load;

/// Blocks of ports, counted from the shared one.
const ROLLING: u16 = 3;
const CLUSTER: u16 = 8;
/// How much must get done before the next process is ended.
const BETWEEN: usize = 30;

async fn blocking(work: impl FnOnce() -> Result<(), String> + Send + 'static) {
    let done = tokio::task::spawn_blocking(work).await;
    done.expect("it does not panic").expect("it is done");
}

/// Restarts a process; whether it had the time to end well that it is given, as the machine did not stand still.
async fn restart(system: &System, name: &'static str) -> bool {
    let began = Instant::now();
    let stack = &system.components.stack;
    blocking(move || stack.restart(name).map_err(|error| format!("{error:#}"))).await;
    !stalls::overlap(began, Instant::now())
}

/// Whether the machine stood still during a request, which nginx logs when it has ended, to the second.
fn is_of_a_stall(line: &str) -> bool {
    let times = || {
        let ended = DateTime::parse_from_rfc3339(line.split(' ').next()?).ok()?;
        let took: f64 = line.rsplit(' ').next()?.parse().ok()?;
        let took = Duration::try_from_secs_f64(took).ok()?;
        Some((ended.to_utc(), TimeDelta::from_std(took).ok()?))
    };
    let second = TimeDelta::seconds(1);
    times()
        .is_some_and(|(ended, took)| stalls::overlap_in_log(ended - took - second, ended + second))
}

fn log(system: &System, name: &str) -> String {
    let file = system.components.stack.log_file(name).expect("a log");
    std::fs::read_to_string(file).expect("it is readable")
}

/// How many partitions each member of the intake's group reads.
fn partitions_of_members(brokers: &str) -> Vec<usize> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .expect("a client");
    // Whoever waits for them asks again.
    let Ok(groups) = consumer.fetch_group_list(Some("meed-intake"), Duration::from_secs(10)) else {
        return Vec::new();
    };
    let members = groups.groups().iter().flat_map(GroupInfo::members);
    members
        .map(|member| count_partitions(member.assignment().unwrap_or_default()))
        .collect()
}

/// Version, then per topic its name and the numbers of its partitions, all counts big-endian.
fn count_partitions(assignment: &[u8]) -> usize {
    let number = |at: usize, bytes: usize| {
        let bytes = assignment.get(at..at + bytes)?;
        Some(
            bytes
                .iter()
                .fold(0, |sum, byte| sum * 256 + usize::from(*byte)),
        )
    };
    let count = || {
        let (mut at, mut count) = (6, 0);
        for _ in 0..number(2, 4)? {
            at += 2 + number(at, 2)?;
            let partitions = number(at, 4)?;
            count += partitions;
            at += 4 + 4 * partitions;
        }
        Some(count)
    };
    count().unwrap_or_default()
}

#[tokio::test]
async fn a_rolling_restart_of_two_apis_and_two_workers_is_noticed_by_nobody() {
    let system = own_system(ROLLING, |builder| {
        builder
            .replicas(2)
            .variable("MEED_API_DRAIN_PAUSE_SECONDS", "10")
    });
    let system = Arc::new(system.await);
    let stack = &system.components.stack;
    let load = Load::begin(&system).await;
    load.until_more(BETWEEN).await;

    let mut had_time = Vec::new();
    for name in ["api", "api-2"] {
        // First it says that it leaves, and serves still.
        stack.signal(name, Signal::SIGTERM).expect("it runs");
        let direct = stack.address(name).expect("an address");
        let ready = format!("http://{direct}/health/ready");
        system
            .until("readiness says so", async || {
                let answer = system.http.get(&ready).send().await;
                let answer = answer.expect("it serves until it is not asked any more");
                answer.status() == 503
            })
            .await;
        if restart(&system, name).await {
            had_time.push(name);
        }
        load.until_more(BETWEEN).await;
    }
    for name in ["worker", "worker-2"] {
        if restart(&system, name).await {
            had_time.push(name);
        }
        load.until_more(BETWEEN).await;
    }

    // The two share the partitions again.
    let brokers = system.components.env["KAFKA_BROKERS"].clone();
    system
        .until("both workers have partitions", async || {
            let brokers = brokers.clone();
            let members = tokio::task::spawn_blocking(move || partitions_of_members(&brokers));
            let members = members.await.expect("asked");
            members.len() == 2 && members.iter().all(|count| *count > 0)
        })
        .await;
    load.until_more(BETWEEN).await;
    load.end_and_check().await;

    // Each ended by itself, with nothing left under way, and each had its part of the load.
    let access = stack.data_dir().join("nginx/access.log");
    let access = std::fs::read_to_string(access).expect("nginx's log");
    for name in ["api", "api-2"] {
        let log = log(&system, name);
        assert!(log.contains("meed_api: ended"), "{name}");
        assert!(
            !had_time.contains(&name) || !log.contains("still under way"),
            "{name}"
        );
        let address = stack.address(name).expect("an address");
        assert!(
            access
                .lines()
                .filter(|line| line.contains(&address))
                .count()
                > BETWEEN
        );
    }
    for name in ["worker", "worker-2"] {
        let log = log(&system, name);
        assert!(log.contains("the worker has stopped"), "{name}");
        assert!(
            !had_time.contains(&name) || !log.contains("did not finish"),
            "{name}"
        );
        assert!(log.contains("partitions assigned partitions=[("), "{name}");
    }
    let failed: Vec<&str> = access
        .lines()
        .filter(|line| line.split(' ').nth(1).is_none_or(|status| status >= "500"))
        .filter(|line| !line.contains("/health/") && !is_of_a_stall(line))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    end(Arc::into_inner(system).expect("the load has ended")).await;
}

#[tokio::test]
async fn a_broker_of_three_may_be_lost_under_load() {
    let system = Arc::new(own_system(CLUSTER, |builder| builder.brokers(3)).await);
    let load = Load::begin(&system).await;
    // Each takes its time to come back.
    let lost: &[&'static str] = if std::env::var_os("MEED_TEST_FULL").is_some() {
        &["kafka", "kafka-2", "kafka-3"]
    } else {
        &["kafka-2"]
    };
    for name in lost.iter().copied() {
        load.until_more(BETWEEN).await;
        let stack = &system.components.stack;
        blocking(move || stack.kill(name).map_err(|error| format!("{error:#}"))).await;
        // It goes on with two, and what comes meanwhile counts.
        load.until_more(BETWEEN).await;
        system.customer_with(1).await;
        restart(&system, name).await;
    }
    load.end_and_check().await;
    end(Arc::into_inner(system).expect("the load has ended")).await;
}
