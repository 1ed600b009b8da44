//! The hash chain: it is complete whatever commits late, and shows whatever is changed afterwards.

use sqlx::{
    PgPool,
    postgres::{PgConnection, PgPoolOptions},
};
use std::time::Duration;
use store::{
    chain::{self, Fault, Findings, Head},
    testing,
};

use crate::support::*;

/// Seals everything.
async fn sealed(pool: &PgPool) -> Head {
    let mut head = None;
    loop {
        let sealed = chain::seal(pool, 3).await.unwrap();
        head = sealed.head.or(head);
        if !sealed.more {
            return head.expect("something was sealed");
        }
    }
}

/// A ledger of one customer with ten sealed transfers, with the ids 1 to 10.
async fn ledger_of_ten() -> (testing::TestDatabase, Head) {
    let db = testing::database().await;
    let stays: Vec<_> = (1..=10).map(|n| stay(&format!("e{n}"), "A", n)).collect();
    post(&db.pool, &stays).await;
    let head = sealed(&db.pool).await;
    assert_eq!(head.transfer_id, 10);
    assert_eq!(faults(&db.pool).await, []);
    (db, head)
}

async fn check(pool: &PgPool) -> Findings {
    chain::check(pool, &[]).await.unwrap()
}

async fn faults(pool: &PgPool) -> Vec<(i64, Fault)> {
    let findings = check(pool).await;
    assert!(findings.violations >= findings.examples.len());
    let examples = findings.examples.iter();
    examples.map(|v| (v.transfer_id, v.fault)).collect()
}

/// What a superuser can do: nothing refuses it.
async fn tamper(pool: &PgPool, statements: &str) {
    let statements = format!(
        "SET session_replication_role = replica;
         ALTER TABLE transfers DISABLE TRIGGER transfers_append_only;
         ALTER TABLE transfer_hashes DISABLE TRIGGER transfer_hashes_append_only;
         {statements};
         ALTER TABLE transfers ENABLE TRIGGER transfers_append_only;
         ALTER TABLE transfer_hashes ENABLE TRIGGER transfer_hashes_append_only;
         RESET session_replication_role"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
        .execute(pool)
        .await
        .unwrap();
}

/// Writes a transfer of customer A as any transaction does; `n` is its version.
async fn insert(conn: &mut PgConnection, n: i64) {
    sqlx::query(
        "INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account,
                customer_id, amount, reason, workflow_id, customer_version, available_after,
                held_after, occurred_at)
         VALUES ('test', $1::bigint::text, 'adjust', 'ADJUSTMENT', 'AVAILABLE', 'A', 1, 'TEST', 'test',
                 $1, $1, 0, now())",
    )
    .bind(n)
    .execute(conn)
    .await
    .unwrap();
}

