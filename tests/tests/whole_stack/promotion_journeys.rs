//! Promotions through the whole system: made by staff, assigned, welcomed with, claimed.

use futures::future::join_all;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tests::system::{System, patiently, system, unique};

/// A token of the dev profile.
async fn token(system: &System, sub: &str, role: &str) -> String {
    let request = system
        .http
        .get(system.url("/dev/token"))
        .query(&[("sub", sub), ("role", role)]);
    let answer: Value = patiently(request).await.json().await.expect("JSON");
    answer["access_token"].as_str().expect("a token").to_owned()
}

/// Asks until there is an answer.
async fn ask(request: RequestBuilder) -> (StatusCode, Value) {
    let answer = patiently(request).await;
    (answer.status(), answer.json().await.expect("JSON"))
}

/// Somebody with a token.
struct Person<'a> {
    system: &'a System,
    token: String,
}

impl<'a> Person<'a> {
    async fn new(system: &'a System, sub: &str, role: &str) -> Self {
        let token = token(system, sub, role).await;
        Self { system, token }
    }

    async fn get(&self, path: &str) -> Value {
        let url = self.system.url(path);
        let (status, body) = ask(self.system.http.get(url).bearer_auth(&self.token)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = self.system.http.post(self.system.url(path));
        let request = request.bearer_auth(&self.token);
        ask(request.header("idempotency-key", unique("key")).json(body)).await
    }

    /// Makes a promotion that holds for decades: its id, or that of the one that is there.
    async fn promotion(&self, kind: &str, amount: &str) -> String {
        let body = json!({
            "title": kind, "type": kind, "amount": amount, "startDate": "2020-01-01",
            "endDate": "2096-01-01"
        });
        let (status, made) = self.post("/api/v1/promotions", &body).await;
        if status == StatusCode::CREATED {
            return made["id"].as_str().expect("an id").to_owned();
        }
        assert_eq!(made["code"], "PROMOTION_OVERLAPS", "{made}");
        let path = format!("/api/v1/promotions?type={kind}&active=true");
        let page = self.get(&path).await;
        page["promotions"][0]["id"]
            .as_str()
            .expect("an id")
            .to_owned()
    }

    async fn assign(&self, promotion: &str, players: &[String]) -> String {
        let path = format!("/api/v1/promotions/{promotion}/assign");
        let (status, job) = self.post(&path, &json!({ "playerIds": players })).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{job}");
        format!(
            "/api/v1/promotions/jobs/{}",
            job["jobId"].as_str().expect("an id")
        )
    }
}

/// Opens accounts, many at once.
async fn accounts(system: &System, count: usize) -> Vec<String> {
    let prefix = unique("P");
    let players: Vec<String> = (0..count).map(|n| format!("{prefix}-{n}")).collect();
    sqlx::query("INSERT INTO customers (customer_id) SELECT * FROM unnest($1::text[])")
        .bind(&players)
        .execute(&system.pool)
        .await
        .expect("accounts");
    players
}

#[tokio::test]
async fn a_hundred_claims_at_once_credit_once() {
    let system = system().await;
    let staff = Person::new(&system, "anna", "staff").await;
    let promotion = staff.promotion("DEPOSIT_MATCH", "600.50").await;
    let players = accounts(&system, 1).await;
    let player = &players[0];
    let job = staff.assign(&promotion, &players).await;
    system
        .until("the promotion is assigned", async || {
            staff.get(&job).await["status"] == "DONE"
        })
        .await;
    let own = Person::new(&system, player, "player").await;
    let body = json!({ "promotionId": promotion });
    let claim = || own.post("/api/v1/promotions/claim", &body);
    for (status, answer) in join_all((0..100).map(|_| claim())).await {
        // Under way when it was asked for, or claimed already.
        match status {
            StatusCode::ACCEPTED => assert_eq!(answer["playerId"], player.as_str(), "{answer}"),
            StatusCode::CONFLICT => {
                assert_eq!(answer["code"], "PROMOTION_ALREADY_CLAIMED", "{answer}");
            }
            other => panic!("{other}: {answer}"),
        }
    }
    system
        .until("the points are credited", async || {
            system.available(player).await == Some(600)
        })
        .await;
    let (_, late) = claim().await;
    assert_eq!(late["code"], "PROMOTION_ALREADY_CLAIMED");
    let list = own
        .get(&format!("/api/v1/promotions/players/{player}"))
        .await;
    assert_eq!(list["promotions"][0]["status"], "CLAIMED", "{list}");
    assert_eq!(list["promotions"][0]["points"], 600);
    let mine = player.clone();
    let told = system
        .await_published("loyalty.pointsAdded.v2", 1, move |m| m.key == mine)
        .await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].json()["difference"], 600);
    // 600 points are silver, by the same road as all points.
    let (_, history) = system
        .get(&format!("/api/v1/customers/{player}/transactions"))
        .await;
    assert_eq!(history["transactions"][0]["source"], "promotion");
    let mine = player.clone();
    let upgraded = system
        .await_published("loyalty.tierUpgraded.v1", 1, move |m| m.key == mine)
        .await;
    assert_eq!(upgraded[0].json()["newTier"], "SILVER");
    system.assert_ledger_agrees().await;
}

