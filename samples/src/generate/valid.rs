//! Messages that keep their contracts.

use rand::RngExt as _;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use super::body::{Body, quoted};
use super::customers::Customers;
use super::draft::{DAY_MS, DAY_START_MS, Damage, Draft, written_timestamp};

const EVENING_START_MS: i64 = DAY_START_MS + 18 * 3_600_000;
const EVENING_END_MS: i64 = DAY_START_MS + 22 * 3_600_000;

/// The largest value that is still read, in bytes.
const LARGEST_VALUE_BYTES: usize = 262_144;

/// All valid messages but redemptions.
pub(super) fn all(rng: &mut ChaCha8Rng, customers: &Customers, per_kind: usize) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for number in 0..per_kind {
        let customer = customers.pick(rng).to_owned();
        drafts.push(hotel_stay(rng, &customer, number));
        let customer = customers.pick(rng).to_owned();
        drafts.push(dining(rng, &customer, number));
        let customer = customers.pick(rng).to_owned();
        drafts.push(casino_spend(rng, &customer, number));
        let customer = customers.pick(rng).to_owned();
        drafts.push(order(rng, &customer, number));
    }
    completed_orders(rng, customers, per_kind, &mut drafts);
    users_and_players(rng, customers, per_kind, &mut drafts);
    edges(rng, customers, &mut drafts);
    for draft in &mut drafts {
        decorate(rng, draft);
    }
    drafts
}