async fn account(pool: &PgPool) {
    sqlx::query("INSERT INTO customers (customer_id) VALUES ('A')")
        .execute(pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_empty_ledger_has_an_empty_chain() {
    let db = testing::database().await;
    assert_eq!(
        chain::seal(&db.pool, 10).await.unwrap(),
        chain::Sealed::default()
    );
    assert_eq!(check(&db.pool).await, Findings::default());
    assert_eq!(chain::unsealed(&db.pool).await.unwrap().transfers, 0);
}

#[tokio::test]
async fn what_is_posted_is_sealed_piece_by_piece_and_the_chain_goes_on() {
    let (db, first) = ledger_of_ten().await;
    post(&db.pool, &[stay("e11", "B", 1)]).await;
    let findings = check(&db.pool).await;
    assert_eq!((findings.sealed, findings.unsealed), (10, 1));
    assert_eq!(findings.head, Some(first.clone()));
    let waiting = chain::unsealed(&db.pool).await.unwrap();
    assert_eq!(waiting.transfers, 1);
    assert!(waiting.oldest_age_seconds > 0.0);

    let second = sealed(&db.pool).await;
    assert_eq!(second.transfer_id, 11);
    let findings = chain::check(&db.pool, &[first, second.clone()])
        .await
        .unwrap();
    assert_eq!((findings.sealed, findings.unsealed), (11, 0));
    assert_eq!((findings.head, findings.violations), (Some(second), 0));
    assert_eq!(
        chain::unsealed(&db.pool).await.unwrap(),
        chain::Unsealed::default()
    );
    assert_ledger_agrees(&db.pool).await;
}

#[tokio::test]
async fn sealing_twice_at_once_is_harmless_and_the_pieces_do_not_matter() {
    let db = testing::database().await;
    let stays: Vec<_> = (1..=60).map(|n| stay(&format!("e{n}"), "A", 1)).collect();
    post(&db.pool, &stays).await;
    let hashes = async || -> Vec<(i64, Vec<u8>)> {
        sqlx::query_as("SELECT transfer_id, hash FROM transfer_hashes ORDER BY 1")
            .fetch_all(&db.pool)
            .await
            .unwrap()
    };
    let seal = async |limit| while chain::seal(&db.pool, limit).await.unwrap().more {};
    tokio::join!(seal(7), seal(10), seal(60));
    let at_once = hashes().await;
    assert_eq!(at_once.len(), 60);
    assert_eq!(faults(&db.pool).await, []);
    tamper(&db.pool, "TRUNCATE transfer_hashes").await;
    seal(1_000).await;
    assert_eq!(hashes().await, at_once);
}

/// Waits until whoever seals over this pool of one connection has looked who writes.
async fn until_looked(sealers: &PgPool, pool: &PgPool) {
    for waited in 0.. {
        // While the connection is held here, what was asked over it last has been answered.
        let held = sealers.acquire().await.unwrap();
        let (looked,): (bool,) = sqlx::query_as(
            "SELECT EXISTS (
                 SELECT FROM pg_stat_activity WHERE datname = current_database()
                 AND query LIKE '%FROM pg_locks%' AND query NOT LIKE '%pg_stat_activity%')",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        drop(held);
        if looked {
            return;
        }
        assert!(waited < 6_000, "it never looked");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The transaction with the lower id commits last: the chain waits for it.
#[tokio::test]
async fn a_late_commit_with_a_lower_id_is_never_skipped() {
    let db = testing::database().await;
    account(&db.pool).await;
    let mut late = db.pool.begin().await.unwrap();
    insert(&mut late, 1).await;
    let mut early = db.pool.begin().await.unwrap();
    insert(&mut early, 2).await;
    early.commit().await.unwrap();

    let sealers = PgPoolOptions::new().max_connections(1);
    let sealers = sealers.connect(&db.url).await.unwrap();
    let pool = sealers.clone();
    let sealing = tokio::spawn(async move { chain::seal(&pool, 10).await.unwrap() });
    until_looked(&sealers, &db.pool).await;
    // Long enough for one that does not wait.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!sealing.is_finished(), "it waits for the one under way");
    assert_eq!(check(&db.pool).await.sealed, 0);
    // Whoever begins after it looked is not waited for.
    let mut later = db.pool.begin().await.unwrap();
    insert(&mut later, 3).await;
    late.commit().await.unwrap();

    let sealed = sealing.await.unwrap();
    assert_eq!(sealed.transfers, 2);
    assert_eq!(sealed.head.unwrap().transfer_id, 2);
    later.commit().await.unwrap();
    assert_eq!(chain::seal(&db.pool, 10).await.unwrap().transfers, 1);
    let findings = check(&db.pool).await;
    assert_eq!((findings.sealed, findings.violations), (3, 0));
}

#[tokio::test]
async fn an_id_that_was_rolled_back_is_a_gap() {
    let db = testing::database().await;
    account(&db.pool).await;
    let mut undone = db.pool.begin().await.unwrap();
    insert(&mut undone, 1).await;
    let mut conn = db.pool.acquire().await.unwrap();
    insert(&mut conn, 2).await;
    undone.rollback().await.unwrap();
    assert_eq!(sealed(&db.pool).await.transfer_id, 2);
    let findings = check(&db.pool).await;
    assert_eq!((findings.sealed, findings.violations), (1, 0));
}

/// A transaction can have taken an id and not have a number yet, so that no list of numbers that
/// are under way has it. Its lock is there.
#[tokio::test]
async fn an_id_that_was_taken_before_the_transaction_has_a_number_is_waited_for() {
    let db = testing::database().await;
    account(&db.pool).await;
    // Between taking the id and writing the row, the first transfer waits for the gate.
    sqlx::raw_sql(
        "CREATE FUNCTION wait_at_the_gate() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF NEW.customer_version = 1 THEN PERFORM pg_advisory_xact_lock(1); END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER gate BEFORE INSERT ON transfers
             FOR EACH ROW EXECUTE FUNCTION wait_at_the_gate()",
    )
    .execute(&db.pool)
    .await
    .unwrap();
    let mut gate = db.pool.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(1)")
        .execute(&mut *gate)
        .await
        .unwrap();
    // Taking an id numbers the transaction only now and then: every 32nd id is written to the log.
    sqlx::query("SELECT nextval('transfers_transfer_id_seq')")
        .execute(&db.pool)
        .await
        .unwrap();
    let pool = db.pool.clone();
    let late = tokio::spawn(async move { insert(&mut pool.acquire().await.unwrap(), 1).await });
    for waited in 0.. {
        let (waiting,): (i64,) = sqlx::query_as(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&db.pool)
        .await
        .unwrap();
        if waiting == 1 {
            break;
        }
        assert!(waited < 1_000, "it never came to the gate");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut conn = db.pool.acquire().await.unwrap();
    insert(&mut conn, 2).await;

    let pool = db.pool.clone();
    let sealing = tokio::spawn(async move { chain::seal(&pool, 10).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!sealing.is_finished(), "it waits for the one at the gate");
    gate.rollback().await.unwrap();
    late.await.unwrap();
    assert_eq!(sealing.await.unwrap().transfers, 2);
    let (first,): (i64,) =
        sqlx::query_as("SELECT transfer_id FROM transfers WHERE customer_version = 1")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert_eq!(first, 2, "it had the lower id");
    assert_eq!(faults(&db.pool).await, []);
}

/// Many transactions at once, some of them undone, while the chain is being built.
#[tokio::test]
async fn nothing_is_skipped_while_many_post_at_once() {
    let db = testing::database().await;
    let posted = std::sync::atomic::AtomicBool::new(false);
    let posting = async {
        let mut all = Vec::new();
        for lane in 0..4 {
            let pool = db.pool.clone();
            all.push(tokio::spawn(async move {
                for n in 0..40 {
                    let award = stay(&format!("{lane}-{n}"), &format!("C{lane}"), 1);
                    post(&pool, &[award]).await;
                }
            }));
        }
        for one in all {
            one.await.unwrap();
        }
        posted.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let sealing = async {
        let mut turns = 0;
        while !posted.load(std::sync::atomic::Ordering::Relaxed) {
            chain::seal(&db.pool, 5).await.unwrap();
            turns += 1;
        }
        while chain::seal(&db.pool, 1_000).await.unwrap().transfers > 0 {}
        turns
    };
    let ((), turns) = tokio::join!(posting, sealing);
    assert!(turns > 1, "it was sealed while it was posted");
    let findings = check(&db.pool).await;
    assert_eq!(
        (findings.sealed, findings.unsealed, findings.violations),
        (160, 0, 0)
    );
    assert_ledger_agrees(&db.pool).await;
}

#[tokio::test]
async fn the_chain_is_append_only() {
    let (db, _) = ledger_of_ten().await;
    for statement in [
        "UPDATE transfer_hashes SET sealed_at = now()",
        "DELETE FROM transfer_hashes",
        "TRUNCATE transfer_hashes",
    ] {
        let error = sqlx::query(statement).execute(&db.pool).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
}

// ---------------------------------------------------------------------------------- tampering

/// What is done to the ledger, in words and in SQL, and what is found.
type Case<'a> = (&'a str, String, &'a [(i64, Fault)]);

#[tokio::test]
async fn every_kind_of_tampering_is_found_and_the_first_bad_row_is_named() {
    let insert = "INSERT INTO transfers OVERRIDING SYSTEM VALUE
                  SELECT 5, 'x', 'x', 'award', debit_account, credit_account, customer_id, merchant_id,
                         amount, reason, workflow_id, rule_set_version, 99, available_after,
                         held_after, occurred_at, posted_at FROM transfers WHERE transfer_id = 6";
    let swap = "ALTER TABLE transfers ALTER transfer_id SET GENERATED BY DEFAULT;
                UPDATE transfers SET transfer_id = -1 WHERE transfer_id = 4;
                UPDATE transfers SET transfer_id = 4 WHERE transfer_id = 7;
                UPDATE transfers SET transfer_id = 7 WHERE transfer_id = -1";
    let forged_hash = "UPDATE transfer_hashes SET hash = sha256('forged') WHERE transfer_id = 5";
    let both_removed = "DELETE FROM transfers WHERE transfer_id = 5;
                        DELETE FROM transfer_hashes WHERE transfer_id = 5";
    let cases: [Case<'_>; 13] = [
        (
            "an amount",
            "UPDATE transfers SET amount = amount + 1 WHERE transfer_id = 5".into(),
            &[(5, Fault::Changed)],
        ),
        (
            "the first",
            "UPDATE transfers SET reason = 'GIFT' WHERE transfer_id = 1".into(),
            &[(1, Fault::Changed)],
        ),
        (
            "the last",
            "UPDATE transfers SET reason = 'GIFT' WHERE transfer_id = 10".into(),
            &[(10, Fault::Changed)],
        ),
        (
            "two",
            "UPDATE transfers SET reason = 'GIFT' WHERE transfer_id IN (3, 8)".into(),
            &[(3, Fault::Changed), (8, Fault::Changed)],
        ),
        (
            "a row removed",
            "DELETE FROM transfers WHERE transfer_id = 5".into(),
            &[(5, Fault::Removed)],
        ),
        (
            "the last removed",
            "DELETE FROM transfers WHERE transfer_id = 10".into(),
            &[(10, Fault::Removed)],
        ),
        (
            "a hash changed",
            forged_hash.into(),
            &[(5, Fault::HashChanged)],
        ),
        (
            "a hash removed",
            "DELETE FROM transfer_hashes WHERE transfer_id = 5".into(),
            &[(5, Fault::HashRemoved)],
        ),
        (
            "a row removed with its hash",
            both_removed.into(),
            &[(6, Fault::Changed)],
        ),
        (
            "a row put in where one was removed",
            format!("{both_removed}; {insert}"),
            &[(5, Fault::Inserted), (6, Fault::Changed)],
        ),
        (
            "two swapped",
            swap.into(),
            &[(4, Fault::Changed), (7, Fault::Changed)],
        ),
        (
            "two hashes swapped",
            "UPDATE transfer_hashes a SET hash = b.hash FROM transfer_hashes b
             WHERE (a.transfer_id, b.transfer_id) IN ((4, 7), (7, 4))"
                .into(),
            &[(4, Fault::HashChanged), (7, Fault::HashChanged)],
        ),
        (
            "a short hash",
            "ALTER TABLE transfer_hashes DROP CONSTRAINT transfer_hashes_hash_check;
             UPDATE transfer_hashes SET hash = 'x' WHERE transfer_id = 5"
                .into(),
            &[(5, Fault::HashChanged)],
        ),
    ];
    for (what, statements, expected) in cases {
        let (db, _) = ledger_of_ten().await;
        tamper(&db.pool, &statements).await;
        assert_eq!(faults(&db.pool).await, expected, "{what}");
        let checks = store::verify::verify(&db.pool).await.unwrap();
        let chain = checks.last().expect("the chain is the last");
        assert_eq!(chain.violations, expected.len(), "{what}: {chain:?}");
        let named = format!("transfer {}", expected[0].0);
        assert!(chain.examples[0].contains(&named), "{what}: {chain:?}");
    }
}

/// A row put in where a transaction was rolled back takes nothing else with it.
#[tokio::test]
async fn a_row_that_is_put_into_a_gap_is_found() {
    let db = testing::database().await;
    account(&db.pool).await;
    let mut conn = db.pool.acquire().await.unwrap();
    insert(&mut conn, 1).await;
    sqlx::query("SELECT nextval('transfers_transfer_id_seq')")
        .execute(&mut *conn)
        .await
        .unwrap();
    insert(&mut conn, 2).await;
    sealed(&db.pool).await;
    let put_in = "INSERT INTO transfers OVERRIDING SYSTEM VALUE
                  SELECT 2, 'x', 'x', 'award', debit_account, credit_account, customer_id, merchant_id,
                         amount, reason, workflow_id, rule_set_version, 99, available_after,
                         held_after, occurred_at, posted_at FROM transfers WHERE transfer_id = 1";
    tamper(&db.pool, put_in).await;
    assert_eq!(faults(&db.pool).await, [(2, Fault::Inserted)]);
}

#[tokio::test]
async fn what_was_changed_is_told_as_it_stands_now() {
    let (db, _) = ledger_of_ten().await;
    tamper(
        &db.pool,
        "UPDATE transfers SET amount = 123456 WHERE transfer_id = 5",
    )
    .await;
    let text = check(&db.pool).await.examples[0].to_string();
    for part in [
        "transfer 5",
        "customer A",
        "123456 points",
        "HOTEL_STAY",
        "e5",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

/// No column of a transfer can be changed unseen, also not one that a later migration adds.
#[tokio::test]
async fn every_column_is_in_the_hash() {
    let (db, _) = ledger_of_ten().await;
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT column_name::text, udt_name::text FROM information_schema.columns
         WHERE table_name = 'transfers' ORDER BY ordinal_position",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, chain::COLUMNS);
    // Nothing of the table's own rules is in the way of who tampers.
    let constraints: Vec<(String,)> = sqlx::query_as(
        "SELECT format('ALTER TABLE transfers DROP CONSTRAINT %I CASCADE', conname)
         FROM pg_constraint WHERE conrelid = 'transfers'::regclass AND contype IN ('c', 'u')",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    tamper(&db.pool, "DROP INDEX transfers_by_customer").await;
    for (drop,) in constraints {
        tamper(&db.pool, &drop).await;
    }
    for (column, kind) in &columns[1..] {
        let value = match kind.as_str() {
            "int8" => format!("{column} + 1"),
            "timestamptz" => format!("{column} + interval '1 microsecond'"),
            "account_kind" => "'EXPIRY'".to_owned(),
            "text" => format!("coalesce({column}, '') || 'x'"),
            other => panic!("how is a {other} changed?"),
        };
        let backup = "DROP TABLE IF EXISTS as_it_was; \
                      CREATE TABLE as_it_was AS SELECT * FROM transfers WHERE transfer_id = 5";
        let foreign = if column == "customer_id" {
            "'B'".to_owned()
        } else {
            value
        };
        tamper(
            &db.pool,
            &format!("{backup}; UPDATE transfers SET {column} = {foreign} WHERE transfer_id = 5"),
        )
        .await;
        assert_eq!(faults(&db.pool).await, [(5, Fault::Changed)], "{column}");
        tamper(
            &db.pool,
            &format!(
                "UPDATE transfers t SET {column} = w.{column} FROM as_it_was w
                 WHERE t.transfer_id = w.transfer_id"
            ),
        )
        .await;
        assert_eq!(faults(&db.pool).await, [], "{column} is as it was");
    }
}

/// Who makes the whole chain anew leaves one that agrees with itself, and not with what was noted.
#[tokio::test]
async fn a_chain_that_was_made_anew_is_found_by_a_head_that_was_noted() {
    let (db, head) = ledger_of_ten().await;
    let noted = std::slice::from_ref(&head);
    assert_eq!(chain::check(&db.pool, noted).await.unwrap().violations, 0);
    tamper(
        &db.pool,
        "UPDATE transfers SET reason = 'GIFT' WHERE transfer_id = 5; TRUNCATE transfer_hashes",
    )
    .await;
    let cut_off = chain::check(&db.pool, noted).await.unwrap();
    assert_eq!(cut_off.examples[0].fault, Fault::HeadReplaced);
    sealed(&db.pool).await;
    assert_eq!(faults(&db.pool).await, [], "in itself it agrees");
    let anew = chain::check(&db.pool, noted).await.unwrap();
    assert_eq!(anew.violations, 1);
    assert_eq!(anew.examples[0].fault, Fault::HeadReplaced);
    assert!(anew.examples[0].to_string().contains(&head.hex()));
}

/// Several pieces are read, also where ids are far apart.
#[tokio::test]
async fn a_long_ledger_is_read_in_pieces() {
    let db = testing::database().await;
    account(&db.pool).await;
    sqlx::query(
        "INSERT INTO transfers OVERRIDING SYSTEM VALUE
         SELECT n::bigint * 1000000000, 'test', n::text, 'adjust', 'ADJUSTMENT', 'AVAILABLE', 'A', NULL, 1,
                'TEST', 'test', NULL, n, n, 0, now(), now()
         FROM generate_series(1, 6001) AS n",
    )
    .execute(&db.pool)
    .await
    .unwrap();
    while chain::seal(&db.pool, 2_500).await.unwrap().more {}
    let findings = check(&db.pool).await;
    assert_eq!((findings.sealed, findings.violations), (6_001, 0));
    tamper(
        &db.pool,
        "UPDATE transfers SET amount = 2 WHERE transfer_id = 2000000000000;
         DELETE FROM transfers WHERE transfer_id BETWEEN 3000000000000 AND 5500000000000",
    )
    .await;
    let findings = check(&db.pool).await;
    assert_eq!(findings.violations, 1 + 2_501);
    assert_eq!(findings.sealed, 6_001);
    let named: Vec<i64> = findings.examples.iter().map(|v| v.transfer_id).collect();
    assert_eq!(named.len(), 5);
    assert_eq!(named[..2], [2_000_000_000_000, 3_000_000_000_000]);
}
