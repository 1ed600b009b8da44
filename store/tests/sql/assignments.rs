use std::time::Duration;

use domain::{
    AssignmentJobId, CustomerId, PromotionType,
    promotion::{AssignmentState, Terms},
};
use store::{
    PgPool,
    assignments::{self, Job},
    promotions, testing,
};

use crate::support::*;

fn job() -> AssignmentJobId {
    AssignmentJobId::new("J1").unwrap()
}

/// Has a job to assign the promotion `P1` to these players.
async fn ordered(pool: &PgPool, players: &[&str]) {
    create(pool, "P1", &terms("DEPOSIT_MATCH", "5"), false).await;
    let players: Vec<CustomerId> = players.iter().map(|id| customer(id)).collect();
    let mut tx = pool.begin().await.unwrap();
    assignments::order(&mut tx, &job(), &promotion("P1"), &players)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

fn counts(job: &Job) -> (i64, i64, i64, i64) {
    (job.assigned, job.already, job.unknown, job.left())
}

async fn next(pool: &PgPool, count: i64) -> Job {
    assignments::assign_next(pool, &job(), count).await.unwrap()
}

#[tokio::test]
async fn players_are_assigned_some_at_a_time_and_unknown_ones_told() {
    let db = testing::database().await;
    let pool = &db.pool;
    for who in ["A", "B", "C"] {
        open_account(pool, who).await;
    }
    ordered(pool, &["A", "X", "C", "B", "Y"]).await;
    let mut conn = pool.acquire().await.unwrap();
    let queued = assignments::find(&mut conn, &job()).await.unwrap().unwrap();
    assert_eq!(
        (queued.state, counts(&queued)),
        (AssignmentState::Queued, (0, 0, 0, 5))
    );
    let first = next(pool, 2).await;
    assert_eq!(
        (first.state, counts(&first)),
        (AssignmentState::Running, (1, 0, 1, 3))
    );
    sqlx::query("INSERT INTO promotion_assignments (promotion_id, customer_id) VALUES ('P1', 'B')")
        .execute(pool)
        .await
        .unwrap();
    assert_eq!(counts(&next(pool, 9).await), (2, 1, 2, 0));
    assert_eq!(counts(&next(pool, 9).await), (2, 1, 2, 0), "nobody is left");
    let ended = assignments::end(pool, &job()).await.unwrap();
    assert_eq!(ended.state, AssignmentState::Done);
    assert_eq!(assignments::end(pool, &job()).await.unwrap(), ended);

    let told = outbox(pool, "notifications").await;
    let players: Vec<&str> = told
        .iter()
        .map(|m| m["user_id"].as_str().unwrap())
        .collect();
    assert_eq!(players, ["A", "C"]);
    assert_eq!(told[0]["eventType"], "PROMOTION");
    let content = &told[0]["content"];
    assert_eq!(content["id"], "P1");
    assert_eq!(content["type"], "DEPOSIT_MATCH");
    assert_eq!(content["amount"], "5");
    assert_eq!(content["isActive"], true);
    let unknown = assignments::unknown_players(&mut conn, &job(), 0, 1)
        .await
        .unwrap();
    assert_eq!(unknown, [(2, "X".to_owned())]);
    let unknown = assignments::unknown_players(&mut conn, &job(), 2, 9)
        .await
        .unwrap();
    assert_eq!(unknown, [(5, "Y".to_owned())]);
    let list = promotions::of_customer(&mut conn, &customer("A"), None, 9)
        .await
        .unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].0.promotion_id, promotion("P1"));
}

#[tokio::test]
async fn taken_back_it_stops_where_it_stands() {
    let db = testing::database().await;
    let pool = &db.pool;
    for who in ["A", "B", "C"] {
        open_account(pool, who).await;
    }
    ordered(pool, &["A", "B", "C"]).await;
    next(pool, 1).await;
    let mut conn = pool.acquire().await.unwrap();
    let wish = assignments::request_cancel(&mut conn, &job())
        .await
        .unwrap();
    assert!(wish.cancel_requested && wish.state == AssignmentState::Running);
    assert_eq!(counts(&next(pool, 9).await), (1, 0, 0, 2));
    let ended = assignments::end(pool, &job()).await.unwrap();
    assert_eq!(
        (ended.state, counts(&ended)),
        (AssignmentState::Cancelled, (1, 0, 0, 2))
    );
    // It has ended: nothing more is done, and no later wish is recorded.
    assert_eq!(next(pool, 9).await, ended);
    assert_eq!(
        assignments::request_cancel(&mut conn, &job())
            .await
            .unwrap(),
        ended
    );
    assert_ledger_has_told(pool).await;
}

