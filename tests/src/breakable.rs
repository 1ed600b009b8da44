//! Whole systems on stacks of their own, for journeys that take components away: everybody else's
//! stay as they are. There are two, each for one journey at a time.

use std::{
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use serde_json::Value;
use stack::Service;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    components::{Components, configuration, plan, set_up, started},
    system::{BACK_WITHIN, System, bring_back, system_on},
};

/// Where their blocks of ports are, counted from the shared one.
const BLOCKS: [u16; 2] = [6, 7];
/// Everything that a journey may end, in the order in which it is brought back.
const PROCESSES: [&str; 7] = [
    "postgres", "redis", "kafka", "temporal", "partners", "worker", "api",
];
/// How far the port of its Redis is from the first of its block.
const REDIS_OFFSET: u16 = 7;

/// How many systems work at a time; more are too many for two cores.
pub(crate) static PLACES: Semaphore = Semaphore::const_new(BLOCKS.len());
static TAKEN: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static STARTED: [OnceLock<&Components>; BLOCKS.len()] = [const { OnceLock::new() }; BLOCKS.len()];

/// A system of its own is in use.
struct Place {
    number: usize,
    _permit: SemaphorePermit<'static>,
}

impl Place {
    async fn take() -> Self {
        let permit = PLACES.acquire().await.expect("it is never closed");
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let number = (0..BLOCKS.len())
            .find(|number| !taken.contains(number))
            .expect("there is a place for each permit");
        taken.push(number);
        Self {
            number,
            _permit: permit,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|number| *number != self.number);
    }
}

/// A system whose components may be ended: PostgreSQL, Redis, Kafka, Temporal, partners, worker and api,
/// with times so short that what was cut off goes on soon. Nobody acknowledges tier upgrades.
///
/// # Panics
/// When it cannot be had.
pub async fn breakable() -> System {
    let place = Place::take().await;
    let number = place.number;
    let components = tokio::task::spawn_blocking(move || {
        let components = STARTED[number].get_or_init(|| Box::leak(Box::new(begin(number))));
        bring_back(&components.stack, &PROCESSES);
        *components
    })
    .await
    .expect("the system starts");
    system_on(components, Box::new(place)).await
}

fn begin(number: usize) -> Components {
    let components = started(BLOCKS[number]);
    set_up(&components.env, &["migrate"]);
    set_up(&components.env, &["topics", "apply"]);
    std::fs::write(config(&components), quick()).expect("the configuration is written");
    components
        .stack
        .start_service(redis(&components))
        .expect("redis-server, which ./dev test installs, starts");
    for name in ["partners", "worker", "api"] {
        let service = service(&components, name);
        components
            .stack
            .start_service(service)
            .expect("the service starts");
    }
    components
}

fn redis_port(components: &Components) -> u16 {
    components.stack.ports().base() + REDIS_OFFSET
}

