//! Dead letters, as an operator finds them, looks at them and sends them again.

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use chrono::Utc;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use serde_json::{Value, json};
use tests::{
    components::repository,
    system::{PATIENCE, Published, System, system, system_alone, unique},
};

/// Runs `meed dlq` on the system.
async fn dlq(system: &System, arguments: &[&str]) -> Output {
    let mut command = Command::new(repository().join("target/debug/meed"));
    command
        .arg("dlq")
        .args(arguments)
        .envs(&system.components.env)
        .env("MEED_OPERATOR", "the journey")
        .current_dir(repository());
    tokio::task::spawn_blocking(move || command.output().expect("target/debug/meed is there"))
        .await
        .expect("it ran")
}

fn said(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complained(output: &Output) -> String {
    assert!(!output.status.success(), "it was to fail");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn json_of(system: &System, arguments: &[&str]) -> Value {
    let output = dlq(system, &[arguments, &["--json"]].concat()).await;
    serde_json::from_str(&said(&output)).expect("JSON")
}

/// The letters with this key, newest first, among those that a filter takes.
async fn listed(system: &System, key: &str, filter: &[&str]) -> Vec<Value> {
    let arguments = [&["list", "--limit", "100000"], filter].concat();
    let mut list = json_of(system, &arguments).await;
    let Value::Array(letters) = list["letters"].take() else {
        panic!("a list: {list}");
    };
    letters
        .into_iter()
        .filter(|letter| letter["key"]["text"] == key)
        .collect()
}

async fn await_listed(system: &System, key: &str, count: usize) -> Vec<Value> {
    system
        .until("the dead letters are there", async || {
            listed(system, key, &[]).await.len() >= count
        })
        .await;
    let letters = listed(system, key, &[]).await;
    assert_eq!(letters.len(), count, "{letters:?}");
    letters
}

fn id(letter: &Value) -> &str {
    letter["id"].as_str().expect("an id")
}

/// Makes the database refuse every event of this customer, until it is told otherwise.
struct Refusing {
    name: String,
}

impl Refusing {
    async fn of(system: &System, customer: &str) -> Self {
        let name = unique("refuse").replace('-', "_");
        let sql = format!(
            "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'none of these' USING ERRCODE = '22003'; END $$;
             CREATE TRIGGER {name} BEFORE INSERT ON processed_events FOR EACH ROW
             WHEN (NEW.customer_id = '{customer}') EXECUTE FUNCTION {name}();"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&system.pool)
            .await
            .expect("a trigger");
        Self { name }
    }

    async fn end(self, system: &System) {
        let sql = format!("DROP FUNCTION {} CASCADE", self.name);
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&system.pool)
            .await
            .expect("dropped");
    }
}

/// Waits until everything before this is worked on: an event of the same key, in the same topic.
async fn settled(system: &System, customer: &str, expected: i64) {
    let points = system.available(customer).await.unwrap_or_default();
    assert_eq!(points, expected, "before it settles");
    system.stay(customer, 1).await;
    system
        .until("what was sent is worked on", async || {
            system.available(customer).await == Some(expected + 100)
        })
        .await;
}

#[tokio::test]
async fn letters_are_found_by_reason_topic_and_time_with_all_there_is_to_know() {
    let system = system().await;
    let customer = unique("C");
    let began = Utc::now();
    let event = |id: &str, nights: u32| {
        json!({
            "eventId": id, "eventType": "HOTEL_STAY", "customerId": customer,
            "timestamp": "2026-03-14T10:00:00Z", "payload": { "nights": nights }
        })
        .to_string()
    };
    let twice = unique("twice");
    let sent: [(&str, &str, Vec<u8>); 5] = [
        (
            "reward-events",
            "MALFORMED_JSON",
            b"{\"eventId\": \x1b[2J".to_vec(),
        ),
        (
            "orders",
            "MISSING_FIELD",
            format!(r#"{{"customerId":"{customer}"}}"#).into(),
        ),
        ("players", "MALFORMED_JSON", vec![0xff, 0x00, 0xfe]),
        ("redeem-events", "MISSING_FIELD", b"{}".to_vec()),
        ("reward-events", "BODY_CONFLICT", event(&twice, 2).into()),
    ];
    system
        .send("reward-events", &customer, &[], event(&twice, 1).as_bytes())
        .await;
    for (topic, _, body) in &sent {
        let headers = [("traceparent", "00-1-2-01"), ("x-sender", "a journey")];
        system.send(topic, &customer, &headers, body).await;
    }
    let letters = await_listed(&system, &customer, sent.len()).await;
    for (topic, class, body) in &sent {
        let letter = letters
            .iter()
            .find(|l| l["source"]["topic"] == *topic && l["class"] == *class)
            .unwrap_or_else(|| panic!("{class} of {topic} in {letters:?}"));
        assert!(letter["source"]["partition"].is_i64(), "{letter}");
        assert!(letter["source"]["offset"].is_i64(), "{letter}");
        assert!(!letter["reason"].as_str().expect("words").is_empty());
        assert_eq!(letter["bodyBytes"], body.len(), "{letter}");
        assert_eq!(letter["replayed"], Value::Null, "{letter}");
        let at = letter["refusedAt"].as_str().expect("a time");
        let at: chrono::DateTime<Utc> = at.parse().expect("RFC 3339");
        let a_moment = chrono::Duration::seconds(1);
        assert!(
            began - a_moment <= at && at <= Utc::now() + a_moment,
            "{at} is not since {began}"
        );

        let shown = dlq(&system, &["show", id(letter), "--body"]).await;
        assert!(shown.status.success());
        assert_eq!(&shown.stdout, body, "the original bytes");
        let shown = said(&dlq(&system, &["show", id(letter)]).await);
        for part in [
            id(letter),
            class,
            topic,
            &customer,
            "x-sender: a journey",
            "meed-dlq-offset: ",
            "replay would",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(!shown.contains('\x1b'), "nothing steers the terminal");
        match str::from_utf8(body) {
            Ok(text) if !text.contains('\x1b') => assert!(shown.contains(text), "{shown}"),
            _ => assert!(shown.contains("00000000  "), "a dump: {shown}"),
        }
    }
    // By reason, by topic, by both, by time.
    let count = async |filter: &[&str]| listed(&system, &customer, filter).await.len();
    assert_eq!(count(&["--reason", "MALFORMED_JSON"]).await, 2);
    assert_eq!(
        count(&["--reason", "body_conflict", "--reason", "MISSING_FIELD"]).await,
        3
    );
    assert_eq!(count(&["--topic", "reward-events"]).await, 2);
    assert_eq!(
        count(&["--topic", "players", "--reason", "MISSING_FIELD"]).await,
        0
    );
    assert_eq!(count(&["--since", "1h"]).await, sent.len());
    assert_eq!(count(&["--until", "1h"]).await, 0);
    let tomorrow = (Utc::now() + chrono::Duration::days(1)).to_rfc3339();
    assert_eq!(count(&["--since", &tomorrow]).await, 0);
    assert_eq!(count(&["--until", &tomorrow]).await, sent.len());
    // For people: a table with the newest, and counts of all.
    let table = said(&dlq(&system, &["list", "--limit", "1"]).await);
    for part in ["MALFORMED_JSON", "MISSING_FIELD", "1 are shown"] {
        assert!(table.contains(part), "{part} in {table}");
    }
    let nothing = said(&dlq(&system, &["list", "--since", &tomorrow]).await);
    assert!(nothing.contains("no such dead letters"), "{nothing}");
    let wrong = complained(&dlq(&system, &["list", "--reason", "MALFORMD"]).await);
    assert!(
        wrong.contains("MALFORMED_JSON"),
        "it says which there are: {wrong}"
    );
    let wrong = complained(&dlq(&system, &["show", "0-999999999"]).await);
    assert!(
        wrong.contains("there is no dead letter 0-999999999"),
        "{wrong}"
    );
}

#[tokio::test]
async fn an_order_without_an_id_that_is_replayed_twice_counts_once() {
    let system = system().await;
    let customer = unique("C");
    let refusing = Refusing::of(&system, &customer).await;
    let order = json!({ "customerId": customer, "amount": "1234.56" }).to_string();
    system
        .send("orders", &customer, &[("x", "y")], order.as_bytes())
        .await;
    let letters = await_listed(&system, &customer, 1).await;
    let letter = &letters[0];
    assert_eq!(letter["class"], "DATA_ERROR", "{letter}");
    let source = &letter["source"];

    // Saying what would be done does nothing.
    let dry = said(&dlq(&system, &["replay", id(letter), "--dry-run"]).await);
    let known_as = format!("known as order-at orders-{}-", source["partition"]);
    for part in [id(letter), &customer, &known_as, "Nothing was done"] {
        assert!(dry.contains(part), "{part} in {dry}");
    }
    let mine = customer.clone();
    let orders = system.published("orders", move |m| m.key == mine).await;
    assert_eq!(orders.len(), 1, "nothing was sent");
    assert_eq!(
        listed(&system, &customer, &[]).await[0]["replayed"],
        Value::Null
    );

    // While the database still refuses it, each replay is a dead letter of its own.
    let replayed = json_of(&system, &["replay", id(letter)]).await;
    assert_eq!(
        (&replayed["sent"], &replayed["refused"]),
        (&json!(1), &json!(0))
    );
    let letters = await_listed(&system, &customer, 2).await;
    assert_eq!(letters[1]["id"], letter["id"]);
    assert_eq!(letters[0]["source"], *source, "where it first stood");
    assert_eq!(letters[1]["replayed"]["times"], 1);
    assert_eq!(letters[1]["replayed"]["by"], "operator:the journey");
    assert_eq!(letters[1]["replayed"]["refusedAgain"], "DATA_ERROR");
    assert_eq!(letters[0]["replayed"], Value::Null, "it is another letter");
    let shown = json_of(&system, &["show", id(&letters[0])]).await;
    assert_eq!(shown["replayOf"], letter["id"], "{shown}");
    assert_eq!(shown["body"]["text"], order);

    // Once it is not refused any more, whichever letter is replayed how often, it counts once.
    refusing.end(&system).await;
    for again in [id(&letters[0]), id(letter), id(letter)] {
        let replayed = json_of(&system, &["replay", again]).await;
        assert_eq!(replayed["sent"], 1, "{replayed}");
    }
    system
        .until("the order counts", async || {
            system.available(&customer).await == Some(12)
        })
        .await;
    // An order behind the replays, in their partition, proves that they were all worked on.
    let after = json!({ "customerId": customer, "amount": "100" }).to_string();
    system
        .send("orders", &customer, &[], after.as_bytes())
        .await;
    system
        .until("what is behind the replays counts", async || {
            system
                .available(&customer)
                .await
                .is_some_and(|points| points >= 13)
        })
        .await;
    assert_eq!(system.available(&customer).await, Some(13));
    let letters = listed(&system, &customer, &[]).await;
    assert_eq!(letters.len(), 2, "no new letters: {letters:?}");
    assert_eq!(letters[1]["replayed"]["times"], 3);
    assert_eq!(letters[1]["replayed"]["refusedAgain"], Value::Null);

    // A choice leaves out what was replayed before, unless it is told.
    let choice = ["replay", "--topic", "orders", "--reason", "DATA_ERROR"];
    let since = ["--since", "1h", "--dry-run"];
    let left_out = json_of(&system, &[&choice[..], &since].concat()).await;
    assert!(left_out["replayedBefore"].as_u64() >= Some(2), "{left_out}");
    let again = json_of(&system, &[&choice[..], &since, &["--again"]].concat()).await;
    assert_eq!(again["replayedBefore"], 0, "{again}");
    assert!(again["sent"].as_u64() >= Some(2), "{again}");

    let (audited,): (i64,) = sqlx::query_as(
        "SELECT count(*) FROM audit_records
         WHERE action = 'dead-letters.replay' AND actor = 'operator:the journey' AND subject = $1",
    )
    .bind(id(letter))
    .fetch_one(&system.pool)
    .await
    .expect("the audit record");
    assert_eq!(audited, 3);
    system.assert_ledger_agrees().await;
}

#[tokio::test]
async fn letters_chosen_by_reason_are_replayed_and_what_cannot_be_is_refused() {
    let system = system().await;
    let customer = unique("C");
    let refusing = Refusing::of(&system, &customer).await;
    let stays = 5;
    for nights in 1..=stays {
        system.stay(&customer, nights).await;
    }
    system
        .send("reward-events", &customer, &[], b"never JSON")
        .await;
    let letters = await_listed(&system, &customer, 6).await;
    refusing.end(&system).await;

    // What breaks its contract is not sent, unless it must be.
    let malformed = letters
        .iter()
        .find(|letter| letter["class"] == "MALFORMED_JSON")
        .expect("the malformed one");
    let refused = dlq(&system, &["replay", id(malformed)]).await;
    let printed = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(
        printed.contains("would be refused again, MALFORMED_JSON") && printed.contains("--anyway"),
        "{printed}"
    );
    assert!(complained(&refused).contains("cannot be replayed"));
    let sent = json_of(&system, &["replay", id(malformed), "--anyway"]).await;
    assert_eq!(sent["sent"], 1, "{sent}");
    await_listed(&system, &customer, 7).await;

    // What was cut is never sent.
    let cut = unique("C");
    let headers = [
        ("meed-dlq-topic", "orders"),
        ("meed-dlq-partition", "0"),
        ("meed-dlq-offset", "0"),
        ("meed-dlq-timestamp", "1700000000123"),
        ("meed-dlq-class", "PAYLOAD_TOO_LARGE"),
        ("meed-dlq-reason", "too large"),
        ("meed-dlq-truncated", "true"),
        ("meed-dlq-original-bytes", "4000000"),
    ];
    let body = json!({ "customerId": cut, "amount": "100" }).to_string();
    system
        .send("dead-letter", &cut, &headers, body.as_bytes())
        .await;
    let letter = await_listed(&system, &cut, 1).await.remove(0);
    assert_eq!(letter["truncated"], true);
    let refused = dlq(&system, &["replay", id(&letter), "--anyway"]).await;
    let printed = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(
        printed.contains("of 4000000 bytes of its value"),
        "{printed}"
    );
    assert!(!refused.status.success());

    // The rest goes together; twice, in whatever order they come.
    let choice = [
        "replay",
        "--reason",
        "DATA_ERROR",
        "--topic",
        "reward-events",
    ];
    let first = json_of(&system, &choice).await;
    assert!(first["sent"].as_u64() >= Some(5), "{first}");
    let second = json_of(&system, &[&choice[..], &["--again"]].concat()).await;
    assert!(second["sent"].as_u64() >= Some(5), "{second}");
    let expected = i64::from((1..=stays).sum::<u32>()) * 100;
    system
        .until("all stays count", async || {
            system.available(&customer).await == Some(expected)
        })
        .await;
    settled(&system, &customer, expected).await;
    assert_eq!(
        listed(&system, &customer, &[]).await.len(),
        7,
        "no new ones"
    );
    assert!(listed(&system, &cut, &[]).await[0]["replayed"].is_null());

    // Without a choice nothing is sent.
    let nothing = complained(&dlq(&system, &["replay"]).await);
    assert!(nothing.contains("--all"), "{nothing}");
    system.assert_ledger_agrees().await;
}

#[tokio::test]
async fn what_was_in_the_future_posts_when_its_time_has_come() {
    let system = system().await;
    let customer = unique("C");
    // A little further ahead than clocks may differ: soon it is not any more, but not before it is
    // refused.
    let ahead = domain::inbound::TIMESTAMP_AHEAD_MAX_HOURS * 3_600 + 90;
    let at = Utc::now() + chrono::Duration::seconds(ahead);
    let event = json!({
        "eventId": unique("early"), "eventType": "HOTEL_STAY", "customerId": customer,
        "timestamp": at.to_rfc3339(), "payload": { "nights": 3 }
    });
    system
        .send(
            "reward-events",
            &customer,
            &[],
            event.to_string().as_bytes(),
        )
        .await;
    let letter = await_listed(&system, &customer, 1).await.remove(0);
    assert_eq!(letter["class"], "TIMESTAMP_IN_FUTURE");
    system
        .until("it is not ahead any more", async || {
            json_of(&system, &["show", id(&letter)]).await["wouldBeSent"] == true
        })
        .await;
    for _ in 0..2 {
        said(&dlq(&system, &["replay", id(&letter)]).await);
    }
    system
        .until("it counts", async || {
            system.available(&customer).await == Some(300)
        })
        .await;
    settled(&system, &customer, 300).await;
    assert_eq!(listed(&system, &customer, &[]).await.len(), 1);
}

#[tokio::test]
async fn a_redemption_that_is_replayed_is_the_same_redemption() {
    let system = system().await;
    let customer = system.customer_with(5).await;
    let name = unique("refuse").replace('-', "_");
    let redemption = unique("R");
    let sql = format!(
        "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'none of these' USING ERRCODE = '22003'; END $$;
         CREATE TRIGGER {name} BEFORE INSERT ON redemptions FOR EACH ROW
         WHEN (NEW.redeem_request_id = '{redemption}') EXECUTE FUNCTION {name}();"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&system.pool)
        .await
        .expect("a trigger");
    let body = json!({
        "redeemRequestId": redemption, "customerId": customer, "requestedPoints": 200,
        "merchantContext": { "merchantId": "M1", "orderId": "O1" },
        "timestamp": "2026-03-14T10:00:00Z"
    });
    system
        .send("redeem-events", &customer, &[], body.to_string().as_bytes())
        .await;
    let letter = await_listed(&system, &customer, 1).await.remove(0);
    assert_eq!(letter["class"], "DATA_ERROR", "{letter}");
    Refusing { name }.end(&system).await;
    for _ in 0..3 {
        said(&dlq(&system, &["replay", id(&letter)]).await);
    }
    assert_eq!(system.ended(&redemption).await["status"], "SUCCESS");
    assert_eq!(system.available(&customer).await, Some(300));
    // Malformed on purpose: it stands behind the replays, so they are all worked on.
    system.send("redeem-events", &customer, &[], b"{}").await;
    await_listed(&system, &customer, 2).await;
    assert_eq!(system.available(&customer).await, Some(300));
    system.assert_ledger_agrees().await;
}

#[tokio::test]
async fn a_batch_that_is_delivered_again_writes_no_second_letter() {
    let system = system_alone().await;
    let customer = unique("C");
    let topics = ["reward-events", "orders", "redeem-events", "players"];
    for topic in topics {
        for body in ["no JSON", "{}", "no JSON"] {
            system.send(topic, &customer, &[], body.as_bytes()).await;
        }
    }
    let letters = await_listed(&system, &customer, 12).await;
    // One of them is forgotten, to see that all of them are indeed refused a second time.
    let forgotten =
        sqlx::query("DELETE FROM dead_letters WHERE letter_id = $1 AND source_topic = 'players'")
            .bind(
                letters
                    .iter()
                    .find(|letter| letter["source"]["topic"] == "players")
                    .and_then(|letter| letter["letterId"].as_str()),
            )
            .execute(&system.pool)
            .await
            .expect("forgotten");
    assert_eq!(forgotten.rows_affected(), 1);

    // The worker ends, and what it had committed is taken back: everything comes again.
    let components = system.components;
    let brokers = components.env["KAFKA_BROKERS"].clone();
    let places: Vec<(String, i32, i64)> = letters
        .iter()
        .map(|letter| {
            let source = &letter["source"];
            let partition = source["partition"].as_i64().expect("a partition");
            (
                source["topic"].as_str().expect("a topic").to_owned(),
                i32::try_from(partition).expect("small"),
                source["offset"].as_i64().expect("an offset"),
            )
        })
        .collect();
    tokio::task::spawn_blocking(move || {
        components.stack.stop("worker").expect("it ends");
        take_back(&brokers, &places);
        components.stack.restart("worker").expect("it starts again");
    })
    .await
    .expect("delivered again");

    // What stands behind them is worked on after them.
    for topic in topics {
        system.send(topic, &customer, &[], b"the last one").await;
    }
    let mine = customer.clone();
    let last = move |letter: &Published| letter.key == mine && letter.body == b"the last one";
    system
        .await_published("dead-letter", topics.len(), last)
        .await;
    let (rows,): (i64,) = sqlx::query_as(
        "SELECT count(*) FROM outbox WHERE topic = 'dead-letter' AND message_key = $1",
    )
    .bind(customer.as_bytes())
    .fetch_one(&system.pool)
    .await
    .expect("the outbox");
    let each_once = 12 + 4;
    assert_eq!(
        rows,
        each_once + 1,
        "only the forgotten one is written again"
    );
    // It has the same identity, so that whoever reads them can tell that it is no other message.
    assert_eq!(
        i64::try_from(listed(&system, &customer, &[]).await.len()),
        Ok(each_once)
    );
    system.assert_ledger_agrees().await;
}

/// Sets the intake's group back, so that these messages come again.
fn take_back(brokers: &str, places: &[(String, i32, i64)]) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "meed-intake")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let mut offsets = TopicPartitionList::new();
    for (topic, partition, offset) in places {
        let first = places
            .iter()
            .filter(|(t, p, _)| (t, p) == (topic, partition))
            .map(|(_, _, offset)| *offset)
            .min();
        if first == Some(*offset) {
            offsets
                .add_partition_offset(topic, *partition, Offset::Offset(*offset))
                .expect("an offset");
        }
    }
    // Until the group is empty, others may not commit for it.
    let started = Instant::now();
    while let Err(error) = consumer.commit(&offsets, CommitMode::Sync) {
        assert!(started.elapsed() < PATIENCE, "not committed: {error}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
