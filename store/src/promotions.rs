//! Promotions: what is offered, and when. Of an exclusive type only one may be active at a time,
//! which a constraint of the database sees to.

use chrono::{DateTime, Utc};
use domain::{
    Currency, CustomerId, Promotion, PromotionId, PromotionType, money::Amount, promotion::Terms,
};
use sqlx::PgConnection;

use crate::{
    Error,
    claims::{self, Assignment},
};

#[derive(sqlx::FromRow)]
pub(crate) struct Row {
    promotion_id: String,
    r#type: String,
    title: String,
    description: String,
    amount: String,
    currency: Option<String>,
    starts_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
    is_active: bool,
    is_exclusive: bool,
    created_at: DateTime<Utc>,
}

impl TryFrom<Row> for Promotion {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let unreadable =
            |what: String| Error::Inconsistent(format!("promotion {}: {what}", row.promotion_id));
        let currency = row.currency.as_deref().map(|code| {
            Currency::parse(code).ok_or_else(|| unreadable(format!("currency {code}")))
        });
        Ok(Self {
            promotion_id: PromotionId::new(row.promotion_id.clone())
                .map_err(|e| unreadable(e.to_string()))?,
            terms: Terms {
                kind: PromotionType::new(row.r#type.clone())
                    .map_err(|e| unreadable(e.to_string()))?,
                amount: Amount::parse(&row.amount).map_err(|e| unreadable(e.to_string()))?,
                currency: currency.transpose()?,
                title: row.title,
                description: row.description,
                starts_at: row.starts_at,
                ends_at: row.ends_at,
                is_active: row.is_active,
            },
            is_exclusive: row.is_exclusive,
            created_at: row.created_at,
        })
    }
}

/// The columns of a promotion `p`.
macro_rules! columns {
    () => {
        "p.promotion_id, p.type, p.title, p.description, p.amount::text AS amount, p.currency,
         p.starts_at, p.ends_at, p.is_active, p.is_exclusive, p.created_at"
    };
}

/// What became of a promotion that was to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It is made.
    New,
    /// It is of an exclusive type, and this one is active within its period.
    Overlaps(PromotionId),
}

/// Makes a promotion. Runs in the caller's transaction, beside the audit record.
///
/// # Errors
/// What the database reports.
pub async fn create(
    conn: &mut PgConnection,
    promotion_id: &PromotionId,
    terms: &Terms,
    is_exclusive: bool,
) -> Result<Created, Error> {
    let made = sqlx::query(
        "INSERT INTO promotions (promotion_id, type, title, description, amount, currency,
                starts_at, ends_at, is_active, is_exclusive)
         VALUES ($1, $2, $3, $4, $5::text::numeric, $6, $7, $8, $9, $10)
         ON CONFLICT ON CONSTRAINT promotions_one_at_a_time DO NOTHING",
    )
    .bind(promotion_id.as_str())
    .bind(terms.kind.as_str())
    .bind(&terms.title)
    .bind(&terms.description)
    .bind(terms.amount.to_string())
    .bind(terms.currency.as_ref().map(Currency::as_str))
    .bind(terms.starts_at)
    .bind(terms.ends_at)
    .bind(terms.is_active)
    .bind(is_exclusive)
    .execute(&mut *conn)
    .await?
    .rows_affected();
    if made > 0 {
        return Ok(Created::New);
    }
    let other: Option<(String,)> = sqlx::query_as(
        "SELECT promotion_id FROM promotions
         WHERE type = $1 AND is_active AND is_exclusive
           AND tstzrange(starts_at, ends_at) && tstzrange($2, $3)
         ORDER BY starts_at, promotion_id LIMIT 1",
    )
    .bind(terms.kind.as_str())
    .bind(terms.starts_at)
    .bind(terms.ends_at)
    .fetch_optional(conn)
    .await?;
    let (other,) = other.ok_or(Error::Raced)?;
    PromotionId::new(other)
        .map(Created::Overlaps)
        .map_err(|e| Error::Inconsistent(e.to_string()))
}

