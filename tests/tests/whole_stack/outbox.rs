//! The outbox: what is committed is published in order per customer, whoever publishes it and
//! whoever is killed meanwhile, and what waits is measured by every worker.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    process::{Child, Command, Stdio},
};

use serde_json::json;
use tests::{
    components::repository,
    system::{Published, System, system_alone, unique},
};

/// The port of the second worker, counted from the base of the stack's block.
const SECOND_WORKER: u16 = 95;
/// How many customers there is traffic for, all at the same time.
const CUSTOMERS: usize = 4;
/// What is sent for each of them between two kills.
const ROUND: u32 = 6;

/// A second worker beside the stack's own. It is killed with the test.
struct Worker {
    process: Child,
    url: String,
}

impl Worker {
    async fn start(system: &System) -> Self {
        let port = system.components.stack.ports().base() + SECOND_WORKER;
        let listen = format!("127.0.0.1:{port}");
        let log = system.components.stack.data_dir().join("worker-beside.log");
        let log = std::fs::File::create(log).expect("a log");
        let process = Command::new(repository().join("target/debug/meed-worker"))
            .current_dir(repository())
            .envs(&system.components.env)
            .env("MEED_WORKER_LISTEN", &listen)
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("target/debug/meed-worker is there");
        let worker = Self {
            process,
            url: format!("http://{listen}"),
        };
        let ready = format!("{}/health/ready", worker.url);
        system
            .until("the second worker is ready", async || {
                let answer = system.http.get(&ready).send().await;
                answer.is_ok_and(|answer| answer.status().is_success())
            })
            .await;
        worker
    }

