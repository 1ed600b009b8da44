//! How sockets end, and what their clients are told of it.

use axum::extract::ws::{CloseFrame, close_code};
use tokio_tungstenite::tungstenite;

use crate::error::ApiError;

/// The most bytes of a reason (RFC 6455, section 5.5: 125 with the code).
const REASON_MAX_BYTES: usize = 123;

/// How a socket ended.
#[derive(Debug)]
pub(super) enum End {
    /// The client closed it.
    Left,
    /// The connection broke.
    Lost,
    /// The client did not answer a ping.
    Dead,
    /// The client did not read what it was sent.
    Slow,
    /// The process stops.
    Stopping,
    /// The client did not say in time who it is.
    Silent,
    /// The client said something where nothing, or something else, was to be said.
    Garbage(&'static str),
    /// The client sends frame after frame.
    Flooding,
    /// A message is too large.
    TooLarge,
    /// What came is not what the protocol asks for; the code says in which way.
    Malformed(u16),
    /// The player has too many sockets.
    TooMany,
    /// The client is not let in, or not any longer.
    Refused(ApiError),
}

impl End {
    /// What a failure to read means.
    pub(super) fn of(error: axum::Error) -> Self {
        use tungstenite::{
            Error,
            error::{CapacityError, ProtocolError::ResetWithoutClosingHandshake},
        };
        match error.into_inner().downcast_ref::<Error>() {
            Some(Error::Capacity(CapacityError::MessageTooLong { .. })) => Self::TooLarge,
            Some(Error::Protocol(ResetWithoutClosingHandshake)) => Self::Lost,
            Some(Error::Protocol(_)) => Self::Malformed(close_code::PROTOCOL),
            Some(Error::Utf8(_)) => Self::Malformed(close_code::INVALID),
            _ => Self::Lost,
        }
    }

    /// Its name in metrics.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Lost => "lost",
            Self::Dead => "dead",
            Self::Slow => "slow",
            Self::Stopping => "stopping",
            Self::Silent => "silent",
            Self::Garbage(_) | Self::Flooding | Self::TooLarge | Self::Malformed(_) => "garbage",
            Self::TooMany => "too-many",
            Self::Refused(_) => "refused",
        }
    }

    /// What the client is told, if it can be told anything. From 4400 on, a code is 4000 and the
    /// status that a request would have been answered with, and the reason begins with a stable code.
    pub(super) fn told(&self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Left | Self::Lost | Self::Dead | Self::Slow => return None,
            Self::Stopping => (close_code::RESTART, "Connect again.".to_owned()),
            Self::Silent => (
                4401,
                "UNAUTHENTICATED: The first message did not come in time.".to_owned(),
            ),
            Self::Garbage(why) => (4400, format!("INVALID_MESSAGE: {why}")),
            Self::Flooding => (4429, "RATE_LIMITED: Too many frames.".to_owned()),
            Self::TooLarge => (close_code::SIZE, "The message is too large.".to_owned()),
            Self::Malformed(code) => (*code, "This is not the WebSocket protocol.".to_owned()),
            Self::TooMany => (
                4429,
                "TOO_MANY_SOCKETS: The player has too many open.".to_owned(),
            ),
            Self::Refused(error) => {
                let problem = error.problem();
                let text = |member: &str| problem.members()[member].as_str().unwrap_or_default();
                let reason = format!("{}: {}", text("code"), text("detail"));
                (4_000 + problem.status().as_u16(), reason)
            }
        };
        let end = reason.floor_char_boundary(REASON_MAX_BYTES);
        Some(CloseFrame {
            code,
            reason: reason[..end].into(),
        })
    }

    /// Whether the client may have sent what was not read.
    pub(super) fn leaves_unread(&self) -> bool {
        matches!(self, Self::TooLarge | Self::Malformed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_with_its_status_and_code() {
        let told = |end: End| {
            let frame = end.told().expect("it is told");
            (frame.code, frame.reason.to_string())
        };
        let expired = ApiError::InvalidToken("it has expired");
        let reason = "INVALID_TOKEN: The token was refused: it has expired.";
        assert_eq!(told(End::Refused(expired)), (4401, reason.to_owned()));
        let long = ApiError::InvalidBody("ü".repeat(100));
        assert_eq!(told(End::Refused(long)).1.len(), 122);
        assert!(End::Slow.told().is_none(), "it would not be read");
    }
}
