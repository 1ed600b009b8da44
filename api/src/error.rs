//! Everything a client can be told to have gone wrong, as RFC 9457 problem details. This file
//! alone picks status codes, and nothing of the inside leaves through it.

use std::time::Duration;

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use domain::{
    Refusal, RefusalClass,
    promotion::{ClaimRefusal, Standing},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::auth::{Role, Scope};

/// The media type of problem details.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A request that was not done.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// There is no bearer token.
    #[error("no bearer token")]
    Unauthenticated,
    /// The token does not count.
    #[error("token refused: {0}")]
    InvalidToken(&'static str),
    /// The issuer's keys could not be had yet.
    #[error("an issuer's keys cannot be had")]
    KeysUnavailable,
    /// The token lacks a scope.
    #[error("the token lacks {}", .0.as_str())]
    MissingScope(Scope),
    /// The token lacks a role.
    #[error("the token lacks the role {}", .0.as_str())]
    MissingRole(Role),
    /// Name and password are not those of a user.
    #[error("wrong credentials")]
    InvalidCredentials,
    /// The refresh token does not count, or not any more.
    #[error("refresh token refused")]
    InvalidRefreshToken,
    /// The user has been deactivated.
    #[error("the user is deactivated")]
    UserDeactivated,
    /// Somebody has the name.
    #[error("the username is taken")]
    UsernameTaken,
    /// A name or a password that may not be.
    #[error("{0}")]
    CredentialsNotAllowed(String),
    /// Nobody could administer any more.
    #[error("the last admin")]
    LastAdmin,
    /// A page of elsewhere may not use the refresh cookie, or open a socket.
    #[error("the origin is not allowed")]
    OriginNotAllowed,
    /// Too many attempts; another one after this.
    #[error("too many attempts")]
    TooManyAttempts(Duration),
    /// The client has asked too often; again after this.
    #[error("too many requests")]
    RateLimited(Duration),
    /// Too much is under way in this process.
    #[error("too much is under way")]
    Overloaded,
    /// The token is tied to other merchants.
    #[error("not a merchant of this client")]
    MerchantNotAllowed,
    /// A player may only reach their own data.
    #[error("not this player's data")]
    CustomerNotAllowed,
    /// The body breaks its contract.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The body is no JSON that is understood, or has a field that is not known.
    #[error("{0}")]
    InvalidBody(String),
    /// A parameter of the address cannot be used.
    #[error("{0}")]
    InvalidParameter(String),
    /// The body is larger than is read: than so many bytes.
    #[error("the body is too large")]
    BodyTooLarge(usize),
    /// The body did not come in time.
    #[error("the body is too slow")]
    BodyTooSlow,
    /// The body is not JSON by its own account.
    #[error("the body is not application/json")]
    UnsupportedMediaType,
    /// A change without an idempotency key.
    #[error("no Idempotency-Key")]
    IdempotencyKeyMissing,
    /// An idempotency key that cannot be kept.
    #[error("the Idempotency-Key cannot be used")]
    IdempotencyKeyInvalid,
    /// The key came with another request before.
    #[error("the Idempotency-Key was used for another request")]
    IdempotencyKeyReused,
    /// The same request is under way.
    #[error("the same request is under way")]
    RequestInProgress,
    /// The customer cannot have that many points now.
    #[error("not enough points")]
    InsufficientPoints,
    /// The id was used for another redemption.
    #[error("the id was used with another body")]
    ConflictingRequest,
    /// What has ended cannot be taken back.
    #[error("it has ended")]
    AlreadyEnded,
    /// Another promotion of the type is active within the period.
    #[error("promotion {0} is active then")]
    PromotionOverlaps(String),
    /// The promotion can be neither assigned nor claimed now.
    #[error("the promotion is {0:?}")]
    PromotionNotOpen(Standing),
    /// The player has claimed it, and has the points.
    #[error("the promotion was claimed before")]
    AlreadyClaimed,
    /// The claim was rolled back.
    #[error("the claim was rolled back: {0}")]
    ClaimRefused(ClaimRefusal),
    /// There is no such thing, or not for this client.
    #[error("no such {0:?}")]
    NotFound(Thing),
    /// The route is for WebSockets.
    #[error("no WebSocket handshake")]
    UpgradeRequired,
    /// The route does not know this method.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// Another answer was given to the callback before.
    #[error("the callback was answered otherwise")]
    CallbackAnswered,
    /// The callback's time is up.
    #[error("the callback has expired")]
    CallbackExpired,
    /// The merchant's signature does not count.
    #[error("signature refused: {0}")]
    InvalidSignature(String),
    /// Something this process needs is out of reach; asking again helps.
    #[error("out of reach: {0}")]
    Unavailable(String),
    /// The ledger is out of reach, for a question about a balance.
    #[error("the ledger is out of reach: {0}")]
    LedgerUnavailable(String, Option<LastKnown>),
    /// The ranking is being made, or lags too far behind; asking again helps.
    #[error("the ranking is not ready")]
    RankingNotReady,
    /// The request took too long.
    #[error("the request took too long")]
    TimedOut,
    /// A fault of this program.
    #[error("{0}")]
    Internal(String),
}

/// What was known of a balance when the ledger could be asked last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastKnown {
    /// When that was.
    pub as_of: DateTime<Utc>,
    /// The points that could be spent.
    pub available: i64,
    /// Whether they are the total that was asked for.
    pub is_total: bool,
}

