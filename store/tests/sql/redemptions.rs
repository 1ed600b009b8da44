use std::time::Duration;

use domain::redemption::{FailureReason, PartnerVerdict, RedemptionState as State};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use store::{
    PgPool,
    redemptions::{self, Accepted, Redemption},
    testing,
};

use crate::support::*;

const TTL: Duration = Duration::from_secs(900);

async fn prepared(pool: &PgPool, id: &str, has: u32, asks: i64) -> domain::RedeemRequestId {
    post(pool, &[stay(&format!("seed-{id}"), "A", has / 100)]).await;
    let request = request(id, "A", asks);
    assert_eq!(accept(pool, &request).await, Accepted::New);
    request.redeem_request_id
}

async fn verdict(pool: &PgPool, id: &domain::RedeemRequestId, v: PartnerVerdict) -> Redemption {
    let mut conn = pool.acquire().await.unwrap();
    redemptions::record_verdict(&mut conn, id, v, None)
        .await
        .unwrap()
}

async fn cancel(pool: &PgPool, id: &domain::RedeemRequestId) -> Redemption {
    let mut conn = pool.acquire().await.unwrap();
    redemptions::request_cancel(&mut conn, id).await.unwrap()
}

#[tokio::test]
async fn reserve_confirm_settle_deducts_once_and_answers_once() {
    let db = testing::database().await;
    let pool = &db.pool;
    let id = prepared(pool, "R1", 500, 200).await;
    for _ in 0..2 {
        let row = redemptions::reserve(pool, &id, TTL, |_| true)
            .await
            .unwrap();
        assert_eq!(row.state, State::Reserved);
    }
    let held = balance(pool, "A").await;
    assert_eq!((held.available, held.held), (points(300), points(200)));
    for _ in 0..2 {
        assert_eq!(
            redemptions::begin_confirm(pool, &id).await.unwrap().state,
            State::Confirming
        );
    }
    for _ in 0..2 {
        let row = redemptions::settle(pool, &id, Some("C-1"), false)
            .await
            .unwrap();
        assert_eq!(
            (row.state, row.points_deducted),
            (State::Success, points(200))
        );
        assert_eq!(row.partner_detail.as_deref(), Some("C-1"));
    }
    let after = balance(pool, "A").await;
    assert_eq!((after.available, after.held), (points(300), points(0)));
    let answers = outbox(pool, "redeem-confirmed").await;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0]["status"], "SUCCESS");
    assert_eq!(answers[0]["balanceAfter"], 300);
    let changes = outbox(pool, "loyalty.pointsAdded.v2").await;
    assert_eq!(changes.last().unwrap()["difference"], -200);
    assert_eq!(changes.len(), 2, "holding changes no total");
    // Asked to release a SUCCESS, the step answers SUCCESS.
    let row = redemptions::release(pool, &id, FailureReason::Cancelled)
        .await
        .unwrap();
    assert_eq!(row.state, State::Success);
    assert_ledger_agrees(pool).await;
}

#[tokio::test]
async fn the_database_itself_refuses_a_second_closing_of_a_hold() {
    let db = testing::database().await;
    let pool = &db.pool;
    let id = prepared(pool, "R1", 500, 200).await;
    redemptions::reserve(pool, &id, TTL, |_| true)
        .await
        .unwrap();
    redemptions::begin_confirm(pool, &id).await.unwrap();
    redemptions::settle(pool, &id, None, false).await.unwrap();
    let error = sqlx::query(
        "INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account, customer_id,
                amount, reason, workflow_id, customer_version, available_after, held_after, occurred_at)
         VALUES ('redeem', 'R1', 'release', 'HELD', 'AVAILABLE', 'A', 200, 'REDEMPTION', 'R1', 99, 0, 0, now())",
    )
    .execute(pool)
    .await
    .unwrap_err();
    assert!(
        error.to_string().contains("transfers_one_closing_per_hold"),
        "{error}"
    );
}

