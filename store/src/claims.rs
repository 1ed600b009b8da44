//! Claims: the row of an assigned promotion is the state machine. Every step locks it, changes it
//! only from the state it may be changed from, and returns where it stands, so that a step that
//! runs again, late, or beside another changes nothing that it should not.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{
    CustomerId, Points, Programme, PromotionId, TierThresholds,
    promotion::{ClaimRefusal, ClaimState, Standing},
    transaction::Direction,
};
use sqlx::{PgConnection, PgPool};

use crate::{
    Error,
    ledger::points,
    posting::{self, Posting},
    promotions, transaction,
};

/// The ledger source of what promotions give.
pub const SOURCE: &str = "promotion";
/// The leg of its one transfer.
pub const LEG: &str = "bonus";

/// A promotion of a player.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Which promotion.
    pub promotion_id: PromotionId,
    /// Whose.
    pub customer_id: CustomerId,
    /// How far its claim has come.
    pub state: ClaimState,
    /// How often it was claimed.
    pub claims: i32,
    /// The points of the claim, once they are fixed.
    pub points: Option<Points>,
    /// Why the last claim was rolled back.
    pub refusal: Option<ClaimRefusal>,
    /// When it was assigned.
    pub assigned_at: DateTime<Utc>,
    /// When the points were credited.
    pub claimed_at: Option<DateTime<Utc>>,
}

/// Its row.
#[derive(sqlx::FromRow)]
pub(crate) struct Row {
    #[sqlx(rename = "of_promotion")]
    promotion_id: String,
    customer_id: String,
    state: String,
    claims: i32,
    points: Option<i64>,
    refusal: Option<String>,
    assigned_at: DateTime<Utc>,
    claimed_at: Option<DateTime<Utc>>,
}

/// The columns of an assignment `a`.
macro_rules! columns {
    () => {
        "a.promotion_id AS of_promotion, a.customer_id, a.state, a.claims, a.points, a.refusal,
         a.assigned_at, a.claimed_at"
    };
}
pub(crate) use columns;

impl TryFrom<Row> for Assignment {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let unreadable = |what: &str| {
            Error::Inconsistent(format!(
                "promotion {} of {}: {what}",
                row.promotion_id, row.customer_id
            ))
        };
        let refusal = row.refusal.as_deref();
        Ok(Self {
            promotion_id: PromotionId::new(row.promotion_id.clone())
                .map_err(|e| unreadable(&e.to_string()))?,
            customer_id: CustomerId::new(row.customer_id.clone())
                .map_err(|e| unreadable(&e.to_string()))?,
            state: ClaimState::parse(&row.state).ok_or_else(|| unreadable(&row.state))?,
            claims: row.claims,
            points: row.points.map(points).transpose()?,
            refusal: refusal
                .map(|name| ClaimRefusal::parse(name).ok_or_else(|| unreadable(name)))
                .transpose()?,
            assigned_at: row.assigned_at,
            claimed_at: row.claimed_at,
        })
    }
}

/// One claim: a promotion, a player, and the how-manieth it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which promotion.
    pub promotion_id: PromotionId,
    /// Whose.
    pub customer_id: CustomerId,
    /// Which of the player's claims, from 1: there are several where one was rolled back.
    pub number: i32,
}

impl From<&Assignment> for Claim {
    fn from(row: &Assignment) -> Self {
        Self {
            promotion_id: row.promotion_id.clone(),
            customer_id: row.customer_id.clone(),
            number: row.claims,
        }
    }
}

/// Reads a promotion of a player.
///
/// # Errors
/// What the database reports.
pub async fn find(
    conn: &mut PgConnection,
    promotion_id: &PromotionId,
    customer: &CustomerId,
) -> Result<Option<Assignment>, Error> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM promotion_assignments a WHERE promotion_id = $1 AND customer_id = $2"
    );
    one(conn, statement, promotion_id, customer).await
}

async fn lock(
    conn: &mut PgConnection,
    promotion_id: &PromotionId,
    customer: &CustomerId,
) -> Result<Option<Assignment>, Error> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM promotion_assignments a WHERE promotion_id = $1 AND customer_id = $2 FOR UPDATE"
    );
    one(conn, statement, promotion_id, customer).await
}

async fn one(
    conn: &mut PgConnection,
    statement: &'static str,
    promotion_id: &PromotionId,
    customer: &CustomerId,
) -> Result<Option<Assignment>, Error> {
    let row: Option<Row> = sqlx::query_as(statement)
        .bind(promotion_id.as_str())
        .bind(customer.as_str())
        .fetch_optional(conn)
        .await?;
    row.map(Assignment::try_from).transpose()
}

