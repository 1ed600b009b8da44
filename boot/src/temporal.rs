//! The connection to Temporal, and what workers tell it of themselves.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, Url,
    envconfig::LoadClientConfigProfileOptions,
    tonic::{Code, IntoRequest},
};
use temporalio_common::{
    protos::temporal::api::workflowservice::v1::DescribeNamespaceRequest,
    worker::{WorkerDeploymentOptions, WorkerDeploymentVersion},
};
use temporalio_sdk::{Runtime, runtime::RuntimeOptions};

use crate::settings::TemporalSettings;

/// The deployment that every worker of Meed belongs to.
pub const DEPLOYMENT: &str = "meed";
/// The build of this program: the commit it was built from, when the build was told.
pub const BUILD_ID: &str = match option_env!("MEED_BUILD_ID") {
    Some(id) => id,
    None => "dev",
};

/// How long a process waits for Temporal when it starts.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Connects, as `program` in Temporal's lists, and makes sure that the namespace exists.
///
/// # Errors
/// When the address or the namespace is wrong, or nothing answers within ten seconds.
pub async fn connect(settings: &TemporalSettings, program: &str) -> anyhow::Result<Client> {
    let TemporalSettings { address, namespace } = settings;
    let connection = connection(settings, program).await?;
    let client = Client::new(connection, ClientOptions::new(namespace.clone()).build())
        .context("Temporal's client cannot be made")?;
    check_namespace(&client, address, namespace).await?;
    Ok(client)
}

/// Connects, for whoever has to make the namespace first.
///
/// # Errors
/// When the address is wrong, or nothing answers within ten seconds.
pub async fn connection(settings: &TemporalSettings, program: &str) -> anyhow::Result<Connection> {
    let address = &settings.address;
    let options = options(settings, program)?;
    let attempt = async {
        loop {
            match Connection::connect(options.clone()).await {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    tracing::debug!(%error, "connecting to Temporal");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    if let temporalio_client::errors::ClientConnectError::InvalidConfig(reason) =
                        error
                    {
                        return Err(anyhow!(reason));
                    }
                }
            }
        }
    };
    tokio::time::timeout(CONNECT_WITHIN, attempt)
        .await
        .map_err(|_| {
            anyhow!(
                "Temporal at {address} does not answer within {} seconds: check that it runs and \
             temporal.address (TEMPORAL_ADDRESS), host:port of the frontend",
                CONNECT_WITHIN.as_secs()
            )
        })?
}

/// Address and namespace are Meed's; TLS, keys and metadata come from where every client of
/// Temporal takes them.
fn options(settings: &TemporalSettings, program: &str) -> anyhow::Result<ConnectionOptions> {
    let (mut options, _) = ClientOptions::load_from_config(
        LoadClientConfigProfileOptions::default(),
    )
    .map_err(|error| anyhow!("TEMPORAL_* variables or temporal.toml cannot be used: {error}"))?;
    let address = &settings.address;
    let secure = options.tls_options.is_some() || options.api_key.is_some();
    let scheme = if secure { "https" } else { "http" };
    options.target = Url::parse(address)
        .ok()
        .filter(|url| url.host().is_some())
        .or_else(|| Url::parse(&format!("{scheme}://{address}")).ok())
        .ok_or_else(|| {
            anyhow!("temporal.address (TEMPORAL_ADDRESS) is {address:?}, which is not host:port")
        })?;
    options.identity = format!("{program}/{BUILD_ID}@{}", std::process::id());
    options.connect_timeout = Some(Duration::from_secs(2));
    Ok(options)
}

async fn check_namespace(client: &Client, address: &str, namespace: &str) -> anyhow::Result<()> {
    let request = DescribeNamespaceRequest {
        namespace: namespace.to_owned(),
        ..Default::default()
    };
    let mut service = client.connection().workflow_service();
    let answer = service.describe_namespace(request.into_request());
    match tokio::time::timeout(CONNECT_WITHIN, answer).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) if status.code() == Code::NotFound => bail!(
            "Temporal at {address} has no namespace {namespace}: create it, or check \
             temporal.namespace (TEMPORAL_NAMESPACE)"
        ),
        Ok(Err(status)) => bail!(
            "Temporal at {address} answered {:?} ({}) when asked for the namespace {namespace}",
            status.code(),
            status.message()
        ),
        Err(_) => bail!("Temporal at {address} does not answer"),
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
