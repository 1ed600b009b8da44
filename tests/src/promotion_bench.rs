//! One promotion on real Temporal and PostgreSQL: claimed by one player, or assigned to many, with
//! steps that fail when told to.

use std::sync::Arc;

use activities::{assign::AssignSteps, claim::ClaimSteps, outcomes::Outcomes};
use chrono::{TimeDelta, Utc};
use domain::{
    AssignmentJobId, CustomerId, Programme, PromotionId, PromotionType, money::Amount,
    promotion::Terms,
};
use store::{
    PgPool,
    assignments::{self, Job},
    claims::{self, Asked, Assignment},
    promotions::{self, Created},
    testing::TestDatabase,
};
use temporalio_client::{
    Client, WorkflowFetchHistoryOptions, WorkflowGetResultOptions, WorkflowHandle,
    WorkflowStartOptions,
};
use temporalio_sdk::{WorkerOptions, workflows::WorkflowImplementation};
use workflows::{
    AssignPromotion, ClaimPromotion,
    assign_promotion::AssignPromotionInput,
    contract::{AssignmentView, ClaimView, PromotionClaim},
    id, visibility,
};

use crate::{
    components::{database, repository, temporal},
    faults::{Faults, FaultyAssignSteps, FaultyClaimSteps},
    flows::result_of,
    history,
    redeem_bench::{Stop, run_worker},
};

/// The handle of a claim's workflow.
pub type ClaimHandle = WorkflowHandle<Client, <ClaimPromotion as WorkflowImplementation>::Run>;
/// The handle of an assignment's workflow.
pub type AssignHandle = WorkflowHandle<Client, <AssignPromotion as WorkflowImplementation>::Run>;

/// A bench for the promotion `P1`, which is player `A`'s already.
pub struct PromotionBench {
    /// Its database.
    pub db: TestDatabase,
    /// What fails.
    pub faults: Arc<Faults>,
    client: Client,
    task_queue: String,
    _stop: Stop,
}

fn promotion() -> PromotionId {
    PromotionId::new("P1").unwrap()
}

fn player() -> CustomerId {
    CustomerId::new("A").unwrap()
}

fn job() -> AssignmentJobId {
    AssignmentJobId::new("J1").unwrap()
}

impl PromotionBench {
    /// A bench whose promotion is worth so much.
    ///
    /// # Panics
    /// When a part cannot be had.
    pub async fn new(amount: &str) -> Self {
        let client = temporal().await;
        let db = database().await;
        let rules = std::fs::read_to_string(repository().join("programme.toml")).unwrap();
        let rules = Arc::new(Programme::parse(&rules).unwrap());
        let faults = Arc::new(Faults::default());
        let claim = FaultyClaimSteps {
            steps: Arc::new(ClaimSteps {
                pool: db.pool.clone(),
                rules: Arc::new(move || Arc::clone(&rules)),
                outcomes: Outcomes::default(),
            }),
            faults: faults.clone(),
        };
        let assign = FaultyAssignSteps {
            steps: Arc::new(AssignSteps {
                pool: db.pool.clone(),
            }),
            faults: faults.clone(),
        };
        let task_queue = format!("promotion-{}", uuid::Uuid::new_v4());
        let worker = WorkerOptions::new(&task_queue)
            .register_activities(claim)
            .register_activities(assign)
            .register_workflow::<ClaimPromotion>()
            .expect("ClaimPromotion registers once")
            .register_workflow::<AssignPromotion>()
            .expect("AssignPromotion registers once")
            .build();
        let stop = run_worker(client.clone(), worker).await;
        let bench = Self {
            db,
            faults,
            client,
            task_queue,
            _stop: stop,
        };
        bench.begin(amount).await;
        bench
    }

    async fn begin(&self, amount: &str) {
        let terms = Terms {
            kind: PromotionType::welcome(),
            title: "Welcome".to_owned(),
            description: String::new(),
            amount: Amount::parse(amount).unwrap(),
            currency: None,
            starts_at: Utc::now() - TimeDelta::days(1),
            ends_at: Utc::now() + TimeDelta::days(1),
            is_active: true,
        };
        let mut tx = self.pool().begin().await.unwrap();
        let made = promotions::create(&mut tx, &promotion(), &terms, true).await;
        assert_eq!(made.expect("made"), Created::New);
        sqlx::query("INSERT INTO customers (customer_id) VALUES ('A')")
            .execute(&mut *tx)
            .await
            .expect("an account");
        let given = assignments::welcome(&mut tx, &terms.kind, &[&player()]).await;
        assert_eq!(given.expect("assigned"), 1);
        tx.commit().await.expect("committed");
    }

    /// Its database.
    pub fn pool(&self) -> &PgPool {
        &self.db.pool
    }

    /// Player `A` claims, as through the api.
    ///
    /// # Panics
    /// When the claim is not a new one.
    pub async fn ask(&self) -> PromotionClaim {
        let mut conn = self.pool().acquire().await.unwrap();
        let asked = claims::ask(&mut conn, &promotion(), &player(), Utc::now()).await;
        match asked.expect("the database answers") {
            Asked::New(row) => PromotionClaim {
                promotion_id: row.promotion_id,
                customer_id: row.customer_id,
                number: row.claims,
            },
            other => panic!("{other:?}"),
        }
    }

