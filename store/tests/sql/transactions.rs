use std::collections::BTreeMap;

use domain::{
    TransactionId,
    money::Amount,
    programme::BonusError,
    transaction::{Direction, Transaction},
};
use store::{
    PgPool, testing, transaction,
    transactions::{self, Booked, Booking},
};

use crate::support::*;

fn transaction(id: &str, who: &str, direction: Direction, amount: &str) -> Transaction {
    Transaction {
        transaction_id: TransactionId::new(id).unwrap(),
        customer_id: customer(who),
        direction,
        amount: Amount::parse(amount).unwrap(),
        description: "A tournament".to_owned(),
        additional_data: BTreeMap::from([("table".to_owned(), "7".to_owned())]),
    }
}

async fn book(pool: &PgPool, transaction: &Transaction) -> Booked {
    loop {
        let mut tx = transaction::begin(pool).await.unwrap();
        match transactions::book(&mut tx, transaction, &programme()).await {
            Ok(booked) => {
                if matches!(booked, Booked::New(_)) {
                    transaction::commit(tx, "test").await.unwrap();
                }
                return booked;
            }
            Err(store::Error::Raced) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn booking(moved: i64, available_after: i64) -> Booking {
    Booking {
        points: points(moved),
        available_after: points(available_after),
    }
}

#[tokio::test]
async fn credits_and_debits_count_once_for_each_id() {
    let db = testing::database().await;
    let pool = &db.pool;
    let credit = transaction("T1", "A", Direction::Credit, "600.75");
    assert_eq!(book(pool, &credit).await, Booked::New(booking(600, 600)));
    let debit = transaction("T2", "A", Direction::Debit, "100");
    assert_eq!(book(pool, &debit).await, Booked::New(booking(100, 500)));
    assert_eq!(book(pool, &credit).await, Booked::Same(booking(600, 600)));
    assert_eq!(book(pool, &debit).await, Booked::Same(booking(100, 500)));
    for other in [
        transaction("T1", "A", Direction::Debit, "600.75"),
        transaction("T1", "B", Direction::Credit, "600.75"),
        transaction("T1", "A", Direction::Credit, "600.76"),
    ] {
        assert_eq!(book(pool, &other).await, Booked::Conflict);
    }
    let account = balance(pool, "A").await;
    assert_eq!(account.available, points(500));
    assert_eq!(account.lifetime_earned, points(600), "it never falls");
    assert_eq!(
        outbox(pool, "loyalty.pointsAdded.v2").await,
        [
            serde_json::json!({ "userId": "A", "totalPoints": 600, "difference": 600 }),
            serde_json::json!({ "userId": "A", "totalPoints": 500, "difference": -100 }),
        ]
    );
    let due = store::tiers::orders_to_start(pool, 9).await.unwrap();
    assert_eq!(due.len(), 1, "600 points are silver");
    let story = store::story::of(pool, &customer("A"), 9).await.unwrap();
    assert!(
        story[0].what.ends_with(": A tournament"),
        "{}",
        story[0].what
    );
    assert_ledger_agrees(pool).await;
}

#[tokio::test]
async fn what_cannot_be_booked_changes_nothing() {
    let db = testing::database().await;
    let pool = &db.pool;
    let debit = |amount| transaction("T1", "A", Direction::Debit, amount);
    assert_eq!(book(pool, &debit("1")).await, Booked::NoAccount);
    book(pool, &transaction("T0", "A", Direction::Credit, "10")).await;
    assert_eq!(
        book(pool, &debit("11")).await,
        Booked::NotEnough(points(10))
    );
    let nothing = transaction("T1", "A", Direction::Credit, "0.9");
    assert_eq!(
        book(pool, &nothing).await,
        Booked::NoPoints(BonusError::NoPoints)
    );
    let much = transaction("T1", "A", Direction::Credit, "999999999999999999");
    for number in 2..11 {
        let much = Transaction {
            transaction_id: TransactionId::new(format!("T{number}")).unwrap(),
            ..much.clone()
        };
        assert!(matches!(book(pool, &much).await, Booked::New(_)));
    }
    assert_eq!(book(pool, &much).await, Booked::TooMany);
    // The id has not been used up by what was refused.
    assert!(matches!(book(pool, &debit("10")).await, Booked::New(_)));
    assert_ledger_agrees(pool).await;
}

#[tokio::test]
async fn a_repetition_that_waited_for_the_first_one_is_no_refusal() {
    let db = testing::database().await;
    let pool = &db.pool;
    book(pool, &transaction("T0", "A", Direction::Credit, "10")).await;
    // It takes everything, so whoever does not know of it finds too little.
    let all = transaction("T1", "A", Direction::Debit, "10");
    let answers = futures::future::join_all((0..20).map(|_| book(pool, &all))).await;
    let new = answers.iter().filter(|b| matches!(b, Booked::New(_)));
    let same = answers.iter().filter(|b| matches!(b, Booked::Same(_)));
    assert_eq!((new.count(), same.count()), (1, 19), "{answers:?}");
    assert_ledger_agrees(pool).await;
}

#[tokio::test]
async fn many_at_once_with_one_id_are_one_and_never_below_zero() {
    let db = testing::database().await;
    let pool = &db.pool;
    book(pool, &transaction("T0", "A", Direction::Credit, "10")).await;
    let same = (0..20)
        .map(|_| async { book(pool, &transaction("T1", "A", Direction::Credit, "5")).await });
    let same = futures::future::join_all(same).await;
    let new = same.iter().filter(|b| matches!(b, Booked::New(_))).count();
    assert_eq!(new, 1, "{same:?}");
    // The same id for several customers: one of them gets it.
    let others = (0..10).map(|number| async move {
        let who = format!("B{number}");
        book(pool, &transaction("T2", &who, Direction::Credit, "5")).await
    });
    let others = futures::future::join_all(others).await;
    let new = others
        .iter()
        .filter(|b| matches!(b, Booked::New(_)))
        .count();
    let conflicts = others.iter().filter(|b| **b == Booked::Conflict).count();
    assert_eq!((new, conflicts), (1, 9), "{others:?}");
    let debits = (0..20).map(|number| async move {
        let id = format!("D{number}");
        book(pool, &transaction(&id, "A", Direction::Debit, "2")).await
    });
    let debits = futures::future::join_all(debits).await;
    let new = debits
        .iter()
        .filter(|b| matches!(b, Booked::New(_)))
        .count();
    assert_eq!(new, 7, "15 points are seven times two");
    assert_eq!(balance(pool, "A").await.available, points(1));
    assert_ledger_agrees(pool).await;
}
