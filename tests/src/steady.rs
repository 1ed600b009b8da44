//! A small steady load of clients, merchants and acknowledgers that goes on while something is
//! away: every answer is kept, and at the end everything accepted must have come to its end once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use simulator::signature;
use tokio::{task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{
    stalls,
    system::{PATIENCE, System, unique},
};

/// After this long a request counts as one that hangs.
const HANGS_AFTER: Duration = Duration::from_secs(30);
/// What each customer of the load can spend.
const NIGHTS: u32 = 4;
/// How many customers redeem.
const CUSTOMERS: usize = 6;
/// The merchants of new redemptions: one confirms, one calls back, one fails at first.
const MERCHANTS: [&str; 3] = ["M1", "M2", "M7"];
/// The merchant whose callbacks are made here.
const CALLS_BACK_BY_HAND: &str = "M6";

/// A body of `POST /redeem`.
pub fn redemption(id: &str, customer: &str, points: i64, merchant: &str) -> Value {
    json!({
        "redeemRequestId": id, "customerId": customer, "requestedPoints": points,
        "merchantContext": { "merchantId": merchant, "orderId": format!("O-{id}") },
        "timestamp": "2026-03-14T10:00:00Z"
    })
}

/// One answer of the api, or none.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What was asked.
    pub what: &'static str,
    /// When.
    pub asked: Instant,
    /// How long it took.
    pub took: Duration,
    /// The status; nothing when there was no answer at all.
    pub status: Option<u16>,
    /// Whether `Retry-After` says when to come again.
    pub says_when: bool,
    /// Whether it is a problem document.
    pub is_problem: bool,
    /// The body.
    pub body: Value,
}

impl Answer {
    /// Whether the machine stood still meanwhile, so that it says nothing about the api.
    pub fn is_of_a_stall(&self) -> bool {
        stalls::overlap(self.asked, self.asked + self.took)
    }

    /// Done, or refused in a way that a client can work with.
    fn is_polite(&self) -> bool {
        let code = self.body["code"].as_str();
        match (self.status, code) {
            (Some(200 | 202), _) => true,
            (Some(503), Some(_)) | (Some(409), Some("REQUEST_IN_PROGRESS")) => {
                self.says_when && self.is_problem
            }
            (Some(409), Some("ALREADY_ENDED")) => self.what == "cancel",
            _ => false,
        }
    }
}

async fn ask(what: &'static str, request: RequestBuilder) -> Answer {
    let asked = Instant::now();
    let mut answer = Answer {
        what,
        asked,
        took: Duration::ZERO,
        status: None,
        says_when: false,
        is_problem: false,
        body: Value::Null,
    };
    match request.timeout(HANGS_AFTER).send().await {
        Ok(response) => {
            answer.status = Some(response.status().as_u16());
            answer.says_when = response.headers().contains_key("retry-after");
            answer.is_problem = response
                .headers()
                .get("content-type")
                .is_some_and(|kind| kind == "application/problem+json");
            answer.body = response.json().await.unwrap_or_default();
        }
        Err(error) => answer.body = json!(format!("{error:?}")),
    }
    answer.took = asked.elapsed();
    answer
}

/// What the load has asked for and been told.
#[derive(Default)]
struct Book {
    answers: Vec<Answer>,
    /// Redemptions that were answered with 202 or sent over Kafka, and whose.
    accepted: BTreeMap<String, String>,
    /// Bodies of those that were not.
    refused: Vec<Value>,
    cancelled: BTreeSet<String>,
    /// Callbacks of merchants and of tier upgrades that have not been answered.
    partner_callbacks: VecDeque<String>,
    acknowledgements: VecDeque<String>,
    /// Events sent, by customer.
    events: HashMap<String, i64>,
}

/// The load.
pub struct Steady {
    book: Arc<Mutex<Book>>,
    desk: Desk,
    customers: Vec<String>,
    stop: CancellationToken,
    rounds: JoinSet<()>,
}

/// How the api is asked.
#[derive(Clone)]
struct Desk {
    http: Client,
    api: String,
    token: String,
}

