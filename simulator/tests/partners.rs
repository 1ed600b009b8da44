//! Every mode of the merchants over HTTP, and the context services.

use std::{
    collections::VecDeque,
    future::Future,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use axum::{Json, Router, body::Bytes, http::HeaderMap, routing::post};
use chrono::Utc;
use serde_json::{Value, json};
use simulator::{PartnersOptions, process, serve, signature};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

type TestResult = anyhow::Result<()>;

/// Long enough for a loaded machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(120);

/// Partners that run in this process.
struct Partners {
    url: String,
    http: reqwest::Client,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), simulator::ServeError>>,
}

impl Partners {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(serve(listener, PartnersOptions::default(), async {
            let _ = stopped.await;
        }));
        let http = http_client()?;
        Ok(Self {
            url,
            http,
            stop,
            running,
        })
    }

    fn merchant(&self, id: &str) -> Merchant {
        Merchant {
            partners: self.url.clone(),
            id: id.to_owned(),
            http: self.http.clone(),
        }
    }

    /// Waits until a merchant has taken in so many posts, booked or not.
    async fn wait_for_posts(&self, merchant: &str, count: u64) -> TestResult {
        let url = format!("{}/control/calls", self.url);
        eventually(async || {
            let calls: Value = self.http.get(&url).send().await?.json().await?;
            Ok(calls["merchants"][merchant]["posts"] == count)
        })
        .await
    }

    async fn stop(self) -> TestResult {
        let _ = self.stop.send(());
        self.running.await??;
        Ok(())
    }
}

fn http_client() -> anyhow::Result<reqwest::Client> {
    process::choose_tls_provider();
    Ok(reqwest::Client::builder()
        .timeout(PATIENCE)
        .no_proxy()
        .build()?)
}

/// A merchant as Meed reaches it.
struct Merchant {
    partners: String,
    id: String,
    http: reqwest::Client,
}

impl Merchant {
    fn signed(&self, request: reqwest::RequestBuilder, body: &str) -> reqwest::RequestBuilder {
        let now = Utc::now().timestamp();
        let key = format!("dev-key-{}", self.id);
        request
            .header(signature::TIMESTAMP_HEADER, now.to_string())
            .header(
                signature::SIGNATURE_HEADER,
                signature::sign(&key, now, body.as_bytes()),
            )
            .body(body.to_owned())
    }

    fn redemptions(&self) -> String {
        format!("{}/merchants/{}/redemptions", self.partners, self.id)
    }

    fn prepared(&self, body: &Value) -> reqwest::RequestBuilder {
        let id = body["redeemRequestId"].as_str().unwrap_or_default();
        let request = self.http.post(self.redemptions());
        self.signed(request.header("idempotency-key", id), &body.to_string())
    }

    async fn post(&self, body: &Value) -> anyhow::Result<(u16, Value)> {
        read(self.prepared(body).send().await?).await
    }

    async fn redeem(&self, id: &str) -> anyhow::Result<(u16, Value)> {
        self.post(&request(id, "http://127.0.0.1:9/nobody")).await
    }

    async fn status(&self, id: &str) -> anyhow::Result<(u16, Value)> {
        let request = self.http.get(format!("{}/{id}", self.redemptions()));
        read(self.signed(request, "").send().await?).await
    }

    async fn void(&self, id: &str) -> anyhow::Result<(u16, Value)> {
        let request = self.http.post(format!("{}/{id}/void", self.redemptions()));
        read(self.signed(request, "").send().await?).await
    }

    async fn behave(&self, settings: Value) -> TestResult {
        let url = format!("{}/control/merchants/{}", self.partners, self.id);
        let response = self.http.put(url).json(&settings).send().await?;
        ensure!(response.status() == 200, "{}", response.text().await?);
        Ok(())
    }

    async fn book(&self) -> anyhow::Result<Vec<Value>> {
        let url = format!("{}/control/merchants/{}/book", self.partners, self.id);
        Ok(self.http.get(url).send().await?.json().await?)
    }

