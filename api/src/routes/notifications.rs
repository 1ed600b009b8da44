//! What a player is told: lists, marks, and a socket on which it comes as it happens.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        Path, State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{
    audit,
    notifications::{self, Marked},
};
use utoipa::{IntoParams, ToSchema};

use super::loyalty::customer;
use crate::{
    App,
    auth::{AsPlayer, Holder, Role},
    error::{ApiError, ProblemDocument, Thing},
    idempotency::{self, Claim, Reply},
    notification::{self, NotificationBody},
    openapi::{AnyCall, told},
    origin, paging,
    parameters::{IdempotencyKey, Origin, Parameters},
    sockets::{self, Visitor},
    throttle,
};

/// The largest message that a client may send, in bytes: a token and little more.
const MESSAGE_MAX_BYTES: usize = 10_240;
/// What a socket reads at once, in bytes. Clients have next to nothing to say.
const READ_BUFFER_BYTES: usize = 1_024;

/// Which notifications.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParameters {
    /// Only those that are not marked as read.
    #[param(default = false)]
    unread: Option<bool>,
    /// How many notifications.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// Where the page begins: the cursor in `next` of the page before. The newest page without one.
    #[param(max_length = 1024)]
    cursor: Option<String>,
}

/// What a player was told, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "user_id": "C-42",
    "notifications": [{
        "id": 7, "type": "PROMOTION",
        "content": {
            "id": "0193f4a2-8c1e-7d30-9b5a-3f2e1d0c9b8a", "title": "Welcome",
            "description": "Fifty points to begin with", "isActive": true,
            "type": "WELCOME_BONUS", "amount": "50.00",
            "startDate": "2026-01-01T00:00:00Z", "endDate": "2027-01-01T00:00:00Z"
        },
        "read": false, "createdAt": "2026-03-14T12:00:00.310Z"
    }],
    "next": "/api/v1/notifications?unread=true&limit=1&cursor=bm90aWZpY2F0aW9ucw"
}))]
pub(super) struct NotificationPage {
    /// The player.
    user_id: String,
    /// The notifications.
    notifications: Vec<NotificationBody>,
    /// Where the next page is; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A notification that is marked as read.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "id": 7, "read": true }))]
pub(super) struct ReadNotification {
    /// Its number.
    id: i64,
    /// Always true.
    read: bool,
}

/// How many notifications are marked as read.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "marked": 3 }))]
pub(super) struct MarkedNotifications {
    /// Those that were not before.
    marked: u64,
}

/// Lists what the player whose token it is was told, newest first.
///
/// What comes between two pages moves nothing: it comes before the first one.
#[utoipa::path(
    get,
    path = "/api/v1/notifications",
    operation_id = "listNotifications",
    tag = "notifications",
    security(("token" = ["player"])),
    params(ListParameters),
    responses(
        (status = 200, description = "A page of notifications", body = NotificationPage),
        (status = 400, description = "A parameter cannot be used", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidParameter("A parameter is not known.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "Not for this role: player", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingRole(Role::Player)))),
        AnyCall,
    )
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    player: Holder<AsPlayer>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<NotificationPage>, ApiError> {
    let user = customer(&player.identity)?;
    let limit = paging::limit(parameters.limit)?;
    let unread = parameters.unread.unwrap_or(false);
    let list = format!("notifications/{user}");
    let before = paging::place(&list, parameters.cursor.as_deref(), |id| id.parse().ok())?;
    let one_more = i64::from(limit) + 1;
    let mut page = notifications::page(&app.pool, &user, unread, before, one_more).await?;
    let has_more = page.len() > limit as usize;
    page.truncate(limit as usize);
    let next = page.last().filter(|_| has_more).map(|last| {
        let cursor = paging::cursor(&list, &last.notification_id.to_string());
        let kept = [
            ("unread", unread.then_some("true")),
            ("limit", Some(&*limit.to_string())),
        ];
        paging::next("/api/v1/notifications", &kept, &cursor)
    });
    Ok(Json(NotificationPage {
        user_id: user.to_string(),
        notifications: notification::bodies(page)?,
        next,
    }))
}

/// Marks a notification of the player whose token it is as read.
///
/// Marking it again changes nothing.
#[utoipa::path(
    post,
    path = "/api/v1/notifications/{notificationId}/read",
    operation_id = "readNotification",
    tag = "notifications",
    security(("token" = ["player"])),
    params(
        ("notificationId" = String, Path, description = "Its number", example = "7"),
        ("Idempotency-Key" = String, Header, description = "The client's own key for this request", min_length = 1, max_length = 255, pattern = "^[!-~]+$", example = "7f1c1b52-6")
    ),
    responses(
        (status = 200, description = "It is marked, now or before", body = ReadNotification),
        (status = 400, description = "No Idempotency-Key", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyMissing))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "Not for this role: player", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingRole(Role::Player)))),
        (status = 404, description = "The player has no such notification", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Notification)))),
        (status = 409, description = "REQUEST_IN_PROGRESS", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::RequestInProgress))),
        (status = 422, description = "The Idempotency-Key was used for another request", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyReused))),
        AnyCall,
    )
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    player: Holder<AsPlayer>,
    origin: Origin,
    key: IdempotencyKey,
    Path(id): Path<String>,
) -> Result<Reply, ApiError> {
    let not_found = || ApiError::NotFound(Thing::Notification);
    let user = customer(&player.identity)?;
    let number: i64 = id.parse().map_err(|_| not_found())?;
    let route = "POST /api/v1/notifications/{notificationId}/read";
    let target = number.to_string();
    let keyed = idempotency::Request::new(&player.identity, route, key, &target, b"");
    let (mut tx, _turn) = match idempotency::claim(&app, &keyed).await? {
        Claim::Do(tx, turn) => (tx, turn),
        Claim::Answered(reply) => return Ok(reply),
    };
    match notifications::mark_read(&mut tx, &user, number).await? {
        Marked::Unknown => return Err(not_found()),
        Marked::Before => {}
        Marked::Now => {
            let change = audit::Change {
                actor: &player.identity.client(),
                action: "notification.read",
                subject: user.as_str(),
                request_id: &origin.request_id,
                address: origin.address.as_deref(),
                detail: json!({ "notificationId": number }),
            };
            audit::write(&mut tx, &change).await?;
        }
    }
    let body = ReadNotification {
        id: number,
        read: true,
    };
    let reply = Reply::new(StatusCode::OK, &body, None);
    idempotency::finish_in(tx, &keyed, &reply).await?;
    Ok(reply)
}

