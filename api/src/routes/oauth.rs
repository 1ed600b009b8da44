//! Tokens for clients (RFC 6749, section 4.4), and where to get them (RFC 8414).

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::json;
use store::clients::{self, Client};
use utoipa::ToSchema;

use crate::{
    App,
    auth::{Scope, own},
    body::RawBody,
    error::{ApiError, ProblemDocument, Thing},
    measures,
    openapi::{AnyBody, AnyCall, told},
    parameters::Origin,
    throttle,
};

/// The only grant there is.
const CLIENT_CREDENTIALS: &str = "client_credentials";
/// The longest id or secret of a client that is looked at, in bytes.
const CREDENTIAL_MAX_BYTES: usize = 256;

/// Shows how to get tokens here (RFC 8414).
#[utoipa::path(
    get,
    path = "/.well-known/oauth-authorization-server",
    operation_id = "readTokenServer",
    tag = "tokens",
    security(()),
    responses(
        (status = 200, description = "The metadata of the authorization server", body = serde_json::Value,
            example = json!({
                "issuer": "https://meed.example", "token_endpoint": "https://meed.example/oauth/token",
                "jwks_uri": "https://meed.example/.well-known/jwks.json",
                "grant_types_supported": ["client_credentials"], "response_types_supported": [],
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                "scopes_supported": ["rewards.read", "rewards.write", "rewards.redeem", "callbacks.write"]
            })),
        (status = 404, description = "No tokens are made here", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Route)))),
    )
)]
pub(super) async fn metadata(
    State(app): State<Arc<App>>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let issuer = app.own()?.issuer();
    Ok(Json(json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/oauth/token"),
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "grant_types_supported": [CLIENT_CREDENTIALS],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "scopes_supported": Scope::ALL.map(Scope::as_str),
    })))
}

/// What a client sends, as a form. Parameters that are not known are ignored, as the RFC asks.
#[derive(Debug, Default, ToSchema)]
#[schema(example = json!({ "grant_type": "client_credentials", "scope": "rewards.read" }))]
#[expect(dead_code, reason = "it describes the form, which is read by hand")]
pub(super) struct TokenForm {
    /// Always `client_credentials`.
    #[schema(pattern = "^client_credentials$")]
    grant_type: String,
    /// Scopes, separated by spaces; without it all that the client may have.
    #[schema(
        nullable = false,
        pattern = r"^((rewards\.(read|write|redeem)|callbacks\.write)( (rewards\.(read|write|redeem)|callbacks\.write))*)?$"
    )]
    scope: Option<String>,
    /// The client, when it is not in the header `Authorization: Basic`.
    #[schema(nullable = false)]
    client_id: Option<String>,
    /// Its secret, likewise.
    #[schema(nullable = false)]
    client_secret: Option<String>,
}

/// A token for a client.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "access_token": "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSJ9.e30.c2lnbmF0dXJl",
    "token_type": "Bearer", "expires_in": 900, "scope": "rewards.read rewards.redeem"
}))]
pub(super) struct ClientToken {
    /// The token.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// For how long it is valid, in seconds.
    expires_in: u64,
    /// What it allows.
    scope: String,
}

/// An error as RFC 6749, section 5.2, has it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "error": "invalid_client", "error_description": "The client is not known, or its secret is not right." }))]
pub(super) struct TokenError {
    /// A code of the RFC.
    error: &'static str,
    /// What is wrong.
    error_description: &'static str,
}

/// Why there is no token.
pub(super) enum NoToken {
    /// In the words of the RFC.
    Refused(TokenError),
    /// Anything that the RFC has no word for.
    Problem(ApiError),
}

impl From<ApiError> for NoToken {
    fn from(error: ApiError) -> Self {
        Self::Problem(error)
    }
}

impl From<store::Error> for NoToken {
    fn from(error: store::Error) -> Self {
        Self::Problem(error.into())
    }
}

impl NoToken {
    fn because(error: &'static str, error_description: &'static str) -> Self {
        Self::Refused(TokenError {
            error,
            error_description,
        })
    }

