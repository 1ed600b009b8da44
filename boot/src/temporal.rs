//! The connection to Temporal, and what workers tell it of themselves.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, Url,
    envconfig::LoadClientConfigProfileOptions,
    errors::ClientConnectError,
    tonic::{Code, IntoRequest, Status},
};
use temporalio_common::{
    data_converters::{DataConverter, DefaultFailureConverter, PayloadConverter},
    protos::temporal::api::workflowservice::v1::DescribeNamespaceRequest,
    telemetry::{
        METRIC_PREFIX, TaskQueueLabelStrategy, TelemetryOptions,
        metrics::{CoreMeter, NewAttributes, TemporalMeter},
    },
    worker::{VersioningBehavior, WorkerDeploymentOptions, WorkerDeploymentVersion},
};
use temporalio_sdk::{Runtime, runtime::RuntimeOptions};

use crate::{
    codec::Codec,
    metrics::Meter,
    settings::{Secret, TemporalSettings},
    telemetry,
    waiting::Waiting,
};

/// The deployment that workers of Meed belong to.
pub const DEPLOYMENT: &str = "meed";
/// The deployment of those that work on tier upgrades, when these stay with their version.
pub const PINNED_DEPLOYMENT: &str = "meed-tier-upgrade";

/// The build of this program: what `MEED_BUILD_ID` says, or the commit that it was built from, when
/// the build was told.
pub fn build_id() -> &'static str {
    static BUILD_ID: LazyLock<String> = LazyLock::new(|| {
        let told = std::env::var("MEED_BUILD_ID").ok();
        let told = told.filter(|id| !id.is_empty());
        told.unwrap_or_else(|| option_env!("MEED_BUILD_ID").unwrap_or("dev").to_owned())
    });
    &BUILD_ID
}

/// How long an answer may take, and how long programs of operators try.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Connects, as `program` in Temporal's lists, and makes sure that the namespace exists.
///
/// # Errors
/// When the address or the namespace is wrong, or nothing answers within ten seconds.
pub async fn connect(settings: &TemporalSettings, program: &str) -> anyhow::Result<Client> {
    let client = client(connection(settings, program).await?, settings)?;
    match check_namespace(&client, settings).await? {
        Namespace::There => Ok(client),
        Namespace::NotToldYet(reason) => bail!(reason),
    }
}

/// The same, however long Temporal is away; the log says so.
///
/// # Errors
/// When the address or the namespace is wrong.
pub async fn wait(settings: &TemporalSettings, program: &str) -> anyhow::Result<Client> {
    let connection = reach(settings, program, &mut String::new()).await?;
    let client = client(connection, settings)?;
    let mut waiting = Waiting::begin();
    loop {
        match check_namespace(&client, settings).await? {
            Namespace::There => return Ok(client),
            Namespace::NotToldYet(reason) => waiting.pause("Temporal", &reason).await,
        }
    }
}

/// How inputs and results are written: encrypted, when the configuration has keys.
fn data_converter(settings: &TemporalSettings) -> anyhow::Result<DataConverter> {
    let keys = settings.payload_keys.as_ref().map_or("", Secret::expose);
    let codec = Codec::parse(keys).map_err(|reason| anyhow!("temporal.payload_keys: {reason}"))?;
    Ok(DataConverter::new(
        PayloadConverter::default(),
        DefaultFailureConverter::default(),
        codec,
    ))
}

/// Connects, for whoever has to make the namespace first.
///
/// # Errors
/// When the address is wrong, or nothing answers within ten seconds.
pub async fn connection(settings: &TemporalSettings, program: &str) -> anyhow::Result<Connection> {
    let mut reason = String::new();
    let attempts = reach(settings, program, &mut reason);
    let reached = tokio::time::timeout(CONNECT_WITHIN, attempts).await;
    reached.map_err(|_| {
        anyhow!(
            "Temporal at {} does not answer within {} seconds: check that it runs, \
             temporal.address (TEMPORAL_ADDRESS), host:port of the frontend, and where it is \
             reached over TLS the certificates (TEMPORAL_TLS_*) ({reason})",
            settings.address,
            CONNECT_WITHIN.as_secs()
        )
    })?
}

fn client(connection: Connection, settings: &TemporalSettings) -> anyhow::Result<Client> {
    let options = ClientOptions::new(settings.namespace.clone())
        .plugins(telemetry::plugins())
        .data_converter(data_converter(settings)?)
        .build();
    Client::new(connection, options).context("Temporal's client cannot be made")
}

