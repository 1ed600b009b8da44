//! Customers with points of their own.

use anyhow::{Context as _, Result, ensure};
use domain::CustomerId;
use sqlx::PgPool;
use store::adjustments::{self, Adjusted, Adjustment, What};

use crate::load;

/// How many are given points at once.
const AT_ONCE: usize = 8;

/// Opens an account for each of these and gives it points.
///
/// # Errors
/// What the database reports.
pub async fn open(pool: &PgPool, names: &[String], points: i64) -> Result<()> {
    sqlx::query("INSERT INTO customers (customer_id) SELECT unnest($1::text[])")
        .bind(names)
        .execute(pool)
        .await?;
    let give_one = |number: usize| {
        let (pool, name) = (pool.clone(), names[number].clone());
        async move {
            give(
                &pool,
                &format!("opening-{name}"),
                &CustomerId::new(name)?,
                points,
            )
            .await
        }
    };
    load::at_once(AT_ONCE, names.len(), give_one)
        .await
        .context("customers cannot be given points")?;
    Ok(())
}

/// Gives a customer points, as the adjustment of this id, from which no look at the tier follows.
///
/// # Errors
/// What the database reports.
pub async fn give(pool: &PgPool, id: &str, customer: &CustomerId, points: i64) -> Result<()> {
    let adjustment = Adjustment {
        id,
        customer,
        what: What::Points(points),
        reason: "to be measured",
        actor: "bench",
    };
    let adjusted = adjustments::post(pool, &adjustment).await?;
    ensure!(
        matches!(adjusted, Adjusted::Posted(_)),
        "{id}: {adjusted:?}"
    );
    Ok(())
}