    async fn entry(&self, id: &str) -> anyhow::Result<Value> {
        let mut book = self.book().await?.into_iter();
        book.find(|entry| entry["redeemRequestId"] == id)
            .with_context(|| format!("{id} is not in the book"))
    }

    async fn wait_for_status(&self, id: &str, status: &str) -> TestResult {
        eventually(async || Ok(self.status(id).await?.1["status"] == status)).await
    }
}

fn request(id: &str, callback_url: &str) -> Value {
    json!({"redeemRequestId": id, "orderId": "ORD-1", "points": 250, "callbackUrl": callback_url})
}

async fn read(response: reqwest::Response) -> anyhow::Result<(u16, Value)> {
    let status = response.status().as_u16();
    Ok((status, response.json().await?))
}

async fn eventually<F>(mut holds: impl FnMut() -> F) -> TestResult
where
    F: Future<Output = anyhow::Result<bool>>,
{
    let deadline = Instant::now() + PATIENCE;
    while !holds().await? {
        if Instant::now() > deadline {
            bail!("it did not come true in {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// A place for callbacks that answers with the given statuses in turn, and with
/// 200 after the last.
struct Callbacks {
    url: String,
    taken: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

impl Callbacks {
    async fn answering(statuses: &[u16]) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/callback", listener.local_addr()?);
        let taken: Arc<Mutex<Vec<(HeaderMap, Bytes)>>> = Arc::default();
        let seen = Arc::clone(&taken);
        let statuses = Arc::new(Mutex::new(VecDeque::from(statuses.to_vec())));
        let handler = post(async move |headers: HeaderMap, body: Bytes| {
            seen.lock()
                .expect("no test panics here")
                .push((headers, body));
            let status = statuses.lock().expect("no test panics here").pop_front();
            axum::http::StatusCode::from_u16(status.unwrap_or(200)).unwrap_or_default()
        });
        let app = Router::new().route("/callback", handler);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { url, taken })
    }

    fn bodies(&self) -> anyhow::Result<Vec<Value>> {
        let taken = self.taken.lock().expect("no test panics here");
        let bodies = taken.iter().map(|(_, body)| serde_json::from_slice(body));
        Ok(bodies.collect::<Result<_, _>>()?)
    }

    async fn wait_for(&self, count: usize) -> TestResult {
        eventually(async || Ok(self.bodies()?.len() >= count)).await
    }
}

#[tokio::test]
async fn confirm_answers_the_same_however_often_it_is_posted() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M1");
    let first = merchant.redeem("R-1").await?;
    assert_eq!((first.0, &first.1["status"]), (200, &json!("CONFIRMED")));
    assert!(first.1["confirmationId"].is_string());
    assert_eq!(merchant.redeem("R-1").await?, first);
    assert_eq!(merchant.status("R-1").await?, first);
    let entry = merchant.entry("R-1").await?;
    assert_eq!(entry["posts"], 2);
    assert_eq!(entry["statusQueries"], 1);
    assert_eq!(entry["changes"].as_array().map(Vec::len), Some(1));
    partners.stop().await
}

#[tokio::test]
async fn the_same_id_for_something_else_is_refused_and_changes_nothing() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M1");
    merchant.redeem("R-1").await?;
    for (member, value) in [("orderId", json!("ORD-2")), ("points", json!(251))] {
        let mut other = request("R-1", "http://127.0.0.1:9/nobody");
        other[member] = value;
        let expected = json!({"status": "REFUSED", "reason": "REQUEST_DIFFERS"});
        assert_eq!(merchant.post(&other).await?, (422, expected), "{member}");
    }
    let elsewhere = request("R-1", "http://127.0.0.1:9/elsewhere");
    assert_eq!(merchant.post(&elsewhere).await?.1["status"], "CONFIRMED");
    let entry = merchant.entry("R-1").await?;
    assert_eq!(entry["status"], "CONFIRMED");
    assert_eq!(entry["orderId"], "ORD-1");
    assert_eq!(entry["callbackUrl"], "http://127.0.0.1:9/elsewhere");
    partners.stop().await
}

#[tokio::test]
async fn unreadable_requests_are_refused_and_not_booked() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M1");
    for (member, value, reason) in [
        ("points", json!(0), "INVALID_POINTS"),
        ("points", json!(1.5), "MALFORMED_REQUEST"),
        ("orderId", json!(null), "MALFORMED_REQUEST"),
        ("callbackUrl", json!("nowhere"), "INVALID_CALLBACK_URL"),
        ("redeemRequestId", json!(""), "INVALID_REDEEM_REQUEST_ID"),
    ] {
        let mut broken = request("R-1", "http://127.0.0.1:9/nobody");
        broken[member] = value;
        let expected = json!({"status": "REFUSED", "reason": reason});
        assert_eq!(merchant.post(&broken).await?, (400, expected));
    }
    let body = request("R-1", "http://127.0.0.1:9/nobody").to_string();
    let other_key = merchant.http.post(merchant.redemptions());
    let other_key = other_key.header("idempotency-key", "R-2");
    let answer = read(merchant.signed(other_key, &body).send().await?).await?;
    assert_eq!(
        (answer.0, &answer.1["reason"]),
        (400, &json!("IDEMPOTENCY_KEY_DIFFERS"))
    );
    assert!(merchant.book().await?.is_empty());
    partners.stop().await
}