/// Tries until it is reached, and leaves in `reason` why it has not been yet.
async fn reach(
    settings: &TemporalSettings,
    program: &str,
    reason: &mut String,
) -> anyhow::Result<Connection> {
    let options = options(settings, program)?;
    let place = format!("Temporal at {} (TEMPORAL_ADDRESS)", settings.address);
    let mut waiting = Waiting::begin();
    loop {
        let attempt = Connection::connect(options.clone());
        *reason = match tokio::time::timeout(CONNECT_WITHIN, attempt).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(ClientConnectError::InvalidConfig(reason))) => return Err(anyhow!(reason)),
            Ok(Err(error)) => error.to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        waiting.pause(&place, reason).await;
    }
}

/// Address and namespace are Meed's; TLS, keys and metadata come from where every client of
/// Temporal takes them.
fn options(settings: &TemporalSettings, program: &str) -> anyhow::Result<ConnectionOptions> {
    let address = &settings.address;
    let target = |scheme| {
        Url::parse(address)
            .ok()
            .filter(|url| url.host().is_some())
            .or_else(|| Url::parse(&format!("{scheme}://{address}")).ok())
            .ok_or_else(|| {
                anyhow!(
                    "temporal.address (TEMPORAL_ADDRESS) is {address:?}, which is not host:port"
                )
            })
    };
    // Before the client reads the same variable, whose words name no setting.
    target("http")?;
    let (mut options, _) = ClientOptions::load_from_config(
        LoadClientConfigProfileOptions::default(),
    )
    .map_err(|error| anyhow!("TEMPORAL_* variables or temporal.toml cannot be used: {error}"))?;
    let secure = options.tls_options.is_some() || options.api_key.is_some();
    options.target = target(if secure { "https" } else { "http" })?;
    options.identity = format!("{program}/{}@{}", build_id(), std::process::id());
    options.connect_timeout = Some(Duration::from_secs(2));
    options.metrics_meter = Some(TemporalMeter::new(
        Arc::new(Meter {
            prefix: METRIC_PREFIX,
        }),
        NewAttributes::default(),
        TaskQueueLabelStrategy::UseNormal,
    ));
    Ok(options)
}

/// What Temporal says of the namespace.
enum Namespace {
    There,
    /// Nothing yet, for this reason, which may pass.
    NotToldYet(String),
}

async fn check_namespace(
    client: &Client,
    settings: &TemporalSettings,
) -> anyhow::Result<Namespace> {
    let TemporalSettings {
        address, namespace, ..
    } = settings;
    let request = DescribeNamespaceRequest {
        namespace: namespace.clone(),
        ..Default::default()
    };
    let mut service = client.connection().workflow_service();
    let answer = service.describe_namespace(request.into_request());
    let status = match tokio::time::timeout(CONNECT_WITHIN, answer).await {
        Ok(Ok(_)) => return Ok(Namespace::There),
        Ok(Err(status)) => status,
        Err(_) => Status::deadline_exceeded("it does not answer"),
    };
    let told = format!(
        "Temporal at {address} answered {:?} ({}) when asked for the namespace {namespace}",
        status.code(),
        status.message()
    );
    match status.code() {
        Code::NotFound => bail!(
            "Temporal at {address} has no namespace {namespace}: create it, or check \
             temporal.namespace (TEMPORAL_NAMESPACE)"
        ),
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument => bail!(told),
        _ => Ok(Namespace::NotToldYet(told)),
    }
}

/// The SDK's runtime, on the tokio runtime this is called from.
///
/// # Errors
/// When the SDK cannot be set up.
pub fn runtime() -> anyhow::Result<Runtime> {
    // The runtime puts the prefix before the names itself.
    let meter: Arc<dyn CoreMeter> = Arc::new(Meter { prefix: "" });
    let telemetry = TelemetryOptions::builder()
        .metrics(meter)
        .attach_service_name(false)
        .build();
    let options = RuntimeOptions::builder().telemetry_options(telemetry);
    let options = options.build().map_err(|reason| anyhow!(reason))?;
    Runtime::from_current_tokio(options).context("Temporal's runtime cannot be made")
}

/// What a worker says it is: without it, the api and the worker would seem to be two versions of
/// the workflows, since the SDK takes the hash of the executable.
pub fn deployment() -> WorkerDeploymentOptions {
    WorkerDeploymentOptions::new(version(DEPLOYMENT)).build()
}

/// The same for a worker whose flows stay with the version that began them, if the configuration
/// wants that. Only for flows that take long and do not start eagerly: eager starts know no versions.
pub fn pinning_deployment(settings: &TemporalSettings) -> WorkerDeploymentOptions {
    if !settings.pin_long_flows {
        return deployment();
    }
    WorkerDeploymentOptions::new(version(PINNED_DEPLOYMENT))
        .use_worker_versioning(true)
        .default_versioning_behavior(VersioningBehavior::Pinned)
        .build()
}

fn version(deployment: &str) -> WorkerDeploymentVersion {
    WorkerDeploymentVersion::builder()
        .deployment_name(deployment)
        .build_id(build_id())
        .build()
}
