//! `meed-api`: the HTTP API and the workers of the redeem and claim queues, in one process and on one
//! connection, so that redemptions and claims start eagerly.

use std::{process::ExitCode, sync::Arc, time::Duration};

use activities::{
    claim::ClaimSteps,
    outcomes::Outcomes,
    partner::{MerchantSettings, Partners},
    redeem::RedeemSteps,
};
use anyhow::Context;
use api::{
    App,
    flows::{Flows, TemporalFlows},
    grpc, measures,
    serve::{self, Patience},
};
use boot::{LiveProgramme, Settings, metrics::Metrics, telemetry::Telemetry};
use temporalio_client::Client;
use temporalio_sdk::{Runtime, Worker, WorkerOptions};
use tokio_util::sync::CancellationToken;
use workflows::{ClaimPromotion, Redeem, id, options};

const PROGRAM: &str = "meed-api";
/// How long a connection may be without a request, or with one that is not there yet. Balancers
/// usually keep an idle one for 60 seconds; if it ended earlier here, they would send into nothing.
const REQUEST_WITHIN: Duration = Duration::from_secs(75);
/// How many file descriptors there should be for requests, the database and the rest.
const DESCRIPTORS_BESIDE_SOCKETS: u64 = 2_048;

fn main() -> ExitCode {
    boot::process::run(PROGRAM, serve)
}

async fn serve() -> anyhow::Result<()> {
    let settings = Arc::new(Settings::load()?);
    let telemetry = Telemetry::begin(PROGRAM, &settings)?;
    let metrics = Metrics::install(PROGRAM)?;
    measures::describe();
    activities::measures::describe(settings.merchants.keys());
    ranking::measures::describe();
    let programme = Arc::new(LiveProgramme::load(&settings.programme_file())?);
    let descriptors = boot::descriptors::raise()?;
    let connections = u64::from(settings.sockets.max_open) + DESCRIPTORS_BESIDE_SOCKETS;
    if descriptors < connections {
        tracing::warn!(
            descriptors,
            "too few file descriptors for sockets.max_open; raise the limit (ulimit -n)"
        );
    }
    let listener = boot::listen::bind("api.listen (MEED_API_LISTEN)", settings.api.listen).await?;
    let grpc_listener = match settings.grpc.listen {
        Some(at) => Some(boot::listen::bind("grpc.listen (MEED_GRPC_LISTEN)", at).await?),
        None => None,
    };
    let certificates = settings.grpc.tls.as_ref();
    let certificates = certificates
        .map(|tls| grpc::certificates(&settings, tls))
        .transpose()?;
    let runtime = boot::temporal::runtime()?;
    let pool = boot::database::pool(&settings.database, PROGRAM)?;
    metrics.watch(&pool);
    let outcomes = Outcomes::default();
    let steps = Steps {
        redeem: RedeemSteps {
            pool: pool.clone(),
            partners: partners(&settings)?,
            outcomes: outcomes.clone(),
        },
        claim: ClaimSteps {
            pool: pool.clone(),
            rules: {
                let programme = Arc::clone(&programme);
                Arc::new(move || programme.current())
            },
            outcomes: outcomes.clone(),
        },
    };
    let flows = Arc::new(TemporalFlows::default());
    let app = Arc::new(App::new(
        Arc::clone(&settings),
        Arc::clone(&programme),
        pool.clone(),
        Arc::clone(&flows) as Arc<dyn Flows>,
        outcomes,
        Some(Arc::clone(&metrics)),
    )?);
    let drain = Duration::from_secs(settings.api.drain_seconds);
    let pause = Duration::from_secs(settings.api.drain_pause_seconds);

    let draining = app.readiness.draining().clone();
    let patience = Patience {
        request: REQUEST_WITHIN,
        drain,
    };
    let routes = api::router(Arc::clone(&app));
    let mut server = tokio::spawn(serve::serve(listener, routes, patience, draining.clone()));
    let signalled = tokio::spawn({
        let app = Arc::clone(&app);
        async move {
            let signal = boot::shutdown::signal().await;
            tracing::info!(signal, "draining");
            // First nobody is sent here any more, then nobody is let in.
            app.readiness.leave();
            tokio::time::sleep(pause).await;
            app.readiness.drain();
        }
    });
    let rules = tokio::spawn(async move { programme.follow().await });
    let copies = tokio::spawn({
        let app = Arc::clone(&app);
        async move { app.cache.keep_fresh(app.readiness.draining()).await }
    });
    let samples = tokio::spawn(async move { metrics.keep_small().await });
    let sockets = tokio::spawn({
        let app = Arc::clone(&app);
        async move { app.sockets.follow(&app.pool).await }
    });
    let ranking = tokio::spawn({
        let app = Arc::clone(&app);
        async move { app.keep_ranking(app.readiness.draining()).await }
    });
    let buckets = tokio::spawn({
        let app = Arc::clone(&app);
        async move { app.limits.keep_small().await }
    });
    let limits = tokio::spawn({
        let app = Arc::clone(&app);
        async move { app.limits.follow(Settings::file()).await }
    });
    tracing::info!(address = %settings.api.listen, build = boot::temporal::build_id(), "serving");

    // Requests under way end first; then the worker stops taking tasks and ends its steps.
    let over = CancellationToken::new();
    let requests = async {
        let ended = (&mut server).await;
        app.readiness.drain();
        app.sockets.ended(drain).await;
        over.cancel();
        ended.context("the server")
    };
    let tasks = async {
        let ended = work(&runtime, &app, &flows, steps, &over).await;
        app.readiness.set_worker(false);
        // Without its workers this process is of no use; whoever runs it starts it again.
        app.readiness.drain();
        ended
    };
    let services = async {
        let Some(listener) = grpc_listener else {
            return Ok(());
        };
        let ended = grpc::serve(Arc::clone(&app), listener, certificates, drain, draining).await;
        // Without it this process is of no use to some; whoever runs it starts it again.
        app.readiness.drain();
        ended
    };
    let (requests, tasks, services) = tokio::join!(requests, tasks, services);
    signalled.abort();
    rules.abort();
    copies.abort();
    sockets.abort();
    buckets.abort();
    samples.abort();
    limits.abort();
    if let Err(error) = ranking.await {
        tracing::warn!(%error, "the ranking did not end cleanly");
    }
    pool.close().await;
    tasks?;
    requests?;
    services?;
    tracing::info!("ended");
    telemetry.end().await;
    Ok(())
}