    fn invalid_client() -> Self {
        Self::because(
            "invalid_client",
            "The client is not known, or its secret is not right.",
        )
    }
}

impl IntoResponse for NoToken {
    fn into_response(self) -> Response {
        let refused = match self {
            Self::Problem(error) => return error.into_response(),
            Self::Refused(refused) => refused,
        };
        tracing::debug!(error = refused.error, "no token");
        let status = if refused.error == "invalid_client" {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::BAD_REQUEST
        };
        let mut response = (status, Json(refused)).into_response();
        let headers = response.headers_mut();
        not_to_be_kept(headers);
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"meed\", charset=\"UTF-8\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

fn not_to_be_kept(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
}

/// Makes a token for a client that proves itself with its secret (RFC 6749, section 4.4).
///
/// The secret is in the header `Authorization: Basic`, or in the form. The token says what it
/// allows (`scope`) and for which merchants (`merchants`). It needs no `Idempotency-Key`: nothing
/// is changed.
#[utoipa::path(
    post,
    path = "/oauth/token",
    operation_id = "makeClientToken",
    tag = "tokens",
    security(("clientSecret" = []), ()),
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The token", body = ClientToken),
        (status = 400, description = "invalid_request, invalid_scope or unsupported_grant_type", body = TokenError),
        (status = 401, description = "invalid_client", body = TokenError),
        (status = 404, description = "No tokens are made here", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Route)))),
        AnyBody,
        AnyCall,
    )
)]
pub(super) async fn token(
    State(app): State<Arc<App>>,
    origin: Origin,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> Result<Response, NoToken> {
    let own = app.own()?;
    let form = Form::read(&headers, &body)?;
    let credentials = credentials(&headers, &form)?;
    let client = prove(&app, &origin, &credentials).await?;
    match form.grant_type.as_deref() {
        None => {
            return Err(NoToken::because(
                "invalid_request",
                "grant_type is missing.",
            ));
        }
        Some(CLIENT_CREDENTIALS) => {}
        Some(_) => {
            return Err(NoToken::because(
                "unsupported_grant_type",
                "The only grant is client_credentials.",
            ));
        }
    }
    let scope = scope(form.scope.as_deref(), &client)?;
    let grant = own::Grant {
        subject: &client.client_id,
        scope: &scope,
        role: None,
        merchants: client.merchants.as_deref(),
        session: None,
    };
    let access_token = own
        .token(&grant)
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    measures::client_got_token();
    let mut response = Json(ClientToken {
        access_token,
        token_type: "Bearer",
        expires_in: own.settings.access_token_ttl_seconds,
        scope,
    })
    .into_response();
    not_to_be_kept(response.headers_mut());
    Ok(response)
}

/// The parameters that count, each at most once.
#[derive(Debug, Default)]
struct Form {
    grant_type: Option<String>,
    scope: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

impl Form {
    fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, NoToken> {
        let kind = headers
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .and_then(|kind| kind.split(';').next())
            .unwrap_or_default();
        if !kind
            .trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
        {
            return Err(NoToken::because(
                "invalid_request",
                "Send a form, with Content-Type: application/x-www-form-urlencoded.",
            ));
        }
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(body) {
            let place = match name.as_ref() {
                "grant_type" => &mut form.grant_type,
                "scope" => &mut form.scope,
                "client_id" => &mut form.client_id,
                "client_secret" => &mut form.client_secret,
                _ => continue,
            };
            if place.replace(value.into_owned()).is_some() {
                return Err(NoToken::because(
                    "invalid_request",
                    "A parameter comes more than once.",
                ));
            }
        }
        Ok(form)
    }
}

struct Credentials {
    id: String,
    secret: String,
}

/// The client's id and secret, from the one place where they are.
fn credentials(headers: &HeaderMap, form: &Form) -> Result<Credentials, NoToken> {
    let mut in_headers = headers.get_all(header::AUTHORIZATION).iter();
    let in_header = in_headers.next();
    if in_headers.next().is_some() {
        return Err(NoToken::because(
            "invalid_request",
            "The header Authorization comes more than once.",
        ));
    }
    let found = match (in_header, &form.client_secret) {
        (Some(_), Some(_)) => {
            return Err(NoToken::because(
                "invalid_request",
                "The secret comes in the header and in the form.",
            ));
        }
        (Some(value), None) => basic(value),
        (None, Some(secret)) => form.client_id.clone().map(|id| Credentials {
            id,
            secret: secret.clone(),
        }),
        (None, None) => None,
    };
    let found = found.ok_or_else(NoToken::invalid_client)?;
    let other = form.client_id.as_ref().is_some_and(|id| *id != found.id);
    let too_long =
        found.id.len() > CREDENTIAL_MAX_BYTES || found.secret.len() > CREDENTIAL_MAX_BYTES;
    if other || too_long {
        return Err(NoToken::invalid_client());
    }
    Ok(found)
}

/// `Authorization: Basic`, whose two parts are encoded as in a form (RFC 6749, section 2.3.1).
fn basic(value: &HeaderValue) -> Option<Credentials> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some(Credentials {
        id: decoded(id)?,
        secret: decoded(secret)?,
    })
}

fn decoded(text: &str) -> Option<String> {
    // Read as the value of a parameter: the characters between parameters would end it.
    let escaped = text.replace('&', "%26");
    let pair = format!("v={escaped}");
    let (_, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
    Some(value.into_owned())
}

/// The client, when the secret is its own. One that is not known is answered the same, after the
/// same time.
async fn prove(app: &App, origin: &Origin, given: &Credentials) -> Result<Client, NoToken> {
    // The database cannot hold this character; no id has it.
    let found = if given.id.contains('\0') {
        None
    } else {
        clients::find(&app.pool, &given.id).await?
    };
    let client = found.filter(|client| client.disabled_at.is_none());
    let hash = client.as_ref().map(|client| client.secret_hash.as_str());
    if let Some(hash) = hash
        && app.passwords.was_right(&given.id, &given.secret, hash)
    {
        return client.ok_or_else(NoToken::invalid_client);
    }
    let address = origin.address.as_deref();
    let throttle = &app.settings.auth.throttle;
    let attempt = throttle::client(&app.pool, throttle, &given.id, address).await?;
    let right = app.passwords.verify(given.secret.clone(), hash).await?;
    let (Some(client), true) = (client, right) else {
        tracing::info!(address, "a client did not prove itself");
        return Err(NoToken::invalid_client());
    };
    attempt.was_right(&app.pool).await?;
    app.passwords
        .remember(&given.id, &given.secret, &client.secret_hash);
    Ok(client)
}

/// The scopes of the token: those that are asked for, of those that the client may have.
fn scope(asked: Option<&str>, client: &Client) -> Result<String, NoToken> {
    let Some(asked) = asked.filter(|asked| !asked.trim().is_empty()) else {
        return Ok(client.scopes.join(" "));
    };
    let mut scopes: Vec<&str> = Vec::new();
    for name in asked.split(' ').filter(|name| !name.is_empty()) {
        if !client.scopes.iter().any(|allowed| allowed == name) {
            return Err(NoToken::because(
                "invalid_scope",
                "The client may not have one of these scopes.",
            ));
        }
        if !scopes.contains(&name) {
            scopes.push(name);
        }
    }
    Ok(scopes.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_decoded_twice() {
        let of = |text: &str| {
            let value = format!("basic {}", BASE64_STANDARD.encode(text));
            basic(&HeaderValue::try_from(value).expect("a header"))
                .map(|found| (found.id, found.secret))
        };
        let pair = |id: &str, secret: &str| Some((id.to_owned(), secret.to_owned()));
        assert_eq!(of("a:b"), pair("a", "b"));
        assert_eq!(of("a%3A1:b+c%26&d=e:f"), pair("a:1", "b c&&d=e:f"));
        assert_eq!(of("a"), None);
        assert!(basic(&HeaderValue::from_static("Bearer YTpi")).is_none());
        assert!(basic(&HeaderValue::from_static("Basic ???")).is_none());
    }
}