    fn kill(mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Awards and redemptions of all customers at the same time, through Kafka and the api, so that
/// worker and api commit for one customer side by side. The ids of the redemptions.
async fn traffic(system: &System, customers: &[String]) -> Vec<String> {
    let lanes = customers.iter().map(async |customer| {
        let mut ids = Vec::new();
        for n in 0..ROUND {
            let id = unique("R");
            let body = json!({
                "redeemRequestId": id, "customerId": customer, "requestedPoints": 1 + n,
                "merchantContext": { "merchantId": "M1", "orderId": format!("O-{id}") },
                "timestamp": "2026-03-14T10:00:00Z"
            });
            if n % 2 == 0 {
                let body = body.to_string();
                system
                    .send("redeem-events", customer, &[], body.as_bytes())
                    .await;
            } else {
                let answer = system.redeem(&id, &body).await;
                assert!(answer.status().is_success(), "{}", answer.status());
            }
            system.stay(customer, 1).await;
            ids.push(id);
        }
        ids
    });
    futures::future::join_all(lanes).await.concat()
}

/// How many messages wait to be published.
async fn waiting(system: &System) -> i64 {
    let backlog = store::relay::backlog(&system.pool).await;
    backlog.expect("the outbox is read").messages
}

async fn emptied(system: &System, by: &str) {
    let what = format!("the outbox is emptied by {by}");
    system
        .until(&what, async || waiting(system).await == 0)
        .await;
}

async fn on_worker(system: &System, what: &'static str) {
    let stack = &system.components.stack;
    let done = tokio::task::spawn_blocking(move || match what {
        "kill" => stack.kill("worker"),
        _ => stack.restart("worker"),
    });
    done.await.expect("no panic").expect("it is done");
}

/// What was published to a topic, by customer, in the order of the customer's partition.
async fn told(
    system: &System,
    topic: &str,
    customers: &[String],
) -> BTreeMap<String, Vec<Published>> {
    let mine: BTreeSet<String> = customers.iter().cloned().collect();
    let messages = system
        .published(topic, move |m| mine.contains(&m.key))
        .await;
    let mut by_customer: BTreeMap<String, Vec<Published>> = BTreeMap::new();
    for message in messages {
        by_customer
            .entry(message.key.clone())
            .or_default()
            .push(message);
    }
    by_customer
}

fn version(message: &Published) -> i64 {
    message.headers["meed-account-version"]
        .parse()
        .expect("a number")
}

/// Each message in its first delivery: these must be in the order of the account's versions, and
/// every later delivery must be the same.
fn first_deliveries(messages: &[Published], id: impl Fn(&Published) -> String) -> Vec<&Published> {
    let mut first: Vec<&Published> = Vec::new();
    let mut by_id: HashMap<String, &Published> = HashMap::new();
    for message in messages {
        if let Some(before) = by_id.get(&id(message)) {
            assert_eq!(before.body, message.body, "the same again");
            continue;
        }
        by_id.insert(id(message), message);
        if let Some(before) = first.last() {
            assert!(
                version(before) <= version(message),
                "{:?} was told after {:?}",
                message.json(),
                before.json()
            );
        }
        first.push(message);
    }
    first
}

/// The relay of a killed worker is taken over by another one, nothing is lost, and each customer's
/// messages stay in order.
#[tokio::test]
async fn messages_stay_in_order_per_customer_and_another_takes_over_from_a_killed_relay() {
    let system = system_alone().await;
    let mut customers = Vec::new();
    for _ in 0..CUSTOMERS {
        customers.push(system.customer_with(10).await);
    }
    let mut ids = traffic(&system, &customers).await;
    let second = Worker::start(&system).await;

    // The first worker has the relay, or had it until now.
    let (more, ()) = tokio::join!(traffic(&system, &customers), on_worker(&system, "kill"));
    ids.extend(more);
    for id in &ids {
        assert_eq!(system.ended(id).await["status"], "SUCCESS");
    }
    emptied(&system, "the second worker, which is alone").await;

    on_worker(&system, "restart").await;
    let (more, ()) = tokio::join!(traffic(&system, &customers), async { second.kill() });
    ids.extend(more);
    for id in &ids {
        assert_eq!(system.ended(id).await["status"], "SUCCESS");
    }
    let stays = 3 * i64::from(ROUND);
    let spent = 3 * (1..=i64::from(ROUND)).sum::<i64>();
    for customer in &customers {
        system
            .until("every stay counts", async || {
                system.available(customer).await == Some(1_000 + 100 * stays - spent)
            })
            .await;
    }
    emptied(&system, "the first worker, which is alone again").await;

    let changes = told(&system, "loyalty.pointsAdded.v2", &customers).await;
    let awards = told(&system, "reward-confirmed", &customers).await;
    let answers = told(&system, "redeem-confirmed", &customers).await;
    for customer in &customers {
        let posted: Vec<(i64,)> = sqlx::query_as(
            "SELECT customer_version FROM transfers WHERE customer_id = $1 AND leg = ANY($2)
             ORDER BY customer_version",
        )
        .bind(customer)
        .bind(["award", "settle"])
        .fetch_all(&system.pool)
        .await
        .expect("transfers");
        let posted: Vec<i64> = posted.into_iter().map(|(version,)| version).collect();
        let changes = first_deliveries(&changes[customer], |m| version(m).to_string());
        let versions: Vec<i64> = changes.iter().map(|m| version(m)).collect();
        assert_eq!(versions, posted, "every change of {customer}, in order");
        let field = |name: &'static str| {
            move |m: &Published| m.json()[name].as_str().expect("an id").to_owned()
        };
        let awards = first_deliveries(&awards[customer], field("eventId"));
        let answers = first_deliveries(&answers[customer], field("redeemRequestId"));
        assert_eq!(awards.len() + answers.len(), posted.len());
    }
    system
        .until("the whole ledger is sealed", async || {
            let unsealed = store::chain::unsealed(&system.pool).await;
            unsealed.expect("the chain is read").transfers == 0
        })
        .await;
    system.assert_ledger_agrees().await;
}

/// A metric of a worker, by its name.
async fn metric(system: &System, worker: &str, name: &str) -> Option<f64> {
    let answer = system.http.get(format!("{worker}/metrics")).send().await;
    let text = answer.expect("it answers").text().await.expect("text");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// One of two workers has the relay and cannot publish. Both say what waits, and for how long.
#[tokio::test]
async fn every_worker_measures_what_waits_though_nobody_can_publish() {
    let system = system_alone().await;
    // Too few points for a look at the tier, which would have something to publish of its own.
    let customer = system.customer_with(1).await;
    let second = Worker::start(&system).await;
    emptied(&system, "the relay").await;
    let workers = [
        format!(
            "http://{}",
            system
                .components
                .stack
                .address("worker")
                .expect("its address")
        ),
        second.url.clone(),
    ];
    let stack = &system.components.stack;
    stack.pause("kafka").expect("it runs");
    let id = unique("R");
    let body = json!({
        "redeemRequestId": id, "customerId": customer, "requestedPoints": 5,
        "merchantContext": { "merchantId": "M1", "orderId": "O-1" },
        "timestamp": "2026-03-14T10:00:00Z"
    });
    assert!(system.redeem(&id, &body).await.status().is_success());
    assert_eq!(system.ended(&id).await["status"], "SUCCESS");
    for worker in &workers {
        system
            .until(
                "it says that what waits does, two messages at least",
                async || {
                    // A flow of an earlier journey may end only now, and have something to publish.
                    let there = waiting(&system).await;
                    let said = metric(&system, worker, "meed_outbox_waiting_messages").await;
                    there >= 2 && said == there.to_string().parse().ok()
                },
            )
            .await;
        let age = async || metric(&system, worker, "meed_outbox_oldest_age_seconds").await;
        let before = age().await.expect("an age");
        assert!(before > 0.0);
        system
            .until("they grow older", async || age().await > Some(before))
            .await;
    }
    stack.resume("kafka").expect("it is there");
    for worker in &workers {
        for name in [
            "meed_outbox_waiting_messages",
            "meed_outbox_oldest_age_seconds",
        ] {
            system
                .until("nothing waits any more", async || {
                    metric(&system, worker, name).await == Some(0.0)
                })
                .await;
        }
        system
            .until("everything is sealed", async || {
                metric(&system, worker, "meed_ledger_unsealed_transfers").await == Some(0.0)
            })
            .await;
    }
}