    /// Starts the flow of a claim.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn start(&self, claim: &PromotionClaim) -> ClaimHandle {
        let shown = visibility::claim("0123456789abcdef", claim);
        let id = id::claim(&claim.promotion_id, &claim.customer_id);
        // Unique per bench: tests share a namespace.
        let start =
            WorkflowStartOptions::new(&self.task_queue, format!("{id}-{}", self.task_queue))
                .search_attributes(shown.attributes)
                .static_summary(shown.summary)
                .build();
        self.client
            .start_workflow(ClaimPromotion::run, claim.clone(), start)
            .await
            .expect("the flow starts")
    }

    /// Player `A` claims, to the end.
    ///
    /// # Panics
    /// When it does not end well in time.
    pub async fn claim(&self) -> ClaimView {
        let claim = self.ask().await;
        let handle = self.start(&claim).await;
        self.end(&handle).await
    }

    /// Waits for a claim's end.
    ///
    /// # Panics
    /// When it does not end well in time.
    pub async fn end(&self, handle: &ClaimHandle) -> ClaimView {
        let view =
            result_of(async || handle.get_result(WorkflowGetResultOptions::default()).await).await;
        history::record(
            "ClaimPromotion",
            handle.fetch_history(WorkflowFetchHistoryOptions::default()),
        )
        .await;
        view
    }

    /// The promotion as player `A` has it.
    ///
    /// # Panics
    /// When the database does not answer.
    pub async fn row(&self) -> Assignment {
        let mut conn = self.pool().acquire().await.unwrap();
        let row = claims::find(&mut conn, &promotion(), &player()).await;
        row.expect("the database answers").expect("it is assigned")
    }

    /// What player `A` can spend.
    ///
    /// # Panics
    /// When the database does not answer.
    pub async fn available(&self) -> i64 {
        let mut conn = self.pool().acquire().await.unwrap();
        let balance = store::ledger::balance(&mut conn, &player()).await;
        let balance = balance.expect("the database answers");
        balance.expect("an account").available.get()
    }

    /// How many messages there are on a topic.
    ///
    /// # Panics
    /// When the database does not answer.
    pub async fn told(&self, topic: &str) -> i64 {
        let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM outbox WHERE topic = $1")
            .bind(topic)
            .fetch_one(self.pool())
            .await
            .expect("the database answers");
        count
    }

    /// Orders the promotion for `known` players with an account, player `A` and `unknown` others.
    ///
    /// # Panics
    /// When the database does not answer.
    pub async fn order(&self, known: usize, unknown: usize) {
        let with_account: Vec<String> = (0..known).map(|n| format!("K{n}")).collect();
        let mut tx = self.pool().begin().await.unwrap();
        sqlx::query("INSERT INTO customers (customer_id) SELECT * FROM unnest($1::text[])")
            .bind(&with_account)
            .execute(&mut *tx)
            .await
            .expect("accounts");
        let others = (0..unknown).map(|n| format!("U{n}"));
        let players: Vec<CustomerId> = ["A".to_owned()]
            .into_iter()
            .chain(with_account)
            .chain(others)
            .map(|id| CustomerId::new(id).unwrap())
            .collect();
        assignments::order(&mut tx, &job(), &promotion(), &players)
            .await
            .expect("ordered");
        tx.commit().await.expect("committed");
    }

    /// Starts the flow of that order.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn start_assignment(&self) -> AssignHandle {
        let players = u32::try_from(self.job().await.players).unwrap();
        let shown = visibility::assign_promotion(&promotion(), players);
        let id = format!("{}-{}", id::assign_promotion(&job()), self.task_queue);
        let start = WorkflowStartOptions::new(&self.task_queue, id)
            .search_attributes(shown.attributes)
            .static_summary(shown.summary)
            .build();
        let input = AssignPromotionInput {
            job_id: job(),
            promotion_id: promotion(),
            players,
        };
        self.client
            .start_workflow(AssignPromotion::run, input, start)
            .await
            .expect("the flow starts")
    }

    /// Waits for an assignment's end.
    ///
    /// # Panics
    /// When it does not end well in time.
    pub async fn end_assignment(&self, handle: &AssignHandle) -> AssignmentView {
        let view =
            result_of(async || handle.get_result(WorkflowGetResultOptions::default()).await).await;
        history::record(
            "AssignPromotion",
            handle.fetch_history(WorkflowFetchHistoryOptions::default()),
        )
        .await;
        view
    }

    /// The job.
    ///
    /// # Panics
    /// When there is none.
    pub async fn job(&self) -> Job {
        let mut conn = self.pool().acquire().await.unwrap();
        let job = assignments::find(&mut conn, &job()).await;
        job.expect("the database answers").expect("it was ordered")
    }

    /// Takes the job back, as the api does.
    ///
    /// # Panics
    /// When the database does not answer.
    pub async fn request_cancel(&self) {
        let mut conn = self.pool().acquire().await.unwrap();
        assignments::request_cancel(&mut conn, &job())
            .await
            .expect("the database answers");
    }

    /// Everything that must be true of the ledger is.
    ///
    /// # Panics
    /// When something is not.
    pub async fn assert_promises(&self, context: &str) {
        let checks = store::verify::verify(self.pool()).await;
        for check in checks.expect("the ledger is read") {
            assert_eq!(
                check.violations, 0,
                "{context}: {}: {:?}",
                check.property, check.examples
            );
        }
    }
}
