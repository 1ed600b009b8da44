//! One effect and one answer for a request that is sent several times.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use store::{Transaction, idempotency as keys, transaction};
use tokio::{sync::OwnedMutexGuard, time::Instant};

use crate::{
    App,
    auth::Identity,
    error::{ApiError, Problem},
    parameters::IdempotencyKey,
};

/// How long a request may be under way before its repetition takes over: longer than it can take.
const LOCKED_FOR: Duration = Duration::from_secs(15);
/// How long the repetition of a request under way waits for its answer.
const WAIT_FOR_ANSWER: Duration = Duration::from_secs(2);
/// How often it looks for it.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// Says that an answer is the one that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Whose key of which route, for which request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    client: String,
    route: &'static str,
    key: String,
    hash: [u8; 32],
}

impl Request {
    /// `target` is what stands in the address: the same body to another one is another request.
    pub(crate) fn new(
        identity: &Identity,
        route: &'static str,
        key: IdempotencyKey,
        target: &str,
        body: &[u8],
    ) -> Self {
        let mut hash = Sha256::new();
        hash.update(target.as_bytes());
        hash.update([0]);
        hash.update(body);
        Self {
            client: identity.client(),
            route,
            key: key.0,
            hash: hash.finalize().into(),
        }
    }

    /// For a body that holds a password: `hash` is a keyed one, so that the stored hash of the
    /// body is of no use for guessing. `client` is who asks, or `anonymous`.
    pub(crate) fn with_secrets(
        client: String,
        route: &'static str,
        key: IdempotencyKey,
        hash: [u8; 32],
    ) -> Self {
        Self {
            client,
            route,
            key: key.0,
            hash,
        }
    }

    fn key(&self) -> keys::Key<'_> {
        keys::Key {
            client: &self.client,
            route: self.route,
            key: &self.key,
        }
    }
}

/// Client, route and key.
type Name = (String, &'static str, String);

/// Keys of requests under way in this process. Repetitions wait here for their turn instead of
/// asking the database over and over.
#[derive(Debug, Default)]
pub struct UnderWay {
    turns: Mutex<HashMap<Name, Weak<tokio::sync::Mutex<()>>>>,
}

impl UnderWay {
    /// The turn of this key, held until the request has its answer; nothing when somebody else had
    /// it, whose end was then waited for.
    async fn turn(&self, request: &Request) -> Option<OwnedMutexGuard<()>> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let name = (request.client.clone(), request.route, request.key.clone());
            let turn = turns.entry(name).or_default();
            turn.upgrade().unwrap_or_else(|| {
                let new = Arc::default();
                *turn = Arc::downgrade(&new);
                new
            })
        };
        if let Ok(turn) = Arc::clone(&turn).try_lock_owned() {
            return Some(turn);
        }
        drop(turn.lock().await);
        None
    }
}

/// Held by the request that is under way: repetitions in this process wait meanwhile.
pub(crate) struct Turn {
    _held: Option<OwnedMutexGuard<()>>,
    /// The request takes over from one that died and may have had its effect.
    pub takes_over: bool,
}

/// What a key means for a request.
pub(crate) enum Claim {
    /// It is to be done, in the transaction that holds the key.
    Do(Transaction, Turn),
    /// It has been answered.
    Answered(Reply),
}

