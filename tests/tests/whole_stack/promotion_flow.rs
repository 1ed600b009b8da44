//! Every branch of a claim and of an assignment, every step of them failing, and a ledger that fails
//! in the middle.

use std::time::{Duration, Instant};

use domain::promotion::{AssignmentState, ClaimRefusal, ClaimState};
use temporalio_client::{WorkflowCancelOptions, WorkflowQueryOptions, WorkflowTerminateOptions};
use tests::{
    faults::{Fault, When},
    promotion_bench::PromotionBench,
    system::PATIENCE,
};
use workflows::{AssignPromotion, contract::AssignmentView, options::ASSIGN_ATTEMPT};

#[tokio::test]
async fn claimed() {
    let bench = PromotionBench::new("50.99").await;
    let view = bench.claim().await;
    assert_eq!(view.state, ClaimState::Claimed);
    assert_eq!(view.points.map(i64::from), Some(50));
    assert_eq!(bench.available().await, 50);
    assert_eq!(bench.told("loyalty.pointsAdded.v2").await, 1);
    bench.assert_promises("claimed").await;
}

#[tokio::test]
async fn a_claim_without_points_is_rolled_back_and_can_be_claimed_again() {
    let bench = PromotionBench::new("0.99").await;
    let view = bench.claim().await;
    assert_eq!(view.state, ClaimState::Unclaimed);
    assert_eq!(view.refusal, Some(ClaimRefusal::NoPoints));
    assert_eq!(bench.available().await, 0);
    sqlx::query("UPDATE promotions SET amount = 3")
        .execute(bench.pool())
        .await
        .unwrap();
    assert_eq!(bench.claim().await.state, ClaimState::Claimed);
    assert_eq!(bench.available().await, 3);
    bench.assert_promises("claimed again").await;
}

#[tokio::test]
async fn points_that_the_account_cannot_hold_are_rolled_back() {
    let bench = PromotionBench::new("10").await;
    let full = "UPDATE customers SET lifetime_earned = 9223372036854775800";
    sqlx::query(full).execute(bench.pool()).await.unwrap();
    let view = bench.claim().await;
    assert_eq!(view.state, ClaimState::Unclaimed);
    assert_eq!(view.refusal, Some(ClaimRefusal::TooManyPoints));
    assert_eq!(bench.available().await, 0);
}

/// The same claim started again and again: the row answers, nothing happens twice.
#[tokio::test]
async fn a_claim_that_has_ended_is_run_again_in_vain() {
    let bench = PromotionBench::new("10").await;
    let claim = bench.ask().await;
    for _ in 0..3 {
        let handle = bench.start(&claim).await;
        assert_eq!(bench.end(&handle).await.state, ClaimState::Claimed);
    }
    assert_eq!(bench.available().await, 10);
    bench.assert_promises("run again").await;
}

/// As long as the ledger takes nothing, nothing is half done; then it is done once.
#[tokio::test]
async fn a_ledger_that_fails_in_the_middle_leaves_nothing_half_done() {
    let bench = PromotionBench::new("10").await;
    sqlx::raw_sql(
        "CREATE FUNCTION break() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'the disk is full' USING ERRCODE = 'disk_full'; END $$;
         CREATE TRIGGER broken BEFORE INSERT ON transfers FOR EACH ROW EXECUTE FUNCTION break();",
    )
    .execute(bench.pool())
    .await
    .unwrap();
    let claim = bench.ask().await;
    let handle = bench.start(&claim).await;
    // Beyond the local attempts.
    while bench.faults.attempts("credit-bonus") < 12 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let row = bench.row().await;
        assert_eq!(row.state, ClaimState::Claiming);
        assert_eq!(bench.available().await, 0);
        assert_eq!(bench.told("loyalty.pointsAdded.v2").await, 0);
    }
    sqlx::raw_sql("DROP TRIGGER broken ON transfers")
        .execute(bench.pool())
        .await
        .unwrap();
    assert_eq!(bench.end(&handle).await.state, ClaimState::Claimed);
    assert_eq!(bench.available().await, 10);
    bench.assert_promises("mended").await;
}