impl Desk {
    fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = method.parse().expect("a method");
        let url = format!("{}{path}", self.api);
        self.http.request(method, url).bearer_auth(&self.token)
    }

    async fn redeem(&self, body: &Value) -> Answer {
        let id = body["redeemRequestId"].as_str().expect("an id");
        let request = self.request("POST", "/api/v1/redeem");
        ask("redeem", request.header("idempotency-key", id).json(body)).await
    }

    async fn cancel(&self, id: &str) -> Answer {
        let request = self.request("POST", &format!("/api/v1/redeem/{id}/cancel"));
        ask(
            "cancel",
            request.header("idempotency-key", format!("cancel-{id}")),
        )
        .await
    }

    async fn call_back(&self, callback: &str) -> Answer {
        let body = json!({ "status": "CONFIRMED", "confirmationId": "by-hand" }).to_string();
        let now = chrono::Utc::now().timestamp();
        let key = format!("dev-key-{CALLS_BACK_BY_HAND}");
        let signed = signature::sign(&key, now, body.as_bytes());
        let url = format!("{}/api/v1/partner-callbacks/{callback}", self.api);
        let request = self
            .http
            .post(url)
            .header("content-type", "application/json");
        let request = request
            .header(signature::TIMESTAMP_HEADER, now)
            .header(signature::SIGNATURE_HEADER, signed);
        ask("partner callback", request.body(body)).await
    }

    async fn acknowledge(&self, callback: &str) -> Answer {
        let path = format!("/api/v1/callbacks/{callback}/success");
        ask("acknowledgement", self.request("POST", &path)).await
    }
}

fn locked(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does something over and over, without waiting for one to end before the next begins.
async fn rounds<F>(every: Duration, stop: CancellationToken, mut round: impl FnMut(usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut under_way = JoinSet::new();
    let mut ticks = tokio::time::interval(every);
    // Where the machine stood still, not everything at once after that.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {
                under_way.spawn(round(number));
                number += 1;
            }
        }
    }
    while let Some(ended) = under_way.join_next().await {
        ended.expect("a round of the load ends well");
    }
}

impl Steady {
    /// Makes customers, redemptions that wait for their merchant and upgrades that wait for their
    /// acknowledgement, enough of them for an outage of this length, and begins.
    ///
    /// # Panics
    /// When something that works before the outage does not.
    pub async fn begin(system: &System, outage: Duration) -> Self {
        stalls::watch();
        let desk = Desk {
            http: Client::new(),
            api: system.components.env["MEED_API_URL"].clone(),
            token: system
                .token(
                    "steady",
                    "rewards.read rewards.write rewards.redeem callbacks.write",
                )
                .await,
        };
        let waiting = usize::try_from(outage.as_secs() / 2).unwrap_or(0).max(4);
        let customers: Vec<String> = (0..CUSTOMERS).map(|_| unique("C")).collect();
        for customer in &customers {
            system.stay(customer, NIGHTS).await;
        }
        let climbers: Vec<String> = (0..waiting).map(|_| unique("T")).collect();
        for climber in &climbers {
            system.stay(climber, 5).await;
        }
        system
            .until("every customer has points", async || {
                for customer in &customers {
                    if system.available(customer).await.is_none() {
                        return false;
                    }
                }
                true
            })
            .await;
        let mut book = Book::default();
        let mut by_hand = Vec::new();
        for number in 0..waiting {
            let customer = &customers[number % CUSTOMERS];
            let id = unique("R");
            let body = redemption(&id, customer, 1, CALLS_BACK_BY_HAND);
            let answers = until_done(202, async || desk.redeem(&body).await).await;
            book.answers.extend(answers);
            book.accepted.insert(id.clone(), customer.clone());
            by_hand.push(id);
        }
        book.partner_callbacks = callbacks(
            system,
            "SELECT callback_id FROM redemptions
             WHERE state = 'AWAITING_CALLBACK' AND redeem_request_id = ANY($1)",
            &by_hand,
        )
        .await;
        book.acknowledgements = callbacks(
            system,
            "SELECT callback_id FROM tier_orders
             WHERE callback_id IS NOT NULL AND customer_id = ANY($1)",
            &climbers,
        )
        .await;
        let mut steady = Self {
            book: Arc::new(Mutex::new(book)),
            desk,
            customers,
            stop: CancellationToken::new(),
            rounds: JoinSet::new(),
        };
        steady.begin_rounds();
        steady.begin_events(system);
        steady
    }