/// What was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    /// A route.
    Route,
    /// A customer's account.
    Customer,
    /// A redemption.
    Redemption,
    /// A callback.
    Callback,
    /// One of Meed's own users.
    User,
    /// A promotion.
    Promotion,
    /// A job that assigns a promotion.
    AssignmentJob,
    /// A notification of the player.
    Notification,
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        if error.is_retryable() {
            Self::Unavailable(error.to_string())
        } else {
            Self::Internal(error.to_string())
        }
    }
}

impl From<ranking::Error> for ApiError {
    fn from(error: ranking::Error) -> Self {
        match error {
            ranking::Error::NotReady => Self::RankingNotReady,
            ranking::Error::Away => Self::Unavailable(error.to_string()),
            ranking::Error::Ledger(error) => error.into(),
        }
    }
}

/// How long a client should wait before it asks again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A wait as clients are told of it: in whole seconds, rounded up, at least one.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// A problem, before it is known in which request it occurred.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    status: StatusCode,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// Status, stable code and what is said of it.
    fn told(&self) -> (StatusCode, &'static str, &'static str, String) {
        use StatusCode as S;
        let said = |text: &str| text.to_owned();
        match self {
            Self::Unauthenticated => (
                S::UNAUTHORIZED,
                "UNAUTHENTICATED",
                "A token is needed",
                said("Send a token: Authorization: Bearer <token>."),
            ),
            Self::InvalidToken(why) => (
                S::UNAUTHORIZED,
                "INVALID_TOKEN",
                "The token does not count",
                format!("The token was refused: {why}."),
            ),
            Self::KeysUnavailable => (
                S::SERVICE_UNAVAILABLE,
                "TOKEN_KEYS_UNAVAILABLE",
                "Tokens cannot be checked now",
                said("The keys of the token's issuer are out of reach. Try again."),
            ),
            Self::MissingScope(scope) => (
                S::FORBIDDEN,
                "INSUFFICIENT_SCOPE",
                "The token does not allow this",
                format!("This needs the scope {}.", scope.as_str()),
            ),
            Self::MissingRole(role) => (
                S::FORBIDDEN,
                "INSUFFICIENT_ROLE",
                "The token does not allow this",
                format!("This needs the role {}.", role.as_str()),
            ),
            Self::InvalidCredentials => (
                S::UNAUTHORIZED,
                "INVALID_CREDENTIALS",
                "Name or password is wrong",
                said("There is no user with this name and this password."),
            ),
            Self::InvalidRefreshToken => (
                S::UNAUTHORIZED,
                "INVALID_REFRESH_TOKEN",
                "The refresh token does not count",
                said("The session has ended, or there is none. Log in again."),
            ),
            Self::UserDeactivated => (
                S::FORBIDDEN,
                "USER_DEACTIVATED",
                "The user has been deactivated",
                said("This user may not log in any more."),
            ),
            Self::UsernameTaken => (
                S::CONFLICT,
                "USERNAME_TAKEN",
                "The username is taken",
                said("Another user has this name; upper and lower case make no difference."),
            ),
            Self::CredentialsNotAllowed(why) => (
                S::UNPROCESSABLE_ENTITY,
                "CREDENTIALS_NOT_ALLOWED",
                "Name or password cannot be taken",
                format!("{why}."),
            ),
            Self::LastAdmin => (
                S::CONFLICT,
                "LAST_ADMIN",
                "The last admin stays",
                said("Without this user nobody could administer any more."),
            ),
            Self::OriginNotAllowed => (
                S::FORBIDDEN,
                "ORIGIN_NOT_ALLOWED",
                "Not from this page",
                said("Pages of this origin are not among those that may."),
            ),
            Self::TooManyAttempts(wait) => (
                S::TOO_MANY_REQUESTS,
                "TOO_MANY_ATTEMPTS",
                "Too many attempts",
                format!("Try again in {} seconds.", whole_seconds(*wait)),
            ),
            Self::RateLimited(wait) => (
                S::TOO_MANY_REQUESTS,
                "RATE_LIMITED",
                "Too many requests",
                format!(
                    "This client has asked too often. Try again in {} seconds.",
                    whole_seconds(*wait)
                ),
            ),
            Self::Overloaded => (
                S::SERVICE_UNAVAILABLE,
                "OVERLOADED",
                "Too much to do",
                said("Too many requests are under way. Try again; nothing was done."),
            ),
            Self::MerchantNotAllowed => (
                S::FORBIDDEN,
                "MERCHANT_NOT_ALLOWED",
                "Not at this merchant",
                said("The token is tied to other merchants."),
            ),
            Self::CustomerNotAllowed => (
                S::FORBIDDEN,
                "CUSTOMER_NOT_ALLOWED",
                "Not for this customer",
                said("A player reaches only their own data."),
            ),
            Self::Refused(refusal) => {
                let status = if refusal.class == RefusalClass::PayloadTooLarge {
                    S::PAYLOAD_TOO_LARGE
                } else {
                    S::BAD_REQUEST
                };
                let title = "The request breaks its contract";
                (
                    status,
                    refusal.class.as_str(),
                    title,
                    refusal.reason.clone(),
                )
            }
            Self::InvalidBody(why) => (
                S::BAD_REQUEST,
                "INVALID_BODY",
                "The body cannot be used",
                why.clone(),
            ),
            Self::InvalidParameter(why) => (
                S::BAD_REQUEST,
                "INVALID_PARAMETER",
                "A parameter cannot be used",
                why.clone(),
            ),
            Self::BodyTooLarge(bytes) => (
                S::PAYLOAD_TOO_LARGE,
                "PAYLOAD_TOO_LARGE",
                "The body is too large",
                format!("A body may have {bytes} bytes here."),
            ),
            Self::BodyTooSlow => (
                S::REQUEST_TIMEOUT,
                "REQUEST_TIMEOUT",
                "The body came too slowly",
                said("The body did not come in time. Send it again."),
            ),
            Self::UnsupportedMediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED_MEDIA_TYPE",
                "The body is not JSON",
                said("Send JSON, with Content-Type: application/json."),
            ),
            Self::IdempotencyKeyMissing => (
                S::BAD_REQUEST,
                "IDEMPOTENCY_KEY_MISSING",
                "An idempotency key is needed",
                said("Send a header Idempotency-Key with a value of your own for each request."),
            ),
            Self::IdempotencyKeyInvalid => (
                S::BAD_REQUEST,
                "IDEMPOTENCY_KEY_INVALID",
                "The idempotency key cannot be used",
                said("An Idempotency-Key has 1 to 255 visible ASCII characters."),
            ),
            Self::IdempotencyKeyReused => (
                S::UNPROCESSABLE_ENTITY,
                "IDEMPOTENCY_KEY_REUSED",
                "The idempotency key was used for another request",
                said("Take a new Idempotency-Key for a new request."),
            ),
            Self::RequestInProgress => (
                S::CONFLICT,
                "REQUEST_IN_PROGRESS",
                "The same request is under way",
                said("A request with this Idempotency-Key is under way. Try again."),
            ),
            Self::InsufficientPoints => (
                S::CONFLICT,
                "INSUFFICIENT_POINTS",
                "Not enough points",
                said("The customer cannot spend that many points now."),
            ),
            Self::ConflictingRequest => (
                S::CONFLICT,
                "CONFLICTING_REQUEST",
                "The id was used with another body",
                said("This id came with another body before."),
            ),
            Self::AlreadyEnded => (
                S::CONFLICT,
                "ALREADY_ENDED",
                "It has ended",
                said("What has ended cannot be cancelled."),
            ),
            Self::PromotionOverlaps(other) => (
                S::CONFLICT,
                "PROMOTION_OVERLAPS",
                "Another promotion of this type is active then",
                format!(
                    "Promotion {other} is active within this period, and its type is one of which only one may be."
                ),
            ),
            Self::PromotionNotOpen(standing) => {
                let (code, title) = match standing {
                    Standing::Inactive | Standing::Open => {
                        ("PROMOTION_INACTIVE", "The promotion is not active")
                    }
                    Standing::NotStarted => {
                        ("PROMOTION_NOT_STARTED", "The promotion has not begun")
                    }
                    Standing::Ended => ("PROMOTION_ENDED", "The promotion has ended"),
                };
                (S::CONFLICT, code, title, format!("{title}."))
            }
            Self::AlreadyClaimed => (
                S::CONFLICT,
                "PROMOTION_ALREADY_CLAIMED",
                "The promotion was claimed before",
                said("The points of this promotion were credited before."),
            ),
            Self::ClaimRefused(refusal) => (
                S::CONFLICT,
                "CLAIM_REFUSED",
                "The claim was rolled back",
                said(match refusal {
                    ClaimRefusal::NoPoints => "The promotion is worth less than one point.",
                    ClaimRefusal::TooManyPoints => "The account cannot hold that many points.",
                    ClaimRefusal::UnknownCurrency => {
                        "The programme does not know the promotion's currency."
                    }
                }),
            ),
            Self::NotFound(thing) => {
                let (code, title) = match thing {
                    Thing::Route => ("NO_SUCH_ROUTE", "There is nothing at this address"),
                    Thing::Customer => ("CUSTOMER_NOT_FOUND", "There is no such customer"),
                    Thing::Redemption => ("REDEMPTION_NOT_FOUND", "There is no such redemption"),
                    Thing::Callback => ("CALLBACK_UNKNOWN", "There is no such callback"),
                    Thing::User => ("USER_NOT_FOUND", "There is no such user"),
                    Thing::Promotion => ("PROMOTION_NOT_FOUND", "There is no such promotion"),
                    Thing::AssignmentJob => (
                        "ASSIGNMENT_JOB_NOT_FOUND",
                        "There is no such assignment job",
                    ),
                    Thing::Notification => {
                        ("NOTIFICATION_NOT_FOUND", "There is no such notification")
                    }
                };
                (S::NOT_FOUND, code, title, format!("{title}."))
            }
            Self::UpgradeRequired => (
                S::UPGRADE_REQUIRED,
                "UPGRADE_REQUIRED",
                "This address is for WebSockets",
                said("Begin a WebSocket (RFC 6455, version 13) here."),
            ),
            Self::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                "METHOD_NOT_ALLOWED",
                "The address does not know this method",
                said("The header Allow says which methods it knows."),
            ),
            Self::CallbackAnswered => (
                S::CONFLICT,
                "CALLBACK_ALREADY_ANSWERED",
                "The callback was answered otherwise",
                said("Another answer was taken before; it stands."),
            ),
            Self::CallbackExpired => (
                S::GONE,
                "CALLBACK_EXPIRED",
                "The callback has expired",
                said("The answer comes too late."),
            ),
            Self::InvalidSignature(why) => (
                S::UNAUTHORIZED,
                "INVALID_SIGNATURE",
                "The signature does not count",
                format!("The signature was refused: {why}."),
            ),
            Self::Unavailable(_) => (
                S::SERVICE_UNAVAILABLE,
                "UNAVAILABLE",
                "Out of order for a moment",
                said("Something that this needs is out of reach. Try again."),
            ),
            Self::LedgerUnavailable(..) => (
                S::SERVICE_UNAVAILABLE,
                "LEDGER_UNAVAILABLE",
                "The ledger is out of reach",
                said("The balance cannot be read now. Try again."),
            ),
            Self::RankingNotReady => (
                S::SERVICE_UNAVAILABLE,
                "RANKING_NOT_READY",
                "The ranking is not ready",
                said("The ranking is being made, or is not up to date. Try again."),
            ),
            Self::TimedOut => (
                S::SERVICE_UNAVAILABLE,
                "TIMED_OUT",
                "The request took too long",
                said("The request took too long. Try again, with the same Idempotency-Key."),
            ),
            Self::Internal(_) => (
                S::INTERNAL_SERVER_ERROR,
                "INTERNAL",
                "Something went wrong",
                said("Something went wrong on this side. The request id leads to it."),
            ),
        }
    }

    /// The problem that the client is told.
    pub fn problem(&self) -> Problem {
        let (status, code, title, detail) = self.told();
        let mut problem = Problem::new(status, code, title, &detail);
        match self {
            Self::Unauthenticated | Self::InvalidCredentials | Self::InvalidRefreshToken => {
                problem.header(header::WWW_AUTHENTICATE, "Bearer");
            }
            Self::MissingRole(_) => problem.header(
                header::WWW_AUTHENTICATE,
                "Bearer error=\"insufficient_scope\"",
            ),
            Self::TooManyAttempts(wait) | Self::RateLimited(wait) => {
                problem.header(header::RETRY_AFTER, &whole_seconds(*wait).to_string());
            }
            Self::InvalidToken(_) => {
                problem.header(header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"");
            }
            Self::MissingScope(scope) => {
                let challenge = format!(
                    "Bearer error=\"insufficient_scope\", scope=\"{}\"",
                    scope.as_str()
                );
                problem.header(header::WWW_AUTHENTICATE, &challenge);
            }
            Self::UpgradeRequired => problem.header(header::UPGRADE, "websocket"),
            Self::InvalidSignature(_) => problem.header(header::WWW_AUTHENTICATE, "Meed-Signature"),
            Self::RequestInProgress
            | Self::Unavailable(_)
            | Self::Overloaded
            | Self::KeysUnavailable
            | Self::RankingNotReady
            | Self::TimedOut => problem.headers.push((header::RETRY_AFTER, RETRY_AFTER)),
            Self::LedgerUnavailable(_, last) => {
                problem.headers.push((header::RETRY_AFTER, RETRY_AFTER));
                let mut member = |name: &str, value| {
                    problem.members.insert(name.to_owned(), value);
                };
                member("partial", json!(true));
                member("asOf", json!(last.map(|last| last.as_of)));
                if let Some(last) = last {
                    member("availablePoints", json!(last.available));
                    if last.is_total {
                        member("totalPoints", json!(last.available));
                    }
                }
            }
            _ => {}
        }
        problem
    }
}

