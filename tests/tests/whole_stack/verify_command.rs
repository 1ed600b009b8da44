//! `meed verify` as an operator runs it.

use std::process::{Command, Output, Stdio};

use domain::{
    command::Command as Inbound,
    inbound::{self, Message},
    programme::Programme,
};
use serde_json::{Value, json};
use store::{chain, ledger, testing::TestDatabase, transaction};
use tests::components::{database, repository};

/// Posts a stay of one night for customer A, as the intake would.
async fn post(db: &TestDatabase, event: &str) {
    let programme = Programme::parse(include_str!("../../../programme.toml")).expect("rules");
    let body = json!({
        "eventId": event, "eventType": "HOTEL_STAY", "customerId": "A",
        "timestamp": "2026-03-14T10:00:00Z", "payload": { "nights": 1 }
    })
    .to_string();
    let now = chrono::Utc::now();
    let message = Message {
        topic: "reward-events",
        partition: 0,
        offset: 0,
        key: None,
        headers: &[],
        value: Some(body.as_bytes()),
        timestamp: now,
    };
    let Ok(Some(Inbound::Award(award))) = inbound::read(&message, now) else {
        panic!("{body} is an award");
    };
    let mut tx = transaction::begin(&db.pool).await.expect("begun");
    ledger::post_awards(&mut tx, &programme, "test", &[award])
        .await
        .expect("posted");
    tx.commit().await.expect("committed");
}

async fn verify(db: &TestDatabase, arguments: &[&str]) -> Output {
    let mut command = Command::new(repository().join("target/debug/meed"));
    command
        .arg("verify")
        .args(arguments)
        .env("DATABASE_URL", &db.url)
        .current_dir(repository());
    tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("no panic")
        .expect("target/debug/meed is there")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn it_names_the_first_bad_row_and_the_head_and_fails_when_something_is_wrong() {
    let db = database().await;
    let empty = verify(&db, &[]).await;
    assert!(empty.status.success(), "{empty:?}");
    assert!(
        text(&empty).contains("Sealed: nothing yet"),
        "{}",
        text(&empty)
    );

    for event in ["e1", "e2", "e3"] {
        post(&db, event).await;
    }
    let head = chain::seal(&db.pool, 10).await.expect("sealed").head;
    let head = head.expect("three transfers").to_string();
    post(&db, "e4").await;
    let good = verify(&db, &["--expect-head", &head]).await;
    assert!(good.status.success(), "{good:?}");
    for part in [
        format!("Sealed: 3 transfers; the head of the chain is {head}").as_str(),
        "Not yet sealed: 1 transfers",
        "properties hold",
    ] {
        assert!(text(&good).contains(part), "{}", text(&good));
    }
    let as_json = verify(&db, &["--json", "--expect-head", &head]).await;
    assert!(as_json.status.success());
    let document: Value = serde_json::from_slice(&as_json.stdout).expect("JSON");
    let (id, hash) = head.split_once(':').expect("ID:HASH");
    assert_eq!(document["holds"], true);
    assert_eq!(document["chain"]["head"]["transferId"].to_string(), id);
    assert_eq!(document["chain"]["head"]["hash"], hash);
    assert_eq!(document["chain"]["unsealed"], 1);

    let other = format!("{id}:{}", "0".repeat(64));
    let replaced = verify(&db, &["--expect-head", &head, "--expect-head", &other]).await;
    assert!(
        !replaced.status.success(),
        "another head is not in the chain"
    );
    assert!(
        text(&replaced).contains("head noted at transfer"),
        "{}",
        text(&replaced)
    );
    let unreadable = verify(&db, &["--expect-head", "12"]).await;
    assert!(!unreadable.status.success());

    sqlx::raw_sql(
        "ALTER TABLE transfers DISABLE TRIGGER transfers_append_only;
         UPDATE transfers SET reason = 'GIFT' WHERE source_event_id IN ('e2', 'e3')",
    )
    .execute(&db.pool)
    .await
    .expect("a superuser may");
    let bad = verify(&db, &[]).await;
    assert!(!bad.status.success());
    let first = "First bad row: transfer 2 is not what was sealed; it says now: 100 points of \
                 customer A from ISSUANCE to AVAILABLE for GIFT";
    assert!(text(&bad).contains(first), "{}", text(&bad));
    let bad: Value = serde_json::from_slice(&verify(&db, &["--json"]).await.stdout).expect("JSON");
    assert_eq!(bad["holds"], false);
    assert_eq!(bad["chain"]["violations"], 2);
    assert_eq!(bad["chain"]["firstViolations"][0]["transferId"], 2);
    assert_eq!(bad["chain"]["firstViolations"][0]["fault"], "CHANGED");
}

#[test]
fn a_program_whose_output_nobody_reads_ends_quietly() {
    let (nobody, output) = std::io::pipe().expect("a pipe");
    drop(nobody);
    let child = Command::new(repository().join("target/debug/meed"))
        .args(["rules", "check", "programme.toml"])
        .current_dir(repository())
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .expect("target/debug/meed is there");
    let ended = child.wait_with_output().expect("it ends");
    // As the signal SIGPIPE would have it.
    assert_eq!(ended.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}
