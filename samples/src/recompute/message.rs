//! Reading a delivery by the contract of its topic, and what it is worth.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, Timelike as _, Utc};
use serde_json::value::RawValue;

use crate::feed::Delivery;

/// Values over this many bytes are not read at all.
const LARGEST_VALUE_BYTES: usize = 262_144;
/// The day after the sample ends; a timestamp later than this is in the future.
const FUTURE_FROM: &str = "2026-03-16T00:00:00Z";

/// A message that keeps its contract.
pub(super) struct Message {
    pub(super) kind: &'static str,
    pub(super) id: Option<String>,
    pub(super) customer: String,
    /// Everything else that makes two messages the same or not.
    pub(super) body: String,
    pub(super) effect: Effect,
}

/// What it does.
pub(super) enum Effect {
    Points(i64),
    Casino { points: i64, day: NaiveDate },
    Redeem { points: i64, merchant: String },
}

/// Reads a delivery by the contract of its topic; `None` is a message to ignore.
pub(super) fn read(delivery: &Delivery) -> Result<Option<Message>, &'static str> {
    if delivery.value.len() > LARGEST_VALUE_BYTES {
        return Err("PAYLOAD_TOO_LARGE");
    }
    let text = std::str::from_utf8(&delivery.value).map_err(|_| "MALFORMED_JSON")?;
    let root = Object::parse(text)?;
    let message = match delivery.topic.as_str() {
        "reward-events" => reward_event(&root)?,
        "orders" => order(&root)?,
        "orders.orderCompleted.v1" => completed(&cloud_event(delivery, root)?, "orderNumber")?,
        "orders.orderCompleted.v2" => completed(&cloud_event(delivery, root)?, "orderId")?,
        "users.userCreated.v1" => {
            let customer = cloud_event(delivery, root)?.id("userId")?;
            known_once("user-created", customer, 100)
        }
        "players" => match root.text("eventType")?.as_str() {
            "PLAYER_REGISTERED" => known_once("player-registered", root.player()?, 0),
            _ => return Ok(None),
        },
        "redeem-events" => redemption(&root)?,
        other => panic!("the programme has no inbound topic {other}"),
    };
    Ok(Some(message))
}

fn known_once(kind: &'static str, customer: String, points: i64) -> Message {
    Message {
        kind,
        id: Some(customer.clone()),
        customer,
        body: String::new(),
        effect: Effect::Points(points),
    }
}

fn reward_event(root: &Object) -> Result<Message, &'static str> {
    let id = root.id("eventId")?;
    let customer = root.id("customerId")?;
    let event_type = root.text("eventType")?;
    if !["HOTEL_STAY", "DINING", "CASINO_SPEND"].contains(&event_type.as_str()) {
        return Err("UNKNOWN_EVENT_TYPE");
    }
    let at = root.timestamp("timestamp")?;
    let payload = root.object("payload")?;
    let amount = payload.amount()?;
    let (effect, detail) = if event_type == "HOTEL_STAY" {
        let nights: i64 = payload.get("nights")?.parse().map_err(|_| "WRONG_TYPE")?;
        let suite = payload.optional_text("roomType")?;
        let points = nights * 100;
        let points = match suite.as_deref() {
            Some("SUITE") => points * 3 / 2,
            _ => points,
        };
        let detail = format!("{nights} {suite:?}");
        (Effect::Points(points.min(2000)), detail)
    } else {
        let spent = amount.as_ref().ok_or("MISSING_FIELD")?;
        if event_type == "DINING" {
            (Effect::Points(3 * spent.full(10)), String::new())
        } else {
            let evening = (18..22).contains(&at.hour());
            let points = spent.full(20) * if evening { 2 } else { 1 };
            let day = at.date_naive();
            (Effect::Casino { points, day }, String::new())
        }
    };
    Ok(Message {
        kind: "reward-event",
        id: Some(id),
        customer,
        body: format!("{event_type} {at} {amount:?} {detail}"),
        effect,
    })
}

