use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::*;
use crate::{Amount, CustomerId, EventId, Fact, Facts, Number, SourceKind};

const SHIPPED: &str = include_str!("../../../programme.toml");

const HEAD: &str = r#"version = "t"
default_currency = "USD"
currencies = { USD = "1", EUR = "1.08" }
tiers = { silver = 500, gold = 1500, platinum = 3000 }
"#;

fn shipped() -> Programme {
    Programme::parse(SHIPPED).expect("the shipped programme is sound")
}

fn with_rules(rules: &str) -> Programme {
    Programme::parse(&format!("{HEAD}{rules}")).unwrap_or_else(|error| panic!("{error}\n{rules}"))
}

fn event(event_type: EventType, at: &str) -> Award {
    Award {
        source: SourceKind::RewardEvent,
        event_id: EventId::new("e-1").expect("an id"),
        customer_id: CustomerId::new("c-1").expect("an id"),
        event_type,
        occurred_at: DateTime::parse_from_rfc3339(at)
            .expect("a timestamp")
            .with_timezone(&Utc),
        facts: Facts::default(),
    }
}

const NOON: &str = "2026-03-14T12:00:00Z";

fn spent(event_type: EventType, amount: &str, currency: &str) -> Award {
    let mut award = event(event_type, NOON);
    award.facts.amount = Some(Amount::parse(amount).expect("an amount"));
    award.facts.currency = Currency::parse(currency);
    award
}

fn stay(nights: u32, room_type: &str) -> Award {
    let mut award = event(EventType::HotelStay, NOON);
    award.facts.nights = Some(nights);
    award
        .facts
        .fields
        .insert("roomType".to_owned(), Fact::Text(room_type.to_owned()));
    award
}

fn points(programme: &Programme, award: &Award) -> i64 {
    points_at(programme, award, Tier::Bronze)
}

fn points_at(programme: &Programme, award: &Award, tier: Tier) -> i64 {
    programme
        .evaluate(award, tier)
        .unwrap_or_else(|refusal| panic!("{refusal}"))
        .points()
        .get()
}

fn p(points: i64) -> Points {
    Points::new(points).expect("positive")
}

#[test]
fn the_shipped_programme_gives_what_is_documented() {
    let programme = shipped();
    assert_eq!(programme.version(), "2026-11");
    assert_eq!(programme.tiers().threshold(Tier::Gold), p(1500));
    let evening = |at: &str| Award {
        occurred_at: event(EventType::Dining, at).occurred_at,
        ..spent(EventType::CasinoSpend, "199", "")
    };
    for (award, expected) in [
        (stay(3, "DOUBLE"), 300),
        (stay(3, "SUITE"), 450),
        (stay(19, "DOUBLE"), 1900),
        (stay(21, "DOUBLE"), 2000),
        (stay(19, "SUITE"), 2000),
        (spent(EventType::Dining, "42.50", "USD"), 12),
        (spent(EventType::Dining, "42.50", "EUR"), 12),
        (spent(EventType::Dining, "46.30", "EUR"), 15),
        (spent(EventType::Dining, "46.29", "EUR"), 12),
        (spent(EventType::Dining, "14926", "JPY"), 30),
        (spent(EventType::Dining, "9.999999999", ""), 0),
        (evening("2026-03-14T17:59:59.999Z"), 9),
        (evening("2026-03-14T18:00:00Z"), 18),
        (evening("2026-03-14T21:59:59Z"), 18),
        (evening("2026-03-14T22:00:00Z"), 9),
        (spent(EventType::Order, "299.99", ""), 2),
        (spent(EventType::Order, "300", ""), 3),
        (spent(EventType::Order, "236.22", "GBP"), 2),
        (spent(EventType::Order, "236.23", "GBP"), 3),
        (spent(EventType::Order, "0", ""), 0),
        (event(EventType::OrderCompleted, NOON), 50),
        (event(EventType::UserCreated, NOON), 100),
        (event(EventType::PlayerRegistered, NOON), 0),
    ] {
        assert_eq!(points(&programme, &award), expected, "{award:?}");
    }
    let casino = programme
        .evaluate(&spent(EventType::CasinoSpend, "14000", ""), Tier::Bronze)
        .expect("known");
    let [contribution] = &casino.contributions[..] else {
        panic!("one rule")
    };
    assert_eq!(
        (contribution.points, contribution.daily_cap),
        (p(700), Some(p(500)))
    );
    assert_eq!(contribution.within_daily_cap(p(0)), p(500));
    assert_eq!(contribution.within_daily_cap(p(480)), p(20));
    assert_eq!(contribution.within_daily_cap(p(500)), p(0));
    assert_eq!(
        contribution.within_daily_cap(p(900)),
        p(0),
        "given by an older rule set"
    );
}

