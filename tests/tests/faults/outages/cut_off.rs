//! Flows that somebody has terminated or reset in the Web UI: they go on from their rows, and what
//! they do is done once.

use serde_json::json;
use temporalio_client::{
    Client, NamespacedClient, UntypedWorkflow, WorkflowFetchHistoryOptions,
    WorkflowGetResultOptions, WorkflowTerminateOptions, tonic::IntoRequest,
};
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowExecution, enums::v1::EventType,
    workflowservice::v1::ResetWorkflowExecutionRequest,
};
use tests::{
    breakable::breakable,
    components::temporal_of,
    flows::result_of,
    steady::redemption,
    system::{System, patiently, unique},
};

/// Ends a flow's open run as the Web UI does.
async fn terminate(client: &Client, id: &str) {
    let options = WorkflowTerminateOptions::builder()
        .reason("by hand".to_owned())
        .build();
    client
        .get_workflow_handle::<UntypedWorkflow>(id)
        .terminate(options)
        .await
        .unwrap_or_else(|error| panic!("{id} is terminated: {error}"));
}

/// Resets a flow to its first workflow task as the Web UI does.
async fn reset(client: &Client, id: &str) {
    let handle = client.get_workflow_handle::<UntypedWorkflow>(id);
    let history = handle
        .fetch_history(WorkflowFetchHistoryOptions::default())
        .into_events()
        .await
        .expect("it has a history");
    let first_task = history
        .iter()
        .find(|event| event.event_type() == EventType::WorkflowTaskCompleted)
        .expect("a first workflow task")
        .event_id;
    let request = ResetWorkflowExecutionRequest {
        namespace: client.namespace(),
        workflow_execution: Some(WorkflowExecution {
            workflow_id: id.to_owned(),
            run_id: String::new(),
        }),
        reason: "by hand".to_owned(),
        workflow_task_finish_event_id: first_task,
        request_id: unique("reset"),
        ..Default::default()
    };
    let mut service = client.connection().workflow_service();
    service
        .reset_workflow_execution(request.into_request())
        .await
        .unwrap_or_else(|error| panic!("{id} is reset: {error}"));
}

async fn redeem(system: &System, customer: &str, merchant: &str) -> String {
    let id = unique("R");
    let body = redemption(&id, customer, 10, merchant);
    assert_eq!(system.redeem(&id, &body).await.status(), 202);
    id
}

async fn stands(system: &System, id: &str, state: &str) {
    let what = format!("{id} is {state}");
    system
        .until(&what, async || {
            system.get(&format!("/api/v1/redeem/{id}")).await.1["status"] == state
        })
        .await;
}

/// The merchant's late answer comes, straight into the row: its flow may be gone.
async fn called_back(system: &System, id: &str) {
    let (callback,): (String,) =
        sqlx::query_as("SELECT callback_id FROM redemptions WHERE redeem_request_id = $1")
            .bind(id)
            .fetch_one(&system.pool)
            .await
            .expect("it has a callback");
    let body = json!({ "status": "CONFIRMED", "confirmationId": "late" }).to_string();
    let now = chrono::Utc::now().timestamp();
    let url = format!(
        "{}/api/v1/partner-callbacks/{callback}",
        system.components.env["MEED_API_URL"]
    );
    let request = system
        .http
        .post(url)
        .header("content-type", "application/json")
        .header(simulator::signature::TIMESTAMP_HEADER, now)
        .header(
            simulator::signature::SIGNATURE_HEADER,
            simulator::signature::sign("dev-key-M6", now, body.as_bytes()),
        )
        .body(body);
    assert_eq!(patiently(request).await.status(), 200);
}

/// How many transfers deducted a customer's held points for a merchant, and how many gave them back.
async fn closings(system: &System, id: &str) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM transfers WHERE source_event_id = $1 AND leg IN ('settle', 'release')",
    )
    .bind(id)
    .fetch_one(&system.pool)
    .await
    .expect("the ledger answers")
}

