//! Request bodies: JSON, of bounded size and depth, that come in time.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::error::ApiError;

/// The largest body that is read, in bytes.
pub const BODY_MAX_BYTES: usize = 65_536;

/// The largest body where one request is about 10,000 players, in bytes: as many ids of the longest
/// kind in ASCII, with room to spare.
pub(crate) const MANY_PLAYERS_MAX_BYTES: usize = 2_097_152;

/// How deep arrays and objects of a body may be nested in one another.
pub const JSON_MAX_DEPTH: usize = 32;
/// How long a client may take to send a body.
const BODY_WITHIN: Duration = Duration::from_secs(5);

/// A body that says it is JSON, as it came.
#[derive(Debug, Clone)]
pub struct JsonBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) || is_packed(request.headers()) {
            return Err(ApiError::UnsupportedMediaType);
        }
        let body = raw(request, state).await?;
        not_too_deep(&body)?;
        Ok(Self(body))
    }
}

/// A body as it came, whatever it says it is: a signature is over these bytes.
#[derive(Debug, Clone)]
pub struct RawBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        raw(request, state).await.map(Self)
    }
}

/// Reads a body whose fields are all known. What is wrong is told without quoting it, and without
/// what it would have become here.
///
/// # Errors
/// [`ApiError::InvalidBody`].
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let about_fields = ["unknown field", "missing field", "duplicate field"];
        ApiError::InvalidBody(match error.classify() {
            Category::Data if about_fields.iter().any(|start| text.starts_with(start)) => {
                format!("{text}.")
            }
            Category::Data => "The body, or a field of it, is of another type.".to_owned(),
            _ => "The body is not JSON.".to_owned(),
        })
    })
}

async fn raw<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state)
        .await
        .map_err(|_| cut_short())
}

fn cut_short() -> ApiError {
    ApiError::InvalidBody("The body could not be read to its end.".to_owned())
}

/// The request once its whole body of at most `max_bytes` is here, so that whoever sends slowly
/// holds nothing but a connection.
///
/// # Errors
/// [`ApiError::BodyTooLarge`], [`ApiError::BodyTooSlow`], or [`ApiError::InvalidBody`] when the
/// client does not send it to its end.
pub(crate) async fn arrived(request: Request, max_bytes: usize) -> Result<Request, ApiError> {
    let (parts, body) = request.into_parts();
    // Nobody waits for what will be refused.
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(ApiError::BodyTooLarge(max_bytes));
    }
    let body = tokio::time::timeout(BODY_WITHIN, Limited::new(body, max_bytes).collect())
        .await
        .map_err(|_| ApiError::BodyTooSlow)?
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                ApiError::BodyTooLarge(max_bytes)
            } else {
                cut_short()
            }
        })?;
    Ok(Request::from_parts(parts, Body::from(body.to_bytes())))
}

/// Refuses a body that is nested deeper than is read, before anything reads it. `serde_json` has a
/// limit too, but a fixed and higher one.
pub(crate) fn not_too_deep(body: &[u8]) -> Result<(), ApiError> {
    let mut depth = 0_usize;
    let mut in_text = false;
    let mut escaped = false;
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > JSON_MAX_DEPTH {
            return Err(ApiError::InvalidBody(format!(
                "The body is nested deeper than {JSON_MAX_DEPTH} levels."
            )));
        }
    }
    Ok(())
}

/// Whether the body is compressed, or otherwise not what it will be.
fn is_packed(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
    else {
        return false;
    };
    let kind = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_nested_no_deeper_than_is_read() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(not_too_deep(nested(32).as_bytes()).is_ok());
        assert!(not_too_deep(nested(33).as_bytes()).is_err());
        let siblings = format!("[{}]", vec!["{\"a\":[]}"; 100].join(","));
        assert!(not_too_deep(siblings.as_bytes()).is_ok());
        let text = format!(r#"{{"a": "\"{}"}}"#, "[".repeat(100));
        assert!(not_too_deep(text.as_bytes()).is_ok());
        let after_text = format!(r#"{{"a\\": {}}}"#, "[".repeat(32));
        assert!(not_too_deep(after_text.as_bytes()).is_err());
    }
}
