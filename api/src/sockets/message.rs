//! What is said on a socket, as JSON.

use serde::{Deserialize, Serialize};

use crate::{body, notification::NotificationBody};

/// The first message of a client that has sent no token with its request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Authenticate {
    #[serde(rename = "type")]
    _kind: AuthenticateKind,
    /// The token.
    pub(super) token: String,
    /// The number of the last notification that the client has.
    #[serde(default)]
    pub(super) last_seen_id: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum AuthenticateKind {
    Authenticate,
}

impl Authenticate {
    /// Reads it; nothing for what is something else.
    pub(super) fn read(text: &str) -> Option<Self> {
        body::not_too_deep(text.as_bytes()).ok()?;
        serde_json::from_str(text).ok()
    }
}

/// What a client is sent.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Told<'a> {
    /// From now on the client is told what comes after this number.
    Ready {
        /// The player.
        user_id: &'a str,
        /// The number.
        #[serde(rename = "lastSeenId")]
        last_seen_id: i64,
    },
    /// What came, oldest first.
    Notifications {
        /// The player.
        user_id: &'a str,
        /// What came.
        notifications: Vec<NotificationBody>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_message_is_understood_to_its_last_field_or_not_at_all() {
        let read = |text: &str| Authenticate::read(text).map(|first| first.last_seen_id);
        let sound = r#"{"type": "authenticate", "token": "x.y.z", "lastSeenId": 7}"#;
        assert_eq!(read(sound), Some(Some(7)));
        let short = r#"{"token": "x.y.z", "type": "authenticate"}"#;
        assert_eq!(read(short), Some(None));
        for wrong in [
            "",
            "x.y.z",
            "[]",
            r#"{"type": "subscribe", "token": "x.y.z"}"#,
            r#"{"token": "x.y.z"}"#,
            r#"{"type": "authenticate"}"#,
            r#"{"type": "authenticate", "token": "x.y.z", "lastSeenId": -1}"#,
            r#"{"type": "authenticate", "token": "x.y.z", "lastSeenId": "1"}"#,
            r#"{"type": "authenticate", "token": "x.y.z", "user": "C1"}"#,
            r#"{"type": "authenticate", "token": "x.y.z", "token": "x.y.z"}"#,
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_told_has_the_shape_of_the_description() {
        let told = Told::Ready {
            user_id: "C1",
            last_seen_id: 3,
        };
        assert_eq!(
            serde_json::to_string(&told).expect("JSON"),
            r#"{"type":"ready","user_id":"C1","lastSeenId":3}"#
        );
    }
}
