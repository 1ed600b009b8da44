//! Request bodies: JSON, of bounded size.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
};

use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::error::ApiError;

/// The largest body that is read, in bytes.
pub const BODY_MAX_BYTES: usize = 65_536;

/// A body that says it is JSON, as it came.
#[derive(Debug, Clone)]
pub struct JsonBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::UnsupportedMediaType);
        }
        raw(request, state).await.map(Self)
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
        .map_err(|rejection| match rejection.into_response().status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::BodyTooLarge,
            _ => ApiError::InvalidBody("The body could not be read to its end.".to_owned()),
        })
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
