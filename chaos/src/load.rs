//! Sends the plan's load: messages over Kafka and requests over HTTP, side by side, no faster than
//! it should be and no further than the faults have come.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use samples::feed::Delivery;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::plan::{Request, Twist, body};
use crate::sender::Sender;
use crate::system::System;

/// How many requests are in work at a time.
const IN_WORK: usize = 24;
/// How long a request without a definite answer is repeated.
const REPEATED_FOR: Duration = Duration::from_secs(240);
const PAUSE: Duration = Duration::from_millis(20);
const RETRY_PAUSE: Duration = Duration::from_millis(150);

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Asked {
    /// To redeem.
    Redeem,
    /// The same again under the same key.
    Repeat,
    /// The same under another key.
    OtherKey,
    /// Something else under the same key.
    SameKeyOtherBody,
    /// Something else under the same id.
    Conflict,
    /// What breaks its contract.
    Broken,
    /// To cancel.
    Cancel,
}

/// A definite answer of the api, or that there was none in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The redemption.
    pub id: String,
    /// What was asked.
    pub asked: Asked,
    /// The HTTP status; nothing when no definite answer came in time.
    pub status: Option<u16>,
    /// The problem's code.
    pub code: Option<String>,
    /// The redemption that the answer names.
    pub named: Option<String>,
    /// How often it was asked.
    pub attempts: u32,
}

/// How far the load is, and how far it may go.
#[derive(Debug)]
pub struct Pace {
    all: usize,
    begun: AtomicUsize,
    allowed: AtomicUsize,
    started: Instant,
    lasts: Duration,
}

impl Pace {
    /// For so much load, over so long.
    pub fn new(all: usize, lasts: Duration) -> Self {
        Self {
            all,
            begun: AtomicUsize::new(0),
            allowed: AtomicUsize::new(all),
            started: Instant::now(),
            lasts,
        }
    }

    /// How far it is, from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn progress(&self) -> f64 {
        self.begun.load(Ordering::SeqCst) as f64 / self.all.max(1) as f64
    }

    /// How many have begun, and of how many.
    pub fn counts(&self) -> (usize, usize) {
        (self.begun.load(Ordering::SeqCst), self.all)
    }

    /// Lets it go so far, from 0 to 1.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count"
    )]
    pub fn allow(&self, share: f64) {
        let allowed = (self.all as f64 * share.clamp(0.0, 1.0)).ceil() as usize;
        self.allowed.store(allowed, Ordering::SeqCst);
    }

    /// Waits until the load may be at this share of its way, and counts one.
    async fn begin(&self, share: f64) {
        while self.started.elapsed() < self.lasts.mul_f64(share)
            || self.begun.load(Ordering::SeqCst) >= self.allowed.load(Ordering::SeqCst)
        {
            tokio::time::sleep(PAUSE).await;
        }
        self.begun.fetch_add(1, Ordering::SeqCst);
    }
}

/// What was sent, and what was answered.
#[derive(Debug, Default)]
pub struct Sent {
    /// What Kafka has acknowledged, in order.
    pub messages: Vec<Delivery>,
    /// What the api has answered.
    pub answers: Vec<Answer>,
}