impl Problem {
    fn new(status: StatusCode, code: &str, title: &str, detail: &str) -> Self {
        let kind = format!(
            "urn:meed:problem:{}",
            code.to_ascii_lowercase().replace('_', "-")
        );
        let members = [
            ("type", json!(kind)),
            ("title", json!(title)),
            ("status", json!(status.as_u16())),
            ("detail", json!(detail)),
            ("code", json!(code)),
        ];
        let members = members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        Self {
            status,
            members,
            headers: Vec::new(),
        }
    }

    /// Its stable code.
    pub fn code(&self) -> &str {
        self.members
            .get("code")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// A problem as it was kept with an idempotency key.
    pub(crate) fn kept(status: StatusCode, members: Map<String, Value>) -> Self {
        Self {
            status,
            members,
            headers: Vec::new(),
        }
    }

    fn header(&mut self, name: HeaderName, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
    }

    /// Adds its own headers, such as when to ask again, to those of a response.
    pub(crate) fn add_headers(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its members.
    pub(crate) fn members(&self) -> &Map<String, Value> {
        &self.members
    }

    /// The document, now that it is known in which request it occurred.
    pub(crate) fn document(&self, request_id: &str, instance: &str) -> Value {
        let mut members = self.members.clone();
        members.insert("instance".to_owned(), json!(instance));
        members.insert("requestId".to_owned(), json!(request_id));
        Value::Object(members)
    }

    /// What to tell of a response that was refused before a handler saw the request.
    pub(crate) fn of_rejection(status: StatusCode) -> Self {
        let error = match status {
            StatusCode::NOT_FOUND => ApiError::NotFound(Thing::Route),
            StatusCode::METHOD_NOT_ALLOWED => ApiError::MethodNotAllowed,
            StatusCode::SERVICE_UNAVAILABLE => ApiError::TimedOut,
            status if status.is_client_error() => {
                ApiError::InvalidParameter("The request cannot be read.".to_owned())
            }
            _ => ApiError::Internal(String::new()),
        };
        error.problem()
    }
}

/// The problem travels beside an empty body; `observe` writes the document when it knows the
/// request.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        self.add_headers(response.headers_mut());
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = self.problem();
        // Shedding costs next to nothing, its log lines included; counters tell of it.
        let is_told_by_metrics = matches!(self, Self::Overloaded | Self::RankingNotReady);
        if problem.status.is_server_error() && !is_told_by_metrics {
            tracing::error!(error = %self, "request failed");
        } else {
            tracing::debug!(error = %self, "request refused");
        }
        problem.into_response()
    }
}

