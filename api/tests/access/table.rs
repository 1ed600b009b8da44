//! Who may make which call. A route without a row here fails the tests, and so does a row without
//! a route.

/// Who may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Anybody; a token makes no difference.
    Open,
    /// Whoever has a token with this scope.
    Scope(&'static str),
    /// Whoever has a token with one of these roles.
    Role(&'static [&'static str]),
    /// A client, by its secret.
    ClientSecret,
    /// The merchant of the callback, by its signature.
    Signature,
}

/// What comes of a call about somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// There is nobody else: the call is about no customer, or no merchant.
    Nobody,
    /// It is refused with this status and code.
    Refused(u16, &'static str),
    /// It is answered, with a problem of this code in the place of each answer.
    Within(&'static str),
    /// It is answered without these words.
    Without(&'static [&'static str]),
    /// The call can only be about whoever makes it.
    OnlyOneself,
    /// It is about everybody, and shown to whoever may make it.
    Everybody,
}

/// A call, with a request that is right.
///
/// In the address and the body, `{n}` is another number each time, `{user}` one of Meed's own users
/// and `{refreshToken}` a token that such a user has just been given.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Method and path, as in the description of the API.
    pub call: &'static str,
    /// Who may make it.
    pub who: Who,
    /// Whether a player may, where it is for whoever has a scope.
    pub players: bool,
    /// What comes of it with another customer than C1.
    pub customer: Others,
    /// What comes of it with another merchant than M1.
    pub merchant: Others,
    /// What stands in the address for its parameters.
    pub parameters: &'static [(&'static str, &'static str)],
    /// The query, with its question mark.
    pub query: &'static str,
    /// The body; a form where it is no JSON.
    pub body: &'static str,
    /// The status of the answer.
    pub answer: u16,
}

/// An open call with nothing in it.
const CALL: Row = Row {
    call: "",
    who: Who::Open,
    players: true,
    customer: Others::Nobody,
    merchant: Others::Nobody,
    parameters: &[],
    query: "",
    body: "",
    answer: 200,
};

pub const READ: &str = "rewards.read";
pub const WRITE: &str = "rewards.write";
pub const REDEEM: &str = "rewards.redeem";
pub const CALLBACKS: &str = "callbacks.write";

const NOT_THIS_CUSTOMER: Others = Others::Refused(403, "CUSTOMER_NOT_ALLOWED");
const NOT_THIS_MERCHANT: Others = Others::Refused(403, "MERCHANT_NOT_ALLOWED");
/// Whose it is, is not told either.
const NO_SUCH_REDEMPTION: Others = Others::Refused(404, "REDEMPTION_NOT_FOUND");

/// The callbacks of the database that the calls are tried on.
pub const TIER_CALLBACKS: [&str; 2] = [
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
];
/// Of a redemption at M1.
pub const PARTNER_CALLBACK: &str = "cccccccccccccccccccccccccccccccccccccccccccccccc";

