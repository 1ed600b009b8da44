//! `meed temporal promote` and `meed temporal versions`: which version long flows begin on.

use std::time::Duration;

use anyhow::{Result, anyhow};
use boot::{settings::TemporalSettings, temporal::PINNED_DEPLOYMENT};
use temporalio_client::{
    Connection,
    tonic::{Code, IntoRequest},
};
use temporalio_common::protos::temporal::api::{
    enums::v1::VersionDrainageStatus,
    workflowservice::v1::{
        DescribeWorkerDeploymentRequest, DescribeWorkerDeploymentResponse,
        SetWorkerDeploymentCurrentVersionRequest,
    },
};

/// How long a version may take to become known after its first worker has asked for work.
const KNOWN_WITHIN: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Makes a version the one that flows begin on.
///
/// # Errors
/// When no worker of it asks for work, or Temporal refuses.
pub async fn promote(settings: &TemporalSettings, build_id: &str) -> Result<()> {
    let connection = boot::temporal::connection(settings, "meed").await?;
    let attempt = async {
        loop {
            let mut service = connection.workflow_service();
            let request = SetWorkerDeploymentCurrentVersionRequest {
                namespace: settings.namespace.clone(),
                deployment_name: PINNED_DEPLOYMENT.to_owned(),
                build_id: build_id.to_owned(),
                identity: "meed".to_owned(),
                ..Default::default()
            };
            match service
                .set_worker_deployment_current_version(request.into_request())
                .await
            {
                Ok(_) => return Ok(()),
                // A worker's first questions make the version; a moment later it is there.
                Err(status)
                    if matches!(status.code(), Code::NotFound | Code::FailedPrecondition) =>
                {
                    tokio::time::sleep(ASK_EVERY).await;
                }
                Err(status) => return Err(anyhow!("Temporal refused it: {}", status.message())),
            }
        }
    };
    tokio::time::timeout(KNOWN_WITHIN, attempt).await.map_err(|_| {
        anyhow!(
            "no worker of {build_id} asks for work on tier upgrades within {} seconds: does one run, \
             and is temporal.pin_long_flows on?",
            KNOWN_WITHIN.as_secs()
        )
    })??;
    println!("Long flows begin on {build_id} from now on.");
    Ok(())
}

/// Prints the versions, the current one first.
///
/// # Errors
/// When Temporal does not say.
pub async fn list(settings: &TemporalSettings) -> Result<()> {
    let connection = boot::temporal::connection(settings, "meed").await?;
    let Some(found) = describe(&connection, settings).await? else {
        println!("No worker pins flows: temporal.pin_long_flows is off, or none has run.");
        return Ok(());
    };
    let info = found.worker_deployment_info.unwrap_or_default();
    let current = info
        .routing_config
        .and_then(|routing| routing.current_deployment_version);
    let current = current.map(|version| version.build_id).unwrap_or_default();
    for version in info.version_summaries {
        let status = version.drainage_status();
        let build_id = version.deployment_version.unwrap_or_default().build_id;
        let what = if build_id == current {
            "current: flows begin on it"
        } else {
            match status {
                VersionDrainageStatus::Draining => "draining: flows of it are open",
                VersionDrainageStatus::Drained => "drained: its workers can be ended",
                VersionDrainageStatus::Unspecified => "never promoted",
            }
        };
        println!("{build_id:<44} {what}");
    }
    Ok(())
}

async fn describe(
    connection: &Connection,
    settings: &TemporalSettings,
) -> Result<Option<DescribeWorkerDeploymentResponse>> {
    let request = DescribeWorkerDeploymentRequest {
        namespace: settings.namespace.clone(),
        deployment_name: PINNED_DEPLOYMENT.to_owned(),
    };
    let mut service = connection.workflow_service();
    match service
        .describe_worker_deployment(request.into_request())
        .await
    {
        Ok(found) => Ok(Some(found.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(anyhow!("Temporal does not say: {}", status.message())),
    }
}