    fn begin_rounds(&mut self) {
        let ms = Duration::from_millis;
        let customers = self.customers.clone();
        let (desk, book) = (self.desk.clone(), Arc::clone(&self.book));
        self.every(ms(250), move |number| {
            let (desk, book) = (desk.clone(), Arc::clone(&book));
            let customer = customers[number % CUSTOMERS].clone();
            async move {
                let id = unique("R");
                let merchant = MERCHANTS[number % MERCHANTS.len()];
                let body = redemption(&id, &customer, 1, merchant);
                let answer = desk.redeem(&body).await;
                let is_accepted = answer.status == Some(202);
                {
                    let mut book = locked(&book);
                    book.answers.push(answer);
                    if is_accepted {
                        book.accepted.insert(id.clone(), customer);
                    } else {
                        book.refused.push(body);
                    }
                }
                // M2 may have sent its callback when it is told to void: rightly reported, but not
                // what this is about.
                if is_accepted && number % 4 == 3 && merchant != "M2" {
                    let answer = desk.cancel(&id).await;
                    let mut book = locked(&book);
                    if answer.status == Some(202) {
                        book.cancelled.insert(id);
                    }
                    book.answers.push(answer);
                }
            }
        });
        let (desk, book) = (self.desk.clone(), Arc::clone(&self.book));
        self.every(ms(300), move |number| {
            let (desk, book) = (desk.clone(), Arc::clone(&book));
            async move {
                let id = {
                    let book = locked(&book);
                    let place = number * 7 % book.accepted.len().max(1);
                    book.accepted.keys().nth(place).cloned()
                };
                let Some(id) = id else { return };
                let wait = if number % 4 == 0 { "?wait=1" } else { "" };
                let request = desk.request("GET", &format!("/api/v1/redeem/{id}{wait}"));
                let mut answer = ask("status", request).await;
                if answer.status == Some(404) && id.starts_with("K-") {
                    // It came by Kafka and has not arrived yet.
                    answer.status = Some(200);
                }
                locked(&book).answers.push(answer);
            }
        });
        let customers = self.customers.clone();
        let (desk, book) = (self.desk.clone(), Arc::clone(&self.book));
        self.every(ms(500), move |number| {
            let (desk, book) = (desk.clone(), Arc::clone(&book));
            let path = format!("/api/v1/rewards/{}", customers[number % CUSTOMERS]);
            async move {
                let answer = ask("balance", desk.request("GET", &path)).await;
                locked(&book).answers.push(answer);
            }
        });
        let (desk, book) = (self.desk.clone(), Arc::clone(&self.book));
        self.every(ms(2_000), move |_| {
            let (desk, book) = (desk.clone(), Arc::clone(&book));
            async move {
                let callback = locked(&book).partner_callbacks.pop_front();
                if let Some(callback) = callback {
                    let answer = desk.call_back(&callback).await;
                    let mut book = locked(&book);
                    if answer.status != Some(200) {
                        book.partner_callbacks.push_back(callback);
                    }
                    book.answers.push(answer);
                }
                let callback = locked(&book).acknowledgements.pop_front();
                if let Some(callback) = callback {
                    let answer = desk.acknowledge(&callback).await;
                    let mut book = locked(&book);
                    if answer.status != Some(200) {
                        book.acknowledgements.push_back(callback);
                    }
                    book.answers.push(answer);
                }
            }
        });
    }

    fn every<F>(&mut self, every: Duration, round: impl FnMut(usize) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.rounds.spawn(rounds(every, self.stop.clone(), round));
    }

