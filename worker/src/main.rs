//! `meed-worker`: everything that speaks Kafka, and the flows that are not started by clients.
//!
//! The intake reads events and starts flows, the relay publishes what the ledger has to tell, and
//! the starters see to it that nothing accepted is left lying.

#[expect(
    dead_code,
    reason = "the SDK's macro makes a constant for callers of the activity"
)]
mod award;
mod backoff;
mod bisection;
mod flows;
mod gauges;
mod health;
mod intake;
mod kafka;
mod measures;
#[expect(
    dead_code,
    reason = "the SDK's macro makes a constant for callers of the activity"
)]
mod prune;
#[expect(
    dead_code,
    reason = "the SDK's macro makes constants for callers of the activities"
)]
mod rebuild;
#[expect(
    dead_code,
    reason = "the SDK's macro makes constants for callers of the activities"
)]
mod reconcile;
mod record;
#[expect(
    dead_code,
    reason = "the SDK's macro makes a constant for callers of the activity"
)]
mod relay;
mod sealer;
mod starters;
mod traces;

use std::{
    pin::pin,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use activities::{
    assign::AssignSteps,
    context::{ContextServices, ContextSettings},
    partner::{MerchantSettings, Partners},
    tier::TierSteps,
};
use anyhow::{Context, anyhow, bail};
use boot::{LiveProgramme, Settings, metrics::Metrics, telemetry::Telemetry};
use ranking::{Options, Ranking};
use store::{PgPool, pruning::Keep};
use temporalio_client::Client;
use temporalio_sdk::{Runtime, Worker, WorkerOptions};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use workflows::{
    AssignPromotion, AwardBatch, Prune, RebuildRanking, Reconcile, Relay, TierUpgrade, id,
    options::PARTNER_HTTP_TIMEOUT,
};

use crate::{
    award::AwardPosting,
    flows::Flows,
    health::Health,
    intake::{BatchBuffer, BatchLimits, Intake, IntakeHealth, Notifying, Redeeming},
    kafka::Kafka,
    prune::Pruning,
    relay::OutboxRelay,
    starters::{Ages, Starters},
};

const PROGRAM: &str = "meed-worker";
/// The most bytes in one award batch.
const BATCH_MAX_BYTES: usize = 4 * 1024 * 1024;

fn main() -> ExitCode {
    boot::process::run(PROGRAM, run)
}

/// What several parts of the process share.
struct Shared {
    settings: Arc<Settings>,
    kafka: Kafka,
    pool: PgPool,
    client: Client,
    flows: Flows,
    programme: Arc<LiveProgramme>,
    buffer: Arc<BatchBuffer>,
    outbox_written: Arc<Notify>,
}

async fn run() -> anyhow::Result<()> {
    let settings = Arc::new(Settings::load()?);
    let telemetry = Telemetry::begin(PROGRAM, &settings)?;
    let metrics = Metrics::install(PROGRAM)?;
    measures::describe();
    activities::measures::describe(settings.merchants.keys());
    ranking::measures::describe();
    let programme = Arc::new(LiveProgramme::load(&settings.programme_file())?);
    let kafka = Kafka::new(settings.kafka.clone())?;
    let listener =
        boot::listen::bind("worker.listen (MEED_WORKER_LISTEN)", settings.worker.listen).await?;
    let pool = boot::database::pool(&settings.database, PROGRAM)?;
    metrics.watch(&pool);
    let stop_intake = CancellationToken::new();
    // Only who works on award batches takes messages in: their messages are in its memory.
    let awards = settings.worker.task_queues.contains(&id::AWARD_TASK_QUEUE);
    let health = awards.then(|| Arc::new(IntakeHealth::default()));
    let reached = Arc::new(OnceLock::new());
    let server = axum::serve(
        listener,
        health::routes(Health {
            intake: health.clone(),
            pool: pool.clone(),
            flows: Arc::clone(&reached),
            stopping: stop_intake.clone(),
            metrics: Arc::clone(&metrics),
        }),
    );
    let server = tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "health is not served any more");
        }
    });
    let ((), client) = tokio::try_join!(
        boot::database::wait(&settings.database, PROGRAM),
        boot::temporal::wait(&settings.temporal, PROGRAM)
    )?;
    let ranking = ranking(&settings, &pool)?;
    let shared = Shared {
        kafka,
        flows: Flows::new(client.clone(), Arc::clone(&settings)),
        buffer: Arc::new(BatchBuffer::default()),
        outbox_written: Arc::new(Notify::new()),
        settings,
        pool,
        client,
        programme,
    };

    reached.get_or_init(|| shared.flows.clone());

    // In the order in which they end: what brings work in, then what does it.
    let stop_relay = CancellationToken::new();
    let runtime = boot::temporal::runtime()?;
    let mut workers = Vec::new();
    for queue in &shared.settings.worker.task_queues {
        workers.push(match *queue {
            id::AWARD_TASK_QUEUE => award_worker(&shared, &runtime)?,
            id::RELAY_TASK_QUEUE => relay_worker(&shared, &runtime, &stop_relay)?,
            id::TIER_TASK_QUEUE => tier_worker(&shared, &runtime)?,
            id::ASSIGN_TASK_QUEUE => assign_worker(&shared, &runtime)?,
            id::RECONCILE_TASK_QUEUE => reconcile_worker(&shared, &runtime)?,
            id::RANKING_TASK_QUEUE => rebuild_worker(&shared, &runtime)?,
            other => bail!("nobody here works on the task queue {other}"),
        });
    }
    let stop_workers: Vec<_> = workers.iter().map(Worker::shutdown_handle).collect();

    let background = [
        server,
        tokio::spawn({
            let programme = Arc::clone(&shared.programme);
            async move { programme.follow().await }
        }),
        tokio::spawn(async move { metrics.keep_small().await }),
    ];
    let intake = health.map(|health| intake(&shared, health));
    let mut intake = tokio::spawn({
        let stop = stop_intake.clone();
        async move {
            if let Some(intake) = intake {
                return intake.run(stop).await;
            }
            stop.cancelled().await;
            Ok(())
        }
    });
    // What is done once for all is not done by workers that are there for pinned flows alone: they may be of a version
    // that was released before, or taken back.
    let queues = &shared.settings.worker.task_queues;
    let for_all = queues.iter().any(|queue| *queue != id::TIER_TASK_QUEUE);
    let starters = tokio::spawn({
        let (starters, stop) = (starters(&shared), stop_intake.clone());
        async move {
            if for_all {
                Box::pin(starters.run(&stop)).await;
            }
        }
    });
    let upkeep = tokio::spawn({
        let (pool, stop) = (shared.pool.clone(), stop_intake.clone());
        let flows = shared.flows.clone();
        async move {
            let measured = gauges::run(&pool, &flows, &stop);
            if for_all {
                tokio::join!(
                    measured,
                    reconcile::watch(&pool, &stop),
                    sealer::seal(&pool, &stop),
                    keep_ranking(ranking.as_ref(), &stop),
                );
            } else {
                measured.await;
            }
        }
    });
    tracing::info!(
        listen = %shared.settings.worker.listen,
        rules = shared.programme.current().version(),
        queues = shared.settings.worker.task_queues.join(", "),
        "the worker is at work"
    );

    let mut workers = pin!(async {
        futures::future::try_join_all(workers.iter_mut().map(Worker::run))
            .await
            .context("a Temporal worker ended")
            .map(drop)
    });
    let mut intake_ended = None;
    let outcome = tokio::select! {
        signal = boot::shutdown::signal() => {
            tracing::info!(signal, "the worker stops");
            Ok(())
        }
        ended = &mut workers => {
            return ended.and_then(|()| Err(anyhow!("the Temporal workers ended")));
        }
        ended = &mut intake => {
            intake_ended = Some(());
            match ended {
                Ok(Err(error)) => Err(error.context("the intake ended")),
                Ok(Ok(())) => Err(anyhow!("the intake ended")),
                Err(error) => Err(anyhow!(error).context("the intake ended")),
            }
        }
    };
    // The workers go on while the intake's batches finish.
    let end = async {
        stop_intake.cancel();
        if intake_ended.is_none()
            && let Err(error) = intake.await
        {
            tracing::warn!(%error, "the intake did not end cleanly");
        }
        if let Err(error) = starters.await {
            tracing::warn!(%error, "the starters did not end cleanly");
        }
        if let Err(error) = upkeep.await {
            tracing::warn!(%error, "the upkeep did not end cleanly");
        }
        stop_relay.cancel();
        for stop in stop_workers {
            stop();
        }
    };
    let (ended, ()) = tokio::join!(workers, end);
    for task in background {
        task.abort();
    }
    shared.pool.close().await;
    tracing::info!("the worker has stopped");
    telemetry.end().await;
    outcome.and(ended)
}

