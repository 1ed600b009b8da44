//! What the database says: the backlog while it works, the facts when it is done.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use samples::recompute::Expectation;
use sqlx::postgres::{PgPool, PgPoolOptions};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What is still open.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Backlog {
    outbox: i64,
    tier_upgrades: i64,
    redemptions: i64,
}

impl fmt::Display for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "({} to publish, {} tier upgrades and {} redemptions open)",
            self.outbox, self.tier_upgrades, self.redemptions
        )
    }
}

/// Sums over the whole ledger; equal before and after means that nothing was added.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Totals {
    pub(crate) transfers: i64,
    pub(crate) moved: i64,
    pub(crate) issued: i64,
    pub(crate) settled: i64,
    pub(crate) available: i64,
    pub(crate) held: i64,
}

/// A customer as the ledger has it.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Account {
    customer_id: String,
    /// Issued for events of the sample.
    pub(crate) awarded: i64,
    /// Issued for anything else, by whoever uses the same ledger.
    pub(crate) awarded_otherwise: i64,
    pub(crate) lifetime: i64,
    pub(crate) tier: String,
}

/// A redemption as the ledger has it.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Redemption {
    redeem_request_id: String,
    pub(crate) customer_id: String,
    pub(crate) merchant_id: String,
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) deducted: i64,
    /// What the transfers say was settled for it.
    pub(crate) settled: i64,
}

/// Everything that is compared with the expectation.
pub(crate) struct Findings {
    pub(crate) accounts: BTreeMap<String, Account>,
    pub(crate) redemptions: BTreeMap<String, Redemption>,
    /// Customers whose balance is not the sum of their transfers.
    pub(crate) unbalanced: i64,
}

/// The ledger's database, read only.
pub(crate) struct Ledger {
    pool: PgPool,
}

impl Ledger {
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT_LIMIT)
            .connect(url)
            .await
            .context("the database cannot be reached")?;
        Ok(Self { pool })
    }

    pub(crate) async fn backlog(&self) -> anyhow::Result<Backlog> {
        let query = "
            SELECT (SELECT count(*) FROM outbox WHERE published_at IS NULL) AS outbox,
                   (SELECT count(*) FROM tier_orders WHERE closed_at IS NULL) AS tier_upgrades,
                   (SELECT count(*) FROM redemptions WHERE state NOT IN ('SUCCESS', 'FAILED')) AS redemptions";
        Ok(sqlx::query_as(query).fetch_one(&self.pool).await?)
    }

    pub(crate) async fn totals(&self) -> anyhow::Result<Totals> {
        let query = "
            SELECT count(*) AS transfers,
                   coalesce(sum(amount), 0)::bigint AS moved,
                   coalesce(sum(amount) FILTER (WHERE debit_account = 'ISSUANCE'), 0)::bigint AS issued,
                   coalesce(sum(amount) FILTER (WHERE credit_account = 'SETTLEMENT'), 0)::bigint AS settled,
                   (SELECT coalesce(sum(available), 0)::bigint FROM customers) AS available,
                   (SELECT coalesce(sum(held), 0)::bigint FROM customers) AS held
            FROM transfers";
        Ok(sqlx::query_as(query).fetch_one(&self.pool).await?)
    }

    /// How many events of the file the ledger has seen already.
    pub(crate) async fn known_events(&self, expectation: &Expectation) -> anyhow::Result<usize> {
        let (sources, ids) = events(expectation);
        let query = "
            SELECT count(*)
            FROM unnest($1::text[], $2::text[]) AS sample (source, event_id)
            JOIN processed_events USING (source, event_id)";
        let known: i64 = sqlx::query_scalar(query)
            .bind(sources)
            .bind(ids)
            .fetch_one(&self.pool)
            .await?;
        Ok(usize::try_from(known)?)
    }

    pub(crate) async fn findings(&self, expectation: &Expectation) -> anyhow::Result<Findings> {
        let (sources, ids) = events(expectation);
        let query = "
            WITH issued AS (
                SELECT t.customer_id,
                       coalesce(sum(t.amount) FILTER (WHERE s.source IS NOT NULL), 0)::bigint AS awarded,
                       coalesce(sum(t.amount) FILTER (WHERE s.source IS NULL), 0)::bigint AS awarded_otherwise
                FROM transfers t
                LEFT JOIN unnest($1::text[], $2::text[]) AS s (source, event_id)
                       ON s.source = t.source AND s.event_id = t.source_event_id
                WHERE t.debit_account = 'ISSUANCE'
                GROUP BY t.customer_id
            )
            SELECT c.customer_id, c.lifetime_earned AS lifetime, c.tier,
                   coalesce(i.awarded, 0) AS awarded,
                   coalesce(i.awarded_otherwise, 0) AS awarded_otherwise
            FROM customers c LEFT JOIN issued i USING (customer_id)";
        let accounts: Vec<Account> = sqlx::query_as(query)
            .bind(sources)
            .bind(ids)
            .fetch_all(&self.pool)
            .await?;

        let query = "
            SELECT r.redeem_request_id, r.customer_id, r.merchant_id, r.state, r.reason,
                   r.points_deducted AS deducted, coalesce(s.settled, 0) AS settled
            FROM redemptions r
            LEFT JOIN (
                SELECT source_event_id, sum(amount)::bigint AS settled
                FROM transfers WHERE credit_account = 'SETTLEMENT' GROUP BY source_event_id
            ) s ON s.source_event_id = r.redeem_request_id
            WHERE r.redeem_request_id = ANY($1)";
        let requests: Vec<&String> = expectation.redemptions.keys().collect();
        let redemptions: Vec<Redemption> = sqlx::query_as(query)
            .bind(requests)
            .fetch_all(&self.pool)
            .await?;

        let query = "
            WITH moves AS (
                SELECT customer_id, credit_account AS account, amount FROM transfers
                UNION ALL
                SELECT customer_id, debit_account, -amount FROM transfers
            ), sums AS (
                SELECT customer_id,
                       coalesce(sum(amount) FILTER (WHERE account = 'AVAILABLE'), 0) AS available,
                       coalesce(sum(amount) FILTER (WHERE account = 'HELD'), 0) AS held
                FROM moves GROUP BY customer_id
            )
            SELECT count(*) FROM customers c LEFT JOIN sums s USING (customer_id)
            WHERE (c.available, c.held) <> (coalesce(s.available, 0), coalesce(s.held, 0))";
        let unbalanced = sqlx::query_scalar(query).fetch_one(&self.pool).await?;

        Ok(Findings {
            accounts: accounts
                .into_iter()
                .map(|account| (account.customer_id.clone(), account))
                .collect(),
            redemptions: redemptions
                .into_iter()
                .map(|redemption| (redemption.redeem_request_id.clone(), redemption))
                .collect(),
            unbalanced,
        })
    }
}

fn events(expectation: &Expectation) -> (Vec<&'static str>, Vec<&str>) {
    expectation
        .events
        .iter()
        .map(|(source, id)| (*source, id.as_str()))
        .unzip()
}