    /// Events and requests to redeem through Kafka. While it is away they wait in the producer.
    fn begin_events(&mut self, system: &System) {
        let earners: Vec<String> = (0..4).map(|_| unique("E")).collect();
        let (book, customers) = (Arc::clone(&self.book), self.customers.clone());
        let outlet = system.outlet();
        self.every(Duration::from_millis(300), move |number| {
            let earner = earners[number % earners.len()].clone();
            let customer = customers[number % CUSTOMERS].clone();
            *locked(&book).events.entry(earner.clone()).or_default() += 1;
            let event = json!({
                "eventId": unique("dinner"), "eventType": "DINING", "customerId": earner,
                "timestamp": "2026-03-14T10:00:00Z",
                "payload": { "amount": "10", "currency": "USD" }
            });
            let id = unique("K");
            let request = redemption(&id, &customer, 1, MERCHANTS[number % MERCHANTS.len()]);
            let redeems = number % 4 == 0;
            if redeems {
                locked(&book).accepted.insert(id, customer.clone());
            }
            let outlet = outlet.clone();
            async move {
                outlet.send("reward-events", &earner, &event).await;
                if redeems {
                    outlet.send("redeem-events", &customer, &request).await;
                }
            }
        });
    }

    /// The answers so far to what was asked since then.
    pub fn answers_since(&self, since: Instant) -> Vec<Answer> {
        let book = locked(&self.book);
        let since = book.answers.iter().filter(|answer| answer.asked >= since);
        since.cloned().collect()
    }

    /// Ends the load when everything is there again: what was refused is asked for again until it
    /// is accepted, and then everything accepted must come to its end, once, and agree with the
    /// ledger, the merchants and what was published.
    ///
    /// # Panics
    /// When something was lost, happened twice, was answered impolitely or hung.
    pub async fn end(mut self, system: &System) {
        self.stop.cancel();
        while let Some(ended) = self.rounds.join_next().await {
            ended.expect("the load ends well");
        }
        self.insist().await;
        let book = std::mem::take(&mut *locked(&self.book));
        let impolite: Vec<&Answer> = book.answers.iter().filter(|a| !a.is_polite()).collect();
        assert!(
            impolite.is_empty(),
            "{} of {} answers, such as {:#?}",
            impolite.len(),
            book.answers.len(),
            &impolite[..impolite.len().min(5)]
        );

        let mut spent: HashMap<&str, i64> = HashMap::new();
        let mut views = BTreeMap::new();
        for (id, customer) in &book.accepted {
            let view = system.ended(id).await;
            assert!(
                view["status"] == "SUCCESS"
                    || view["reason"] == "PARTNER_TIMEOUT"
                    || (view["reason"] == "CANCELLED" && book.cancelled.contains(id)),
                "{view}"
            );
            *spent.entry(customer).or_default() += view["pointsDeducted"].as_i64().expect("points");
            views.insert(id.clone(), view);
        }
        for customer in &self.customers {
            let expected = i64::from(NIGHTS) * 100 - spent.get(customer.as_str()).unwrap_or(&0);
            assert_eq!(
                system.available(customer).await,
                Some(expected),
                "{customer}"
            );
        }
        for (earner, events) in &book.events {
            let what = format!("{earner} has the points of {events} events");
            system
                .until(&what, async || {
                    system.available(earner).await == Some(3 * events)
                })
                .await;
        }
        Self::assert_merchants_agree(system, &views).await;
        self.assert_published(system, &views).await;
        let earned = book.events.values().sum::<i64>();
        let earners: BTreeSet<String> = book.events.into_keys().collect();
        let confirmed = system
            .await_published(
                "reward-confirmed",
                usize::try_from(earned).expect("few"),
                move |message| earners.contains(&message.key),
            )
            .await;
        let events: BTreeSet<String> = confirmed
            .iter()
            .map(|message| message.json()["sourceEventId"].to_string())
            .collect();
        assert_eq!(i64::try_from(events.len()).expect("few"), earned);
        system.assert_ledger_agrees().await;
        tell(&book.answers);
    }