/// Sends everything; returns when each message is acknowledged and each request answered.
pub async fn send(
    system: &Arc<System>,
    messages: &[Delivery],
    requests: &[Request],
    pace: &Arc<Pace>,
) -> Result<Sent> {
    let client = Arc::new(Client::new(system).await?);
    let over_kafka = async {
        let mut sender = Sender::new(&system.brokers)?;
        for (number, delivery) in messages.iter().enumerate() {
            pace.begin(share(number, messages.len())).await;
            sender.send(delivery.clone()).await?;
        }
        sender.flush().await?;
        anyhow::Ok(())
    };
    let over_http = async {
        let room = Arc::new(Semaphore::new(IN_WORK));
        let mut work = tokio::task::JoinSet::new();
        for (number, request) in requests.iter().enumerate() {
            pace.begin(share(number, requests.len())).await;
            let permit = Arc::clone(&room).acquire_owned().await?;
            let (client, request) = (Arc::clone(&client), request.clone());
            work.spawn(async move {
                client.play(&request).await;
                drop(permit);
            });
        }
        while let Some(done) = work.join_next().await {
            done?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(over_kafka, over_http)?;
    let answers = client
        .answers
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    Ok(Sent {
        messages: messages.to_vec(),
        answers: answers.clone(),
    })
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share(number: usize, of: usize) -> f64 {
    number as f64 / of.max(1) as f64
}

/// A client of the api that insists on a definite answer.
struct Client {
    http: reqwest::Client,
    api: String,
    token: String,
    answers: Mutex<Vec<Answer>>,
}

impl Client {
    async fn new(system: &System) -> Result<Self> {
        let scope = "rewards.read rewards.redeem";
        // The api may be on its way up.
        let started = Instant::now();
        let token = loop {
            match system.token("chaos", scope).await {
                Ok(token) => break token,
                Err(error) if started.elapsed() > REPEATED_FOR => return Err(error),
                Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        };
        Ok(Self {
            http: system.http.clone(),
            api: system.api.clone(),
            token,
            answers: Mutex::default(),
        })
    }

    /// Sends a request with all that is to be done with it.
    async fn play(&self, request: &Request) {
        let id = &request.id;
        let key = format!("key-{id}");
        let body = body(request);
        if request.twist == Twist::Broken {
            let mut broken = body;
            broken["requestedPoints"] = json!(0);
            self.redeem(Asked::Broken, id, &key, &broken).await;
            return;
        }
        let first = self.redeem(Asked::Redeem, id, &key, &body).await;
        if first != Some(202) {
            return;
        }
        let mut other = body.clone();
        other["requestedPoints"] = json!(request.points + 1);
        let other_key = format!("other-{id}");
        let again = match request.twist {
            Twist::Repeat => Some((Asked::Repeat, &key, &body)),
            Twist::OtherKey => Some((Asked::OtherKey, &other_key, &body)),
            Twist::SameKeyOtherBody => Some((Asked::SameKeyOtherBody, &key, &other)),
            Twist::Conflict => Some((Asked::Conflict, &other_key, &other)),
            Twist::None | Twist::Broken => None,
        };
        if let Some((asked, key, body)) = again {
            self.redeem(asked, id, key, body).await;
        }
        if let Some(ms) = request.cancel_after_ms {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            let path = format!("/api/v1/redeem/{id}/cancel");
            self.insist(Asked::Cancel, id, &path, &format!("cancel-{id}"), None)
                .await;
        }
    }

    async fn redeem(&self, asked: Asked, id: &str, key: &str, body: &Value) -> Option<u16> {
        self.insist(asked, id, "/api/v1/redeem", key, Some(body))
            .await
    }

    /// Asks until the answer is definite, always with the same key.
    async fn insist(
        &self,
        asked: Asked,
        id: &str,
        path: &str,
        key: &str,
        body: Option<&Value>,
    ) -> Option<u16> {
        let started = Instant::now();
        let mut answer = Answer {
            id: id.to_owned(),
            asked,
            status: None,
            code: None,
            named: None,
            attempts: 0,
        };
        while started.elapsed() < REPEATED_FOR {
            answer.attempts += 1;
            let mut post = self
                .http
                .post(format!("{}{path}", self.api))
                .bearer_auth(&self.token)
                .header("idempotency-key", key);
            if let Some(body) = body {
                post = post.json(body);
            }
            if let Some((status, said)) = definite(post).await {
                answer.status = Some(status);
                let text = |name: &str| said[name].as_str().map(str::to_owned);
                answer.code = text("code");
                answer.named = text("redeemRequestId");
                break;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        let status = answer.status;
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push(answer);
        status
    }
}

/// The status and body of an answer that settles the matter.
async fn definite(request: reqwest::RequestBuilder) -> Option<(u16, Value)> {
    let response = request.send().await.ok()?;
    let status = response.status();
    let text = response.text().await.ok()?;
    if status.is_server_error() || status == 429 || status == 408 {
        return None;
    }
    let said: Value = serde_json::from_str(&text).unwrap_or_default();
    if said["code"] == "REQUEST_IN_PROGRESS" {
        return None;
    }
    Some((status.as_u16(), said))
}
