//! What surrounds every request: its id, its log line, its metrics, the headers of its answer, and
//! the problem document when it was not done.

use std::time::Instant;

use axum::{
    body::Body,
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};
use opentelemetry::{global, propagation::Extractor};
use tracing::{Instrument, Span, debug, field::Empty, info, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::Uuid;

use crate::{
    error::{PROBLEM_JSON, Problem},
    measures::{self, UnderWay},
    routes::page::CONTENT_SECURITY_POLICY,
};

/// The header with the id of a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that is taken over from a client, in characters.
const REQUEST_ID_MAX_CHARS: usize = 128;

/// The id of the request: the client's own, or a new one.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let given = headers
            .get(REQUEST_ID)
            .and_then(|id| id.to_str().ok())
            .filter(|id| {
                (1..=REQUEST_ID_MAX_CHARS).contains(&id.len())
                    && id
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
            });
        Self(given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned))
    }
}

/// Surrounds a request.
pub async fn observe(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let _under_way = UnderWay::begin();
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    // The route, not the address: callback ids are secrets.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "(none)".to_owned(), |route| route.as_str().to_owned());
    let span = span(&id, &method, &route, request.headers());
    let response = next.run(request).instrument(span.clone()).await;
    let response = with_document(response, &id.0, &path);
    let status = response.status();
    let elapsed = started.elapsed();
    span.record("http.response.status_code", status.as_u16());
    span.in_scope(|| {
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        if asks_how_it_does(&route) {
            debug!(status = status.as_u16(), elapsed_ms, "answered");
        } else {
            info!(status = status.as_u16(), elapsed_ms, "answered");
        }
    });
    measures::answered(&method, route, status, elapsed);
    with_headers(response, &id.0, &path)
}

fn asks_how_it_does(route: &str) -> bool {
    route.starts_with("/health") || route == "/metrics"
}

/// The request in logs and traces, under the one who sent it. Handlers add whom it is about.
fn span(id: &RequestId, method: &Method, route: &str, headers: &HeaderMap) -> Span {
    if asks_how_it_does(route) {
        // Often, and part of nothing: for logs alone.
        return info_span!(target: "health", "request", request_id = %id.0, %method, route);
    }
    let span = info_span!(
        "request",
        request_id = %id.0,
        %method,
        route,
        customer_id = Empty,
        redeem_request_id = Empty,
        event_id = Empty,
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = %method,
        http.route = route,
        http.response.status_code = Empty,
    );
    let sender = global::get_text_map_propagator(|traces| traces.extract(&Carried(headers)));
    // Fails only for a span that is not traced.
    let _ = span.set_parent(sender);
    span
}

/// Headers as what a trace is read from.
struct Carried<'a>(&'a HeaderMap);

impl Extractor for Carried<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// Says in the request's log lines and trace whom it is about.
pub fn about(what: &'static str, id: &str) {
    Span::current().record(what, id);
}

/// Writes the problem document of a request that was not done, also where it was refused before a
/// handler saw it.
fn with_document(response: Response, request_id: &str, path: &str) -> Response {
    let status = response.status();
    let problem = match response.extensions().get::<Problem>() {
        Some(problem) => problem.clone(),
        None if (status.is_client_error() || status.is_server_error())
            && !is_json(response.headers()) =>
        {
            Problem::of_rejection(status)
        }
        None => return response,
    };
    measures::problem(problem.code());
    let (mut parts, _) = response.into_parts();
    if problem.status() != parts.status && parts.status != StatusCode::METHOD_NOT_ALLOWED {
        parts.status = problem.status();
    }
    parts
        .headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    problem.add_headers(&mut parts.headers);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(
        parts,
        Body::from(problem.document(request_id, path).to_string()),
    )
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.starts_with("application/json"))
}

/// Nothing of an answer is to be framed, sniffed or kept; the page and the documentation may load their own parts.
fn with_headers(mut response: Response, request_id: &str, path: &str) -> Response {
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    let policy = if path == "/app" || path.starts_with("/app/") {
        CONTENT_SECURITY_POLICY
    } else if path.starts_with("/docs") {
        "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; \
         frame-ancestors 'none'"
    } else {
        "default-src 'none'; frame-ancestors 'none'"
    };
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
