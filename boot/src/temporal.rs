//! The connection to Temporal, and what workers tell it of themselves.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, Url,
    envconfig::LoadClientConfigProfileOptions,
    errors::ClientConnectError,
    tonic::{Code, IntoRequest, Status},
};
use temporalio_common::{
    protos::temporal::api::workflowservice::v1::DescribeNamespaceRequest,
    worker::{WorkerDeploymentOptions, WorkerDeploymentVersion},
};
use temporalio_sdk::{Runtime, runtime::RuntimeOptions};

use crate::{settings::TemporalSettings, waiting::Waiting};

/// The deployment that every worker of Meed belongs to.
pub const DEPLOYMENT: &str = "meed";
/// The build of this program: the commit it was built from, when the build was told.
pub const BUILD_ID: &str = match option_env!("MEED_BUILD_ID") {
    Some(id) => id,
    None => "dev",
};

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
    let client = client(reach(settings, program).await?, settings)?;
    let mut waiting = Waiting::begin();
    loop {
        match check_namespace(&client, settings).await? {
            Namespace::There => return Ok(client),
            Namespace::NotToldYet(reason) => waiting.pause("Temporal", &reason).await,
        }
    }
}

/// Connects, for whoever has to make the namespace first.
///
/// # Errors
/// When the address is wrong, or nothing answers within ten seconds.
pub async fn connection(settings: &TemporalSettings, program: &str) -> anyhow::Result<Connection> {
    tokio::time::timeout(CONNECT_WITHIN, reach(settings, program))
        .await
        .map_err(|_| {
            anyhow!(
                "Temporal at {} does not answer within {} seconds: check that it runs and \
                 temporal.address (TEMPORAL_ADDRESS), host:port of the frontend",
                settings.address,
                CONNECT_WITHIN.as_secs()
            )
        })?
}

fn client(connection: Connection, settings: &TemporalSettings) -> anyhow::Result<Client> {
    Client::new(
        connection,
        ClientOptions::new(settings.namespace.clone()).build(),
    )
    .context("Temporal's client cannot be made")
}

async fn reach(settings: &TemporalSettings, program: &str) -> anyhow::Result<Connection> {
    let options = options(settings, program)?;
    let place = format!("Temporal at {} (TEMPORAL_ADDRESS)", settings.address);
    let mut waiting = Waiting::begin();
    loop {
        let attempt = Connection::connect(options.clone());
        match tokio::time::timeout(CONNECT_WITHIN, attempt).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(ClientConnectError::InvalidConfig(reason))) => return Err(anyhow!(reason)),
            Ok(Err(error)) => waiting.pause(&place, &error).await,
            Err(elapsed) => waiting.pause(&place, &elapsed).await,
        }
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
    options.identity = format!("{program}/{BUILD_ID}@{}", std::process::id());
    options.connect_timeout = Some(Duration::from_secs(2));
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
    Runtime::from_current_tokio(RuntimeOptions::default())
        .context("Temporal's runtime cannot be made")
}

/// What a worker says it is: without it, the api and the worker would seem to be two versions of
/// the workflows, since the SDK takes the hash of the executable.
pub fn deployment() -> WorkerDeploymentOptions {
    WorkerDeploymentOptions::new(
        WorkerDeploymentVersion::builder()
            .deployment_name(DEPLOYMENT)
            .build_id(BUILD_ID)
            .build(),
    )
    .build()
}