/// Locks the row of a claim under way. The other side when there is nothing to do: the claim has
/// ended, or the row is about a later one.
async fn under_way(
    conn: &mut PgConnection,
    claim: &Claim,
) -> Result<Result<Assignment, Assignment>, Error> {
    let row = lock(conn, &claim.promotion_id, &claim.customer_id)
        .await?
        .ok_or_else(|| not_found(claim))?;
    Ok(
        if row.state == ClaimState::Claiming && row.claims == claim.number {
            Ok(row)
        } else {
            Err(row)
        },
    )
}

async fn current(conn: &mut PgConnection, claim: &Claim) -> Result<Assignment, Error> {
    find(conn, &claim.promotion_id, &claim.customer_id)
        .await?
        .ok_or_else(|| not_found(claim))
}

fn not_found(claim: &Claim) -> Error {
    Error::not_found(
        "assigned promotion",
        format!("{} of {}", claim.promotion_id, claim.customer_id),
    )
}

/// What became of a player's wish to claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// A new claim, CLAIMING.
    New(Assignment),
    /// The same claim is under way.
    UnderWay(Assignment),
    /// The points were credited before.
    Before(Assignment),
    /// The promotion cannot be claimed now.
    NotOpen(Standing),
    /// It was never assigned to the player, or does not exist.
    NotAssigned,
}

/// Takes a player's wish to claim: UNCLAIMED becomes CLAIMING while the promotion holds. Runs in
/// the caller's transaction, beside the audit record. From here on the claim counts, even when the
/// promotion ends before the points are credited.
///
/// # Errors
/// What the database reports.
pub async fn ask(
    conn: &mut PgConnection,
    promotion_id: &PromotionId,
    customer: &CustomerId,
    now: DateTime<Utc>,
) -> Result<Asked, Error> {
    let Some(row) = lock(conn, promotion_id, customer).await? else {
        return Ok(Asked::NotAssigned);
    };
    match row.state {
        ClaimState::Claiming => return Ok(Asked::UnderWay(row)),
        ClaimState::Claimed => return Ok(Asked::Before(row)),
        ClaimState::Unclaimed => {}
    }
    let promotion = promotions::find(conn, promotion_id)
        .await?
        .ok_or_else(|| Error::not_found("promotion", promotion_id.as_str()))?;
    match promotion.terms.standing(now) {
        Standing::Open => {}
        standing => return Ok(Asked::NotOpen(standing)),
    }
    sqlx::query(
        "UPDATE promotion_assignments
         SET state = 'CLAIMING', claims = claims + 1, refusal = NULL,
             updated_at = clock_timestamp()
         WHERE promotion_id = $1 AND customer_id = $2",
    )
    .bind(promotion_id.as_str())
    .bind(customer.as_str())
    .execute(&mut *conn)
    .await?;
    let row = find(conn, promotion_id, customer).await?;
    Ok(row.map_or(Asked::NotAssigned, Asked::New))
}

/// What a step of a claim came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The row as the step left it.
    pub row: Assignment,
    /// Why the claim has to be rolled back; the step has changed nothing then.
    pub refused: Option<ClaimRefusal>,
}

impl Step {
    const fn left(row: Assignment) -> Self {
        Self { row, refused: None }
    }
}

/// Marks what the claim is worth, by the rules in force: from here on other rules change nothing.
/// Marking again changes nothing.
///
/// # Errors
/// [`Error::NotFound`] without a row; otherwise what the database reports.
pub async fn mark(pool: &PgPool, claim: &Claim, programme: &Programme) -> Result<Step, Error> {
    let mut tx = transaction::begin(pool).await?;
    let row = match under_way(&mut tx, claim).await? {
        Ok(row) if row.points.is_none() => row,
        Ok(row) | Err(row) => return Ok(Step::left(row)),
    };
    let promotion = promotions::find(&mut tx, &claim.promotion_id)
        .await?
        .ok_or_else(|| Error::not_found("promotion", claim.promotion_id.as_str()))?;
    let terms = &promotion.terms;
    let worth = match programme.bonus(terms.amount, terms.currency) {
        Ok(worth) => worth,
        Err(error) => {
            return Ok(Step {
                row,
                refused: Some(error.into()),
            });
        }
    };
    sqlx::query(
        "UPDATE promotion_assignments
         SET points = $3, rule_set_version = $4, updated_at = clock_timestamp()
         WHERE promotion_id = $1 AND customer_id = $2",
    )
    .bind(claim.promotion_id.as_str())
    .bind(claim.customer_id.as_str())
    .bind(worth.get())
    .bind(programme.version())
    .execute(&mut *tx)
    .await?;
    let row = current(&mut tx, claim).await?;
    transaction::commit(tx, "mark-claim").await?;
    Ok(Step::left(row))
}

