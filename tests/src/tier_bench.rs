//! One tier upgrade at a time on real Temporal and PostgreSQL, with context services that do as
//! told and steps that fail when told to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use activities::{
    context::{ContextServices, ContextSettings},
    tier::TierSteps,
};
use domain::{CustomerId, Points, TierThresholds};
use serde_json::Value;
use store::{PgPool, callbacks, testing::TestDatabase};
use temporalio_client::{
    Client, WorkflowFetchHistoryOptions, WorkflowGetResultOptions, WorkflowHandle,
    WorkflowSignalOptions, WorkflowStartOptions,
};
use temporalio_sdk::{WorkerOptions, workflows::WorkflowImplementation};
use workflows::{
    TierUpgrade,
    contract::TierOrder,
    tier_upgrade::{TierUpgradeInput, TierUpgradeResult},
};

use crate::{
    components::{database, temporal},
    faults::{Faults, FaultyTierSteps},
    flows::{result_of, signalled},
    history,
    redeem_bench::{Stop, run_worker},
    system::PATIENCE,
};

/// The handle of a tier upgrade's workflow.
pub type Handle = WorkflowHandle<Client, <TierUpgrade as WorkflowImplementation>::Run>;

/// A bench for tier upgrades of customer `A`.
pub struct TierBench {
    /// Its database.
    pub db: TestDatabase,
    /// What fails.
    pub faults: Arc<Faults>,
    client: Client,
    task_queue: String,
    partner_url: String,
    _stop: Stop,
}

impl TierBench {
    /// A bench whose customer `A` has so many points, and an open order to look.
    ///
    /// # Panics
    /// When a part cannot be had.
    pub async fn new(points: i64) -> Self {
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
        let services = ContextServices::new(ContextSettings {
            product_url: format!("{partner_url}/product"),
            search_url: format!("{partner_url}/product-search"),
            orders_url: format!("{partner_url}/order"),
            orders_jwt_secret: "dev-order-service-secret".to_owned(),
            timeout: Duration::from_secs(5),
        })
        .expect("an HTTP client");
        let p = |n| Points::new(n).unwrap();
        let thresholds = TierThresholds::new(p(500), p(1_500), p(3_000)).unwrap();
        let steps = Arc::new(TierSteps {
            pool: db.pool.clone(),
            services,
            thresholds: Arc::new(move || thresholds),
        });
        let faults = Arc::new(Faults::default());
        let task_queue = format!("tier-{}", uuid::Uuid::new_v4());
        let worker = WorkerOptions::new(&task_queue)
            .register_activities(FaultyTierSteps {
                steps,
                faults: faults.clone(),
            })
            .register_workflow::<TierUpgrade>()
            .expect("TierUpgrade registers once")
            .build();
        let stop = run_worker(client.clone(), worker).await;
        sqlx::query(
            "WITH account AS (
                 INSERT INTO customers (customer_id, available, lifetime_earned, version)
                 VALUES ('A', $1, $1, 1) RETURNING *), transfer AS (
                 INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account,
                        customer_id, amount, reason, workflow_id, customer_version,
                        available_after, held_after, occurred_at)
                 SELECT 'test', 'seed', 'seed', 'ISSUANCE', 'AVAILABLE', 'A', $1, 'TEST', 'test', 1,
                        $1, 0, clock_timestamp())
             SELECT 1",
        )
        .bind(points)
        .execute(&db.pool)
        .await
        .expect("an account");
        sqlx::query("INSERT INTO tier_orders (customer_id) VALUES ('A')")
            .execute(&db.pool)
            .await
            .expect("an order");
        Self {
            db,
            faults,
            client,
            task_queue,
            partner_url,
            _stop: stop,
        }
    }

    /// Its database.
    pub fn pool(&self) -> &PgPool {
        &self.db.pool
    }

    /// Tells a context service how to behave.
    ///
    /// # Panics
    /// When it does not listen.
    pub async fn tell_service(&self, service: &str, mode: Value) {
        let answer = reqwest::Client::new()
            .put(format!("{}/control/services/{service}", self.partner_url))
            .json(&mode)
            .send()
            .await
            .expect("the simulator answers");
        assert!(answer.status().is_success(), "{mode}: {}", answer.status());
    }

    /// Starts the open order's flow.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn start(&self, acknowledge_within: Duration) -> Handle {
        let (order_id,): (i64,) =
            sqlx::query_as("SELECT order_id FROM tier_orders WHERE closed_at IS NULL")
                .fetch_one(self.pool())
                .await
                .expect("an open order");
        let order = TierOrder {
            order_id,
            customer_id: CustomerId::new("A").unwrap(),
        };
        let input = TierUpgradeInput {
            order,
            acknowledge_within_ms: u64::try_from(acknowledge_within.as_millis()).unwrap(),
        };
        let workflow_id = format!("tier-upgrade/A/{order_id}-{}", self.task_queue);
        let options = WorkflowStartOptions::new(&self.task_queue, workflow_id).build();
        self.client
            .start_workflow(TierUpgrade::run, input, options)
            .await
            .expect("it starts")
    }

    /// Waits for the flow's end.
    ///
    /// # Panics
    /// When it does not end well in time.
    pub async fn end(&self, handle: &Handle) -> TierUpgradeResult {
        let result =
            result_of(async || handle.get_result(WorkflowGetResultOptions::default()).await).await;
        let events = handle.fetch_history(WorkflowFetchHistoryOptions::default());
        history::record("TierUpgrade", events).await;
        result
    }

    /// The `loyalty.tierUpgraded.v1` events.
    ///
    /// # Panics
    /// When the database does not answer.
    pub async fn events(&self) -> Vec<Value> {
        let rows: Vec<(Vec<u8>,)> =
            sqlx::query_as("SELECT body FROM outbox WHERE topic = 'loyalty.tierUpgraded.v1'")
                .fetch_all(self.pool())
                .await
                .expect("the database answers");
        rows.into_iter()
            .map(|(body,)| serde_json::from_slice(&body).expect("JSON"))
            .collect()
    }

    /// Waits for the notification's event and answers its callback, as the api does.
    ///
    /// # Panics
    /// When there is no event in time.
    pub async fn acknowledge(&self, handle: &Handle, success: bool) {
        let started = Instant::now();
        loop {
            if let [event] = self.events().await.as_slice() {
                let callback = event["callbackId"].as_str().expect("a callback id");
                let mut conn = self.pool().acquire().await.unwrap();
                callbacks::answer_tier_upgrade(&mut conn, callback, success)
                    .await
                    .unwrap();
                signalled(async || {
                    let options = WorkflowSignalOptions::default();
                    let acknowledged = TierUpgrade::notification_acknowledged;
                    handle.signal(acknowledged, (), options).await
                })
                .await;
                return;
            }
            assert!(started.elapsed() < PATIENCE, "no notification");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The customer's tier, and each order's outcome and whether it was notified.
    ///
    /// # Panics
    /// When the database does not answer.
    pub async fn recorded(&self) -> (String, Vec<(Option<String>, bool)>) {
        let (tier,): (String,) = sqlx::query_as("SELECT tier FROM customers")
            .fetch_one(self.pool())
            .await
            .expect("an account");
        let orders = sqlx::query_as(
            "SELECT outcome, notified_at IS NOT NULL FROM tier_orders ORDER BY order_id",
        )
        .fetch_all(self.pool())
        .await
        .expect("orders");
        (tier, orders)
    }
}
