//! What stands in addresses and headers.

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{HeaderName, request::Parts},
};
use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, Utc};
use serde::de::DeserializeOwned;
use utoipa::{
    ToSchema,
    openapi::schema::{AnyOfBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type},
};

use crate::{
    App, address,
    error::{ApiError, Thing},
    observe::RequestId,
};

/// The header with the client's key for a request.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest idempotency key, in characters.
const IDEMPOTENCY_KEY_MAX_CHARS: usize = 255;
/// How many hexadecimal digits a callback id has.
const CALLBACK_ID_DIGITS: usize = 48;

/// The query of an address. Parameters that are not known are refused.
#[derive(Debug, Clone)]
pub struct Parameters<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Query::from_request_parts(parts, state)
            .await
            .map(|Query(query)| Self(query))
            .map_err(|rejection| ApiError::InvalidParameter(told(&rejection.body_text())))
    }
}

/// What is wrong with a query, without what its parts would have become here.
fn told(why: &str) -> String {
    let why = why
        .strip_prefix("Failed to deserialize query string: ")
        .unwrap_or(why);
    match why.split_once(": ") {
        Some((_, why)) if why.contains(" field `") => format!("{why}."),
        Some((name, _)) => format!("{name} cannot be read."),
        None => format!("{why}."),
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

/// The callback id of an address. What cannot be one is no callback, without asking the database.
#[derive(Debug, Clone)]
pub struct CallbackId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for CallbackId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Path::<String>::from_request_parts(parts, state)
            .await
            .ok()
            .filter(|Path(id)| {
                id.len() == CALLBACK_ID_DIGITS
                    && id
                        .bytes()
                        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            })
            .map(|Path(id)| Self(id))
            .ok_or(ApiError::NotFound(Thing::Callback))
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

impl FromRequestParts<Arc<App>> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        let request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone());
        let address = address::of(parts, &app.settings.api.trusted_proxies);
        Ok(Self {
            request_id: request_id.unwrap_or_default(),
            address: address.map(|address| address.to_string()),
        })
    }
}

/// Reads an ISO date (its first instant, UTC) or an RFC 3339 instant, of the years 1 to 9999; the
/// database cannot hold all that chrono reads.
///
/// # Errors
/// [`ApiError::InvalidParameter`] that names the parameter.
pub fn instant(name: &str, text: &str) -> Result<DateTime<Utc>, ApiError> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .map(|date| date.and_time(NaiveTime::MIN).and_utc())
        // In a query, a plus sign that was not escaped arrives as a space.
        .or_else(|_| DateTime::parse_from_rfc3339(&text.replace(' ', "+")).map(|at| at.to_utc()))
        .ok()
        .filter(|at| (1..=9999).contains(&at.year()))
        .ok_or_else(|| {
            ApiError::InvalidParameter(format!(
                "{name} is neither a date such as 2026-03-14 nor an instant such as \
                 2026-03-14T12:00:00Z."
            ))
        })
}

/// An id, for the description of the API: no control characters, and no space at its ends.
#[derive(Debug, ToSchema)]
#[schema(
    min_length = 1,
    max_length = 128,
    pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$"
)]
#[expect(dead_code, reason = "it describes the ids of `domain`")]
pub struct Id(String);

/// An id that stands in addresses, which has no slash either.
#[derive(Debug, ToSchema)]
#[schema(
    min_length = 1,
    max_length = 128,
    pattern = r"^[^\s\x00-\x1f\x7f-\x9f/]([^\x00-\x1f\x7f-\x9f/]*[^\s\x00-\x1f\x7f-\x9f/])?$"
)]
#[expect(dead_code, reason = "it describes the ids of `domain`")]
pub struct IdInAddress(String);

/// What [`instant`] reads, for the description of the API.
pub fn instant_schema() -> Schema {
    let text = |format| {
        let text = ObjectBuilder::new().schema_type(Type::String);
        text.format(Some(SchemaFormat::KnownFormat(format)))
    };
    let either = AnyOfBuilder::new();
    let either = either.item(text(KnownFormat::Date));
    Schema::AnyOf(either.item(text(KnownFormat::DateTime)).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_query_is_told_without_what_is_inside() {
        let told = |why: &str| told(&format!("Failed to deserialize query string: {why}"));
        assert_eq!(
            told("wait: number too large to fit in target type"),
            "wait cannot be read."
        );
        assert_eq!(
            told("x: unknown field `x`, expected `wait`"),
            "unknown field `x`, expected `wait`."
        );
        assert_eq!(told("duplicate field `at`"), "duplicate field `at`.");
    }

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
        for edge in ["0001-01-01", "9999-12-31"] {
            assert!(read(edge).is_some(), "{edge}");
        }
        for wrong in [
            "",
            "yesterday",
            "2026-02-30",
            "14.03.2026",
            "2026-03-14T12:00:00",
            "-4800-01-01",
            "-262143-01-01",
            "0000-12-31",
            "+10000-01-01",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+01:00",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
