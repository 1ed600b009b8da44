//! What stands in addresses and headers.

use std::{convert::Infallible, net::SocketAddr};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Query},
    http::{HeaderName, request::Parts},
};
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use serde::de::DeserializeOwned;

use crate::{error::ApiError, observe::RequestId};

/// The header with the client's key for a request.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest idempotency key, in characters.
const IDEMPOTENCY_KEY_MAX_CHARS: usize = 255;

/// The query of an address. Parameters that are not known are refused.
#[derive(Debug, Clone)]
pub struct Parameters<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Query::from_request_parts(parts, state)
            .await
            .map(|Query(query)| Self(query))
            .map_err(|rejection| ApiError::InvalidParameter(rejection.body_text()))
    }
}

/// The client's key for the request.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(pub String);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let value = values.next().ok_or(ApiError::IdempotencyKeyMissing)?;
        let key = value
            .to_str()
            .map_err(|_| ApiError::IdempotencyKeyInvalid)?
            .trim();
        let usable = !key.is_empty()
            && key.len() <= IDEMPOTENCY_KEY_MAX_CHARS
            && key.bytes().all(|byte| byte.is_ascii_graphic())
            && values.next().is_none();
        if usable {
            Ok(Self(key.to_owned()))
        } else {
            Err(ApiError::IdempotencyKeyInvalid)
        }
    }
}

/// In which request something happens, and from where, for the audit record.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The request's id.
    pub request_id: String,
    /// The client's address.
    pub address: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone());
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        Ok(Self {
            request_id: request_id.unwrap_or_default(),
            address: address.map(|ConnectInfo(address)| address.ip().to_string()),
        })
    }
}

/// Reads an ISO date (its first instant, UTC) or an RFC 3339 instant.
///
/// # Errors
/// [`ApiError::InvalidParameter`] that names the parameter.
pub fn instant(name: &str, text: &str) -> Result<DateTime<Utc>, ApiError> {
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Ok(date.and_time(NaiveTime::MIN).and_utc());
    }
    // In a query, a plus sign that was not escaped arrives as a space.
    DateTime::parse_from_rfc3339(&text.replace(' ', "+"))
        .map(|at| at.to_utc())
        .map_err(|_| {
            ApiError::InvalidParameter(format!(
                "{name} is neither a date such as 2026-03-14 nor an instant such as \
             2026-03-14T12:00:00Z."
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_instants_are_read() {
        let read = |text| instant("from", text).map(|at| at.to_rfc3339()).ok();
        assert_eq!(
            read("2026-03-14").as_deref(),
            Some("2026-03-14T00:00:00+00:00")
        );
        assert_eq!(
            read("2026-03-14T12:00:00Z").as_deref(),
            Some("2026-03-14T12:00:00+00:00")
        );
        assert_eq!(
            read("2026-03-14T12:00:00 02:00").as_deref(),
            Some("2026-03-14T10:00:00+00:00")
        );
        for wrong in [
            "",
            "yesterday",
            "2026-02-30",
            "14.03.2026",
            "2026-03-14T12:00:00",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