#[test]
fn an_unknown_currency_is_refused_even_where_no_rule_looks_at_it() {
    let mut with_currency = stay(1, "SUITE");
    with_currency.facts.currency = Currency::parse("ZZZ");
    for award in [with_currency, spent(EventType::Dining, "1", "CHF")] {
        let refusal = shipped()
            .evaluate(&award, Tier::Bronze)
            .expect_err("no rate");
        assert_eq!(refusal.class, RefusalClass::UnknownCurrency);
    }
}

#[test]
fn all_matching_rules_contribute_each_within_its_caps() {
    let programme = with_rules(
        r#"
        rules = [
            { name = "base", event = "DINING", formula = { per_amount = { unit = "0.1", points = 1 } }, cap_per_event = 3 },
            { name = "visit", event = "DINING", formula = { flat = { points = 5 } }, cap_per_day = 10 },
            { name = "gold", event = "DINING", when = { tier = ["GOLD", "PLATINUM"] }, formula = { flat = { points = 7 } } },
            { name = "nothing", event = "DINING", formula = { flat = { points = 0 } } },
        ]"#,
    );
    let meal = spent(EventType::Dining, "0.3", "");
    let evaluation = programme.evaluate(&meal, Tier::Bronze).expect("known");
    let names: Vec<_> = evaluation
        .contributions
        .iter()
        .map(|c| (c.rule.as_str(), c.points.get()))
        .collect();
    assert_eq!(
        names,
        [("base", 3), ("visit", 5)],
        "0.3 holds exactly three times 0.1"
    );
    assert_eq!(
        points_at(&programme, &spent(EventType::Dining, "9", ""), Tier::Gold),
        3 + 5 + 7
    );
    assert_eq!(programme.rule_names().count(), 4);
}

