use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::{
    Amount, Currency, CustomerId, EventType, Fact, Notification, Number, Points, RefusalClass,
    SourceKind,
};

type Headers = Vec<(String, Vec<u8>)>;

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text)
        .expect("a timestamp")
        .to_utc()
}

fn now() -> DateTime<Utc> {
    at("2026-03-15T00:00:00Z")
}

fn kafka_time() -> DateTime<Utc> {
    at("2026-03-14T09:00:00Z")
}

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect()
}

fn message<'a>(topic: &'a str, headers: &'a Headers, value: &'a [u8]) -> Message<'a> {
    Message {
        topic,
        partition: 2,
        offset: 17,
        key: None,
        headers,
        value: Some(value),
        timestamp: kafka_time(),
    }
}

fn read_in(topic: &str, pairs: &[(&str, &str)], value: &str) -> Result<Option<Command>, Refusal> {
    read(&message(topic, &headers(pairs), value.as_bytes()), now())
}

fn award_in(topic: &str, pairs: &[(&str, &str)], value: &str) -> Award {
    match read_in(topic, pairs, value) {
        Ok(Some(Command::Award(award))) => award,
        other => panic!("{value} in {topic} is read as {other:?}"),
    }
}

fn refusal_in(topic: &str, pairs: &[(&str, &str)], value: &str) -> Refusal {
    match read_in(topic, pairs, value) {
        Err(refusal) => refusal,
        Ok(command) => panic!("{value} in {topic} is read as {command:?}"),
    }
}

const DINING: &str = r#"{"eventId":"e-1","eventType":"DINING","customerId":"c-1","timestamp":"2026-03-14T12:00:00Z","payload":{"amount":"42.50","currency":"EUR","table":7,"terrace":true,"menu":"LUNCH","guests":[1,2]}}"#;
const STAY: &str = r#"{"eventId":"e-2","eventType":"HOTEL_STAY","customerId":"c-1","timestamp":"2026-03-14T12:00:00Z","payload":{"nights":3,"roomType":"SUITE"}}"#;
const REDEEM: &str = r#"{"redeemRequestId":"r-1","customerId":"c-1","requestedPoints":100,"merchantContext":{"merchantId":"M1","orderId":"o-1"},"timestamp":"2026-03-14T12:00:00Z"}"#;
const NOTIFICATION: &str =
    r#"{"user_id":"c-1","eventType":"PROMOTION","content":{"title":"Welcome","amount":50.00}}"#;
const ORDER: &str = r#"{"customerId":"c-1","amount":299.99,"currency":"GBP","orderId":"o-7"}"#;
const STRUCTURED: [(&str, &str); 1] = [(
    "content-type",
    "application/cloudevents+json; charset=utf-8",
)];
const ENVELOPE: &str = r#"{"specversion":"1.0","id":"x-1","source":"/shop","type":"users.userCreated.v1","data":{"userId":"c-9"}}"#;

fn binary(kind: &str) -> Vec<(&str, &str)> {
    vec![
        ("ce_specversion", "1.0"),
        ("ce_id", "x-1"),
        ("ce_source", "/shop"),
        ("ce_type", kind),
        ("content-type", "application/json"),
    ]
}

#[test]
fn a_partners_event_becomes_an_award() {
    let award = award_in(topic::REWARD_EVENTS, &[], DINING);
    assert_eq!(award.source, SourceKind::RewardEvent);
    assert_eq!(award.event_id.as_str(), "e-1");
    assert_eq!(award.customer_id.as_str(), "c-1");
    assert_eq!(award.event_type, EventType::Dining);
    assert_eq!(award.occurred_at, at("2026-03-14T12:00:00Z"));
    assert_eq!(award.facts.amount, Amount::parse("42.5").ok());
    assert_eq!(award.facts.currency, Currency::parse("EUR"));
    assert_eq!(award.facts.nights, None);
    let fields: Vec<_> = award.facts.fields.into_iter().collect();
    assert_eq!(
        fields,
        [
            ("menu".to_owned(), Fact::Text("LUNCH".to_owned())),
            ("table".to_owned(), Fact::Number(Number::from(7))),
            ("terrace".to_owned(), Fact::Flag(true)),
        ]
    );

    let stay = award_in(topic::REWARD_EVENTS, &[], STAY);
    assert_eq!(
        (stay.event_type, stay.facts.nights, stay.facts.amount),
        (EventType::HotelStay, Some(3), None)
    );
    assert_eq!(
        stay.day(),
        chrono::NaiveDate::from_ymd_opt(2026, 3, 14).expect("a day")
    );
    assert_eq!(
        read_event(STAY.as_bytes(), now()),
        Ok(stay),
        "the same over HTTP"
    );
}

