//! The ledger: balances, and the posting of awards in batches.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use chrono::{DateTime, NaiveDate, Utc};
use domain::{
    CustomerId, Points, Tier,
    command::Award,
    message::{PointsAdded, RewardConfirmed},
    programme::Programme,
    refusal::{Refusal, RefusalClass},
};
use faultpoint::bug;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};

use crate::{
    Error,
    outbox::{self, OutboxMessage},
};

/// A customer's balance: the projection of that customer's transfers.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Balance {
    /// Points that can be spent.
    #[sqlx(try_from = "i64")]
    pub available: Points,
    /// Points reserved by redemptions under way.
    #[sqlx(try_from = "i64")]
    pub held: Points,
    /// Points ever earned; never falls.
    #[sqlx(try_from = "i64")]
    pub lifetime_earned: Points,
    /// How many transfers have touched the account.
    pub version: i64,
    /// The customer's tier.
    #[sqlx(try_from = "String")]
    pub tier: TierName,
}

/// A tier as it stands in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierName(pub Tier);

impl TryFrom<String> for TierName {
    type Error = Error;
    fn try_from(name: String) -> Result<Self, Error> {
        Tier::parse(&name)
            .map(Self)
            .ok_or_else(|| Error::Inconsistent(format!("{name} is not a tier")))
    }
}

impl Balance {
    /// Available and held points together: what tiers look at.
    pub fn current(&self) -> Points {
        self.available.saturating_add(self.held)
    }
}

/// A customer's balance now, from the primary. Nothing for a customer without an account.
///
/// # Errors
/// What the database reports.
#[tracing::instrument(
    level = "debug", name = "ledger.balance", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn balance(
    conn: &mut PgConnection,
    customer: &CustomerId,
) -> Result<Option<Balance>, Error> {
    Ok(sqlx::query_as(
        "SELECT available, held, lifetime_earned, version, tier FROM customers WHERE customer_id = $1",
    )
    .bind(customer.as_str())
    .fetch_optional(conn)
    .await?)
}

/// What a customer could spend and had reserved at a past instant. Nothing before the first
/// transfer.
///
/// # Errors
/// What the database reports.
pub async fn balance_at(
    conn: &mut PgConnection,
    customer: &CustomerId,
    at: DateTime<Utc>,
) -> Result<Option<(Points, Points)>, Error> {
    let row: Option<(i64, i64)> = sqlx::query_as(
        "SELECT available_after, held_after FROM transfers
         WHERE customer_id = $1 AND posted_at <= $2
         ORDER BY customer_version DESC LIMIT 1",
    )
    .bind(customer.as_str())
    .bind(at)
    .fetch_optional(conn)
    .await?;
    row.map(|(available, held)| Ok((points(available)?, points(held)?)))
        .transpose()
}

/// The net change of a customer's available points from one kind of source, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct BreakdownLine {
    /// What kind of command they came from, such as reward-event.
    pub source: String,
    /// What the points were for, such as HOTEL_STAY or REDEMPTION.
    pub reason: String,
    /// The signed net change of available points.
    pub points: i64,
    /// How many transfers make it up.
    pub transfers: i64,
}

/// The net change of a customer's available points within `[from, to)`, by source and reason;
/// either end may be open.
///
/// # Errors
/// What the database reports.
pub async fn breakdown(
    conn: &mut PgConnection,
    customer: &CustomerId,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
) -> Result<Vec<BreakdownLine>, Error> {
    Ok(sqlx::query_as(
        "SELECT source, reason,
                sum(CASE WHEN credit_account = 'AVAILABLE' THEN amount ELSE 0 END
                  - CASE WHEN debit_account = 'AVAILABLE' THEN amount ELSE 0 END)::bigint AS points,
                count(*) AS transfers
         FROM transfers
         WHERE customer_id = $1
           AND ($2::timestamptz IS NULL OR posted_at >= $2)
           AND ($3::timestamptz IS NULL OR posted_at < $3)
         GROUP BY source, reason ORDER BY source, reason",
    )
    .bind(customer.as_str())
    .bind(from)
    .bind(to)
    .fetch_all(conn)
    .await?)
}

