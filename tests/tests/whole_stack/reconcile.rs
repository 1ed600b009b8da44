//! A fault planted in each of the five comparisons is found, and repaired where that is safe.
//!
//! What is not safe to repair is put right with the very command that the finding names.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use serde_json::{Value, json};
use temporalio_client::{
    Client, RpcOptions, WorkflowDescribeOptions, WorkflowExecutionStatus,
    WorkflowFetchHistoryOptions, WorkflowGetResultOptions, WorkflowTerminateOptions,
    schedules::{
        PauseScheduleOptions, ScheduleOverlapPolicy, TriggerScheduleOptions, UnpauseScheduleOptions,
    },
};
use tests::{
    components::{meed, repository, rest_schedules, temporal},
    flows::result_of,
    history,
    system::{PATIENCE, System, patiently, system_alone, unique},
};
use workflows::{
    Reconcile, Redeem,
    id::{RECONCILE_BY_HAND_WORKFLOW_ID, RECONCILE_SCHEDULE_ID},
};

/// The system alone: what is planted in it concerns everybody.
struct Books {
    system: System,
    client: Client,
}

async fn books() -> Books {
    Books {
        system: system_alone().await,
        client: temporal().await,
    }
}

impl Books {
    /// Runs `meed reconcile`: what it printed as JSON. Its end says whether findings are open. On a
    /// machine that has too much to do the server may not answer it, or a comparison be given up:
    /// the next one makes up for it.
    async fn reconcile(&self, arguments: &[&str]) -> Value {
        let started = Instant::now();
        let arguments = [&["reconcile", "--json"], arguments].concat();
        loop {
            let output = self.system.run_meed(&arguments).await;
            let told = String::from_utf8_lossy(&output.stderr);
            let document: Option<Value> = serde_json::from_slice(&output.stdout).ok();
            let ended = document.filter(|document| {
                let compared = document["report"]["compared"].as_array();
                let mut compared = compared.expect("comparisons").iter();
                compared.all(|compared| compared["outcome"].is_object())
            });
            if let Some(document) = ended {
                let open = document["findings"].as_array().expect("findings");
                assert_eq!(output.status.success(), open.is_empty(), "{told}");
                return document;
            }
            assert!(started.elapsed() < PATIENCE, "it comes to no end: {told}");
        }
    }

