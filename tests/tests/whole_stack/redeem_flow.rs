//! Every branch of a redemption, every step of it failing, and a cancel inside every step.

use std::time::Duration;

use domain::redemption::{FailureReason, RedemptionState as State};
use serde_json::json;
use temporalio_client::{WorkflowCancelOptions, WorkflowTerminateOptions};
use tests::{
    faults::{Fault, When},
    redeem_bench::{AMPLE, RedeemBench, SHORT},
};
use workflows::{contract::RedemptionView, redeem::RedeemLimits};

fn mode(name: &str) -> serde_json::Value {
    json!({ "mode": name })
}

fn assert_failed(view: &RedemptionView, reason: FailureReason) {
    assert_eq!((view.state, view.reason), (State::Failed, Some(reason)));
    assert_eq!(view.points_deducted.get(), 0);
}

#[tokio::test]
async fn confirmed() {
    let bench = RedeemBench::new(mode("confirm")).await;
    let view = bench.redeem("R1", 200, AMPLE).await;
    assert_eq!(
        (view.state, view.points_deducted.get()),
        (State::Success, 200)
    );
    assert_eq!(view.balance_after.map(i64::from), Some(800));
    bench.assert_promises("confirmed").await;
}

#[tokio::test]
async fn refused_by_the_partner() {
    let bench = RedeemBench::new(mode("refuse")).await;
    let view = bench.redeem("R1", 200, AMPLE).await;
    assert_failed(&view, FailureReason::PartnerRefused);
    assert_eq!(view.balance_after.map(i64::from), Some(1_000));
    bench.assert_promises("refused").await;
}

#[tokio::test]
async fn not_enough_points_and_the_same_request_twice() {
    let bench = RedeemBench::new(mode("confirm")).await;
    assert_failed(
        &bench.redeem("R1", 1_001, AMPLE).await,
        FailureReason::InsufficientPoints,
    );
    assert_eq!(bench.redeem("R2", 600, AMPLE).await.state, State::Success);
    // The same request again runs the flow again; the row answers, nothing happens twice.
    assert_eq!(bench.redeem("R2", 600, AMPLE).await.state, State::Success);
    assert_failed(
        &bench.redeem("R3", 600, AMPLE).await,
        FailureReason::InsufficientPoints,
    );
    bench.assert_promises("twice").await;
}

#[tokio::test]
async fn the_answer_is_lost_but_the_partner_did_confirm() {
    let bench = RedeemBench::new(json!({ "mode": "answer-lost", "times": 2 })).await;
    assert_eq!(bench.redeem("R1", 200, AMPLE).await.state, State::Success);
    bench.tell_partner(mode("answer-lost-forever")).await;
    assert_eq!(
        bench.redeem("R2", 200, SHORT).await.state,
        State::Success,
        "asked for its status"
    );
    bench.assert_promises("answer lost").await;
}

#[tokio::test]
async fn a_silent_partner_is_voided_before_points_go_back() {
    let bench = RedeemBench::new(mode("silent")).await;
    let view = bench.redeem("R1", 200, SHORT).await;
    assert_failed(&view, FailureReason::PartnerTimeout);
    let book = bench.book().await;
    assert_eq!(book[0]["status"], "VOIDED", "{book:?}");
    bench.assert_promises("silent").await;
}

#[tokio::test]
async fn a_partner_that_fails_for_a_while_is_asked_again() {
    let bench = RedeemBench::new(json!({ "mode": "flaky", "times": 3 })).await;
    assert_eq!(bench.redeem("R1", 200, AMPLE).await.state, State::Success);
    bench.assert_promises("flaky").await;
}

#[tokio::test]
async fn a_promised_callback_that_never_comes_ends_by_void_or_status() {
    let bench = RedeemBench::new(mode("pending-silent")).await;
    let limits = RedeemLimits {
        callback_within_ms: 500,
        ..AMPLE
    };
    assert_failed(
        &bench.redeem("R1", 100, limits).await,
        FailureReason::PartnerTimeout,
    );
    bench
        .tell_partner(json!({ "mode": "pending-callback-lost", "callbackDelayMs": 100 }))
        .await;
    assert_eq!(bench.redeem("R2", 100, limits).await.state, State::Success);
    bench.tell_partner(mode("not-voidable")).await;
    assert_eq!(
        bench.redeem("R3", 100, limits).await.state,
        State::Success,
        "it cannot be undone"
    );
    bench.assert_promises("no callback").await;
}