#[tokio::test]
async fn a_request_that_is_not_signed_for_this_merchant_is_turned_away() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M1");
    let impostor = Merchant {
        id: "M2".to_owned(),
        ..partners.merchant("M1")
    };
    let body = request("R-1", "http://127.0.0.1:9/nobody").to_string();

    let unsigned = merchant
        .http
        .post(merchant.redemptions())
        .body(body.clone());
    let foreign = impostor.signed(merchant.http.post(merchant.redemptions()), &body);
    let altered = merchant
        .signed(merchant.http.post(merchant.redemptions()), "{}")
        .body(body.clone());
    let then = Utc::now().timestamp() - 301;
    let stale = merchant
        .http
        .post(merchant.redemptions())
        .header(signature::TIMESTAMP_HEADER, then.to_string())
        .header(
            signature::SIGNATURE_HEADER,
            signature::sign("dev-key-M1", then, body.as_bytes()),
        )
        .body(body);
    let unsigned_status = merchant.http.get(format!("{}/R-1", merchant.redemptions()));
    let unsigned_void = merchant
        .http
        .post(format!("{}/R-1/void", merchant.redemptions()));

    for (attempt, code) in [
        (unsigned, "SIGNATURE_MISSING"),
        (foreign, "SIGNATURE_INVALID"),
        (altered, "SIGNATURE_INVALID"),
        (stale, "TIMESTAMP_OUT_OF_TOLERANCE"),
        (unsigned_status, "SIGNATURE_MISSING"),
        (unsigned_void, "SIGNATURE_MISSING"),
    ] {
        let response = attempt.send().await?;
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        let (status, problem) = read(response).await?;
        assert_eq!((status, &problem["code"]), (401, &json!(code)));
    }
    assert!(merchant.book().await?.is_empty());
    let url = format!("{}/control/calls", partners.url);
    let calls: Value = partners.http.get(url).send().await?.json().await?;
    assert_eq!(calls["merchants"]["M1"]["unauthorized"], 6);
    partners.stop().await
}

#[tokio::test]
async fn refuse_refuses_for_good() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M3");
    let refused = json!({"status": "REFUSED", "reason": "OUT_OF_STOCK"});
    assert_eq!(merchant.redeem("R-1").await?, (409, refused.clone()));
    merchant.behave(json!({"mode": "confirm"})).await?;
    assert_eq!(merchant.redeem("R-1").await?, (409, refused.clone()));
    assert_eq!(merchant.status("R-1").await?, (200, refused));
    partners.stop().await
}

