//! The client side of the partner protocol (`docs/partner-protocol.md`): one merchant each, with
//! a circuit breaker and a bulkhead of its own.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use domain::{
    MerchantId, OrderId, Points, RedeemRequestId,
    redemption::{BUILT_IN_MERCHANT, PARTNER_DETAIL_MAX_CHARS},
    refusal::printable,
};
use failsafe::{
    Config, StateMachine,
    backoff::{self, Exponential},
    failure_policy::{self, ConsecutiveFailures},
};
use opentelemetry::{global, propagation::Injector};
use reqwest::{
    Method, StatusCode,
    header::{HeaderMap, HeaderName},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tracing::{debug_span, field::Empty};

use crate::{answer, measures, signature};

/// The largest answer that is read, in bytes; those of the protocol have some hundred. A longer one is
/// none of its words.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// How long an open circuit stays open at first, and at most.
const CIRCUIT_OPEN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// How a merchant is reached.
#[derive(Debug, Clone)]
pub struct MerchantSettings {
    /// The base URL of its partner protocol.
    pub base_url: String,
    /// The key that both sides sign with.
    pub signing_key: String,
    /// How many requests may be under way at once.
    pub max_concurrent: usize,
    /// After how many failures in a row it is left alone for a while.
    pub failure_threshold: u32,
}

/// No word from the partner.
#[derive(Debug, thiserror::Error)]
pub enum PartnerError {
    /// It has failed too often lately and is left alone for a while.
    #[error("{merchant} has failed too often lately; it is left alone for a while")]
    CircuitOpen {
        /// The merchant.
        merchant: MerchantId,
    },
    /// As many requests as allowed are under way.
    #[error("as many requests to {merchant} as allowed are under way")]
    Busy {
        /// The merchant.
        merchant: MerchantId,
    },
    /// The request or its answer was lost.
    #[error("no answer from {merchant}: {reason}")]
    Lost {
        /// The merchant.
        merchant: MerchantId,
        /// What happened.
        reason: String,
    },
    /// It answered that it cannot answer now.
    #[error("{merchant} answered {status}")]
    Unavailable {
        /// The merchant.
        merchant: MerchantId,
        /// The HTTP status.
        status: u16,
    },
}

/// What the partner said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It delivers.
    Confirmed {
        /// Its confirmation id.
        confirmation_id: Option<String>,
    },
    /// It will call back.
    Pending,
    /// It does not deliver.
    Refused {
        /// Its reason.
        reason: Option<String>,
    },
    /// It will never confirm this id.
    Voided,
    /// Nothing that decides anything.
    Unknown {
        /// The HTTP status.
        status: u16,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RedemptionRequest<'a> {
    redeem_request_id: &'a RedeemRequestId,
    order_id: &'a OrderId,
    points: Points,
    callback_url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatusBody {
    status: String,
    confirmation_id: Option<String>,
    reason: Option<String>,
}

/// Which question was asked: each has its own answers that decide something.
#[derive(Debug, Clone, Copy)]
enum Question {
    Confirm,
    Status,
    Void,
}

/// How much an attempt may ask of a merchant.
#[derive(Debug, Clone, Copy)]
pub enum Attempt {
    /// A short try on the side: only while the merchant has a place free, and its running out of
    /// time says nothing about the merchant.
    Quick(Duration),
    /// As long as the request may take, or until its attempt is given up; waits for a place, half
    /// of that time at most.
    Patient(Option<Duration>),
}

struct Merchant {
    settings: MerchantSettings,
    bulkhead: Semaphore,
    circuit: StateMachine<ConsecutiveFailures<Exponential>, ()>,
}

/// All merchants that are configured.
#[derive(Clone)]
pub struct Partners {
    merchants: Arc<HashMap<MerchantId, Merchant>>,
    client: reqwest::Client,
    callback_base: Arc<str>,
    timeout: Duration,
}

impl Partners {
    /// Clients for these merchants. `callback_base` is the address under which they reach the
    /// api; `timeout` bounds a request.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(
        merchants: impl IntoIterator<Item = (MerchantId, MerchantSettings)>,
        callback_base: &str,
        timeout: Duration,
    ) -> Result<Self, reqwest::Error> {
        let merchants = merchants
            .into_iter()
            .map(|(id, settings)| {
                let pause = backoff::exponential(CIRCUIT_OPEN.0, CIRCUIT_OPEN.1);
                let policy =
                    failure_policy::consecutive_failures(settings.failure_threshold.max(1), pause);
                let merchant = Merchant {
                    bulkhead: Semaphore::new(settings.max_concurrent.max(1)),
                    circuit: Config::new().failure_policy(policy).build(),
                    settings,
                };
                (id, merchant)
            })
            .collect();
        Ok(Self {
            merchants: Arc::new(merchants),
            client: reqwest::Client::builder().build()?,
            timeout,
            callback_base: callback_base.trim_end_matches('/').into(),
        })
    }

    /// Whether the merchant is configured, or the built-in one.
    pub fn knows(&self, merchant: &MerchantId) -> bool {
        is_built_in(merchant) || self.merchants.contains_key(merchant)
    }

    /// The key that both sides sign with.
    pub fn signing_key(&self, merchant: &MerchantId) -> Option<&[u8]> {
        self.merchants
            .get(merchant)
            .map(|m| m.settings.signing_key.as_bytes())
    }

    /// Asks the merchant to deliver.
    ///
    /// # Errors
    /// No word from it.
    pub async fn confirm(
        &self,
        merchant: &MerchantId,
        id: &RedeemRequestId,
        order: &OrderId,
        points: Points,
        callback_id: &str,
        attempt: Attempt,
    ) -> Result<Said, PartnerError> {
        let request = RedemptionRequest {
            redeem_request_id: id,
            order_id: order,
            points,
            callback_url: format!(
                "{}/api/v1/partner-callbacks/{callback_id}",
                self.callback_base
            ),
        };
        let body = serde_json::to_vec(&request).map_err(|e| PartnerError::Lost {
            merchant: merchant.clone(),
            reason: e.to_string(),
        })?;
        self.call(merchant, Question::Confirm, &[], Some((id, body)), attempt)
            .await
    }

    /// Asks what became of a redemption.
    ///
    /// # Errors
    /// No word from it.
    pub async fn status(
        &self,
        merchant: &MerchantId,
        id: &RedeemRequestId,
    ) -> Result<Said, PartnerError> {
        self.call(
            merchant,
            Question::Status,
            &[id.as_str()],
            None,
            Attempt::Patient(None),
        )
        .await
    }

    /// Takes a redemption back for good.
    ///
    /// # Errors
    /// No word from it.
    pub async fn void(
        &self,
        merchant: &MerchantId,
        id: &RedeemRequestId,
    ) -> Result<Said, PartnerError> {
        self.call(
            merchant,
            Question::Void,
            &[id.as_str(), "void"],
            None,
            Attempt::Patient(None),
        )
        .await
    }

    async fn call(
        &self,
        id: &MerchantId,
        question: Question,
        path: &[&str],
        body: Option<(&RedeemRequestId, Vec<u8>)>,
        attempt: Attempt,
    ) -> Result<Said, PartnerError> {
        if is_built_in(id) {
            return Ok(built_in(question));
        }
        let asked = Instant::now();
        let answer = self.ask(id, question, path, body, attempt).await;
        if self.merchants.contains_key(id) {
            measures::partner_asked(id, question.as_str(), &answer, asked.elapsed());
        }
        answer
    }

    async fn ask(
        &self,
        id: &MerchantId,
        question: Question,
        path: &[&str],
        body: Option<(&RedeemRequestId, Vec<u8>)>,
        attempt: Attempt,
    ) -> Result<Said, PartnerError> {
        let lost = |reason: String| PartnerError::Lost {
            merchant: id.clone(),
            reason,
        };
        let merchant = self
            .merchants
            .get(id)
            .ok_or_else(|| lost("it is not configured any more".into()))?;
        let limit = match attempt {
            Attempt::Quick(within) | Attempt::Patient(Some(within)) => within.min(self.timeout),
            Attempt::Patient(None) => self.timeout,
        };
        // Waiting for a place and the request together; at least half of it is for the request.
        let until = Instant::now() + limit;
        let busy = || PartnerError::Busy {
            merchant: id.clone(),
        };
        let _place = match attempt {
            Attempt::Quick(_) => merchant.bulkhead.try_acquire().map_err(|_| busy())?,
            Attempt::Patient(_) => tokio::time::timeout(limit / 2, merchant.bulkhead.acquire())
                .await
                .map_err(|_| busy())?
                .map_err(|_| busy())?,
        };
        if !merchant.circuit.is_call_permitted() {
            return Err(PartnerError::CircuitOpen {
                merchant: id.clone(),
            });
        }
        let mut url = reqwest::Url::parse(&merchant.settings.base_url)
            .map_err(|e| lost(format!("its base URL: {e}")))?;
        url.path_segments_mut()
            .map_err(|()| lost("its base URL has no path".into()))?
            .pop_if_empty()
            .push("redemptions")
            .extend(path);
        let (key, bytes) = body.map_or((None, Vec::new()), |(key, bytes)| (Some(key), bytes));
        let now = Utc::now().timestamp();
        let signing_key = merchant.settings.signing_key.as_bytes();
        let mut request = self
            .client
            .request(question.method(), url)
            .header(signature::TIMESTAMP_HEADER, now)
            .header(
                signature::SIGNATURE_HEADER,
                signature::sign(signing_key, now, &bytes),
            );
        if let Some(key) = key {
            request = request
                .header("idempotency-key", key.as_str())
                .header(reqwest::header::CONTENT_TYPE, "application/json")
                .body(bytes);
        }
        let span = debug_span!(
            "partner",
            otel.name = format!("{} {id}", question.method()),
            otel.kind = "client",
            http.request.method = %question.method(),
            http.response.status_code = Empty,
            merchant = %id,
            question = question.as_str(),
        );
        // Not within the span: a connection that is opened there keeps it for as long as it is open, and the span is
        // sent when nobody has it any more.
        let left = until.saturating_duration_since(Instant::now());
        let request = request.headers(span.in_scope(trace)).timeout(left);
        let answer = async {
            let response = request.send().await.map_err(|e| lost(causes(&e)))?;
            let status = response.status();
            span.record("http.response.status_code", status.as_u16());
            let body = answer::body(response, ANSWER_MAX_BYTES);
            let body = body.await.map_err(|e| lost(causes(&e)))?;
            if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                return Err(PartnerError::Unavailable {
                    merchant: id.clone(),
                    status: status.as_u16(),
                });
            }
            Ok(understand(question, status, &body))
        }
        .await;
        // Its end is when it was left last.
        drop(span.entered());
        match &answer {
            Ok(_) => merchant.circuit.on_success(),
            // Who has less time than that says nothing about the merchant.
            Err(PartnerError::Lost { .. }) if left < self.timeout / 2 => {}
            Err(_) => merchant.circuit.on_error(),
        }
        answer
    }
}

