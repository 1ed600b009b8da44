//! One redemption at a time on real Temporal and PostgreSQL, with a partner that does as told and
//! steps that fail when told to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use activities::{
    outcomes::Outcomes,
    partner::{MerchantSettings, Partners},
    redeem::RedeemSteps,
};
use domain::{
    MerchantId, OrderId, Points, RedeemRequestId, command::RedeemRequest, message::PointsAdded,
};
use serde_json::{Value, json};
use store::{
    PgPool,
    outbox::{self, OutboxMessage},
    redemptions::{self, Accepted, Origin, Redemption},
    testing::TestDatabase,
};
use temporalio_client::{
    Client, WorkflowFetchHistoryOptions, WorkflowGetResultOptions, WorkflowHandle,
    WorkflowSignalOptions, WorkflowStartOptions,
};
use temporalio_sdk::{Runtime, Worker, WorkerOptions, workflows::WorkflowImplementation};
use workflows::{
    Redeem,
    contract::RedemptionView,
    options,
    redeem::{RedeemInput, RedeemLimits},
    visibility,
};

use crate::{
    components::{database, temporal},
    faults::{Faults, FaultyRedeemSteps},
    flows::{result_of, signalled},
    history,
    system::PATIENCE,
};

/// Limits for flows whose time runs out.
pub const SHORT: RedeemLimits = RedeemLimits {
    hold_ttl_ms: 60_000,
    confirm_within_ms: 3_000,
    callback_within_ms: 3_000,
    quick_attempt_ms: 250,
};

/// Limits for flows that come to their end before, on any machine.
pub const AMPLE: RedeemLimits = RedeemLimits {
    hold_ttl_ms: 600_000,
    confirm_within_ms: 120_000,
    callback_within_ms: 120_000,
    ..SHORT
};

/// The handle of a redemption's workflow.
pub type Handle = WorkflowHandle<Client, <Redeem as WorkflowImplementation>::Run>;

/// A bench for redemptions at one merchant.
pub struct RedeemBench {
    /// Its database.
    pub db: TestDatabase,
    /// Its Temporal client.
    pub client: Client,
    /// What fails.
    pub faults: Arc<Faults>,
    task_queue: String,
    partner_url: String,
    _stop: Stop,
}

/// Ends the worker's thread when the bench goes.
pub struct Stop(Option<Box<dyn Fn() + Send + Sync>>);

impl Drop for Stop {
    fn drop(&mut self) {
        if let Some(stop) = self.0.take() {
            stop();
        }
    }
}

/// Runs a worker on a thread of its own until the guard is dropped.
///
/// # Panics
/// When the worker cannot be made.
pub async fn run_worker(client: Client, options: WorkerOptions) -> Stop {
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            let sdk =
                Runtime::from_current_tokio(temporalio_sdk::runtime::RuntimeOptions::default())
                    .expect("an SDK runtime");
            let mut worker = Worker::new(&sdk, client, options).expect("a worker");
            let _ = ready.send(worker.shutdown_handle());
            // A test that waits for its flows in vain says nothing about why.
            if let Err(error) = worker.run().await {
                eprintln!("the worker of a bench has ended: {error:#}");
            }
        });
    });
    let stop = is_ready.await.expect("the worker runs");
    Stop(Some(Box::new(stop)))
}

impl RedeemBench {
    /// A bench whose customer `A` has 1,000 points, and whose merchant behaves as `mode` says.
    ///
    /// # Panics
    /// When a part cannot be had.
    pub async fn new(mode: Value) -> Self {
        let client = temporal().await;
        let db = database().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let partner_url = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(simulator::serve(
            listener,
            simulator::PartnersOptions::default(),
            std::future::pending(),
        ));
        let merchant = MerchantSettings {
            base_url: format!("{partner_url}/merchants/M1"),
            signing_key: "dev-key-M1".into(),
            max_concurrent: 16,
            failure_threshold: 1_000,
        };
        let partners = Partners::new(
            [(MerchantId::new("M1").unwrap(), merchant)],
            "http://127.0.0.1:9",
            Duration::from_secs(2),
        )
        .expect("an HTTP client");
        let steps = Arc::new(RedeemSteps {
            pool: db.pool.clone(),
            partners,
            outcomes: Outcomes::default(),
        });
        let faults = Arc::new(Faults::default());
        let task_queue = format!("redeem-{}", uuid::Uuid::new_v4());
        let worker = WorkerOptions::new(&task_queue)
            .register_activities(FaultyRedeemSteps {
                steps,
                faults: faults.clone(),
            })
            .register_workflow::<Redeem>()
            .expect("Redeem registers once")
            .build();
        let stop = run_worker(client.clone(), worker).await;
        let bench = Self {
            db,
            client,
            faults,
            task_queue,
            partner_url,
            _stop: stop,
        };
        bench.tell_partner(mode).await;
        sqlx::query("INSERT INTO customers (customer_id) VALUES ('A')")
            .execute(bench.pool())
            .await
            .expect("an account");
        bench.give(1_000).await;
        bench
    }