#[tokio::test]
async fn too_few_points_an_unknown_merchant_and_a_cancelled_request_fail_without_a_hold() {
    let db = testing::database().await;
    let pool = &db.pool;
    let penniless = prepared(pool, "R1", 100, 101).await;
    let row = redemptions::reserve(pool, &penniless, TTL, |_| true)
        .await
        .unwrap();
    assert_eq!(
        (row.state, row.reason),
        (State::Failed, Some(FailureReason::InsufficientPoints))
    );
    post(pool, &[stay("more", "A", 5)]).await;
    let row = redemptions::reserve(pool, &penniless, TTL, |_| true)
        .await
        .unwrap();
    assert_eq!(
        row.state,
        State::Failed,
        "a refusal is never evaluated again"
    );

    let lost = prepared(pool, "R2", 100, 50).await;
    let row = redemptions::reserve(pool, &lost, TTL, |_| false)
        .await
        .unwrap();
    assert_eq!(row.reason, Some(FailureReason::UnknownMerchant));

    let taken_back = prepared(pool, "R3", 100, 50).await;
    cancel(pool, &taken_back).await;
    let row = redemptions::reserve(pool, &taken_back, TTL, |_| true)
        .await
        .unwrap();
    assert_eq!(row.reason, Some(FailureReason::Cancelled));

    let nobody = request("R4", "nobody", 1);
    accept(pool, &nobody).await;
    let row = redemptions::reserve(pool, &nobody.redeem_request_id, TTL, |_| true)
        .await
        .unwrap();
    assert_eq!(row.reason, Some(FailureReason::InsufficientPoints));
    assert_eq!(balance(pool, "A").await.held, points(0));
    assert_eq!(outbox(pool, "redeem-confirmed").await.len(), 4);
}

#[tokio::test]
async fn once_the_partner_may_know_only_its_word_frees_the_points() {
    let db = testing::database().await;
    let pool = &db.pool;
    let id = prepared(pool, "R1", 500, 200).await;
    redemptions::reserve(pool, &id, TTL, |_| true)
        .await
        .unwrap();
    redemptions::begin_confirm(pool, &id).await.unwrap();
    let row = redemptions::release(pool, &id, FailureReason::PartnerTimeout)
        .await
        .unwrap();
    assert_eq!(row.state, State::Confirming);
    assert_eq!(balance(pool, "A").await.held, points(200));
    // A callback said CONFIRMED, then the client's cancel was voided there: VOIDED is stronger.
    verdict(pool, &id, PartnerVerdict::Confirmed).await;
    verdict(pool, &id, PartnerVerdict::Voided).await;
    let row = verdict(pool, &id, PartnerVerdict::Confirmed).await;
    assert_eq!(row.verdict, Some(PartnerVerdict::Voided));
    let row = redemptions::settle(pool, &id, None, true).await.unwrap();
    assert_eq!(
        row.state,
        State::Confirming,
        "nothing is deducted for what was voided"
    );
    let row = redemptions::release(pool, &id, FailureReason::Cancelled)
        .await
        .unwrap();
    assert_eq!(
        (row.state, row.reason),
        (State::Failed, Some(FailureReason::Cancelled))
    );
    assert_eq!(balance(pool, "A").await.available, points(500));
}

#[tokio::test]
async fn a_cancel_stops_the_settling_unless_the_partner_cannot_undo_it() {
    let db = testing::database().await;
    let pool = &db.pool;
    let id = prepared(pool, "R1", 500, 200).await;
    redemptions::reserve(pool, &id, TTL, |_| true)
        .await
        .unwrap();
    redemptions::begin_confirm(pool, &id).await.unwrap();
    cancel(pool, &id).await;
    let row = redemptions::settle(pool, &id, None, false).await.unwrap();
    assert_eq!(row.state, State::Confirming);
    let row = redemptions::settle(pool, &id, None, true).await.unwrap();
    assert_eq!(row.state, State::Success);
    assert!(cancel(pool, &id).await.state.is_final());
}

#[tokio::test]
async fn a_cancel_before_the_partner_was_asked_keeps_it_from_being_asked() {
    let db = testing::database().await;
    let pool = &db.pool;
    let id = prepared(pool, "R1", 500, 200).await;
    redemptions::reserve(pool, &id, TTL, |_| true)
        .await
        .unwrap();
    cancel(pool, &id).await;
    assert_eq!(
        redemptions::begin_confirm(pool, &id).await.unwrap().state,
        State::Reserved
    );
    let row = redemptions::release(pool, &id, FailureReason::Cancelled)
        .await
        .unwrap();
    assert_eq!(row.state, State::Failed);
    assert_eq!(balance(pool, "A").await.available, points(500));
}

