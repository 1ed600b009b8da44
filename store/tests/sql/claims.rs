use std::time::Duration;

use chrono::{TimeDelta, Utc};
use domain::{
    Points, Programme,
    promotion::{ClaimRefusal, ClaimState, Standing, Terms},
};
use store::{
    PgPool, assignments,
    claims::{self, Asked, Claim, Step},
    testing,
};

use crate::support::*;

/// Has the promotion `P1` of these terms assigned to `A`, who has an account.
async fn assigned(pool: &PgPool, terms: &Terms) {
    create(pool, "P1", terms, false).await;
    open_account(pool, "A").await;
    let mut tx = pool.begin().await.unwrap();
    let given = assignments::welcome(&mut tx, &terms.kind, &[&customer("A")]).await;
    assert_eq!(given.unwrap(), 1);
    tx.commit().await.unwrap();
}

async fn ask(pool: &PgPool) -> Asked {
    let mut conn = pool.acquire().await.unwrap();
    claims::ask(&mut conn, &promotion("P1"), &customer("A"), Utc::now())
        .await
        .unwrap()
}

async fn asked(pool: &PgPool) -> Claim {
    match ask(pool).await {
        Asked::New(row) => Claim::from(&row),
        other => panic!("{other:?}"),
    }
}

async fn mark(pool: &PgPool, claim: &Claim) -> Step {
    claims::mark(pool, claim, &programme()).await.unwrap()
}

async fn credit(pool: &PgPool, claim: &Claim) -> Step {
    claims::credit(pool, claim, "claim/P1/A", programme().tiers())
        .await
        .unwrap()
}

async fn state(pool: &PgPool) -> (ClaimState, Option<Points>, Option<ClaimRefusal>) {
    let mut conn = pool.acquire().await.unwrap();
    let row = claims::find(&mut conn, &promotion("P1"), &customer("A")).await;
    let row = row.unwrap().expect("it is assigned");
    (row.state, row.points, row.refusal)
}