#[tokio::test]
async fn a_void_is_a_tombstone() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M1");
    let voided = (200, json!({"status": "VOIDED"}));

    assert_eq!(merchant.void("unknown").await?, voided);
    assert_eq!(merchant.void("unknown").await?, voided);
    assert_eq!(merchant.redeem("unknown").await?, voided);
    assert_eq!(merchant.status("unknown").await?, voided);

    merchant.redeem("confirmed").await?;
    assert_eq!(merchant.void("confirmed").await?, voided);
    assert_eq!(merchant.redeem("confirmed").await?, voided);
    let entry = merchant.entry("confirmed").await?;
    assert_eq!((&entry["posts"], &entry["voids"]), (&json!(2), &json!(1)));
    let changes = entry["changes"].as_array().context("no changes")?;
    let statuses: Vec<_> = changes.iter().map(|change| &change["status"]).collect();
    assert_eq!(statuses, ["CONFIRMED", "VOIDED"]);
    partners.stop().await
}

#[tokio::test]
async fn pending_modes_call_back_with_a_signed_decision() -> TestResult {
    let partners = Partners::start().await?;
    for (mode, status) in [
        ("pending-confirm", "CONFIRMED"),
        ("pending-refuse", "REFUSED"),
    ] {
        let callbacks = Callbacks::answering(&[]).await?;
        let merchant = partners.merchant("M2");
        merchant
            .behave(json!({"mode": mode, "callbackDelayMs": 20}))
            .await?;
        let accepted = merchant.post(&request(mode, &callbacks.url)).await?;
        assert_eq!(accepted, (202, json!({"status": "PENDING"})));
        callbacks.wait_for(1).await?;

        let (headers, body) = callbacks.taken.lock().expect("no test panics here")[0].clone();
        signature::verify("dev-key-M2", &headers, &body, Utc::now().timestamp())?;
        assert_eq!(callbacks.bodies()?[0]["status"], status);
        eventually(async || Ok(merchant.entry(mode).await?["callback"] == "DELIVERED")).await?;
        let again = merchant.post(&request(mode, &callbacks.url)).await?;
        assert_eq!(again.1["status"], status);
        let entry = merchant.entry(mode).await?;
        assert_eq!(
            (&entry["callbacks"], &entry["callbackAnswer"]),
            (&json!(1), &json!(200))
        );
    }
    partners.stop().await
}

#[tokio::test]
async fn a_callback_is_repeated_until_it_is_taken_or_turned_away() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M2");
    merchant
        .behave(json!({"mode": "pending-confirm", "callbackDelayMs": 1}))
        .await?;
    for (id, answers, attempts, end) in [
        ("taken", vec![500, 503, 200], 3, "DELIVERED"),
        ("expired", vec![503, 410], 2, "GIVEN_UP"),
        ("unknown", vec![404], 1, "GIVEN_UP"),
        ("conflict", vec![409], 1, "GIVEN_UP"),
    ] {
        let callbacks = Callbacks::answering(&answers).await?;
        merchant.post(&request(id, &callbacks.url)).await?;
        eventually(async || Ok(merchant.entry(id).await?["callback"] == end)).await?;
        assert_eq!(merchant.entry(id).await?["callbacks"], attempts, "{id}");
        assert_eq!(callbacks.bodies()?.len(), attempts, "{id}");
    }
    partners.stop().await
}

#[tokio::test]
async fn a_void_ends_a_callback_that_nobody_has_taken() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M2");
    merchant
        .behave(json!({"mode": "pending-confirm", "callbackDelayMs": 1}))
        .await?;
    merchant.redeem("R-1").await?;
    eventually(async || Ok(merchant.entry("R-1").await?["callback"] == "OWED")).await?;
    merchant.void("R-1").await?;
    assert_eq!(merchant.entry("R-1").await?["callback"], "GIVEN_UP");
    partners.stop().await
}

