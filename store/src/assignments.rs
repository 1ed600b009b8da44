//! Assigning promotions to players: one by one as a welcome, or many by a job, whose row and whose
//! players' rows say what has been done.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use chrono::{DateTime, Utc};
use domain::{
    AssignmentJobId, CustomerId, Promotion, PromotionId, PromotionType, message::Notification,
    promotion::AssignmentState,
};
use sqlx::{PgConnection, PgPool};

use crate::{
    Error,
    outbox::{self, OutboxMessage},
    promotions, transaction,
};

/// Customers whose rows are locked, and the versions of their accounts.
type Locked = HashMap<String, i64>;

async fn lock(conn: &mut PgConnection, customers: &[&str]) -> Result<Locked, Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT customer_id, version FROM customers
         WHERE customer_id = ANY($1) ORDER BY customer_id FOR UPDATE",
    )
    .bind(customers)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Assigns a promotion to customers whose rows are locked, and writes their notifications. Who has
/// it already is left alone. The answer holds those to whom it was assigned now.
async fn give(
    conn: &mut PgConnection,
    promotion: &Promotion,
    locked: &Locked,
    now: DateTime<Utc>,
) -> Result<HashSet<String>, Error> {
    let customers: BTreeSet<&str> = locked.keys().map(String::as_str).collect();
    let customers: Vec<&str> = customers.into_iter().collect();
    let given: Vec<(String,)> = sqlx::query_as(
        "INSERT INTO promotion_assignments (promotion_id, customer_id)
         SELECT $1, wanted FROM unnest($2::text[]) AS wanted
         ON CONFLICT DO NOTHING RETURNING customer_id",
    )
    .bind(promotion.promotion_id.as_str())
    .bind(&customers)
    .fetch_all(&mut *conn)
    .await?;
    let given: HashSet<String> = given.into_iter().map(|(customer,)| customer).collect();
    let mut messages = Vec::with_capacity(given.len());
    for customer in customers {
        let Some(version) = locked.get(customer).filter(|_| given.contains(customer)) else {
            continue;
        };
        let player = CustomerId::new(customer).map_err(|e| Error::Inconsistent(e.to_string()))?;
        let message = Notification::assigned(promotion, player);
        messages.push(OutboxMessage::promotion_assigned(&message, *version, now)?);
    }
    outbox::write(conn, &messages).await?;
    Ok(given)
}

/// Assigns the active promotion of this type, if there is one, to customers that have just been
/// registered. Runs in the caller's transaction. How many got it.
///
/// # Errors
/// What the database reports.
pub async fn welcome(
    conn: &mut PgConnection,
    kind: &PromotionType,
    customers: &[&CustomerId],
) -> Result<usize, Error> {
    let now = Utc::now();
    let Some(promotion) = promotions::active(conn, kind, now).await? else {
        return Ok(0);
    };
    let customers: Vec<&str> = customers.iter().map(|id| id.as_str()).collect();
    let locked = lock(conn, &customers).await?;
    Ok(give(conn, &promotion, &locked, now).await?.len())
}

// ------------------------------------------------------------------------------------------ jobs

/// A job that assigns a promotion to players, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Which one.
    pub job_id: AssignmentJobId,
    /// The promotion.
    pub promotion_id: PromotionId,
    /// Where it stands.
    pub state: AssignmentState,
    /// Whether somebody took it back.
    pub cancel_requested: bool,
    /// How many players it is about.
    pub players: i64,
    /// How many of them have the promotion by it.
    pub assigned: i64,
    /// How many had it before.
    pub already: i64,
    /// How many have no account.
    pub unknown: i64,
    /// When it was asked for.
    pub requested_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
}

impl Job {
    /// How many players were not looked at.
    pub const fn left(&self) -> i64 {
        self.players - self.assigned - self.already - self.unknown
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    job_id: String,
    promotion_id: String,
    state: String,
    cancel_requested: bool,
    requested_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    players: i64,
    assigned: i64,
    already: i64,
    unknown: i64,
}

impl TryFrom<Row> for Job {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let unreadable =
            |what: &str| Error::Inconsistent(format!("assignment job {}: {what}", row.job_id));
        Ok(Self {
            promotion_id: PromotionId::new(row.promotion_id.clone())
                .map_err(|e| unreadable(&e.to_string()))?,
            state: AssignmentState::parse(&row.state).ok_or_else(|| unreadable(&row.state))?,
            cancel_requested: row.cancel_requested,
            players: row.players,
            assigned: row.assigned,
            already: row.already,
            unknown: row.unknown,
            requested_at: row.requested_at,
            ended_at: row.ended_at,
            job_id: AssignmentJobId::new(row.job_id.clone())
                .map_err(|e| unreadable(&e.to_string()))?,
        })
    }
}