/// Takes the key for the request, or finds the answer it was given.
pub(crate) async fn claim(app: &App, request: &Request) -> Result<Claim, ApiError> {
    let ttl = Duration::from_secs(app.settings.api.idempotency_ttl_hours * 3_600);
    let deadline = Instant::now() + WAIT_FOR_ANSWER;
    let held = tokio::time::timeout_at(deadline, app.under_way.turn(request))
        .await
        .map_err(|_| ApiError::RequestInProgress)?;
    loop {
        let mut tx = transaction::begin(&app.pool).await?;
        let begun = keys::begin(&mut tx, request.key(), &request.hash, LOCKED_FOR, ttl).await?;
        match begun {
            keys::Begun::New | keys::Begun::TakenOver => {
                let turn = Turn {
                    _held: held,
                    takes_over: begun == keys::Begun::TakenOver,
                };
                return Ok(Claim::Do(tx, turn));
            }
            keys::Begun::Answered(answer) => return Ok(Claim::Answered(Reply::of(answer)?)),
            keys::Begun::OtherBody => return Err(ApiError::IdempotencyKeyReused),
            keys::Begun::Running if Instant::now() >= deadline => {
                return Err(ApiError::RequestInProgress);
            }
            keys::Begun::Running => {
                drop(tx);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

/// The answer that the request was given before; nothing where there is none yet.
pub(crate) async fn answered(app: &App, request: &Request) -> Result<Option<Reply>, ApiError> {
    let mut conn = app.pool.acquire().await.map_err(store::Error::from)?;
    match keys::find(&mut conn, request.key(), &request.hash).await? {
        Some(keys::Begun::Answered(answer)) => Ok(Some(Reply::of(answer)?)),
        Some(keys::Begun::OtherBody) => Err(ApiError::IdempotencyKeyReused),
        Some(keys::Begun::Running) => Err(ApiError::RequestInProgress),
        Some(keys::Begun::New | keys::Begun::TakenOver) | None => Ok(None),
    }
}

/// Keeps the reply in the transaction of the effect, and commits both.
pub(crate) async fn finish_in(
    mut tx: Transaction,
    request: &Request,
    reply: &Reply,
) -> Result<(), ApiError> {
    keys::finish(&mut tx, request.key(), &reply.answer()).await?;
    Ok(transaction::commit(tx, "reply").await?)
}

/// Keeps the reply after the effect was committed. When that fails, a repetition of the request
/// finds the effect and replies anew.
pub(crate) async fn finish(app: &App, request: &Request, reply: &Reply) {
    let kept = async {
        let mut conn = app.pool.acquire().await?;
        keys::finish(&mut conn, request.key(), &reply.answer()).await
    };
    if let Err(error) = kept.await {
        tracing::warn!(%error, "the answer to an idempotency key was not kept");
    }
}

/// A reply that can be given again.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: StatusCode,
    body: Value,
    location: Option<String>,
    replayed: bool,
}

impl Reply {
    /// A reply with a body, and the address of what it tells of.
    pub(crate) fn new(status: StatusCode, body: &impl Serialize, location: Option<String>) -> Self {
        let body = serde_json::to_value(body).unwrap_or_default();
        Self {
            status,
            body,
            location,
            replayed: false,
        }
    }

    /// A problem as a reply: it will be given again as well.
    pub(crate) fn problem(error: &ApiError) -> Self {
        let problem = error.problem();
        let body = Value::Object(problem.members().clone());
        Self {
            status: problem.status(),
            body,
            location: None,
            replayed: false,
        }
    }

    fn answer(&self) -> keys::Answer {
        let headers: Map<String, Value> = self
            .location
            .iter()
            .map(|location| ("location".to_owned(), json!(location)))
            .collect();
        keys::Answer {
            status: self.status.as_u16(),
            body: self.body.clone(),
            headers: Value::Object(headers),
        }
    }

    fn of(answer: keys::Answer) -> Result<Self, ApiError> {
        let status = StatusCode::from_u16(answer.status)
            .map_err(|_| ApiError::Internal(format!("kept status {}", answer.status)))?;
        let location = answer.headers["location"].as_str().map(str::to_owned);
        Ok(Self {
            status,
            body: answer.body,
            location,
            replayed: true,
        })
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = match self.body {
            Value::Object(members) if self.status.is_client_error() => {
                Problem::kept(self.status, members).into_response()
            }
            body => (self.status, axum::Json(body)).into_response(),
        };
        let headers = response.headers_mut();
        if let Some(location) = self.location.and_then(|at| HeaderValue::try_from(at).ok()) {
            headers.insert(header::LOCATION, location);
        }
        if self.replayed {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}