/// Marks all notifications of the player whose token it is as read.
#[utoipa::path(
    post,
    path = "/api/v1/notifications/read-all",
    operation_id = "readAllNotifications",
    tag = "notifications",
    security(("token" = ["player"])),
    params(
        ("Idempotency-Key" = String, Header, description = "The client's own key for this request", min_length = 1, max_length = 255, pattern = "^[!-~]+$", example = "7f1c1b52-7")
    ),
    responses(
        (status = 200, description = "They are marked", body = MarkedNotifications),
        (status = 400, description = "No Idempotency-Key", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyMissing))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "Not for this role: player", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingRole(Role::Player)))),
        (status = 409, description = "REQUEST_IN_PROGRESS", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::RequestInProgress))),
        (status = 422, description = "The Idempotency-Key was used for another request", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyReused))),
        AnyCall,
    )
)]
pub(super) async fn read_all(
    State(app): State<Arc<App>>,
    player: Holder<AsPlayer>,
    origin: Origin,
    key: IdempotencyKey,
) -> Result<Reply, ApiError> {
    let user = customer(&player.identity)?;
    let route = "POST /api/v1/notifications/read-all";
    let keyed = idempotency::Request::new(&player.identity, route, key, "", b"");
    let (mut tx, _turn) = match idempotency::claim(&app, &keyed).await? {
        Claim::Do(tx, turn) => (tx, turn),
        Claim::Answered(reply) => return Ok(reply),
    };
    let marked = notifications::mark_all_read(&mut tx, &user).await?;
    if marked > 0 {
        let change = audit::Change {
            actor: &player.identity.client(),
            action: "notification.read-all",
            subject: user.as_str(),
            request_id: &origin.request_id,
            address: origin.address.as_deref(),
            detail: json!({ "marked": marked }),
        };
        audit::write(&mut tx, &change).await?;
    }
    let reply = Reply::new(StatusCode::OK, &MarkedNotifications { marked }, None);
    idempotency::finish_in(tx, &keyed, &reply).await?;
    Ok(reply)
}

