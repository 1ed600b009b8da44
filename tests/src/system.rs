//! The whole system as processes: the components, the partners, a worker, an api and an
//! acknowledger, started once for all journeys of a process.

use std::{
    collections::HashMap,
    process::Output,
    sync::OnceLock,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Header, Headers, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::{PgPool, postgres::PgPoolOptions};
use stack::Stack;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::components::{Components, components, configuration, plan, run_meed, set_up};

/// How long a journey may wait for something before it has failed.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// How long a process may take to serve again.
pub(crate) const BACK_WITHIN: Duration = Duration::from_secs(180);

/// What everything else stands on.
const COMPONENTS: [&str; 3] = ["postgres", "kafka", "temporal"];
/// The services, in the order they are started.
const SERVICES: [&str; 4] = ["partners", "worker", "api", "acknowledger"];

/// A message as it stands on a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its key.
    pub key: String,
    /// Its headers.
    pub headers: HashMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Published {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

/// The running system, as a client sees it.
pub struct System {
    /// The components and processes.
    pub components: &'static Components,
    /// An HTTP client.
    pub http: Client,
    /// The primary database, to look at.
    pub pool: PgPool,
    producer: FutureProducer,
    _turn: Turn,
}

/// Journeys run side by side, but not beside one that ends processes.
enum Turn {
    Shared {
        _guard: RwLockReadGuard<'static, ()>,
    },
    Alone {
        stack: &'static Stack,
        _guard: RwLockWriteGuard<'static, ()>,
    },
    /// On a stack of its own.
    Elsewhere { _place: Box<dyn Send + Sync> },
}

impl Drop for Turn {
    /// A journey that fails in the middle leaves no process ended or paused to those after it.
    fn drop(&mut self) {
        if let Self::Alone { stack, .. } = self
            && std::thread::panicking()
        {
            let stack = *stack;
            let back = std::thread::spawn(|| {
                bring_back(stack, &COMPONENTS);
                bring_back(stack, &SERVICES);
            });
            if back.join().is_err() {
                eprintln!("not everything came back: journeys after this one may fail too");
            }
        }
    }
}

/// Starts again which of these have ended, and lets the others go on, should they be paused.
///
/// # Panics
/// When one does not serve in time.
pub fn bring_back(stack: &Stack, names: &[&str]) {
    for name in names {
        if stack.is_running(name) {
            stack.resume(name).expect("it goes on");
        } else {
            stack.restart(name).expect("it starts again");
        }
    }
    for name in names {
        stack.wait_ready(name, BACK_WITHIN).expect("it serves");
    }
}

static TURNS: RwLock<()> = RwLock::const_new(());

fn processes() -> &'static Components {
    static STARTED: OnceLock<&'static Components> = OnceLock::new();
    STARTED.get_or_init(|| {
        let components = components();
        set_up(&components.env, &["migrate"]);
        set_up(&components.env, &["topics", "apply"]);
        // Where a merchant answers, a redemption comes to that on any machine.
        let patient = [(
            "confirm_within_seconds = 30",
            "confirm_within_seconds = 120",
        )];
        let config = components.stack.data_dir().join("meed.toml");
        std::fs::write(&config, configuration(&patient)).expect("the configuration is written");
        let config = config.display().to_string();
        let (plan, stack) = (plan(), &components.stack);
        for name in SERVICES {
            let service = plan.service(name, stack.ports(), &stack.env());
            let mut service = service.expect("the plan has it");
            service.env.push(("MEED_CONFIG".to_owned(), config.clone()));
            stack.start_service(service).expect("the service starts");
        }
        components
    })
}

/// The system, started by whoever asks first.
///
/// # Panics
/// When it cannot be had.
pub async fn system() -> System {
    let turn = Turn::Shared {
        _guard: TURNS.read().await,
    };
    open(shared_processes().await, turn).await
}

/// The system for one journey alone, which may end its processes.
///
/// # Panics
/// When it cannot be had.
pub async fn system_alone() -> System {
    let guard = TURNS.write().await;
    let components = shared_processes().await;
    let turn = Turn::Alone {
        stack: &components.stack,
        _guard: guard,
    };
    open(components, turn).await
}

/// A system on other components than the shared ones, for as long as `place` is held.
///
/// # Panics
/// When its parts do not answer.
pub async fn system_on(components: &'static Components, place: Box<dyn Send + Sync>) -> System {
    open(components, Turn::Elsewhere { _place: place }).await
}

async fn shared_processes() -> &'static Components {
    tokio::task::spawn_blocking(processes)
        .await
        .expect("the system starts")
}

