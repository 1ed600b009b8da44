//! What the tests of the store share.

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use domain::{
    CustomerId, MerchantId, OrderId, Points, PromotionId, PromotionType, RedeemRequestId,
    command::{Award, Command, RedeemRequest},
    inbound::{self, Message},
    money::Amount,
    programme::Programme,
    promotion::Terms,
};
use store::{
    PgPool,
    ledger::{self, Balance, Posting},
    promotions::{self, Created},
    redemptions::{self, Accepted, Origin},
    transaction,
};

pub fn noon() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 3, 14, 12, 0, 0).unwrap()
}

pub fn programme() -> Programme {
    Programme::parse(include_str!("../../../programme.toml")).expect("the programme is valid")
}

pub fn customer(id: &str) -> CustomerId {
    CustomerId::new(id).unwrap()
}

pub fn points(number: i64) -> Points {
    Points::new(number).unwrap()
}

fn read(topic: &str, body: &str) -> Award {
    let message = Message {
        topic,
        partition: 0,
        offset: 0,
        key: None,
        headers: &[],
        value: Some(body.as_bytes()),
        timestamp: noon(),
    };
    match inbound::read(&message, Utc::now()) {
        Ok(Some(Command::Award(award))) => award,
        other => panic!("{body} is {other:?}"),
    }
}

/// A stay of so many nights: 100 points each.
pub fn stay(event: &str, who: &str, nights: u32) -> Award {
    read(
        "reward-events",
        &format!(
            r#"{{"eventId":"{event}","eventType":"HOTEL_STAY","customerId":"{who}",
                "timestamp":"2026-03-14T10:00:00Z","payload":{{"nights":{nights}}}}}"#
        ),
    )
}

/// Casino spend: 1 point per full 20, at most 500 a day.
pub fn spend(event: &str, who: &str, amount: u32) -> Award {
    read(
        "reward-events",
        &format!(
            r#"{{"eventId":"{event}","eventType":"CASINO_SPEND","customerId":"{who}",
                "timestamp":"2026-03-14T10:00:00Z","payload":{{"amount":{amount}}}}}"#
        ),
    )
}

pub async fn post(pool: &PgPool, awards: &[Award]) -> Vec<Posting> {
    let mut tx = transaction::begin(pool).await.unwrap();
    let postings = ledger::post_awards(&mut tx, &programme(), "award/test/0/0-0", awards)
        .await
        .unwrap();
    transaction::commit(tx, "test").await.unwrap();
    postings
}

pub async fn balance(pool: &PgPool, who: &str) -> Balance {
    let mut conn = pool.acquire().await.unwrap();
    ledger::balance(&mut conn, &customer(who))
        .await
        .unwrap()
        .expect("the customer has an account")
}

pub fn request(id: &str, who: &str, asked: i64) -> RedeemRequest {
    RedeemRequest {
        redeem_request_id: RedeemRequestId::new(id).unwrap(),
        customer_id: customer(who),
        points: points(asked),
        merchant_id: MerchantId::new("M1").unwrap(),
        order_id: OrderId::new(format!("O-{id}")).unwrap(),
        requested_at: noon(),
    }
}

pub async fn accept(pool: &PgPool, request: &RedeemRequest) -> Accepted {
    let mut conn = pool.acquire().await.unwrap();
    redemptions::accept(&mut conn, std::slice::from_ref(request), Origin::Http)
        .await
        .unwrap()
        .remove(0)
}

/// A promotion of this type and worth that holds from yesterday until tomorrow.
pub fn terms(kind: &str, amount: &str) -> Terms {
    let now = Utc::now();
    Terms {
        kind: PromotionType::new(kind).unwrap(),
        title: format!("{kind} of {amount}"),
        description: "To begin with".to_owned(),
        amount: Amount::parse(amount).unwrap(),
        currency: None,
        starts_at: now - TimeDelta::days(1),
        ends_at: now + TimeDelta::days(1),
        is_active: true,
    }
}

pub fn promotion(id: &str) -> PromotionId {
    PromotionId::new(id).unwrap()
}

pub async fn create(pool: &PgPool, id: &str, terms: &Terms, is_exclusive: bool) -> Created {
    let mut conn = pool.acquire().await.unwrap();
    promotions::create(&mut conn, &promotion(id), terms, is_exclusive)
        .await
        .unwrap()
}

pub async fn open_account(pool: &PgPool, who: &str) {
    sqlx::query("INSERT INTO customers (customer_id) VALUES ($1)")
        .bind(who)
        .execute(pool)
        .await
        .unwrap();
}

/// A player's registration, as it comes from Kafka.
pub fn registration(who: &str) -> Award {
    read(
        "players",
        &format!(r#"{{"eventType":"PLAYER_REGISTERED","user_id":"{who}"}}"#),
    )
}

pub async fn outbox(pool: &PgPool, topic: &str) -> Vec<serde_json::Value> {
    let rows: Vec<(Vec<u8>,)> =
        sqlx::query_as("SELECT body FROM outbox WHERE topic = $1 ORDER BY outbox_id")
            .bind(topic)
            .fetch_all(pool)
            .await
            .unwrap();
    rows.into_iter()
        .map(|(body,)| serde_json::from_slice(&body).unwrap())
        .collect()
}

/// Everything that must be true of the ledger is.
pub async fn assert_ledger_agrees(pool: &PgPool) {
    for check in store::verify::verify(pool).await.unwrap() {
        assert_eq!(
            check.violations, 0,
            "{}: {:?}",
            check.property, check.examples
        );
    }
}
