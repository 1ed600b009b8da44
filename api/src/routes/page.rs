//! The page at `/app`, for players and for those who work for the programme: files that stand in the program itself.
//! There are few of them and they are small, so a browser asks each time whether it has the right ones, and a deploy
//! is seen at once.

use std::sync::Arc;

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hex::ToHex;
use sha2::{Digest, Sha256};

use crate::{
    App,
    error::{ApiError, Thing},
};

/// What the page may do: load what is here and call what is here, and no script that stands in the document or is made
/// from text.
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A file of the page.
struct File {
    name: &'static str,
    kind: &'static str,
    body: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

macro_rules! files {
    ($($name:literal $kind:ident),* $(,)?) => {
        [$(File { name: $name, kind: $kind, body: include_str!(concat!("../../page/", $name)) }),*]
    };
}

const DOCUMENT: &str = "index.html";

static FILES: [File; 10] = files![
    "index.html" HTML,
    "style.css" CSS,
    "icon.svg" IMAGE,
    "main.js" SCRIPT,
    "dom.js" SCRIPT,
    "session.js" SCRIPT,
    "entrance.js" SCRIPT,
    "player.js" SCRIPT,
    "live.js" SCRIPT,
    "staff.js" SCRIPT,
];

/// The page's routes. They are no part of the API, so the OpenAPI document does not have them.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route(
            "/app",
            get(async |headers: HeaderMap| file(DOCUMENT, &headers)),
        )
        .route(
            "/app/{file}",
            get(async |Path(name): Path<String>, headers: HeaderMap| file(&name, &headers)),
        )
}

fn file(name: &str, asked: &HeaderMap) -> Result<Response, ApiError> {
    let file = FILES
        .iter()
        .find(|file| file.name == name)
        .ok_or(ApiError::NotFound(Thing::Route))?;
    let digest: String = Sha256::digest(file.body).encode_hex();
    let tag = format!("\"{}\"", &digest[..32]);
    let known = asked
        .get(header::IF_NONE_MATCH)
        .and_then(|tags| tags.to_str().ok())
        .is_some_and(|tags| {
            let mut tags = tags
                .split(',')
                .map(|tag| tag.trim().trim_start_matches("W/"));
            tags.any(|known| known == tag || known == "*")
        });
    let mut answer = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, file.kind)], file.body).into_response()
    };
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    Ok(answer)
}