    /// Compares without repairing until something of this kind about this subject is found.
    async fn find(&self, kind: &str, subject: &str) -> Value {
        let started = Instant::now();
        loop {
            let document = self.reconcile(&["--report-only"]).await;
            if let Some(found) = finding(&document, kind, subject) {
                return found;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "no {kind} about {subject} in {document}"
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Runs the command that a finding names, as a person would.
    async fn follow(&self, finding: &Value) {
        let fix = finding["fix"].as_str().expect("a command");
        let program = repository().join("target/debug/meed");
        let fix = fix.replace("meed ", &format!("{} ", program.display()));
        let mut command = Command::new("sh");
        command
            .args(["-ec", &fix])
            .envs(&self.system.components.env)
            .current_dir(repository());
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .expect("it runs")
            .expect("a shell");
        assert!(
            output.status.success(),
            "{fix}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Ends a test: what was found about these is not open any more.
    async fn agree(self, about: &[&str]) {
        let document = self.reconcile(&[]).await;
        for finding in document["findings"].as_array().expect("findings") {
            let text = finding.to_string();
            for about in about {
                assert!(!text.contains(about), "{text}");
            }
        }
    }

    async fn tell_merchant(&self, merchant: &str, mode: &str) {
        let how = json!({ "mode": mode });
        self.system.tell_merchant(merchant, &how).await;
    }

    /// Speaks with a merchant behind Meed's back, in Meed's name.
    async fn speak(&self, merchant: &str, path: &str, body: Option<Value>) -> Value {
        let url = format!(
            "{}/merchants/{merchant}/redemptions{path}",
            self.system.components.env["PARTNERS_URL"]
        );
        let bytes = body.as_ref().map(Value::to_string).unwrap_or_default();
        let now = chrono::Utc::now().timestamp();
        let key = format!("dev-key-{merchant}");
        let signature = activities::signature::sign(key.as_bytes(), now, bytes.as_bytes());
        let mut request = self
            .system
            .http
            .post(url)
            .header("meed-timestamp", now)
            .header("meed-signature", signature)
            .header("content-type", "application/json");
        if let Some(body) = &body {
            request = request.header(
                "idempotency-key",
                body["redeemRequestId"].as_str().expect("an id"),
            );
        }
        let answer = request
            .body(bytes)
            .send()
            .await
            .expect("the partners answer");
        answer.json().await.expect("JSON")
    }

    async fn run(&self, sql: &'static str, about: &str) -> u64 {
        sqlx::query(sql)
            .bind(about)
            .execute(&self.system.pool)
            .await
            .expect("it is done")
            .rows_affected()
    }
}

fn finding(document: &Value, kind: &str, subject: &str) -> Option<Value> {
    let findings = document["findings"].as_array().expect("findings");
    let found = findings
        .iter()
        .find(|f| f["kind"] == kind && f["subject"].as_str().is_some_and(|s| s.contains(subject)));
    found.cloned()
}

fn outcome<'a>(document: &'a Value, comparison: &str) -> &'a Value {
    let compared = document["report"]["compared"].as_array().expect("some");
    let found = compared.iter().find(|c| c["comparison"] == comparison);
    &found.expect("it was made")["outcome"]
}

fn redemption(id: &str, customer: &str, points: i64, merchant: &str) -> Value {
    json!({
        "redeemRequestId": id, "customerId": customer, "requestedPoints": points,
        "merchantContext": { "merchantId": merchant, "orderId": format!("O-{id}") },
        "timestamp": "2026-03-14T10:00:00Z"
    })
}

/// Sends messages while no worker runs, and commits the group's offsets past them, as a worker
/// would that forgets what it has read.
async fn pass_over(system: &System, messages: &[(&str, &str, Value)]) {
    let stack = &system.components.stack;
    stack.stop("worker").expect("it stops");
    for (topic, key, body) in messages {
        system
            .send(topic, key, &[], body.to_string().as_bytes())
            .await;
    }
    let brokers = system.components.env["KAFKA_BROKERS"].clone();
    let topics: Vec<String> = messages.iter().map(|(t, ..)| (*t).to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "meed-intake")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        let limit = Duration::from_secs(60);
        let mut list = TopicPartitionList::new();
        for topic in topics {
            let metadata = consumer.fetch_metadata(Some(&topic), limit).expect("told");
            for partition in metadata.topics()[0].partitions() {
                let ends = consumer.fetch_watermarks(&topic, partition.id(), limit);
                let end = Offset::Offset(ends.expect("told").1);
                list.add_partition_offset(&topic, partition.id(), end)
                    .expect("an offset");
            }
        }
        // Until the group is empty, others may not commit for it.
        let started = Instant::now();
        while let Err(error) = consumer.commit(&list, CommitMode::Sync) {
            assert!(started.elapsed() < PATIENCE, "not committed: {error}");
            std::thread::sleep(Duration::from_millis(200));
        }
    })
    .await
    .expect("committed");
    stack.restart("worker").expect("it starts again");
}

#[tokio::test]
async fn events_that_were_passed_over_are_found_and_posted() {
    let books = books().await;
    let system = &books.system;
    let customer = system.customer_with(1).await;
    let (event, order, redeem) = (unique("stay"), unique("order"), unique("R"));
    let stay = json!({
        "eventId": event, "eventType": "HOTEL_STAY", "customerId": customer,
        "timestamp": "2026-03-14T10:00:00Z", "payload": { "nights": 3 }
    });
    let malformed = json!({ "customerId": customer, "orderId": order, "amount": "much" });
    let messages = [
        ("reward-events", customer.as_str(), stay),
        ("orders", customer.as_str(), malformed),
        (
            "redeem-events",
            customer.as_str(),
            redemption(&redeem, &customer, 50, "M1"),
        ),
        (
            "notifications",
            customer.as_str(),
            json!({ "user_id": customer, "eventType": "PROMOTION", "content": {} }),
        ),
    ];
    pass_over(system, &messages).await;
    assert_eq!(
        system.available(&customer).await,
        Some(100),
        "it was missed"
    );

    let found = books.find("EVENT_MISSING", "reward-events/").await;
    assert!(found["detail"].to_string().contains(&event), "{found}");
    let document = books.reconcile(&["--report-only"]).await;
    let open = outcome(&document, "events")["open"].as_u64();
    assert_eq!(
        open,
        Some(4),
        "nothing is repaired unless asked: {document}"
    );

    let document = books.reconcile(&["--repair"]).await;
    assert_eq!(outcome(&document, "events")["repaired"], 4, "{document}");
    let (told,): (i64,) = sqlx::query_as("SELECT count(*) FROM notifications WHERE user_id = $1")
        .bind(&customer)
        .fetch_one(&system.pool)
        .await
        .expect("a count");
    assert_eq!(told, 1, "the notification is stored");
    assert_eq!(system.ended(&redeem).await["status"], "SUCCESS");
    assert_eq!(system.available(&customer).await, Some(350));
    let mine = order.clone();
    system
        .await_published("dead-letter", 1, move |m| {
            String::from_utf8_lossy(&m.body).contains(&mine)
        })
        .await;
    let document = books.reconcile(&[]).await;
    assert_eq!(outcome(&document, "events")["repaired"], 0, "{document}");
    books.agree(&[&customer, &event, &redeem]).await;
}

#[tokio::test]
async fn a_balance_that_was_changed_is_found_and_rebuilt() {
    let books = books().await;
    let customer = books.system.customer_with(2).await;
    books
        .run(
            "UPDATE customers SET available = available + 1000 WHERE customer_id = $1",
            &customer,
        )
        .await;
    let found = books.find("BALANCE_WRONG", &customer).await;
    assert_eq!(found["fix"], "meed reconcile --repair");
    assert_eq!(
        books.stored(&customer).await,
        1200,
        "nothing is repaired unless asked"
    );
    books.follow_repair(&found).await;
    assert_eq!(books.stored(&customer).await, 200);
    books.system.assert_ledger_agrees().await;
    books.agree(&[&customer]).await;
}

impl Books {
    /// What the balance's row says can be spent.
    async fn stored(&self, customer: &str) -> i64 {
        sqlx::query_scalar("SELECT available FROM customers WHERE customer_id = $1")
            .bind(customer)
            .fetch_one(&self.system.pool)
            .await
            .expect("an account")
    }