#[tokio::test]
async fn pending_silent_stays_pending_until_it_is_voided() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M6");
    assert_eq!(merchant.redeem("R-1").await?.0, 202);
    assert_eq!(merchant.status("R-1").await?.1["status"], "PENDING");
    assert_eq!(merchant.void("R-1").await?.1["status"], "VOIDED");
    assert_eq!(merchant.entry("R-1").await?["callbacks"], 0);
    partners.stop().await
}

#[tokio::test]
async fn pending_callback_lost_tells_only_those_who_ask() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M1");
    merchant
        .behave(json!({"mode": "pending-callback-lost", "callbackDelayMs": 20}))
        .await?;
    assert_eq!(merchant.redeem("R-1").await?.0, 202);
    merchant.wait_for_status("R-1", "CONFIRMED").await?;
    let entry = merchant.entry("R-1").await?;
    assert_eq!(
        (&entry["callbacks"], &entry["callback"]),
        (&json!(0), &json!(null))
    );
    partners.stop().await
}

#[tokio::test]
async fn silent_never_answers_and_books_nothing() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M5");
    let post = merchant.prepared(&request("R-1", "http://127.0.0.1:9/nobody"));
    let mut unanswered = tokio::spawn(post.send());
    partners.wait_for_posts("M5", 1).await?;
    let answer = tokio::time::timeout(Duration::from_millis(500), &mut unanswered).await;
    assert!(answer.is_err(), "it answered");
    unanswered.abort();
    assert_eq!(merchant.status("R-1").await?.0, 404);
    assert!(merchant.book().await?.is_empty());
    assert_eq!(merchant.void("R-1").await?.1["status"], "VOIDED");
    assert_eq!(merchant.entry("R-1").await?["posts"], 1);

    // With a delay it hangs up by itself, well before the caller's patience ends.
    merchant
        .behave(json!({"mode": "silent", "delayMs": 10}))
        .await?;
    let error = merchant.redeem("R-2").await.err().context("it answered")?;
    let error = error.downcast_ref::<reqwest::Error>().context("not HTTP")?;
    assert!(!error.is_timeout());
    partners.stop().await
}

#[tokio::test]
async fn answer_lost_has_booked_what_it_did_not_say() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M4");
    merchant
        .behave(json!({"mode": "answer-lost", "times": 2}))
        .await?;
    for _ in 0..2 {
        assert!(merchant.redeem("R-1").await.is_err());
        assert_eq!(merchant.status("R-1").await?.1["status"], "CONFIRMED");
    }
    let answer = merchant.redeem("R-1").await?;
    assert_eq!(answer, merchant.status("R-1").await?);
    assert_eq!(merchant.entry("R-1").await?["posts"], 3);
    partners.stop().await
}

#[tokio::test]
async fn answer_lost_forever_tells_only_those_who_ask() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M1");
    merchant
        .behave(json!({"mode": "answer-lost-forever", "delayMs": 10}))
        .await?;
    for _ in 0..3 {
        assert!(merchant.redeem("R-1").await.is_err());
    }
    assert_eq!(merchant.status("R-1").await?.1["status"], "CONFIRMED");
    assert_eq!(merchant.void("R-1").await?.1["status"], "VOIDED");
    partners.stop().await
}

#[tokio::test]
async fn error_fails_everything() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M1");
    merchant.behave(json!({"mode": "error"})).await?;
    assert_eq!(merchant.redeem("R-1").await?.0, 503);
    assert_eq!(merchant.status("R-1").await?.0, 503);
    assert_eq!(merchant.void("R-1").await?.0, 503);
    merchant.behave(json!({"mode": "confirm"})).await?;
    assert_eq!(merchant.status("R-1").await?.0, 404);
    partners.stop().await
}

#[tokio::test]
async fn flaky_recovers_per_redemption() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M7");
    for id in ["R-1", "R-2"] {
        let mut statuses = Vec::new();
        for _ in 0..3 {
            statuses.push(merchant.redeem(id).await?.0);
        }
        assert_eq!(statuses, [503, 503, 200], "{id}");
    }
    partners.stop().await
}