/// Terminating a flow moves no point; the next run under the same id goes on from the row.
#[tokio::test]
async fn a_terminated_claim_is_resumed_from_its_row() {
    let bench = PromotionBench::new("10").await;
    let claim = bench.ask().await;
    let (step, when, times) = ("credit-bonus", When::Before, 1_000);
    bench.faults.set(Fault { step, when, times });
    let handle = bench.start(&claim).await;
    while bench.faults.attempts(step) < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let terminate = WorkflowTerminateOptions::builder();
    let terminate = terminate.reason("an operator's mistake").build();
    handle.terminate(terminate).await.unwrap();
    assert_eq!(bench.row().await.state, ClaimState::Claiming);
    let times = 0;
    bench.faults.set(Fault { step, when, times });
    let handle = bench.start(&claim).await;
    assert_eq!(bench.end(&handle).await.state, ClaimState::Claimed);
    assert_eq!(bench.available().await, 10);
    bench.assert_promises("terminated").await;
}

/// Every step fails in turn, before and after its work, locally and beyond its local budget; what
/// must be true at the end is.
#[tokio::test]
async fn every_step_of_a_claim_fails_in_turn() {
    let stories: [(&str, &[&'static str], ClaimState, i64); 2] = [
        (
            "10",
            &["mark-claimed", "credit-bonus"],
            ClaimState::Claimed,
            10,
        ),
        (
            "0.1",
            &["mark-claimed", "roll-back-claim"],
            ClaimState::Unclaimed,
            0,
        ),
    ];
    let mut runs = Vec::new();
    for (amount, steps, state, points) in stories {
        for step in steps {
            for when in [When::Before, When::After] {
                for times in [1, 9] {
                    runs.push(async move {
                        let context = format!("{amount}, {step} fails {times} times {when:?}");
                        let bench = PromotionBench::new(amount).await;
                        bench.faults.set(Fault { step, when, times });
                        assert_eq!(bench.claim().await.state, state, "{context}");
                        assert_eq!(bench.available().await, points, "{context}");
                        let attempts = bench.faults.attempts(step);
                        assert!(attempts > times, "{context}: {attempts} attempts");
                        bench.assert_promises(&context).await;
                    });
                }
            }
        }
    }
    futures::stream::StreamExt::for_each_concurrent(futures::stream::iter(runs), 8, |run| run)
        .await;
}

// ------------------------------------------------------------------------------------ assignments

fn counts(view: &AssignmentView) -> (u32, u32, u32) {
    (view.assigned, view.already, view.unknown)
}

#[tokio::test]
async fn assigned_to_many_with_unknown_ones_among_them() {
    let bench = PromotionBench::new("10").await;
    bench.order(900, 7).await;
    let handle = bench.start_assignment().await;
    let view = bench.end_assignment(&handle).await;
    assert_eq!(view.state, AssignmentState::Done);
    assert_eq!(counts(&view), (900, 1, 7));
    assert_eq!(bench.told("notifications").await, 901);
    let shown = handle
        .query(
            AssignPromotion::progress,
            (),
            WorkflowQueryOptions::default(),
        )
        .await
        .unwrap();
    assert_eq!(shown, Some(view));
    bench.assert_promises("assigned").await;
}

/// Whoever takes it back, by a request or in the Web UI: what is assigned stays, and the rest is not
/// done. It is held in the middle by somebody who has the row of one player.
#[tokio::test]
async fn taken_back_in_the_middle_it_stops_there() {
    for in_web_ui in [false, true] {
        let bench = PromotionBench::new("10").await;
        bench.order(900, 0).await;
        let held = held(&bench).await;
        let began = Instant::now();
        let handle = bench.start_assignment().await;
        third_step_waits(&bench).await;
        if in_web_ui {
            let cancel = WorkflowCancelOptions::builder().reason("a wish").build();
            handle.cancel(cancel).await.unwrap();
            held.rollback().await.unwrap();
        } else {
            // The step under way has the job's row, so the wish waits for it.
            tokio::join!(bench.request_cancel(), async {
                until_it_waits(&bench, "%coalesce(cancel_requested_at%").await;
                held.rollback().await.unwrap();
            });
        }
        let view = bench.end_assignment(&handle).await;
        assert_eq!(view.state, AssignmentState::Cancelled, "{view}");
        // Where it was given up on its way, the next attempt may have found the wish.
        let done = if began.elapsed() < ASSIGN_ATTEMPT || view.assigned != 499 {
            749
        } else {
            499
        };
        assert_eq!(counts(&view), (done, 1, 0), "the step under way is done");
        let done = i64::from(done);
        assert_eq!(bench.job().await.left(), 900 - done);
        assert_eq!(bench.told("notifications").await, done + 1);
        bench.assert_promises("taken back").await;
    }
}

/// Has the row of a player whom the third step looks at.
async fn held(bench: &PromotionBench) -> store::Transaction {
    let mut held = bench.pool().begin().await.expect("PostgreSQL answers");
    sqlx::query("SELECT FROM customers WHERE customer_id = 'K600' FOR UPDATE")
        .execute(&mut *held)
        .await
        .expect("PostgreSQL answers");
    held
}

/// Waits until the third step has the job's row and waits for the player's.
async fn third_step_waits(bench: &PromotionBench) {
    until_it_waits(bench, "%ORDER BY customer_id FOR UPDATE%").await;
    assert!(bench.faults.attempts("assign-players") >= 3);
}

/// Waits until a statement like this waits for a lock.
async fn until_it_waits(bench: &PromotionBench, statement: &str) {
    let began = Instant::now();
    while !it_waits(bench, statement).await {
        assert!(began.elapsed() < PATIENCE, "{statement} never waited");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn it_waits(bench: &PromotionBench, statement: &str) -> bool {
    let (waiting,): (bool,) = sqlx::query_as(
        "SELECT EXISTS (SELECT FROM pg_stat_activity
                        WHERE datname = current_database() AND wait_event_type = 'Lock'
                          AND query LIKE $1)",
    )
    .bind(statement)
    .fetch_one(bench.pool())
    .await
    .expect("PostgreSQL answers");
    waiting
}

#[tokio::test]
async fn a_terminated_assignment_goes_on_where_it_stood() {
    let bench = PromotionBench::new("10").await;
    bench.order(900, 0).await;
    let held = held(&bench).await;
    let handle = bench.start_assignment().await;
    third_step_waits(&bench).await;
    let terminate = WorkflowTerminateOptions::builder().reason("a mistake");
    handle.terminate(terminate.build()).await.unwrap();
    assert_eq!(bench.job().await.assigned, 499);
    held.rollback().await.unwrap();
    let handle = bench.start_assignment().await;
    let view = bench.end_assignment(&handle).await;
    assert_eq!(view.state, AssignmentState::Done);
    assert_eq!(counts(&view), (900, 1, 0));
    assert_eq!(bench.told("notifications").await, 901);
    bench.assert_promises("terminated").await;
}

#[tokio::test]
async fn every_step_of_an_assignment_fails_in_turn() {
    let mut runs = Vec::new();
    for step in ["assign-players", "end-assignment"] {
        for when in [When::Before, When::After] {
            for times in [1, 3] {
                runs.push(async move {
                    let context = format!("{step} fails {times} times {when:?}");
                    let bench = PromotionBench::new("10").await;
                    bench.order(300, 2).await;
                    bench.faults.set(Fault { step, when, times });
                    let handle = bench.start_assignment().await;
                    let view = bench.end_assignment(&handle).await;
                    assert_eq!(view.state, AssignmentState::Done, "{context}");
                    assert_eq!(counts(&view), (300, 1, 2), "{context}");
                    assert_eq!(bench.told("notifications").await, 301, "{context}");
                    let attempts = bench.faults.attempts(step);
                    assert!(attempts > times, "{context}: {attempts} attempts");
                    bench.assert_promises(&context).await;
                });
            }
        }
    }
    futures::stream::StreamExt::for_each_concurrent(futures::stream::iter(runs), 8, |run| run)
        .await;
}
