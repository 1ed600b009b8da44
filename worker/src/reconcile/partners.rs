//! Partner book against redemptions: what merchants say of redemptions that have ended.
//!
//! Points and goods are in other hands by then, so nothing is moved here: what does not agree is
//! reported with the command that would put it right. One thing is safe: a merchant that still has
//! a redemption as undecided, of which the points have gone back, is asked to void it.

use std::{collections::BTreeMap, time::Duration};

use activities::partner::Said;
use chrono::{DateTime, Utc};
use domain::{Comparison, MerchantId, redemption::RedemptionState};
use serde::{Deserialize, Serialize};
use store::{
    adjustments,
    reconcile::{
        findings::{self, Found},
        marks,
        partners::{self, Ended},
    },
};

use super::{
    Steps,
    work::{Trouble, Work},
};

const DELIVERED: &str = "DELIVERED_WITHOUT_POINTS";
const NOT_DELIVERED: &str = "POINTS_WITHOUT_DELIVERY";
const UNDECIDED: &str = "UNDECIDED_AFTER_THE_END";
const LATE: &str = "LATE_ANSWER";
/// What ended more recently may still be on its way through.
const YOUNG: chrono::Duration = chrono::Duration::seconds(5);
/// How much before the mark is looked at again: longer than any transaction.
const OVERLAP: chrono::Duration = chrono::Duration::minutes(1);
/// How many redemptions are read together.
const AT_A_TIME: i64 = 200;
/// After how many questions in a row without an answer a merchant is left for the next time.
const GIVE_UP_AFTER: u32 = 3;

/// Per merchant, the last redemption that was looked at.
type Cursor = BTreeMap<String, Place>;

/// A redemption's place in the order of their ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    ended_at: DateTime<Utc>,
    id: String,
}

/// Looks at every merchant's redemptions since the last time, and at open findings again.
pub async fn compare(steps: &Steps, work: &mut Work) -> Result<(), Trouble> {
    let mut asking = Pace::new(steps.partner_requests_per_second);
    if work.cursor::<Cursor>().is_none() {
        late_answers(work).await?;
        again(steps, work, &mut asking).await?;
    }
    let mut cursor: Cursor = work.cursor().unwrap_or_default();
    for merchant in &steps.merchants {
        compare_merchant(steps, work, &mut cursor, merchant, &mut asking).await?;
    }
    let kinds = [DELIVERED, NOT_DELIVERED, UNDECIDED, LATE];
    let started_at = work.input.started_at;
    findings::end_unseen(&work.pool, Comparison::Partners, &kinds, started_at, None).await?;
    Ok(())
}

/// Merchants serve customers first: so many questions a second.
struct Pace(tokio::time::Interval);

impl Pace {
    fn new(per_second: u32) -> Self {
        let every = Duration::from_secs(1) / per_second.max(1);
        let mut interval = tokio::time::interval(every);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self(interval)
    }
}

async fn compare_merchant(
    steps: &Steps,
    work: &mut Work,
    cursor: &mut Cursor,
    merchant: &MerchantId,
    asking: &mut Pace,
) -> Result<(), Trouble> {
    let pool = work.pool.clone();
    let until = work.input.started_at - YOUNG;
    let mark = marks::reached(&pool, Comparison::Partners, merchant.as_str()).await?;
    let usual = mark.map_or(DateTime::UNIX_EPOCH, |mark| mark - OVERLAP);
    let begin = work.input.since.unwrap_or(usual);
    let first = Place {
        ended_at: DateTime::UNIX_EPOCH,
        id: String::new(),
    };
    let mut place = cursor.get(merchant.as_str()).cloned().unwrap_or(first);
    let mut silent = 0;
    let mut passed_over = false;
    loop {
        let after = (place.ended_at, place.id.clone());
        let page = partners::ended_in(&pool, merchant, begin, until, &after, AT_A_TIME).await?;
        let Some(last) = page.last() else { break };
        place = Place {
            ended_at: last.ended_at,
            id: last.redeem_request_id.to_string(),
        };
        for ended in &page {
            if silent >= GIVE_UP_AFTER {
                work.not_compared(1);
                passed_over = true;
            } else if compare_one(steps, work, ended, asking).await? {
                silent = 0;
            } else {
                silent += 1;
                passed_over = true;
            }
        }
        cursor.insert(merchant.to_string(), place.clone());
        work.reached(cursor);
    }
    // What was passed over is asked for the next time.
    if work.input.repair && !passed_over && begin <= mark.unwrap_or(begin) {
        marks::set_reached(&pool, Comparison::Partners, merchant.as_str(), until).await?;
    }
    Ok(())
}

