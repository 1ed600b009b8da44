//! Requests over HTTP: an answer says what then is.

use std::collections::{BTreeSet, HashMap};

use super::Property;
use super::events::Expected;
use crate::load::{Answer, Asked};
use crate::observe::{Observed, Redemption};

/// Each definite answer of the api agrees with the rows, and each row with an answer or message.
pub(super) fn answered(observed: &Observed, expected: &Expected) -> Property {
    let mut property = Property::new(
        "requests are answered",
        "every accepted request is a redemption, every refused one is none, repeated ones are the same",
    );
    let rows: HashMap<&str, &Redemption> = observed
        .redemptions
        .iter()
        .map(|row| (&*row.redeem_request_id, row))
        .collect();
    let mut accepted: BTreeSet<&str> = expected.redemptions.iter().map(String::as_str).collect();
    for id in &expected.redemptions {
        property.expect(rows.contains_key(&**id), || {
            format!("{id} came through Kafka and is no redemption")
        });
    }
    for answer in &observed.answers {
        let row = rows.get(&*answer.id).copied();
        let status = answer.status.unwrap_or(0);
        let code = answer.code.as_deref().unwrap_or("");
        let is_right = match (answer.asked, status) {
            (Asked::Redeem | Asked::Repeat | Asked::OtherKey, 202) => {
                accepted.insert(&answer.id);
                row.is_some() && answer.named.as_deref() == Some(&*answer.id)
            }
            (Asked::Redeem, 409) => code == "INSUFFICIENT_POINTS" && row.is_none(),
            (Asked::SameKeyOtherBody, 422) | (Asked::Broken, 400) => true,
            (Asked::Conflict, 409) => code == "CONFLICTING_REQUEST",
            (Asked::Cancel, 202) => row.is_some(),
            (Asked::Cancel, 409) => row.is_some_and(is_final),
            // Nobody knows what became of it: the row, if there is one, is judged like any other.
            (_, 0) => {
                accepted.insert(&answer.id);
                true
            }
            _ => false,
        };
        property.expect(is_right, || words(answer, row));
    }
    for row in &observed.redemptions {
        property.expect(accepted.contains(&*row.redeem_request_id), || {
            format!(
                "{} is a redemption that nobody was told of",
                row.redeem_request_id
            )
        });
    }
    let unknown = observed.answers.iter().filter(|a| a.status.is_none());
    property.listed = unknown
        .map(|answer| format!("{:?} {} was never answered", answer.asked, answer.id))
        .collect();
    property
}

pub(super) fn is_final(row: &Redemption) -> bool {
    row.state == "SUCCESS" || row.state == "FAILED"
}

fn words(answer: &Answer, row: Option<&Redemption>) -> String {
    format!(
        "{:?} {} was answered {:?} {} after {} attempts, and the row says {:?}",
        answer.asked,
        answer.id,
        answer.status,
        answer.code.as_deref().unwrap_or(""),
        answer.attempts,
        row.map(|row| &row.state),
    )
}