#[tokio::test]
async fn a_claim_credits_once_with_its_message_and_the_order_to_look_at_the_tier() {
    let db = testing::database().await;
    let pool = &db.pool;
    assigned(pool, &terms("WELCOME_BONUS", "600.99")).await;
    let claim = asked(pool).await;
    assert_eq!(claim.number, 1);
    assert!(matches!(ask(pool).await, Asked::UnderWay(_)));
    for _ in 0..2 {
        let marked = mark(pool, &claim).await;
        assert_eq!(marked.row.points, Some(points(600)));
        assert_eq!(marked.row.state, ClaimState::Claiming);
    }
    for _ in 0..2 {
        let credited = credit(pool, &claim).await;
        assert_eq!(credited.refused, None);
        assert_eq!(credited.row.state, ClaimState::Claimed);
        assert!(credited.row.claimed_at.is_some());
    }
    assert!(matches!(ask(pool).await, Asked::Before(_)));
    // Nothing that comes too late undoes it.
    let late = claims::roll_back(pool, &claim, ClaimRefusal::NoPoints).await;
    assert_eq!(late.unwrap().state, ClaimState::Claimed);
    mark(pool, &claim).await;

    let account = balance(pool, "A").await;
    assert_eq!(account.available, points(600));
    assert_eq!(account.lifetime_earned, points(600));
    assert_eq!(account.version, 1);
    let told = outbox(pool, "loyalty.pointsAdded.v2").await;
    assert_eq!(
        told,
        [serde_json::json!({ "userId": "A", "totalPoints": 600, "difference": 600 })]
    );
    assert!(outbox(pool, "reward-confirmed").await.is_empty());
    let row: (String, String, String, String, String, Option<String>) = sqlx::query_as(
        "SELECT source, source_event_id, leg, reason, workflow_id, rule_set_version FROM transfers",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(
        row,
        (
            "promotion".to_owned(),
            "P1/A".to_owned(),
            "bonus".to_owned(),
            "WELCOME_BONUS".to_owned(),
            "claim/P1/A".to_owned(),
            Some(programme().version().to_owned())
        )
    );
    let due = store::tiers::orders_to_start(pool, 9).await.unwrap();
    assert_eq!(due.len(), 1, "600 points are silver");
    assert_ledger_agrees(pool).await;
}

#[tokio::test]
async fn a_claim_is_worth_what_it_was_when_it_was_marked() {
    let db = testing::database().await;
    let pool = &db.pool;
    assigned(pool, &terms("WELCOME_BONUS", "10")).await;
    let claim = asked(pool).await;
    mark(pool, &claim).await;
    let text = include_str!("../../../programme.toml");
    let text = text.replace("points_per_unit = \"1\"", "points_per_unit = \"3\"");
    let other = Programme::parse(&text).unwrap();
    claims::mark(pool, &claim, &other).await.unwrap();
    credit(pool, &claim).await;
    assert_eq!(balance(pool, "A").await.available, points(10));
}

#[tokio::test]
async fn a_claim_without_points_is_rolled_back_and_can_be_claimed_again() {
    let db = testing::database().await;
    let pool = &db.pool;
    assigned(pool, &terms("WELCOME_BONUS", "0.5")).await;
    let first = asked(pool).await;
    let marked = mark(pool, &first).await;
    assert_eq!(marked.refused, Some(ClaimRefusal::NoPoints));
    assert_eq!(state(pool).await, (ClaimState::Claiming, None, None));
    for _ in 0..2 {
        let back = claims::roll_back(pool, &first, ClaimRefusal::NoPoints).await;
        assert_eq!(back.unwrap().state, ClaimState::Unclaimed);
    }
    let refused = Some(ClaimRefusal::NoPoints);
    assert_eq!(state(pool).await, (ClaimState::Unclaimed, None, refused));
    assert_ledger_agrees(pool).await;

    sqlx::query("UPDATE promotions SET amount = 7")
        .execute(pool)
        .await
        .unwrap();
    let second = asked(pool).await;
    assert_eq!(second.number, 2);
    mark(pool, &second).await;
    // Steps of the first claim that come late change nothing of the second.
    claims::roll_back(pool, &first, ClaimRefusal::NoPoints)
        .await
        .unwrap();
    assert_eq!(credit(pool, &first).await.row.state, ClaimState::Claiming);
    let marked = Some(points(7));
    assert_eq!(state(pool).await, (ClaimState::Claiming, marked, None));
    credit(pool, &second).await;
    assert_eq!(balance(pool, "A").await.available, points(7));
    assert_ledger_agrees(pool).await;
}

#[tokio::test]
async fn an_account_that_cannot_hold_the_points_stays_as_it_is() {
    let db = testing::database().await;
    let pool = &db.pool;
    assigned(pool, &terms("WELCOME_BONUS", "10")).await;
    sqlx::query("UPDATE customers SET available = 9223372036854775800")
        .execute(pool)
        .await
        .unwrap();
    let claim = asked(pool).await;
    mark(pool, &claim).await;
    let refused = credit(pool, &claim).await;
    assert_eq!(refused.refused, Some(ClaimRefusal::TooManyPoints));
    assert_eq!(refused.row.state, ClaimState::Claiming);
    let (transfers,): (i64,) = sqlx::query_as("SELECT count(*) FROM transfers")
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(transfers, 0);
}

#[tokio::test]
async fn what_does_not_hold_cannot_be_claimed() {
    let db = testing::database().await;
    let pool = &db.pool;
    let now = Utc::now();
    assigned(pool, &terms("WELCOME_BONUS", "10")).await;
    let mut conn = pool.acquire().await.unwrap();
    let mut ask = async |id: &str, who: &str, days: i64| {
        let at = now + TimeDelta::days(days);
        claims::ask(&mut conn, &promotion(id), &customer(who), at)
            .await
            .unwrap()
    };
    assert_eq!(
        ask("P1", "A", -2).await,
        Asked::NotOpen(Standing::NotStarted)
    );
    assert_eq!(ask("P1", "A", 2).await, Asked::NotOpen(Standing::Ended));
    assert_eq!(ask("P1", "B", 0).await, Asked::NotAssigned);
    assert_eq!(ask("P2", "A", 0).await, Asked::NotAssigned);
    sqlx::query("UPDATE promotions SET is_active = false")
        .execute(pool)
        .await
        .unwrap();
    assert_eq!(ask("P1", "A", 0).await, Asked::NotOpen(Standing::Inactive));
}

#[tokio::test]
async fn a_hundred_at_once_credit_once() {
    let db = testing::database().await;
    let pool = &db.pool;
    assigned(pool, &terms("WELCOME_BONUS", "10")).await;
    let all = (0..100).map(|_| async {
        match ask(pool).await {
            Asked::New(row) | Asked::UnderWay(row) => {
                let claim = Claim::from(&row);
                mark(pool, &claim).await;
                credit(pool, &claim).await;
            }
            Asked::Before(_) => {}
            other => panic!("{other:?}"),
        }
    });
    futures::future::join_all(all).await;
    assert_eq!(balance(pool, "A").await.available, points(10));
    assert_ledger_agrees(pool).await;
}

#[tokio::test]
async fn a_claim_that_was_left_lying_is_found() {
    let db = testing::database().await;
    let pool = &db.pool;
    assigned(pool, &terms("WELCOME_BONUS", "10")).await;
    let found = async |age| claims::to_start(pool, age, 9).await.unwrap().len();
    assert_eq!(found(Duration::ZERO).await, 0);
    let claim = asked(pool).await;
    assert_eq!(found(Duration::ZERO).await, 1);
    assert_eq!(found(Duration::from_secs(60)).await, 0);
    mark(pool, &claim).await;
    assert_eq!(found(Duration::ZERO).await, 1);
    credit(pool, &claim).await;
    assert_eq!(found(Duration::ZERO).await, 0);
}

/// The check of the checks: claims and transfers that do not agree are found.
#[tokio::test]
async fn verify_finds_what_does_not_agree() {
    let db = testing::database().await;
    let pool = &db.pool;
    assigned(pool, &terms("WELCOME_BONUS", "10")).await;
    let claim = asked(pool).await;
    mark(pool, &claim).await;
    let broken = async |sql: &'static str| {
        let mut tx = pool.begin().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        let checks = store::verify::verify(pool).await.unwrap();
        checks
            .into_iter()
            .filter(|check| check.violations > 0)
            .map(|check| check.property)
            .collect::<Vec<_>>()
    };
    let claims = "every promotion has given its points when it was claimed, and only then";
    let found = broken(
        "UPDATE promotion_assignments SET state = 'CLAIMED', claimed_at = clock_timestamp()",
    )
    .await;
    assert_eq!(found, [claims]);
    let found =
        broken("UPDATE promotion_assignments SET state = 'CLAIMING', claimed_at = NULL").await;
    assert_eq!(found, Vec::<&str>::new());
    credit(pool, &claim).await;
    let found = broken(
        "UPDATE promotion_assignments SET state = 'UNCLAIMED', claimed_at = NULL, points = NULL,
                rule_set_version = NULL",
    )
    .await;
    assert_eq!(found, [claims]);
    let told = "every promotion that was assigned is told once";
    let bonus = "every bonus in the ledger has its claim";
    let found = broken("DELETE FROM promotion_assignments").await;
    assert_eq!(found, [bonus, told]);
}