    /// Its database.
    pub fn pool(&self) -> &PgPool {
        &self.db.pool
    }

    /// Tells the merchant how to behave.
    ///
    /// # Panics
    /// When it does not listen.
    pub async fn tell_partner(&self, mode: Value) {
        let answer = reqwest::Client::new()
            .put(format!("{}/control/merchants/M1", self.partner_url))
            .json(&mode)
            .send()
            .await
            .expect("the simulator answers");
        assert!(answer.status().is_success(), "{mode}: {}", answer.status());
    }

    /// What the merchant has booked.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn book(&self) -> Vec<Value> {
        reqwest::get(format!("{}/control/merchants/M1/book", self.partner_url))
            .await
            .expect("the simulator answers")
            .json()
            .await
            .expect("a book")
    }

    /// Gives customer `A` points, as an adjustment.
    async fn give(&self, points: i64) {
        let mut tx = self.pool().begin().await.unwrap();
        let (available, held, version): (i64, i64, i64) = sqlx::query_as(
            "WITH account AS (
                 UPDATE customers SET available = available + $1, version = version + 1
                 WHERE customer_id = 'A' RETURNING *)
             INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account,
                    customer_id, amount, reason, workflow_id, customer_version, available_after,
                    held_after, occurred_at)
             SELECT 'adjustment', version::text, 'adjust', 'ADJUSTMENT', 'AVAILABLE', 'A', $1,
                    'ADJUSTMENT', 'test', version, available, held, clock_timestamp()
             FROM account
             RETURNING available_after, held_after, customer_version",
        )
        .bind(points)
        .fetch_one(&mut *tx)
        .await
        .expect("an adjustment");
        let told = PointsAdded {
            user_id: domain::CustomerId::new("A").unwrap(),
            total_points: Points::new(available + held).unwrap(),
            difference: points,
        };
        let told = OutboxMessage::points_added(&told, version, chrono::Utc::now()).unwrap();
        outbox::write(&mut tx, &[told]).await.expect("it is told");
        tx.commit().await.expect("an adjustment");
    }

    /// Accepts and starts a redemption of `points` by customer `A`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn start(&self, id: &str, points: i64, limits: RedeemLimits) -> Handle {
        let request = RedeemRequest {
            redeem_request_id: RedeemRequestId::new(id).unwrap(),
            customer_id: domain::CustomerId::new("A").unwrap(),
            points: Points::new(points).unwrap(),
            merchant_id: MerchantId::new("M1").unwrap(),
            order_id: OrderId::new("O-1").unwrap(),
            requested_at: chrono::Utc::now(),
        };
        let mut conn = self.pool().acquire().await.unwrap();
        let accepted = redemptions::accept(&mut conn, std::slice::from_ref(&request), Origin::Http)
            .await
            .expect("the row is written");
        assert_ne!(accepted, [Accepted::Conflict]);
        self.start_flow(&request, limits).await
    }

    async fn start_flow(&self, request: &RedeemRequest, limits: RedeemLimits) -> Handle {
        let shown = visibility::redeem("0123456789abcdef", &request.merchant_id, request.points);
        // Unique per bench: tests share a namespace, and their request ids.
        let workflow_id = format!("{}-{}", request.redeem_request_id, self.task_queue);
        self.client
            .start_workflow(
                Redeem::run,
                RedeemInput {
                    redeem_request_id: request.redeem_request_id.clone(),
                    merchant_id: request.merchant_id.clone(),
                    points: request.points,
                    limits,
                },
                WorkflowStartOptions::new(&self.task_queue, workflow_id)
                    .task_timeout(options::REDEEM_TASK_TIMEOUT)
                    .search_attributes(shown.attributes)
                    .static_summary(shown.summary)
                    .build(),
            )
            .await
            .expect("the flow starts")
    }

    /// Runs a redemption to its end.
    ///
    /// # Panics
    /// When it does not end well in time.
    pub async fn redeem(&self, id: &str, points: i64, limits: RedeemLimits) -> RedemptionView {
        let handle = self.start(id, points, limits).await;
        self.end(&handle).await
    }

    /// Waits for a redemption's end.
    ///
    /// # Panics
    /// When it does not end well in time.
    pub async fn end(&self, handle: &Handle) -> RedemptionView {
        let view =
            result_of(async || handle.get_result(WorkflowGetResultOptions::default()).await).await;
        history::record(
            "Redeem",
            handle.fetch_history(WorkflowFetchHistoryOptions::default()),
        )
        .await;
        view
    }

    /// The row.
    ///
    /// # Panics
    /// When there is none.
    pub async fn row(&self, id: &str) -> Redemption {
        let mut conn = self.pool().acquire().await.unwrap();
        redemptions::find(&mut conn, &RedeemRequestId::new(id).unwrap())
            .await
            .expect("the database answers")
            .expect("the redemption exists")
    }

    /// Waits until the row is as wanted.
    ///
    /// # Panics
    /// When it is not in time.
    pub async fn row_until(&self, id: &str, wanted: impl Fn(&Redemption) -> bool) -> Redemption {
        let started = Instant::now();
        loop {
            let row = self.row(id).await;
            if wanted(&row) {
                return row;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "redemption {id} stays {row:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Takes a redemption back, as the api does: the row first, then the signal.
    ///
    /// # Panics
    /// When the database does not answer.
    pub async fn cancel(&self, id: &str, handle: &Handle) {
        let mut conn = self.pool().acquire().await.unwrap();
        redemptions::request_cancel(&mut conn, &RedeemRequestId::new(id).unwrap())
            .await
            .expect("the database answers");
        signalled(async || {
            let options = WorkflowSignalOptions::default();
            handle.signal(Redeem::cancel_requested, (), options).await
        })
        .await;
    }

    /// What was answered on `redeem-confirmed`.
    ///
    /// # Panics
    /// When the database does not answer.
    pub async fn answers(&self) -> Vec<Value> {
        let rows: Vec<(Vec<u8>,)> = sqlx::query_as(
            "SELECT body FROM outbox WHERE topic = 'redeem-confirmed' ORDER BY outbox_id",
        )
        .fetch_all(self.pool())
        .await
        .expect("the database answers");
        rows.into_iter()
            .map(|(body,)| serde_json::from_slice(&body).expect("JSON"))
            .collect()
    }

    /// Everything that must be true once every redemption has ended: the ledger agrees, the
    /// partner's book agrees, each redemption was answered once.
    ///
    /// # Panics
    /// When something is not.
    pub async fn assert_promises(&self, context: &str) {
        for check in store::verify::verify(self.pool())
            .await
            .expect("the ledger is read")
        {
            assert_eq!(
                check.violations, 0,
                "{context}: {}: {:?}",
                check.property, check.examples
            );
        }
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT redeem_request_id, state FROM redemptions")
                .fetch_all(self.pool())
                .await
                .expect("the database answers");
        let book = self.book().await;
        let answers = self.answers().await;
        for (id, state) in rows {
            let booked = book
                .iter()
                .find(|entry| entry["redeemRequestId"] == json!(id))
                .map_or("NONE", |entry| entry["status"].as_str().unwrap_or("NONE"));
            match state.as_str() {
                "SUCCESS" => assert_eq!(booked, "CONFIRMED", "{context}: {id}"),
                "FAILED" => assert_ne!(booked, "CONFIRMED", "{context}: {id}"),
                other => panic!("{context}: {id} is still {other}"),
            }
            let answered: Vec<&Value> = answers
                .iter()
                .filter(|a| a["redeemRequestId"] == json!(id))
                .collect();
            assert_eq!(
                answered.len(),
                1,
                "{context}: {id} was answered {answered:?}"
            );
            assert_eq!(answered[0]["status"], json!(state), "{context}: {id}");
        }
    }
}