fn options(shared: &Shared, queue: &str) -> (String, Duration) {
    (
        queue.to_owned(),
        Duration::from_secs(shared.settings.worker.drain_seconds),
    )
}

fn award_worker(shared: &Shared, runtime: &Runtime) -> anyhow::Result<Worker> {
    let (queue, drain) = options(shared, id::AWARD_TASK_QUEUE);
    let options = WorkerOptions::new(queue)
        .deployment_options(boot::temporal::deployment())
        .graceful_shutdown_period(drain)
        .register_workflow::<AwardBatch>()?
        .register_activities(AwardPosting {
            pool: shared.pool.clone(),
            programme: Arc::clone(&shared.programme),
            buffer: Arc::clone(&shared.buffer),
            kafka: shared.kafka.clone(),
            outbox_written: Arc::clone(&shared.outbox_written),
            welcome_type: shared.settings.promotions.welcome_type.clone(),
        })
        .build();
    Ok(Worker::new(runtime, shared.client.clone(), options)?)
}

fn relay_worker(
    shared: &Shared,
    runtime: &Runtime,
    stop: &CancellationToken,
) -> anyhow::Result<Worker> {
    let (queue, drain) = options(shared, id::RELAY_TASK_QUEUE);
    let relay = OutboxRelay::new(
        shared.pool.clone(),
        shared.kafka.clone(),
        Arc::clone(&shared.outbox_written),
        stop.clone(),
    )
    .context("the producer cannot be made")?;
    let options = WorkerOptions::new(queue)
        .deployment_options(boot::temporal::deployment())
        .graceful_shutdown_period(drain)
        .register_workflow::<Relay>()?
        .register_activities(relay)
        .build();
    Ok(Worker::new(runtime, shared.client.clone(), options)?)
}