/// Whether the merchant gave an answer.
async fn compare_one(
    steps: &Steps,
    work: &mut Work,
    ended: &Ended,
    asking: &mut Pace,
) -> Result<bool, Trouble> {
    asking.0.tick().await;
    let status = steps
        .partners
        .status(&ended.merchant_id, &ended.redeem_request_id)
        .await;
    let Ok(said) = status else {
        work.not_compared(1);
        return Ok(false);
    };
    match judge(ended, &said) {
        Judgement::Agrees => work.looked_at(1, 1),
        Judgement::Unclear => {
            work.not_compared(1);
            return Ok(false);
        }
        Judgement::Found(kind) => {
            if adjustments::exists(&work.pool, &adjustment_id(ended)).await? {
                work.looked_at(1, 1);
                return Ok(true);
            }
            work.looked_at(1, 0);
            let found = found(kind, ended, &in_words(&said));
            if kind == UNDECIDED && work.input.repair {
                let voided = steps
                    .partners
                    .void(&ended.merchant_id, &ended.redeem_request_id)
                    .await;
                match voided {
                    Ok(Said::Voided) => work.repaired(&found).await?,
                    Ok(Said::Confirmed { .. }) => {
                        let said = "CONFIRMED, and that it cannot be undone";
                        work.found(&self::found(DELIVERED, ended, said)).await?;
                    }
                    _ => work.found(&found).await?,
                }
            } else {
                work.found(&found).await?;
            }
        }
    }
    Ok(true)
}

/// What a merchant's word means beside how the redemption ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Agrees,
    /// The answer is none of the protocol's.
    Unclear,
    Found(&'static str),
}

/// SUCCESS wants CONFIRMED: after anything else, also after "nothing is booked", the customer has
/// paid for nothing. FAILED wants that nothing is delivered: REFUSED, VOIDED, or nothing booked,
/// which it is where the merchant was never asked, has refused before booking, or has forgotten
/// a void.
fn judge(ended: &Ended, said: &Said) -> Judgement {
    let succeeded = ended.state == RedemptionState::Success;
    match said {
        Said::Unknown { status } if *status != 404 => Judgement::Unclear,
        Said::Confirmed { .. } if succeeded => Judgement::Agrees,
        _ if succeeded => Judgement::Found(NOT_DELIVERED),
        Said::Confirmed { .. } => Judgement::Found(DELIVERED),
        Said::Pending => Judgement::Found(UNDECIDED),
        Said::Refused { .. } | Said::Voided | Said::Unknown { .. } => Judgement::Agrees,
    }
}

fn in_words(said: &Said) -> String {
    match said {
        Said::Confirmed { .. } => "CONFIRMED".to_owned(),
        Said::Pending => "PENDING".to_owned(),
        Said::Refused { .. } => "REFUSED".to_owned(),
        Said::Voided => "VOIDED".to_owned(),
        Said::Unknown { status } => format!("{status}, nothing is booked"),
    }
}

/// The adjustment that puts a redemption right.
fn adjustment_id(ended: &Ended) -> String {
    format!("redemption-{}", ended.redeem_request_id)
}

