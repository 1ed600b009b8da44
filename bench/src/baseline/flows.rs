//! The two flows beside which a redemption is measured, and the workers that run them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use activities::{outcomes::Outcomes, redeem::RedeemSteps};
use anyhow::{Context as _, Result};
use boot::{Settings, customer_key};
use domain::{
    Points, RedeemRequestId,
    command::RedeemRequest,
    redemption::{PartnerVerdict, RedemptionState},
};
use sqlx::PgPool;
use store::redemptions;
use temporalio_client::{Client, WorkflowStartOptions};
use temporalio_common::error::ApplicationFailure;
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    Runtime, Worker, WorkerOptions,
    activities::{ActivityContext, ActivityError},
};
use temporalio_workflow::{
    WorkflowCancellationToken, WorkflowContext, WorkflowContextView, WorkflowResult,
};
use tokio::sync::{Semaphore, oneshot};
use workflows::{
    contract::{
        ConfirmWithPartner, PartnerAnswer, PartnerReply, RedeemActivities, RedemptionView, Reserve,
        Settle, definition,
    },
    id, options,
    redeem::RedeemInput,
    visibility::{self, STATUS},
};

const FLOOR_QUEUE: &str = "bench-floor";
const ORDINARY_QUEUE: &str = "bench-ordinary";
/// How soon a row is looked at when nobody has told of it.
const LOOK_AFTER: Duration = Duration::from_millis(500);

/// Starts the flows and learns of their ends.
pub struct Flows {
    client: Client,
    outcomes: Outcomes,
    under_way: UnderWay,
    /// As many starts at once as Meed makes.
    turns: Semaphore,
}

/// Who waits for the end of a flow that leaves nothing in the database.
type UnderWay = Arc<Mutex<HashMap<RedeemRequestId, oneshot::Sender<()>>>>;

impl Flows {
    /// Over this connection, on which the workers have to be as well: they get the first task with
    /// the answer to a start.
    pub fn new(client: Client, outcomes: Outcomes) -> Self {
        Self {
            client,
            outcomes,
            under_way: UnderWay::default(),
            turns: Semaphore::new(boot::redeem::STARTS_AT_ONCE),
        }
    }

    /// The worker of the flow whose steps do nothing, made as the api makes that of redemptions.
    pub fn floor_worker(&self, runtime: &Runtime, client: Client) -> Result<Worker> {
        let steps = NoSteps(Arc::clone(&self.under_way));
        let options = WorkerOptions::new(FLOOR_QUEUE)
            .tuner(boot::redeem::slots())
            .deployment_options(boot::temporal::deployment())
            .sticky_queue_schedule_to_start_timeout(options::REDEEM_TASK_TIMEOUT)
            .register_activities(steps)
            .register_workflow::<Floor>()?
            .build();
        Worker::new(runtime, client, options).context("the worker of the floor")
    }

    /// Runs the flow whose steps do nothing until its last step.
    pub async fn floor(&self, settings: &Settings, request: &RedeemRequest) -> Result<()> {
        let (done, is_done) = oneshot::channel();
        let id = &request.redeem_request_id;
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.clone(), done);
        let shown = shown(settings, request);
        let start = WorkflowStartOptions::new(FLOOR_QUEUE, id::redeem(id))
            .task_timeout(options::REDEEM_TASK_TIMEOUT)
            .enable_eager_workflow_start(true)
            .static_summary(shown.summary)
            .search_attributes(shown.attributes)
            .build();
        let input = input(settings, request);
        let turn = self.turns.acquire().await?;
        self.client.start_workflow(Floor::run, input, start).await?;
        drop(turn);
        Ok(is_done.await?)
    }

    /// Runs the flow whose steps are ordinary activities until the row has ended.
    pub async fn ordinary(
        &self,
        settings: &Settings,
        pool: &PgPool,
        request: &RedeemRequest,
    ) -> Result<RedemptionState> {
        let id = &request.redeem_request_id;
        let mut changes = self.outcomes.listen(id);
        let shown = shown(settings, request);
        let start = WorkflowStartOptions::new(ORDINARY_QUEUE, id::redeem(id))
            .static_summary(shown.summary)
            .search_attributes(shown.attributes)
            .build();
        let input = input(settings, request);
        self.client
            .start_workflow(Ordinary::run, input, start)
            .await?;
        loop {
            // Not told in time is as good as told: the row says how it stands.
            let _ = tokio::time::timeout(LOOK_AFTER, changes.changed()).await;
            let mut conn = pool.acquire().await?;
            let row = redemptions::find(&mut conn, id).await?;
            let state = row.context("the row has vanished")?.state;
            if state.is_final() {
                return Ok(state);
            }
        }
    }
}

/// The worker of the flow whose steps are ordinary activities.
pub fn ordinary_worker(runtime: &Runtime, client: Client, steps: RedeemSteps) -> Result<Worker> {
    let options = WorkerOptions::new(ORDINARY_QUEUE)
        .deployment_options(boot::temporal::deployment())
        .register_activities(steps)
        .register_workflow::<Ordinary>()?
        .build();
    Worker::new(runtime, client, options).context("the worker of the ordinary saga")
}

fn shown(settings: &Settings, request: &RedeemRequest) -> visibility::StartVisibility {
    let customer = customer_key(settings, &request.customer_id);
    visibility::redeem(&customer, &request.merchant_id, request.points)
}

fn input(settings: &Settings, request: &RedeemRequest) -> RedeemInput {
    RedeemInput {
        redeem_request_id: request.redeem_request_id.clone(),
        merchant_id: request.merchant_id.clone(),
        points: request.points,
        limits: settings.redeem_limits(&request.merchant_id),
    }
}

/// Steps with the inputs and results of a redemption's that do nothing.
pub struct NoSteps(UnderWay);