#[tokio::test]
async fn the_same_request_is_one_and_another_body_is_a_conflict() {
    let db = testing::database().await;
    let pool = &db.pool;
    let mut conn = pool.acquire().await.unwrap();
    let one = request("R1", "A", 10);
    let other = request("R1", "A", 11);
    let fresh = request("R2", "A", 10);
    let batch = [one.clone(), one.clone(), other.clone(), fresh];
    let answers = redemptions::accept(&mut conn, &batch, redemptions::Origin::Kafka)
        .await
        .unwrap();
    assert_eq!(
        answers,
        [
            Accepted::New,
            Accepted::Same,
            Accepted::Conflict,
            Accepted::New
        ]
    );
    assert_eq!(accept(pool, &one).await, Accepted::Same);
    assert_eq!(accept(pool, &other).await, Accepted::Conflict);
}

#[tokio::test]
async fn fifty_at_once_never_hold_more_than_there_is() {
    let db = testing::database().await;
    let pool = &db.pool;
    post(pool, &[stay("seed", "A", 10)]).await;
    let mut tasks = Vec::new();
    for n in 0..50 {
        let request = request(&format!("R{n}"), "A", 100);
        accept(pool, &request).await;
        let pool = pool.clone();
        tasks.push(tokio::spawn(async move {
            redemptions::reserve(&pool, &request.redeem_request_id, TTL, |_| true)
                .await
                .unwrap()
                .state
        }));
    }
    let mut reserved = 0;
    for task in tasks {
        reserved += usize::from(task.await.unwrap() == State::Reserved);
    }
    assert_eq!(reserved, 10);
    assert_ledger_agrees(pool).await;
}

/// Any order of steps, however often repeated, leaves every promise standing.
#[tokio::test]
async fn no_order_of_steps_breaks_a_promise() {
    let db = testing::database().await;
    let pool = &db.pool;
    post(pool, &[stay("seed", "A", 20)]).await;
    let mut random = StdRng::seed_from_u64(7);
    for n in 0..120 {
        let request = request(&format!("R{n}"), "A", 1);
        accept(pool, &request).await;
        let id = request.redeem_request_id;
        let mut story = Vec::new();
        let mut ended = None;
        for _ in 0..random.random_range(3..12) {
            let step = random.random_range(0..10);
            story.push(step);
            let row = match step {
                0 | 1 => redemptions::reserve(pool, &id, TTL, |_| true)
                    .await
                    .unwrap(),
                2 | 3 => redemptions::begin_confirm(pool, &id).await.unwrap(),
                4 => redemptions::await_callback(pool, &id).await.unwrap(),
                5 => verdict(pool, &id, PartnerVerdict::Refused).await,
                6 => verdict(pool, &id, PartnerVerdict::Voided).await,
                7 => redemptions::settle(pool, &id, None, random.random_bool(0.5))
                    .await
                    .unwrap(),
                8 => redemptions::release(pool, &id, FailureReason::PartnerTimeout)
                    .await
                    .unwrap(),
                _ => cancel(pool, &id).await,
            };
            if let Some(state) = ended {
                assert_eq!(row.state, state, "an end is an end: {story:?}");
            }
            if row.state.is_final() {
                ended = Some(row.state);
            }
            if row.state == State::Success {
                assert_ne!(row.verdict, Some(PartnerVerdict::Voided), "{story:?}");
                assert_ne!(row.verdict, Some(PartnerVerdict::Refused), "{story:?}");
            }
        }
    }
    assert_ledger_agrees(pool).await;
    let (held, expected): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT held FROM customers),
                (SELECT count(*) FROM redemptions
                 WHERE state IN ('RESERVED', 'CONFIRMING', 'AWAITING_CALLBACK'))",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(
        held, expected,
        "a point is held for each redemption under way, and no other"
    );
}