#[test]
fn an_order_without_a_number_is_known_by_its_place() {
    let order = award_in(topic::ORDERS, &[], ORDER);
    assert_eq!(
        (order.source, order.event_type),
        (SourceKind::Order, EventType::Order)
    );
    assert_eq!(
        (order.event_id.as_str(), order.occurred_at),
        ("o-7", kafka_time())
    );
    assert_eq!(order.facts.amount, Amount::parse("299.99").ok());

    let nameless = r#"{"customerId":"c-1","amount":1e3,"orderId":null}"#;
    let order = award_in(topic::ORDERS, &[], nameless);
    assert_eq!(order.event_id.as_str(), "orders-2-17");
    assert_eq!(order.facts.amount, Amount::parse("1000").ok());

    let mut replay = vec![
        (header::REPLAY, "true"),
        (header::DLQ_TOPIC, "orders"),
        (header::DLQ_PARTITION, "5"),
        (header::DLQ_OFFSET, "12345"),
        (header::DLQ_TIMESTAMP, "1773403200000"),
    ];
    let order = award_in(topic::ORDERS, &replay, nameless);
    assert_eq!(order.event_id.as_str(), "orders-5-12345");
    assert_eq!(order.occurred_at, at("2026-03-13T12:00:00Z"));
    replay[4].1 = "2026-03-13T12:00:00Z";
    assert_eq!(award_in(topic::ORDERS, &replay, nameless), order);
    assert_eq!(
        award_in(topic::ORDERS, &replay[1..], nameless)
            .event_id
            .as_str(),
        "orders-2-17",
        "no replay"
    );
    replay.remove(3);
    assert_eq!(
        refusal_in(topic::ORDERS, &replay, nameless).class,
        RefusalClass::DataError
    );
}

#[test]
fn both_versions_of_a_completed_order_are_one_command() {
    let first = award_in(
        topic::ORDER_COMPLETED_V1,
        &binary("orders.orderCompleted.v1"),
        r#"{"userId":"c-1","orderNumber":"o-1"}"#,
    );
    assert_eq!(
        (first.source, first.event_id.as_str()),
        (SourceKind::OrderCompleted, "o-1")
    );
    assert_eq!(first.occurred_at, kafka_time());
    let second = award_in(
        topic::ORDER_COMPLETED_V2,
        &STRUCTURED,
        r#"{"specversion":"1.0","id":"other","source":"/till","type":"com.example.orders.orderCompleted.v2","time":"2026-03-14T10:00:00+02:00","datacontenttype":"application/json","data":{"orderId":"o-1","userId":"c-1"}}"#,
    );
    assert_eq!(second.occurred_at, at("2026-03-14T08:00:00Z"));
    assert_eq!(
        second.body_hash(),
        first.body_hash(),
        "neither the version nor the envelope is part of the body"
    );
}