async fn assert_ledger_has_told(pool: &PgPool) {
    for check in store::verify::verify(pool).await.unwrap() {
        assert_eq!(check.violations, 0, "{}", check.property);
    }
}

#[tokio::test]
async fn two_at_work_on_one_job_do_it_once() {
    let db = testing::database().await;
    let pool = &db.pool;
    let players: Vec<String> = (0..100).map(|n| format!("C{n:03}")).collect();
    for who in &players {
        open_account(pool, who).await;
    }
    let ids: Vec<&str> = players.iter().map(String::as_str).collect();
    ordered(pool, &ids).await;
    let work = async || while next(pool, 7).await.left() > 0 {};
    futures::future::join(work(), work()).await;
    let mut conn = pool.acquire().await.unwrap();
    let done = assignments::find(&mut conn, &job()).await.unwrap().unwrap();
    assert_eq!(counts(&done), (100, 0, 0, 0));
    assert_eq!(outbox(pool, "notifications").await.len(), 100);
    assert_ledger_has_told(pool).await;
}

#[tokio::test]
async fn jobs_that_are_to_be_started_are_found() {
    let db = testing::database().await;
    let pool = &db.pool;
    open_account(pool, "A").await;
    ordered(pool, &["A", "B"]).await;
    let found = async |stale: Duration| {
        let jobs = assignments::to_start(pool, stale, 9).await.unwrap();
        jobs.into_iter().map(|job| job.state).collect::<Vec<_>>()
    };
    let minute = Duration::from_secs(60);
    assert_eq!(found(minute).await, [AssignmentState::Queued]);
    next(pool, 1).await;
    assert!(found(minute).await.is_empty());
    assert_eq!(found(Duration::ZERO).await, [AssignmentState::Running]);
    next(pool, 1).await;
    assignments::end(pool, &job()).await.unwrap();
    assert!(found(Duration::ZERO).await.is_empty());
}

#[tokio::test]
async fn a_welcome_is_the_active_promotion_of_its_type_once() {
    let db = testing::database().await;
    let pool = &db.pool;
    let kind = PromotionType::new("WELCOME_BONUS").unwrap();
    let welcome = async |who: &str| {
        let mut tx = pool.begin().await.unwrap();
        let given = assignments::welcome(&mut tx, &kind, &[&customer(who)]).await;
        tx.commit().await.unwrap();
        given.unwrap()
    };
    post(pool, &[registration("A"), registration("B")]).await;
    assert_eq!(welcome("A").await, 0, "there is none");
    let idle = Terms {
        is_active: false,
        ..terms("WELCOME_BONUS", "1")
    };
    create(pool, "P0", &idle, true).await;
    assert_eq!(welcome("A").await, 0, "it is not active");
    create(pool, "P1", &terms("WELCOME_BONUS", "50"), true).await;
    create(pool, "P2", &terms("DEPOSIT_MATCH", "5"), false).await;
    assert_eq!(welcome("A").await, 1);
    assert_eq!(welcome("A").await, 0, "once");
    assert_eq!(welcome("B").await, 1);
    assert_eq!(welcome("X").await, 0, "no account");
    let told = outbox(pool, "notifications").await;
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|m| m["content"]["id"] == "P1"), "{told:?}");
    let (ids,): (Vec<String>,) = sqlx::query_as(
        "SELECT array_agg((SELECT convert_from(decode(h ->> 1, 'base64'), 'UTF8')
                           FROM jsonb_array_elements(headers) h WHERE h ->> 0 = 'ce_id')
                          ORDER BY outbox_id)
         FROM outbox WHERE topic = 'notifications'",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(ids, ["promotion-assigned/P1/A", "promotion-assigned/P1/B"]);
    assert_ledger_agrees(pool).await;
}
