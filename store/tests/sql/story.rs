use std::time::Duration;

use domain::redemption::{FailureReason, PartnerVerdict};
use serde_json::json;
use store::{
    PgPool, audit, callbacks, redemptions,
    story::{self, Kind, RedemptionStory},
    testing,
};

use crate::support::*;

const TTL: Duration = Duration::from_secs(900);

async fn told(pool: &PgPool, id: &domain::RedeemRequestId) -> RedemptionStory {
    let mut conn = pool.acquire().await.unwrap();
    let story = story::of_redemption(&mut conn, id).await.unwrap();
    story.expect("there is one")
}

fn words(story: &RedemptionStory) -> Vec<(Kind, &str)> {
    let steps = story.steps.iter();
    steps.map(|step| (step.kind, step.what.as_str())).collect()
}

#[tokio::test]
async fn a_redemption_is_told_from_its_request_to_the_last_message() {
    let db = testing::database().await;
    let pool = &db.pool;
    post(pool, &[stay("E1", "A", 5)]).await;
    let request = request("R1", "A", 200);
    let id = &request.redeem_request_id;
    accept(pool, &request).await;
    let mut conn = pool.acquire().await.unwrap();
    for (action, subject) in [
        ("redeem.request", "R1"),
        ("redeem.request", "R2"),
        ("x", "R1"),
    ] {
        let change = audit::Change {
            actor: "issuer anna",
            action,
            subject,
            request_id: "Q1",
            address: None,
            detail: json!({}),
        };
        audit::write(&mut conn, &change).await.unwrap();
    }
    let row = redemptions::reserve(pool, id, TTL, |_| true).await.unwrap();
    redemptions::begin_confirm(pool, id).await.unwrap();
    redemptions::await_callback(pool, id).await.unwrap();
    let callback = row.callback_id.expect("one was made");
    let verdict = PartnerVerdict::Confirmed;
    callbacks::answer_partner(&mut conn, &callback, verdict, Some("C-1"))
        .await
        .unwrap();
    callbacks::mark_signalled(pool, &callback).await.unwrap();
    redemptions::settle(pool, id, None, false).await.unwrap();
    // Another message of the same customer at about the same time.
    post(pool, &[stay("E2", "A", 1)]).await;

    let story = told(pool, id).await;
    assert_eq!(
        words(&story),
        [
            (
                Kind::State,
                "QUEUED: 200 points at M1 for its order O-R1, asked for over HTTP"
            ),
            (Kind::Request, "redeem.request by issuer anna (request Q1)"),
            (
                Kind::Transfer,
                "REDEMPTION: 200 points from AVAILABLE to HELD (redeem R1, available 300, held 200)"
            ),
            (Kind::State, "RESERVED: the points are held"),
            (Kind::State, "CONFIRMING: the merchant is asked"),
            (
                Kind::State,
                "AWAITING_CALLBACK: the merchant has promised to call back"
            ),
            (Kind::Callback, "the merchant called back: CONFIRMED"),
            (Kind::Partner, "the merchant's last word: CONFIRMED (C-1)"),
            (Kind::Callback, "the flow was told of the callback"),
            (
                Kind::Transfer,
                "REDEMPTION: 200 points from HELD to SETTLEMENT (redeem R1, available 300, held 0)"
            ),
            (Kind::State, "SUCCESS: 200 points deducted"),
            (Kind::Message, "waits to be published on redeem-confirmed"),
            (
                Kind::Message,
                "waits to be published on loyalty.pointsAdded.v2"
            ),
        ]
    );
    sqlx::query("UPDATE outbox SET published_at = clock_timestamp()")
        .execute(pool)
        .await
        .unwrap();
    let story = told(pool, id).await;
    let published = words(&story).split_off(11);
    let on = |topic| (Kind::Message, topic);
    assert_eq!(
        published,
        [
            on("published on redeem-confirmed"),
            on("published on loyalty.pointsAdded.v2")
        ]
    );
}

#[tokio::test]
async fn a_refusal_and_what_came_too_late_are_told() {
    let db = testing::database().await;
    let pool = &db.pool;
    post(pool, &[stay("E1", "A", 5)]).await;
    let request = request("R1", "A", 200);
    let id = &request.redeem_request_id;
    accept(pool, &request).await;
    let row = redemptions::reserve(pool, id, TTL, |_| true).await.unwrap();
    redemptions::begin_confirm(pool, id).await.unwrap();
    let mut conn = pool.acquire().await.unwrap();
    redemptions::record_verdict(&mut conn, id, PartnerVerdict::Refused, Some("sold out"))
        .await
        .unwrap();
    redemptions::release(pool, id, FailureReason::PartnerRefused)
        .await
        .unwrap();
    let callback = row.callback_id.expect("one was made");
    callbacks::answer_partner(&mut conn, &callback, PartnerVerdict::Confirmed, None)
        .await
        .unwrap();

    let story = told(pool, id).await;
    assert_eq!(story.late_answer.as_deref(), Some("CONFIRMED"));
    assert_eq!(
        words(&story).split_off(4),
        [
            (
                Kind::Partner,
                "the merchant's last word: REFUSED (sold out)"
            ),
            (
                Kind::Transfer,
                "REDEMPTION: 200 points from HELD to AVAILABLE (redeem R1, available 500, held 0)"
            ),
            (Kind::State, "FAILED: PARTNER_REFUSED, nothing deducted"),
            (Kind::Message, "waits to be published on redeem-confirmed"),
        ]
    );
}

#[tokio::test]
async fn who_cannot_pay_and_who_is_not_there_are_told_too() {
    let db = testing::database().await;
    let pool = &db.pool;
    let request = request("R1", "nobody", 200);
    accept(pool, &request).await;
    let id = &request.redeem_request_id;
    redemptions::reserve(pool, id, TTL, |_| true).await.unwrap();
    let story = told(pool, id).await;
    assert_eq!(
        words(&story).split_off(1),
        [
            (Kind::State, "FAILED: INSUFFICIENT_POINTS, nothing deducted"),
            (Kind::Message, "waits to be published on redeem-confirmed"),
        ]
    );
    let other = domain::RedeemRequestId::new("R2").unwrap();
    let mut conn = pool.acquire().await.unwrap();
    assert_eq!(story::of_redemption(&mut conn, &other).await.unwrap(), None);
}