#[test]
fn users_and_players_are_known_once() {
    let user = award_in(topic::USER_CREATED, &[], ENVELOPE);
    assert_eq!(
        (user.source, user.event_id.as_str()),
        (SourceKind::UserCreated, "c-9")
    );
    let mut with_time = binary("users.userCreated.v1");
    with_time.push(("CE_time", "2026-03-14T10:00:00Z"));
    let same = award_in(
        topic::USER_CREATED,
        &with_time,
        r#"{"userId":"c-9","note":1}"#,
    );
    assert_eq!(
        (same.occurred_at, same.body_hash()),
        (at("2026-03-14T10:00:00Z"), user.body_hash())
    );

    let player = |id: &str| {
        award_in(
            topic::PLAYERS,
            &[],
            &format!(r#"{{"eventType":"PLAYER_REGISTERED","user_id":{id}}}"#),
        )
    };
    let first = player("42");
    assert_eq!(first.source, SourceKind::PlayerRegistered);
    assert_eq!(first.customer_id, CustomerId::new("42").expect("an id"));
    assert_eq!(player("\"42\""), first);
    assert_eq!(player("4.2e1"), first);
    for other in [
        r#"{"eventType":"PLAYER_LOGGED_IN","user_id":42}"#,
        r#"{"eventType":"DEPOSIT"}"#,
    ] {
        assert_eq!(read_in(topic::PLAYERS, &[], other), Ok(None));
    }
}

#[test]
fn a_redemption_counts_once_over_both_roads() {
    let Ok(Some(Command::Redeem(request))) = read_in(topic::REDEEM_EVENTS, &[], REDEEM) else {
        panic!("a redemption");
    };
    assert_eq!(request.redeem_request_id.as_str(), "r-1");
    assert_eq!(request.points, Points::new(100).expect("positive"));
    assert_eq!(
        (request.merchant_id.as_str(), request.order_id.as_str()),
        ("M1", "o-1")
    );
    assert_eq!(request.requested_at, at("2026-03-14T12:00:00Z"));

    let over_http = r#"{"redeemRequestId":"r-1","customerId":"c-1","requestedPoints":1e2,"merchantContext":{"orderId":"o-1","merchantId":"M1"}}"#;
    let same = read_redeem(over_http.as_bytes(), now(), UnknownFields::Refuse).expect("sound");
    assert_eq!(
        (same.requested_at, same.body_hash()),
        (now(), request.body_hash())
    );
    let refused =
        read_redeem(over_http.as_bytes(), now(), UnknownFields::Ignore).expect_err("no timestamp");
    assert_eq!(refused.class, RefusalClass::MissingField);
}

fn notification_in(pairs: &[(&str, &str)], value: &str) -> Notification {
    match read_in(topic::NOTIFICATIONS, pairs, value) {
        Ok(Some(Command::Notify(notification))) => notification,
        other => panic!("{value} is read as {other:?}"),
    }
}

#[test]
fn a_notification_keeps_its_content_as_it_was_written() {
    let read = notification_in(&[("CE_ID", "n-1"), ("ce_source", "/shop")], NOTIFICATION);
    assert_eq!(
        (read.user_id.as_str(), read.kind.as_str()),
        ("c-1", "PROMOTION")
    );
    assert_eq!(read.content, r#"{"title":"Welcome","amount":50.00}"#);
    let extended = NOTIFICATION.replacen('{', r#"{"trace":[{}],"\u0063ontent ":1,"#, 1);
    assert_eq!(
        notification_in(&[("ce_id", "n-1"), ("ce_source", "/shop")], &extended),
        read
    );
    let empty = r#"{"user_id":42,"eventType":"x","\u0063ontent": { } }"#;
    let empty = notification_in(&[], empty);
    assert_eq!(
        (empty.user_id.as_str(), empty.content.as_str()),
        ("42", "{ }")
    );
}

#[test]
fn a_notification_is_known_by_its_sender_and_id_or_by_its_first_place() {
    let identity = |pairs: &[(&str, &str)]| notification_in(pairs, NOTIFICATION).identity;
    let replayed = [
        ("meed-replay", "true"),
        ("meed-dlq-topic", "notifications"),
        ("meed-dlq-partition", "5"),
        ("meed-dlq-offset", "3"),
        ("meed-dlq-timestamp", "1700000000123"),
    ];
    assert_eq!(identity(&[]), "notifications-2-17");
    assert_eq!(identity(&replayed), "notifications-5-3");
    assert_eq!(identity(&[("ce_id", "n 1")]), " n 1");
    assert_eq!(
        identity(&[("ce_id", "notifications-2-17")]),
        " notifications-2-17"
    );
    assert_eq!(
        identity(&[("ce_id", "1"), ("ce_source", "/shop")]),
        "/shop 1"
    );

    let mut elsewhere = replayed;
    elsewhere[1].1 = "a b";
    let long = "x".repeat(257);
    for pairs in [
        &[("ce_id", "")][..],
        &[("ce_id", " ")],
        &[("ce_id", &long)],
        &[("ce_id", "1"), ("ce_source", "a b")],
        &[("ce_id", "1"), ("ce_source", &long)],
        &elsewhere,
    ] {
        let refusal = refusal_in(topic::NOTIFICATIONS, pairs, NOTIFICATION);
        assert_eq!(
            refusal.class,
            RefusalClass::InvalidId,
            "{pairs:?}: {refusal}"
        );
    }
    let unreadable = [("ce_id".to_owned(), vec![0xff])];
    let refusal = read(
        &Message {
            headers: &unreadable,
            ..message(topic::NOTIFICATIONS, &Vec::new(), NOTIFICATION.as_bytes())
        },
        now(),
    );
    assert_eq!(
        refusal.expect_err("not UTF-8").class,
        RefusalClass::InvalidId
    );
}

#[test]
fn other_words_for_the_same_notification_have_the_same_hash() {
    let hash = |value: &str| notification_in(&[("ce_id", "n-1")], value).body_hash();
    let first = hash(NOTIFICATION);
    for (from, to, same) in [
        ("50.00", "5e1", true),
        (
            r#""title":"Welcome","amount":50.00"#,
            r#""amount":50,"title":"W\u0065lcome""#,
            true,
        ),
        ("50.00", "50.01", false),
        ("Welcome", "welcome", false),
        ("PROMOTION", "OFFER", false),
        ("c-1", "c-2", false),
        (r#""amount":50.00"#, r#""amount":50.00,"more":null"#, false),
    ] {
        let other = NOTIFICATION.replace(from, to);
        assert_ne!(other, NOTIFICATION);
        assert_eq!(hash(&other) == first, same, "{other}");
    }
}

#[test]
fn the_content_of_a_notification_is_bounded() {
    let with = |bytes: usize| {
        let text = "x".repeat(bytes - r#"{"t":""}"#.len());
        format!(r#"{{"user_id":"c-1","eventType":"x","content":{{"t":"{text}"}}}}"#)
    };
    assert_eq!(
        notification_in(&[], &with(NOTIFICATION_CONTENT_MAX_BYTES))
            .content
            .len(),
        NOTIFICATION_CONTENT_MAX_BYTES
    );
    let refusal = refusal_in(
        topic::NOTIFICATIONS,
        &[],
        &with(NOTIFICATION_CONTENT_MAX_BYTES + 1),
    );
    assert_eq!(refusal.class, RefusalClass::PayloadTooLarge);
}

#[test]
fn unknown_fields_are_ignored_in_messages_and_refused_over_http() {
    let extended = |json: &str| json.replacen('{', r#"{"schema":3,"#, 1);
    let plain = award_in(topic::REWARD_EVENTS, &[], DINING);
    assert_eq!(
        award_in(topic::REWARD_EVENTS, &[], &extended(DINING)),
        plain
    );
    let class = |result: Result<Award, Refusal>| result.map_err(|refusal| refusal.class);
    assert_eq!(
        class(read_event(extended(DINING).as_bytes(), now())),
        Err(RefusalClass::WrongType)
    );
    assert!(
        read_event(DINING.as_bytes(), now()).is_ok(),
        "a payload may hold any field"
    );

    let within = REDEEM.replace(r#""merchantId""#, r#""till":1,"merchantId""#);
    for request in [extended(REDEEM), within] {
        let refused = read_redeem(request.as_bytes(), now(), UnknownFields::Refuse)
            .map_err(|refusal| refusal.class);
        assert_eq!(refused, Err(RefusalClass::WrongType), "{request}");
        assert!(
            read_redeem(request.as_bytes(), now(), UnknownFields::Ignore).is_ok(),
            "{request}"
        );
    }
}

#[test]
fn other_words_for_the_same_event_have_the_same_hash() {
    let first = award_in(topic::REWARD_EVENTS, &[], DINING);
    for (from, to) in [
        (r#""42.50""#, "42.5"),
        (r#""42.50""#, r#""4250e-2""#),
        (r#""table":7"#, r#""table":7.00,"chair":null"#),
        (
            r#""terrace":true,"menu":"LUNCH""#,
            r#""menu":"L\u0055NCH","terrace":true"#,
        ),
        ("T12:00:00Z", "T14:00:00.000+02:00"),
        (r#""eventId""#, r#""trace":"abc","eventId""#),
    ] {
        let other = DINING.replace(from, to);
        assert_ne!(other, DINING);
        assert_eq!(
            award_in(topic::REWARD_EVENTS, &[], &other).body_hash(),
            first.body_hash(),
            "{other}"
        );
    }
    for (from, to) in [
        ("42.50", "42.51"),
        ("EUR", "GBP"),
        (r#""currency":"EUR","#, ""),
        (r#""table":7"#, r#""table":8"#),
        (r#""table":7"#, r#""table":"7""#),
        (r#""guests":[1,2]"#, r#""guests":[2,1]"#),
        (r#""guests":[1,2]"#, r#""guests":[12]"#),
        (r#""menu":"LUNCH","guests":[1,2]"#, r#""menu":"LUNCH""#),
        ("DINING", "CASINO_SPEND"),
        ("c-1", "c-2"),
        ("T12:00:00Z", "T12:00:01Z"),
    ] {
        let other = DINING.replace(from, to);
        assert_ne!(other, DINING);
        assert_ne!(
            award_in(topic::REWARD_EVENTS, &[], &other).body_hash(),
            first.body_hash(),
            "{other}"
        );
    }
}

/// Each case takes a sound message, replaces one piece of it and names the class it must get and
/// a part of the reason.
#[test]
fn every_fault_has_its_class_and_names_its_field() {
    use RefusalClass::{
        InvalidAmount, InvalidId, InvalidPoints, InvalidTimestamp, MalformedJson, MissingField,
        TimestampInFuture, UnknownCurrency, UnknownEventType, WrongType,
    };
    let long = format!("\"{}\"", "x".repeat(129));
    let cases = [
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""eventId":"e-1","#,
            "",
            MissingField,
            "eventId",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""e-1""#,
            "null",
            MissingField,
            "eventId",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""e-1""#,
            "7",
            WrongType,
            "eventId must be a string, not a number",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""e-1""#,
            r#""""#,
            InvalidId,
            "eventId is empty",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""e-1""#,
            &long,
            InvalidId,
            "eventId has 129 characters",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""c-1""#,
            r#""c\u0000""#,
            InvalidId,
            "customerId",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""c-1""#,
            r#""c\n""#,
            InvalidId,
            "customerId",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""c-1""#,
            "{}",
            WrongType,
            "customerId",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""DINING""#,
            r#""SPA_DAY""#,
            UnknownEventType,
            "SPA_DAY",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""DINING""#,
            r#""ORDER""#,
            UnknownEventType,
            "ORDER",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""DINING""#,
            "[]",
            WrongType,
            "eventType",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""2026-03-14T12:00:00Z""#,
            r#""14.03.2026""#,
            InvalidTimestamp,
            "timestamp",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            "12:00:00Z",
            "25:00:00Z",
            InvalidTimestamp,
            "timestamp",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            "12:00:00Z",
            "12:00:00",
            InvalidTimestamp,
            "timestamp",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""2026-03-14T12:00:00Z""#,
            "1773403200",
            WrongType,
            "timestamp",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            "2026-03-14T12:00:00Z",
            "2026-03-16T00:00:01Z",
            TimestampInFuture,
            "timestamp",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            "2026-03",
            "2999-03",
            TimestampInFuture,
            "timestamp",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""amount":"42.50","#,
            "",
            MissingField,
            "payload.amount",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""42.50""#,
            "true",
            WrongType,
            "payload.amount",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""42.50""#,
            "-0.01",
            InvalidAmount,
            "payload.amount is \"-0.01\"",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""42.50""#,
            "1e18",
            InvalidAmount,
            "payload.amount",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""42.50""#,
            "1e400",
            InvalidAmount,
            "payload.amount",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""42.50""#,
            "0.0000000001",
            InvalidAmount,
            "payload.amount",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            "42.50",
            "forty",
            InvalidAmount,
            "payload.amount",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            "42.50",
            "",
            InvalidAmount,
            "payload.amount",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            "EUR",
            "DOGECOIN",
            UnknownCurrency,
            "payload.currency",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""EUR""#,
            "5",
            WrongType,
            "payload.currency",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            r#""table":7"#,
            r#""table":7,"table":7"#,
            MalformedJson,
            "\"table\" occurs twice",
        ),
        (
            topic::REWARD_EVENTS,
            DINING,
            "}}",
            "}",
            MalformedJson,
            "line 1",
        ),
        (
            topic::REWARD_EVENTS,
            STAY,
            r#"{"nights":3,"roomType":"SUITE"}"#,
            "null",
            MissingField,
            "payload",
        ),
        (
            topic::REWARD_EVENTS,
            STAY,
            r#"{"nights":3,"roomType":"SUITE"}"#,
            "[]",
            WrongType,
            "payload",
        ),
        (
            topic::REWARD_EVENTS,
            STAY,
            r#""nights":3,"#,
            "",
            MissingField,
            "payload.nights",
        ),
        (
            topic::REWARD_EVENTS,
            STAY,
            r#""nights":3"#,
            r#""nights":"3""#,
            WrongType,
            "payload.nights",
        ),
        (
            topic::REWARD_EVENTS,
            STAY,
            r#""nights":3"#,
            r#""nights":2.5"#,
            InvalidAmount,
            "payload.nights",
        ),
        (
            topic::REWARD_EVENTS,
            STAY,
            r#""nights":3"#,
            r#""nights":0"#,
            InvalidAmount,
            "payload.nights",
        ),
        (
            topic::REWARD_EVENTS,
            STAY,
            r#""nights":3"#,
            r#""nights":-1"#,
            InvalidAmount,
            "payload.nights",
        ),
        (
            topic::REWARD_EVENTS,
            STAY,
            r#""nights":3"#,
            r#""nights":1e99"#,
            InvalidAmount,
            "payload.nights",
        ),
        (
            topic::REWARD_EVENTS,
            STAY,
            r#""nights":3"#,
            r#""nights":3,"amount":"-1""#,
            InvalidAmount,
            "payload.amount",
        ),
        (
            topic::ORDERS,
            ORDER,
            r#""amount":299.99,"#,
            "",
            MissingField,
            "amount",
        ),
        (topic::ORDERS, ORDER, "299.99", "{}", WrongType, "amount"),
        (
            topic::ORDERS,
            ORDER,
            "299.99",
            "-300",
            InvalidAmount,
            "amount",
        ),
        (
            topic::ORDERS,
            ORDER,
            r#""o-7""#,
            r#""""#,
            InvalidId,
            "orderId is empty",
        ),
        (topic::ORDERS, ORDER, r#""o-7""#, "7", WrongType, "orderId"),
        (
            topic::ORDERS,
            ORDER,
            "GBP",
            "gbp",
            UnknownCurrency,
            "currency",
        ),
        (
            topic::ORDERS,
            ORDER,
            ORDER,
            "[]",
            WrongType,
            "must be an object, not a list",
        ),
        (topic::ORDERS, ORDER, ORDER, "", MalformedJson, "empty"),
        (
            topic::ORDERS,
            ORDER,
            ORDER,
            "customer walked in",
            MalformedJson,
            "line 1",
        ),
        (
            topic::USER_CREATED,
            ENVELOPE,
            r#""specversion":"1.0","#,
            "",
            MissingField,
            "specversion",
        ),
        (
            topic::USER_CREATED,
            ENVELOPE,
            r#""1.0""#,
            "1.0",
            WrongType,
            "specversion",
        ),
        (
            topic::USER_CREATED,
            ENVELOPE,
            "1.0",
            "0.3",
            WrongType,
            "specversion",
        ),
        (
            topic::USER_CREATED,
            ENVELOPE,
            r#""id":"x-1","#,
            "",
            MissingField,
            "id of the CloudEvent",
        ),
        (
            topic::USER_CREATED,
            ENVELOPE,
            r#""source":"/shop","#,
            "",
            MissingField,
            "source",
        ),
        (
            topic::USER_CREATED,
            ENVELOPE,
            r#""type":"users.userCreated.v1","#,
            "",
            MissingField,
            "type",
        ),
        (
            topic::USER_CREATED,
            ENVELOPE,
            "Created.v1",
            "Deleted.v1",
            UnknownEventType,
            "users.userDeleted.v1",
        ),
        (
            topic::USER_CREATED,
            ENVELOPE,
            "users.user",
            "xusers.user",
            UnknownEventType,
            "xusers.userCreated.v1",
        ),
        (
            topic::USER_CREATED,
            ENVELOPE,
            r#""id""#,
            r#""time":"noon","id""#,
            InvalidTimestamp,
            "time of the CloudEvent",
        ),
        (
            topic::USER_CREATED,
            ENVELOPE,
            r#""id""#,
            r#""datacontenttype":"text/xml","id""#,
            WrongType,
            "text/xml",
        ),
        (
            topic::USER_CREATED,
            ENVELOPE,
            r#"{"userId":"c-9"}"#,
            "null",
            MissingField,
            "data",
        ),
        (
            topic::USER_CREATED,
            ENVELOPE,
            r#"{"userId":"c-9"}"#,
            r#""c-9""#,
            WrongType,
            "data",
        ),
        (
            topic::USER_CREATED,
            ENVELOPE,
            r#""userId":"c-9""#,
            "",
            MissingField,
            "data.userId",
        ),
        (
            topic::USER_CREATED,
            ENVELOPE,
            r#""c-9""#,
            r#""""#,
            InvalidId,
            "data.userId is empty",
        ),
        (
            topic::PLAYERS,
            r#"{"eventType":"PLAYER_REGISTERED","user_id":42}"#,
            "42",
            "true",
            WrongType,
            "user_id",
        ),
        (
            topic::PLAYERS,
            r#"{"eventType":"PLAYER_REGISTERED","user_id":42}"#,
            "42",
            "4.2",
            InvalidId,
            "user_id",
        ),
        (
            topic::PLAYERS,
            r#"{"eventType":"PLAYER_REGISTERED","user_id":42}"#,
            "42",
            "-4",
            InvalidId,
            "user_id",
        ),
        (
            topic::PLAYERS,
            r#"{"eventType":"PLAYER_REGISTERED","user_id":42}"#,
            "42",
            "1e200",
            InvalidId,
            "user_id",
        ),
        (
            topic::PLAYERS,
            r#"{"eventType":"PLAYER_REGISTERED","user_id":42}"#,
            "42",
            "null",
            MissingField,
            "user_id",
        ),
        (
            topic::PLAYERS,
            r#"{"eventType":"PLAYER_REGISTERED","user_id":42}"#,
            "event",
            "kind",
            MissingField,
            "eventType",
        ),
        (
            topic::REDEEM_EVENTS,
            REDEEM,
            r#","timestamp":"2026-03-14T12:00:00Z""#,
            "",
            MissingField,
            "timestamp",
        ),
        (
            topic::REDEEM_EVENTS,
            REDEEM,
            "100",
            "0",
            InvalidPoints,
            "requestedPoints",
        ),
        (
            topic::REDEEM_EVENTS,
            REDEEM,
            "100",
            "-1",
            InvalidPoints,
            "requestedPoints",
        ),
        (
            topic::REDEEM_EVENTS,
            REDEEM,
            "100",
            "12.5",
            InvalidPoints,
            "requestedPoints",
        ),
        (
            topic::REDEEM_EVENTS,
            REDEEM,
            "100",
            "9223372036854775808",
            InvalidPoints,
            "requestedPoints",
        ),
        (
            topic::REDEEM_EVENTS,
            REDEEM,
            "100",
            "1e30",
            InvalidPoints,
            "requestedPoints",
        ),
        (
            topic::REDEEM_EVENTS,
            REDEEM,
            "100",
            r#""100""#,
            WrongType,
            "requestedPoints",
        ),
        (
            topic::REDEEM_EVENTS,
            REDEEM,
            "r-1",
            "award/1",
            InvalidId,
            "redeemRequestId",
        ),
        (
            topic::REDEEM_EVENTS,
            REDEEM,
            r#""merchantId":"M1","#,
            "",
            MissingField,
            "merchantContext.merchantId",
        ),
        (
            topic::REDEEM_EVENTS,
            REDEEM,
            r#""o-1""#,
            "1",
            WrongType,
            "merchantContext.orderId",
        ),
        (
            topic::NOTIFICATIONS,
            NOTIFICATION,
            r#""user_id":"c-1","#,
            "",
            MissingField,
            "user_id",
        ),
        (
            topic::NOTIFICATIONS,
            NOTIFICATION,
            r#""c-1""#,
            "true",
            WrongType,
            "user_id",
        ),
        (
            topic::NOTIFICATIONS,
            NOTIFICATION,
            "PROMOTION",
            "",
            InvalidId,
            "eventType",
        ),
        (
            topic::NOTIFICATIONS,
            NOTIFICATION,
            "content",
            "contents",
            MissingField,
            "content",
        ),
        (
            topic::NOTIFICATIONS,
            NOTIFICATION,
            r#"{"title":"Welcome","amount":50.00}"#,
            "[]",
            WrongType,
            "content",
        ),
        (
            "unheard-of",
            ORDER,
            "o-7",
            "o-8",
            UnknownEventType,
            "unheard-of",
        ),
    ];
    for (topic, sound, piece, by, class, part) in cases {
        let broken = sound.replacen(piece, by, 1);
        assert_ne!(broken, sound, "{piece} is not in {sound}");
        let refusal = refusal_in(topic, &[], &broken);
        assert_eq!(refusal.class, class, "{broken}: {refusal}");
        assert!(refusal.reason.contains(part), "{broken}: {refusal}");
    }
}

#[test]
fn a_binary_envelope_is_checked_too() {
    use RefusalClass::{InvalidTimestamp, MissingField, UnknownEventType, WrongType};
    let body = r#"{"userId":"c-9"}"#;
    for (name, value, class) in [
        ("ce_specversion", None, MissingField),
        ("ce_specversion", Some("0.3"), WrongType),
        ("ce_id", None, MissingField),
        ("ce_source", Some(""), MissingField),
        ("ce_type", None, MissingField),
        ("ce_type", Some("users.userDeleted.v1"), UnknownEventType),
        ("ce_time", Some("noon"), InvalidTimestamp),
        ("content-type", Some("application/xml"), WrongType),
    ] {
        let mut pairs = binary("users.userCreated.v1");
        pairs.retain(|(other, _)| *other != name);
        pairs.extend(value.map(|value| (name, value)));
        assert_eq!(
            refusal_in(topic::USER_CREATED, &pairs, body).class,
            class,
            "{name} {value:?}"
        );
    }
    let mut not_utf8 = headers(&binary("users.userCreated.v1"));
    not_utf8[1].1 = vec![0xC3, 0x28];
    let refusal = read(
        &message(topic::USER_CREATED, &not_utf8, body.as_bytes()),
        now(),
    )
    .expect_err("not UTF-8");
    assert_eq!(refusal.class, WrongType);
    let refusal = refusal_in(topic::USER_CREATED, &[], body);
    assert_eq!(refusal.class, MissingField, "no envelope at all");
}

#[test]
fn size_and_absence_are_refused() {
    let no_headers = Vec::new();
    let tombstone = Message {
        value: None,
        ..message(topic::ORDERS, &no_headers, b"")
    };
    assert_eq!(
        read(&tombstone, now()).map_err(|refusal| refusal.class),
        Err(RefusalClass::MalformedJson)
    );
    let filled = |bytes: usize| {
        let note = "x".repeat(bytes - ORDER.len() - r#""note":"","#.len());
        ORDER.replacen('{', &format!(r#"{{"note":"{note}","#), 1)
    };
    assert!(read_in(topic::ORDERS, &[], &filled(MESSAGE_MAX_BYTES)).is_ok());
    for bytes in [MESSAGE_MAX_BYTES + 1, 1_048_576] {
        assert_eq!(
            refusal_in(topic::ORDERS, &[], &filled(bytes)).class,
            RefusalClass::PayloadTooLarge
        );
    }
    assert_eq!(
        read_event(filled(1_048_576).as_bytes(), now()).map_err(|refusal| refusal.class),
        Err(RefusalClass::PayloadTooLarge)
    );
}

#[test]
fn clocks_may_differ_by_a_day() {
    let ahead = DINING.replace("2026-03-14T12:00:00Z", "2026-03-16T00:00:00Z");
    assert_eq!(
        award_in(topic::REWARD_EVENTS, &[], &ahead).occurred_at,
        at("2026-03-16T00:00:00Z")
    );
    let past = DINING.replace("2026-03-14T12:00:00Z", "0001-01-01T00:00:00Z");
    assert_eq!(
        award_in(topic::REWARD_EVENTS, &[], &past).occurred_at,
        at("0001-01-01T00:00:00Z")
    );
    let no_headers = Vec::new();
    let order = Message {
        timestamp: at("2026-03-17T00:00:00Z"),
        ..message(topic::ORDERS, &no_headers, ORDER.as_bytes())
    };
    assert_eq!(
        read(&order, now()).map_err(|refusal| refusal.class),
        Err(RefusalClass::TimestampInFuture)
    );
}

/// A JSON value as text, with the members of each object in a random order.
fn respelled(json: &serde_json::Value, seed: &mut u64) -> String {
    let mut next = || {
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *seed >> 33
    };
    match json {
        serde_json::Value::Object(members) => {
            let mut members: Vec<_> = members.iter().map(|member| (next(), member)).collect();
            members.sort_by_key(|(order, _)| *order);
            let mut text = "{ ".to_owned();
            for (index, (_, (name, value))) in members.into_iter().enumerate() {
                let comma = if index == 0 { "" } else { " ," };
                let value = respelled(value, seed);
                write!(
                    text,
                    "{comma}{} : {value}",
                    serde_json::Value::from(name.as_str())
                )
                .expect("writes to memory");
            }
            text + "}"
        }
        serde_json::Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| respelled(item, seed)).collect();
            format!("[{}]", items.join(" , "))
        }
        other => other.to_string(),
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<String>().prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..4)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A sound message of any topic with a piece cut out, put in or changed.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let sound = prop::sample::select(vec![DINING, STAY, REDEEM, ORDER, ENVELOPE, NOTIFICATION]);
    (
        sound,
        any::<prop::sample::Index>(),
        0..8_usize,
        prop::collection::vec(any::<u8>(), 0..8),
    )
        .prop_map(|(sound, place, length, bytes)| {
            let start = place.index(sound.len());
            let end = (start + length).min(sound.len());
            let mut broken = sound.as_bytes().to_vec();
            broken.splice(start..end, bytes);
            broken
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_do_harm(
        value in prop_oneof![prop::collection::vec(any::<u8>(), 0..64), damaged()],
        pairs in prop::collection::vec(("ce_(id|type|time|specversion|source)|content-type|meed-.*", prop::collection::vec(any::<u8>(), 0..8)), 0..4),
    ) {
        for topic in topic::ALL {
            if let Err(refusal) = read(&message(topic, &pairs, &value), now()) {
                prop_assert!(!refusal.reason.is_empty());
                prop_assert!(refusal.reason.chars().count() <= crate::refusal::REASON_MAX_CHARS);
                prop_assert!(!refusal.reason.chars().any(char::is_control));
            }
        }
        let _ = read_event(&value, now());
        let _ = read_redeem(&value, now(), UnknownFields::Refuse);
    }

    #[test]
    fn the_order_of_fields_never_changes_the_hash(extra in prop::collection::btree_map("[a-z]{3,6}", any_json(), 0..5), mut seed: u64) {
        let mut json: serde_json::Value = serde_json::from_str(DINING).expect("sound");
        let payload = json["payload"].as_object_mut().expect("an object");
        for (name, value) in extra {
            if name != "amount" && name != "currency" {
                payload.insert(name, value);
            }
        }
        let first = award_in(topic::REWARD_EVENTS, &[], &json.to_string());
        let other = award_in(topic::REWARD_EVENTS, &[], &respelled(&json, &mut seed));
        prop_assert_eq!(first.body_hash(), other.body_hash());
        prop_assert_eq!(first, other);
    }

    #[test]
    fn another_payload_has_another_hash(one in any_json(), other in any_json()) {
        let with = |extra: &serde_json::Value| {
            let mut json: serde_json::Value = serde_json::from_str(STAY).expect("sound");
            json["payload"]["extra"] = extra.clone();
            award_in(topic::REWARD_EVENTS, &[], &json.to_string()).body_hash()
        };
        prop_assert_eq!(one == other, with(&one) == with(&other));
    }
}