fn view(state: RedemptionState, verdict: Option<PartnerVerdict>) -> RedemptionView {
    RedemptionView {
        state,
        reason: None,
        verdict,
        cancel_requested: false,
        hold_expires_at: Some(chrono::Utc::now()),
        points_deducted: Points::ZERO,
        balance_after: None,
    }
}

#[expect(
    clippy::unused_async,
    reason = "steps are asynchronous, also those that do nothing"
)]
#[activities]
impl NoSteps {
    #[activity(definition = definition::Reserve)]
    pub async fn reserve(
        self: Arc<Self>,
        _ctx: ActivityContext,
        _input: Reserve,
    ) -> Result<RedemptionView, ActivityError> {
        Ok(view(RedemptionState::Reserved, None))
    }

    #[activity(definition = definition::ConfirmWithPartner)]
    pub async fn confirm_with_partner(
        self: Arc<Self>,
        _ctx: ActivityContext,
        input: ConfirmWithPartner,
    ) -> Result<PartnerReply, ActivityError> {
        let confirmation_id = Some(input.redeem_request_id.to_string());
        Ok(PartnerReply {
            answer: PartnerAnswer::Confirmed { confirmation_id },
            view: view(RedemptionState::Confirming, None),
        })
    }

    #[activity(definition = definition::Settle)]
    pub async fn settle(
        self: Arc<Self>,
        _ctx: ActivityContext,
        input: Settle,
    ) -> Result<RedemptionView, ActivityError> {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(done) = under_way.remove(&input.redeem_request_id) {
            // Who has gone away is not waiting.
            let _ = done.send(());
        }
        Ok(view(
            RedemptionState::Success,
            Some(PartnerVerdict::Confirmed),
        ))
    }
}

/// What a redemption whose merchant answers at once asks of the engine, and nothing else.
#[workflow]
pub struct Floor {
    input: RedeemInput,
}

#[workflow_methods]
impl Floor {
    #[init]
    fn new(_ctx: &WorkflowContextView, input: RedeemInput) -> Self {
        Self { input }
    }

    /// Three steps beside the flow, and what operators see of it.
    #[run(name = "BenchFloor")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<RedemptionView> {
        let input = ctx.state(|s| s.input.clone());
        let (points, merchant) = (input.points, &input.merchant_id);
        let budget = options::LOCAL_STEP_BUDGET;
        let reserve = Reserve {
            redeem_request_id: input.redeem_request_id.clone(),
            hold_ttl_ms: input.limits.hold_ttl_ms,
        };
        let step = options::local(format!("Holds {points} points"), budget);
        ctx.execute_local_activity(NoSteps::reserve, reserve, step)
            .await?;
        let confirm = ConfirmWithPartner {
            redeem_request_id: input.redeem_request_id.clone(),
            quick_attempt_ms: Some(input.limits.quick_attempt_ms),
        };
        let step = options::local_once(format!("Asks {merchant} to deliver"), budget);
        ctx.execute_local_activity(NoSteps::confirm_with_partner, confirm, step)
            .await?;
        let settle = Settle {
            redeem_request_id: input.redeem_request_id.clone(),
            confirmation_id: Some(input.redeem_request_id.to_string()),
            beyond_cancel: false,
        };
        let step = options::local(format!("Deducts {points} points for {merchant}"), budget);
        let view = ctx
            .execute_local_activity(NoSteps::settle, settle, step)
            .await?;
        ctx.set_current_details(format!("SUCCESS: {points} points deducted for {merchant}"));
        ctx.upsert_search_attributes([STATUS.value_set(view.state.to_string())]);
        Ok(view)
    }
}

/// A redemption as one writes it first: each step an ordinary activity, tried until it is done.
#[workflow]
pub struct Ordinary {
    input: RedeemInput,
}

#[workflow_methods]
impl Ordinary {
    #[init]
    fn new(_ctx: &WorkflowContextView, input: RedeemInput) -> Self {
        Self { input }
    }

    /// Reserves, asks the merchant, settles.
    #[run(name = "BenchOrdinary")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<RedemptionView> {
        let input = ctx.state(|s| s.input.clone());
        let (points, merchant) = (input.points, &input.merchant_id);
        let reserve = Reserve {
            redeem_request_id: input.redeem_request_id.clone(),
            hold_ttl_ms: input.limits.hold_ttl_ms,
        };
        let step = options::until_done(format!("Holds {points} points"));
        ctx.execute_activity(RedeemActivities::reserve, reserve, step)
            .await?;
        let confirm = ConfirmWithPartner {
            redeem_request_id: input.redeem_request_id.clone(),
            quick_attempt_ms: None,
        };
        let within = Duration::from_millis(input.limits.confirm_within_ms);
        let step = options::partner(
            format!("Asks {merchant} to deliver"),
            Some(within),
            WorkflowCancellationToken::new(),
        );
        let reply = ctx
            .execute_activity(RedeemActivities::confirm_with_partner, confirm, step)
            .await?;
        let PartnerAnswer::Confirmed { confirmation_id } = reply.answer else {
            let reason = format!("{merchant} said {:?}", reply.answer);
            return Err(ApplicationFailure::non_retryable(reason).into());
        };
        let settle = Settle {
            redeem_request_id: input.redeem_request_id.clone(),
            confirmation_id,
            beyond_cancel: false,
        };
        let step = options::until_done(format!("Deducts {points} points for {merchant}"));
        let view = ctx
            .execute_activity(RedeemActivities::settle, settle, step)
            .await?;
        ctx.set_current_details(format!("SUCCESS: {points} points deducted for {merchant}"));
        ctx.upsert_search_attributes([STATUS.value_set(view.state.to_string())]);
        Ok(view)
    }
}
