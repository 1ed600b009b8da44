//! The late answer: the decision of a pending redemption, and its way to Meed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use reqwest::{StatusCode, header::CONTENT_TYPE};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use crate::{
    merchant::view,
    partners::Partners,
    redemption::{CallbackState, Decision},
    signature::{SIGNATURE_HEADER, TIMESTAMP_HEADER, sign},
};

/// How long a callback is repeated: longer than Meed waits for it.
const DELIVERY_LIMIT: Duration = Duration::from_mins(10);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Takes up, after a restart, the decisions and callbacks that the book still owes.
pub(crate) fn resume(partners: &Arc<Partners>) {
    let book = partners.book();
    for (merchant, redemption) in book.redemptions() {
        let id = &redemption.redeem_request_id;
        if let Some(decision) = &redemption.decision {
            decide_later(partners, merchant, id, decision.clone());
        } else if redemption.callback == Some(CallbackState::Owed) {
            tokio::spawn(deliver(
                Arc::clone(partners),
                merchant.to_owned(),
                id.clone(),
                None,
            ));
        }
    }
}

/// Makes the decision when it is due and calls back when the mode wants that.
pub(crate) fn decide_later(
    partners: &Arc<Partners>,
    merchant: &str,
    redeem_request_id: &str,
    decision: Decision,
) {
    let partners = Arc::clone(partners);
    let (merchant, id) = (merchant.to_owned(), redeem_request_id.to_owned());
    tokio::spawn(async move {
        let delay = (decision.at - Utc::now()).to_std().unwrap_or_default();
        if !partners.pause(delay).await {
            return;
        }
        let decided = {
            let mut book = partners.book();
            // After a reset there is nothing left to decide, and nothing to create.
            if book.redemption(&merchant, &id).is_none() {
                return;
            }
            book.change(&merchant, &id, |r| r.decide(&decision, Utc::now()))
        };
        match decided {
            Ok((true, _)) => deliver(partners, merchant, id, None).await,
            Ok((false, _)) => {}
            Err(error) => warn!(merchant, id, %error, "a decision could not be written down"),
        }
    });
}

/// Calls back and waits for the first attempt to end; later attempts go on
/// without the caller.
pub(crate) async fn deliver_once(partners: &Arc<Partners>, merchant: &str, id: &str) {
    let (tried, first_attempt) = oneshot::channel();
    tokio::spawn(deliver(
        Arc::clone(partners),
        merchant.to_owned(),
        id.to_owned(),
        Some(tried),
    ));
    // The sender is also dropped when there was nothing to deliver.
    let _ = first_attempt.await;
}

async fn deliver(
    partners: Arc<Partners>,
    merchant: String,
    id: String,
    mut tried: Option<oneshot::Sender<()>>,
) {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let Some((url, body)) = next_attempt(&partners, &merchant, &id) else {
            return;
        };
        let answer = tokio::select! {
            answer = send(&partners, &merchant, &url, body) => answer,
            () = partners.stopping() => return,
        };
        if let Some(tried) = tried.take() {
            let _ = tried.send(());
        }
        let out_of_time = started.elapsed() + pause > DELIVERY_LIMIT;
        let state = match answer {
            Ok(status) if status.is_success() => Some(CallbackState::Delivered),
            Ok(status) if !is_transient(status) => Some(CallbackState::GivenUp),
            _ if out_of_time => Some(CallbackState::GivenUp),
            _ => None,
        };
        match (&answer, state) {
            (_, Some(CallbackState::Delivered)) => debug!(merchant, id, "callback delivered"),
            (Ok(status), Some(_)) => {
                warn!(
                    merchant,
                    id,
                    status = status.as_u16(),
                    "callback turned away"
                );
            }
            (Err(error), Some(_)) => warn!(merchant, id, %error, "callback given up"),
            (Ok(status), None) => {
                info!(
                    merchant,
                    id,
                    status = status.as_u16(),
                    "callback will be repeated"
                );
            }
            (Err(error), None) => info!(merchant, id, %error, "callback will be repeated"),
        }
        record(&partners, &merchant, &id, answer.ok(), state);
        if state.is_some() || !partners.pause(pause).await {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Counts an attempt and says what to send where, if the callback is still owed.
fn next_attempt(partners: &Partners, merchant: &str, id: &str) -> Option<(String, Vec<u8>)> {
    let mut book = partners.book();
    let redemption = book.redemption(merchant, id)?;
    if redemption.callback != Some(CallbackState::Owed) {
        return None;
    }
    let url = redemption.callback_url.clone()?;
    let body = view(redemption).to_string().into_bytes();
    if let Err(error) = book.change(merchant, id, |r| r.callbacks += 1) {
        warn!(merchant, id, %error, "a callback could not be written down and is not sent");
        return None;
    }
    Some((url, body))
}

async fn send(
    partners: &Partners,
    merchant: &str,
    url: &str,
    body: Vec<u8>,
) -> reqwest::Result<StatusCode> {
    let timestamp = Utc::now().timestamp();
    let response = partners
        .http
        .post(url)
        .header(TIMESTAMP_HEADER, timestamp.to_string())
        .header(
            SIGNATURE_HEADER,
            sign(&partners.signing_key(merchant), timestamp, &body),
        )
        .header(CONTENT_TYPE, "application/json")
        .body(body)
        .send()
        .await?;
    Ok(response.status())
}

fn is_transient(status: StatusCode) -> bool {
    status.is_server_error()
        || status == StatusCode::REQUEST_TIMEOUT
        || status == StatusCode::TOO_MANY_REQUESTS
}

fn record(
    partners: &Partners,
    merchant: &str,
    id: &str,
    answer: Option<StatusCode>,
    state: Option<CallbackState>,
) {
    let mut book = partners.book();
    if book.redemption(merchant, id).is_none() {
        return;
    }
    let written = book.change(merchant, id, |redemption| {
        if let Some(status) = answer {
            redemption.callback_answer = Some(status.as_u16());
        }
        if let Some(state) = state {
            redemption.callback = Some(state);
        }
    });
    if let Err(error) = written {
        warn!(merchant, id, %error, "the end of a callback could not be written down");
    }
}