/// Credits the points of a claim: one transfer, the balance, word of the new total and CLAIMED, in
/// one transaction. Crediting again changes nothing.
///
/// # Errors
/// [`Error::NotFound`] without a row; [`Error::Inconsistent`] for a claim that was never marked;
/// otherwise what the database reports.
pub async fn credit(
    pool: &PgPool,
    claim: &Claim,
    workflow_id: &str,
    thresholds: &TierThresholds,
) -> Result<Step, Error> {
    let mut tx = transaction::begin(pool).await?;
    let row = match under_way(&mut tx, claim).await? {
        Ok(row) => row,
        Err(row) => return Ok(Step::left(row)),
    };
    let unmarked = || {
        Error::Inconsistent(format!(
            "promotion {} of {} is to be credited and not marked",
            claim.promotion_id, claim.customer_id
        ))
    };
    let amount = row.points.ok_or_else(unmarked)?;
    let (rules, reason): (Option<String>, String) = sqlx::query_as(
        "SELECT a.rule_set_version, p.type
         FROM promotion_assignments a JOIN promotions p USING (promotion_id)
         WHERE a.promotion_id = $1 AND a.customer_id = $2",
    )
    .bind(claim.promotion_id.as_str())
    .bind(claim.customer_id.as_str())
    .fetch_one(&mut *tx)
    .await?;
    let account = posting::lock(&mut tx, &claim.customer_id)
        .await?
        .ok_or_else(|| Error::not_found("customer", claim.customer_id.as_str()))?;
    if account.after(Direction::Credit, amount).is_err() {
        return Ok(Step {
            row,
            refused: Some(ClaimRefusal::TooManyPoints),
        });
    }
    let bonus = Posting {
        source: SOURCE,
        event_id: &event_id(&claim.promotion_id, &claim.customer_id),
        leg: LEG,
        customer: &claim.customer_id,
        direction: Direction::Credit,
        points: amount,
        reason: &reason,
        workflow_id,
        rule_set_version: &rules.ok_or_else(unmarked)?,
    };
    posting::write(&mut tx, &account, &bonus, thresholds).await?;
    sqlx::query(
        "UPDATE promotion_assignments
         SET state = 'CLAIMED', claimed_at = clock_timestamp(), updated_at = clock_timestamp()
         WHERE promotion_id = $1 AND customer_id = $2",
    )
    .bind(claim.promotion_id.as_str())
    .bind(claim.customer_id.as_str())
    .execute(&mut *tx)
    .await?;
    let row = current(&mut tx, claim).await?;
    transaction::commit(tx, "credit-bonus").await?;
    Ok(Step::left(row))
}

/// Rolls a claim back: CLAIMING becomes UNCLAIMED, with the reason. Never once the points were
/// credited: asked to roll back a CLAIMED one, the answer is CLAIMED.
///
/// # Errors
/// [`Error::NotFound`] without a row; otherwise what the database reports.
pub async fn roll_back(
    pool: &PgPool,
    claim: &Claim,
    refusal: ClaimRefusal,
) -> Result<Assignment, Error> {
    let mut tx = transaction::begin(pool).await?;
    if let Err(row) = under_way(&mut tx, claim).await? {
        return Ok(row);
    }
    sqlx::query(
        "UPDATE promotion_assignments
         SET state = 'UNCLAIMED', points = NULL, rule_set_version = NULL, refusal = $3,
             updated_at = clock_timestamp()
         WHERE promotion_id = $1 AND customer_id = $2",
    )
    .bind(claim.promotion_id.as_str())
    .bind(claim.customer_id.as_str())
    .bind(refusal.as_str())
    .execute(&mut *tx)
    .await?;
    let row = current(&mut tx, claim).await?;
    transaction::commit(tx, "roll-back-claim").await?;
    Ok(row)
}

/// The ledger's id of a claim's event. It has no number: a promotion gives its points once.
pub fn event_id(promotion_id: &PromotionId, customer: &CustomerId) -> String {
    format!("{promotion_id}/{customer}")
}

/// Claims under way that nothing has happened to for so long: their flow was not started, or may
/// have been cut off. Oldest first, at most `limit`.
///
/// # Errors
/// What the database reports.
pub async fn to_start(pool: &PgPool, age: Duration, limit: i64) -> Result<Vec<Assignment>, Error> {
    let rows: Vec<Row> = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM promotion_assignments a
          WHERE state = 'CLAIMING' AND updated_at < clock_timestamp() - $1 * interval '1 second'
          ORDER BY updated_at LIMIT $2"
    ))
    .bind(age.as_secs_f64())
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Assignment::try_from).collect()
}