/// The most points that one customer was awarded within this time, for the metrics.
///
/// # Errors
/// What the database reports.
pub async fn most_awarded_to_one(pool: &PgPool, within: Duration) -> Result<Points, Error> {
    let (most,): (i64,) = sqlx::query_as(
        "SELECT coalesce(max(points), 0)::bigint
         FROM (SELECT sum(amount) AS points FROM transfers
               WHERE posted_at > clock_timestamp() - $1 * interval '1 second'
                 AND debit_account = 'ISSUANCE'
               GROUP BY customer_id) AS by_customer",
    )
    .bind(within.as_secs_f64())
    .fetch_one(pool)
    .await?;
    points(most)
}

pub(crate) fn points(number: i64) -> Result<Points, Error> {
    Points::new(number).map_err(|e| Error::Inconsistent(e.to_string()))
}

// --------------------------------------------------------------------------------------- awards

/// What became of one award of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posting {
    /// Posted now, for this many points.
    Posted(Points),
    /// The same event had been posted before.
    Duplicate,
    /// Refused; it belongs to the dead letters.
    Refused(Refusal),
}

struct Running {
    available: Points,
    held: Points,
    lifetime_earned: Points,
    version: i64,
    tier: Tier,
    touched: bool,
}

#[derive(Default)]
struct Columns<'a> {
    sources: Vec<&'static str>,
    event_ids: Vec<&'a str>,
    hashes: Vec<Vec<u8>>,
    customers: Vec<&'a str>,
    points: Vec<i64>,
    reasons: Vec<&'static str>,
    versions: Vec<i64>,
    available_after: Vec<i64>,
    held_after: Vec<i64>,
    occurred_at: Vec<DateTime<Utc>>,
}

