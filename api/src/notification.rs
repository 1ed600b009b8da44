//! A notification as clients see it, in lists and on sockets.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use store::notifications::Notification;
use utoipa::ToSchema;

use crate::error::ApiError;

/// Something that a player was told.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Notification)]
pub(crate) struct NotificationBody {
    /// Its number: the player's first one has 1, and each following one has one more.
    id: i64,
    /// What it is about, such as PROMOTION.
    #[serde(rename = "type")]
    kind: String,
    /// What it says, as its sender wrote it.
    #[schema(value_type = Object)]
    content: Box<RawValue>,
    /// Whether the player has marked it as read.
    read: bool,
    /// When it came.
    created_at: DateTime<Utc>,
}

impl TryFrom<Notification> for NotificationBody {
    type Error = ApiError;

    fn try_from(notification: Notification) -> Result<Self, ApiError> {
        let content = RawValue::from_string(notification.content)
            .map_err(|error| ApiError::Internal(format!("content of a notification: {error}")))?;
        Ok(Self {
            id: notification.notification_id,
            kind: notification.kind,
            content,
            read: notification.read,
            created_at: notification.created_at,
        })
    }
}

/// Those of a page, as clients see them.
///
/// # Errors
/// [`ApiError::Internal`] when the database holds what is not JSON.
pub(crate) fn bodies(page: Vec<Notification>) -> Result<Vec<NotificationBody>, ApiError> {
    page.into_iter().map(NotificationBody::try_from).collect()
}