/// Writes the rows of a new job, QUEUED. The players are distinct.
///
/// # Errors
/// What the database reports.
pub async fn order(
    conn: &mut PgConnection,
    job_id: &AssignmentJobId,
    promotion_id: &PromotionId,
    players: &[CustomerId],
) -> Result<(), Error> {
    sqlx::query("INSERT INTO assignment_jobs (job_id, promotion_id) VALUES ($1, $2)")
        .bind(job_id.as_str())
        .bind(promotion_id.as_str())
        .execute(&mut *conn)
        .await?;
    let players: Vec<&str> = players.iter().map(CustomerId::as_str).collect();
    sqlx::query(
        "INSERT INTO assignment_job_players (job_id, position, customer_id)
         SELECT $1, position, player
         FROM unnest($2::text[]) WITH ORDINALITY AS p (player, position)",
    )
    .bind(job_id.as_str())
    .bind(players)
    .execute(conn)
    .await?;
    Ok(())
}

/// Reads a job.
///
/// # Errors
/// What the database reports.
pub async fn find(conn: &mut PgConnection, job_id: &AssignmentJobId) -> Result<Option<Job>, Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT job_id, promotion_id, state, cancel_requested_at IS NOT NULL AS cancel_requested,
                requested_at, ended_at, counts.*
         FROM assignment_jobs j
         CROSS JOIN LATERAL (
             SELECT count(*) AS players,
                    count(*) FILTER (WHERE outcome = 'ASSIGNED') AS assigned,
                    count(*) FILTER (WHERE outcome = 'ALREADY') AS already,
                    count(*) FILTER (WHERE outcome = 'UNKNOWN') AS unknown
             FROM assignment_job_players p WHERE p.job_id = j.job_id) AS counts
         WHERE j.job_id = $1",
    )
    .bind(job_id.as_str())
    .fetch_optional(conn)
    .await?;
    row.map(Job::try_from).transpose()
}

async fn current(conn: &mut PgConnection, job_id: &AssignmentJobId) -> Result<Job, Error> {
    find(conn, job_id)
        .await?
        .ok_or_else(|| Error::not_found("assignment job", job_id.as_str()))
}

/// The next `limit` players of a job after a position that have no account, with their positions.
///
/// # Errors
/// What the database reports.
pub async fn unknown_players(
    conn: &mut PgConnection,
    job_id: &AssignmentJobId,
    after: i32,
    limit: i64,
) -> Result<Vec<(i32, String)>, Error> {
    Ok(sqlx::query_as(
        "SELECT position, customer_id FROM assignment_job_players
         WHERE job_id = $1 AND outcome = 'UNKNOWN' AND position > $2
         ORDER BY position LIMIT $3",
    )
    .bind(job_id.as_str())
    .bind(after)
    .bind(limit)
    .fetch_all(conn)
    .await?)
}

/// Records that a job is to be taken back, unless it has ended. Runs in the caller's transaction,
/// beside the audit record.
///
/// # Errors
/// [`Error::NotFound`] without a row; otherwise what the database reports.
pub async fn request_cancel(
    conn: &mut PgConnection,
    job_id: &AssignmentJobId,
) -> Result<Job, Error> {
    sqlx::query(
        "UPDATE assignment_jobs
         SET cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp())
         WHERE job_id = $1 AND state IN ('QUEUED', 'RUNNING')",
    )
    .bind(job_id.as_str())
    .execute(&mut *conn)
    .await?;
    current(conn, job_id).await
}