    /// Runs the repair that a finding names, whatever else is open.
    async fn follow_repair(&self, finding: &Value) {
        let fix = finding["fix"].as_str().expect("a command");
        let arguments: Vec<&str> = fix
            .strip_prefix("meed reconcile ")
            .expect("a repair")
            .split(' ')
            .collect();
        let document = self.reconcile(&arguments).await;
        let (kind, subject) = (&finding["kind"], &finding["subject"]);
        let kind = kind.as_str().expect("a kind");
        let subject = subject.as_str().expect("a subject");
        assert_eq!(self::finding(&document, kind, subject), None, "{document}");
    }
}

#[tokio::test]
async fn confirmations_that_are_missing_lost_or_without_effect_are_found() {
    let books = books().await;
    let system = &books.system;
    let customer = system.customer_with(2).await;
    let of_mine = || {
        let mine = customer.clone();
        move |m: &tests::system::Published| m.key == mine
    };
    system
        .await_published("reward-confirmed", 1, of_mine())
        .await;
    system
        .until("both are marked as published", async || {
            let sql = "SELECT count(*) FROM outbox WHERE published_at IS NOT NULL
                       AND message_key = convert_to($1, 'UTF8')";
            let count: i64 = sqlx::query_scalar(sql)
                .bind(&customer)
                .fetch_one(&system.pool)
                .await
                .expect("counted");
            count >= 2
        })
        .await;

    // One row is lost; one, a true word in other letters, is marked and never was published.
    let lost = books
        .run(
            "DELETE FROM outbox WHERE topic = 'loyalty.pointsAdded.v2'
             AND message_key = convert_to($1, 'UTF8')",
            &customer,
        )
        .await;
    assert_eq!(lost, 1);
    let marked = books
        .run(
            "INSERT INTO outbox (shard, topic, message_key, headers, body, published_at)
             SELECT shard, topic, message_key, headers, body || ' '::bytea, clock_timestamp()
             FROM outbox WHERE topic = 'reward-confirmed'
             AND message_key = convert_to($1, 'UTF8')",
            &customer,
        )
        .await;
    assert_eq!(marked, 1);
    let event = unique("never");
    let never = json!({
        "eventId": unique("id"), "customerId": customer, "pointsAwarded": 5, "balanceAfter": 205,
        "sourceEventId": event, "timestamp": "2026-03-14T10:00:00Z"
    });
    system
        .send(
            "reward-confirmed",
            &customer,
            &[],
            never.to_string().as_bytes(),
        )
        .await;

    books
        .find("CONFIRMATION_MISSING", "loyalty.pointsAdded.v2")
        .await;
    books.find("MESSAGE_NOT_ON_KAFKA", "outbox ").await;
    let stray = books
        .find("CONFIRMATION_WITHOUT_EFFECT", "reward-confirmed")
        .await;
    assert!(stray["detail"].to_string().contains(&event), "{stray}");
    assert_eq!(
        system.published("reward-confirmed", of_mine()).await.len(),
        2,
        "nothing was published again yet"
    );

    let document = books.reconcile(&["--repair"]).await;
    assert_eq!(
        outcome(&document, "confirmations")["repaired"],
        2,
        "{document}"
    );
    let told = async |topic| system.published(topic, of_mine()).await;
    system
        .until("both are published again", async || {
            told("loyalty.pointsAdded.v2").await.len() >= 2
                && told("reward-confirmed").await.len() >= 3
        })
        .await;
    let again = told("loyalty.pointsAdded.v2").await;
    assert_eq!(again[0].json(), again[1].json(), "the same content");
    assert_eq!(again[0].headers["ce_id"], again[1].headers["ce_id"]);

    // What has no effect is never repaired; its command puts it right.
    let stray = books
        .find("CONFIRMATION_WITHOUT_EFFECT", "reward-confirmed")
        .await;
    books.follow(&stray).await;
    books.follow(&stray).await;
    assert_eq!(system.available(&customer).await, Some(205), "once");
    let document = books.reconcile(&[]).await;
    assert_eq!(
        outcome(&document, "confirmations")["repaired"],
        0,
        "{document}"
    );
    // The true word in other letters was nobody's.
    let healed = books
        .run(
            "DELETE FROM outbox WHERE topic = 'reward-confirmed'
             AND message_key = convert_to($1, 'UTF8') AND convert_from(body, 'UTF8') LIKE '% '",
            &customer,
        )
        .await;
    assert_eq!(healed, 1);
    system.assert_ledger_agrees().await;
    books.agree(&[&customer, &event]).await;
}

#[tokio::test]
async fn holds_without_flows_and_without_redemptions_are_found() {
    let books = books().await;
    let system = &books.system;
    let customer = system.customer_with(3).await;
    books.tell_merchant("M2", "pending-silent").await;
    let id = unique("R");
    system
        .redeem(&id, &redemption(&id, &customer, 100, "M2"))
        .await;
    system
        .until("the merchant has it", async || {
            let (_, view) = system.get(&format!("/api/v1/redeem/{id}")).await;
            view["status"] == "AWAITING_CALLBACK"
        })
        .await;
    let flow = books.client.get_workflow_handle::<Redeem>(&id);
    // A hold of a redemption that nobody knows.
    let stray = unique("R");
    let mut tx = system.pool.begin().await.expect("a transaction");
    sqlx::query(
        "WITH account AS (
             UPDATE customers SET available = available - 70, held = held + 70,
                    version = version + 1 WHERE customer_id = $1
             RETURNING available, held, version)
         INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account,
                customer_id, amount, reason, workflow_id, customer_version, available_after,
                held_after, occurred_at)
         SELECT 'redeem', $2, 'hold', 'AVAILABLE', 'HELD', $1, 70, 'REDEMPTION', $2, version,
                available, held, now() FROM account",
    )
    .bind(&customer)
    .bind(&stray)
    .execute(&mut *tx)
    .await
    .expect("written");
    tx.commit().await.expect("committed");

    let started = Instant::now();
    let stopped = loop {
        // Again, if a comparison has taken so long that a starter has gone on with it.
        let _ = flow.terminate(WorkflowTerminateOptions::default()).await;
        let document = books.reconcile(&["--report-only"]).await;
        if let Some(found) = finding(&document, "REDEMPTION_WITHOUT_FLOW", &id) {
            break found;
        }
        assert!(started.elapsed() < PATIENCE, "{document}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    books.follow_repair(&stopped).await;
    let described = flow
        .describe(WorkflowDescribeOptions::default())
        .await
        .expect("it is known");
    assert_eq!(described.status(), WorkflowExecutionStatus::Running);

    let held = books.find("POINTS_HELD_FOR_NOTHING", &customer).await;
    assert!(held["detail"].to_string().contains(&stray), "{held}");
    books.follow(&held).await;
    assert_eq!(system.available(&customer).await, Some(200));
    let path = format!("/api/v1/redeem/{id}/cancel");
    let cancel = system.request("POST", &path).await;
    let cancel = cancel.header("idempotency-key", unique("cancel"));
    patiently(cancel).await;
    assert_eq!(system.ended(&id).await["status"], "FAILED");
    assert_eq!(system.available(&customer).await, Some(300));
    books.tell_merchant("M2", "pending-confirm").await;
    // With its row again it is a redemption that failed, of which the world was not told.
    sqlx::query(
        "INSERT INTO redemptions (redeem_request_id, body_hash, customer_id, merchant_id, order_id,
                points, origin, state, reason, balance_after, requested_at, updated_at)
         VALUES ($2, '', $1, 'M1', 'O', 70, 'HTTP', 'FAILED', 'HOLD_EXPIRED', 200, now(),
                 now() - interval '1 minute')",
    )
    .bind(&customer)
    .bind(&stray)
    .execute(&system.pool)
    .await
    .expect("written");
    let document = books.reconcile(&[]).await;
    assert_eq!(
        outcome(&document, "confirmations")["repaired"],
        1,
        "{document}"
    );
    let mine = stray.clone();
    let told = system
        .await_published("redeem-confirmed", 1, move |m| {
            m.json()["redeemRequestId"] == mine.as_str()
        })
        .await;
    assert_eq!(told[0].json()["reason"], "HOLD_EXPIRED");
    system.assert_ledger_agrees().await;
    books.agree(&[&customer, &stray, &id]).await;
}