#[tokio::test]
async fn a_cancellation_is_found_until_its_redemption_has_ended() {
    let db = testing::database().await;
    let pool = &db.pool;
    let found = async |age, limit| {
        redemptions::cancelled_and_open(pool, age, limit)
            .await
            .unwrap()
    };
    let id = prepared(pool, "R1", 500, 200).await;
    let later = prepared(pool, "R2", 500, 200).await;
    redemptions::reserve(pool, &id, TTL, |_| true)
        .await
        .unwrap();
    assert_eq!(found(Duration::ZERO, 9).await, []);
    cancel(pool, &id).await;
    cancel(pool, &later).await;
    assert_eq!(found(TTL, 9).await, [], "too young");
    assert_eq!(found(Duration::ZERO, 1).await, std::slice::from_ref(&id));
    redemptions::release(pool, &id, FailureReason::Cancelled)
        .await
        .unwrap();
    assert_eq!(found(Duration::ZERO, 9).await, [later]);
}

#[tokio::test]
async fn a_redemption_that_was_started_waits_for_its_turn_until_it_is_stale() {
    let db = testing::database().await;
    let pool = &db.pool;
    let id = prepared(pool, "R1", 500, 200).await;
    let (now, later) = (Duration::ZERO, Duration::from_secs(3_600));
    let to_start = async |queued_for, stale_for| {
        let rows = redemptions::to_start(pool, queued_for, stale_for, 10).await;
        rows.unwrap().len()
    };
    assert_eq!(to_start(now, later).await, 1, "nobody has started it");
    redemptions::mark_started(pool, &id).await.unwrap();
    assert_eq!(to_start(now, later).await, 0);
    assert_eq!(to_start(later, now).await, 1, "it may have been cut off");
    redemptions::reserve(pool, &id, TTL, |_| true)
        .await
        .unwrap();
    redemptions::mark_started(pool, &id).await.unwrap();
    assert_eq!(to_start(now, later).await, 0);
    assert_eq!(to_start(later, now).await, 1);

    // However many wait for a merchant, each has its turn: whose flow was found open comes last.
    let other = prepared(pool, "R2", 500, 200).await;
    redemptions::mark_started(pool, &other).await.unwrap();
    redemptions::mark_started(pool, &id).await.unwrap();
    let first = redemptions::to_start(pool, later, now, 1).await.unwrap();
    assert_eq!(first[0].redeem_request_id, other);
}

/// Metrics count each end once, and what has not ended by state.
#[tokio::test]
async fn a_step_says_whether_it_ended_it_and_what_is_open_is_counted() {
    let db = testing::database().await;
    let pool = &db.pool;
    let open = async |state: State| {
        let open = redemptions::open(pool).await.unwrap();
        assert_eq!(open.len(), 4, "one for each state before the end");
        open.into_iter().find(|open| open.state == state).unwrap()
    };
    let id = prepared(pool, "R1", 500, 200).await;
    let queued = open(State::Queued).await;
    assert_eq!(queued.count, 1);
    assert!(queued.oldest_age_seconds > 0.0);
    let reserved = redemptions::reserve(pool, &id, TTL, |_| true)
        .await
        .unwrap();
    assert!(!reserved.ended_now);
    redemptions::begin_confirm(pool, &id).await.unwrap();
    assert_eq!(
        (
            open(State::Queued).await.count,
            open(State::Confirming).await.count
        ),
        (0, 1)
    );
    for now in [true, false] {
        let row = redemptions::settle(pool, &id, None, false).await.unwrap();
        assert_eq!(row.ended_now, now);
    }
    let too_much = prepared(pool, "R2", 100, 9_000).await;
    for now in [true, false] {
        let row = redemptions::reserve(pool, &too_much, TTL, |_| true)
            .await
            .unwrap();
        assert_eq!((row.state, row.ended_now), (State::Failed, now));
    }
    let cancelled = prepared(pool, "R3", 100, 50).await;
    redemptions::reserve(pool, &cancelled, TTL, |_| true)
        .await
        .unwrap();
    for now in [true, false] {
        let row = redemptions::release(pool, &cancelled, FailureReason::Cancelled)
            .await
            .unwrap();
        assert_eq!(row.ended_now, now);
    }
    let all = redemptions::open(pool).await.unwrap();
    assert!(
        all.iter()
            .all(|open| open.count == 0 && open.oldest_age_seconds <= 0.0)
    );
}
