//! What reconciliation finds and repairs in the database.

use chrono::{DateTime, Duration, Utc};
use domain::{Comparison, Points};
use store::{
    PgPool,
    adjustments::{self, Adjusted, Adjustment, What},
    reconcile::{
        balances::{self, Rebuilt},
        confirmations::{self, Claim},
        events::{self, Effect, Expected},
        findings::{self, Found, Noted},
        flows, marks, runs,
    },
    testing,
};

use crate::support::{
    accept, assert_ledger_agrees, balance, customer, outbox, post, request, stay,
};

async fn run(pool: &PgPool, sql: &'static str) {
    sqlx::raw_sql(sql).execute(pool).await.unwrap();
}

fn adjustment<'a>(id: &'a str, who: &'a domain::CustomerId, what: What) -> Adjustment<'a> {
    Adjustment {
        id,
        customer: who,
        what,
        reason: "a test",
        actor: "operator:test",
    }
}

#[tokio::test]
async fn a_balance_that_is_not_the_fold_is_rebuilt() {
    let database = testing::database().await;
    let pool = &database.pool;
    post(pool, &[stay("E1", "A", 2), stay("E2", "B", 1)]).await;
    run(
        pool,
        "UPDATE customers SET available = 7, lifetime_earned = 9 WHERE customer_id = 'A'",
    )
    .await;
    let page = balances::page(pool, "", 10).await.unwrap();
    let wrong: Vec<&str> = page
        .iter()
        .filter(|account| account.stored != account.folded)
        .map(|account| account.customer_id.as_str())
        .collect();
    assert_eq!(wrong, ["A"]);
    assert_eq!(balances::rebuild(pool, "A").await.unwrap(), Rebuilt::Done);
    assert_eq!(balance(pool, "A").await.available.get(), 200);
    assert_ledger_agrees(pool).await;
    // Pages go on where the last one ended.
    assert_eq!(
        balances::page(pool, "A", 1).await.unwrap()[0].customer_id,
        "B"
    );
}

#[tokio::test]
async fn a_balance_is_not_rebuilt_from_transfers_that_do_not_follow_from_each_other() {
    let database = testing::database().await;
    let pool = &database.pool;
    post(pool, &[stay("E1", "A", 2), stay("E2", "A", 1)]).await;
    run(
        pool,
        "ALTER TABLE transfers DISABLE TRIGGER transfers_append_only;
         DELETE FROM transfers WHERE source_event_id = 'E1';",
    )
    .await;
    let rebuilt = balances::rebuild(pool, "A").await.unwrap();
    assert!(
        matches!(&rebuilt, Rebuilt::Inconsistent(first) if first.contains("E2")),
        "{rebuilt:?}"
    );
    assert_eq!(balance(pool, "A").await.available.get(), 300, "as it was");
    let (_, broken) = balances::one(pool, "A").await.unwrap().unwrap();
    assert!(broken.is_some(), "nothing may be posted for it either");
}

#[tokio::test]
async fn a_message_has_had_its_effect_when_the_ledger_says_the_same_or_it_is_a_dead_letter() {
    let database = testing::database().await;
    let pool = &database.pool;
    let event = stay("E1", "A", 2);
    post(pool, std::slice::from_ref(&event)).await;
    accept(pool, &request("R1", "A", 100)).await;
    run(
        pool,
        "INSERT INTO dead_letters (letter_id, source_topic, source_partition, source_offset,
                error_class) VALUES ('refused', 't', 0, 1, 'MALFORMED_JSON')",
    )
    .await;
    let of = |award: &domain::Award| Effect::Event {
        source: award.source.as_str(),
        event_id: award.event_id.to_string(),
        body_hash: award.body_hash().to_vec(),
    };
    let redemption = |id: &str, asked| Effect::Redemption {
        redeem_request_id: id.to_owned(),
        body_hash: request(id, "A", asked).body_hash().to_vec(),
    };
    let cases = [
        (of(&event), "", true),
        (of(&stay("E1", "A", 3)), "", false), // another body
        (of(&stay("E1", "A", 3)), "refused", true),
        (of(&stay("E2", "A", 2)), "", false), // never posted
        (redemption("R1", 100), "", true),
        (redemption("R1", 101), "", false),
        (redemption("R2", 100), "", false),
        (Effect::DeadLetter, "refused", true),
        (Effect::DeadLetter, "lost", false),
    ];
    let expected: Vec<Expected> = cases
        .iter()
        .map(|(effect, letter, _)| Expected {
            effect: effect.clone(),
            letter_id: (*letter).to_owned(),
        })
        .collect();
    let had = events::have_had_effect(pool, &expected).await.unwrap();
    assert_eq!(had, cases.map(|(_, _, had)| had));
}