fn tier_worker(shared: &Shared, runtime: &Runtime) -> anyhow::Result<Worker> {
    let (queue, drain) = options(shared, id::TIER_TASK_QUEUE);
    let deployment = boot::temporal::pinning_deployment(&shared.settings.temporal);
    let services = &shared.settings.services;
    let services = ContextServices::new(ContextSettings {
        product_url: services.product_url.clone(),
        search_url: services.search_url.clone(),
        orders_url: services.orders_url.clone(),
        orders_jwt_secret: services.orders_jwt_secret.expose().to_owned(),
        timeout: Duration::from_millis(services.timeout_ms),
    })?;
    let programme = Arc::clone(&shared.programme);
    let options = WorkerOptions::new(queue)
        .deployment_options(deployment)
        .graceful_shutdown_period(drain)
        .register_workflow::<TierUpgrade>()?
        .register_activities(TierSteps {
            pool: shared.pool.clone(),
            services,
            thresholds: Arc::new(move || *programme.current().tiers()),
        })
        .build();
    Ok(Worker::new(runtime, shared.client.clone(), options)?)
}

fn assign_worker(shared: &Shared, runtime: &Runtime) -> anyhow::Result<Worker> {
    let (queue, drain) = options(shared, id::ASSIGN_TASK_QUEUE);
    let options = WorkerOptions::new(queue)
        .deployment_options(boot::temporal::deployment())
        .graceful_shutdown_period(drain)
        .register_workflow::<AssignPromotion>()?
        .register_activities(AssignSteps {
            pool: shared.pool.clone(),
        })
        .build();
    Ok(Worker::new(runtime, shared.client.clone(), options)?)
}

