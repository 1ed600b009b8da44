//! What is counted, by its Prometheus names.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::limits::Class;

const REQUESTS: &str = "meed_http_requests_total";
const REQUEST_SECONDS: &str = "meed_http_request_seconds";
const IN_FLIGHT: &str = "meed_http_requests_in_flight";
const LIMITED: &str = "meed_requests_limited_total";
const SHED: &str = "meed_requests_shed_total";
const CACHE_LOOKUPS: &str = "meed_cache_lookups_total";
const LOGINS: &str = "meed_logins_total";
const TOKENS: &str = "meed_tokens_total";
const REUSED: &str = "meed_refresh_tokens_reused_total";
const ATTEMPTS_REFUSED: &str = "meed_attempts_refused_total";
const PROBLEMS: &str = "meed_problems_total";
const SOCKETS: &str = "meed_sockets_open";
const SOCKETS_ENDED: &str = "meed_sockets_ended_total";
const DELIVERED: &str = "meed_notifications_delivered_total";

/// Says what each one means, and begins those of which everything is known at zero: what has not
/// happened yet would otherwise look like what is not measured.
pub fn describe() {
    describe_counter!(REQUESTS, "Requests, by method, route and status.");
    describe_histogram!(
        REQUEST_SECONDS,
        "How long requests took to be answered, by method and route."
    );
    describe_gauge!(IN_FLIGHT, "Requests under way.");
    describe_counter!(
        LIMITED,
        "Requests that were refused with 429 because their client asks too often, by class."
    );
    describe_counter!(
        SHED,
        "Requests that were refused with 503 because too many are under way, by class."
    );
    describe_counter!(
        CACHE_LOOKUPS,
        "Balances that were shown: from a copy (hit), from the ledger (miss), or from the ledger \
         because the client wanted it so (bypass)."
    );
    describe_counter!(LOGINS, "Logins, by outcome.");
    describe_counter!(TOKENS, "Tokens that were given out, by whom they are for.");
    describe_counter!(
        REUSED,
        "Refresh tokens that came twice: somebody had a copy. Their sessions have ended."
    );
    describe_counter!(
        ATTEMPTS_REFUSED,
        "Attempts at a password that were refused because there were too many, by what was counted."
    );
    describe_counter!(
        PROBLEMS,
        "Requests that were not done, by the code of the answer."
    );
    describe_gauge!(SOCKETS, "WebSockets that are open.");
    describe_counter!(SOCKETS_ENDED, "WebSockets that ended, by reason.");
    describe_counter!(DELIVERED, "Notifications that were sent on WebSockets.");
    gauge!(IN_FLIGHT).set(0.0);
    counter!(DELIVERED).increment(0);
    for class in Class::ALL {
        counter!(LIMITED, "class" => class.as_str()).increment(0);
        counter!(SHED, "class" => class.as_str()).increment(0);
    }
    for outcome in ["hit", "miss", "bypass"] {
        counter!(CACHE_LOOKUPS, "cache" => "accounts", "outcome" => outcome).increment(0);
    }
    for outcome in ["logged-in", "refused"] {
        counter!(LOGINS, "outcome" => outcome).increment(0);
    }
    counter!(TOKENS, "for" => "client").increment(0);
    counter!(REUSED).increment(0);
}

/// A request that is under way until this is dropped.
pub struct UnderWay;

impl UnderWay {
    /// It begins.
    pub fn begin() -> Self {
        gauge!(IN_FLIGHT).increment(1.0);
        Self
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        gauge!(IN_FLIGHT).decrement(1.0);
    }
}

/// A request was answered.
pub fn answered(method: &Method, route: String, status: StatusCode, took: Duration) {
    let labels = [
        ("method", labelled(method).to_owned()),
        ("route", route),
        ("status", status.as_u16().to_string()),
    ];
    counter!(REQUESTS, &labels).increment(1);
    histogram!(REQUEST_SECONDS, &labels[..2]).record(took.as_secs_f64());
}

/// A request was not done.
pub fn problem(code: &str) {
    counter!(PROBLEMS, "code" => code.to_owned()).increment(1);
}

/// The method as a label. Clients can make up methods, and each label costs memory for good.
fn labelled(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// A request came too soon.
pub fn limited(class: Class) {
    counter!(LIMITED, "class" => class.as_str()).increment(1);
}

/// There was no place for a request.
pub fn shed(class: Class) {
    counter!(SHED, "class" => class.as_str()).increment(1);
}

/// An account was shown.
pub fn account_shown(outcome: &'static str) {
    counter!(CACHE_LOOKUPS, "cache" => "accounts", "outcome" => outcome).increment(1);
}

/// A password was right.
pub fn logged_in() {
    counter!(LOGINS, "outcome" => "logged-in").increment(1);
}

/// A password was wrong, or there is no such user.
pub fn login_refused() {
    counter!(LOGINS, "outcome" => "refused").increment(1);
}

/// A client got a token.
pub fn client_got_token() {
    counter!(TOKENS, "for" => "client").increment(1);
}

/// A refresh token came twice.
pub fn refresh_token_reused() {
    counter!(REUSED).increment(1);
}

/// An attempt at a password was refused unseen.
pub fn attempt_refused(bucket: &'static str) {
    counter!(ATTEMPTS_REFUSED, "bucket" => bucket).increment(1);
}

/// So many WebSockets are open.
pub fn sockets_open(count: usize) {
    gauge!(SOCKETS).set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
}

/// A WebSocket ended.
pub fn socket_ended(reason: &'static str) {
    counter!(SOCKETS_ENDED, "reason" => reason).increment(1);
}

/// Notifications were sent on a WebSocket.
pub fn delivered(count: usize) {
    counter!(DELIVERED).increment(u64::try_from(count).unwrap_or(u64::MAX));
}