async fn open(components: &'static Components, turn: Turn) -> System {
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .connect(&components.env["DATABASE_URL"])
        .await
        .expect("the database answers");
    let producer = ClientConfig::new()
        .set("bootstrap.servers", &components.env["KAFKA_BROKERS"])
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .set("message.max.bytes", "2097152")
        .create()
        .expect("a producer");
    System {
        components,
        http: Client::new(),
        pool,
        producer,
        _turn: turn,
    }
}

/// An id that no other test uses.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::new_v4().simple())
}

/// Sends a request, and again for as long as the answer is to come again: on a machine that has too
/// much to do that is no more than what a client does. Who is after such an answer sends once.
///
/// # Panics
/// When nobody answers.
pub async fn patiently(request: RequestBuilder) -> Response {
    let started = Instant::now();
    loop {
        let once = request.try_clone().expect("a body that is in memory");
        let answer = once.send().await.expect("it is answered");
        let waits = matches!(
            answer.status(),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT
        ) && answer.headers().contains_key("retry-after");
        if !waits || started.elapsed() > PATIENCE {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

impl System {
    /// The api's address of this path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.components.env["MEED_API_URL"])
    }

    /// A token of the dev profile.
    ///
    /// # Panics
    /// When there is none to be had.
    pub async fn token(&self, subject: &str, scope: &str) -> String {
        let request = self
            .http
            .get(self.url("/dev/token"))
            .query(&[("sub", subject), ("scope", scope)]);
        let answer: Value = patiently(request).await.json().await.expect("JSON");
        answer["access_token"].as_str().expect("a token").to_owned()
    }

    /// A player's token of the dev profile.
    ///
    /// # Panics
    /// When there is none to be had.
    pub async fn player_token(&self, player: &str) -> String {
        let url = self.url("/dev/token");
        let request = self
            .http
            .get(url)
            .query(&[("sub", player), ("role", "player")]);
        let answer: Value = patiently(request).await.json().await.expect("JSON");
        answer["access_token"].as_str().expect("a token").to_owned()
    }

    /// A request with every scope that journeys need.
    ///
    /// # Panics
    /// When no token can be had.
    pub async fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let token = self
            .token(
                "journey",
                "rewards.read rewards.write rewards.redeem callbacks.write",
            )
            .await;
        let method = method.parse().expect("a method");
        self.http.request(method, self.url(path)).bearer_auth(token)
    }

    /// Reads an address.
    ///
    /// # Panics
    /// When the api does not answer with JSON.
    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = patiently(self.request("GET", path).await).await;
        (response.status(), response.json().await.expect("JSON"))
    }

    /// Reads an address, whatever the answer.
    ///
    /// # Panics
    /// When the api does not answer with JSON.
    pub async fn get_once(&self, path: &str) -> (StatusCode, Value) {
        let answer = self.request("GET", path).await.send().await;
        let response = answer.expect("the api answers");
        (response.status(), response.json().await.expect("JSON"))
    }

    /// Runs the operations program on this system, whatever comes of it.
    ///
    /// # Panics
    /// When it is missing.
    pub async fn run_meed(&self, arguments: &[&str]) -> Output {
        let components = self.components;
        let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        let run = move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            run_meed(&components.env, &arguments)
        };
        tokio::task::spawn_blocking(run).await.expect("it runs")
    }

    /// What a simulated merchant has booked.
    ///
    /// # Panics
    /// When it does not say.
    pub async fn merchant_book(&self, merchant: &str) -> Vec<Value> {
        let url = self.merchant_control(merchant) + "/book";
        let answer = self.http.get(url).send().await;
        let answer = answer.expect("the merchants answer");
        answer.json().await.expect("JSON")
    }

    fn merchant_control(&self, merchant: &str) -> String {
        let partners = &self.components.env["PARTNERS_URL"];
        format!("{partners}/control/merchants/{merchant}")
    }

    /// Tells a simulated merchant how to behave from now on.
    ///
    /// # Panics
    /// When it does not take it.
    pub async fn tell_merchant(&self, merchant: &str, how: &Value) {
        let told = self.http.put(self.merchant_control(merchant)).json(how);
        let answer = told.send().await.expect("the merchants answer");
        assert_eq!(answer.status(), 200);
    }

    /// Asks to redeem.
    ///
    /// # Panics
    /// When the api does not answer.
    pub async fn redeem(&self, key: &str, body: &Value) -> Response {
        let request = self.request("POST", "/api/v1/redeem").await;
        patiently(request.header("idempotency-key", key).json(body)).await
    }

    /// Waits for a redemption's end.
    ///
    /// # Panics
    /// When it has none in time.
    pub async fn ended(&self, id: &str) -> Value {
        let started = Instant::now();
        loop {
            let (status, view) = self.get(&format!("/api/v1/redeem/{id}?wait=5")).await;
            if status.is_success() && matches!(view["status"].as_str(), Some("SUCCESS" | "FAILED"))
            {
                return view;
            }
            assert!(started.elapsed() < PATIENCE, "redemption {id} stays {view}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Where messages go to Kafka, for whoever sends them beside this.
    pub fn outlet(&self) -> Outlet {
        Outlet(self.producer.clone())
    }

    /// Sends a message.
    ///
    /// # Panics
    /// When Kafka does not take it.
    pub async fn send(&self, topic: &str, key: &str, headers: &[(&str, &str)], body: &[u8]) {
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (name, value)| {
                all.insert(Header {
                    key: name,
                    value: Some(value.as_bytes()),
                })
            });
        self.producer
            .send(
                FutureRecord::to(topic)
                    .key(key)
                    .headers(headers)
                    .payload(body),
                Duration::from_secs(30),
            )
            .await
            .map_err(|(error, _)| error)
            .expect("Kafka takes it");
    }

    /// Sends a reward event of so many nights: 100 points each.
    ///
    /// # Panics
    /// When Kafka does not take it.
    pub async fn stay(&self, customer: &str, nights: u32) -> String {
        let id = unique("stay");
        let body = json!({
            "eventId": id, "eventType": "HOTEL_STAY", "customerId": customer,
            "timestamp": "2026-03-14T10:00:00Z", "payload": { "nights": nights }
        });
        self.send("reward-events", customer, &[], body.to_string().as_bytes())
            .await;
        id
    }

    /// A customer's available points as the ledger has them now, when there is an account: a copy
    /// would not know yet what another process has just done.
    ///
    /// # Panics
    /// When the api does not answer.
    pub async fn available(&self, customer: &str) -> Option<i64> {
        let request = self
            .request("GET", &format!("/api/v1/rewards/{customer}"))
            .await
            .header("cache-control", "no-cache");
        let response = patiently(request).await;
        let found = response.status().is_success();
        let view: Value = response.json().await.expect("JSON");
        found.then(|| view["totalPoints"].as_i64()).flatten()
    }

    /// A customer of this name who has points to spend.
    ///
    /// # Panics
    /// When they are not there in time.
    pub async fn customer_with(&self, nights: u32) -> String {
        let customer = unique("C");
        self.stay(&customer, nights).await;
        let points = i64::from(nights) * 100;
        self.until("the points arrive", async || {
            self.available(&customer).await == Some(points)
        })
        .await;
        customer
    }

    /// Waits until something is so.
    ///
    /// # Panics
    /// When it is not in time.
    pub async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let started = Instant::now();
        while !is_so().await {
            assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Everything on a topic that `wanted` picks.
    ///
    /// # Panics
    /// When Kafka does not answer.
    pub async fn published(
        &self,
        topic: &str,
        wanted: impl Fn(&Published) -> bool + Send + 'static,
    ) -> Vec<Published> {
        let brokers = self.components.env["KAFKA_BROKERS"].clone();
        let topic = topic.to_owned();
        tokio::task::spawn_blocking(move || read_topic(&brokers, &topic, wanted))
            .await
            .expect("the topic is read")
    }

    /// The same without repetitions: a message may be published twice, the same each time. A second
    /// effect would have other ids.
    ///
    /// # Panics
    /// When Kafka does not answer.
    pub async fn published_once(
        &self,
        topic: &str,
        wanted: impl Fn(&Published) -> bool + Send + 'static,
    ) -> Vec<Published> {
        let mut known: Vec<Published> = Vec::new();
        for message in self.published(topic, wanted).await {
            if !known.contains(&message) {
                known.push(message);
            }
        }
        known
    }

    /// Waits until `count` messages that `wanted` picks stand on a topic, repetitions not counted.
    ///
    /// # Panics
    /// When they do not in time.
    pub async fn await_published(
        &self,
        topic: &str,
        count: usize,
        wanted: impl Fn(&Published) -> bool + Clone + Send + 'static,
    ) -> Vec<Published> {
        let started = Instant::now();
        loop {
            let found = self.published_once(topic, wanted.clone()).await;
            if found.len() >= count {
                return found;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{} of {count} messages on {topic}",
                found.len()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Everything that must be true of the ledger is.
    ///
    /// # Panics
    /// When something is not.
    pub async fn assert_ledger_agrees(&self) {
        for check in store::verify::verify(&self.pool)
            .await
            .expect("the ledger is read")
        {
            assert_eq!(
                check.violations, 0,
                "{}: {:?}",
                check.property, check.examples
            );
        }
    }
}

/// Sends messages; while Kafka is away they wait.
#[derive(Clone)]
pub struct Outlet(FutureProducer);

impl Outlet {
    /// Sends JSON.
    ///
    /// # Panics
    /// When Kafka does not take it within minutes.
    pub async fn send(&self, topic: &str, key: &str, body: &Value) {
        let body = body.to_string();
        let record = FutureRecord::to(topic).key(key).payload(&body);
        self.0
            .send(record, Duration::from_secs(30))
            .await
            .map_err(|(error, _)| error)
            .expect("Kafka takes it");
    }
}

/// Reads a topic from its beginning to where it ended when this began.
fn read_topic(brokers: &str, topic: &str, wanted: impl Fn(&Published) -> bool) -> Vec<Published> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "journeys-reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .create()
        .expect("a consumer");
    let timeout = Duration::from_secs(60);
    let metadata = consumer
        .fetch_metadata(Some(topic), timeout)
        .expect("Kafka answers");
    let mut assignment = TopicPartitionList::new();
    let mut ends: HashMap<i32, i64> = HashMap::new();
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition.id(), timeout)
            .expect("offsets");
        if high > low {
            ends.insert(partition.id(), high);
            assignment
                .add_partition_offset(topic, partition.id(), Offset::Offset(low))
                .expect("an offset");
        }
    }
    if ends.is_empty() {
        return Vec::new();
    }
    consumer.assign(&assignment).expect("assigned");
    let mut found = Vec::new();
    while !ends.is_empty() {
        let message = consumer
            .poll(timeout)
            .expect("a message is there")
            .expect("it is readable");
        let published = Published {
            key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
            headers: message.headers().map(read_headers).unwrap_or_default(),
            body: message.payload().unwrap_or_default().to_vec(),
        };
        if wanted(&published) {
            found.push(published);
        }
        if ends
            .get(&message.partition())
            .is_some_and(|end| message.offset() + 1 >= *end)
        {
            ends.remove(&message.partition());
        }
    }
    found
}

fn read_headers(headers: &rdkafka::message::BorrowedHeaders) -> HashMap<String, String> {
    headers
        .iter()
        .map(|header| {
            let value = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
            (header.key.to_owned(), value)
        })
        .collect()
}