/// A Redis that keeps nothing when it ends.
fn redis(components: &Components) -> Service {
    let port = redis_port(components);
    let mut redis = Service::new("redis", "redis-server");
    redis.args = [
        "--bind",
        "127.0.0.1",
        "--port",
        &port.to_string(),
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    .map(str::to_owned)
    .into();
    redis.port = Some(port);
    redis
}

/// A service of the plan with this system's configuration.
fn service(components: &Components, name: &str) -> Service {
    let stack = &components.stack;
    let mut service = plan()
        .service(name, stack.ports(), &stack.env())
        .expect("the plan has it");
    let config = config(components).display().to_string();
    service.env.push(("MEED_CONFIG".to_owned(), config));
    let redis = format!("redis://127.0.0.1:{}", redis_port(components));
    service.env.push(("REDIS_URL".to_owned(), redis));
    service
}

/// Where the configuration is, written once: a process that starts may be reading it.
fn config(components: &Components) -> PathBuf {
    components.stack.data_dir().join("breakable.toml")
}

/// The configuration of the dev profile with short times: what has not moved for three seconds is
/// looked at again, and a merchant is asked for eight. M5 and M6, whose word tests wait for, have
/// time on any machine, and so have those who acknowledge upgrades.
fn quick() -> String {
    configuration(&[
        ("requeue_after_seconds = 4", "requeue_after_seconds = 2"),
        ("stale_after_seconds = 60", "stale_after_seconds = 3"),
        ("stale_after_seconds = 360", "stale_after_seconds = 3"),
        ("confirm_within_seconds = 30", "confirm_within_seconds = 8"),
        (
            "acknowledge_within_seconds = 300",
            "acknowledge_within_seconds = 3600",
        ),
        ("confirm_within_ms = 3000", "confirm_within_ms = 60000"),
        (
            "callback_within_ms = 3000",
            "confirm_within_ms = 60000\ncallback_within_ms = 800000",
        ),
    ])
}

/// What is done to a process.
#[derive(Debug, Clone, Copy)]
pub enum Blow {
    /// `SIGKILL`.
    Kill,
    /// `SIGSTOP`.
    Pause,
    /// `SIGCONT`.
    Resume,
    /// Started again after it was killed.
    Restart,
    /// Waited for until it serves.
    Await,
}

impl System {
    /// Does something to a process.
    ///
    /// # Panics
    /// When it cannot be done.
    pub async fn blow(&self, name: &'static str, blow: Blow) {
        let stack = &self.components.stack;
        tokio::task::spawn_blocking(move || match blow {
            Blow::Kill => stack.kill(name),
            Blow::Pause => stack.pause(name),
            Blow::Resume => stack.resume(name),
            Blow::Restart => stack.restart(name),
            Blow::Await => stack.wait_ready(name, BACK_WITHIN),
        })
        .await
        .expect("it is done")
        .unwrap_or_else(|error| panic!("{blow:?} {name}: {error:#}"));
    }

    /// Starts a process again that was killed, and does not wait until it serves.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn begin(&self, name: &'static str) {
        let mut begun = service(self.components, name);
        begun.ready_url = None;
        let stack = &self.components.stack;
        tokio::task::spawn_blocking(move || stack.start_service(begun))
            .await
            .expect("it is started")
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }

    /// Starts a second process of `name` that listens on a port of its own: its address.
    ///
    /// # Panics
    /// When it does not serve.
    pub async fn start_second(&self, name: &'static str) -> String {
        let components = self.components;
        let (listen, ready, offset) = match name {
            "api" => ("MEED_API_LISTEN", "/health/ready", 8),
            _ => ("MEED_WORKER_LISTEN", "/health/ready", 9),
        };
        let address = format!("127.0.0.1:{}", components.stack.ports().base() + offset);
        let url = format!("http://{address}");
        let mut second = service(components, name);
        second.name = second_name(name).to_owned();
        second.ready_url = Some(format!("{url}{ready}"));
        second.port = None;
        second.env.push((listen.to_owned(), address));
        let grpc = format!("127.0.0.1:{}", components.stack.ports().base() + 6);
        second.env.push(("MEED_GRPC_LISTEN".to_owned(), grpc));
        tokio::task::spawn_blocking(move || components.stack.start_service(second))
            .await
            .expect("it is started")
            .unwrap_or_else(|error| panic!("a second {name}: {error:#}"));
        url
    }

    /// What `/health/live` and `/health/ready` of a service say: the status of the first, and
    /// status and body of the second. Nothing when it does not answer.
    pub async fn health(&self, service: &str) -> Option<(u16, u16, Value)> {
        let base = match service {
            "api" => self.components.env["MEED_API_URL"].clone(),
            _ => format!("http://{}", self.components.env["MEED_WORKER_LISTEN"]),
        };
        let ask = async |path: &str| {
            let request = self.http.get(format!("{base}{path}"));
            request.timeout(Duration::from_secs(10)).send().await.ok()
        };
        let live = ask("/health/live").await?.status().as_u16();
        let ready = ask("/health/ready").await?;
        Some((live, ready.status().as_u16(), ready.json().await.ok()?))
    }
}

/// The name of the second process of a service.
pub const fn second_name(name: &str) -> &'static str {
    match name.as_bytes() {
        b"api" => "second-api",
        _ => "second-worker",
    }
}
