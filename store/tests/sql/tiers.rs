use std::time::Duration;

use domain::Tier;
use store::{
    PgPool, callbacks,
    callbacks::Answered,
    testing,
    tiers::{self, NewUpgrade, Order},
};

use crate::support::*;

async fn due(pool: &PgPool, nights: u32) -> Order {
    post(pool, &[stay(&format!("e{nights}"), "A", nights)]).await;
    let mut orders = tiers::orders_to_start(pool, 10).await.unwrap();
    assert_eq!(orders.len(), 1);
    let order = orders.remove(0);
    tiers::mark_started(pool, order.order_id).await.unwrap();
    order
}

fn upgrade(order: &Order, tier: Tier, version: i64) -> NewUpgrade<'_> {
    NewUpgrade {
        order_id: order.order_id,
        customer: &order.customer_id,
        workflow_id: "tier-upgrade/A/1",
        tier,
        expected_tier_version: version,
        recommendations: &[],
        acknowledge_within: Duration::from_secs(60),
    }
}

async fn close(pool: &PgPool, order: &Order, acknowledged: bool) {
    let thresholds = *programme().tiers();
    tiers::close(
        pool,
        order.order_id,
        &order.customer_id,
        "X",
        acknowledged,
        &thresholds,
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_tier_is_given_once_with_its_event_and_acknowledged() {
    let db = testing::database().await;
    let pool = &db.pool;
    let order = due(pool, 6).await;
    let account = tiers::read_account(pool, order.order_id).await.unwrap();
    assert_eq!(
        (account.tier, account.current_points),
        (Tier::Bronze, points(600))
    );
    let first = tiers::upgrade(pool, &upgrade(&order, Tier::Silver, account.tier_version))
        .await
        .unwrap();
    let again = tiers::upgrade(pool, &upgrade(&order, Tier::Silver, account.tier_version))
        .await
        .unwrap();
    assert_eq!(first.as_ref().unwrap().new_tier, Tier::Silver);
    assert_eq!(first.unwrap().previous_tier, again.unwrap().previous_tier);
    let events = outbox(pool, "loyalty.tierUpgraded.v1").await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["newTier"], "SILVER");
    assert_eq!(
        tiers::acknowledgement(pool, order.order_id).await.unwrap(),
        None
    );
    let mut conn = pool.acquire().await.unwrap();
    let callback = events[0]["callbackId"].as_str().unwrap();
    assert!(matches!(
        callbacks::answer_tier_upgrade(&mut conn, callback, true)
            .await
            .unwrap(),
        Answered::First { .. }
    ));
    assert_eq!(
        tiers::acknowledgement(pool, order.order_id).await.unwrap(),
        Some(true)
    );
    close(pool, &order, true).await;
    let (notified,): (bool,) = sqlx::query_as("SELECT notified_at IS NOT NULL FROM tier_orders")
        .fetch_one(pool)
        .await
        .unwrap();
    assert!(notified);
    assert!(tiers::orders_to_start(pool, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_changed_tier_version_or_a_lower_tier_writes_nothing() {
    let db = testing::database().await;
    let pool = &db.pool;
    let order = due(pool, 20).await;
    assert_eq!(
        tiers::upgrade(pool, &upgrade(&order, Tier::Gold, 7))
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        tiers::upgrade(pool, &upgrade(&order, Tier::Bronze, 0))
            .await
            .unwrap(),
        None
    );
    assert!(outbox(pool, "loyalty.tierUpgraded.v1").await.is_empty());
    assert_eq!(balance(pool, "A").await.tier.0, Tier::Bronze);
    // Closing looks again: a tier is still due, so the next order opens, and only one.
    close(pool, &order, false).await;
    close(pool, &order, false).await;
    assert_eq!(tiers::orders_to_start(pool, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_order_that_was_cut_off_is_found_again() {
    let db = testing::database().await;
    let pool = &db.pool;
    let order = due(pool, 6).await;
    assert_eq!(
        tiers::stale_orders(pool, Duration::ZERO, 10).await.unwrap(),
        [order]
    );
    assert!(
        tiers::stale_orders(pool, Duration::from_secs(60), 10)
            .await
            .unwrap()
            .is_empty()
    );
}