/// Posts awards in their order, within the caller's transaction: processed events, transfers,
/// balances, daily caps, the outbox and orders to look at tiers. The answer has one entry for
/// each award, in order. Posting the same again changes nothing.
///
/// # Errors
/// [`Error::Raced`] when another transaction posted one of these events meanwhile: roll back and
/// repeat. Otherwise what the database reports.
#[tracing::instrument(
    level = "debug", name = "ledger.post_awards", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn post_awards(
    conn: &mut PgConnection,
    programme: &Programme,
    workflow_id: &str,
    awards: &[Award],
) -> Result<Vec<Posting>, Error> {
    let mut known = known_events(conn, awards).await?;
    if faultpoint::planted(bug::UNIQUE_KEY) {
        known.clear();
    }
    // Refused before any account is opened for it; an event that was posted stays a duplicate,
    // whatever the rules say of it by now.
    let mut postings: Vec<Option<Posting>> = awards
        .iter()
        .map(|award| {
            if known.contains_key(&event_key(award)) {
                return None;
            }
            programme
                .evaluate(award, Tier::default())
                .err()
                .map(Posting::Refused)
        })
        .collect();
    // The first of an id alone: another body under it is refused, and opens no account.
    let mut first: BTreeSet<EventKey> = BTreeSet::new();
    let new: Vec<&Award> = awards
        .iter()
        .zip(&postings)
        .filter(|(award, posting)| posting.is_none() && !known.contains_key(&event_key(award)))
        .map(|(award, _)| award)
        .filter(|award| first.insert(event_key(award)))
        .collect();
    let fresh: BTreeSet<&str> = new.iter().map(|award| award.customer_id.as_str()).collect();
    let days: BTreeSet<NaiveDate> = new.iter().map(|award| award.day()).collect();
    let mut accounts = lock_accounts(conn, &fresh).await?;
    let mut spent = daily_awards(conn, &fresh, &days).await?;
    let mut capped: BTreeSet<(String, String, NaiveDate)> = BTreeSet::new();

    let mut columns = Columns::default();
    let mut messages = Vec::new();
    let mut due: BTreeSet<&str> = BTreeSet::new();
    let now = Utc::now();

    for (award, posting) in awards.iter().zip(postings.iter_mut()) {
        if posting.is_some() {
            continue;
        }
        let hash = award.body_hash().to_vec();
        if let Some(known_hash) = known.get(&event_key(award)) {
            *posting = Some(if *known_hash == hash {
                Posting::Duplicate
            } else {
                Posting::Refused(Refusal {
                    class: RefusalClass::BodyConflict,
                    reason: format!(
                        "{} {} was seen before with another body",
                        award.source.as_str(),
                        award.event_id
                    ),
                })
            });
            continue;
        }
        let account = accounts
            .get_mut(award.customer_id.as_str())
            .ok_or_else(|| Error::Inconsistent(format!("no account of {}", award.customer_id)))?;
        let evaluation = match programme.evaluate(award, account.tier) {
            Ok(evaluation) => evaluation,
            Err(refusal) => {
                *posting = Some(Posting::Refused(refusal));
                continue;
            }
        };
        let mut total = Points::ZERO;
        let mut cap_uses = Vec::new();
        for contribution in &evaluation.contributions {
            if contribution.daily_cap.is_none() {
                total = total.saturating_add(contribution.points);
                continue;
            }
            let key = (
                award.customer_id.to_string(),
                contribution.rule.clone(),
                award.day(),
            );
            let already = spent.get(&key).copied().unwrap_or_default();
            let granted = contribution.within_daily_cap(already);
            total = total.saturating_add(granted);
            cap_uses.push((key, already.saturating_add(granted)));
        }
        let (Ok(available), Ok(lifetime_earned), Ok(_)) = (
            account.available.add(total),
            account.lifetime_earned.add(total),
            account
                .available
                .add(total)
                .and_then(|a| a.add(account.held)),
        ) else {
            *posting = Some(Posting::Refused(Refusal {
                class: RefusalClass::InvalidAmount,
                reason: format!("{total} more points would overflow the account"),
            }));
            continue;
        };
        for (key, used) in cap_uses {
            capped.insert(key.clone());
            spent.insert(key, used);
        }
        columns.sources.push(award.source.as_str());
        columns.event_ids.push(award.event_id.as_str());
        columns.hashes.push(hash.clone());
        columns.customers.push(award.customer_id.as_str());
        columns.points.push(total.get());
        columns.reasons.push(award.event_type.as_str());
        columns.occurred_at.push(award.occurred_at);
        if !total.is_zero() {
            account.version += 1;
            account.available = available;
            account.lifetime_earned = lifetime_earned;
            account.touched = true;
            let current = available.saturating_add(account.held);
            messages.push(OutboxMessage::reward_confirmed(
                &RewardConfirmed {
                    event_id: outbox::message_id(
                        "reward-confirmed",
                        award.source.as_str(),
                        award.event_id.as_str(),
                    ),
                    customer_id: award.customer_id.clone(),
                    points_awarded: total,
                    balance_after: available,
                    source_event_id: award.event_id.to_string(),
                    timestamp: now,
                },
                account.version,
            )?);
            messages.push(OutboxMessage::points_added(
                &PointsAdded {
                    user_id: award.customer_id.clone(),
                    total_points: current,
                    difference: total.get(),
                },
                account.version,
                now,
            )?);
            if programme.tiers().due(current, account.tier).is_some() {
                due.insert(award.customer_id.as_str());
            }
        }
        columns.versions.push(account.version);
        columns.available_after.push(account.available.get());
        columns.held_after.push(account.held.get());
        known.insert(event_key(award), hash);
        *posting = Some(Posting::Posted(total));
    }

    write_postings(conn, workflow_id, programme.version(), &columns).await?;
    write_accounts(conn, &accounts).await?;
    write_daily_awards(conn, &capped, &spent).await?;
    open_tier_orders(conn, &due.into_iter().collect::<Vec<_>>()).await?;
    outbox::write(conn, &messages).await?;
    Ok(postings.into_iter().flatten().collect())
}

