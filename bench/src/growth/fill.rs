//! A ledger with a long past.

use anyhow::{Context as _, Result};
use sqlx::{Connection as _, PgConnection};
use stack::Progress;

use crate::award::Customers;
use crate::system::System;

/// Posts a transfer of one point for each customer, as of long ago: with its event processed, its
/// message published and its hash in the chain. The hashes are none, so `meed verify` would object.
const FILL: &str = "
    WITH posted AS (
        INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account,
               customer_id, amount, reason, workflow_id, customer_version, available_after,
               held_after, occurred_at, posted_at)
        SELECT 'order', gen_random_uuid()::text, 'award', 'ISSUANCE', 'AVAILABLE',
               customer_id, 1, 'ORDER', 'fill', version + $2, available + $2,
               held, clock_timestamp() - interval '30 days', clock_timestamp() - interval '30 days'
        FROM customers WHERE customer_id LIKE $1 ORDER BY random()
        RETURNING transfer_id, source, source_event_id, customer_id),
    seen AS (
        INSERT INTO processed_events (source, event_id, body_hash, customer_id, points)
        SELECT source, source_event_id, sha256(source_event_id::bytea), customer_id, 1 FROM posted),
    told AS (
        INSERT INTO outbox_messages (topic, message_key, headers, body)
        SELECT 'reward-confirmed', customer_id::bytea,
               '[[\"content-type\", \"YXBwbGljYXRpb24vanNvbg==\"]]',
               json_build_object('eventId', source_event_id, 'customerId', customer_id,
                   'pointsAwarded', 1, 'balanceAfter', 1, 'sourceEventId', source_event_id,
                   'timestamp', clock_timestamp())::text::bytea
        FROM posted RETURNING outbox_id),
    published AS (
        INSERT INTO outbox_state (outbox_id, shard, published_at)
        SELECT outbox_id, outbox_id % 16, clock_timestamp() FROM told)
    INSERT INTO transfer_hashes (transfer_id, hash)
    SELECT transfer_id, sha256(transfer_id::text::bytea) FROM posted";

/// What the balances say once their customers have earned so much.
const BALANCES: &str = "
    UPDATE customers SET available = available + $2, lifetime_earned = lifetime_earned + $2,
           version = version + $2
    WHERE customer_id LIKE $1";

/// Statements that take away the indexes whose keys come in no order, and those that bring them
/// back: to fill a table and then its index takes a fraction of the time.
const INDEXES: &str = "
    SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname),
           format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname,
                  pg_get_constraintdef(oid))
    FROM pg_constraint WHERE conname IN ('transfers_once', 'processed_events_pkey')
    UNION ALL
    SELECT format('DROP INDEX %I', relname), pg_get_indexdef(oid)
    FROM pg_class WHERE relname = 'transfers_by_customer'";

/// Fills the ledger, faster than a client could.
pub struct Filler {
    conn: PgConnection,
}

impl Filler {
    /// On this system's database.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn new(system: &System) -> Result<Self> {
        let url = system.stack.superuser_url()?;
        let (server, _) = url.rsplit_once('/').context("an odd URL")?;
        let url = format!("{server}/{}", system.plan.database);
        let mut conn = PgConnection::connect(&url).await?;
        // Neither foreign keys nor the disk need to be asked for each row.
        sqlx::raw_sql(
            "SET session_replication_role = replica; SET synchronous_commit = off;
             SET maintenance_work_mem = '512MB'",
        )
        .execute(&mut conn)
        .await?;
        Ok(Self { conn })
    }

    /// Opens the accounts of customers.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn open(&mut self, customers: &Customers) -> Result<()> {
        let task = Progress::shown().task(&format!("opening {} accounts", customers.count));
        customers.open(&mut self.conn).await?;
        self.tidy_up().await?;
        task.done("");
        Ok(())
    }

    /// Lets these customers earn points, each as many as the others, until the ledger has about so
    /// many rows.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn grow(&mut self, customers: &Customers, rows: usize) -> Result<()> {
        let task = Progress::shown().task(&format!("growing the ledger to {rows} rows"));
        let count = sqlx::query_scalar("SELECT count(*) FROM transfers");
        let there: i64 = count.fetch_one(&mut self.conn).await?;
        let missing = i64::try_from(rows)?.saturating_sub(there).max(0);
        let each = missing / i64::try_from(customers.count)?;
        let indexes: Vec<(String, String)> =
            sqlx::query_as(INDEXES).fetch_all(&mut self.conn).await?;
        for (take_away, _) in &indexes {
            self.run(take_away).await?;
        }
        for turn in 1..=each {
            sqlx::query(FILL)
                .bind(customers.pattern())
                .bind(turn)
                .execute(&mut self.conn)
                .await?;
            task.line(&format!("{turn} of {each} transfers of each customer"));
        }
        sqlx::query(BALANCES)
            .bind(customers.pattern())
            .bind(each)
            .execute(&mut self.conn)
            .await?;
        for (_, bring_back) in &indexes {
            task.line(bring_back);
            self.run(bring_back).await?;
        }
        self.tidy_up().await?;
        task.done("");
        Ok(())
    }

    async fn run(&mut self, statement: &str) -> Result<()> {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::query(statement).execute(&mut self.conn).await?;
        Ok(())
    }

    /// What would otherwise happen during the measurement.
    async fn tidy_up(&mut self) -> Result<()> {
        let tables = "customers, transfers, processed_events, outbox_messages, outbox_state, transfer_hashes";
        for statement in [
            format!("VACUUM (ANALYZE) {tables}"),
            "CHECKPOINT".to_owned(),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .execute(&mut self.conn)
                .await?;
        }
        Ok(())
    }
}
