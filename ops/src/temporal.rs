//! `meed temporal apply`: the namespace of the flows and what they can be searched by.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use boot::settings::TemporalSettings;
use temporalio_client::{
    Connection,
    tonic::{Code, IntoRequest, Status},
};
use temporalio_common::protos::temporal::api::{
    enums::v1::IndexedValueType,
    namespace::v1::NamespaceConfig,
    operatorservice::v1::{AddSearchAttributesRequest, ListSearchAttributesRequest},
    workflowservice::v1::{
        CountWorkflowExecutionsRequest, DescribeNamespaceRequest, RegisterNamespaceRequest,
        UpdateNamespaceRequest,
    },
};

use crate::schedule::Intervals;

/// How long new things may take until they can be used.
const USABLE_WITHIN: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Creates or corrects the namespace, the search attributes and the schedules, and waits until they can
/// be used.
///
/// # Errors
/// When Temporal cannot be reached or refuses.
pub async fn apply(
    settings: &TemporalSettings,
    retention_hours: u64,
    intervals: Intervals,
) -> Result<()> {
    let connection = boot::temporal::connection(settings, "meed").await?;
    let namespace = settings.namespace.as_str();
    let retention = Duration::from_secs(retention_hours * 3_600);
    keep_namespace(&connection, namespace, retention).await?;
    let added = add_search_attributes(&connection, namespace).await?;
    wait_until_usable(&connection, namespace).await?;
    crate::schedule::apply(&connection, namespace, intervals).await?;
    println!(
        "The namespace {namespace} keeps ended flows for {retention_hours} hours and has {} search \
         attributes, {added} of them new.",
        workflows::visibility::ALL.len()
    );
    println!(
        "The schedule {} compares the books every {} seconds.",
        workflows::id::RECONCILE_SCHEDULE_ID,
        intervals.reconcile.as_secs()
    );
    println!(
        "The schedule {} makes the ranking anew every {} seconds.",
        workflows::id::RANKING_SCHEDULE_ID,
        intervals.ranking.as_secs()
    );
    println!(
        "The schedule {} removes what nobody needs any more, every hour.",
        workflows::id::PRUNE_SCHEDULE_ID
    );
    Ok(())
}

fn refused(what: &str, status: &Status) -> anyhow::Error {
    anyhow!(
        "Temporal refused {what}: {:?}, {}",
        status.code(),
        status.message()
    )
}

async fn keep_namespace(
    connection: &Connection,
    namespace: &str,
    retention: Duration,
) -> Result<()> {
    let mut service = connection.workflow_service();
    let describe = || {
        DescribeNamespaceRequest {
            namespace: namespace.to_owned(),
            ..Default::default()
        }
        .into_request()
    };
    let wanted = retention.try_into().ok();
    match service.describe_namespace(describe()).await {
        Ok(found) => {
            let kept = found
                .into_inner()
                .config
                .and_then(|c| c.workflow_execution_retention_ttl);
            if kept == wanted {
                return Ok(());
            }
            let config = NamespaceConfig {
                workflow_execution_retention_ttl: wanted,
                ..Default::default()
            };
            let update = UpdateNamespaceRequest {
                namespace: namespace.to_owned(),
                config: Some(config),
                ..Default::default()
            };
            return match service.update_namespace(update.into_request()).await {
                Ok(_) => Ok(()),
                Err(status) => Err(refused("the retention", &status)),
            };
        }
        Err(status) if status.code() == Code::NotFound => {}
        Err(status) => return Err(refused("to describe the namespace", &status)),
    }
    let register = RegisterNamespaceRequest {
        namespace: namespace.to_owned(),
        description: "Meed: awards, redemptions, tier upgrades".to_owned(),
        workflow_execution_retention_period: wanted,
        ..Default::default()
    };
    match service.register_namespace(register.into_request()).await {
        Ok(_) => println!("created the namespace {namespace}"),
        Err(status) if status.code() == Code::AlreadyExists => {}
        Err(status) => return Err(refused("the namespace", &status)),
    }
    until(|| {
        let mut service = connection.workflow_service();
        let request = describe();
        async move { service.describe_namespace(request).await.map(drop) }
    })
    .await
    .context("the new namespace cannot be used")
}

/// Adds the search attributes that are missing: how many.
async fn add_search_attributes(connection: &Connection, namespace: &str) -> Result<usize> {
    let list = || {
        let mut service = connection.operator_service();
        let request = ListSearchAttributesRequest {
            namespace: namespace.to_owned(),
        };
        async move { service.list_search_attributes(request.into_request()).await }
    };
    // A namespace that was just made is not known to every part of the server at once.
    until(|| {
        let answer = list();
        async move { answer.await.map(drop) }
    })
    .await
    .context("the search attributes cannot be listed")?;
    let present = list()
        .await
        .map_err(|status| refused("to list the search attributes", &status))?
        .into_inner()
        .custom_attributes;
    let kind = |whole_number| {
        i32::from(if whole_number {
            IndexedValueType::Int
        } else {
            IndexedValueType::Keyword
        })
    };
    let mut missing = HashMap::new();
    for (name, whole_number) in workflows::visibility::ALL {
        match present.get(name) {
            None => {
                missing.insert(name.to_owned(), kind(whole_number));
            }
            Some(found) if *found == kind(whole_number) => {}
            Some(_) => bail!("the search attribute {name} exists with another type"),
        }
    }
    let count = missing.len();
    if count > 0 {
        let request = AddSearchAttributesRequest {
            search_attributes: missing,
            namespace: namespace.to_owned(),
        };
        let mut service = connection.operator_service();
        match service.add_search_attributes(request.into_request()).await {
            Ok(_) => {}
            Err(status) if status.code() == Code::AlreadyExists => {}
            Err(status) => return Err(refused("the search attributes", &status)),
        }
    }
    Ok(count)
}

/// Asks by every attribute until the server knows them all; it takes about a second.
async fn wait_until_usable(connection: &Connection, namespace: &str) -> Result<()> {
    let query = workflows::visibility::ALL.map(|(name, whole_number)| {
        if whole_number {
            format!("{name} = 0")
        } else {
            format!("{name} = 'none'")
        }
    });
    let query = query.join(" AND ");
    until(|| {
        let mut service = connection.workflow_service();
        let request = CountWorkflowExecutionsRequest {
            namespace: namespace.to_owned(),
            query: query.clone(),
        };
        async move {
            service
                .count_workflow_executions(request.into_request())
                .await
                .map(drop)
        }
    })
    .await
    .context("the search attributes cannot be used")
}

/// Asks until the answer is good, within [`USABLE_WITHIN`].
async fn until<F>(ask: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<(), Status>>,
{
    let deadline = tokio::time::Instant::now() + USABLE_WITHIN;
    loop {
        let Err(status) = ask().await else {
            return Ok(());
        };
        if tokio::time::Instant::now() >= deadline {
            return Err(anyhow!("{:?}, {}", status.code(), status.message()));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
