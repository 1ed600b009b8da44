//! Kafka events against ledger: which messages have had their effect.

use sqlx::PgPool;

use crate::Error;

/// The effect that a message must have had, unless it went to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A processed event that says the same.
    Event {
        /// The kind of command.
        source: &'static str,
        /// The event's id.
        event_id: String,
        /// The hash of what it says.
        body_hash: Vec<u8>,
    },
    /// A redemption that says the same.
    Redemption {
        /// Its id.
        redeem_request_id: String,
        /// The hash of what it says.
        body_hash: Vec<u8>,
    },
    /// A notification that says the same.
    Notification {
        /// Its identity.
        identity: String,
        /// The hash of what it says.
        body_hash: Vec<u8>,
    },
    /// None but a dead letter: it breaks its contract.
    DeadLetter,
}

/// A message and the effect it must have had.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The effect.
    pub effect: Effect,
    /// The identity of the dead letter that it would have.
    pub letter_id: String,
}

/// Which of these messages have had their effect, one answer for each, in order.
///
/// # Errors
/// What the database reports.
pub async fn have_had_effect(pool: &PgPool, expected: &[Expected]) -> Result<Vec<bool>, Error> {
    let mut had = vec![false; expected.len()];
    let mut events = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut redemptions = (Vec::new(), Vec::new(), Vec::new());
    let mut notifications = (Vec::new(), Vec::new(), Vec::new());
    for (place, expected) in (0_i32..).zip(expected) {
        match &expected.effect {
            Effect::Event {
                source,
                event_id,
                body_hash,
            } => {
                events.0.push(*source);
                events.1.push(event_id.as_str());
                events.2.push(body_hash.as_slice());
                events.3.push(place);
            }
            Effect::Redemption {
                redeem_request_id,
                body_hash,
            } => {
                redemptions.0.push(redeem_request_id.as_str());
                redemptions.1.push(body_hash.as_slice());
                redemptions.2.push(place);
            }
            Effect::Notification {
                identity,
                body_hash,
            } => {
                notifications.0.push(identity.as_str());
                notifications.1.push(body_hash.as_slice());
                notifications.2.push(place);
            }
            Effect::DeadLetter => {}
        }
    }
    let processed: Vec<(i32,)> = sqlx::query_as(
        "SELECT place FROM unnest($1::text[], $2::text[], $3::bytea[], $4::int[])
                           AS w (source, event_id, body_hash, place)
         JOIN processed_events p USING (source, event_id, body_hash)",
    )
    .bind(&events.0)
    .bind(&events.1)
    .bind(&events.2)
    .bind(&events.3)
    .fetch_all(pool)
    .await?;
    let accepted: Vec<(i32,)> = sqlx::query_as(
        "SELECT place FROM unnest($1::text[], $2::bytea[], $3::int[])
                           AS w (redeem_request_id, body_hash, place)
         JOIN redemptions r USING (redeem_request_id, body_hash)",
    )
    .bind(&redemptions.0)
    .bind(&redemptions.1)
    .bind(&redemptions.2)
    .fetch_all(pool)
    .await?;
    let stored: Vec<(i32,)> = sqlx::query_as(
        "SELECT place FROM unnest($1::text[], $2::bytea[], $3::int[])
                           AS w (identity, body_hash, place)
         JOIN notifications n USING (identity, body_hash)",
    )
    .bind(&notifications.0)
    .bind(&notifications.1)
    .bind(&notifications.2)
    .fetch_all(pool)
    .await?;
    mark(
        &mut had,
        processed.into_iter().chain(accepted).chain(stored),
    );
    let (places, letters): (Vec<i32>, Vec<&str>) = (0_i32..)
        .zip(expected)
        .zip(&had)
        .filter(|(_, had)| !**had)
        .map(|((place, expected), _)| (place, expected.letter_id.as_str()))
        .unzip();
    if letters.is_empty() {
        return Ok(had);
    }
    let refused: Vec<(i32,)> = sqlx::query_as(
        "SELECT place FROM unnest($1::int[], $2::text[]) AS w (place, letter_id)
         JOIN dead_letters USING (letter_id)",
    )
    .bind(places)
    .bind(letters)
    .fetch_all(pool)
    .await?;
    mark(&mut had, refused);
    Ok(had)
}

fn mark(had: &mut [bool], places: impl IntoIterator<Item = (i32,)>) {
    for (place,) in places {
        if let Some(had) = usize::try_from(place).ok().and_then(|p| had.get_mut(p)) {
            *had = true;
        }
    }
}
