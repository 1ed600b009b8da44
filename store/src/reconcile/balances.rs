//! Ledger against balances: the projection, recomputed from the transfers.

use sqlx::PgPool;

use crate::{Error, transaction};

/// What a balance row says, or what its transfers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Projection {
    /// Points that can be spent.
    pub available: i64,
    /// Points reserved.
    pub held: i64,
    /// Points ever earned.
    pub lifetime_earned: i64,
    /// How many transfers there are.
    pub version: i64,
}

/// A customer's balance, twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The customer.
    pub customer_id: String,
    /// What the row says.
    pub stored: Projection,
    /// What the transfers say.
    pub folded: Projection,
}

type Row = (String, i64, i64, i64, i64, i64, i64, i64, i64);

fn account(row: Row) -> Account {
    let (customer_id, available, held, lifetime_earned, version, a, h, l, v) = row;
    Account {
        customer_id,
        stored: Projection {
            available,
            held,
            lifetime_earned,
            version,
        },
        folded: Projection {
            available: a,
            held: h,
            lifetime_earned: l,
            version: v,
        },
    }
}

/// The next `limit` customers after one, each with the fold of all transfers, on one snapshot.
///
/// # Errors
/// What the database reports.
pub async fn page(pool: &PgPool, after: &str, limit: i64) -> Result<Vec<Account>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "WITH page AS (
             SELECT customer_id, available, held, lifetime_earned, version FROM customers
             WHERE customer_id > $1 ORDER BY customer_id LIMIT $2)
         SELECT p.*, f.available, f.held, f.lifetime, f.version
         FROM page p CROSS JOIN LATERAL (
             SELECT coalesce(sum(CASE 'AVAILABLE'::account_kind WHEN credit_account THEN amount WHEN debit_account THEN -amount ELSE 0 END), 0)::bigint AS available,
                    coalesce(sum(CASE 'HELD'::account_kind WHEN credit_account THEN amount WHEN debit_account THEN -amount ELSE 0 END), 0)::bigint AS held,
                    coalesce(sum(amount) FILTER (WHERE debit_account = 'ISSUANCE'), 0)::bigint AS lifetime,
                    count(*) AS version
             FROM transfers t WHERE t.customer_id = p.customer_id) f
         ORDER BY p.customer_id",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(account).collect())
}

/// What became of a projection that was to be rebuilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rebuilt {
    /// It is what the transfers say.
    Done,
    /// The transfers do not follow from each other, so nobody knows what it should be: the first
    /// that does not.
    Inconsistent(String),
}

/// The first transfer of a customer that does not follow from those before it.
///
/// # Errors
/// What the database reports.
pub async fn broken_link(
    conn: &mut sqlx::PgConnection,
    customer: &str,
) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar(
        "SELECT 'transfer ' || transfer_id || ' (' || source || ' ' || source_event_id || ', ' || leg || ')'
         FROM (SELECT *, row_number() OVER w AS position,
                      sum(CASE 'AVAILABLE'::account_kind WHEN credit_account THEN amount WHEN debit_account THEN -amount ELSE 0 END) OVER w AS available,
                      sum(CASE 'HELD'::account_kind WHEN credit_account THEN amount WHEN debit_account THEN -amount ELSE 0 END) OVER w AS held
               FROM transfers WHERE customer_id = $1
               WINDOW w AS (ORDER BY customer_version)) t
         WHERE customer_version <> position OR available_after <> available OR held_after <> held
            OR available < 0 OR held < 0
         ORDER BY customer_version LIMIT 1",
    )
    .bind(customer)
    .fetch_optional(conn)
    .await?)
}

/// Rebuilds a customer's projection under the customer's lock, if the transfers are consistent.
///
/// # Errors
/// What the database reports.
pub async fn rebuild(pool: &PgPool, customer: &str) -> Result<Rebuilt, Error> {
    let mut tx = transaction::begin(pool).await?;
    sqlx::query("SELECT FROM customers WHERE customer_id = $1 FOR UPDATE")
        .bind(customer)
        .execute(&mut *tx)
        .await?;
    if let Some(first) = broken_link(&mut tx, customer).await? {
        return Ok(Rebuilt::Inconsistent(first));
    }
    sqlx::query(
        "UPDATE customers c
         SET available = f.available, held = f.held, lifetime_earned = f.lifetime,
             version = f.version, updated_at = clock_timestamp()
         FROM (SELECT coalesce(sum(CASE 'AVAILABLE'::account_kind WHEN credit_account THEN amount WHEN debit_account THEN -amount ELSE 0 END), 0)::bigint AS available,
                      coalesce(sum(CASE 'HELD'::account_kind WHEN credit_account THEN amount WHEN debit_account THEN -amount ELSE 0 END), 0)::bigint AS held,
                      coalesce(sum(amount) FILTER (WHERE debit_account = 'ISSUANCE'), 0)::bigint AS lifetime,
                      count(*) AS version
               FROM transfers WHERE customer_id = $1) f
         WHERE c.customer_id = $1",
    )
    .bind(customer)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Rebuilt::Done)
}

/// One customer's balance, twice, and the first transfer that does not follow from those before
/// it. Nothing without an account.
///
/// # Errors
/// What the database reports.
pub async fn one(
    pool: &PgPool,
    customer: &str,
) -> Result<Option<(Account, Option<String>)>, Error> {
    let mut tx = transaction::begin(pool).await?;
    // Posting holds this lock while balance and transfers change together.
    let exists = sqlx::query("SELECT FROM customers WHERE customer_id = $1 FOR SHARE")
        .bind(customer)
        .fetch_optional(&mut *tx)
        .await?;
    if exists.is_none() {
        return Ok(None);
    }
    let row: Row = sqlx::query_as(
        "SELECT c.customer_id, c.available, c.held, c.lifetime_earned, c.version,
                f.available, f.held, f.lifetime, f.version
         FROM customers c CROSS JOIN LATERAL (
             SELECT coalesce(sum(CASE 'AVAILABLE'::account_kind WHEN credit_account THEN amount WHEN debit_account THEN -amount ELSE 0 END), 0)::bigint AS available,
                    coalesce(sum(CASE 'HELD'::account_kind WHEN credit_account THEN amount WHEN debit_account THEN -amount ELSE 0 END), 0)::bigint AS held,
                    coalesce(sum(amount) FILTER (WHERE debit_account = 'ISSUANCE'), 0)::bigint AS lifetime,
                    count(*) AS version
             FROM transfers t WHERE t.customer_id = c.customer_id) f
         WHERE c.customer_id = $1",
    )
    .bind(customer)
    .fetch_one(&mut *tx)
    .await?;
    let broken = broken_link(&mut tx, customer).await?;
    Ok(Some((account(row), broken)))
}