/// The trace that is under way, for whoever is asked.
fn trace() -> HeaderMap {
    struct Carrier(HeaderMap);

    impl Injector for Carrier {
        fn set(&mut self, name: &str, value: String) {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), value.try_into()) {
                self.0.insert(name, value);
            }
        }
    }

    let mut carrier = Carrier(HeaderMap::new());
    global::get_text_map_propagator(|traces| {
        traces.inject_context(&opentelemetry::Context::current(), &mut carrier);
    });
    carrier.0
}

fn is_built_in(merchant: &MerchantId) -> bool {
    merchant.as_str() == BUILT_IN_MERCHANT
}

/// What the built-in merchant says, which delivers nothing and keeps no book: yes to everything.
/// What became of a redemption stands in its row alone.
fn built_in(question: Question) -> Said {
    match question {
        Question::Confirm => Said::Confirmed {
            confirmation_id: None,
        },
        Question::Void => Said::Voided,
        Question::Status => Said::Unknown {
            status: StatusCode::NOT_FOUND.as_u16(),
        },
    }
}

/// An error with everything that led to it, in one line, without the address.
fn causes(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() {
        "timed out".to_owned()
    } else if error.is_connect() {
        "could not connect".to_owned()
    } else {
        "the connection broke".to_owned()
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl Question {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Status => "status",
            Self::Void => "void",
        }
    }

    const fn method(self) -> Method {
        match self {
            Self::Status => Method::GET,
            Self::Confirm | Self::Void => Method::POST,
        }
    }
}

