//! Load that does not stop while processes are restarted under it, as clients and partner systems bring it: it keeps
//! account of what was accepted, and of every answer that no client should have seen.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{
    stalls,
    system::{System, unique},
};
use tokio::task::JoinSet;

const CUSTOMERS: usize = 4;
/// Enough for every redemption of one point.
const NIGHTS_AT_FIRST: u32 = 20;
const PAUSE: Duration = Duration::from_millis(15);
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Every so manyth event is sent twice.
const TWICE: usize = 5;

/// What was done so far.
#[derive(Default)]
struct Account {
    over: AtomicBool,
    redeemed: Mutex<Vec<(String, String)>>,
    stays: Mutex<HashMap<String, i64>>,
    sent: AtomicUsize,
    troubles: Mutex<Vec<String>>,
}

/// Redemptions over HTTP and awards over Kafka, until it is told to end.
pub struct Load {
    system: Arc<System>,
    account: Arc<Account>,
    customers: Vec<String>,
    tasks: JoinSet<()>,
}

impl Load {
    pub async fn begin(system: &Arc<System>) -> Self {
        stalls::watch();
        let mut customers = Vec::new();
        for _ in 0..CUSTOMERS {
            customers.push(system.customer_with(NIGHTS_AT_FIRST).await);
        }
        let token = system.token("load", "rewards.read rewards.redeem").await;
        let account = Arc::new(Account::default());
        let mut tasks = JoinSet::new();
        for customer in customers.clone() {
            let (system, account) = (Arc::clone(system), Arc::clone(&account));
            let client = Client {
                system,
                account,
                token: token.clone(),
                customer,
            };
            tasks.spawn(async move { client.redeem_on_and_on().await });
        }
        let awards = send_on_and_on(Arc::clone(system), Arc::clone(&account), customers.clone());
        tasks.spawn(awards);
        Self {
            system: Arc::clone(system),
            account,
            customers,
            tasks,
        }
    }

    /// Waits until so many more redemptions are accepted and events sent.
    pub async fn until_more(&self, count: usize) {
        let done = || {
            let redeemed = self
                .account
                .redeemed
                .lock()
                .expect("nobody has panicked")
                .len();
            (redeemed, self.account.sent.load(Ordering::Relaxed))
        };
        let (redeemed, sent) = done();
        self.system
            .until("the load goes on", async || {
                let now = done();
                self.no_trouble();
                now.0 >= redeemed + count && now.1 >= sent + count
            })
            .await;
    }

    /// Fails at the first answer that no client should have seen.
    pub fn no_trouble(&self) {
        let troubles = self.account.troubles.lock().expect("nobody has panicked");
        assert!(troubles.is_empty(), "{troubles:#?}");
    }

    /// Ends it, and waits until everything that was accepted has ended well and all is told, nothing lost and nothing
    /// twice.
    pub async fn end_and_check(mut self) {
        self.account.over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("the load does not fail by itself");
        }
        self.no_trouble();
        let (system, account) = (&self.system, &self.account);
        let redeemed = account
            .redeemed
            .lock()
            .expect("nobody has panicked")
            .clone();
        let stays = account.stays.lock().expect("nobody has panicked").clone();
        println!("{} redemptions, {stays:?} stays", redeemed.len());
        for (_, id) in &redeemed {
            let view = system.ended(id).await;
            assert_eq!(view["status"], "SUCCESS", "{view}");
        }
        for customer in &self.customers {
            let spent = redeemed.iter().filter(|(of, _)| of == customer).count();
            let expected = 100 * (i64::from(NIGHTS_AT_FIRST) + stays[customer])
                - i64::try_from(spent).expect("few");
            system
                .until("all points add up", async || {
                    system.available(customer).await == Some(expected)
                })
                .await;
        }
        system.assert_ledger_agrees().await;