/// Adds what a reader must put up with: unknown fields and a trace.
pub(super) fn decorate(rng: &mut ChaCha8Rng, draft: &mut Draft) {
    if rng.random_ratio(1, 7) {
        let (name, json) = [
            ("channel", "\"kiosk\""),
            ("schemaVersion", "3"),
            ("meta", r#"{"store":{"id":7,"open":true},"tags":["a","b"]}"#),
            ("remark", "null"),
        ]
        .choose(rng)
        .copied()
        .expect("there are choices");
        let path = draft.path(name);
        draft.body.set(&path, json);
    }
    if rng.random_ratio(1, 20) {
        let trace = format!(
            "00-{:032x}-{:016x}-01",
            rng.random::<u128>(),
            rng.random::<u64>()
        );
        draft.headers.insert("traceparent".to_owned(), trace);
    }
}

pub(super) fn hotel_stay(rng: &mut ChaCha8Rng, customer: &str, number: usize) -> Draft {
    let at = time_of_day(rng);
    let nights = if rng.random_ratio(1, 60) {
        rng.random_range(10..25)
    } else {
        *[1, 1, 1, 1, 2, 2, 3]
            .choose(rng)
            .expect("there are choices")
    };
    let mut payload = Body::default().raw("nights", &nights.to_string());
    if rng.random_bool(0.5) {
        let cents = nights * rng.random_range(8_000..30_000);
        let amount = amount(rng, cents);
        payload = with_currency(rng, payload.raw("amount", &amount));
    }
    if rng.random_bool(0.4) {
        let room = ["SUITE", "DOUBLE", "SINGLE"].choose(rng).copied();
        payload = payload.text("roomType", room.expect("there are choices"));
    }
    reward_event(
        rng,
        &format!("HS-{number:05}"),
        "HOTEL_STAY",
        customer,
        at,
        payload,
    )
}

pub(super) fn dining(rng: &mut ChaCha8Rng, customer: &str, number: usize) -> Draft {
    let at = time_of_day(rng);
    let payload = money(rng, 500..25_000);
    reward_event(
        rng,
        &format!("DN-{number:05}"),
        "DINING",
        customer,
        at,
        payload,
    )
}

pub(super) fn casino_spend(rng: &mut ChaCha8Rng, customer: &str, number: usize) -> Draft {
    let at = time_of_day(rng);
    casino_spend_at(rng, customer, &format!("CS-{number:05}"), at)
}

fn casino_spend_at(rng: &mut ChaCha8Rng, customer: &str, id: &str, at: i64) -> Draft {
    let mut payload = money(rng, 500..90_000);
    if rng.random_bool(0.6) {
        let game = ["ROULETTE", "BLACKJACK", "SLOTS"].choose(rng).copied();
        payload = payload.text("game", game.expect("there are choices"));
    }
    reward_event(rng, id, "CASINO_SPEND", customer, at, payload)
}

fn reward_event(
    rng: &mut ChaCha8Rng,
    id: &str,
    event_type: &str,
    customer: &str,
    at: i64,
    payload: Body,
) -> Draft {
    let body = Body::default()
        .text("eventId", id)
        .text("eventType", event_type)
        .text("customerId", customer)
        .text("timestamp", &written_timestamp(rng, at))
        .object("payload", payload);
    Draft::new("reward-events", customer, body, at)
}

pub(super) fn order(rng: &mut ChaCha8Rng, customer: &str, number: usize) -> Draft {
    // A till without order numbers sells small things, too small for a point: such an
    // order is known by its offset alone, and sending the file again must change nothing.
    let numbered = number % 25 != 24;
    let body = Body::default().text("customerId", customer);
    let body = if numbered {
        with_currency_first(rng, 1_000..60_000, body).text("orderId", &order_number(number))
    } else {
        let cents: i64 = rng.random_range(100..7_000);
        let amount = format!("\"{}.{:02}\"", cents / 100, cents % 100);
        with_currency(rng, body.raw("amount", &amount))
    };
    Draft::new("orders", customer, body, time_of_day(rng))
}

fn order_number(number: usize) -> String {
    format!("O-{:06}", 400_000 + number * 3)
}

/// Completed orders: two thirds of the numbers of a version come over the other one too.
fn completed_orders(
    rng: &mut ChaCha8Rng,
    customers: &Customers,
    per_kind: usize,
    drafts: &mut Vec<Draft>,
) {
    for number in 0..per_kind * 4 / 3 {
        let customer = customers.pick(rng).to_owned();
        let at = time_of_day(rng);
        if number % 4 != 0 {
            drafts.push(completed_order(rng, &customer, number, "orderNumber", at));
        }
        if number % 4 != 1 {
            drafts.push(completed_order(rng, &customer, number, "orderId", at));
        }
    }
}

pub(super) fn completed_order(
    rng: &mut ChaCha8Rng,
    customer: &str,
    number: usize,
    field: &str,
    at: i64,
) -> Draft {
    let topic = match field {
        "orderNumber" => "orders.orderCompleted.v1",
        _ => "orders.orderCompleted.v2",
    };
    let order = order_number(number);
    let body = Body::default().text("userId", customer).text(field, &order);
    let sent = at + rng.random_range(0..60_000);
    Draft::new(topic, customer, body, sent).cloud_event(rng, &order)
}

fn users_and_players(
    rng: &mut ChaCha8Rng,
    customers: &Customers,
    per_kind: usize,
    drafts: &mut Vec<Draft>,
) {
    let mut ids = customers.ids().to_vec();
    ids.shuffle(rng);
    for id in &ids[..per_kind] {
        drafts.push(user_created(rng, id));
    }
    ids.shuffle(rng);
    let (registered, others) = ids[..per_kind].split_at(per_kind * 3 / 4);
    for id in registered {
        drafts.push(player(rng, id, "PLAYER_REGISTERED"));
    }
    for id in others {
        let other = ["PLAYER_LOGGED_IN", "PLAYER_UPDATED", "DEPOSIT_MADE"]
            .choose(rng)
            .copied();
        drafts.push(player(rng, id, other.expect("there are choices")));
    }
}

pub(super) fn user_created(rng: &mut ChaCha8Rng, id: &str) -> Draft {
    let body = Body::default().text("userId", id);
    Draft::new("users.userCreated.v1", id, body, time_of_day(rng)).cloud_event(rng, id)
}

pub(super) fn player(rng: &mut ChaCha8Rng, id: &str, event_type: &str) -> Draft {
    // The same player is a number to some senders and a text to others.
    let numeric = id.bytes().all(|byte| byte.is_ascii_digit());
    let user_id = if numeric && rng.random_bool(0.6) {
        id.to_owned()
    } else {
        quoted(id)
    };
    let body = Body::default()
        .text("eventType", event_type)
        .raw("user_id", &user_id);
    Draft::new("players", id, body, time_of_day(rng))
}

/// Messages on the edge of a limit, just inside.
fn edges(rng: &mut ChaCha8Rng, customers: &Customers, drafts: &mut Vec<Draft>) {
    for (index, at) in [
        EVENING_START_MS - 1,
        EVENING_START_MS,
        EVENING_END_MS - 1,
        EVENING_END_MS,
        DAY_START_MS - 1,
        DAY_START_MS,
        DAY_START_MS - 7_200_000,
    ]
    .into_iter()
    .enumerate()
    {
        let customer = customers.pick(rng).to_owned();
        let mut draft = casino_spend_at(rng, &customer, &format!("CS-EDGE-{index}"), at);
        draft
            .body
            .set("timestamp", &quoted(&super::draft::rfc3339(at)));
        drafts.push(draft);
    }
    for (index, amount) in [
        "0",
        "\"0.00\"",
        "1e3",
        "2.5E2",
        "\"99.99\"",
        "100",
        "999999999999.999999",
    ]
    .into_iter()
    .enumerate()
    {
        let mut draft = order(
            rng,
            &customers.ids()[customers.ids().len() * 2 / 3 + index],
            900_000 + index * 25,
        );
        draft.body.remove("currency");
        draft.body.set("amount", amount);
        if index == 6 {
            // Exact to the last digit and far too much for one customer: the currency is yen.
            draft.body.set("amount", "9999.999999999");
            draft.body.set("currency", "\"JPY\"");
        }
        drafts.push(draft);
    }
    let customer = customers.pick(rng).to_owned();
    let mut long_id = dining(rng, &customer, 0);
    long_id.body.set("eventId", &quoted(&"L".repeat(128)));
    drafts.push(long_id);
    let mut large = dining(rng, &customer, 90_000);
    large.damage = Damage::FilledTo(LARGEST_VALUE_BYTES);
    drafts.push(large);
}

/// A moment of the day, busier towards the evening; a few events are from the day before.
pub(super) fn time_of_day(rng: &mut ChaCha8Rng) -> i64 {
    let at = rng.random_range(0..DAY_MS).max(rng.random_range(0..DAY_MS));
    if rng.random_ratio(1, 100) {
        DAY_START_MS - at / 8 - 1
    } else {
        DAY_START_MS + at
    }
}

fn money(rng: &mut ChaCha8Rng, cents: std::ops::Range<i64>) -> Body {
    with_currency_first(rng, cents, Body::default())
}

fn with_currency_first(rng: &mut ChaCha8Rng, cents: std::ops::Range<i64>, body: Body) -> Body {
    let cents = rng.random_range(cents);
    if rng.random_ratio(1, 12) {
        let yen = (cents * 3 / 2).to_string();
        return body.raw("amount", &yen).text("currency", "JPY");
    }
    let body = body.raw("amount", &amount(rng, cents));
    with_currency(rng, body)
}

fn with_currency(rng: &mut ChaCha8Rng, body: Body) -> Body {
    match rng.random_range(0..10) {
        0..4 => body,
        4..7 => body.text("currency", "USD"),
        7..9 => body.text("currency", "EUR"),
        _ => body.text("currency", "GBP"),
    }
}

/// An amount of cents in one of the ways JSON allows: text or number, plain or with an exponent.
fn amount(rng: &mut ChaCha8Rng, cents: i64) -> String {
    match rng.random_range(0..12) {
        0 => format!("{}", cents / 100),
        1 => format!("{}e2", cents / 10_000 + 1),
        2 => format!("{}.{}e1", cents / 1_000, cents / 100 % 10),
        3 => format!("{}.{:02}0", cents / 100, cents % 100),
        4..8 => format!("\"{}.{:02}\"", cents / 100, cents % 100),
        _ => format!("{}.{:02}", cents / 100, cents % 100),
    }
}