/// Posts, and hangs up when the merchant has taken it in; whether it had not answered yet.
async fn post_and_leave(merchant: &Merchant, id: &str) -> anyhow::Result<bool> {
    let post = merchant.prepared(&request(id, "http://127.0.0.1:9/nobody"));
    let caller = tokio::spawn(post.send());
    // Caller and merchant are in this one thread: they have got so far before all of these are
    // answered, however slow it is.
    for _ in 0..30 {
        merchant.status("unknown").await?;
    }
    caller.abort();
    Ok(caller.await.is_err_and(|ended| ended.is_cancelled()))
}

/// Whether a post was confirmed whose caller had gone before.
async fn confirms_for_nobody(merchant: &Merchant, id: &str) -> anyhow::Result<bool> {
    if !post_and_leave(merchant, id).await? || merchant.status(id).await?.0 != 404 {
        return Ok(false);
    }
    merchant.wait_for_status(id, "CONFIRMED").await?;
    Ok(true)
}

/// Whether a void came before the post took effect, which then had none.
async fn a_void_overtakes(merchant: &Merchant, id: &str) -> anyhow::Result<bool> {
    let left = post_and_leave(merchant, id).await?;
    merchant.void(id).await?;
    let answer = merchant.redeem(id).await?;
    assert_eq!(answer, (200, json!({"status": "VOIDED"})));
    let entry = merchant.entry(id).await?;
    Ok(left && entry["changes"].as_array().map(Vec::len) == Some(1))
}

#[tokio::test]
async fn slow_confirms_even_when_the_caller_has_gone() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M1");
    let (mut confirmed, mut overtaken) = (false, false);
    // A machine that stands still may let the time pass: then the merchant takes more of it.
    for delay_ms in [1_000, 10_000, 60_000] {
        merchant
            .behave(json!({"mode": "slow", "delayMs": delay_ms}))
            .await?;
        if !confirmed {
            confirmed = confirms_for_nobody(&merchant, &format!("R-1-{delay_ms}")).await?;
        }
        if !overtaken {
            overtaken = a_void_overtakes(&merchant, &format!("R-2-{delay_ms}")).await?;
        }
    }
    assert!(confirmed, "nothing was confirmed after its caller had gone");
    assert!(overtaken, "a void that overtakes the post wins");
    partners.stop().await
}

#[tokio::test]
async fn callback_first_calls_back_before_it_answers() -> TestResult {
    let partners = Partners::start().await?;
    let callbacks = Callbacks::answering(&[]).await?;
    let merchant = partners.merchant("M1");
    merchant.behave(json!({"mode": "callback-first"})).await?;
    let answer = merchant.post(&request("R-1", &callbacks.url)).await?;
    assert_eq!(answer, (202, json!({"status": "PENDING"})));
    assert_eq!(callbacks.bodies()?[0]["status"], "CONFIRMED");
    assert_eq!(merchant.status("R-1").await?.1["status"], "CONFIRMED");
    partners.stop().await
}

#[tokio::test]
async fn not_voidable_confirms_what_it_has_accepted() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M1");
    merchant.behave(json!({"mode": "not-voidable"})).await?;
    assert_eq!(merchant.redeem("R-1").await?.0, 202);
    let answer = merchant.void("R-1").await?;
    assert_eq!((answer.0, &answer.1["status"]), (409, &json!("CONFIRMED")));
    assert_eq!(merchant.void("R-1").await?, answer);
    assert_eq!(merchant.status("R-1").await?.1, answer.1);
    assert_eq!(merchant.void("unknown").await?.0, 200);
    partners.stop().await
}