        // Each is told at least once, and the same each time.
        let customers = self.customers.clone();
        let answers = system
            .await_published("redeem-confirmed", redeemed.len(), move |message| {
                customers.contains(&message.key)
            })
            .await;
        let mut told: HashMap<String, Value> = HashMap::new();
        for answer in answers {
            let answer = answer.json();
            let id = answer["redeemRequestId"]
                .as_str()
                .expect("an id")
                .to_owned();
            assert_eq!(answer["status"], "SUCCESS", "{answer}");
            let before = told.insert(id, answer.clone());
            assert!(before.is_none_or(|before| before == answer), "{answer}");
        }
        assert_eq!(told.len(), redeemed.len());
        system
            .until("everything is published", async || {
                let (waiting,): (i64,) =
                    sqlx::query_as("SELECT count(*) FROM outbox WHERE published_at IS NULL")
                        .fetch_one(&system.pool)
                        .await
                        .expect("the outbox is read");
                waiting == 0
            })
            .await;
    }
}

struct Client {
    system: Arc<System>,
    account: Arc<Account>,
    token: String,
    customer: String,
}

impl Client {
    async fn redeem_on_and_on(&self) {
        while !self.account.over.load(Ordering::Relaxed) {
            let id = unique("R");
            let body = json!({
                "redeemRequestId": id, "customerId": self.customer, "requestedPoints": 1,
                "merchantContext": { "merchantId": "M1", "orderId": format!("O-{id}") },
                "timestamp": "2026-03-14T10:00:00Z"
            });
            // While the same request is under way elsewhere, the client asks again, as it is told.
            while let Some((409, problem)) =
                self.ask("POST", "/api/v1/redeem", Some((&id, &body))).await
            {
                if problem["code"] != "REQUEST_IN_PROGRESS" {
                    self.trouble(format!("{id}: {problem}"));
                    break;
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            self.account
                .redeemed
                .lock()
                .expect("nobody has panicked")
                .push((self.customer.clone(), id.clone()));
            self.ask("GET", &format!("/api/v1/redeem/{id}?wait=1"), None)
                .await;
            self.ask("GET", &format!("/api/v1/rewards/{}", self.customer), None)
                .await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks, and again where the machine stood still meanwhile: that is nobody's fault. Everything has one
    /// effect however often it is asked.
    async fn ask(
        &self,
        method: &str,
        path: &str,
        keyed: Option<(&str, &Value)>,
    ) -> Option<(u16, Value)> {
        let url = format!("{}{path}", self.system.components.env["MEED_API_URL"]);
        loop {
            let mut request = self
                .system
                .http
                .request(method.parse().expect("a method"), &url)
                .bearer_auth(&self.token);
            if let Some((key, body)) = keyed {
                request = request.header("idempotency-key", key).json(body);
            }
            let asked = Instant::now();
            let trouble = match request.send().await {
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    let body: Value = answer.json().await.unwrap_or_default();
                    if matches!(status, 200 | 202 | 409) {
                        return Some((status, body));
                    }
                    format!("{method} {path}: {status} {body}")
                }
                Err(error) => format!("{method} {path}: {error:?}"),
            };
            if !stalls::overlap(asked, Instant::now()) {
                self.trouble(trouble);
                return None;
            }
            println!("The machine stood still: {trouble}");
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    fn trouble(&self, what: String) {
        self.account
            .troubles
            .lock()
            .expect("nobody has panicked")
            .push(what);
    }
}

async fn send_on_and_on(system: Arc<System>, account: Arc<Account>, customers: Vec<String>) {
    for number in 0.. {
        if account.over.load(Ordering::Relaxed) {
            return;
        }
        let customer = &customers[number % customers.len()];
        let event = json!({
            "eventId": unique("stay"), "eventType": "HOTEL_STAY", "customerId": customer,
            "timestamp": "2026-03-14T10:00:00Z", "payload": { "nights": 1 }
        });
        let times = if number % TWICE == 0 { 2 } else { 1 };
        for _ in 0..times {
            system
                .send("reward-events", customer, &[], event.to_string().as_bytes())
                .await;
        }
        *account
            .stays
            .lock()
            .expect("nobody has panicked")
            .entry(customer.clone())
            .or_default() += 1;
        account.sent.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
}
