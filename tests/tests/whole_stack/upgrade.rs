//! A release is rehearsed: a flow that began on the old version finishes there after the new one is
//! out, and what begins then is the new one's.

use std::{fs, path::Path};

use stack::Service;
use temporalio_client::tonic::IntoRequest;
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowExecution, workflowservice::v1::DescribeWorkflowExecutionRequest,
};
use tests::{
    components::{configuration, meed, plan, repository, temporal_of},
    own::{end, own_system},
    system::System,
};

/// How far the ports of this system are from those of the shared one, in blocks.
const BLOCK: u16 = 8;
/// The new worker's port, after the first of its system.
const NEW_WORKER: u16 = 96;

/// The customer's latest look at a tier: its order, whether the tier was given, and how it ended.
async fn order(system: &System, customer: &str) -> Option<(i64, bool, Option<String>)> {
    sqlx::query_as(
        "SELECT order_id, upgraded_at IS NOT NULL, outcome FROM tier_orders
         WHERE customer_id = $1 ORDER BY order_id DESC LIMIT 1",
    )
    .bind(customer)
    .fetch_optional(&system.pool)
    .await
    .expect("the database answers")
}

/// A customer whose tier was just given, and whose flow waits for its acknowledgement.
async fn waiting(system: &System) -> (String, String) {
    let customer = system.customer_with(6).await;
    system
        .until("the tier is given", async || {
            matches!(order(system, &customer).await, Some((_, true, None)))
        })
        .await;
    let (order, ..) = order(system, &customer).await.expect("an order");
    let flow = format!("tier-upgrade/{customer}/{order}");
    (customer, flow)
}

/// The version that a flow stays with.
async fn version(system: &System, flow: &str) -> Option<String> {
    let client = temporal_of(system.components).await;
    let request = DescribeWorkflowExecutionRequest {
        namespace: system.components.env["TEMPORAL_NAMESPACE"].clone(),
        execution: Some(WorkflowExecution {
            workflow_id: flow.to_owned(),
            run_id: String::new(),
        }),
    };
    let mut service = client.connection().workflow_service();
    let described = service
        .describe_workflow_execution(request.into_request())
        .await;
    let info = described
        .expect("it is there")
        .into_inner()
        .workflow_execution_info?;
    Some(info.versioning_info?.deployment_version?.build_id)
}

async fn promote(system: &System, build: &'static str) {
    let env = &system.components.env;
    let said = tokio::task::spawn_blocking(move || {
        meed(env, &["temporal", "promote", "--build-id", build]);
        meed(env, &["temporal", "versions"])
    });
    let said = said.await.expect("it does not panic");
    let current = said.lines().find(|line| line.starts_with(build));
    assert!(
        current.is_some_and(|line| line.contains("current")),
        "{said}"
    );
}

async fn begin_new_worker(system: &System) {
    let components = system.components;
    tokio::task::spawn_blocking(move || {
        let stack = &components.stack;
        let port = stack.ports().base() + NEW_WORKER;
        let declared = plan().service("worker", stack.ports(), &stack.env());
        let mut worker = Service {
            name: "worker-new".to_owned(),
            port: Some(port),
            ready_url: Some(format!("http://127.0.0.1:{port}/health/ready")),
            directory: Some(repository()),
            ..declared.expect("it is declared")
        };
        worker.env.extend([
            ("MEED_WORKER_LISTEN".to_owned(), format!("127.0.0.1:{port}")),
            ("MEED_BUILD_ID".to_owned(), "new".to_owned()),
        ]);
        stack.start_service(worker).expect("it starts");
    })
    .await
    .expect("starting it does not panic");
}

async fn stack_does<E: std::fmt::Debug + 'static>(
    system: &System,
    what: fn(&stack::Stack) -> Result<(), E>,
) {
    let components = system.components;
    tokio::task::spawn_blocking(move || what(&components.stack).expect("it is done"))
        .await
        .expect("it does not panic");
}

#[tokio::test]
async fn a_flow_of_the_old_version_finishes_after_the_new_one_is_out() {
    // Flows wait for as long as it takes to bring the new version out.
    let patient = [(
        "acknowledge_within_seconds = 300",
        "acknowledge_within_seconds = 3600",
    )];
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("upgrade.toml");
    fs::write(&file, configuration(&patient)).expect("it can be written");
    let system = own_system(BLOCK, move |builder| {
        builder
            .variable("MEED_CONFIG", file.to_string_lossy())
            .variable("MEED_PIN_LONG_FLOWS", "true")
            .variable("MEED_BUILD_ID", "old")
    })
    .await;
    promote(&system, "old").await;
    // Nobody acknowledges, so that flows wait.
    stack_does(&system, |stack| stack.stop("acknowledger")).await;
    let (first, first_flow) = waiting(&system).await;
    assert_eq!(version(&system, &first_flow).await.as_deref(), Some("old"));

    begin_new_worker(&system).await;
    promote(&system, "new").await;
    let (second, second_flow) = waiting(&system).await;
    assert_eq!(version(&system, &second_flow).await.as_deref(), Some("new"));

    stack_does(&system, |stack| stack.restart("acknowledger")).await;
    for customer in [&first, &second] {
        system
            .until("the upgrade has ended", async || {
                let order = order(&system, customer).await;
                order.is_some_and(|(.., outcome)| outcome.as_deref() == Some("ACKNOWLEDGED"))
            })
            .await;
    }
    // It ended where it began.
    assert_eq!(version(&system, &first_flow).await.as_deref(), Some("old"));
    system.assert_ledger_agrees().await;
    end(system).await;
}