/// A problem document (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "type": "urn:meed:problem:insufficient-points", "title": "Not enough points", "status": 409,
    "detail": "The customer cannot spend that many points now.", "code": "INSUFFICIENT_POINTS",
    "instance": "/api/v1/redeem", "requestId": "01926f3e-8f7a-7c1e-9d43-0a4c1f2b3d4e"
}))]
pub struct ProblemDocument {
    /// The kind of problem, as a URI.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this request.
    pub detail: String,
    /// A stable code to program against.
    pub code: String,
    /// The address that was asked.
    pub instance: String,
    /// The id of the request, as in the header `x-request-id`.
    pub request_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_members_of_rfc_9457_and_says_nothing_of_the_inside() {
        let inside = "SELECT secret FROM customers at /srv/meed";
        for error in [
            ApiError::Internal(inside.to_owned()),
            ApiError::Unavailable(inside.to_owned()),
            ApiError::LedgerUnavailable(inside.to_owned(), None),
        ] {
            let problem = error.problem();
            let document = problem.document("r-1", "/api/v1/redeem");
            assert!(!document.to_string().contains("secret"), "{document}");
            assert_eq!(document["status"], problem.status().as_u16());
            assert_eq!(document["requestId"], "r-1");
            assert_eq!(document["instance"], "/api/v1/redeem");
            for member in ["type", "title", "detail", "code"] {
                assert!(
                    document[member]
                        .as_str()
                        .is_some_and(|text| !text.is_empty()),
                    "{member}"
                );
            }
        }
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_and_never_as_none() {
        for (wait_ms, told) in [
            (0, "1"),
            (1, "1"),
            (1_000, "1"),
            (1_001, "2"),
            (30_000, "30"),
        ] {
            let problem = ApiError::RateLimited(Duration::from_millis(wait_ms)).problem();
            let retry_after = (header::RETRY_AFTER, HeaderValue::from_static(told));
            assert!(
                problem.headers.contains(&retry_after),
                "{wait_ms}: {problem:?}"
            );
        }
    }

    #[test]
    fn a_refusal_keeps_its_class_as_the_code() {
        let refusal = Refusal::new(RefusalClass::InvalidPoints, "requestedPoints is 0");
        let problem = ApiError::from(refusal).problem();
        assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
        assert_eq!(problem.members()["code"], "INVALID_POINTS");
        assert_eq!(problem.members()["type"], "urn:meed:problem:invalid-points");
        assert_eq!(problem.members()["detail"], "requestedPoints is 0");
    }
}