/// Reads a promotion.
///
/// # Errors
/// What the database reports.
pub async fn find(
    conn: &mut PgConnection,
    promotion_id: &PromotionId,
) -> Result<Option<Promotion>, Error> {
    let row: Option<Row> = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM promotions p WHERE promotion_id = $1"
    ))
    .bind(promotion_id.as_str())
    .fetch_optional(conn)
    .await?;
    row.map(Promotion::try_from).transpose()
}

/// The active promotion of a type at an instant; of several the one that began last.
///
/// # Errors
/// What the database reports.
pub async fn active(
    conn: &mut PgConnection,
    kind: &PromotionType,
    at: DateTime<Utc>,
) -> Result<Option<Promotion>, Error> {
    let row: Option<Row> = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM promotions p
          WHERE type = $1 AND is_active AND starts_at <= $2 AND ends_at > $2
          ORDER BY starts_at DESC, promotion_id DESC LIMIT 1"
    ))
    .bind(kind.as_str())
    .bind(at)
    .fetch_optional(conn)
    .await?;
    row.map(Promotion::try_from).transpose()
}

/// Which promotions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// Of this type.
    pub kind: Option<&'a PromotionType>,
    /// Active, or not.
    pub is_active: Option<bool>,
    /// Whose period holds this instant.
    pub at: Option<DateTime<Utc>>,
}

/// A place in a list: an instant and the id of a promotion.
pub type Place<'a> = (DateTime<Utc>, &'a str);

/// The newest `limit` promotions that pass the filter and come after a place, newest first.
///
/// # Errors
/// What the database reports.
pub async fn page(
    conn: &mut PgConnection,
    filter: Filter<'_>,
    before: Option<Place<'_>>,
    limit: i64,
) -> Result<Vec<Promotion>, Error> {
    let mut query = sqlx::QueryBuilder::new(concat!(
        "SELECT ",
        columns!(),
        " FROM promotions p WHERE true"
    ));
    if let Some(kind) = filter.kind {
        query.push(" AND type = ").push_bind(kind.as_str());
    }
    if let Some(is_active) = filter.is_active {
        query.push(" AND is_active = ").push_bind(is_active);
    }
    if let Some(at) = filter.at {
        query.push(" AND starts_at <= ").push_bind(at);
        query.push(" AND ends_at > ").push_bind(at);
    }
    if let Some((at, id)) = before {
        query
            .push(" AND (created_at, promotion_id) < (")
            .push_bind(at);
        query.push(", ").push_bind(id).push(")");
    }
    query
        .push(" ORDER BY created_at DESC, promotion_id DESC LIMIT ")
        .push_bind(limit);
    let rows: Vec<Row> = query.build_query_as().fetch_all(conn).await?;
    rows.into_iter().map(Promotion::try_from).collect()
}

/// The `limit` promotions of a player that were assigned last and come after a place, newest
/// first.
///
/// # Errors
/// What the database reports.
pub async fn of_customer(
    conn: &mut PgConnection,
    customer: &CustomerId,
    before: Option<Place<'_>>,
    limit: i64,
) -> Result<Vec<(Promotion, Assignment)>, Error> {
    #[derive(sqlx::FromRow)]
    struct Both {
        #[sqlx(flatten)]
        promotion: Row,
        #[sqlx(flatten)]
        assignment: claims::Row,
    }
    let mut query = sqlx::QueryBuilder::new(concat!(
        "SELECT ",
        columns!(),
        ", ",
        claims::columns!(),
        " FROM promotion_assignments a JOIN promotions p USING (promotion_id)
          WHERE a.customer_id = "
    ));
    query.push_bind(customer.as_str());
    if let Some((at, id)) = before {
        query
            .push(" AND (a.assigned_at, a.promotion_id) < (")
            .push_bind(at);
        query.push(", ").push_bind(id).push(")");
    }
    query
        .push(" ORDER BY a.assigned_at DESC, a.promotion_id DESC LIMIT ")
        .push_bind(limit);
    let rows: Vec<Both> = query.build_query_as().fetch_all(conn).await?;
    rows.into_iter()
        .map(|row| Ok((row.promotion.try_into()?, row.assignment.try_into()?)))
        .collect()
}
