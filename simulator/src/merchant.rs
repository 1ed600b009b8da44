//! The three requests of the partner protocol, as a merchant answers them.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, Path, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chrono::Utc;
use serde::Deserialize;
use serde_json::json;
use tracing::debug;

use crate::{
    callback,
    connection::Connection,
    mode::{MerchantMode, MerchantSettings},
    partners::{Partners, problem, unwritable},
    redemption::{Reaction, Redemption, RedemptionRequest, RedemptionStatus},
    signature::{self, SignatureError},
};

const REDEEM_REQUEST_ID_MAX_CHARS: usize = 128;

pub(crate) fn routes() -> Router<Arc<Partners>> {
    Router::new()
        .route("/merchants/{merchant}/redemptions", post(redeem))
        .route("/merchants/{merchant}/redemptions/{id}", get(status))
        .route("/merchants/{merchant}/redemptions/{id}/void", post(void))
}

async fn redeem(
    State(partners): State<Arc<Partners>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    Path(merchant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(error) = authenticate(&partners, &merchant, &headers, &body) {
        return unauthorized(error);
    }
    let request = match RedemptionRequest::read(&headers, &body) {
        Ok(request) => request,
        Err(reason) => return refused(StatusCode::BAD_REQUEST, reason),
    };
    let settings = partners.book().merchant(&merchant);
    debug!(merchant, redeem_request_id = request.redeem_request_id, mode = ?settings.mode, "redemption posted");

    if settings.mode != MerchantMode::Slow {
        return react(partners, &merchant, settings, &request, &connection).await;
    }
    // A merchant that has taken the request in works on, whether or not the caller
    // still waits; dropping this handler must not stop it.
    let stopping = Arc::clone(&partners);
    let late = connection.clone();
    let work = tokio::spawn(async move {
        if !partners.pause(settings.slow_delay()).await {
            return unanswered(&late);
        }
        react(partners, &merchant, settings, &request, &late).await
    });
    tokio::select! {
        response = work => response.unwrap_or_else(|_| unanswered(&connection)),
        () = stopping.stopping() => unanswered(&connection),
    }
}

async fn react(
    partners: Arc<Partners>,
    merchant: &str,
    settings: MerchantSettings,
    request: &RedemptionRequest,
    connection: &Connection,
) -> Response {
    let id = &request.redeem_request_id;
    let taken_in = partners
        .book()
        .change(merchant, id, |r| r.post(&settings, request, Utc::now()));
    let (reaction, redemption) = match taken_in {
        Ok(taken_in) => taken_in,
        Err(error) => return unwritable(&error),
    };
    match reaction {
        Reaction::Answer => answer(&redemption),
        Reaction::AnswerAndDecide(decision) => {
            callback::decide_later(&partners, merchant, id, decision);
            answer(&redemption)
        }
        Reaction::CallBackThenAnswer => {
            callback::deliver_once(&partners, merchant, id).await;
            (StatusCode::ACCEPTED, Json(json!({"status": "PENDING"}))).into_response()
        }
        Reaction::Differs => refused(StatusCode::UNPROCESSABLE_ENTITY, "REQUEST_DIFFERS"),
        Reaction::Unavailable => unavailable(),
        Reaction::Silence => {
            // A century stands for "until the caller gives up".
            let limit = settings.silence().unwrap_or(Duration::from_hours(876_000));
            partners.pause(limit).await;
            unanswered(connection)
        }
        Reaction::Cut => unanswered(connection),
    }
}

async fn status(
    State(partners): State<Arc<Partners>>,
    Path((merchant, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(error) = authenticate(&partners, &merchant, &headers, &body) {
        return unauthorized(error);
    }
    let mode = partners.book().merchant(&merchant).mode;
    let asked = partners
        .book()
        .change(&merchant, &id, |r| r.status_queries += 1);
    match asked {
        Err(error) => unwritable(&error),
        Ok(_) if mode == MerchantMode::Error => unavailable(),
        Ok(((), redemption)) if redemption.status.is_some() => {
            (StatusCode::OK, Json(view(&redemption))).into_response()
        }
        Ok(_) => problem(
            StatusCode::NOT_FOUND,
            "UNKNOWN_REDEMPTION",
            "nothing is booked under this redeem request id",
        ),
    }
}

async fn void(
    State(partners): State<Arc<Partners>>,
    Path((merchant, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(error) = authenticate(&partners, &merchant, &headers, &body) {
        return unauthorized(error);
    }
    let mode = partners.book().merchant(&merchant).mode;
    let voided = partners.book().change(&merchant, &id, |redemption| {
        if mode == MerchantMode::Error {
            redemption.voids += 1;
            return None;
        }
        Some(redemption.void(mode, Utc::now()))
    });
    match voided {
        Err(error) => unwritable(&error),
        Ok((None, _)) => unavailable(),
        Ok((Some(RedemptionStatus::Voided), _)) => {
            (StatusCode::OK, Json(json!({"status": "VOIDED"}))).into_response()
        }
        Ok((Some(_), redemption)) => {
            (StatusCode::CONFLICT, Json(view(&redemption))).into_response()
        }
    }
}

fn authenticate(
    partners: &Partners,
    merchant: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), SignatureError> {
    let key = partners.signing_key(merchant);
    signature::verify(&key, headers, body, Utc::now().timestamp()).inspect_err(|_| {
        let mut calls = partners.calls();
        *calls.unauthorized.entry(merchant.to_owned()).or_default() += 1;
    })
}

fn unauthorized(error: SignatureError) -> Response {
    problem(StatusCode::UNAUTHORIZED, error.code(), &error.to_string())
}

/// The answer to a post: the status as the book has it.
fn answer(redemption: &Redemption) -> Response {
    let status = match redemption.status {
        Some(RedemptionStatus::Confirmed | RedemptionStatus::Voided) => StatusCode::OK,
        Some(RedemptionStatus::Refused) => StatusCode::CONFLICT,
        Some(RedemptionStatus::Pending) | None => StatusCode::ACCEPTED,
    };
    (status, Json(view(redemption))).into_response()
}

pub(crate) fn view(redemption: &Redemption) -> serde_json::Value {
    let mut view = json!({"status": redemption.status});
    match redemption.status {
        Some(RedemptionStatus::Confirmed) => {
            view["confirmationId"] = json!(redemption.confirmation_id);
        }
        Some(RedemptionStatus::Refused) => view["reason"] = json!(redemption.reason),
        _ => {}
    }
    view
}

fn refused(status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({"status": "REFUSED", "reason": reason}))).into_response()
}

fn unavailable() -> Response {
    problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "UNAVAILABLE",
        "this merchant is out of order for the moment",
    )
}

/// Closes the connection in place of an answer.
fn unanswered(connection: &Connection) -> Response {
    connection.cut();
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}

impl RedemptionRequest {
    /// Reads the body; the error is the reason that the refusal gives.
    fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Body {
            redeem_request_id: String,
            order_id: String,
            points: i64,
            callback_url: String,
        }

        let body: Body = serde_json::from_slice(body).map_err(|_| "MALFORMED_REQUEST")?;
        let id_chars = body.redeem_request_id.chars().count();
        if id_chars == 0 || id_chars > REDEEM_REQUEST_ID_MAX_CHARS {
            return Err("INVALID_REDEEM_REQUEST_ID");
        }
        if body.points <= 0 {
            return Err("INVALID_POINTS");
        }
        if reqwest::Url::parse(&body.callback_url).is_err() {
            return Err("INVALID_CALLBACK_URL");
        }
        let key = headers.get("idempotency-key").map(HeaderValue::as_bytes);
        if key != Some(body.redeem_request_id.as_bytes()) {
            return Err("IDEMPOTENCY_KEY_DIFFERS");
        }
        Ok(Self {
            redeem_request_id: body.redeem_request_id,
            order_id: body.order_id,
            points: body.points,
            callback_url: body.callback_url,
        })
    }
}