fn reconcile_worker(shared: &Shared, runtime: &Runtime) -> anyhow::Result<Worker> {
    let (queue, drain) = options(shared, id::RECONCILE_TASK_QUEUE);
    let settings = &shared.settings;
    let options = WorkerOptions::new(queue)
        .deployment_options(boot::temporal::deployment())
        .graceful_shutdown_period(drain)
        .register_workflow::<Reconcile>()?
        .register_workflow::<Prune>()?
        .register_activities(reconcile::Steps {
            pool: shared.pool.clone(),
            kafka: shared.kafka.clone(),
            flows: shared.flows.clone(),
            client: shared.client.clone(),
            namespace: settings.temporal.namespace.clone(),
            redeeming: Redeeming::new(
                shared.pool.clone(),
                shared.flows.clone(),
                Arc::clone(&shared.outbox_written),
            ),
            notifying: notifying(shared),
            partners: partners(settings)?,
            merchants: settings.merchants.keys().cloned().collect(),
            partner_requests_per_second: settings.reconcile.partner_requests_per_second,
        })
        .register_activities(Pruning {
            pool: shared.pool.clone(),
            keep: Keep {
                published: settings.worker.outbox.keep_published(),
                dead_letters: settings.worker.keep.dead_letters(),
                settled_findings: settings.worker.keep.settled_findings(),
                read_notifications: settings.worker.keep.read_notifications(),
            },
        })
        .build();
    Ok(Worker::new(runtime, shared.client.clone(), options)?)
}

fn rebuild_worker(shared: &Shared, runtime: &Runtime) -> anyhow::Result<Worker> {
    let (queue, drain) = options(shared, id::RANKING_TASK_QUEUE);
    let options = WorkerOptions::new(queue)
        .deployment_options(boot::temporal::deployment())
        .graceful_shutdown_period(drain)
        .register_workflow::<RebuildRanking>()?
        .register_activities(rebuild::Steps {
            pool: shared.pool.clone(),
        })
        .build();
    Ok(Worker::new(runtime, shared.client.clone(), options)?)
}

/// The ranking in Redis, where there is one; without Redis each api has its own.
fn ranking(settings: &Settings, pool: &PgPool) -> anyhow::Result<Option<Ranking>> {
    let options = Options {
        name: "redis".to_owned(),
        poll: settings.ranking.poll(),
        max_lag: settings.ranking.max_lag(),
    };
    let redis = boot::redis::connect_patiently(&settings.redis)?;
    Ok(redis.map(|redis| Ranking::in_redis(pool.clone(), redis, options)))
}

async fn keep_ranking(ranking: Option<&Ranking>, stop: &CancellationToken) {
    if let Some(ranking) = ranking {
        ranking.keep(stop).await;
    }
}

fn partners(settings: &Settings) -> anyhow::Result<Partners> {
    let merchants = settings.merchants.iter().map(|(id, merchant)| {
        let merchant = MerchantSettings {
            base_url: merchant.base_url.clone(),
            signing_key: merchant.signing_key.expose().to_owned(),
            max_concurrent: 1,
            failure_threshold: merchant.failure_threshold,
        };
        (id.clone(), merchant)
    });
    let (callbacks_to, timeout) = (&settings.api.public_url, PARTNER_HTTP_TIMEOUT);
    Partners::new(merchants, callbacks_to, timeout).context("no HTTP client for the merchants")
}

fn intake(shared: &Shared, health: Arc<IntakeHealth>) -> Intake {
    Intake {
        kafka: shared.kafka.clone(),
        flows: shared.flows.clone(),
        buffer: Arc::clone(&shared.buffer),
        redeeming: Redeeming::new(
            shared.pool.clone(),
            shared.flows.clone(),
            Arc::clone(&shared.outbox_written),
        ),
        notifying: notifying(shared),
        limits: BatchLimits {
            messages: shared.settings.worker.intake.max_batch as usize,
            bytes: BATCH_MAX_BYTES,
        },
        awards_at_a_time: (shared.settings.database.max_connections as usize / 2).max(1),
        health,
    }
}

fn notifying(shared: &Shared) -> Notifying {
    Notifying::new(shared.pool.clone(), Arc::clone(&shared.outbox_written))
}

fn starters(shared: &Shared) -> Starters {
    let settings = &shared.settings;
    let redeem = &settings.redeem;
    let ages = Ages {
        queued: Duration::from_secs(redeem.requeue_after_seconds),
        stale: Duration::from_secs(redeem.stale_after_seconds),
        tier_order: Duration::from_secs(settings.tier.stale_after_seconds),
        promotion: Duration::from_secs(settings.promotions.restart_after_seconds),
    };
    Starters::new(shared.pool.clone(), shared.flows.clone(), ages)
}