#[tokio::test]
async fn merchants_that_say_otherwise_are_found() {
    let books = books().await;
    let system = &books.system;
    let customer = system.customer_with(2).await;
    // Paid, and taken back behind Meed's back.
    let paid = unique("R");
    system
        .redeem(&paid, &redemption(&paid, &customer, 100, "M1"))
        .await;
    assert_eq!(system.ended(&paid).await["status"], "SUCCESS");
    let voided = books.speak("M1", &format!("/{paid}/void"), None).await;
    assert_eq!(voided["status"], "VOIDED");
    // Failed for want of points, and delivered, or about to be, all the same.
    let (delivered, undecided) = (unique("R"), unique("R"));
    for (id, merchant, status) in [
        (&delivered, "M1", "CONFIRMED"),
        (&undecided, "M6", "PENDING"),
    ] {
        let wish = redemption(id, &customer, 300, merchant);
        system
            .send("redeem-events", &customer, &[], wish.to_string().as_bytes())
            .await;
        assert_eq!(system.ended(id).await["reason"], "INSUFFICIENT_POINTS");
        let body = json!({
            "redeemRequestId": id, "orderId": format!("O-{id}"), "points": 300,
            "callbackUrl": "http://127.0.0.1:9/nowhere"
        });
        let answer = books.speak(merchant, "", Some(body)).await;
        assert_eq!(answer["status"], status);
    }
    system.stay(&customer, 5).await;
    system
        .until("there are points to take", async || {
            system.available(&customer).await == Some(600)
        })
        .await;

    // A merchant that does not answer is no disagreement, and is asked again the next time.
    books.tell_merchant("M1", "error").await;
    let started = Instant::now();
    let document = loop {
        let document = books.reconcile(&[]).await;
        if outcome(&document, "partners")["notCompared"].as_u64() > Some(0) {
            break document;
        }
        assert!(started.elapsed() < PATIENCE, "{document}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert_eq!(finding(&document, "POINTS_WITHOUT_DELIVERY", &paid), None);
    books.tell_merchant("M1", "confirm").await;

    let not_delivered = books.find("POINTS_WITHOUT_DELIVERY", &paid).await;
    let without_points = books.find("DELIVERED_WITHOUT_POINTS", &delivered).await;
    books.reconcile(&["--repair"]).await;
    assert_eq!(
        system.available(&customer).await,
        Some(600),
        "never by itself"
    );
    let voided = books.speak("M6", &format!("/{undecided}/void"), None).await;
    assert_eq!(voided["status"], "VOIDED");
    let undecided_now: Vec<Value> = system.merchant_book("M6").await;
    let mine = undecided_now
        .iter()
        .find(|r| r["redeemRequestId"] == undecided.as_str())
        .expect("it is in the book");
    assert!(
        mine["voids"].as_u64() >= Some(2),
        "what was undecided after the end was voided by the repair: {mine}"
    );

    books.follow(&not_delivered).await;
    books.follow(&without_points).await;
    assert_eq!(
        system.available(&customer).await,
        Some(400),
        "+100 and -300"
    );
    system.assert_ledger_agrees().await;
    books.agree(&[&paid, &delivered, &undecided]).await;
}

#[tokio::test]
async fn a_finding_can_be_accepted_and_is_not_reported_again() {
    let books = books().await;
    let system = &books.system;
    let redeem = unique("never");
    let never = json!({
        "redeemRequestId": redeem, "customerId": "C", "pointsDeducted": 1, "balanceAfter": 1,
        "status": "SUCCESS", "timestamp": "2026-03-14T10:00:00Z"
    });
    system
        .send("redeem-confirmed", "C", &[], never.to_string().as_bytes())
        .await;
    let stray = books
        .find("CONFIRMATION_WITHOUT_EFFECT", "redeem-confirmed")
        .await;
    assert!(stray["fix"].to_string().contains("--accept"), "{stray}");
    books.follow(&stray).await;
    books.agree(&[&redeem]).await;
}

#[tokio::test]
async fn the_schedule_runs_it_and_stays_paused_when_somebody_has_paused_it() {
    let books = books().await;
    let env = &books.system.components.env;
    let schedule = books.client.get_schedule_handle(RECONCILE_SCHEDULE_ID);
    let described = async || {
        let description = schedule.describe(RpcOptions::default()).await;
        description.expect("it is there")
    };
    schedule
        .pause(Some("a test"), PauseScheduleOptions::default())
        .await
        .expect("it is paused");
    let told = meed(
        env,
        &["temporal", "apply", "--reconcile-every-seconds", "1800"],
    );
    assert!(told.contains("every 1800 seconds"), "{told}");
    let description = described().await;
    assert!(description.paused());
    assert_eq!(description.note(), Some("a test"));
    let interval = |d: &temporalio_client::schedules::ScheduleDescription| {
        let schedule = d.raw().schedule.as_ref().expect("a schedule");
        let spec = schedule.spec.as_ref().expect("a specification");
        let policies = schedule.policies.as_ref().expect("policies");
        let every = spec.interval[0].interval.as_ref().expect("an interval");
        (every.seconds, policies.overlap_policy)
    };
    let skip = 1;
    assert_eq!(interval(&description), (1800, skip));
    let shipped = meed(env, &["temporal", "apply"]);
    assert!(shipped.contains("every 900 seconds"), "{shipped}");
    rest_schedules(env);
    let options = UnpauseScheduleOptions::default();
    schedule
        .unpause(None::<String>, options)
        .await
        .expect("it goes on");

    // A run in which a comparison was given up is made up for by the next one.
    let started = Instant::now();
    let flow = loop {
        let runs_before = described().await.recent_actions().len();
        let trigger = TriggerScheduleOptions::default();
        schedule
            .trigger(ScheduleOverlapPolicy::Skip, trigger)
            .await
            .expect("it is triggered");
        books
            .system
            .until("it has begun", async || {
                tokio::time::sleep(Duration::from_millis(500)).await;
                described().await.recent_actions().len() > runs_before
            })
            .await;
        let run = described().await.recent_actions().pop().expect("one");
        let flow = books
            .client
            .get_workflow_handle::<Reconcile>(&run.workflow_id);
        let report =
            result_of(async || flow.get_result(WorkflowGetResultOptions::default()).await).await;
        if report.unfinished() == 0 {
            break flow;
        }
        assert!(started.elapsed() < PATIENCE, "{report:?}");
    };
    let ended = flow
        .describe(WorkflowDescribeOptions::default())
        .await
        .expect("it is known");
    assert_eq!(ended.status(), WorkflowExecutionStatus::Completed);
    assert_eq!(
        ended.static_summary(),
        Some("Compares the books and repairs what is safe, from where the last one ended")
    );
    let recorded: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM reconciliation_runs WHERE workflow_id = $1 AND complete",
    )
    .bind(flow.info().workflow_id.as_str())
    .fetch_one(&books.system.pool)
    .await
    .expect("counted");
    assert_eq!(recorded, 1);
    let options = WorkflowFetchHistoryOptions::default;
    history::record("Reconcile", flow.fetch_history(options())).await;
    let by_hand = books
        .client
        .get_workflow_handle::<Reconcile>(RECONCILE_BY_HAND_WORKFLOW_ID);
    books.reconcile(&["--report-only", "--since", "1h"]).await;
    history::record("Reconcile", by_hand.fetch_history(options())).await;
    books.agree(&[]).await;
}