fn order(root: &Object) -> Result<Message, &'static str> {
    let amount = root.amount()?.ok_or("MISSING_FIELD")?;
    Ok(Message {
        kind: "order",
        id: root
            .fields
            .get("orderId")
            .map(|_| root.id("orderId"))
            .transpose()?,
        customer: root.id("customerId")?,
        body: format!("{amount:?}"),
        effect: Effect::Points(amount.full(100)),
    })
}

fn completed(data: &Object, number: &str) -> Result<Message, &'static str> {
    Ok(Message {
        kind: "order-completed",
        id: Some(data.id(number)?),
        customer: data.id("userId")?,
        body: String::new(),
        effect: Effect::Points(50),
    })
}

fn redemption(root: &Object) -> Result<Message, &'static str> {
    let context = root.object("merchantContext")?;
    let merchant = context.id("merchantId")?;
    let order = context.id("orderId")?;
    root.timestamp("timestamp")?;
    let points = root.get("requestedPoints")?;
    if !points.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return Err("WRONG_TYPE");
    }
    let points = match points.parse() {
        Ok(points) if points > 0 => points,
        _ => return Err("INVALID_POINTS"),
    };
    Ok(Message {
        kind: "redeem",
        id: Some(root.id("redeemRequestId")?),
        customer: root.id("customerId")?,
        body: format!("{points} {merchant} {order}"),
        effect: Effect::Redeem { points, merchant },
    })
}

/// The data of a CloudEvent: the whole value in binary mode, a field in structured mode.
fn cloud_event(delivery: &Delivery, root: Object) -> Result<Object, &'static str> {
    if delivery.headers.contains_key("ce_specversion") {
        return Ok(root);
    }
    for attribute in ["specversion", "id", "source", "type"] {
        root.text(attribute)?;
    }
    root.object("data")
}

/// A JSON object whose values are kept as they were written, so that numbers stay exact.
struct Object {
    fields: HashMap<String, Box<RawValue>>,
}

impl Object {
    fn parse(text: &str) -> Result<Self, &'static str> {
        serde_json::from_str(text)
            .map(|fields| Self { fields })
            .map_err(|_| "MALFORMED_JSON")
    }

    fn get(&self, name: &str) -> Result<&str, &'static str> {
        self.fields
            .get(name)
            .map(|raw| raw.get())
            .ok_or("MISSING_FIELD")
    }

    fn object(&self, name: &str) -> Result<Self, &'static str> {
        Self::parse(self.get(name)?).map_err(|_| "WRONG_TYPE")
    }

    fn text(&self, name: &str) -> Result<String, &'static str> {
        serde_json::from_str(self.get(name)?).map_err(|_| "WRONG_TYPE")
    }

    fn optional_text(&self, name: &str) -> Result<Option<String>, &'static str> {
        if self.fields.contains_key(name) {
            self.text(name).map(Some)
        } else {
            Ok(None)
        }
    }

    fn id(&self, name: &str) -> Result<String, &'static str> {
        valid_id(self.text(name)?)
    }

    fn player(&self) -> Result<String, &'static str> {
        let raw = self.get("user_id")?;
        if raw.starts_with(|c: char| c.is_ascii_digit()) {
            valid_id(raw.to_owned())
        } else {
            self.id("user_id")
        }
    }

    fn timestamp(&self, name: &str) -> Result<DateTime<Utc>, &'static str> {
        let at = DateTime::parse_from_rfc3339(&self.text(name)?)
            .map_err(|_| "INVALID_TIMESTAMP")?
            .to_utc();
        if at.to_rfc3339().as_str() < FUTURE_FROM {
            Ok(at)
        } else {
            Err("TIMESTAMP_IN_FUTURE")
        }
    }

    /// `amount` with `currency`, or nothing; the currency is checked wherever it stands.
    fn amount(&self) -> Result<Option<Amount>, &'static str> {
        let currency = self.optional_text("currency")?;
        let (rate, rate_decimals) = match currency.as_deref().unwrap_or("USD") {
            "USD" => (1, 0),
            "EUR" => (108, 2),
            "GBP" => (127, 2),
            "JPY" => (67, 4),
            _ => return Err("UNKNOWN_CURRENCY"),
        };
        if !self.fields.contains_key("amount") {
            return Ok(None);
        }
        let raw = self.get("amount")?;
        if !raw.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
            return Err("WRONG_TYPE");
        }
        Amount::read(raw.trim_matches('"'), rate, rate_decimals).map(Some)
    }
}