/// Looks at the next `count` players of a job, in one transaction: who has an account and not the
/// promotion gets it. Nothing is done once it was taken back. Running again goes on from there.
///
/// # Errors
/// [`Error::NotFound`] without a row; otherwise what the database reports.
pub async fn assign_next(
    pool: &PgPool,
    job_id: &AssignmentJobId,
    count: i64,
) -> Result<Job, Error> {
    let mut tx = transaction::begin(pool).await?;
    let job: Option<(bool, String)> = sqlx::query_as(
        "SELECT state IN ('QUEUED', 'RUNNING') AND cancel_requested_at IS NULL, promotion_id
         FROM assignment_jobs WHERE job_id = $1 FOR UPDATE",
    )
    .bind(job_id.as_str())
    .fetch_optional(&mut *tx)
    .await?;
    let (goes_on, promotion_id) =
        job.ok_or_else(|| Error::not_found("assignment job", job_id.as_str()))?;
    if !goes_on {
        return current(&mut tx, job_id).await;
    }
    let promotion = PromotionId::new(promotion_id)
        .map_err(|e| Error::Inconsistent(format!("assignment job {job_id}: {e}")))?;
    let promotion = promotions::find(&mut tx, &promotion)
        .await?
        .ok_or_else(|| Error::not_found("promotion", promotion.as_str()))?;
    let next: Vec<(i32, String)> = sqlx::query_as(
        "SELECT position, customer_id FROM assignment_job_players
         WHERE job_id = $1 AND outcome IS NULL ORDER BY position LIMIT $2",
    )
    .bind(job_id.as_str())
    .bind(count)
    .fetch_all(&mut *tx)
    .await?;
    let players: Vec<&str> = next.iter().map(|(_, player)| player.as_str()).collect();
    let locked = lock(&mut tx, &players).await?;
    let given = give(&mut tx, &promotion, &locked, Utc::now()).await?;
    let outcomes: Vec<&str> = players
        .iter()
        .map(
            |player| match (given.contains(*player), locked.contains_key(*player)) {
                (true, _) => "ASSIGNED",
                (false, true) => "ALREADY",
                (false, false) => "UNKNOWN",
            },
        )
        .collect();
    sqlx::query(
        "UPDATE assignment_job_players p SET outcome = n.outcome
         FROM unnest($2::int[], $3::text[]) AS n (position, outcome)
         WHERE p.job_id = $1 AND p.position = n.position",
    )
    .bind(job_id.as_str())
    .bind(
        next.iter()
            .map(|(position, _)| *position)
            .collect::<Vec<_>>(),
    )
    .bind(outcomes)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE assignment_jobs SET state = 'RUNNING', updated_at = clock_timestamp()
         WHERE job_id = $1",
    )
    .bind(job_id.as_str())
    .execute(&mut *tx)
    .await?;
    let job = current(&mut tx, job_id).await?;
    transaction::commit(tx, "assign").await?;
    Ok(job)
}

/// Ends a job: DONE when every player was looked at, and CANCELLED otherwise. Ending it again
/// changes nothing.
///
/// # Errors
/// [`Error::NotFound`] without a row; otherwise what the database reports.
pub async fn end(pool: &PgPool, job_id: &AssignmentJobId) -> Result<Job, Error> {
    let mut tx = transaction::begin(pool).await?;
    sqlx::query(
        "UPDATE assignment_jobs j
         SET state = CASE WHEN EXISTS (SELECT FROM assignment_job_players p
                                       WHERE p.job_id = j.job_id AND outcome IS NULL)
                     THEN 'CANCELLED' ELSE 'DONE' END,
             ended_at = clock_timestamp(), updated_at = clock_timestamp()
         WHERE job_id = $1 AND state IN ('QUEUED', 'RUNNING')",
    )
    .bind(job_id.as_str())
    .execute(&mut *tx)
    .await?;
    let job = current(&mut tx, job_id).await?;
    transaction::commit(tx, "end-assignment").await?;
    Ok(job)
}

/// Jobs whose flow may need to be started: QUEUED, or not ended and untouched for `stale_for`.
/// Oldest first, at most `limit`.
///
/// # Errors
/// What the database reports.
pub async fn to_start(pool: &PgPool, stale_for: Duration, limit: i64) -> Result<Vec<Job>, Error> {
    let ids: Vec<(String,)> = sqlx::query_as(
        "SELECT job_id FROM assignment_jobs
         WHERE state IN ('QUEUED', 'RUNNING')
           AND (state = 'QUEUED' OR updated_at < clock_timestamp() - $1 * interval '1 second')
         ORDER BY updated_at LIMIT $2",
    )
    .bind(stale_for.as_secs_f64())
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let mut conn = pool.acquire().await?;
    let mut jobs = Vec::with_capacity(ids.len());
    for (id,) in ids {
        let id = AssignmentJobId::new(id).map_err(|e| Error::Inconsistent(e.to_string()))?;
        jobs.push(current(&mut conn, &id).await?);
    }
    Ok(jobs)
}
