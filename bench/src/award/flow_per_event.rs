//! What one would write with Temporal alone: one workflow for each event, on the same server, with
//! an ordinary activity that posts it.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use domain::Programme;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sqlx::PgPool;
use stack::Progress;
use temporalio_client::{Client, WorkflowGetResultOptions, WorkflowStartOptions};
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use temporalio_sdk::{Worker, WorkerOptions};
use temporalio_workflow::{ActivityOptions, WorkflowContext, WorkflowResult};
use uuid::Uuid;

use super::ledger_alone::post;
use super::orders::{self, Orders};
use super::{Run, per_second};
use crate::system::System;

const TASK_QUEUE: &str = "bench-award";
/// How many are under way at once.
pub const CONCURRENT: usize = 50;
/// How long one attempt to post an event may take.
const ATTEMPT: Duration = Duration::from_secs(30);

/// Posts one event.
#[workflow]
#[derive(Default)]
pub struct AwardOne;

#[workflow_methods]
impl AwardOne {
    /// Posts it.
    #[run(name = "BenchAwardOne")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, order: String) -> WorkflowResult<()> {
        let options = ActivityOptions::start_to_close_timeout(ATTEMPT);
        ctx.execute_activity(Steps::post_one, order, options)
            .await?;
        Ok(())
    }
}

/// What the workflow does.
pub struct Steps {
    pool: PgPool,
    programme: Arc<Programme>,
}

#[activities]
impl Steps {
    /// Posts one event in a transaction.
    #[activity(name = "bench-post-one")]
    pub async fn post_one(
        self: Arc<Self>,
        _ctx: ActivityContext,
        order: String,
    ) -> Result<(), ActivityError> {
        let award = orders::read(order.as_bytes())?;
        post(
            &self.pool,
            &self.programme,
            "bench/flow-per-event",
            &[award],
        )
        .await?;
        Ok(())
    }
}

/// Runs a workflow for each order, [`CONCURRENT`] at once, with a worker in this process. Those for
/// the warm-up come before and do not count.
///
/// # Errors
/// When one does not end well.
pub async fn measure(
    system: &System,
    programme: &Arc<Programme>,
    warm_up: &Orders,
    orders: &Orders,
) -> Result<Run> {
    let task = Progress::shown().task("(c) one workflow per event");
    let client = boot::temporal::connect(&system.settings.temporal, "bench").await?;
    let runtime = boot::temporal::runtime()?;
    let options = WorkerOptions::new(TASK_QUEUE)
        .deployment_options(boot::temporal::deployment())
        .register_workflow::<AwardOne>()?
        .register_activities(Steps {
            pool: system.pool.clone(),
            programme: Arc::clone(programme),
        })
        .build();
    let mut worker = Worker::new(&runtime, client.clone(), options)?;
    let stop = worker.shutdown_handle();
    let mut working = pin!(worker.run());
    let measured = async {
        run_all(&client, warm_up).await?;
        let watching = system.watch()?;
        let took = run_all(&client, orders).await?;
        anyhow::Ok((took, watching.stop(orders.count).0))
    };
    let (took, uses) = tokio::select! {
        ended = &mut working => {
            ended.context("the worker ended")?;
            bail!("the worker ended");
        }
        measured = measured => measured?,
    };
    stop();
    working.await.context("the worker did not end well")?;
    let per_second = per_second(orders.count, took);
    task.done(&format!("{per_second:.0} events/s"));
    Ok(Run { per_second, uses })
}

async fn run_all(client: &Client, orders: &Orders) -> Result<Duration> {
    let began = Instant::now();
    stream::iter(orders.all())
        .map(|order| async move {
            let id = format!("bench-award/{}", Uuid::new_v4());
            let options = WorkflowStartOptions::new(TASK_QUEUE, id).build();
            let started = client.start_workflow(AwardOne::run, order.json(), options);
            let flow = started.await.context("a workflow is not started")?;
            let ended = flow.get_result(WorkflowGetResultOptions::default());
            ended.await.context("a workflow does not end well")
        })
        .buffer_unordered(CONCURRENT)
        .try_collect::<()>()
        .await?;
    Ok(began.elapsed())
}