#[tokio::test]
async fn merchants_begin_as_the_protocol_page_says() -> TestResult {
    let partners = Partners::start().await?;
    for (merchant, mode) in [
        ("M1", "confirm"),
        ("M2", "pending-confirm"),
        ("M3", "refuse"),
        ("M4", "answer-lost"),
        ("M5", "silent"),
        ("M6", "pending-silent"),
        ("M7", "flaky"),
        ("any-other", "confirm"),
    ] {
        let url = format!("{}/control/merchants/{merchant}", partners.url);
        let settings: Value = partners.http.get(url).send().await?.json().await?;
        assert_eq!(settings, json!({"mode": mode}));
    }
    let merchant = partners.merchant("M1");
    assert!(merchant.behave(json!({"mode": "nonsense"})).await.is_err());
    assert!(
        merchant
            .behave(json!({"mode": "confirm", "extra": 1}))
            .await
            .is_err()
    );
    partners.stop().await
}

#[tokio::test]
async fn a_reset_forgets_everything() -> TestResult {
    let partners = Partners::start().await?;
    let merchant = partners.merchant("M1");
    merchant.redeem("R-1").await?;
    merchant.behave(json!({"mode": "error"})).await?;
    let url = format!("{}/control/reset", partners.url);
    assert_eq!(partners.http.post(url).send().await?.status(), 204);
    assert!(merchant.book().await?.is_empty());
    assert_eq!(merchant.redeem("R-2").await?.0, 200);
    partners.stop().await
}

#[tokio::test]
async fn stopping_does_not_wait_for_answers_that_never_come() -> TestResult {
    // Who waits takes five seconds every time, a machine that stands still only now and then.
    for _ in 0..5 {
        let partners = Partners::start().await?;
        let merchant = partners.merchant("M5");
        let post = merchant.prepared(&request("R-1", "http://127.0.0.1:9/nobody"));
        let hanging = tokio::spawn(post.send());
        partners.wait_for_posts("M5", 1).await?;
        let started = Instant::now();
        partners.stop().await?;
        let waited = started.elapsed();
        assert!(hanging.await?.is_err());
        if waited < Duration::from_secs(4) {
            return Ok(());
        }
    }
    bail!("it waits for as long as connections may take to end");
}

#[tokio::test]
async fn context_services_answer_fail_and_check_tokens() -> TestResult {
    #[derive(serde::Serialize)]
    struct Claims {
        exp: i64,
    }
    let token = |secret: &str, exp: i64| {
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &Claims { exp }, &key)
    };
    let partners = Partners::start().await?;
    let get = async |path: &str, token: Option<&str>| {
        let request = partners.http.get(format!("{}{path}", partners.url));
        let request = token
            .iter()
            .fold(request, reqwest::RequestBuilder::bearer_auth);
        read(request.send().await?).await
    };

    for path in [
        "/product/recommendations?customerId=C-1",
        "/product-search/search?tier=GOLD",
    ] {
        let (status, products) = get(path, None).await?;
        assert_eq!(status, 200);
        let products = products.as_array().context("not a list")?;
        assert_eq!(products.len(), 3);
        for product in products {
            assert!(product["productId"].is_string() && product["name"].is_string());
            assert!(product["price"].is_string());
        }
        assert_eq!(get(path, None).await?.1.as_array(), Some(products));
    }

    let orders = "/order/orders?customerId=C-1";
    let now = Utc::now().timestamp();
    let good = token("dev-order-service-secret", now + 60)?;
    let foreign = token("another-secret", now + 60)?;
    let expired = token("dev-order-service-secret", now - 3600)?;
    assert_eq!(get(orders, Some(&good)).await?.0, 200);
    for bad in [None, Some(foreign.as_str()), Some(&expired)] {
        let (status, problem) = get(orders, bad).await?;
        assert_eq!((status, &problem["code"]), (401, &json!("INVALID_TOKEN")));
    }
    let customers = (0..20).map(|n| format!("/order/orders?customerId=C-{n}"));
    for path in customers {
        let (_, orders) = get(&path, Some(&good)).await?;
        for order in orders.as_array().context("not a list")? {
            let placed_at = order["placedAt"].as_str().context("no time")?;
            chrono::DateTime::parse_from_rfc3339(placed_at)?;
            assert!(order["amount"].is_string() && order["currency"] == "USD");
        }
    }

    for (service, path) in [
        ("product", "/product/recommendations?customerId=C-1"),
        ("search", "/product-search/search?tier=GOLD"),
        ("order", orders),
    ] {
        let url = format!("{}/control/services/{service}", partners.url);
        for (settings, expected) in [
            (json!({"mode": "error"}), 503),
            (json!({"mode": "slow", "delayMs": 1}), 200),
        ] {
            partners.http.put(&url).json(&settings).send().await?;
            assert_eq!(get(path, Some(&good)).await?.0, expected, "{settings}");
        }
    }
    let (_, calls) = get("/control/calls", None).await?;
    assert_eq!(
        calls["services"],
        json!({"product": 4, "search": 4, "order": 26})
    );
    assert_eq!(get("/health/live", None).await?.0, 200);
    partners.stop().await
}

