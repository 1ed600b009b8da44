//! Plays the service that is told of tier upgrades: answers at once, late, twice, with a failure,
//! or never, as the seed has it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::{ClientConfig, Message as _};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::system::{ACKNOWLEDGE_WITHIN_SECONDS, System};
use crate::topics::TIER_UPGRADED;

/// How long an answer that does not get through is repeated.
const REPEATED_FOR: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_millis(300);

/// What the api said to an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Acknowledgement {
    /// The callback.
    pub callback_id: String,
    /// Whether the customer was told.
    pub success: bool,
    /// The api's status; nothing when it gave none in time.
    pub status: Option<u16>,
    /// How often it was sent.
    pub attempts: u32,
}

/// How an upgrade is answered: pauses and verdicts in order.
fn manner(seed: u64, customer: &str, tier: &str) -> Vec<(Duration, bool)> {
    let digest = Sha256::digest(format!("{seed}/{customer}/{tier}"));
    let soon = Duration::from_millis(u64::from(digest[1]) * 2);
    // From a second and a half before the limit to as long after it.
    let limit = u64::try_from(ACKNOWLEDGE_WITHIN_SECONDS).unwrap_or(0) * 1_000;
    let late = Duration::from_millis(limit - 1_500 + u64::from(digest[2]) * 12);
    match digest[0] % 20 {
        0..9 => vec![(soon, true)],
        9..11 => vec![(soon, false)],
        11..13 => vec![(soon, true), (soon, true)],
        13..15 => vec![(soon, true), (soon, false)],
        15..17 => vec![(late, true)],
        _ => vec![],
    }
}

/// The service.
pub struct Acknowledger {
    system: Arc<System>,
    seed: u64,
    said: Mutex<Vec<Acknowledgement>>,
    open: AtomicUsize,
    over: AtomicBool,
}

impl Acknowledger {
    /// Answers nothing before [`run`](Self::run).
    pub fn new(system: Arc<System>, seed: u64) -> Self {
        Self {
            system,
            seed,
            said: Mutex::default(),
            open: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// What was said to each answer.
    pub fn said(&self) -> Vec<Acknowledgement> {
        self.said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many answers are on their way.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Ends it.
    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Reads upgrades and answers each once, however often it is published.
    pub async fn run(self: Arc<Self>) -> Result<()> {
        let consumer: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.system.brokers)
            .set("group.id", "chaos-acknowledger")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("topic.metadata.refresh.interval.ms", "5000")
            .set("reconnect.backoff.max.ms", "1000")
            .create()?;
        consumer.subscribe(&[TIER_UPGRADED])?;
        let mut seen = HashSet::new();
        while !self.over.load(Ordering::SeqCst) {
            let Ok(received) = tokio::time::timeout(LOOK, consumer.recv()).await else {
                continue;
            };
            let Ok(message) = received else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let said: Value =
                serde_json::from_slice(message.payload().unwrap_or_default()).unwrap_or_default();
            let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
            let callback_id = text("callbackId");
            if seen.insert(callback_id.clone()) {
                let manner = manner(self.seed, &text("userId"), &text("newTier"));
                self.open.fetch_add(1, Ordering::SeqCst);
                let acknowledger = Arc::clone(&self);
                tokio::spawn(async move {
                    for (pause, success) in manner {
                        tokio::time::sleep(pause).await;
                        acknowledger.answer(&callback_id, success).await;
                    }
                    acknowledger.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        }
        Ok(())
    }

    async fn answer(&self, callback_id: &str, success: bool) {
        let verdict = if success { "success" } else { "failure" };
        let started = Instant::now();
        let mut said = Acknowledgement {
            callback_id: callback_id.to_owned(),
            success,
            status: None,
            attempts: 0,
        };
        while started.elapsed() < REPEATED_FOR {
            said.attempts += 1;
            said.status = self.attempt(callback_id, verdict).await;
            if said.status.is_some() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let mut all = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(said);
    }

    async fn attempt(&self, callback_id: &str, verdict: &str) -> Option<u16> {
        let token = self
            .system
            .token("acknowledger", "callbacks.write")
            .await
            .ok()?;
        let url = format!(
            "{}/api/v1/callbacks/{callback_id}/{verdict}",
            self.system.api
        );
        let answer = self
            .system
            .http
            .post(url)
            .bearer_auth(token)
            .send()
            .await
            .ok()?;
        let status = answer.status();
        (!status.is_server_error() && status != 429).then_some(status.as_u16())
    }
}
