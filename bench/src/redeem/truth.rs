//! Whether what was measured is also right. A benchmark whose result is wrong has failed.

use anyhow::{Result, ensure};
use serde_json::Value;
use sqlx::PgPool;

use super::buying::{CUSTOMERS, POINTS};
use crate::system::{MERCHANT, System};

/// How many redemptions whose ids begin so have come to SUCCESS.
///
/// # Errors
/// What the database reports.
pub async fn successes(pool: &PgPool, prefix: &str) -> Result<usize> {
    count(pool, prefix, "SUCCESS").await
}

/// How many have come to FAILED.
///
/// # Errors
/// What the database reports.
pub async fn failures(pool: &PgPool, prefix: &str) -> Result<usize> {
    count(pool, prefix, "FAILED").await
}

async fn count(pool: &PgPool, prefix: &str, state: &str) -> Result<usize> {
    let count: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM redemptions
         WHERE redeem_request_id LIKE $1 || '%' AND state = $2",
    )
    .bind(prefix)
    .bind(state)
    .fetch_one(pool)
    .await?;
    Ok(usize::try_from(count)?)
}

/// Every SUCCESS is in the ledger and in the merchant's book, nothing else is, and the ledger is
/// sound. How often the merchant was asked for them.
///
/// # Errors
/// When it is not so.
pub async fn check(system: &System) -> Result<String> {
    let (rows, deducted): (i64, i64) = sqlx::query_as(
        "SELECT count(*), coalesce(sum(points_deducted), 0)::bigint
         FROM redemptions WHERE state = 'SUCCESS'",
    )
    .fetch_one(&system.pool)
    .await?;
    let settled: i64 = sqlx::query_scalar(
        "SELECT coalesce(sum(amount), 0)::bigint FROM transfers
         WHERE source = 'redeem' AND leg = 'settle'",
    )
    .fetch_one(&system.pool)
    .await?;
    ensure!(
        settled == deducted,
        "{deducted} points were deducted and {settled} settled"
    );
    let (available, held): (i64, i64) = sqlx::query_as(
        "SELECT coalesce(sum(available), 0)::bigint, coalesce(sum(held), 0)::bigint FROM customers",
    )
    .fetch_one(&system.pool)
    .await?;
    let left = i64::try_from(CUSTOMERS)? * POINTS - deducted;
    ensure!(
        (available, held) == (left, 0),
        "{available} points are left and {held} held; it should be {left} and none"
    );
    let url = format!("{}/control/merchants/{MERCHANT}/book", system.partners);
    let book: Vec<Value> = system.http.get(url).send().await?.json().await?;
    let confirmed = book
        .iter()
        .filter(|entry| entry["status"] == "CONFIRMED")
        .count();
    ensure!(
        i64::try_from(confirmed)? == rows,
        "the merchant has confirmed {confirmed} and {rows} are SUCCESS"
    );
    for check in store::verify::verify(&system.pool).await? {
        ensure!(
            check.violations == 0,
            "the ledger is wrong: {}: {:?}",
            check.property,
            check.examples
        );
    }
    let url = format!("{}/control/calls", system.partners);
    let calls: Value = system.http.get(url).send().await?.json().await?;
    let posts = &calls["merchants"][MERCHANT]["posts"];
    Ok(format!(
        "The merchant was asked {posts} times for {rows} redemptions"
    ))
}