/// What the flows that clients start do.
struct Steps {
    redeem: RedeemSteps,
    claim: ClaimSteps,
}

/// Works on redemptions and claims until requests are served no more. Database and Temporal are waited for;
/// what is accepted meanwhile is started later.
async fn work(
    runtime: &Runtime,
    app: &App,
    flows: &TemporalFlows,
    steps: Steps,
    over: &CancellationToken,
) -> anyhow::Result<()> {
    let settings = &app.settings;
    let reached = async {
        tokio::try_join!(
            boot::database::wait(&settings.database, PROGRAM),
            boot::temporal::wait(&settings.temporal, PROGRAM)
        )
    };
    let ((), client) = tokio::select! {
        reached = reached => reached?,
        () = over.cancelled() => return Ok(()),
    };
    flows.reached(client.clone(), Arc::clone(settings));
    let mut redeem = worker(runtime, client.clone(), settings, steps.redeem)?;
    let mut claim = claim_worker(runtime, client, settings, steps.claim)?;
    let stop = [redeem.shutdown_handle(), claim.shutdown_handle()];
    app.readiness.set_worker(true);
    let working = async { tokio::try_join!(redeem.run(), claim.run()) };
    tokio::pin!(working);
    let ended = tokio::select! {
        ended = &mut working => ended,
        () = over.cancelled() => {
            for stop in stop {
                stop();
            }
            working.await
        }
    };
    ended
        .map(drop)
        .context("the workers of the redeem and claim queues")
}

fn partners(settings: &Settings) -> anyhow::Result<Partners> {
    let merchants = settings.merchants.iter().map(|(id, merchant)| {
        let merchant = MerchantSettings {
            base_url: merchant.base_url.clone(),
            signing_key: merchant.signing_key.expose().to_owned(),
            max_concurrent: usize::try_from(merchant.max_concurrent).unwrap_or(usize::MAX),
            failure_threshold: merchant.failure_threshold,
        };
        (id.clone(), merchant)
    });
    Partners::new(
        merchants,
        &settings.api.public_url,
        options::PARTNER_HTTP_TIMEOUT,
    )
    .context("no HTTP client for the merchants")
}

fn worker(
    runtime: &Runtime,
    client: Client,
    settings: &Settings,
    steps: RedeemSteps,
) -> anyhow::Result<Worker> {
    let options = WorkerOptions::new(id::REDEEM_TASK_QUEUE)
        .tuner(boot::redeem::slots())
        .deployment_options(boot::temporal::deployment())
        .graceful_shutdown_period(Duration::from_secs(settings.api.drain_seconds))
        .sticky_queue_schedule_to_start_timeout(options::REDEEM_TASK_TIMEOUT)
        .register_activities(steps)
        .register_workflow::<Redeem>()
        .context("the workflow Redeem")?
        .build();
    Worker::new(runtime, client, options).context("the worker of the redeem queue")
}

fn claim_worker(
    runtime: &Runtime,
    client: Client,
    settings: &Settings,
    steps: ClaimSteps,
) -> anyhow::Result<Worker> {
    let options = WorkerOptions::new(id::CLAIM_TASK_QUEUE)
        .deployment_options(boot::temporal::deployment())
        .graceful_shutdown_period(Duration::from_secs(settings.api.drain_seconds))
        .sticky_queue_schedule_to_start_timeout(options::CLAIM_TASK_TIMEOUT)
        .register_activities(steps)
        .register_workflow::<ClaimPromotion>()
        .context("the workflow ClaimPromotion")?
        .build();
    Worker::new(runtime, client, options).context("the worker of the claim queue")
}
