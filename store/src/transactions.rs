//! Credits and debits of other services, once for each id.

use domain::{
    Points, Programme, TransactionId,
    programme::BonusError,
    transaction::{Direction, Transaction},
};
use sqlx::PgConnection;

use crate::{
    Error,
    ledger::points,
    posting::{self, Posting, Unbearable},
};

/// The ledger source of transactions.
pub const SOURCE: &str = "transaction";

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Booked {
    /// It is posted.
    New(Booking),
    /// The same one was posted before.
    Same(Booking),
    /// The id was used for something else.
    Conflict,
    /// The amount is no points, or too many.
    NoPoints(BonusError),
    /// The account cannot hold that many points.
    TooMany,
    /// The customer has fewer points to spend than are to be taken: so many.
    NotEnough(Points),
    /// There is no account to take points from.
    NoAccount,
}

/// A transaction that was posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Booking {
    /// How many points it moved.
    pub points: Points,
    /// Points that could be spent after it.
    pub available_after: Points,
}

/// Posts a transaction, its transfer and word of the new total. Runs in the caller's transaction,
/// beside the audit record; unless the answer is [`Booked::New`] nothing was written that counts.
///
/// # Errors
/// [`Error::Raced`] when the same id came first by another transaction: roll back and repeat.
/// Otherwise what the database reports.
pub async fn book(
    conn: &mut PgConnection,
    transaction: &Transaction,
    programme: &Programme,
) -> Result<Booked, Error> {
    let Transaction {
        transaction_id,
        customer_id,
        direction,
        amount,
        description,
        additional_data,
    } = transaction;
    let hash = transaction.body_hash();
    if let Some(before) = before(conn, transaction_id, &hash).await? {
        return Ok(before);
    }
    let moved = match programme.bonus(*amount, None) {
        Ok(moved) => moved,
        Err(error) => return Ok(Booked::NoPoints(error)),
    };
    if *direction == Direction::Credit {
        posting::open(conn, customer_id).await?;
    }
    let Some(account) = posting::lock(conn, customer_id).await? else {
        return Ok(Booked::NoAccount);
    };
    // One with this id may have been posted while this one waited for the account.
    if let Some(before) = before(conn, transaction_id, &hash).await? {
        return Ok(before);
    }
    let available_after = match account.after(*direction, moved) {
        Ok(available_after) => available_after,
        Err(Unbearable::NotEnough(available)) => return Ok(Booked::NotEnough(available)),
        Err(Unbearable::TooMany) => return Ok(Booked::TooMany),
    };
    // Of two with one id, the second waits here until the first has been committed.
    let new = sqlx::query(
        "INSERT INTO transactions (transaction_id, body_hash, customer_id, direction, amount,
                points, available_after, description, additional_data)
         VALUES ($1, $2, $3, $4, $5::text::numeric, $6, $7, $8, $9)
         ON CONFLICT DO NOTHING",
    )
    .bind(transaction_id.as_str())
    .bind(hash.as_slice())
    .bind(customer_id.as_str())
    .bind(direction.as_str())
    .bind(amount.to_string())
    .bind(moved.get())
    .bind(available_after.get())
    .bind(description)
    .bind(sqlx::types::Json(additional_data))
    .execute(&mut *conn)
    .await?
    .rows_affected();
    if new == 0 {
        return Err(Error::Raced);
    }
    let posting = Posting {
        source: SOURCE,
        event_id: transaction_id.as_str(),
        leg: match direction {
            Direction::Credit => "credit",
            Direction::Debit => "debit",
        },
        customer: customer_id,
        direction: *direction,
        points: moved,
        reason: direction.as_str(),
        workflow_id: "",
        rule_set_version: programme.version(),
    };
    posting::write(conn, &account, &posting, programme.tiers()).await?;
    Ok(Booked::New(Booking {
        points: moved,
        available_after,
    }))
}

/// What a transaction of this id was, if there was one.
async fn before(
    conn: &mut PgConnection,
    transaction_id: &TransactionId,
    hash: &[u8; 32],
) -> Result<Option<Booked>, Error> {
    let row: Option<(Vec<u8>, i64, i64)> = sqlx::query_as(
        "SELECT body_hash, points, available_after FROM transactions WHERE transaction_id = $1",
    )
    .bind(transaction_id.as_str())
    .fetch_optional(conn)
    .await?;
    row.map(|(known, moved, available_after)| {
        if known != hash {
            return Ok(Booked::Conflict);
        }
        Ok(Booked::Same(Booking {
            points: points(moved)?,
            available_after: points(available_after)?,
        }))
    })
    .transpose()
}