#[test]
fn conditions_look_at_fields_tier_and_time() {
    let rule = |when: &str| {
        with_rules(&format!(
            "rules = [{{ name = \"r\", event = \"CASINO_SPEND\", when = {{ {when} }}, formula = {{ flat = {{ points = 1 }} }} }}]"
        ))
    };
    // A Saturday.
    let mut spend = spent(EventType::CasinoSpend, "50", "");
    spend
        .facts
        .fields
        .insert("game".to_owned(), Fact::Text("ROULETTE".to_owned()));
    spend
        .facts
        .fields
        .insert("table".to_owned(), Fact::Number(Number::from(7)));
    spend
        .facts
        .fields
        .insert("vip".to_owned(), Fact::Flag(true));
    for (when, expected) in [
        (r#"field.game = { equals = "ROULETTE" }"#, true),
        (r#"field.game = { one_of = ["SLOTS", "ROULETTE"] }"#, true),
        (r#"field.game = { equals = "roulette" }"#, false),
        (r"field.game = { at_least = 1 }", false),
        (r#"field.absent = { equals = "x" }"#, false),
        (r"field.table = { equals = 7 }", true),
        (r"field.table = { equals = 7.0 }", true),
        (r#"field.table = { equals = "7" }"#, false),
        (r#"field.table = { at_least = "7.000000001" }"#, false),
        (r"field.table = { at_least = 7, at_most = 7 }", true),
        (r"field.vip = { equals = true }", true),
        (r"field.vip = { equals = false }", false),
        (r#"field.amount = { at_least = "50" }"#, true),
        (r#"field.amount = { equals = "50.00" }"#, true),
        (r"field.amount = { at_most = 49.99 }", false),
        (r#"field.currency = { equals = "USD" }"#, true),
        (r#"field.currency = { one_of = ["EUR"] }"#, false),
        (r"field.nights = { at_least = 1 }", false),
        (
            r#"field = { game = { equals = "ROULETTE" }, table = { at_most = 6 } }"#,
            false,
        ),
        (r#"tier = ["bronze"]"#, true),
        (r#"tier = ["GOLD"]"#, false),
        (r#"time_of_day = { from = "12:00", until = "12:01" }"#, true),
        (
            r#"time_of_day = { from = "22:00", until = "12:00:00" }"#,
            false,
        ),
        (
            r#"time_of_day = { from = "22:00", until = "12:00:01" }"#,
            true,
        ),
        (r#"time_of_day = { from = "12:00", until = "24:00" }"#, true),
        (r"time_of_day = { from = 11:30:00, until = 13:30:00 }", true),
        (r#"valid = { from = "2026-03-14" }"#, true),
        (r#"valid = { until = "2026-03-14" }"#, false),
        (
            r#"valid = { from = "2026-03-14T13:00:00+01:00", until = 2026-03-15 }"#,
            true,
        ),
        (r#"weekdays = ["SATURDAY", "sunday"]"#, true),
        (r#"weekdays = ["mon"]"#, false),
        (r#"weekdays = ["sat"], tier = ["GOLD"]"#, false),
    ] {
        assert_eq!(points(&rule(when), &spend) == 1, expected, "{when}");
    }
}

#[test]
fn multipliers_are_rounded_once_and_downwards() {
    let programme = with_rules(
        r#"
        [[rules]]
        name = "r"
        event = "HOTEL_STAY"
        formula = { per_night = { points = 1 } }
        multipliers = [{ factor = "1.5" }, { factor = "1.5" }, { factor = 0.1, when = { tier = ["PLATINUM"] } }]
        "#,
    );
    assert_eq!(
        points(&programme, &stay(1, "")),
        2,
        "2.25, not 1.5 rounded and then 1.5 times that"
    );
    assert_eq!(points(&programme, &stay(4, "")), 9);
    assert_eq!(
        points_at(&programme, &stay(4, ""), Tier::Platinum),
        0,
        "0.9 is not rounded up"
    );
}

#[test]
fn overflow_is_refused_unless_a_cap_holds_it() {
    let rule = |cap: &str| {
        format!(
            "rules = [{{ name = \"r\", event = \"DINING\", formula = {{ per_amount = {{ unit = \"0.000000001\", points = {} }} }}{cap} }}]",
            i64::MAX
        )
    };
    let dear = spent(EventType::Dining, "999999999999999999.999999999", "");
    let refusal = with_rules(&rule(""))
        .evaluate(&dear, Tier::Bronze)
        .expect_err("too much");
    assert_eq!(refusal.class, RefusalClass::InvalidAmount);
    assert!(refusal.reason.contains("\"r\""), "{refusal}");
    assert_eq!(points(&with_rules(&rule(", cap_per_event = 9")), &dear), 9);
    let twice = format!(
        "rules = [{0}, {1}]",
        format_args!(
            "{{ name = \"a\", event = \"DINING\", formula = {{ flat = {{ points = {} }} }} }}",
            i64::MAX
        ),
        r#"{ name = "b", event = "DINING", formula = { flat = { points = 1 } } }"#
    );
    assert!(
        with_rules(&twice).evaluate(&dear, Tier::Bronze).is_err(),
        "nor may the sum overflow"
    );
}

/// Each case replaces one line of the file below and names where the fault must be found and a
/// part of what must be said.
#[test]
fn a_bonus_is_the_amount_in_points_rounded_down_once() {
    let bonus = |programme: &Programme, amount: &str, currency: &str| {
        let amount = Amount::parse(amount).expect("an amount");
        let bonus = programme.bonus(amount, Currency::parse(currency));
        bonus.map(Points::get)
    };
    let shipped = shipped();
    for (amount, currency, expected) in [
        ("50.00", "", Ok(50)),
        ("50.00", "USD", Ok(50)),
        ("49.999999999", "", Ok(49)),
        ("50.00", "EUR", Ok(54)),
        ("1", "", Ok(1)),
        ("0.999999999", "", Err(BonusError::NoPoints)),
        ("0", "", Err(BonusError::NoPoints)),
        ("149", "JPY", Err(BonusError::NoPoints)),
        ("150", "JPY", Ok(1)),
        ("999999999999999999", "", Ok(999_999_999_999_999_999)),
        (
            "5",
            "CHF",
            Err(BonusError::UnknownCurrency(
                Currency::parse("CHF").expect("a currency"),
            )),
        ),
    ] {
        assert_eq!(
            bonus(&shipped, amount, currency),
            expected,
            "{amount} {currency}"
        );
    }
    let rate = |per_unit: &str| {
        let file = format!("{HEAD}[promotions]\npoints_per_unit = {per_unit}\n");
        Programme::parse(&file).unwrap_or_else(|error| panic!("{error}"))
    };
    assert_eq!(bonus(&rate("\"0.5\""), "3", ""), Ok(1));
    assert_eq!(
        bonus(&rate("\"0.5\""), "1.9", ""),
        Err(BonusError::NoPoints)
    );
    assert_eq!(bonus(&rate("2.5"), "1.2", ""), Ok(3));
    assert_eq!(
        bonus(&rate("10"), "999999999999999999", ""),
        Err(BonusError::TooManyPoints)
    );
    assert_eq!(
        bonus(&with_rules(""), "7.9", ""),
        Ok(7),
        "1 where nothing is said"
    );
}

#[test]
fn a_fault_in_what_promotions_are_worth_is_told_with_its_place() {
    for (text, place, part) in [
        (
            "[promotions]\n",
            "line 5, column 1",
            "points_per_unit is missing",
        ),
        (
            "[promotions]\npoints_per_unit = 0",
            "line 6, column 19",
            "promotions: points_per_unit is above zero",
        ),
        (
            "[promotions]\npoints_per_unit = \"-1\"",
            "line 6, column 19",
            "above zero",
        ),
        (
            "[promotions]\npoints = 1",
            "line 6, column 1",
            "unknown key \"points\"",
        ),
        ("promotions = 1", "line 5, column 14", "must be a table"),
    ] {
        let error = Programme::parse(&format!("{HEAD}{text}"))
            .expect_err(text)
            .to_string();
        assert!(
            error.starts_with(place) && error.contains(part),
            "{text}: {error}"
        );
    }
}

#[test]
fn every_fault_of_a_file_is_told_with_its_place() {
    const FILE: &str = r#"version = "1"
default_currency = "USD"
[currencies]
USD = "1"
EUR = "1.08"
[tiers]
silver = 500
gold = 1500
platinum = 3000

[[rules]]
name = "stay"
event = "HOTEL_STAY"
formula = { per_night = { points = 100 } }
when = { tier = ["SILVER"] }

[[rules]]
name = "meal"
event = "DINING"
formula = { per_amount = { unit = "10", points = 3 } }
cap_per_day = 100
[[rules.multipliers]]
factor = "1.5"
when = { time_of_day = { from = "18:00", until = "22:00" } }
"#;
    Programme::parse(FILE).expect("sound");
    for (number, line, place, part) in [
        (1, "version = \"\"", "line 1, column 11", "version is empty"),
        (1, "version = 3", "line 1, column 11", "must be text"),
        (1, "", "line 1, column 1", "version is missing"),
        (1, "version = \"1", "line 1,", "string"),
        (
            2,
            "default_currency = \"GBP\"",
            "line 2, column 20",
            "not among the currencies",
        ),
        (
            2,
            "defaultcurrency = \"USD\"",
            "line 2, column 1",
            "unknown key \"defaultcurrency\"",
        ),
        (4, "", "line 3, column 1", "no currency has rate 1"),
        (
            4,
            "USD = \"1\"\nUSD = \"1\"",
            "line 5, column 1",
            "duplicate",
        ),
        (5, "EUR = \"0\"", "line 5, column 7", "above zero"),
        (5, "EUR = \"1.0000000001\"", "line 5, column 7", "9 digits"),
        (5, "EUR = \"1,08\"", "line 5, column 7", "decimal number"),
        (5, "EUR = nan", "line 5, column 7", "decimal number"),
        (
            5,
            "euro = 1.08",
            "line 5, column 1",
            "three capital letters",
        ),
        (7, "silver = 0", "line 7, column 10", "must rise"),
        (8, "gold = 500", "line 8, column 8", "must rise"),
        (9, "platinum = 1500", "line 9, column 12", "must rise"),
        (9, "platinum = -1", "line 9, column 12", "tiers: platinum"),
        (9, "", "line 6, column 1", "tiers: platinum is missing"),
        (12, "", "line 11, column 1", "rule 1: name is missing"),
        (12, "name = \"\"", "line 12, column 8", "name is empty"),
        (
            12,
            "name = \"a\\u0000\"",
            "line 12, column 8",
            "control character",
        ),
        (
            13,
            "event = \"SPA\"",
            "line 13, column 9",
            "rule \"stay\": unknown event \"SPA\"",
        ),
        (
            13,
            "event = \"DINING\"",
            "line 14, column 25",
            "per_night on DINING, which has no nights",
        ),
        (
            14,
            "formula = { per_night = { points = -1 } }",
            "line 14, column 36",
            "zero or more",
        ),
        (
            14,
            "formula = { per_night = { points = 1.5 } }",
            "line 14, column 36",
            "whole number",
        ),
        (
            14,
            "formula = { per_night = { points = 1 }, flat = { points = 1 } }",
            "line 14, column 11",
            "exactly one",
        ),
        (14, "formula = {}", "line 14, column 11", "exactly one"),
        (
            14,
            "formula = { per_week = { points = 1 } }",
            "line 14, column 13",
            "unknown key \"per_week\"",
        ),
        (
            14,
            "formula = { per_night = { unit = \"1\", points = 1 } }",
            "line 14, column 27",
            "unknown key \"unit\"",
        ),
        (
            15,
            "when = { tier = [] }",
            "line 15, column 17",
            "never match",
        ),
        (
            15,
            "when = { tier = [\"TIN\"] }",
            "line 15, column 18",
            "not a tier",
        ),
        (
            15,
            "when = { weekdays = [\"someday\"] }",
            "line 15, column 22",
            "not a weekday",
        ),
        (
            15,
            "when = { field.nights = { at_most = 0 } }",
            "line 15, column 25",
            "never match",
        ),
        (
            15,
            "when = { field.nights = { equals = \"many\" } }",
            "line 15, column 36",
            "decimal number",
        ),
        (
            15,
            "when = { field.amount = { at_most = -1 } }",
            "line 15, column 25",
            "never match",
        ),
        (
            15,
            "when = { field.x = { one_of = [] } }",
            "line 15, column 20",
            "never match",
        ),
        (
            15,
            "when = { field.x = { at_least = 2, at_most = 1 } }",
            "line 15, column 20",
            "never match",
        ),
        (
            15,
            "when = { field.x = { equals = 1, at_least = 2 } }",
            "line 15, column 20",
            "never match",
        ),
        (
            15,
            "when = { field.x = { equals = 1, one_of = [1] } }",
            "line 15, column 43",
            "not both",
        ),
        (
            15,
            "when = { field.x = {} }",
            "line 15, column 20",
            "needs one of",
        ),
        (
            15,
            "when = { field.x = 1 }",
            "line 15, column 20",
            "must be a table",
        ),
        (
            15,
            "when = { field.currency = { equals = \"CHF\" } }",
            "line 15, column 38",
            "not among the currencies",
        ),
        (
            15,
            "when = { field.currency = { at_least = 1 } }",
            "line 15, column 27",
            "never match",
        ),
        (
            15,
            "when = { valid = { from = \"2026-02-01\", until = \"2026-01-01\" } }",
            "line 15, column 18",
            "never match",
        ),
        (
            15,
            "when = { valid = { from = \"2026-02-30\" } }",
            "line 15, column 27",
            "not an instant",
        ),
        (
            15,
            "when = { valid = { from = 2026-02-01T00:00:00 } }",
            "line 15, column 27",
            "with its offset",
        ),
        (
            15,
            "when = { valid = {} }",
            "line 15, column 18",
            "from, until or both",
        ),
        (15, "cap_per_event = 0", "line 15, column 17", "never give"),
        (
            15,
            "cap_per_hour = 1",
            "line 15, column 1",
            "rule \"stay\": unknown key \"cap_per_hour\"",
        ),
        (
            18,
            "name = \"stay\"",
            "line 18, column 8",
            "rule \"stay\": there is a rule of this name above",
        ),
        (
            19,
            "event = \"ORDER_COMPLETED\"",
            "line 20, column 26",
            "per_amount on ORDER_COMPLETED",
        ),
        (
            20,
            "formula = { per_amount = { unit = \"0\", points = 3 } }",
            "line 20, column 35",
            "a unit is above zero",
        ),
        (
            20,
            "formula = { per_amount = { unit = \"-10\", points = 3 } }",
            "line 20, column 35",
            "above zero",
        ),
        (
            20,
            "formula = { per_amount = { points = 3 } }",
            "line 20, column 26",
            "unit is missing",
        ),
        (21, "cap_per_day = -5", "line 21, column 15", "cap_per_day"),
        (
            21,
            "when = { time_of_day = { from = \"08:00\", until = \"18:00\" } }",
            "line 22, column 1",
            "do not overlap",
        ),
        (
            23,
            "factor = \"0\"",
            "line 23, column 10",
            "rule \"meal\": a factor is above zero",
        ),
        (23, "factor = -1.5", "line 23, column 10", "above zero"),
        (23, "", "line 22, column 1", "factor is missing"),
        (
            24,
            "when = { time_of_day = { from = \"18:00\", until = \"18:00\" } }",
            "line 24, column 24",
            "equal",
        ),
        (
            24,
            "when = { time_of_day = { from = \"6pm\", until = \"18:00\" } }",
            "line 24, column 33",
            "not a time of day",
        ),
        (
            24,
            "when = { time_of_day = { from = \"18:00\" } }",
            "line 24, column 24",
            "until is missing",
        ),
        (
            24,
            "when = { time_of_day = { from = 18, until = \"20:00\" } }",
            "line 24, column 33",
            "a date or a time",
        ),
    ] {
        let mut lines: Vec<&str> = FILE.lines().collect();
        lines[number - 1] = line;
        let error = Programme::parse(&lines.join("\n"))
            .expect_err(line)
            .to_string();
        assert!(
            error.starts_with(place) && error.contains(part),
            "{line}\n  expected {place} … {part}\n  found {error}"
        );
    }
    assert!(Programme::parse("").is_err());
    let no_field = format!(
        "{HEAD}rules = [{{ name = \"r\", event = \"ORDER\", when = {{ field.game = {{ equals = 1 }} }}, formula = {{ flat = {{ points = 1 }} }} }}]"
    );
    let error = Programme::parse(&no_field)
        .expect_err("orders have no such field")
        .to_string();
    assert!(error.contains("ORDER has no field game"), "{error}");
}

#[test]
fn a_multiplier_that_contradicts_its_rule_is_refused() {
    let file = |rule: &str, multiplier: &str| {
        format!(
            "{HEAD}rules = [{{ name = \"r\", event = \"DINING\", when = {{ {rule} }}, formula = {{ flat = {{ points = 1 }} }}, multipliers = [{{ factor = 2, when = {{ {multiplier} }} }}] }}]"
        )
    };
    for (rule, multiplier, sound) in [
        (r#"tier = ["GOLD"]"#, r#"tier = ["SILVER"]"#, false),
        (r#"tier = ["GOLD", "SILVER"]"#, r#"tier = ["SILVER"]"#, true),
        (r#"weekdays = ["sat"]"#, r#"weekdays = ["sun"]"#, false),
        (
            r#"valid = { until = "2026-01-01" }"#,
            r#"valid = { from = "2026-01-01" }"#,
            false,
        ),
        (
            r#"valid = { until = "2026-01-02" }"#,
            r#"valid = { from = "2026-01-01" }"#,
            true,
        ),
        (
            r#"time_of_day = { from = "22:00", until = "06:00" }"#,
            r#"time_of_day = { from = "06:00", until = "07:00" }"#,
            false,
        ),
        (
            r#"time_of_day = { from = "22:00", until = "06:00" }"#,
            r#"time_of_day = { from = "05:00", until = "07:00" }"#,
            true,
        ),
        (
            r"field.a = { equals = 1 }",
            r"field.a = { at_least = 2 }",
            false,
        ),
        (
            r"field.a = { one_of = [1, 2] }",
            r"field.a = { at_least = 2 }",
            true,
        ),
        (
            r"field.a = { at_most = 1 }",
            r"field.a = { at_least = 2 }",
            false,
        ),
        (
            r"field.a = { at_most = 1 }",
            r"field.b = { at_least = 2 }",
            true,
        ),
    ] {
        let result = Programme::parse(&file(rule, multiplier));
        assert_eq!(result.is_ok(), sound, "{rule} / {multiplier}: {result:?}");
    }
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![0..10_u64.pow(16), 0..100_000_u64]
        .prop_flat_map(|mantissa| (Just(mantissa), 0..=9_u32))
        .prop_map(|(mantissa, scale)| {
            Amount::parse(&format!("{mantissa}e-{scale}")).expect("an amount")
        })
}

fn spending() -> Programme {
    with_rules(
        r#"
        rules = [
            { name = "a", event = "DINING", formula = { per_amount = { unit = "0.3", points = 7 } }, cap_per_day = 1000,
              multipliers = [{ factor = "1.1" }, { factor = "0.7", when = { field.amount = { at_least = 0 } } }] },
            { name = "b", event = "DINING", formula = { per_amount = { unit = "12.5", points = 3 } }, cap_per_event = 500 },
        ]"#,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn more_money_never_gives_fewer_points(one in amount(), other in amount(), already in 0..2000_i64) {
        let programme = spending();
        let (less, more) = (one.min(other), one.max(other));
        let evaluate = |amount: Amount| {
            let award = spent(EventType::Dining, &amount.to_string(), "EUR");
            programme.evaluate(&award, Tier::Bronze).expect("within bounds")
        };
        prop_assert!(evaluate(less).points() <= evaluate(more).points());
        for contribution in evaluate(more).contributions {
            prop_assert!(contribution.rule != "b" || contribution.points <= p(500));
            let given = contribution.within_daily_cap(p(already));
            prop_assert!(given <= contribution.points);
            if let Some(cap) = contribution.daily_cap {
                prop_assert!(given.get() + already <= cap.get().max(already));
            }
        }
    }

    #[test]
    fn points_are_the_floor_of_the_exact_value(cents in 0..10_i128.pow(15)) {
        // Rule "a" without its cap, in EUR: floor(floor(amount × 1.08 / 0.3) × 7 × 1.1 × 0.7).
        let units = cents * 108 / 3000;
        let expected = units * 7 * 77 / 100;
        let amount = format!("{cents}e-2");
        let award = spent(EventType::Dining, &Amount::parse(&amount).expect("an amount").to_string(), "EUR");
        let evaluation = spending().evaluate(&award, Tier::Bronze).expect("within bounds");
        let given = evaluation.contributions.iter().find(|c| c.rule == "a").map_or(0, |c| c.points.get());
        prop_assert_eq!(i128::from(given), expected);
    }

    #[test]
    fn a_bonus_is_the_floor_of_the_exact_value(cents in 1..10_i128.pow(15), per_unit in 1..10_i128.pow(9)) {
        // In EUR, at 1.08 and so many thousandths of a point for a unit.
        let file = format!("{HEAD}[promotions]\npoints_per_unit = \"{per_unit}e-3\"\n");
        let programme = Programme::parse(&file).expect("sound");
        let amount = Amount::parse(&format!("{cents}e-2")).expect("an amount");
        let given = match programme.bonus(amount, Currency::parse("EUR")) {
            Ok(points) => Some(i128::from(points.get())),
            Err(BonusError::NoPoints) => Some(0),
            Err(_) => None,
        };
        let expected = cents * 108 * per_unit / 10_i128.pow(7);
        prop_assert_eq!(given, Some(expected).filter(|points| *points <= i128::from(i64::MAX)));
    }

    #[test]
    fn no_text_does_harm(text in any::<String>(), start: prop::sample::Index, length in 0..40_usize, piece in "[\\[\\]{}=\"'.,0-9a-z\n -]{0,12}") {
        let _ = Programme::parse(&text);
        let mut broken = SHIPPED.to_owned();
        let start = broken.floor_char_boundary(start.index(broken.len()));
        let end = broken.ceil_char_boundary((start + length).min(broken.len()));
        broken.replace_range(start..end, &piece);
        if let Err(error) = Programme::parse(&broken) {
            prop_assert!(error.line >= 1 && error.line <= broken.lines().count() + 1);
            prop_assert!(!error.reason.is_empty() && !error.reason.contains('\n'));
        }
    }
}