fn found(kind: &'static str, ended: &Ended, said: &str) -> Found {
    let Ended {
        redeem_request_id: id,
        customer_id: customer,
        merchant_id: merchant,
        points,
        state,
        ..
    } = ended;
    let adjust = |sign: char, why: &str| {
        format!(
            "meed adjust --customer {customer} --points {sign}{points} --id {} --reason \"{why}\"",
            adjustment_id(ended)
        )
    };
    let (what, fix) = match kind {
        NOT_DELIVERED => (
            "the customer has paid for nothing",
            adjust('+', &format!("{merchant} did not deliver")),
        ),
        UNDECIDED => (
            "it may still deliver without points",
            "meed reconcile --repair".to_owned(),
        ),
        _ => (
            "the customer has the goods and the points",
            adjust('-', &format!("{merchant} did deliver")),
        ),
    };
    Found {
        comparison: Comparison::Partners,
        kind,
        subject: id.to_string(),
        detail: format!(
            "redemption {id} of {points} points ended {state}, and {merchant} says {said}: {what}"
        ),
        fix,
        happened_at: Some(ended.ended_at),
        evidence: serde_json::json!({}),
    }
}

/// What merchants said after the end, against how it ended.
async fn late_answers(work: &mut Work) -> Result<(), Trouble> {
    for (ended, said) in partners::late_answers(&work.pool).await? {
        let settled = adjustments::exists(&work.pool, &adjustment_id(&ended)).await?;
        work.looked_at(1, usize::from(settled));
        if settled {
            continue;
        }
        let kind = if ended.state == RedemptionState::Success {
            NOT_DELIVERED
        } else {
            DELIVERED
        };
        let said = format!("{said} in a callback that came afterwards");
        let found = found(kind, &ended, &said);
        work.found(&Found {
            kind: LATE,
            ..found
        })
        .await?;
    }
    Ok(())
}

/// Asks again about what is open: the window has moved on.
async fn again(steps: &Steps, work: &mut Work, asking: &mut Pace) -> Result<(), Trouble> {
    for finding in findings::open(&work.pool, Some(Comparison::Partners)).await? {
        if finding.kind == LATE {
            continue;
        }
        let answered = match partners::one(&work.pool, &finding.subject).await? {
            Some(ended) => compare_one(steps, work, &ended, asking).await?,
            None => false,
        };
        if !answered {
            let started_at = work.input.started_at;
            findings::keep(&work.pool, finding.finding_id, started_at).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use domain::{CustomerId, Points, RedeemRequestId};

    use super::*;

    fn ended(state: RedemptionState) -> Ended {
        Ended {
            redeem_request_id: RedeemRequestId::new("R1").expect("an id"),
            customer_id: CustomerId::new("C1").expect("an id"),
            merchant_id: MerchantId::new("M1").expect("an id"),
            points: Points::new(250).expect("points"),
            state,
            verdict: None,
            ended_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn every_word_of_a_merchant_beside_every_end() {
        use RedemptionState::{Failed, Success};
        let confirmed = Said::Confirmed {
            confirmation_id: None,
        };
        let refused = Said::Refused { reason: None };
        let not_found = Said::Unknown { status: 404 };
        let strange = Said::Unknown { status: 401 };
        for (state, said, expected) in [
            (Success, &confirmed, Judgement::Agrees),
            (Success, &refused, Judgement::Found(NOT_DELIVERED)),
            (Success, &Said::Voided, Judgement::Found(NOT_DELIVERED)),
            (Success, &Said::Pending, Judgement::Found(NOT_DELIVERED)),
            (Success, &not_found, Judgement::Found(NOT_DELIVERED)),
            (Success, &strange, Judgement::Unclear),
            (Failed, &confirmed, Judgement::Found(DELIVERED)),
            (Failed, &refused, Judgement::Agrees),
            (Failed, &Said::Voided, Judgement::Agrees),
            (Failed, &Said::Pending, Judgement::Found(UNDECIDED)),
            (Failed, &not_found, Judgement::Agrees),
            (Failed, &strange, Judgement::Unclear),
        ] {
            assert_eq!(judge(&ended(state), said), expected, "{state} {said:?}");
        }
    }

    #[test]
    fn a_finding_has_the_command_that_puts_it_right() {
        let found = found(DELIVERED, &ended(RedemptionState::Failed), "CONFIRMED");
        assert_eq!(
            found.fix,
            "meed adjust --customer C1 --points -250 --id redemption-R1 --reason \"M1 did deliver\""
        );
    }
}
