use std::time::Duration;

use domain::redemption::{PartnerVerdict, RedemptionState};
use store::{
    callbacks::{self, Answered},
    redemptions, testing,
};

use crate::support::*;

#[tokio::test]
async fn a_callback_is_answered_once_and_tells_every_other_case_apart() {
    let db = testing::database().await;
    let pool = &db.pool;
    post(pool, &[stay("seed", "A", 5)]).await;
    let request = request("R1", "A", 100);
    accept(pool, &request).await;
    let id = request.redeem_request_id;
    let ttl = Duration::from_secs(60);
    let row = redemptions::reserve(pool, &id, ttl, |_| true)
        .await
        .unwrap();
    let callback = row.callback_id.expect("minted with the hold");
    assert_eq!(callback.len(), 48);
    redemptions::begin_confirm(pool, &id).await.unwrap();

    let mut conn = pool.acquire().await.unwrap();
    let answer = |verdict| {
        let callback = callback.clone();
        let pool = pool.clone();
        async move {
            let mut conn = pool.acquire().await.unwrap();
            callbacks::answer_partner(&mut conn, &callback, verdict, None)
                .await
                .unwrap()
        }
    };
    assert_eq!(
        callbacks::answer_tier_upgrade(&mut conn, &callback, true)
            .await
            .unwrap(),
        Answered::Unknown,
        "a partner's callback is no acknowledgement"
    );
    let workflow_id = "R1".to_owned();
    assert_eq!(
        answer(PartnerVerdict::Confirmed).await,
        Answered::First {
            workflow_id: workflow_id.clone()
        }
    );
    assert_eq!(
        answer(PartnerVerdict::Confirmed).await,
        Answered::Again { workflow_id }
    );
    assert_eq!(answer(PartnerVerdict::Refused).await, Answered::Different);
    assert_eq!(
        callbacks::answer_partner(&mut conn, "no-such", PartnerVerdict::Refused, None)
            .await
            .unwrap(),
        Answered::Unknown
    );
    let row = redemptions::find(&mut conn, &id).await.unwrap().unwrap();
    assert_eq!(
        (row.state, row.verdict),
        (RedemptionState::Confirming, Some(PartnerVerdict::Confirmed))
    );

    let waiting = callbacks::unsignalled(pool, Duration::ZERO, 10)
        .await
        .unwrap();
    assert_eq!(waiting.len(), 1);
    callbacks::mark_signalled(pool, &callback).await.unwrap();
    assert!(
        callbacks::unsignalled(pool, Duration::ZERO, 10)
            .await
            .unwrap()
            .is_empty()
    );
}

/// A merchant that confirms what it has voided is told that it is too late, each time, and what
/// it said is kept for those who look into it.
#[tokio::test]
async fn a_confirmation_after_the_end_is_too_late_and_reported() {
    let db = testing::database().await;
    let pool = &db.pool;
    post(pool, &[stay("seed", "A", 5)]).await;
    let request = request("R1", "A", 100);
    accept(pool, &request).await;
    let id = request.redeem_request_id;
    let ttl = Duration::from_secs(60);
    let row = redemptions::reserve(pool, &id, ttl, |_| true)
        .await
        .unwrap();
    let callback = row.callback_id.unwrap();
    redemptions::begin_confirm(pool, &id).await.unwrap();
    let mut conn = pool.acquire().await.unwrap();
    redemptions::record_verdict(&mut conn, &id, PartnerVerdict::Voided, None)
        .await
        .unwrap();
    let reason = domain::redemption::FailureReason::PartnerTimeout;
    let confirm = async || {
        let mut conn = pool.acquire().await.unwrap();
        callbacks::answer_partner(&mut conn, &callback, PartnerVerdict::Confirmed, None)
            .await
            .unwrap()
    };
    assert_eq!(confirm().await, Answered::Expired, "while it is voided");
    redemptions::release(pool, &id, reason).await.unwrap();
    assert_eq!(confirm().await, Answered::Expired, "after its end");
    let broken: Vec<_> = store::verify::verify(pool)
        .await
        .unwrap()
        .into_iter()
        .filter(|check| check.violations > 0)
        .collect();
    assert_eq!(broken.len(), 1);
    assert!(broken[0].examples[0].contains("R1 is FAILED"), "{broken:?}");
}

#[tokio::test]
async fn an_answer_after_its_time_is_refused() {
    let db = testing::database().await;
    let pool = &db.pool;
    post(pool, &[stay("seed", "A", 5)]).await;
    let request = request("R1", "A", 100);
    accept(pool, &request).await;
    let id = request.redeem_request_id;
    let row = redemptions::reserve(pool, &id, Duration::ZERO, |_| true)
        .await
        .unwrap();
    let mut conn = pool.acquire().await.unwrap();
    let callback = row.callback_id.unwrap();
    assert_eq!(
        callbacks::answer_partner(&mut conn, &callback, PartnerVerdict::Confirmed, None)
            .await
            .unwrap(),
        Answered::Expired
    );
}
