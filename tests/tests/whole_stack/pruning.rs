//! The schedule that removes what nobody needs any more.

use temporalio_client::{
    RpcOptions, WorkflowFetchHistoryOptions, WorkflowGetResultOptions,
    schedules::{ScheduleOverlapPolicy, TriggerScheduleOptions},
};
use tests::{
    components::temporal,
    flows::result_of,
    history,
    system::{system, unique},
};
use workflows::{Prune, id::PRUNE_SCHEDULE_ID};

#[tokio::test]
async fn the_schedule_removes_what_has_expired() {
    let system = system().await;
    let client = temporal().await;
    let (expired, valid) = (unique("expired"), unique("valid"));
    sqlx::query(
        "INSERT INTO idempotency_keys (client, route, key, body_hash, locked_until, expires_at)
         VALUES ('a test', 'r', $1, '', now(), now() - interval '1 second'),
                ('a test', 'r', $2, '', now(), now() + interval '1 hour')",
    )
    .bind(&expired)
    .bind(&valid)
    .execute(&system.pool)
    .await
    .expect("written");

    let schedule = client.get_schedule_handle(PRUNE_SCHEDULE_ID);
    let runs = async || {
        let described = schedule.describe(RpcOptions::default()).await;
        described.expect("it is there").recent_actions()
    };
    let before = runs().await.len();
    schedule
        .trigger(
            ScheduleOverlapPolicy::AllowAll,
            TriggerScheduleOptions::default(),
        )
        .await
        .expect("it is triggered");
    system
        .until("it has begun", async || runs().await.len() > before)
        .await;
    let run = runs().await.pop().expect("a run");
    let flow = client.get_workflow_handle::<Prune>(&run.workflow_id);
    let pruned =
        result_of(async || flow.get_result(WorkflowGetResultOptions::default()).await).await;
    assert!(pruned.iter().all(|p| p.removed.is_some()), "{pruned:?}");
    let left: Vec<String> =
        sqlx::query_scalar("SELECT key FROM idempotency_keys WHERE client = 'a test'")
            .fetch_all(&system.pool)
            .await
            .expect("read");
    assert_eq!(left, [valid]);
    let told = flow.fetch_history(WorkflowFetchHistoryOptions::default());
    history::record("Prune", told).await;
}
