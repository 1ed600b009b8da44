//! The tables of docs/api.md say what the code says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use domain::RefusalClass;
use serde_json::Value;
use tests::components::repository;

/// Refusals of messages on Kafka that no request meets: the same id with another body is answered
/// with CONFLICTING_REQUEST, and what the database refuses ends in the dead letters.
const NEVER_OVER_HTTP: [RefusalClass; 2] = [RefusalClass::BodyConflict, RefusalClass::DataError];

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).expect("the file is there")
}

/// The cells of the rows of the table whose heading is given.
fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, after) = text.split_once(heading).expect("the table is there");
    after
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let line = line.trim_matches('|');
            line.split('|').map(|cell| cell.trim().to_owned()).collect()
        })
        .collect()
}

/// Everything in back quotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn status(name: &str) -> u16 {
    match name {
        "BAD_REQUEST" => 400,
        "UNAUTHORIZED" => 401,
        "FORBIDDEN" => 403,
        "NOT_FOUND" => 404,
        "METHOD_NOT_ALLOWED" => 405,
        "REQUEST_TIMEOUT" => 408,
        "CONFLICT" => 409,
        "GONE" => 410,
        "PAYLOAD_TOO_LARGE" => 413,
        "UNSUPPORTED_MEDIA_TYPE" => 415,
        "UNPROCESSABLE_ENTITY" => 422,
        "UPGRADE_REQUIRED" => 426,
        "TOO_MANY_REQUESTS" => 429,
        "INTERNAL_SERVER_ERROR" => 500,
        "SERVICE_UNAVAILABLE" => 503,
        other => panic!("{other} is a status that this test does not know"),
    }
}

/// Every code that `ApiError::told` can tell, with its status.
fn codes_told() -> BTreeMap<String, u16> {
    let source = read("api/src/error.rs");
    let (_, told) = source.split_once("fn told(").expect("it is there");
    let (told, _) = told.split_once("\n    }\n").expect("it ends");
    let is_code =
        |text: &&str| text.len() > 3 && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let mut codes = BTreeMap::new();
    // Each arm begins with the error that it tells of.
    for arm in told.split("            Self::").skip(1) {
        let codes_of_arm: Vec<&str> = arm.split('"').skip(1).step_by(2).filter(is_code).collect();
        let names = arm.split("S::").skip(1).map(|after| {
            let end = after.find(|c: char| !c.is_ascii_uppercase() && c != '_');
            &after[..end.unwrap_or(after.len())]
        });
        let statuses: BTreeSet<u16> = names.map(status).collect();
        for code in codes_of_arm {
            let mut statuses = statuses.iter();
            let (Some(status), None) = (statuses.next(), statuses.next()) else {
                panic!("{code} has not one status");
            };
            codes.insert(code.to_owned(), *status);
        }
    }
    assert!(
        codes.len() > 30,
        "this test does not read error.rs: {codes:?}"
    );
    for class in RefusalClass::ALL {
        if !NEVER_OVER_HTTP.contains(&class) {
            codes.entry(class.to_string()).or_insert(400);
        }
    }
    codes
}

#[test]
fn every_error_code_is_in_its_table() {
    let documented: BTreeMap<String, u16> = table(&read("docs/api.md"), "| code | status |")
        .iter()
        .map(|row| {
            assert_eq!(row.len(), 4, "{row:?}");
            assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
            let code = quoted(&row[0]).next().expect("a code").to_owned();
            (code, row[1].parse().expect("a status"))
        })
        .collect();
    assert_eq!(documented, codes_told());
}

#[test]
fn every_call_is_in_its_table() {
    let document: Value = serde_json::from_str(&read("api/openapi.json")).expect("JSON");
    let mut described = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, call) in methods.as_object().expect("methods") {
            let scope = call["security"][0]["token"][0].as_str().map(str::to_owned);
            described.insert(format!("{} {path}", method.to_uppercase()), scope);
        }
    }
    let mut documented = BTreeSet::new();
    for row in table(&read("docs/api.md"), "| call | for |") {
        for call in quoted(&row[0]) {
            let scope = described
                .get(call)
                .unwrap_or_else(|| panic!("{call} is in the table and not in the API"));
            if let Some(scope) = scope {
                assert!(row[1].contains(scope), "{call} needs {scope}: {row:?}");
            }
            documented.insert(call.to_owned());
        }
    }
    let described: BTreeSet<String> = described.into_keys().collect();
    assert_eq!(documented, described);
}

#[test]
fn the_limits_are_those_of_the_configuration() {
    let configuration = read("meed.toml");
    let (_, limits) = configuration.split_once("[limits]").expect("it is there");
    let (limits, _) = limits.split_once("\n[").expect("another section follows");
    let limits: toml::Table = toml::from_str(limits).expect("TOML");
    let of_classes = limits.iter().filter_map(|(class, limits)| {
        let limits = limits.as_table()?;
        let number = |name: &str| limits[name].to_string();
        let numbers = ["capacity", "refill_per_second", "max_concurrent"].map(number);
        Some((class.clone(), numbers.to_vec()))
    });
    let documented = table(&read("docs/api.md"), "| kind | capacity |");
    let documented = documented.into_iter().map(|row| {
        let class = quoted(&row[0]).next().expect("a class").to_owned();
        (class, row[1..].to_vec())
    });
    assert_eq!(
        documented.collect::<BTreeMap<_, _>>(),
        of_classes.collect::<BTreeMap<_, _>>()
    );
}