fn window() -> (DateTime<Utc>, DateTime<Utc>) {
    let now = Utc::now();
    (now - Duration::hours(1), now + Duration::hours(1))
}

#[tokio::test]
async fn what_the_outbox_lacks_is_found_and_written_again_as_it_was() {
    let database = testing::database().await;
    let pool = &database.pool;
    post(pool, &[stay("E1", "A", 2), stay("E2", "A", 1)]).await;
    let (from, until) = window();
    let (expected, untold) = confirmations::untold_transfers(pool, from, until)
        .await
        .unwrap();
    assert_eq!((expected, untold.len()), (4, 0));

    let before = (
        outbox(pool, "reward-confirmed").await,
        outbox(pool, "loyalty.pointsAdded.v2").await,
    );
    run(
        pool,
        "DELETE FROM outbox WHERE outbox_id IN (SELECT min(outbox_id) FROM outbox GROUP BY topic)",
    )
    .await;
    let (_, untold) = confirmations::untold_transfers(pool, from, until)
        .await
        .unwrap();
    assert_eq!(untold.len(), 2, "{untold:?}");
    for untold in &untold {
        assert!(confirmations::tell_again(pool, untold).await.unwrap());
        assert!(
            !confirmations::tell_again(pool, untold).await.unwrap(),
            "once is enough"
        );
    }
    let (_, untold) = confirmations::untold_transfers(pool, from, until)
        .await
        .unwrap();
    assert!(untold.is_empty());
    let without_time = |mut messages: Vec<serde_json::Value>| {
        for message in &mut messages {
            message.as_object_mut().unwrap().remove("timestamp");
        }
        messages.sort_by_key(ToString::to_string);
        messages
    };
    assert_eq!(
        without_time(outbox(pool, "reward-confirmed").await),
        without_time(before.0)
    );
    assert_eq!(
        without_time(outbox(pool, "loyalty.pointsAdded.v2").await),
        without_time(before.1)
    );
}

#[tokio::test]
async fn the_answer_to_a_redemption_is_written_again() {
    let database = testing::database().await;
    let pool = &database.pool;
    let asked = request("R1", "nobody", 100);
    accept(pool, &asked).await;
    store::redemptions::reserve(
        pool,
        &asked.redeem_request_id,
        std::time::Duration::from_secs(60),
        |_| true,
    )
    .await
    .unwrap();
    let before = outbox(pool, "redeem-confirmed").await;
    let (from, until) = window();
    let (ended, untold) = confirmations::untold_redemptions(pool, from, until)
        .await
        .unwrap();
    assert_eq!((ended, untold.len()), (1, 0));
    run(pool, "DELETE FROM outbox").await;
    let (_, untold) = confirmations::untold_redemptions(pool, from, until)
        .await
        .unwrap();
    assert_eq!(untold.len(), 1);
    assert!(confirmations::tell_again(pool, &untold[0]).await.unwrap());
    let again = outbox(pool, "redeem-confirmed").await;
    for field in [
        "redeemRequestId",
        "status",
        "reason",
        "balanceAfter",
        "customerId",
    ] {
        assert_eq!(again[0][field], before[0][field], "{field}");
    }
}

#[tokio::test]
async fn only_what_the_ledger_says_is_borne_out() {
    let database = testing::database().await;
    let pool = &database.pool;
    post(pool, &[stay("E1", "A", 2)]).await;
    let rewarded = |event: &str, points| Claim::Rewarded {
        customer: "A".to_owned(),
        event: event.to_owned(),
        points,
    };
    let changed = |version, difference, total| Claim::Changed {
        customer: "A".to_owned(),
        version,
        difference,
        total,
    };
    let claims = [
        rewarded("E1", 200),
        rewarded("E1", 201),
        rewarded("E2", 200),
        changed(1, 200, 200),
        changed(1, -200, 200),
        changed(1, 200, 201),
        changed(2, 200, 200),
        Claim::Ended {
            redemption: "R1".to_owned(),
            status: "SUCCESS".to_owned(),
            points: 1,
        },
        Claim::Unreadable,
    ];
    let truths = confirmations::borne_out(pool, &claims).await.unwrap();
    assert_eq!(
        truths,
        [true, false, false, true, false, false, false, false, false]
    );
}

