//! Data goes one way: which room may know which, and which libraries stay out of which room.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use cargo_metadata::{DependencyKind, MetadataCommand};
use tests::components::repository;

/// The rooms that a room may know.
const MAY_KNOW: [(&str, &[&str]); 15] = [
    ("domain", &[]),
    ("workflows", &["domain"]),
    ("faultpoint", &[]),
    ("store", &["domain", "faultpoint"]),
    ("kv", &[]),
    ("ranking", &["domain", "store", "kv"]),
    (
        "activities",
        &["domain", "workflows", "store", "faultpoint"],
    ),
    (
        "boot",
        &[
            "domain",
            "workflows",
            "store",
            "kv",
            "activities",
            "faultpoint",
        ],
    ),
    (
        "worker",
        &[
            "domain",
            "workflows",
            "store",
            "ranking",
            "activities",
            "boot",
            "faultpoint",
        ],
    ),
    (
        "api",
        &[
            "domain",
            "workflows",
            "store",
            "kv",
            "ranking",
            "activities",
            "boot",
            "faultpoint",
        ],
    ),
    ("ops", &["domain", "workflows", "store", "boot"]),
    ("simulator", &[]),
    // What judges the product shares nothing with it.
    ("chaos", &["stack", "samples"]),
    ("stack", &[]),
    ("samples", &[]),
];

/// Libraries that a room may not use.
const MAY_NOT_USE: [(&str, &[&str]); 10] = [
    (
        "domain",
        &[
            "tokio",
            "sqlx",
            "rdkafka",
            "axum",
            "reqwest",
            "rand",
            "temporalio-sdk",
        ],
    ),
    (
        "workflows",
        &[
            "tokio",
            "sqlx",
            "rdkafka",
            "axum",
            "reqwest",
            "rand",
            "temporalio-sdk",
        ],
    ),
    (
        "store",
        &[
            "rdkafka",
            "axum",
            "reqwest",
            "temporalio-sdk",
            "temporalio-client",
        ],
    ),
    (
        "kv",
        &["sqlx", "rdkafka", "axum", "reqwest", "temporalio-sdk"],
    ),
    (
        "ranking",
        &[
            "sqlx",
            "rdkafka",
            "axum",
            "reqwest",
            "temporalio-sdk",
            "temporalio-client",
        ],
    ),
    ("activities", &["rdkafka", "axum"]),
    ("api", &["rdkafka"]),
    ("boot", &["rdkafka"]),
    (
        "stack",
        &[
            "sqlx",
            "rdkafka",
            "tokio",
            "temporalio-sdk",
            "temporalio-client",
        ],
    ),
    ("samples", &["temporalio-sdk", "temporalio-client"]),
];

/// Rooms that nothing but tests may know.
const KNOWN_TO_TESTS_ONLY: [&str; 6] = ["tests", "samples", "stack", "simulator", "chaos", "bench"];
/// Rooms that are tests.
const TESTS: [&str; 3] = ["tests", "chaos", "bench"];

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(repository().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo knows the workspace");
    metadata
        .packages
        .iter()
        .map(|package| {
            let names = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind == DependencyKind::Normal)
                .map(|dependency| dependency.name.clone())
                .collect();
            (package.name.to_string(), names)
        })
        .collect()
}

#[test]
fn rooms_know_only_whom_they_may() {
    let dependencies = dependencies();
    let rooms: BTreeSet<&String> = dependencies.keys().collect();
    for (room, allowed) in MAY_KNOW {
        let known = dependencies
            .get(room)
            .unwrap_or_else(|| panic!("there is no room {room}"));
        for other in known.iter().filter(|name| rooms.contains(name)) {
            assert!(
                allowed.contains(&other.as_str()),
                "{room} may not know {other}"
            );
        }
    }
    for (room, known) in &dependencies {
        for other in KNOWN_TO_TESTS_ONLY {
            assert!(
                TESTS.contains(&room.as_str()) || !known.contains(other),
                "{room} may not know {other}"
            );
        }
    }
}

#[test]
fn libraries_stay_out_of_rooms_they_do_not_belong_in() {
    let dependencies = dependencies();
    for (room, forbidden) in MAY_NOT_USE {
        for library in forbidden {
            assert!(
                !dependencies[room].contains(*library),
                "{room} may not use {library}"
            );
        }
    }
}

/// Workflow code is replayed: nothing in it may ask the outside world.
#[test]
fn workflows_ask_no_clock_and_no_dice() {
    let sources = std::fs::read_dir(repository().join("workflows/src")).expect("sources");
    for source in sources {
        let path = source.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        for forbidden in [
            "Utc::now",
            "SystemTime::now",
            "Instant::now",
            "rand::",
            "std::env",
            "HashMap",
        ] {
            assert!(
                !text.contains(forbidden),
                "{} uses {forbidden}",
                path.display()
            );
        }
    }
}

/// A transaction that is given up while it begins is left open on its connection, which
/// `store::transaction` sees to.
#[test]
fn transactions_begin_in_one_place() {
    let rooms = ["store", "ranking", "activities", "worker", "api", "ops"];
    for source in rooms
        .iter()
        .flat_map(|room| sources(&repository().join(room).join("src")))
    {
        let text = std::fs::read_to_string(&source).expect("readable");
        let begins = text.contains("pool.begin()") || text.contains(".begin_with(");
        assert!(
            !begins || source.ends_with("store/src/transaction.rs"),
            "{} begins a transaction by itself",
            source.display()
        );
    }
}

/// All files of a folder and those in it.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("readable");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                sources(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

/// Every room is described in ARCHITECTURE.md.
#[test]
fn the_map_shows_every_room() {
    let map = std::fs::read_to_string(repository().join("ARCHITECTURE.md")).expect("a map");
    for room in dependencies().keys() {
        assert!(
            map.contains(&format!("`{room}/`")),
            "ARCHITECTURE.md does not show {room}/"
        );
    }
}