    /// Asks again for what was refused, as a client would.
    async fn insist(&self) {
        let (refused, callbacks, acknowledgements) = {
            let mut book = locked(&self.book);
            (
                std::mem::take(&mut book.refused),
                std::mem::take(&mut book.partner_callbacks),
                std::mem::take(&mut book.acknowledgements),
            )
        };
        for body in refused {
            let answers = until_done(202, async || self.desk.redeem(&body).await).await;
            locked(&self.book).answers.extend(answers);
            let id = body["redeemRequestId"].as_str().expect("an id").to_owned();
            let customer = body["customerId"].as_str().expect("an id").to_owned();
            locked(&self.book).accepted.insert(id, customer);
        }
        for callback in callbacks {
            let answers = until_done(200, async || self.desk.call_back(&callback).await).await;
            locked(&self.book).answers.extend(answers);
        }
        for callback in acknowledgements {
            let answers = until_done(200, async || self.desk.acknowledge(&callback).await).await;
            locked(&self.book).answers.extend(answers);
        }
    }

    /// What a merchant has confirmed was deducted, and nothing else.
    async fn assert_merchants_agree(system: &System, views: &BTreeMap<String, Value>) {
        for merchant in MERCHANTS {
            let book = system.merchant_book(merchant).await;
            let confirmed: BTreeSet<&str> = book
                .iter()
                .filter(|entry| entry["status"] == "CONFIRMED")
                .filter_map(|entry| entry["redeemRequestId"].as_str())
                .collect();
            for (id, view) in views {
                if view["merchantContext"]["merchantId"] == merchant {
                    let deducted = view["status"] == "SUCCESS";
                    assert_eq!(confirmed.contains(id.as_str()), deducted, "{view}");
                }
            }
        }
    }

    /// Each outcome was published, and always the same one.
    async fn assert_published(&self, system: &System, views: &BTreeMap<String, Value>) {
        let customers: BTreeSet<String> = self.customers.iter().cloned().collect();
        let published = system
            .await_published("redeem-confirmed", views.len(), move |message| {
                customers.contains(&message.key)
            })
            .await;
        let mut outcomes: BTreeMap<String, Value> = BTreeMap::new();
        for message in published {
            let message = message.json();
            let id = message["redeemRequestId"]
                .as_str()
                .expect("an id")
                .to_owned();
            let view = views
                .get(&id)
                .unwrap_or_else(|| panic!("nobody asked for {id}"));
            assert_eq!(message["status"], view["status"], "{message}");
            if let Some(before) = outcomes.insert(id, message.clone()) {
                assert_eq!(before, message);
            }
        }
        assert_eq!(outcomes.len(), views.len());
    }
}

/// Asks until it is answered with this status, as a client would; all answers.
async fn until_done(status: u16, ask: impl AsyncFn() -> Answer) -> Vec<Answer> {
    let started = Instant::now();
    let mut answers = Vec::new();
    loop {
        let answer = ask().await;
        let is_done = answer.status == Some(status);
        assert!(
            is_done || started.elapsed() < PATIENCE,
            "refused for good: {answer:?}"
        );
        answers.push(answer);
        if is_done {
            return answers;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Shows how often each question was answered how, and how long the longest took.
fn tell(answers: &[Answer]) {
    let mut kinds: BTreeMap<(&str, Option<u16>), (u32, Duration)> = BTreeMap::new();
    for answer in answers {
        let (count, longest) = kinds.entry((answer.what, answer.status)).or_default();
        *count += 1;
        *longest = answer.took.max(*longest);
    }
    for ((what, status), (count, longest)) in kinds {
        let status = status.unwrap_or_default();
        println!("{what}: {status} {count} times, {longest:.1?} at most");
    }
}

/// Waits until each of these has its callback id.
async fn callbacks(system: &System, sql: &'static str, of: &[String]) -> VecDeque<String> {
    let started = Instant::now();
    loop {
        let found: Vec<(String,)> = sqlx::query_as(sql)
            .bind(of)
            .fetch_all(&system.pool)
            .await
            .expect("the database answers");
        if found.len() == of.len() {
            return found.into_iter().map(|(callback,)| callback).collect();
        }
        assert!(
            started.elapsed() < PATIENCE,
            "{} of {} wait",
            found.len(),
            of.len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
