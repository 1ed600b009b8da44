//! Migrations expand first and contract later: while a release is rolled out, programs of the version before work on the
//! new schema, and a release can be taken back without touching it. So nothing that an earlier migration made is taken
//! away, renamed, narrowed or locked for long, unless the migration says why nobody needs it any more.

use std::{collections::BTreeSet, fs};

use tests::components::repository;

/// What a comment right above a statement begins with that contracts all the same. The reason follows.
const CONTRACT: &str = "-- contract:";

/// Written when no installation had anything to keep writers out of, and not to be written anew: their checksums are in
/// databases.
const INDEXES_OF_EMPTY_TABLES: [&str; 3] = [
    "20261122000002_reconciliation.sql",
    "20261123000002_api.sql",
    "20261128000011_pruning.sql",
];
/// What an index of an old table is said to do.
const KEEPS_WRITERS_OUT: &str = "keeps writers out of an old table while it makes an index";

/// A statement, and whether a reason stands above it.
struct Statement {
    text: String,
    has_reason: bool,
}

/// The statements of a file, in one line each and without comments and bodies of functions.
fn statements(sql: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let (mut text, mut has_reason, mut in_body) = (String::new(), false, false);
    for line in sql.lines() {
        let line = line.trim();
        if text.is_empty() && line.starts_with("--") {
            has_reason |= line
                .strip_prefix(CONTRACT)
                .is_some_and(|reason| !reason.trim().is_empty());
            continue;
        }
        let code = line.split("--").next().unwrap_or_default();
        if code.matches("$$").count() % 2 == 1 {
            in_body = !in_body;
        }
        if !code.is_empty() {
            text.push_str(code);
            text.push(' ');
        }
        if code.trim_end().ends_with(';') && !in_body {
            statements.push(Statement {
                text: std::mem::take(&mut text),
                has_reason: std::mem::take(&mut has_reason),
            });
        }
    }
    assert!(text.trim().is_empty(), "a statement does not end: {text}");
    statements
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .map(str::to_uppercase)
        .collect()
}

fn after<'a>(words: &'a [String], beginning: &[&str]) -> Option<&'a str> {
    let skipped = ["IF", "NOT", "EXISTS", "ONLY"];
    let at = words
        .windows(beginning.len())
        .position(|window| window == beginning)?;
    let mut rest = words[at + beginning.len()..].iter();
    rest.find(|word| !skipped.contains(&word.as_str()))
        .map(String::as_str)
}

/// What is wrong with a statement, given the tables that the same migration has made.
fn contracts(statement: &str, made: &BTreeSet<String>) -> Option<&'static str> {
    let words = words(statement);
    let has = |sequence: &[&str]| {
        words
            .windows(sequence.len())
            .any(|window| window == sequence)
    };
    let first = words.first().map_or("", String::as_str);
    if first == "DROP" && !has(&["DROP", "TRIGGER"]) {
        return Some("takes something away");
    }
    if first == "CREATE" && has(&["INDEX"]) && !has(&["CONCURRENTLY"]) {
        let on = after(&words, &["ON"]).unwrap_or_default();
        return (!made.contains(on)).then_some(KEEPS_WRITERS_OUT);
    }
    if first == "LOCK" || first == "TRUNCATE" || first == "DELETE" {
        return Some("takes something away or keeps others out");
    }
    if !has(&["ALTER", "TABLE"]) {
        return None;
    }
    if after(&words, &["ALTER", "TABLE"]).is_some_and(|table| made.contains(table)) {
        return None;
    }
    let adds_column = has(&["ADD", "COLUMN"]);
    if has(&["DROP", "COLUMN"]) || has(&["DROP", "CONSTRAINT"]) {
        Some("takes something away")
    } else if has(&["RENAME"]) {
        Some("renames what the version before knows by its name")
    } else if has(&["TYPE"]) || has(&["SET", "NOT", "NULL"]) {
        Some("narrows a column that the version before writes")
    } else if adds_column && has(&["NOT", "NULL"]) && !has(&["DEFAULT"]) {
        Some("wants a value that the version before does not give")
    } else if has(&["ADD", "CONSTRAINT"]) && !has(&["NOT", "VALID"]) {
        Some(
            "checks every row while it keeps writers out: add it NOT VALID, and validate it in a migration of its own",
        )
    } else {
        None
    }
}

fn faults(sql: &str) -> Vec<String> {
    let mut made = BTreeSet::new();
    let mut faults = Vec::new();
    for statement in statements(sql) {
        if let Some(table) = after(&words(&statement.text), &["CREATE", "TABLE"]) {
            made.insert(table.to_owned());
        }
        if let Some(fault) = contracts(&statement.text, &made)
            && !statement.has_reason
        {
            faults.push(format!("{fault}: {}", statement.text.trim()));
        }
    }
    faults
}

#[test]
fn every_migration_only_expands() {
    let mut files: Vec<_> = fs::read_dir(repository().join("migrations"))
        .expect("there")
        .map(|entry| entry.expect("it is readable").path())
        .collect();
    files.sort();
    assert!(files.len() >= 9);
    for file in files {
        let sql = fs::read_to_string(&file).expect("it is readable");
        let name = file.file_name().and_then(|name| name.to_str());
        let old = name.is_some_and(|name| INDEXES_OF_EMPTY_TABLES.contains(&name));
        let mut faults = faults(&sql);
        faults.retain(|fault| !(old && fault.starts_with(KEEPS_WRITERS_OUT)));
        assert!(faults.is_empty(), "{}: {faults:#?}", file.display());
    }
}

/// The check of the check.
#[test]
fn what_contracts_is_found_unless_it_says_why() {
    let expands = "CREATE TABLE a (b bigint NOT NULL); -- new\nCREATE INDEX a_b ON a (b);\nALTER TABLE a ADD CONSTRAINT c CHECK (b > 0);
        ALTER TABLE old ADD COLUMN d text;\nALTER TABLE old ADD COLUMN e text NOT NULL DEFAULT '';
        CREATE INDEX CONCURRENTLY IF NOT EXISTS old_d ON old (d);
        ALTER TABLE old ADD CONSTRAINT f CHECK (d <> '') NOT VALID;
        CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS $$\nBEGIN\n DELETE FROM h; RETURN NULL;\nEND $$;";
    assert_eq!(faults(expands), Vec::<String>::new());
    for contracting in [
        "DROP TABLE old;",
        "DROP INDEX old_d;",
        "ALTER TABLE old DROP COLUMN d;",
        "ALTER TABLE IF EXISTS old RENAME COLUMN d TO e;",
        "ALTER TABLE old\n    ALTER COLUMN d TYPE bigint USING d::bigint;",
        "ALTER TABLE old ALTER COLUMN d SET NOT NULL;",
        "ALTER TABLE old ADD COLUMN e text NOT NULL;",
        "ALTER TABLE old ADD CONSTRAINT f CHECK (d <> '');",
        "CREATE UNIQUE INDEX old_d ON old (d);",
        "DELETE FROM old;",
    ] {
        assert_eq!(faults(contracting).len(), 1, "{contracting}");
        let with_reason = format!("{CONTRACT} no version since 0.2 reads it\n{contracting}");
        assert_eq!(faults(&with_reason), Vec::<String>::new(), "{contracting}");
        let without = format!("{CONTRACT}\n{contracting}");
        assert_eq!(faults(&without).len(), 1, "a reason has words");
    }
}