/// From where on a socket tells.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(super) struct WatchParameters {
    /// The number of the last notification that the client has; 0 for none. Everything after it is
    /// sent first. Without one the socket tells only what comes from now on.
    #[param(minimum = 0, maximum = 4_294_967_295_u32)]
    last_seen_id: Option<u32>,
}

/// Opens a WebSocket on which the player is told what comes, as it comes.
///
/// The token is in the header `Authorization` or, for browsers, which cannot send it there, in the
/// first message, within 5 seconds: `{"type": "authenticate", "token": "...", "lastSeenId": 6}`,
/// where `lastSeenId` may be left out. It is never in the address. After that the client says
/// nothing but pongs, which browsers send by themselves.
///
/// The server says first from where on it tells, `{"type": "ready", "user_id": "C-42",
/// "lastSeenId": 6}`, and then, oldest first, `{"type": "notifications", "user_id": "C-42",
/// "notifications": [...]}` with notifications as in the list. Their numbers grow by one. A client
/// that connects again with the last number it has misses nothing and is told nothing twice.
///
/// How a socket is closed tells why: 1012 when the server stops (connect again), 1009 for a message
/// that is too large, 1002 and 1007 for what is no WebSocket, and from 4400 on the status that a
/// request would have been answered with: 4400 for a message that is not expected, 4401 for a
/// token that is missing, does not count or has expired, 4403 for one that is no player's, 4429 for
/// too many sockets of a player, 4503 when it is to be tried again. Who does not read, or does not
/// answer pings, is cut off without a word.
#[utoipa::path(
    get,
    path = "/api/v1/notifications/ws",
    operation_id = "watchNotifications",
    tag = "notifications",
    security(("token" = ["player"])),
    params(WatchParameters),
    responses(
        (status = 101, description = "The WebSocket is open"),
        (status = 400, description = "A parameter cannot be used", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidParameter("A parameter is not known.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "Not for this role: player; or ORIGIN_NOT_ALLOWED", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::OriginNotAllowed))),
        (status = 426, description = "The request begins no WebSocket", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::UpgradeRequired))),
        AnyCall,
    )
)]
pub(super) async fn watch(
    State(app): State<Arc<App>>,
    player: Option<Holder<AsPlayer>>,
    came_from: Origin,
    headers: HeaderMap,
    parameters: Result<Parameters<WatchParameters>, ApiError>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    // Only a WebSocket can say later who it is.
    let upgrade = match upgrade {
        Err(_) if player.is_none() => return Err(ApiError::Unauthenticated),
        upgrade => upgrade,
    };
    let Parameters(parameters) = parameters?;
    let upgrade = upgrade.map_err(|_| ApiError::UpgradeRequired)?;
    if let Some(origin) = origin::of(&headers)
        && !origin::may_call(&app.settings, origin, &headers)
    {
        return Err(ApiError::OriginNotAllowed);
    }
    let ticket = app.sockets.admit().ok_or(ApiError::Overloaded)?;
    let visitor = Visitor {
        identity: player.map(|player| player.identity),
        last_seen: parameters.last_seen_id,
        address: throttle::counted(came_from.address.as_deref()),
        ticket,
    };
    // Sockets are many and say little: their buffers are small, and grow where they must.
    Ok(upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(MESSAGE_MAX_BYTES)
        .max_frame_size(MESSAGE_MAX_BYTES)
        .on_upgrade(move |socket| sockets::attend(app, socket, visitor)))
}