/// Partners in a process of their own, so that they can be killed.
struct PartnersProcess {
    child: Child,
    url: String,
}

impl PartnersProcess {
    fn start(book: &std::path::Path) -> anyhow::Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_meed-partners"))
            .args(["--listen", "127.0.0.1:0", "--book"])
            .arg(book)
            .env("RUST_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()?;
        let log = BufReader::new(child.stderr.take().context("no log")?);
        let mut log = log.lines();
        let url = loop {
            let line: Value = serde_json::from_str(&log.next().context("it ended")??)?;
            if let Some(address) = line["address"].as_str() {
                break format!("http://{address}");
            }
        };
        std::thread::spawn(move || log.for_each(drop));
        Ok(Self { child, url })
    }

    fn merchant(&self, id: &str) -> anyhow::Result<Merchant> {
        Ok(Merchant {
            partners: self.url.clone(),
            id: id.to_owned(),
            http: http_client()?,
        })
    }
}

impl Drop for PartnersProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn killed_partners_remember_their_book_and_what_they_owe() -> TestResult {
    // A machine that stands still may let it be made before the kill: then it is made later.
    for delay_ms in [3_000, 15_000, 60_000] {
        if remember_when_killed_before_a_decision(delay_ms).await? {
            return Ok(());
        }
    }
    bail!("they are never killed before the decision");
}

/// Whether the decision was still owed when the partners were killed.
async fn remember_when_killed_before_a_decision(delay_ms: u64) -> anyhow::Result<bool> {
    let path = std::env::temp_dir().join(format!("partners-{}.jsonl", uuid::Uuid::new_v4()));
    let callbacks = Callbacks::answering(&[]).await?;

    let before = PartnersProcess::start(&path)?;
    let (confirming, pending) = (before.merchant("M1")?, before.merchant("M2")?);
    let confirmed = confirming.redeem("R-1").await?;
    confirming.void("R-2").await?;
    pending
        .behave(json!({"mode": "pending-confirm", "callbackDelayMs": delay_ms}))
        .await?;
    pending.post(&request("R-3", &callbacks.url)).await?;
    let book = confirming.book().await?;
    drop(before);
    if !callbacks.bodies()?.is_empty() {
        std::fs::remove_file(&path)?;
        return Ok(false);
    }

    let after = PartnersProcess::start(&path)?;
    let (confirming, pending) = (after.merchant("M1")?, after.merchant("M2")?);
    assert_eq!(confirming.book().await?, book);
    assert_eq!(confirming.redeem("R-1").await?, confirmed);
    assert_eq!(confirming.redeem("R-2").await?.1["status"], "VOIDED");
    callbacks.wait_for(1).await?;
    pending.wait_for_status("R-3", "CONFIRMED").await?;
    let url = format!("{}/control/merchants/M2", after.url);
    let settings: Json<Value> = Json(pending.http.get(url).send().await?.json().await?);
    assert_eq!(settings.0["callbackDelayMs"], delay_ms);
    drop(after);
    std::fs::remove_file(&path)?;
    Ok(true)
}
