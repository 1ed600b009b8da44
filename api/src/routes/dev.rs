//! Public keys; and, in the dev profile, tokens for the asking.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    App,
    auth::dev::Grant,
    error::{ApiError, ProblemDocument, Thing},
    openapi::{AnyCall, told},
    parameters::Parameters,
};

/// Shows the public keys of tokens that were made here.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    operation_id = "readKeys",
    tag = "operations",
    security(()),
    responses(
        (status = 200, description = "A JSON Web Key Set (RFC 7517)", body = serde_json::Value,
            example = json!({ "keys": [{
                "kty": "OKP", "crv": "Ed25519", "use": "sig",
                "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
            }] }))
    )
)]
pub(super) async fn jwks(State(app): State<Arc<App>>) -> Json<serde_json::Value> {
    let mut keys = app
        .dev_issuer
        .as_ref()
        .map_or_else(Vec::new, |dev| dev.jwks().keys);
    if let Some(own) = &app.own_issuer {
        keys.extend(own.public_keys());
    }
    Json(serde_json::json!({ "keys": keys }))
}

/// What the token is to say.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TokenParameters {
    /// The subject.
    #[param(example = "me", min_length = 1)]
    sub: String,
    /// Scopes, separated by spaces.
    #[serde(default)]
    #[param(example = "rewards.read rewards.redeem")]
    scope: String,
    /// Roles, separated by spaces: player, staff, admin.
    #[serde(default)]
    role: String,
    /// The merchants the token is tied to, separated by spaces; none for no tie.
    merchants: Option<String>,
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "access_token": "eyJ0eXAiOiJKV1QiLCJhbGciOiJFZERTQSJ9.e30.c2lnbmF0dXJl",
    "token_type": "Bearer", "expires_in": 43200
}))]
#[expect(clippy::struct_field_names, reason = "OAuth's names")]
pub(super) struct Token {
    /// The token.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// For how long it is valid, in seconds.
    expires_in: u64,
}

/// Makes a token; in the dev profile only.
#[utoipa::path(
    get,
    path = "/dev/token",
    operation_id = "readDevToken",
    tag = "operations",
    security(()),
    params(TokenParameters),
    responses(
        (status = 200, description = "The token", body = Token),
        (status = 400, description = "A parameter cannot be used", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidParameter("A parameter is not known.".to_owned())))),
        AnyCall
    )
)]
pub(super) async fn get_token(
    State(app): State<Arc<App>>,
    Parameters(asked): Parameters<TokenParameters>,
) -> Result<Json<Token>, ApiError> {
    token(&app, asked)
}

/// Makes a token; in the dev profile only.
#[utoipa::path(
    post,
    path = "/dev/token",
    operation_id = "makeDevToken",
    tag = "operations",
    security(()),
    params(TokenParameters),
    responses(
        (status = 200, description = "The token", body = Token),
        (status = 400, description = "A parameter cannot be used", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidParameter("A parameter is not known.".to_owned())))),
        AnyCall
    )
)]
pub(super) async fn post_token(
    State(app): State<Arc<App>>,
    Parameters(asked): Parameters<TokenParameters>,
) -> Result<Json<Token>, ApiError> {
    token(&app, asked)
}

fn token(app: &App, asked: TokenParameters) -> Result<Json<Token>, ApiError> {
    let issuer = app
        .dev_issuer
        .as_ref()
        .ok_or(ApiError::NotFound(Thing::Route))?;
    if asked.sub.trim().is_empty() {
        return Err(ApiError::InvalidParameter("sub is empty.".to_owned()));
    }
    let words = |text: &str| {
        text.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let grant = Grant {
        sub: asked.sub,
        scope: words(&asked.scope).join(" "),
        roles: words(&asked.role),
        merchants: asked.merchants.as_deref().map(words),
    };
    let access_token = issuer
        .token(&grant)
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(Json(Token {
        access_token,
        token_type: "Bearer",
        expires_in: issuer.token_ttl_seconds(),
    }))
}