type EventKey = (&'static str, String);

fn event_key(award: &Award) -> EventKey {
    (award.source.as_str(), award.event_id.to_string())
}

async fn known_events(
    conn: &mut PgConnection,
    awards: &[Award],
) -> Result<HashMap<EventKey, Vec<u8>>, Error> {
    let sources: Vec<&str> = awards.iter().map(|a| a.source.as_str()).collect();
    let ids: Vec<&str> = awards.iter().map(|a| a.event_id.as_str()).collect();
    let rows: Vec<(String, String, Vec<u8>)> = sqlx::query_as(
        "SELECT p.source, p.event_id, p.body_hash
         FROM (SELECT DISTINCT source, event_id
               FROM unnest($1::text[], $2::text[]) AS wanted (source, event_id)) AS wanted
         JOIN processed_events p USING (source, event_id)",
    )
    .bind(&sources)
    .bind(&ids)
    .fetch_all(conn)
    .await?;
    let kinds: HashMap<&str, &'static str> = awards
        .iter()
        .map(|a| (a.source.as_str(), a.source.as_str()))
        .collect();
    Ok(rows
        .into_iter()
        .filter_map(|(source, id, hash)| Some(((*kinds.get(source.as_str())?, id), hash)))
        .collect())
}

/// Opens missing accounts with zero, then locks all in the order of the customer id.
async fn lock_accounts(
    conn: &mut PgConnection,
    customers: &BTreeSet<&str>,
) -> Result<HashMap<String, Running>, Error> {
    let ids: Vec<&str> = customers.iter().copied().collect();
    sqlx::query(
        "INSERT INTO customers (customer_id)
         SELECT wanted FROM unnest($1::text[]) AS wanted
         WHERE NOT EXISTS (SELECT FROM customers WHERE customer_id = wanted)
         ORDER BY wanted
         ON CONFLICT DO NOTHING",
    )
    .bind(&ids)
    .execute(&mut *conn)
    .await?;
    let rows: Vec<(String, i64, i64, i64, i64, String)> = sqlx::query_as(
        "SELECT customer_id, available, held, lifetime_earned, version, tier FROM customers
         WHERE customer_id = ANY($1) ORDER BY customer_id FOR UPDATE",
    )
    .bind(&ids)
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|(id, available, held, lifetime, version, tier)| {
            Ok((
                id,
                Running {
                    available: points(available)?,
                    held: points(held)?,
                    lifetime_earned: points(lifetime)?,
                    version,
                    tier: TierName::try_from(tier)?.0,
                    touched: false,
                },
            ))
        })
        .collect()
}

type DailyKey = (String, String, NaiveDate);

async fn daily_awards(
    conn: &mut PgConnection,
    customers: &BTreeSet<&str>,
    days: &BTreeSet<NaiveDate>,
) -> Result<BTreeMap<DailyKey, Points>, Error> {
    let ids: Vec<&str> = customers.iter().copied().collect();
    let rows: Vec<(String, String, NaiveDate, i64)> = sqlx::query_as(
        "SELECT customer_id, rule, day, points FROM daily_awards
         WHERE customer_id = ANY($1) AND day = ANY($2)",
    )
    .bind(&ids)
    .bind(days.iter().copied().collect::<Vec<_>>())
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|(customer, rule, day, used)| Ok(((customer, rule, day), points(used)?)))
        .collect()
}