/// What an answer says, in the words of the protocol. Of a status only a 200 counts, and a void
/// has two answers: whatever else comes, a 404 above all, proves nothing and frees no points.
fn understand(question: Question, status: StatusCode, body: &[u8]) -> Said {
    let unknown = Said::Unknown {
        status: status.as_u16(),
    };
    let Ok(body) = serde_json::from_slice::<StatusBody>(body) else {
        return unknown;
    };
    // They are kept, and nothing that a merchant writes may keep a row from being written.
    let kept = |text: Option<String>| text.map(|text| printable(&text, PARTNER_DETAIL_MAX_CHARS));
    let confirmation_id = kept(body.confirmation_id);
    let reason = kept(body.reason);
    match (question, status.as_u16(), body.status.as_str()) {
        (Question::Confirm | Question::Status, 200, "CONFIRMED")
        | (Question::Void, 409, "CONFIRMED") => Said::Confirmed { confirmation_id },
        (Question::Confirm, 200 | 202, "PENDING") | (Question::Status, 200, "PENDING") => {
            Said::Pending
        }
        (_, 200, "VOIDED") => Said::Voided,
        (Question::Confirm, 200 | 400 | 402..=499, "REFUSED")
        | (Question::Status, 200, "REFUSED") => Said::Refused { reason },
        _ => unknown,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn only_a_word_of_the_protocol_decides_anything() {
        use Question::{Confirm, Status, Void};
        let said = |question, status: u16, word: &str| {
            let body = format!(r#"{{"status":"{word}"}}"#);
            let status = StatusCode::from_u16(status).expect("a status");
            understand(question, status, body.as_bytes())
        };
        let confirmed = Said::Confirmed {
            confirmation_id: None,
        };
        let refused = Said::Refused { reason: None };
        assert_eq!(said(Confirm, 200, "CONFIRMED"), confirmed);
        assert_eq!(said(Confirm, 202, "PENDING"), Said::Pending);
        assert_eq!(said(Confirm, 200, "VOIDED"), Said::Voided);
        assert_eq!(said(Confirm, 409, "REFUSED"), refused);
        assert_eq!(said(Status, 200, "CONFIRMED"), confirmed);
        assert_eq!(said(Status, 200, "REFUSED"), refused);
        assert_eq!(said(Status, 200, "VOIDED"), Said::Voided);
        assert_eq!(said(Void, 200, "VOIDED"), Said::Voided);
        assert_eq!(said(Void, 409, "CONFIRMED"), confirmed);
        for (question, status, word) in [
            (Confirm, 401, "REFUSED"),
            (Confirm, 200, "MAYBE"),
            (Confirm, 409, "CONFIRMED"),
            (Status, 404, "REFUSED"),
            (Status, 409, "REFUSED"),
            (Status, 404, "VOIDED"),
            (Void, 404, "REFUSED"),
            (Void, 409, "REFUSED"),
            (Void, 404, "VOIDED"),
            (Void, 200, "REFUSED"),
            (Void, 200, "CONFIRMED"),
        ] {
            let unknown = Said::Unknown { status };
            assert_eq!(said(question, status, word), unknown, "{question:?} {word}");
        }
        assert_eq!(
            understand(Status, StatusCode::NOT_FOUND, b"nothing here"),
            Said::Unknown { status: 404 }
        );
    }

    /// Who gets a place late has the time for a request all the same, or has not waited for it so
    /// long.
    #[tokio::test]
    async fn a_merchant_that_is_busy_but_well_keeps_its_circuit_closed() {
        const THINKS: Duration = Duration::from_millis(2_500);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 4_096];
                    let _ = connection.read(&mut request).await;
                    tokio::time::sleep(THINKS).await;
                    let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 22\r\n\r\n\
                                  {\"status\":\"CONFIRMED\"}";
                    let _ = connection.write_all(answer.as_bytes()).await;
                });
            }
        });
        let merchant = MerchantId::new("M1").unwrap();
        let settings = MerchantSettings {
            base_url: format!("http://{address}"),
            signing_key: "key".into(),
            max_concurrent: 1,
            failure_threshold: 1,
        };
        let partners = Partners::new([(merchant.clone(), settings)], "", THINKS * 8 / 5).unwrap();
        let id = RedeemRequestId::new("R1").unwrap();
        let asked = [(); 4].map(|()| partners.status(&merchant, &id));
        let mut said = futures::future::join_all(asked).await;
        said.push(partners.status(&merchant, &id).await);
        let answered = |said: &Result<Said, _>| matches!(said, Ok(Said::Confirmed { .. }));
        assert!(answered(&said[0]) && answered(&said[4]), "{said:?}");
        let waited = |said: &Result<Said, _>| matches!(said, Err(PartnerError::Busy { .. }));
        assert!(said[1..4].iter().all(waited), "{said:?}");
    }

    #[test]
    fn what_a_merchant_writes_can_be_kept() {
        let long = "x".repeat(100_000);
        let body = serde_json::json!({ "status": "CONFIRMED", "confirmationId": "C\0-1" });
        let said = understand(
            Question::Confirm,
            StatusCode::OK,
            body.to_string().as_bytes(),
        );
        let confirmation_id = Some("C\u{fffd}-1".to_owned());
        assert_eq!(said, Said::Confirmed { confirmation_id });
        let body = serde_json::json!({ "status": "REFUSED", "reason": long });
        let said = understand(
            Question::Status,
            StatusCode::OK,
            body.to_string().as_bytes(),
        );
        let Said::Refused { reason } = said else {
            panic!("{said:?}")
        };
        let length = reason.expect("a reason").chars().count();
        assert_eq!(length, PARTNER_DETAIL_MAX_CHARS);
    }
}
