use chrono::{TimeDelta, Utc};
use domain::{Promotion, PromotionType, promotion::Terms};
use store::{
    PgPool,
    promotions::{self, Created, Filter},
    testing,
};

use crate::support::*;

/// The period of `terms`, so many days later.
fn later(terms: &Terms, days: i64) -> Terms {
    Terms {
        starts_at: terms.starts_at + TimeDelta::days(days),
        ends_at: terms.ends_at + TimeDelta::days(days),
        ..terms.clone()
    }
}

async fn page(
    pool: &PgPool,
    filter: Filter<'_>,
    before: Option<&Promotion>,
    limit: i64,
) -> Vec<Promotion> {
    let mut conn = pool.acquire().await.unwrap();
    let before = before.map(|last| (last.created_at, last.promotion_id.as_str()));
    promotions::page(&mut conn, filter, before, limit)
        .await
        .unwrap()
}

fn ids(page: &[Promotion]) -> Vec<&str> {
    page.iter().map(|p| p.promotion_id.as_str()).collect()
}

#[tokio::test]
async fn a_promotion_is_read_as_it_was_made() {
    let db = testing::database().await;
    let made = Terms {
        currency: domain::Currency::parse("EUR"),
        description: "Two\nlines".to_owned(),
        // The database keeps microseconds.
        starts_at: noon(),
        ends_at: noon() + TimeDelta::days(1),
        ..terms("DEPOSIT_MATCH", "999999999999999999.999999999")
    };
    assert_eq!(create(&db.pool, "P1", &made, false).await, Created::New);
    let mut conn = db.pool.acquire().await.unwrap();
    let read = promotions::find(&mut conn, &promotion("P1")).await.unwrap();
    let read = read.expect("it was made");
    assert_eq!(read.terms, made);
    assert!(!read.is_exclusive);
    let none = promotions::find(&mut conn, &promotion("P2")).await.unwrap();
    assert_eq!(none, None);
}

#[tokio::test]
async fn of_an_exclusive_type_one_is_active_at_a_time() {
    let db = testing::database().await;
    let pool = &db.pool;
    let first = terms("WELCOME_BONUS", "50");
    assert_eq!(create(pool, "P1", &first, true).await, Created::New);
    let overlaps = Created::Overlaps(promotion("P1"));
    for (terms, expected) in [
        (first.clone(), &overlaps),
        (later(&first, 1), &overlaps),
        (later(&first, -1), &overlaps),
        (
            Terms {
                is_active: false,
                ..first.clone()
            },
            &Created::New,
        ),
        (
            Terms {
                kind: PromotionType::new("DEPOSIT_MATCH").unwrap(),
                ..first.clone()
            },
            &Created::New,
        ),
        // The end of one may be the beginning of the next.
        (later(&first, 2), &Created::New),
        (later(&first, -2), &Created::New),
    ] {
        let id = uuid::Uuid::new_v4().to_string();
        assert_eq!(
            &create(pool, &id, &terms, true).await,
            expected,
            "{terms:?}"
        );
    }
    // A type of which there may be several.
    for id in ["P8", "P9"] {
        let free = terms("DEPOSIT_MATCH", "5");
        assert_eq!(create(pool, id, &free, false).await, Created::New);
    }
}

#[tokio::test]
async fn of_many_at_once_one_is_made() {
    let db = testing::database().await;
    let welcome = terms("WELCOME_BONUS", "50");
    let all = (0..20).map(|number| {
        let (pool, welcome) = (&db.pool, &welcome);
        async move { create(pool, &format!("P{number}"), welcome, true).await }
    });
    let made = futures::future::join_all(all).await;
    let new = made.iter().filter(|made| **made == Created::New).count();
    assert_eq!(new, 1, "{made:?}");
}

#[tokio::test]
async fn lists_are_filtered_and_in_pages() {
    let db = testing::database().await;
    let pool = &db.pool;
    let now = terms("DEPOSIT_MATCH", "5");
    let idle = Terms {
        is_active: false,
        ..now.clone()
    };
    for (id, terms) in [
        ("P1", &now),
        ("P2", &later(&now, 10)),
        ("P3", &idle),
        ("P4", &terms("FREE_SPIN", "1")),
    ] {
        create(pool, id, terms, false).await;
    }
    let all = Filter::default();
    let first = page(pool, all, None, 3).await;
    assert_eq!(ids(&first), ["P4", "P3", "P2"]);
    let second = page(pool, all, first.last(), 3).await;
    assert_eq!(ids(&second), ["P1"]);
    let kind = PromotionType::new("DEPOSIT_MATCH").unwrap();
    for (filter, expected) in [
        (
            Filter {
                kind: Some(&kind),
                ..all
            },
            &["P3", "P2", "P1"][..],
        ),
        (
            Filter {
                is_active: Some(true),
                ..all
            },
            &["P4", "P2", "P1"],
        ),
        (
            Filter {
                is_active: Some(false),
                ..all
            },
            &["P3"],
        ),
        (
            Filter {
                at: Some(Utc::now()),
                ..all
            },
            &["P4", "P3", "P1"],
        ),
        (
            Filter {
                kind: Some(&kind),
                is_active: Some(true),
                at: Some(Utc::now()),
            },
            &["P1"],
        ),
    ] {
        assert_eq!(
            ids(&page(pool, filter, None, 9).await),
            expected,
            "{filter:?}"
        );
    }
    let mut conn = pool.acquire().await.unwrap();
    let active = promotions::active(&mut conn, &kind, Utc::now())
        .await
        .unwrap();
    assert_eq!(active.unwrap().promotion_id, promotion("P1"));
}

/// What the domain lets through, the database takes, and nothing else.
#[tokio::test]
async fn the_database_has_the_limits_of_the_domain() {
    let db = testing::database().await;
    let sound = Terms {
        title: "ü".repeat(120),
        description: "ü".repeat(2_000),
        amount: domain::money::Amount::parse("0.000000001").unwrap(),
        ..terms(&"A".repeat(64), "1")
    };
    let sound = sound.checked().expect("within the limits");
    assert_eq!(create(&db.pool, "P1", &sound, false).await, Created::New);
    let mut conn = db.pool.acquire().await.unwrap();
    for beyond in [
        Terms {
            title: String::new(),
            ..sound.clone()
        },
        Terms {
            title: "ü".repeat(121),
            ..sound.clone()
        },
        Terms {
            description: "ü".repeat(2_001),
            ..sound.clone()
        },
        Terms {
            amount: domain::money::Amount::default(),
            ..sound.clone()
        },
        Terms {
            ends_at: sound.starts_at,
            ..sound.clone()
        },
    ] {
        assert!(beyond.clone().checked().is_err());
        let made = promotions::create(&mut conn, &promotion("P2"), &beyond, false).await;
        assert!(matches!(made, Err(store::Error::Data(_))), "{made:?}");
    }
}