#[tokio::test]
async fn a_hold_whose_time_is_up_is_voided() {
    let bench = RedeemBench::new(mode("pending-silent")).await;
    let limits = RedeemLimits {
        hold_ttl_ms: 600,
        ..AMPLE
    };
    assert_failed(
        &bench.redeem("R1", 100, limits).await,
        FailureReason::HoldExpired,
    );
    bench.assert_promises("hold expired").await;
}

/// The time is up before the merchant has been asked, or just when it has promised to call back.
#[tokio::test]
async fn a_hold_that_is_over_at_once_ends() {
    let bench = RedeemBench::new(mode("pending-silent")).await;
    let over = RedeemLimits {
        hold_ttl_ms: 0,
        quick_attempt_ms: 0,
        ..AMPLE
    };
    assert_failed(
        &bench.redeem("R1", 100, over).await,
        FailureReason::HoldExpired,
    );
    let no_wait = RedeemLimits {
        callback_within_ms: 0,
        ..AMPLE
    };
    assert_failed(
        &bench.redeem("R2", 100, no_wait).await,
        FailureReason::PartnerTimeout,
    );
    bench.assert_promises("over at once").await;
}

#[tokio::test]
async fn a_callback_wakes_the_flow() {
    use domain::redemption::PartnerVerdict;
    use temporalio_client::WorkflowSignalOptions;
    let bench = RedeemBench::new(mode("pending-silent")).await;
    for (id, verdict) in [
        ("R1", PartnerVerdict::Confirmed),
        ("R2", PartnerVerdict::Refused),
    ] {
        let handle = bench.start(id, 100, AMPLE).await;
        let row = bench
            .row_until(id, |row| row.state == State::AwaitingCallback)
            .await;
        let mut conn = bench.pool().acquire().await.unwrap();
        store::callbacks::answer_partner(&mut conn, &row.callback_id.unwrap(), verdict, None)
            .await
            .unwrap();
        handle
            .signal(
                workflows::Redeem::partner_called_back,
                (),
                WorkflowSignalOptions::default(),
            )
            .await
            .unwrap();
        let view = bench.end(&handle).await;
        let expected = if verdict == PartnerVerdict::Confirmed {
            State::Success
        } else {
            State::Failed
        };
        assert_eq!(view.state, expected);
    }
}

#[tokio::test]
async fn a_callback_that_was_stored_but_never_signalled_is_read_before_giving_up() {
    let bench = RedeemBench::new(mode("pending-silent")).await;
    let handle = bench
        .start(
            "R1",
            100,
            RedeemLimits {
                callback_within_ms: 10_000,
                ..AMPLE
            },
        )
        .await;
    let row = bench
        .row_until("R1", |row| row.state == State::AwaitingCallback)
        .await;
    let mut conn = bench.pool().acquire().await.unwrap();
    let confirmed = domain::redemption::PartnerVerdict::Confirmed;
    store::callbacks::answer_partner(&mut conn, &row.callback_id.unwrap(), confirmed, None)
        .await
        .unwrap();
    assert_eq!(bench.end(&handle).await.state, State::Success);
}

/// The client takes it back while each step is under way, with every kind of partner. Whoever
/// wins, points and goods agree.
#[tokio::test]
async fn a_cancel_inside_every_step() {
    let partners = [
        "confirm",
        "slow",
        "pending-silent",
        "silent",
        "not-voidable",
        "refuse",
    ];
    let moments_ms = [0, 5, 15, 40, 120, 400];
    for partner in partners {
        let bench = RedeemBench::new(json!({ "mode": partner, "delayMs": 300 })).await;
        let mut flows = Vec::new();
        for (n, moment_ms) in moments_ms.into_iter().enumerate() {
            let bench = &bench;
            flows.push(async move {
                let id = format!("R{n}");
                let handle = bench.start(&id, 100, SHORT).await;
                tokio::time::sleep(Duration::from_millis(moment_ms)).await;
                bench.cancel(&id, &handle).await;
                let view = bench.end(&handle).await;
                assert!(view.state.is_final());
            });
        }
        futures::future::join_all(flows).await;
        bench.assert_promises(partner).await;
    }
}