fn found(kind: &'static str, subject: &str) -> Found {
    Found {
        comparison: Comparison::Balances,
        kind,
        subject: subject.to_owned(),
        detail: "does not agree".to_owned(),
        fix: "meed".to_owned(),
        happened_at: None,
        evidence: serde_json::json!({}),
    }
}

#[tokio::test]
async fn a_finding_is_news_once_and_ends_when_it_is_gone_repaired_or_accepted() {
    let database = testing::database().await;
    let pool = &database.pool;
    let first = Utc::now();
    let next = first + Duration::minutes(15);
    let gone = found("K", "gone");
    assert_eq!(
        findings::note(pool, &gone, first).await.unwrap(),
        Noted::New
    );
    assert_eq!(
        findings::note(pool, &gone, first).await.unwrap(),
        Noted::Known
    );
    let repaired = found("K", "repaired");
    findings::note(pool, &repaired, first).await.unwrap();
    let accepted = found("K", "accepted");
    findings::note(pool, &accepted, first).await.unwrap();
    let lasting = found("K", "lasting");
    findings::note(pool, &lasting, first).await.unwrap();
    assert_eq!(findings::open(pool, None).await.unwrap().len(), 4);

    findings::note_repaired(pool, &repaired, next)
        .await
        .unwrap();
    let open = findings::open(pool, Some(Comparison::Balances))
        .await
        .unwrap();
    let number = open.iter().find(|f| f.subject == "accepted").unwrap();
    findings::accept(pool, number.finding_id, "operator:test", "known")
        .await
        .unwrap();
    findings::note(pool, &lasting, next).await.unwrap();
    let ended = findings::end_unseen(pool, Comparison::Balances, &["K"], next, None)
        .await
        .unwrap();
    assert_eq!(ended, 1);
    let open = findings::open(pool, None).await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].subject, "lasting");
    assert_eq!(
        findings::note(pool, &accepted, next).await.unwrap(),
        Noted::Accepted
    );
    let counts = findings::open_counts(pool).await.unwrap();
    assert!(counts.contains(&(Comparison::Balances, 1)));
    assert!(counts.contains(&(Comparison::Events, 0)));
}

#[tokio::test]
async fn marks_go_forward_in_time_and_runs_are_remembered_once() {
    let database = testing::database().await;
    let pool = &database.pool;
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    for at in [now, now - Duration::hours(1)] {
        marks::set_reached(pool, Comparison::Partners, "M1", at)
            .await
            .unwrap();
    }
    let reached = marks::reached(pool, Comparison::Partners, "M1")
        .await
        .unwrap();
    assert_eq!(reached, Some(now));
    marks::set_position(pool, Comparison::Events, "t/0", 5)
        .await
        .unwrap();
    let position = marks::position(pool, Comparison::Events, "t/0")
        .await
        .unwrap();
    assert_eq!(position, Some(5));
    assert_eq!(runs::last_complete(pool).await.unwrap(), None);
    let run = runs::Run {
        workflow_id: "reconcile/by-hand",
        run_id: "1",
        started_at: now,
        repairs: true,
        complete: true,
        report: serde_json::json!({}),
    };
    for _ in 0..2 {
        runs::record(pool, &run).await.unwrap();
    }
    assert!(runs::last_complete(pool).await.unwrap().is_some());
}

/// What a message on Kafka said, which the ledger does not bear out.
async fn stray(pool: &PgPool, subject: &str, claim: &Claim, at: Option<DateTime<Utc>>) {
    let found = Found {
        comparison: Comparison::Confirmations,
        kind: "CONFIRMATION_WITHOUT_EFFECT",
        subject: subject.to_owned(),
        detail: subject.to_owned(),
        fix: "meed".to_owned(),
        happened_at: at,
        evidence: serde_json::to_value(claim).unwrap(),
    };
    findings::note(pool, &found, Utc::now()).await.unwrap();
}

fn subjects(findings: &[findings::Finding]) -> Vec<&str> {
    findings.iter().map(|f| f.subject.as_str()).collect()
}