/// Keeps redemptions of one customer RESERVED: they cannot ask their merchant yet.
async fn hold_back(system: &System, customer: &str) {
    let sql = format!(
        "CREATE OR REPLACE FUNCTION hold_back() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'not yet' USING ERRCODE = '55P03'; END $$;
         CREATE TRIGGER hold_back BEFORE UPDATE ON redemptions FOR EACH ROW
         WHEN (NEW.state = 'CONFIRMING' AND NEW.customer_id = '{customer}')
         EXECUTE FUNCTION hold_back();"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&system.pool)
        .await
        .expect("a trigger");
}

async fn let_go(system: &System) {
    sqlx::raw_sql("DROP TRIGGER hold_back ON redemptions")
        .execute(&system.pool)
        .await
        .expect("no trigger");
}

#[tokio::test]
async fn a_terminated_redemption_goes_on_from_where_its_row_stands() {
    let system = breakable().await;
    let client = temporal_of(system.components).await;
    let (reserved_of, customer) = tokio::join!(system.customer_with(1), system.customer_with(1));
    hold_back(&system, &reserved_of).await;
    // It has long to answer: all three have to stand where they are until the last is terminated.
    system
        .tell_merchant("M5", &json!({ "mode": "silent" }))
        .await;
    let reserved = redeem(&system, &reserved_of, "M5").await;
    let confirming = redeem(&system, &customer, "M5").await;
    let awaiting = redeem(&system, &customer, "M6").await;
    stands(&system, &reserved, "RESERVED").await;
    stands(&system, &confirming, "CONFIRMING").await;
    stands(&system, &awaiting, "AWAITING_CALLBACK").await;
    for id in [&reserved, &confirming, &awaiting] {
        terminate(&client, id).await;
    }
    let_go(&system).await;
    system
        .tell_merchant("M5", &json!({ "mode": "confirm" }))
        .await;
    called_back(&system, &awaiting).await;
    for id in [&reserved, &confirming, &awaiting] {
        let view = system.ended(id).await;
        assert_eq!(view["status"], "SUCCESS", "{view}");
        assert_eq!(closings(&system, id).await, 1, "{id}");
    }
    assert_eq!(system.available(&reserved_of).await, Some(90));
    assert_eq!(system.available(&customer).await, Some(80));
    system.assert_ledger_agrees().await;
}

#[tokio::test]
async fn a_reset_redemption_has_one_effect() {
    let system = breakable().await;
    let client = temporal_of(system.components).await;
    let customer = system.customer_with(1).await;
    // One at its end, one that waits for its merchant, one that was taken back.
    let ended = redeem(&system, &customer, "M1").await;
    let awaiting = redeem(&system, &customer, "M6").await;
    let refused = redeem(&system, &customer, "M3").await;
    assert_eq!(system.ended(&ended).await["status"], "SUCCESS");
    assert_eq!(system.ended(&refused).await["status"], "FAILED");
    stands(&system, &awaiting, "AWAITING_CALLBACK").await;
    for id in [&ended, &awaiting, &refused] {
        reset(&client, id).await;
    }
    called_back(&system, &awaiting).await;
    let expected = [
        (&ended, "SUCCESS"),
        (&awaiting, "SUCCESS"),
        (&refused, "FAILED"),
    ];
    for (id, status) in expected {
        let handle = client.get_workflow_handle::<workflows::Redeem>(id.as_str());
        let view =
            result_of(async || handle.get_result(WorkflowGetResultOptions::default()).await).await;
        assert_eq!(view.state.to_string(), status);
        assert_eq!(closings(&system, id).await, 1, "{id}");
    }
    assert_eq!(system.available(&customer).await, Some(80));
    let mine = customer.clone();
    let told = system
        .await_published("redeem-confirmed", 3, move |m| m.key == mine)
        .await;
    assert_eq!(told.len(), 3);
    system.assert_ledger_agrees().await;
}

/// The flow and the callback of the customer's tier upgrade, once it waits to be acknowledged.
async fn upgraded(system: &System, customer: &str) -> (String, String) {
    let row = async || {
        sqlx::query_as::<_, (i64, String)>(
            "SELECT order_id, callback_id FROM tier_orders
             WHERE customer_id = $1 AND callback_id IS NOT NULL",
        )
        .bind(customer)
        .fetch_optional(&system.pool)
        .await
        .expect("the database answers")
    };
    system
        .until("the tier is given", async || row().await.is_some())
        .await;
    let (order, callback) = row().await.expect("an order");
    (format!("tier-upgrade/{customer}/{order}"), callback)
}

#[tokio::test]
async fn a_terminated_and_a_reset_tier_upgrade_happen_once() {
    let system = breakable().await;
    let client = temporal_of(system.components).await;
    let (terminated, was_reset) = tokio::join!(system.customer_with(6), system.customer_with(6));
    let (flow, callback) = upgraded(&system, &terminated).await;
    terminate(&client, &flow).await;
    let (reset_flow, reset_callback) = upgraded(&system, &was_reset).await;
    reset(&client, &reset_flow).await;
    for callback in [&callback, &reset_callback] {
        let path = format!("/api/v1/callbacks/{callback}/success");
        let answer = patiently(system.request("POST", &path).await).await;
        assert_eq!(answer.status(), 200);
    }
    for customer in [&terminated, &was_reset] {
        let orders = async || {
            sqlx::query_as::<_, (Option<String>, Option<String>)>(
                "SELECT outcome, new_tier FROM tier_orders WHERE customer_id = $1",
            )
            .bind(customer)
            .fetch_all(&system.pool)
            .await
            .expect("orders")
        };
        let once = [(Some("ACKNOWLEDGED".to_owned()), Some("SILVER".to_owned()))];
        system
            .until(
                &format!("{customer} is acknowledged, now {:?}", orders().await),
                async || orders().await == once,
            )
            .await;
        let mine = customer.clone();
        let told = system
            .await_published("loyalty.tierUpgraded.v1", 1, move |m| m.key == mine)
            .await;
        assert_eq!(told.len(), 1, "told once");
    }
    // A reset of what has ended changes nothing.
    reset(&client, &reset_flow).await;
    let handle = client.get_workflow_handle::<workflows::TierUpgrade>(&reset_flow);
    result_of(async || handle.get_result(WorkflowGetResultOptions::default()).await).await;
    let mine = was_reset.clone();
    let told = system
        .await_published("loyalty.tierUpgraded.v1", 1, move |m| m.key == mine)
        .await;
    assert_eq!(told.len(), 1, "told once");
    system.assert_ledger_agrees().await;
}
