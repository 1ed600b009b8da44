//! Very many players on one process of the api: what their sockets cost, and how soon they are told.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use reqwest::Client;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{system::unique, watcher::Watcher};

/// How many come at the same time.
const COME_AT_A_TIME: usize = 64;
/// How long after the last one has come the memory is measured.
const SETTLE: Duration = Duration::from_secs(5);
/// How long everybody may take to be told.
const TOLD_WITHIN: Duration = Duration::from_secs(120);
/// How many are told something one after the other.
const ONE_BY_ONE: usize = 200;

/// What is measured, and where.
#[derive(Debug, Clone)]
pub struct SocketBench {
    /// How many sockets, each of another player.
    pub sockets: usize,
    /// The address of one process of the api.
    pub api: String,
    /// Where Kafka is.
    pub brokers: String,
    /// That process, on this machine.
    pub pid: i32,
}

/// What was measured. Memory is what is resident, in MiB.
#[derive(Debug, Clone, Serialize)]
pub struct SocketFigures {
    /// How many sockets were open.
    pub sockets: usize,
    /// How long they took to come, in seconds.
    pub coming_seconds: f64,
    /// Memory before any was open.
    pub before_mib: f64,
    /// Memory with all of them open.
    pub open_mib: f64,
    /// Memory after everybody was told something.
    pub told_mib: f64,
    /// How long it took from the first message on Kafka until everybody was told, in seconds.
    pub everybody_seconds: f64,
    /// From the sending of a message to its arrival when one is told after the other: the median,
    /// in milliseconds.
    pub one_p50_ms: f64,
    /// The same, the 99th percentile.
    pub one_p99_ms: f64,
}

impl fmt::Display for SocketFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sockets open               {:>10}", self.sockets)?;
        writeln!(
            f,
            "coming                     {:>8.1} s",
            self.coming_seconds
        )?;
        writeln!(f, "memory before              {:>8.1} MiB", self.before_mib)?;
        writeln!(f, "memory with all of them    {:>8.1} MiB", self.open_mib)?;
        writeln!(f, "memory after telling all   {:>8.1} MiB", self.told_mib)?;
        writeln!(
            f,
            "telling everybody          {:>8.2} s",
            self.everybody_seconds
        )?;
        writeln!(f, "telling one, median        {:>8.1} ms", self.one_p50_ms)?;
        write!(f, "telling one, 99 %          {:>8.1} ms", self.one_p99_ms)
    }
}

/// A player who was told something, and when.
type Told = (usize, Instant);

impl SocketBench {
    /// Measures.
    ///
    /// # Panics
    /// When a socket is refused or ends, or somebody is not told in time.
    pub async fn run(&self) -> SocketFigures {
        let before_mib = self.memory();
        let players: Vec<String> = (0..self.sockets).map(|_| unique("P")).collect();
        let http = Client::new();
        let began = Instant::now();
        let (told, mut is_told) = mpsc::unbounded_channel::<Told>();
        let mut coming = stream::iter(players.iter().cloned().enumerate())
            .map(|(number, player)| {
                let (http, api) = (http.clone(), self.api.clone());
                async move {
                    let token = token(&http, &api, &player).await;
                    let watcher = Watcher::connect(&api, &token, 0).await;
                    (
                        number,
                        watcher.unwrap_or_else(|error| panic!("{player}: {error}")),
                    )
                }
            })
            .buffer_unordered(COME_AT_A_TIME);
        while let Some((number, watcher)) = coming.next().await {
            tokio::spawn(watch(number, watcher, told.clone()));
        }
        let coming_seconds = began.elapsed().as_secs_f64();
        tokio::time::sleep(SETTLE).await;
        let open_mib = self.memory();

        let outlet = Outlet::new(&self.brokers);
        let began = Instant::now();
        let sending = outlet.everybody(&players);
        let arriving = async {
            for _ in 0..self.sockets {
                is_told.recv().await.expect("somebody is told");
            }
        };
        let everybody = async { tokio::join!(sending, arriving) };
        let in_time = tokio::time::timeout(TOLD_WITHIN, everybody).await;
        in_time.expect("everybody is told in time");
        let everybody_seconds = began.elapsed().as_secs_f64();
        let told_mib = self.memory();

        let mut each = Vec::with_capacity(ONE_BY_ONE);
        for number in (0..self.sockets).cycle().take(ONE_BY_ONE) {
            let sent = Instant::now();
            outlet.one(&players[number]).await;
            let (who, at) = is_told.recv().await.expect("somebody is told");
            assert_eq!(who, number, "nobody else is told");
            each.push(at.duration_since(sent).as_secs_f64() * 1_000.0);
        }
        each.sort_by(f64::total_cmp);
        SocketFigures {
            sockets: self.sockets,
            coming_seconds,
            before_mib,
            open_mib,
            told_mib,
            everybody_seconds,
            one_p50_ms: each[ONE_BY_ONE / 2],
            one_p99_ms: each[ONE_BY_ONE * 99 / 100],
        }
    }

    /// What of the process is resident, in MiB.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid));
        let status = status.expect("the process runs here");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib: f64 = kib.and_then(|kib| kib.parse().ok()).expect("a number");
        kib / 1_024.0
    }
}

async fn token(http: &Client, api: &str, player: &str) -> String {
    let request = http.get(format!("{api}/dev/token"));
    let request = request.query(&[("sub", player), ("role", "player")]);
    let answer = request.send().await.expect("the api answers");
    let answer: Value = answer.json().await.expect("JSON");
    answer["access_token"].as_str().expect("a token").to_owned()
}

async fn watch(number: usize, mut watcher: Watcher, told: mpsc::UnboundedSender<Told>) {
    while let Ok(notifications) = watcher.next().await {
        for _ in notifications {
            let _ = told.send((number, Instant::now()));
        }
    }
}

struct Outlet(Arc<FutureProducer>);

impl Outlet {
    fn new(brokers: &str) -> Self {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .create();
        Self(Arc::new(producer.expect("a producer")))
    }

    async fn one(&self, player: &str) {
        let body = json!({
            "user_id": player, "eventType": "PROMOTION",
            "content": { "title": "Welcome", "description": "Fifty points to begin with" }
        });
        let (id, body) = (unique("n"), body.to_string());
        let headers = OwnedHeaders::new().insert(Header {
            key: "ce_id",
            value: Some(&id),
        });
        let record = FutureRecord::to("notifications").key(player);
        let record = record.headers(headers).payload(&body);
        let sent = self.0.send(record, Duration::from_secs(30)).await;
        sent.map_err(|(error, _)| error).expect("Kafka takes it");
    }

    async fn everybody(&self, players: &[String]) {
        let sending = stream::iter(players).map(|player| self.one(player));
        sending.buffer_unordered(1_000).collect::<Vec<()>>().await;
    }
}