pub const ROWS: &[Row] = &[
    Row {
        call: "POST /api/v1/redeem",
        who: Who::Scope(REDEEM),
        customer: NOT_THIS_CUSTOMER,
        merchant: NOT_THIS_MERCHANT,
        body: r#"{"redeemRequestId": "R-{n}", "customerId": "C1", "requestedPoints": 1,
            "merchantContext": {"merchantId": "M1", "orderId": "O-{n}"}}"#,
        answer: 202,
        ..CALL
    },
    Row {
        call: "GET /api/v1/redeem/{redeemRequestId}",
        who: Who::Scope(REDEEM),
        customer: NO_SUCH_REDEMPTION,
        merchant: NO_SUCH_REDEMPTION,
        parameters: &[("redeemRequestId", "R1")],
        query: "?wait=0",
        ..CALL
    },
    Row {
        call: "POST /api/v1/redeem/{redeemRequestId}/cancel",
        who: Who::Scope(REDEEM),
        customer: NO_SUCH_REDEMPTION,
        merchant: NO_SUCH_REDEMPTION,
        parameters: &[("redeemRequestId", "R1")],
        answer: 202,
        ..CALL
    },
    Row {
        call: "GET /api/v1/redeem/{redeemRequestId}/story",
        who: Who::Role(&["staff", "admin"]),
        customer: Others::Refused(403, "INSUFFICIENT_ROLE"),
        merchant: NO_SUCH_REDEMPTION,
        parameters: &[("redeemRequestId", "R1")],
        ..CALL
    },
    Row {
        call: "GET /api/v1/rewards/{customerId}",
        who: Who::Scope(READ),
        customer: NOT_THIS_CUSTOMER,
        parameters: &[("customerId", "C1")],
        ..CALL
    },
    Row {
        call: "POST /api/v1/rewards/query",
        who: Who::Scope(READ),
        customer: Others::Within("CUSTOMER_NOT_ALLOWED"),
        body: r#"[{"customerId": "C1"}, {"customerId": "C1", "from": "2026-03-01"}]"#,
        ..CALL
    },
    Row {
        call: "POST /api/v1/rewards/events",
        who: Who::Scope(WRITE),
        // Nobody gives points to themselves, or to a friend.
        players: false,
        customer: Others::Refused(403, "INSUFFICIENT_ROLE"),
        body: r#"{"eventId": "E-{n}", "eventType": "HOTEL_STAY", "customerId": "C1",
            "timestamp": "2026-03-14T12:00:00Z", "payload": {"nights": 1}}"#,
        answer: 202,
        ..CALL
    },
    Row {
        call: "GET /api/v1/loyalty",
        who: Who::Role(&["player"]),
        customer: Others::OnlyOneself,
        ..CALL
    },
    Row {
        call: "POST /api/v1/loyalty",
        who: Who::Role(&["player"]),
        customer: Others::OnlyOneself,
        body: r#"{"points": 1}"#,
        answer: 202,
        ..CALL
    },
    Row {
        call: "GET /loyalty",
        who: Who::Role(&["player"]),
        customer: Others::OnlyOneself,
        ..CALL
    },
    Row {
        call: "POST /loyalty",
        who: Who::Role(&["player"]),
        customer: Others::OnlyOneself,
        body: r#"{"points": 1}"#,
        answer: 202,
        ..CALL
    },
    Row {
        call: "GET /api/v1/customers/{customerId}/transactions",
        who: Who::Scope(READ),
        customer: NOT_THIS_CUSTOMER,
        merchant: Others::Without(&["R1", "M1"]),
        parameters: &[("customerId", "C1")],
        ..CALL
    },
    Row {
        call: "GET /api/v1/notifications",
        who: Who::Role(&["player"]),
        customer: Others::OnlyOneself,
        query: "?unread=false",
        ..CALL
    },
    Row {
        call: "POST /api/v1/notifications/{notificationId}/read",
        who: Who::Role(&["player"]),
        customer: Others::Refused(404, "NOTIFICATION_NOT_FOUND"),
        parameters: &[("notificationId", "1")],
        ..CALL
    },
    Row {
        call: "POST /api/v1/notifications/read-all",
        who: Who::Role(&["player"]),
        customer: Others::OnlyOneself,
        ..CALL
    },
    Row {
        call: "GET /api/v1/notifications/ws",
        who: Who::Role(&["player"]),
        // The request of a row begins no WebSocket: api/tests/sockets tries those.
        answer: 426,
        ..CALL
    },
    Row {
        call: "GET /api/v1/top-customers",
        who: Who::Scope(READ),
        customer: Others::Everybody,
        query: "?N=10",
        ..CALL
    },
    Row {
        call: "GET /top-customers",
        who: Who::Scope(READ),
        customer: Others::Everybody,
        query: "?N=10",
        ..CALL
    },
    Row {
        call: "GET /api/v1/customer-info",
        who: Who::Scope(READ),
        customer: NOT_THIS_CUSTOMER,
        query: "?id=C1",
        ..CALL
    },
    Row {
        call: "GET /customer-info",
        who: Who::Scope(READ),
        customer: NOT_THIS_CUSTOMER,
        query: "?id=C1",
        ..CALL
    },
    Row {
        call: "GET /api/v1/audit",
        who: Who::Role(&["staff", "admin"]),
        ..CALL
    },
    Row {
        call: "POST /api/v1/callbacks/{callbackId}/success",
        who: Who::Scope(CALLBACKS),
        parameters: &[("callbackId", TIER_CALLBACKS[0])],
        ..CALL
    },
    Row {
        call: "POST /api/v1/callbacks/{callbackId}/failure",
        who: Who::Scope(CALLBACKS),
        parameters: &[("callbackId", TIER_CALLBACKS[1])],
        ..CALL
    },
    Row {
        call: "POST /api/v1/partner-callbacks/{callbackId}",
        who: Who::Signature,
        merchant: Others::Refused(401, "INVALID_SIGNATURE"),
        parameters: &[("callbackId", PARTNER_CALLBACK)],
        body: r#"{"status": "CONFIRMED", "confirmationId": "C-9001"}"#,
        ..CALL
    },
    Row {
        call: "POST /oauth/token",
        who: Who::ClientSecret,
        body: "grant_type=client_credentials",
        ..CALL
    },
    Row {
        call: "POST /api/v1/auth/register",
        body: r#"{"username": "user-{n}", "password": "correct horse battery"}"#,
        answer: 201,
        ..CALL
    },
    Row {
        call: "POST /api/v1/auth/register-staff",
        who: Who::Role(&["admin"]),
        body: r#"{"username": "staff-{n}", "password": "correct horse battery"}"#,
        answer: 201,
        ..CALL
    },
    Row {
        call: "POST /api/v1/auth/login",
        body: r#"{"username": "anna", "password": "correct horse battery"}"#,
        ..CALL
    },
    Row {
        call: "POST /api/v1/auth/refresh",
        body: r#"{"refreshToken": "{refreshToken}"}"#,
        ..CALL
    },
    Row {
        call: "POST /api/v1/auth/logout",
        body: r#"{"refreshToken": "{refreshToken}"}"#,
        answer: 204,
        ..CALL
    },
    Row {
        call: "POST /api/v1/users/{userId}/deactivate",
        who: Who::Role(&["admin"]),
        parameters: &[("userId", "{user}")],
        ..CALL
    },
    Row {
        call: "POST /api/v1/promotions",
        who: Who::Role(&["staff", "admin"]),
        body: r#"{"title": "Ten", "type": "DEPOSIT_MATCH", "amount": "10.00",
            "startDate": "2026-01-01", "endDate": "2096-01-01"}"#,
        answer: 201,
        ..CALL
    },
    Row {
        call: "GET /api/v1/promotions",
        who: Who::Role(&["staff", "admin"]),
        query: "?active=true",
        ..CALL
    },
    Row {
        call: "GET /api/v1/promotions/players/{playerId}",
        who: Who::Role(&["player", "staff", "admin"]),
        customer: NOT_THIS_CUSTOMER,
        parameters: &[("playerId", "C1")],
        ..CALL
    },
    Row {
        call: "POST /api/v1/promotions/claim",
        who: Who::Role(&["player"]),
        customer: Others::OnlyOneself,
        body: r#"{"promotionId": "P1"}"#,
        answer: 202,
        ..CALL
    },
    Row {
        call: "POST /api/v1/promotions/{promotionId}/assign",
        who: Who::Role(&["staff", "admin"]),
        parameters: &[("promotionId", "P1")],
        body: r#"{"playerIds": ["C1", "C2"]}"#,
        answer: 202,
        ..CALL
    },
    Row {
        call: "GET /api/v1/promotions/jobs/{jobId}",
        who: Who::Role(&["staff", "admin"]),
        parameters: &[("jobId", "J1")],
        ..CALL
    },
    Row {
        call: "POST /api/v1/promotions/jobs/{jobId}/cancel",
        who: Who::Role(&["staff", "admin"]),
        parameters: &[("jobId", "J1")],
        answer: 202,
        ..CALL
    },
    Row {
        call: "GET /health/live",
        ..CALL
    },
    Row {
        call: "GET /health/ready",
        // Neither Temporal nor a worker is there.
        answer: 503,
        ..CALL
    },
    Row {
        call: "GET /metrics",
        ..CALL
    },
    Row {
        call: "GET /.well-known/jwks.json",
        ..CALL
    },
    Row {
        call: "GET /.well-known/oauth-authorization-server",
        ..CALL
    },
    Row {
        call: "GET /dev/token",
        query: "?sub=me",
        ..CALL
    },
    Row {
        call: "POST /dev/token",
        query: "?sub=me",
        ..CALL
    },
];