fn valid_id(id: String) -> Result<String, &'static str> {
    if id.is_empty() || id.chars().count() > 128 || id.chars().any(char::is_control) {
        Err("INVALID_ID")
    } else {
        Ok(id)
    }
}

/// An exact amount: `mantissa` × 10^-`decimals` in some currency, at `rate` × 10^-`rate_decimals`.
#[derive(Debug)]
struct Amount {
    mantissa: i128,
    decimals: u32,
    rate: i128,
    rate_decimals: u32,
}

impl Amount {
    /// Reads `123.45` and `1.5e3` digit by digit and drops trailing zeros.
    fn read(text: &str, rate: i128, rate_decimals: u32) -> Result<Self, &'static str> {
        let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let fraction = fraction.trim_end_matches('0');
        let exponent: i32 = exponent.parse().map_err(|_| "INVALID_AMOUNT")?;
        let mut mantissa: i128 = format!("{whole}{fraction}")
            .parse()
            .map_err(|_| "INVALID_AMOUNT")?;
        let mut decimals = i32::try_from(fraction.len()).map_err(|_| "INVALID_AMOUNT")? - exponent;
        while decimals < 0 {
            mantissa = mantissa.checked_mul(10).ok_or("INVALID_AMOUNT")?;
            decimals += 1;
        }
        let decimals = decimals.unsigned_abs();
        let one = 10_i128.checked_pow(decimals).ok_or("INVALID_AMOUNT")?;
        if mantissa < 0 || mantissa / one >= 10_i128.pow(18) {
            return Err("INVALID_AMOUNT");
        }
        Ok(Self {
            mantissa,
            decimals,
            rate,
            rate_decimals,
        })
    }

    /// How many full units of `unit` this is worth in the programme's currency.
    fn full(&self, unit: i128) -> i64 {
        let one = 10_i128.pow(self.decimals + self.rate_decimals);
        i64::try_from(self.mantissa * self.rate / (one * unit))
            .expect("an amount of at most 18 digits fits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &str, (rate, rate_decimals): (i128, u32), unit: i128) -> Result<i64, &str> {
        Amount::read(text, rate, rate_decimals).map(|amount| amount.full(unit))
    }

    #[test]
    fn amounts_are_read_exactly() {
        assert_eq!(full("299.99", (1, 0), 100), Ok(2));
        assert_eq!(full("3e2", (1, 0), 100), Ok(3));
        assert_eq!(full("2.9999e2", (1, 0), 100), Ok(2));
        assert_eq!(full("92.60", (108, 2), 100), Ok(1), "100.008 in USD");
        assert_eq!(full("92.59", (108, 2), 100), Ok(0), "99.9972 in USD");
        assert_eq!(full("14926", (67, 4), 100), Ok(1), "100.0042 in USD");
        assert_eq!(full("14925", (67, 4), 100), Ok(0), "99.9975 in USD");
        assert_eq!(full("-0.01", (1, 0), 100), Err("INVALID_AMOUNT"));
        assert_eq!(
            full("999999999999999999", (1, 0), 1),
            Ok(999_999_999_999_999_999)
        );
        assert_eq!(
            full("1000000000000000000", (1, 0), 1),
            Err("INVALID_AMOUNT")
        );
        assert_eq!(full("1e400", (1, 0), 1), Err("INVALID_AMOUNT"));
    }
}
