//! Every branch of a tier upgrade, and every step of it failing.

use std::time::Duration;

use serde_json::json;
use tests::{
    faults::{Fault, When},
    tier_bench::TierBench,
};
use workflows::contract::TierOutcome;

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn acknowledged() {
    let bench = TierBench::new(600).await;
    let handle = bench.start(LONG).await;
    bench.acknowledge(&handle, true).await;
    let result = bench.end(&handle).await;
    assert_eq!(result.outcome, TierOutcome::Acknowledged);
    assert_eq!(
        bench.recorded().await,
        ("SILVER".into(), vec![(Some("ACKNOWLEDGED".into()), true)])
    );
    let event = &bench.events().await[0];
    assert_eq!(event["previousTier"], "BRONZE");
    assert_eq!(event["newTier"], "SILVER");
    assert_eq!(event["recommendations"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn below_the_threshold_it_ends_early_without_writes() {
    let bench = TierBench::new(499).await;
    let handle = bench.start(LONG).await;
    assert_eq!(bench.end(&handle).await.outcome, TierOutcome::NotDue);
    assert_eq!(
        bench.recorded().await,
        ("BRONZE".into(), vec![(Some("NOT_DUE".into()), false)])
    );
    assert!(bench.events().await.is_empty());
    assert_eq!(bench.faults.attempts("gather-context"), 0);
    let (written,): (i64,) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM callbacks)
                + (SELECT tier_version FROM customers)",
    )
    .fetch_one(bench.pool())
    .await
    .unwrap();
    assert_eq!(written, 0);
}

#[tokio::test]
async fn a_missing_or_failed_acknowledgement_keeps_the_tier() {
    let bench = TierBench::new(1_600).await;
    let handle = bench.start(Duration::from_millis(300)).await;
    assert_eq!(
        bench.end(&handle).await.outcome,
        TierOutcome::NotAcknowledged
    );
    assert_eq!(
        bench.recorded().await,
        (
            "GOLD".into(),
            vec![(Some("NOT_ACKNOWLEDGED".into()), false)]
        )
    );

    let bench = TierBench::new(1_600).await;
    let handle = bench.start(LONG).await;
    bench.acknowledge(&handle, false).await;
    assert_eq!(
        bench.end(&handle).await.outcome,
        TierOutcome::NotificationFailed
    );
    assert_eq!(
        bench.recorded().await,
        (
            "GOLD".into(),
            vec![(Some("NOTIFICATION_FAILED".into()), false)]
        )
    );
}

#[tokio::test]
async fn unreachable_services_are_gone_without_and_named() {
    let bench = TierBench::new(600).await;
    for service in ["product", "order"] {
        bench
            .tell_service(service, json!({ "mode": "error" }))
            .await;
    }
    let handle = bench.start(LONG).await;
    bench.acknowledge(&handle, true).await;
    let result = bench.end(&handle).await;
    assert_eq!(result.outcome, TierOutcome::Acknowledged);
    assert_eq!(result.without, ["product", "order"]);
    assert_eq!(bench.recorded().await.0, "SILVER");
}

#[tokio::test]
async fn another_change_of_the_tier_stops_it_and_closing_looks_again() {
    let bench = TierBench::new(1_600).await;
    bench
        .tell_service("product", json!({ "mode": "slow", "delayMs": 4_000 }))
        .await;
    let handle = bench.start(LONG).await;
    // The account is read, and the service thinks.
    while bench.faults.attempts("gather-context") == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sqlx::query("UPDATE customers SET tier = 'SILVER', tier_version = tier_version + 1")
        .execute(bench.pool())
        .await
        .unwrap();
    assert_eq!(bench.end(&handle).await.outcome, TierOutcome::Conflict);
    assert!(bench.events().await.is_empty());
    assert_eq!(
        bench.recorded().await,
        (
            "SILVER".into(),
            vec![(Some("CONFLICT".into()), false), (None, false)]
        ),
        "gold is still due, so the next order is open"
    );
    bench.tell_service("product", json!({ "mode": "ok" })).await;
    let handle = bench.start(Duration::from_millis(200)).await;
    bench.end(&handle).await;
    assert_eq!(bench.recorded().await.0, "GOLD");
}

/// Every step fails in turn, before and after its work; the tier is given once, told once.
#[tokio::test]
async fn every_step_fails_in_turn() {
    let steps = [
        "read-account",
        "evaluate-tier",
        "gather-context",
        "fetch-order-history",
        "upgrade-tier",
        "await-notification-ack",
        "record-completion",
    ];
    let mut runs = Vec::new();
    for step in steps {
        for when in [When::Before, When::After] {
            for times in [1, 9] {
                runs.push(async move {
                    let context = format!("{step} fails {times} times {when:?}");
                    let bench = TierBench::new(600).await;
                    bench.faults.set(Fault { step, when, times });
                    let handle = bench.start(LONG).await;
                    bench.acknowledge(&handle, true).await;
                    let result = bench.end(&handle).await;
                    assert_eq!(result.outcome, TierOutcome::Acknowledged, "{context}");
                    assert_eq!(
                        bench.recorded().await,
                        ("SILVER".into(), vec![(Some("ACKNOWLEDGED".into()), true)]),
                        "{context}"
                    );
                    assert_eq!(bench.events().await.len(), 1, "{context}");
                    assert!(bench.faults.attempts(step) > 1, "{context}");
                });
            }
        }
    }
    futures::stream::StreamExt::for_each_concurrent(futures::stream::iter(runs), 8, |run| run)
        .await;
}