#[tokio::test]
async fn a_cancel_from_the_web_ui_compensates() {
    let bench = RedeemBench::new(mode("pending-silent")).await;
    let handle = bench.start("R1", 100, AMPLE).await;
    bench
        .row_until("R1", |row| row.state == State::AwaitingCallback)
        .await;
    handle
        .cancel(
            WorkflowCancelOptions::builder()
                .reason("an operator's wish")
                .build(),
        )
        .await
        .unwrap();
    assert_failed(&bench.end(&handle).await, FailureReason::Cancelled);
    bench.assert_promises("cancelled in the Web UI").await;
}

/// Recording an operator's cancel fails too; it is compensated all the same.
#[tokio::test]
async fn a_cancel_from_the_web_ui_whose_recording_fails_compensates() {
    for when in [When::Before, When::After] {
        let bench = RedeemBench::new(mode("pending-silent")).await;
        let step = "request-cancel";
        let times = 9;
        bench.faults.set(Fault { step, when, times });
        let handle = bench.start("R1", 100, AMPLE).await;
        bench
            .row_until("R1", |row| row.state == State::AwaitingCallback)
            .await;
        let cancel = WorkflowCancelOptions::builder().reason("a wish").build();
        handle.cancel(cancel).await.unwrap();
        assert_failed(&bench.end(&handle).await, FailureReason::Cancelled);
        assert!(bench.faults.attempts(step) > times, "{when:?}");
        bench.assert_promises("cancelled").await;
    }
}

/// Terminating a flow moves no point; the next run under the same id goes on from the row.
#[tokio::test]
async fn a_terminated_flow_is_resumed_from_its_row() {
    let bench = RedeemBench::new(mode("pending-silent")).await;
    let handle = bench.start("R1", 100, AMPLE).await;
    bench
        .row_until("R1", |row| row.state == State::AwaitingCallback)
        .await;
    // Twice, where its first answer came too late for the quick attempt.
    let asked = bench.book().await[0]["posts"].clone();
    handle
        .terminate(
            WorkflowTerminateOptions::builder()
                .reason("an operator's mistake")
                .build(),
        )
        .await
        .unwrap();
    assert_eq!(bench.row("R1").await.state, State::AwaitingCallback);
    let limits = RedeemLimits {
        callback_within_ms: 300,
        ..AMPLE
    };
    assert_failed(
        &bench.redeem("R1", 100, limits).await,
        FailureReason::PartnerTimeout,
    );
    let posts = &bench.book().await[0]["posts"];
    assert_eq!(posts, &asked, "the merchant was not asked again");
    bench.assert_promises("terminated").await;
}

/// Every step fails in turn, before and after its work, locally and beyond its local budget; what
/// must be true at the end is.
#[tokio::test]
async fn every_step_fails_in_turn() {
    let stories: [(&'static str, &[&'static str]); 3] = [
        ("confirm", &["reserve", "confirm-with-partner", "settle"]),
        ("refuse", &["reserve", "confirm-with-partner", "release"]),
        (
            "pending-silent",
            &[
                "read-redemption",
                "ask-partner-status",
                "void-at-partner",
                "release",
            ],
        ),
    ];
    let mut runs = Vec::new();
    for (partner, steps) in stories {
        for &step in steps {
            for when in [When::Before, When::After] {
                for times in [1, 9] {
                    runs.push(async move {
                        let context = format!("{partner}, {step} fails {times} times {when:?}");
                        let bench = RedeemBench::new(mode(partner)).await;
                        bench.faults.set(Fault { step, when, times });
                        // Only where the merchant is not reached for long does the time for it run
                        // out; elsewhere there is enough on any machine.
                        let patient = !(step == "confirm-with-partner" && times == 9);
                        let base = if patient { AMPLE } else { SHORT };
                        let limits = RedeemLimits {
                            callback_within_ms: 300,
                            ..base
                        };
                        let view = bench.redeem("R1", 200, limits).await;
                        assert!(view.state.is_final(), "{context}: {view:?}");
                        let attempts = bench.faults.attempts(step);
                        assert!(
                            attempts > u32::from(patient),
                            "{context}: {attempts} attempts"
                        );
                        if patient && partner == "confirm" {
                            assert_eq!(view.state, State::Success, "{context}");
                        }
                        if partner != "confirm" {
                            assert_eq!(view.state, State::Failed, "{context}");
                        }
                        bench.assert_promises(&context).await;
                    });
                }
            }
        }
    }
    // Eight at a time: each has a worker, a partner and a database of its own.
    futures::stream::StreamExt::for_each_concurrent(futures::stream::iter(runs), 8, |run| run)
        .await;
}