#[tokio::test]
async fn together_only_findings_are_accepted_that_the_ledger_shows_to_be_about_no_points() {
    let database = testing::database().await;
    let pool = &database.pool;
    let disaster = Utc::now();
    let told = Some(disaster - Duration::minutes(5));
    let changed = |who: &str, version, difference, total| Claim::Changed {
        customer: who.to_owned(),
        version,
        difference,
        total,
    };
    // What was told before the disaster, and posted after it in another order.
    stray(pool, "other order", &changed("A", 1, 100, 100), told).await;
    stray(pool, "told twice", &changed("A", 1, 100, 100), told).await;
    stray(
        pool,
        "of another customer",
        &changed("B", 1, 100, 100),
        told,
    )
    .await;
    stray(
        pool,
        "twice and posted once",
        &changed("A", 2, 300, 400),
        told,
    )
    .await;
    stray(pool, "its other", &changed("A", 3, 300, 700), told).await;
    stray(pool, "never posted", &changed("A", 4, 700, 1400), told).await;
    stray(pool, "taken, not given", &changed("A", 5, -100, 1300), told).await;
    let rewarded = Claim::Rewarded {
        customer: "A".to_owned(),
        event: "E9".to_owned(),
        points: 100,
    };
    stray(pool, "a reward", &rewarded, told).await;
    stray(pool, "unreadable", &Claim::Unreadable, told).await;
    let later = Some(disaster + Duration::minutes(5));
    stray(pool, "told afterwards", &changed("A", 6, 100, 1500), later).await;
    stray(
        pool,
        "told nobody knows when",
        &changed("A", 7, 100, 1600),
        None,
    )
    .await;
    post(pool, &[stay("E1", "A", 3), stay("E2", "A", 1)]).await;
    post(pool, &[stay("E3", "C", 1)]).await;

    let together = findings::Together {
        kind: "CONFIRMATION_WITHOUT_EFFECT",
        since: Some(disaster - Duration::hours(1)),
        until: disaster,
        including_points: false,
    };
    let acceptance = findings::Acceptance {
        actor: "operator:test",
        reason: "told before the restore",
        request_id: "accept-1",
    };
    let would = findings::would_accept(pool, together).await.unwrap();
    assert_eq!(subjects(&would.accepted), ["other order", "told twice"]);
    let left = [
        "of another customer",
        "twice and posted once",
        "its other",
        "never posted",
        "taken, not given",
        "a reward",
        "unreadable",
    ];
    assert_eq!(subjects(&would.left_open), left);
    let all = findings::open(pool, None).await.unwrap();
    assert_eq!(all.len(), 11, "a look changes nothing");

    let accepted = findings::accept_together(pool, together, acceptance)
        .await
        .unwrap();
    assert_eq!(accepted, would);
    assert_eq!(findings::open(pool, None).await.unwrap().len(), 9);
    let records: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT actor, subject, detail ->> 'reason' FROM audit_records
         WHERE action = 'reconcile.accept' AND request_id = 'accept-1' ORDER BY audit_id",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let record = |subject: &str| {
        let (actor, reason) = (acceptance.actor.to_owned(), acceptance.reason.to_owned());
        (actor, subject.to_owned(), reason)
    };
    assert_eq!(records, [record("other order"), record("told twice")]);

    let asked_for = findings::Together {
        including_points: true,
        ..together
    };
    let accepted = findings::accept_together(pool, asked_for, acceptance)
        .await
        .unwrap();
    assert_eq!(subjects(&accepted.accepted), left);
    assert!(accepted.left_open.is_empty());
    let open = findings::open(pool, None).await.unwrap();
    assert_eq!(
        subjects(&open),
        ["told afterwards", "told nobody knows when"]
    );
    // What was accepted is not news again.
    stray(pool, "never posted", &changed("A", 4, 700, 1400), told).await;
    assert_eq!(findings::open(pool, None).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_was_posted_before_it_was_told_is_not_the_change_that_was_told() {
    let database = testing::database().await;
    let pool = &database.pool;
    post(pool, &[stay("E1", "A", 1)]).await;
    let claim = Claim::Changed {
        customer: "A".to_owned(),
        version: 2,
        difference: 100,
        total: 200,
    };
    stray(pool, "lost", &claim, Some(Utc::now())).await;
    let together = findings::Together {
        kind: "CONFIRMATION_WITHOUT_EFFECT",
        since: None,
        until: Utc::now() + Duration::minutes(1),
        including_points: false,
    };
    let would = findings::would_accept(pool, together).await.unwrap();
    assert_eq!(subjects(&would.left_open), ["lost"]);
}

#[tokio::test]
async fn an_adjustment_is_posted_once_told_and_audited() {
    let database = testing::database().await;
    let pool = &database.pool;
    post(pool, &[stay("E1", "A", 2)]).await;
    let who = customer("A");
    let taken = adjustment("fix-1", &who, What::Points(-150));
    let left = Points::new(50).unwrap();
    assert_eq!(
        adjustments::post(pool, &taken).await.unwrap(),
        Adjusted::Posted(left)
    );
    assert_eq!(
        adjustments::post(pool, &taken).await.unwrap(),
        Adjusted::Again
    );
    let other = adjustment("fix-1", &who, What::Points(150));
    assert_eq!(
        adjustments::post(pool, &other).await.unwrap(),
        Adjusted::Different
    );
    let too_much = adjustment("fix-2", &who, What::Points(-51));
    assert_eq!(
        adjustments::post(pool, &too_much).await.unwrap(),
        Adjusted::NotEnough(left)
    );
    let stranger = customer("nobody");
    let nobody = adjustment("fix-3", &stranger, What::Points(1));
    assert_eq!(
        adjustments::post(pool, &nobody).await.unwrap(),
        Adjusted::NoAccount
    );
    assert_eq!(
        balance(pool, "A").await.lifetime_earned.get(),
        200,
        "never falls"
    );
    let told = outbox(pool, "loyalty.pointsAdded.v2").await;
    assert_eq!(
        told[1],
        serde_json::json!({"userId": "A", "totalPoints": 50, "difference": -150})
    );
    // Points that were given may make a tier due.
    let orders = async || store::tiers::orders_to_start(pool, 9).await.unwrap().len();
    let before = orders().await;
    let given = adjustment("fix-4", &who, What::Points(1));
    adjustments::post(pool, &given).await.unwrap();
    assert_eq!((before, orders().await), (0, 1));
    let (audited,): (i64,) =
        sqlx::query_as("SELECT count(*) FROM audit_records WHERE action = 'ledger.adjust'")
            .fetch_one(pool)
            .await
            .unwrap();
    assert_eq!(audited, 2);
    assert!(adjustments::exists(pool, "fix-1").await.unwrap());
    let (from, until) = window();
    let (expected, untold) = confirmations::untold_transfers(pool, from, until)
        .await
        .unwrap();
    assert_eq!((expected, untold.len()), (4, 0));
    assert_ledger_agrees(pool).await;
}

#[tokio::test]
async fn a_hold_without_a_redemption_is_found_and_released_by_hand() {
    let database = testing::database().await;
    let pool = &database.pool;
    post(pool, &[stay("E1", "A", 2)]).await;
    let asked = request("R1", "A", 120);
    accept(pool, &asked).await;
    let ttl = std::time::Duration::from_secs(60);
    store::redemptions::reserve(pool, &asked.redeem_request_id, ttl, |_| true)
        .await
        .unwrap();
    assert!(flows::held_for_nothing(pool).await.unwrap().is_empty());
    let who = customer("A");
    let release = adjustment("r", &who, What::ReleaseHold("R1".to_owned()));
    assert_eq!(
        adjustments::post(pool, &release).await.unwrap(),
        Adjusted::NoSuchHold,
        "its redemption is under way"
    );
    run(pool, "DELETE FROM redemptions").await;
    let wrong = flows::held_for_nothing(pool).await.unwrap();
    assert_eq!(wrong.len(), 1);
    assert_eq!((wrong[0].held, wrong[0].under_way), (120, 0));
    assert_eq!(wrong[0].stray_holds, ["R1"]);
    let all = Points::new(200).unwrap();
    assert_eq!(
        adjustments::post(pool, &release).await.unwrap(),
        Adjusted::Posted(all)
    );
    assert_eq!(
        adjustments::post(pool, &release).await.unwrap(),
        Adjusted::Again
    );
    assert!(flows::held_for_nothing(pool).await.unwrap().is_empty());
}