async fn write_postings(
    conn: &mut PgConnection,
    workflow_id: &str,
    rule_set_version: &str,
    columns: &Columns<'_>,
) -> Result<(), Error> {
    let written = sqlx::query(
        "INSERT INTO processed_events (source, event_id, body_hash, customer_id, points)
         SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bigint[])
         ON CONFLICT DO NOTHING",
    )
    .bind(&columns.sources)
    .bind(&columns.event_ids)
    .bind(&columns.hashes)
    .bind(&columns.customers)
    .bind(&columns.points)
    .execute(&mut *conn)
    .await?
    .rows_affected();
    if written != columns.sources.len() as u64 && !faultpoint::planted(bug::UNIQUE_KEY) {
        return Err(Error::Raced);
    }
    sqlx::query(
        "INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account,
                customer_id, amount, reason, workflow_id, rule_set_version, customer_version,
                available_after, held_after, occurred_at)
         SELECT source, event_id, 'award', 'ISSUANCE', 'AVAILABLE',
                customer, points, reason, $1, $2, version, available_after, held_after, occurred_at
         FROM unnest($3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::bigint[],
                     $9::bigint[], $10::bigint[], $11::timestamptz[]) WITH ORDINALITY
              AS t (source, event_id, customer, points, reason, version, available_after,
                    held_after, occurred_at, position)
         WHERE points > 0 ORDER BY position",
    )
    .bind(workflow_id)
    .bind(rule_set_version)
    .bind(&columns.sources)
    .bind(&columns.event_ids)
    .bind(&columns.customers)
    .bind(&columns.points)
    .bind(&columns.reasons)
    .bind(&columns.versions)
    .bind(&columns.available_after)
    .bind(&columns.held_after)
    .bind(&columns.occurred_at)
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_accounts(
    conn: &mut PgConnection,
    accounts: &HashMap<String, Running>,
) -> Result<(), Error> {
    let touched: Vec<(&String, &Running)> = accounts.iter().filter(|(_, a)| a.touched).collect();
    if touched.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE customers c
         SET available = n.available, lifetime_earned = n.lifetime, version = n.version,
             updated_at = clock_timestamp()
         FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[])
              AS n (customer_id, available, lifetime, version)
         WHERE c.customer_id = n.customer_id",
    )
    .bind(
        touched
            .iter()
            .map(|(id, _)| id.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        touched
            .iter()
            .map(|(_, a)| a.available.get())
            .collect::<Vec<_>>(),
    )
    .bind(
        touched
            .iter()
            .map(|(_, a)| a.lifetime_earned.get())
            .collect::<Vec<_>>(),
    )
    .bind(touched.iter().map(|(_, a)| a.version).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_daily_awards(
    conn: &mut PgConnection,
    capped: &BTreeSet<DailyKey>,
    spent: &BTreeMap<DailyKey, Points>,
) -> Result<(), Error> {
    if capped.is_empty() {
        return Ok(());
    }
    let used = |key: &DailyKey| spent.get(key).copied().unwrap_or_default().get();
    sqlx::query(
        "INSERT INTO daily_awards (customer_id, rule, day, points)
         SELECT * FROM unnest($1::text[], $2::text[], $3::date[], $4::bigint[])
         ON CONFLICT (customer_id, rule, day) DO UPDATE SET points = EXCLUDED.points",
    )
    .bind(capped.iter().map(|k| k.0.as_str()).collect::<Vec<_>>())
    .bind(capped.iter().map(|k| k.1.as_str()).collect::<Vec<_>>())
    .bind(capped.iter().map(|k| k.2).collect::<Vec<_>>())
    .bind(capped.iter().map(used).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// Opens an order to look at each customer's tier, unless one is open.
pub(crate) async fn open_tier_orders(
    conn: &mut PgConnection,
    customers: &[&str],
) -> Result<(), Error> {
    if customers.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO tier_orders (customer_id) SELECT * FROM unnest($1::text[])
         ON CONFLICT (customer_id) WHERE closed_at IS NULL DO NOTHING",
    )
    .bind(customers)
    .execute(conn)
    .await?;
    Ok(())
}