#[tokio::test]
async fn ten_registrations_are_welcomed_once() {
    let system = system().await;
    let staff = Person::new(&system, "anna", "staff").await;
    let welcome = staff.promotion("WELCOME_BONUS", "50").await;
    let player = unique("C");
    let message = json!({ "eventType": "PLAYER_REGISTERED", "user_id": player }).to_string();
    for _ in 0..10 {
        system
            .send("players", &player, &[], message.as_bytes())
            .await;
    }
    // What comes after them has been counted when they have.
    system.stay(&player, 1).await;
    let credentials = json!({ "username": unique("player"), "password": "correct horse battery" });
    let (status, registered) = ask(system
        .http
        .post(system.url("/api/v1/auth/register"))
        .header("idempotency-key", unique("key"))
        .json(&credentials))
    .await;
    assert_eq!(status, StatusCode::CREATED, "{registered}");
    let own = registered["userId"].as_str().expect("an id").to_owned();
    for who in [&player, &own] {
        let mine = who.clone();
        let told = system
            .await_published("notifications", 1, move |m| m.key == mine)
            .await;
        assert_eq!(told.len(), 1, "{told:?}");
        let id = format!("promotion-assigned/{welcome}/{who}");
        assert_eq!(told[0].headers["ce_id"], id);
        assert_eq!(told[0].json()["content"]["id"], welcome.as_str());
        let person = Person::new(&system, who, "player").await;
        let list = person
            .get(&format!("/api/v1/promotions/players/{who}"))
            .await;
        assert_eq!(list["promotions"][0]["id"], welcome.as_str());
        assert_eq!(list["promotions"][0]["status"], "UNCLAIMED");
    }
    system
        .until("all of them have been counted", async || {
            let (events,): (i64,) =
                sqlx::query_as("SELECT count(*) FROM processed_events WHERE customer_id = $1")
                    .bind(&player)
                    .fetch_one(&system.pool)
                    .await
                    .expect("counted");
            events == 2
        })
        .await;
    let mine = player.clone();
    let told = system
        .published_once("notifications", move |m| m.key == mine)
        .await;
    assert_eq!(told.len(), 1, "still one");
    let (written,): (i64,) = sqlx::query_as(
        "SELECT count(*) FROM outbox
         WHERE topic = 'notifications' AND message_key = convert_to($1, 'UTF8')",
    )
    .bind(&player)
    .fetch_one(&system.pool)
    .await
    .expect("counted");
    assert_eq!(written, 1, "and not twice the same");
    let person = Person::new(&system, &player, "player").await;
    let body = json!({ "promotionId": welcome });
    let (status, claimed) = person.post("/api/v1/promotions/claim", &body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{claimed}");
    system
        .until("the welcome is credited", async || {
            system.available(&player).await == Some(150)
        })
        .await;
    system.assert_ledger_agrees().await;
}

#[tokio::test]
async fn ten_thousand_are_assigned_watched_and_taken_back() {
    let system = system().await;
    let staff = Person::new(&system, "anna", "staff").await;
    let promotion = staff.promotion("FREE_SPIN", "1").await;
    let mut players = accounts(&system, 9_950).await;
    players.extend((0..50).map(|_| unique("nobody")));
    // Somebody has the row of one of them, so that it stops in the middle.
    let mut held = system.pool.begin().await.expect("begun");
    sqlx::query("SELECT FROM customers WHERE customer_id = $1 FOR UPDATE")
        .bind(&players[5_100])
        .execute(&mut *held)
        .await
        .expect("held");
    let job = staff.assign(&promotion, &players).await;
    system
        .until("it is half done", async || {
            let seen = staff.get(&job).await;
            assert_eq!(seen["players"], 10_000);
            assert!(
                seen["status"] == "QUEUED" || seen["status"] == "RUNNING",
                "{seen}"
            );
            seen["done"] == 5_000
        })
        .await;
    let path = format!("{job}/cancel");
    let ((status, wish), ()) = tokio::join!(staff.post(&path, &Value::Null), async {
        // The step that is held has the job's row, so the wish waits for it, unless it comes
        // between two attempts of the step.
        system
            .until("the wish waits or is granted", async || {
                let (so,): (bool,) = sqlx::query_as(
                    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                                    AND query LIKE '%coalesce(cancel_requested_at%')
                         OR EXISTS (SELECT FROM assignment_jobs
                                    WHERE job_id = $1 AND cancel_requested_at IS NOT NULL)",
                )
                .bind(job.rsplit('/').next())
                .fetch_one(&system.pool)
                .await
                .expect("asked");
                so
            })
            .await;
        held.rollback().await.expect("released");
    });
    assert_eq!(status, StatusCode::ACCEPTED, "{wish}");
    system
        .until("it has ended", async || {
            staff.get(&job).await["status"] == "CANCELLED"
        })
        .await;
    let seen = staff.get(&job).await;
    let done = seen["done"].as_i64().expect("a number");
    assert!((5_000..10_000).contains(&done), "{seen}");
    assert_eq!(seen["notDone"], 10_000 - done);
    assert_eq!(seen["assigned"], done);
    let (told,): (i64,) = sqlx::query_as(
        "SELECT count(*) FROM outbox WHERE topic = 'notifications'
           AND convert_from(message_key, 'UTF8') = ANY($1)",
    )
    .bind(&players)
    .fetch_one(&system.pool)
    .await
    .expect("counted");
    assert_eq!(told, done, "who has it was told, and nobody else");
    let (status, again) = staff.post(&path, &Value::Null).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(again["code"], "ALREADY_ENDED");

    // Ordered again: who has it keeps it, the others get it, and those who are not known are named.
    let job = staff.assign(&promotion, &players).await;
    system
        .until("it is done", async || {
            staff.get(&job).await["status"] == "DONE"
        })
        .await;
    let seen = staff.get(&job).await;
    assert_eq!(seen["already"], done, "{seen}");
    assert_eq!(seen["assigned"], 9_950 - done);
    assert_eq!(seen["unknown"], 50);
    let mut unknown = Vec::new();
    let mut next = Some(format!("{job}?limit=30"));
    while let Some(path) = next {
        let page = staff.get(&path).await;
        unknown.extend(page["unknownPlayers"].as_array().expect("a list").clone());
        next = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(json!(unknown), json!(players[9_950..]));
    system.assert_ledger_agrees().await;
}
