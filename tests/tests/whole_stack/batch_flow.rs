//! The award batch and the relay, with their one step failing.

use std::{sync::Arc, time::Duration};

use domain::{
    command::Command,
    inbound::{self, Message},
    programme::Programme,
};
use temporalio_client::{
    WorkflowDescribeOptions, WorkflowExecutionStatus, WorkflowGetResultOptions,
    WorkflowStartOptions, WorkflowTerminateOptions,
};
use temporalio_sdk::WorkerOptions;
use tests::{
    components::{database, temporal},
    faults::{Fault, Faults, FaultyAwardSteps, FaultyRelaySteps, When},
    flows::result_of,
    redeem_bench::run_worker,
    system::{PATIENCE, unique},
};
use workflows::{AwardBatch, Relay, contract::MessageRange};

fn stay() -> domain::command::Award {
    let body = br#"{"eventId":"e1","eventType":"HOTEL_STAY","customerId":"A",
        "timestamp":"2026-03-14T10:00:00Z","payload":{"nights":2}}"#;
    let message = Message {
        topic: "reward-events",
        partition: 0,
        offset: 0,
        key: None,
        headers: &[],
        value: Some(body),
        timestamp: chrono::Utc::now(),
    };
    match inbound::read(&message, chrono::Utc::now()) {
        Ok(Some(Command::Award(award))) => award,
        other => panic!("{other:?}"),
    }
}

/// Posting fails before and after its commit, locally and beyond the local budget: the event
/// counts once.
#[tokio::test]
async fn posting_a_batch_fails_in_every_way_and_counts_once() {
    for when in [When::Before, When::After] {
        for times in [1, 12] {
            let context = format!("post-batch fails {times} times {when:?}");
            let (db, client) = (database().await, temporal().await);
            let faults = Arc::new(Faults::default());
            faults.set(Fault {
                step: "post-batch",
                when,
                times,
            });
            let steps = FaultyAwardSteps {
                pool: db.pool.clone(),
                programme: Programme::parse(include_str!("../../../programme.toml")).unwrap(),
                award: stay(),
                faults: faults.clone(),
            };
            let queue = unique("award");
            let worker = WorkerOptions::new(&queue)
                .register_activities(steps)
                .register_workflow::<AwardBatch>()
                .unwrap()
                .build();
            let _stop = run_worker(client.clone(), worker).await;
            let range = MessageRange {
                topic: "reward-events".to_owned(),
                partition: 0,
                first_offset: 0,
                last_offset: 0,
                messages: 1,
            };
            let options = WorkflowStartOptions::new(&queue, unique("award/test")).build();
            let handle = client
                .start_workflow(AwardBatch::run, range, options)
                .await
                .unwrap();
            let outcome =
                result_of(async || handle.get_result(WorkflowGetResultOptions::default()).await)
                    .await;
            assert_eq!(outcome.posted + outcome.duplicates, 1, "{context}");
            assert!(faults.attempts("post-batch") > times, "{context}");
            let (available, confirmed): (i64, i64) = sqlx::query_as(
                "SELECT available, (SELECT count(*) FROM outbox WHERE topic = 'reward-confirmed')
                 FROM customers",
            )
            .fetch_one(&db.pool)
            .await
            .unwrap();
            assert_eq!((available, confirmed), (200, 1), "{context}");
        }
    }
}

/// The relay's shift fails a few times, and shift follows shift.
#[tokio::test]
async fn the_relay_goes_on_after_failing_and_from_shift_to_shift() {
    let client = temporal().await;
    let faults = Arc::new(Faults::default());
    faults.set(Fault {
        step: "publish-outbox",
        when: When::Before,
        times: 3,
    });
    let queue = unique("relay");
    let worker = WorkerOptions::new(&queue)
        .register_activities(FaultyRelaySteps {
            faults: faults.clone(),
        })
        .register_workflow::<Relay>()
        .unwrap()
        .build();
    let _stop = run_worker(client.clone(), worker).await;
    let id = unique("relay/test");
    let options = WorkflowStartOptions::new(&queue, &id).build();
    client.start_workflow(Relay::run, 0, options).await.unwrap();
    let started = std::time::Instant::now();
    while faults.attempts("publish-outbox") < 6 {
        assert!(started.elapsed() < PATIENCE, "it stopped");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let relay = client.get_workflow_handle::<Relay>(&id);
    let described = relay
        .describe(WorkflowDescribeOptions::default())
        .await
        .unwrap();
    assert_eq!(described.status(), WorkflowExecutionStatus::Running);
    relay
        .terminate(WorkflowTerminateOptions::default())
        .await
        .unwrap();
}
