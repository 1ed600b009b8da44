//! The product's own users: registering, logging in, and what follows from a login.
//!
//! Logging in, refreshing and logging out need no `Idempotency-Key`: they change nothing but the
//! session, their answers hold secrets that are not to be kept for a repetition, and each may
//! simply be sent again. A refresh token that comes twice is answered twice for a moment.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use domain::{Username, user};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use store::{
    audit,
    sessions::{self, NewSession, Rotated, Session, TokenHash},
    transaction,
    users::{self, NewUser},
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    App,
    auth::{AsAdmin, Holder, Role, own},
    body::{self, JsonBody},
    error::{ApiError, ProblemDocument, Thing},
    idempotency::{self, Claim, Reply},
    measures,
    openapi::{AnyBody, AnyCall, told},
    origin,
    parameters::{IdempotencyKey, Origin},
    throttle,
};

/// The cookie with the refresh token; its prefix makes browsers insist on `Secure`.
const COOKIE: &str = "__Secure-meed-refresh";
/// The only addresses that the cookie is sent to.
const COOKIE_PATH: &str = "/api/v1/auth";
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Who asks, in idempotency keys, when nobody has to be known.
const ANONYMOUS: &str = "anonymous";

/// Somebody who registers.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "username": "anna@example.org", "password": "correct horse battery" }))]
pub(super) struct Registration {
    /// The name to log in with: letters, digits and `. _ @ + -`; an e-mail address can be one.
    /// Upper and lower case make no difference.
    #[schema(min_length = 3, max_length = 64, pattern = "^[A-Za-z0-9._@+-]{3,64}$")]
    username: String,
    /// The password, of 12 to 128 characters of any kind; not the username, not one of the
    /// commonest.
    #[schema(min_length = 12, max_length = 128, format = Password)]
    password: String,
}

/// A user who has registered.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "userId": "5f0c6c1e-3a52-4b6d-9a0f-0d8f3c1f7a11", "role": "player" }))]
pub(super) struct Registered {
    /// The id; a player's customer id, and the `sub` of their tokens.
    user_id: Uuid,
    /// `player` or `staff`.
    role: &'static str,
}

/// Registers a player.
///
/// The account with the customer id `userId` is opened a moment later. A name that somebody has is
/// told to be taken.
#[utoipa::path(
    post,
    path = "/api/v1/auth/register",
    operation_id = "register",
    tag = "users",
    security(()),
    params(("Idempotency-Key" = String, Header, description = "The client's own key for this request", min_length = 1, max_length = 255, pattern = "^[!-~]+$", example = "7f1c1b52-4")),
    request_body = Registration,
    responses(
        (status = 201, description = "Registered", body = Registered),
        (status = 400, description = "The body breaks its contract, or no Idempotency-Key", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidBody("The body is not JSON.".to_owned())))),
        (status = 404, description = "There are no own users here", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Route)))),
        (status = 409, description = "USERNAME_TAKEN or REQUEST_IN_PROGRESS", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::UsernameTaken))),
        AnyBody,
        (status = 415, description = "The body is not JSON", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::UnsupportedMediaType))),
        (status = 422, description = "CREDENTIALS_NOT_ALLOWED, or the Idempotency-Key was used for another request", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyReused))),
        AnyCall,
    )
)]
pub(super) async fn register(
    State(app): State<Arc<App>>,
    origin: Origin,
    key: IdempotencyKey,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let own = app.own()?;
    let registration = Checked::read(&body)?;
    // Nobody has to be known, and keys of different people have nothing to do with each other.
    let who = own.keyed_hash("registrant", registration.username.key().as_bytes());
    let hash = own.keyed_hash("register", &body);
    let keyed = idempotency::Request::with_secrets(
        format!("{ANONYMOUS} {}", hex::encode(&who[..16])),
        "POST /api/v1/auth/register",
        key,
        hash,
    );
    // A repetition is no attempt. What else is known of the key is told when it is taken.
    if let Ok(Some(reply)) = idempotency::answered(&app, &keyed).await {
        return Ok(reply);
    }
    throttle::registration(
        &app.pool,
        &app.settings.auth.throttle,
        origin.address.as_deref(),
    )
    .await?;
    let user_id = Uuid::new_v4();
    let actor = format!("{} {user_id}", own.issuer());
    add(
        &app,
        &keyed,
        registration,
        Role::Player,
        user_id,
        &actor,
        &origin,
    )
    .await
}

/// Registers somebody who works for the programme.
#[utoipa::path(
    post,
    path = "/api/v1/auth/register-staff",
    operation_id = "registerStaff",
    tag = "users",
    security(("token" = ["admin"])),
    params(("Idempotency-Key" = String, Header, description = "The client's own key for this request", min_length = 1, max_length = 255, pattern = "^[!-~]+$", example = "7f1c1b52-4")),
    request_body = Registration,
    responses(
        (status = 201, description = "Registered", body = Registered),
        (status = 400, description = "The body breaks its contract, or no Idempotency-Key", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidBody("The body is not JSON.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "The token is not an admin's", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingRole(Role::Admin)))),
        (status = 404, description = "There are no own users here", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Route)))),
        (status = 409, description = "USERNAME_TAKEN or REQUEST_IN_PROGRESS", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::UsernameTaken))),
        AnyBody,
        (status = 415, description = "The body is not JSON", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::UnsupportedMediaType))),
        (status = 422, description = "CREDENTIALS_NOT_ALLOWED, or the Idempotency-Key was used for another request", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyReused))),
        AnyCall,
    )
)]
pub(super) async fn register_staff(
    State(app): State<Arc<App>>,
    admin: Holder<AsAdmin>,
    origin: Origin,
    key: IdempotencyKey,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let own = app.own()?;
    let registration = Checked::read(&body)?;
    let actor = admin.identity.client();
    let hash = own.keyed_hash("register-staff", &body);
    let route = "POST /api/v1/auth/register-staff";
    let keyed = idempotency::Request::with_secrets(actor.clone(), route, key, hash);
    let user_id = Uuid::new_v4();
    add(
        &app,
        &keyed,
        registration,
        Role::Staff,
        user_id,
        &actor,
        &origin,
    )
    .await
}

/// A name and a password that may be taken.
struct Checked {
    username: Username,
    password: String,
}

impl Checked {
    fn read(body: &[u8]) -> Result<Self, ApiError> {
        let given: Registration = body::read(body)?;
        let not_allowed = |why: user::NotAllowed| ApiError::CredentialsNotAllowed(why.0);
        let username = Username::new(&given.username).map_err(not_allowed)?;
        user::check_password(&given.password, &username).map_err(not_allowed)?;
        Ok(Self {
            username,
            password: user::normalised(&given.password),
        })
    }
}

async fn add(
    app: &App,
    keyed: &idempotency::Request,
    registration: Checked,
    role: Role,
    user_id: Uuid,
    actor: &str,
    origin: &Origin,
) -> Result<Reply, ApiError> {
    // Before the key is taken: nobody holds a transaction while a hash is computed.
    let password_hash = app.passwords.hash(registration.password).await?;
    let (mut tx, _turn) = match idempotency::claim(app, keyed).await? {
        Claim::Do(tx, turn) => (tx, turn),
        Claim::Answered(reply) => return Ok(reply),
    };
    let new = NewUser {
        user_id,
        username: &registration.username,
        password_hash: &password_hash,
        role: role.as_str(),
    };
    if !users::register(&mut tx, &new).await? {
        let reply = Reply::problem(&ApiError::UsernameTaken);
        idempotency::finish_in(tx, keyed, &reply).await?;
        return Ok(reply);
    }
    let subject = user_id.to_string();
    let change = audit::Change {
        actor,
        action: "user.register",
        subject: &subject,
        request_id: &origin.request_id,
        address: origin.address.as_deref(),
        detail: json!({ "role": role.as_str() }),
    };
    audit::write(&mut tx, &change).await?;
    let registered = Registered {
        user_id,
        role: role.as_str(),
    };
    let reply = Reply::new(StatusCode::CREATED, &registered, None);
    idempotency::finish_in(tx, keyed, &reply).await?;
    Ok(reply)
}

/// How the refresh token travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum TokenDelivery {
    /// In the body, for apps that keep it safe themselves.
    #[default]
    Body,
    /// In a cookie that scripts cannot read, for pages.
    Cookie,
}

/// Somebody who logs in.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "username": "anna@example.org", "password": "correct horse battery", "tokenDelivery": "body" }))]
pub(super) struct Login {
    /// The name.
    username: String,
    /// The password.
    #[schema(format = Password)]
    password: String,
    /// How the refresh token travels; in the body, when this is left out.
    #[serde(default)]
    token_delivery: TokenDelivery,
}

/// What a login gives.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "accessToken": "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSJ9.e30.c2lnbmF0dXJl",
    "tokenType": "Bearer", "expiresIn": 900,
    "refreshToken": "mFQ0cJ1yqg3bq2wV5vXc8m9h1o2p3q4r5s6t7u8v9w0",
    "userId": "5f0c6c1e-3a52-4b6d-9a0f-0d8f3c1f7a11", "roles": ["player"]
}))]
pub(super) struct Tokens {
    /// The token for calls.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// For how long it is valid, in seconds.
    expires_in: u64,
    /// Gives the next tokens, once; not there when it is in the cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    /// Who has logged in.
    user_id: Uuid,
    /// What they are: player, staff or admin.
    roles: Vec<&'static str>,
}

/// Logs in.
///
/// Whether the name or the password was wrong is not told. After a few failures the next attempt
/// is put off; from an address where the user has logged in before, failures elsewhere do not
/// count.
#[utoipa::path(
    post,
    path = "/api/v1/auth/login",
    operation_id = "logIn",
    tag = "users",
    security(()),
    request_body = Login,
    responses(
        (status = 200, description = "Logged in; with `cookie`, the refresh token is in `Set-Cookie`", body = Tokens),
        (status = 400, description = "The body breaks its contract", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidBody("The body is not JSON.".to_owned())))),
        (status = 401, description = "Name or password is wrong", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidCredentials))),
        (status = 403, description = "The user has been deactivated, or the page is of elsewhere", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::UserDeactivated))),
        (status = 404, description = "There are no own users here", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Route)))),
        AnyBody,
        (status = 415, description = "The body is not JSON", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::UnsupportedMediaType))),
        AnyCall,
    )
)]
pub(super) async fn login(
    State(app): State<Arc<App>>,
    origin: Origin,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let own = app.own()?;
    let given: Login = body::read(&body)?;
    if given.token_delivery == TokenDelivery::Cookie {
        from_here(&app, &headers)?;
    }
    let address = origin.address.as_deref();
    let address_hash = throttle::address_hash(address);
    // Nobody is looked for and checked the same way as somebody, to take as long.
    let user = match Username::new(&given.username) {
        Ok(username) => users::by_name(&app.pool, &username).await?,
        Err(_) => None,
    };
    let user_id = user.as_ref().map_or(Uuid::nil(), |user| user.user_id);
    let at_home = users::has_come_from(&app.pool, user_id, &address_hash).await?;
    let account = given.username.to_ascii_lowercase();
    let throttle = &app.settings.auth.throttle;
    let attempt = throttle::login(&app.pool, throttle, &account, address, at_home).await?;
    let password = user::normalised(&given.password);
    let hash = user.as_ref().map(|user| user.password_hash.as_str());
    let right = app.passwords.verify(password.clone(), hash).await?;
    let (Some(user), true) = (user, right) else {
        measures::login_refused();
        return Err(ApiError::InvalidCredentials);
    };
    attempt.was_right(&app.pool).await?;
    if user.deactivated_at.is_some() {
        return Err(ApiError::UserDeactivated);
    }
    let rehashed = if app.passwords.is_outdated(&user.password_hash) {
        Some(app.passwords.hash(password).await?)
    } else {
        None
    };
    let refresh_token = boot::password::secret();
    let session = Session {
        session_id: Uuid::new_v4(),
        user_id: user.user_id,
        role: user.role,
    };
    let new = NewSession {
        session_id: session.session_id,
        user_id: session.user_id,
        token: &token_hash(&refresh_token),
        address: &address_hash,
        session_ttl: Duration::from_secs(own.settings.session_ttl_seconds),
        token_ttl: Duration::from_secs(own.settings.refresh_token_ttl_seconds),
    };
    let mut tx = transaction::begin(&app.pool).await?;
    if !sessions::begin(&mut tx, &new).await? {
        return Err(ApiError::UserDeactivated);
    }
    if let Some(hash) = rehashed {
        users::rehash(&mut tx, user.user_id, &user.password_hash, &hash).await?;
    }
    write_audit(&mut tx, own, "auth.login", &session, &origin).await?;
    transaction::commit(tx, "login").await?;
    measures::logged_in();
    tokens(own, &session, &refresh_token, given.token_delivery)
}

/// The refresh token, when it is not in the cookie.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "refreshToken": "mFQ0cJ1yqg3bq2wV5vXc8m9h1o2p3q4r5s6t7u8v9w0" }))]
pub(super) struct RefreshToken {
    /// The token; leave it out when it is in the cookie.
    #[serde(default)]
    refresh_token: Option<String>,
}

/// Gives the next access token and the next refresh token for a refresh token.
///
/// Each refresh token can be used once. When one comes that was used before, somebody has a copy:
/// the whole session ends. For ten seconds after its use the same one is answered with the same
/// successor, for two tabs at once and for answers that were lost.
#[utoipa::path(
    post,
    path = "/api/v1/auth/refresh",
    operation_id = "refreshTokens",
    tag = "users",
    security(()),
    request_body = RefreshToken,
    responses(
        (status = 200, description = "The next tokens, the refresh token where the last one was", body = Tokens),
        (status = 400, description = "The body breaks its contract", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidBody("The body is not JSON.".to_owned())))),
        (status = 401, description = "The refresh token does not count; log in again", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidRefreshToken))),
        (status = 403, description = "The page is of elsewhere", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::OriginNotAllowed))),
        (status = 404, description = "There are no own users here", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Route)))),
        AnyBody,
        (status = 415, description = "The body is not JSON", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::UnsupportedMediaType))),
        AnyCall,
    )
)]
pub(super) async fn refresh(
    State(app): State<Arc<App>>,
    origin: Origin,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let own = app.own()?;
    let (token, delivery) = presented(&app, &headers, &body)?;
    let token = token.ok_or(ApiError::InvalidRefreshToken)?;
    // Its successor follows from the token and the signing key, so that the same token is answered
    // with the same successor, and only hashes are stored.
    let successor = BASE64_URL_SAFE_NO_PAD.encode(own.keyed_hash("refresh", token.as_bytes()));
    let mut tx = transaction::begin(&app.pool).await?;
    let rotated = sessions::rotate(
        &mut tx,
        &token_hash(&token),
        &token_hash(&successor),
        Duration::from_secs(own.settings.refresh_grace_seconds),
        Duration::from_secs(own.settings.refresh_token_ttl_seconds),
    )
    .await?;
    match rotated {
        Rotated::New(session) => {
            write_audit(&mut tx, own, "auth.refresh", &session, &origin).await?;
            transaction::commit(tx, "refresh").await?;
            tokens(own, &session, &successor, delivery)
        }
        Rotated::Again(session) => tokens(own, &session, &successor, delivery),
        Rotated::Reused(session) => {
            write_audit(&mut tx, own, "auth.refresh-reused", &session, &origin).await?;
            transaction::commit(tx, "refresh").await?;
            app.sessions_ended(&[session.session_id]);
            tracing::warn!(user_id = %session.user_id, "a refresh token came twice; its session has ended");
            measures::refresh_token_reused();
            Err(ApiError::InvalidRefreshToken)
        }
        Rotated::Refused => Err(ApiError::InvalidRefreshToken),
    }
}

/// Ends the session of a refresh token.
///
/// Its tokens do not count any more: on this server at once, on others within five seconds. A
/// token that does not count is no fault: there is nothing to end.
#[utoipa::path(
    post,
    path = "/api/v1/auth/logout",
    operation_id = "logOut",
    tag = "users",
    security(()),
    request_body = RefreshToken,
    responses(
        (status = 204, description = "Logged out; the cookie is taken back"),
        (status = 400, description = "The body breaks its contract", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidBody("The body is not JSON.".to_owned())))),
        (status = 403, description = "The page is of elsewhere", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::OriginNotAllowed))),
        (status = 404, description = "There are no own users here", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Route)))),
        AnyBody,
        (status = 415, description = "The body is not JSON", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::UnsupportedMediaType))),
        AnyCall,
    )
)]
pub(super) async fn logout(
    State(app): State<Arc<App>>,
    origin: Origin,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let own = app.own()?;
    let (token, delivery) = presented(&app, &headers, &body)?;
    if let Some(token) = token {
        let mut tx = transaction::begin(&app.pool).await?;
        if let Some(session) = sessions::end(&mut tx, &token_hash(&token)).await? {
            write_audit(&mut tx, own, "auth.logout", &session, &origin).await?;
            transaction::commit(tx, "logout").await?;
            app.sessions_ended(&[session.session_id]);
        }
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    if delivery == TokenDelivery::Cookie {
        set_cookie(&mut response, "", 0);
    }
    Ok(response)
}

async fn write_audit(
    tx: &mut store::Transaction,
    own: &own::OwnIssuer,
    action: &str,
    session: &Session,
    origin: &Origin,
) -> Result<(), ApiError> {
    let change = audit::Change {
        actor: &format!("{} {}", own.issuer(), session.user_id),
        action,
        subject: &session.user_id.to_string(),
        request_id: &origin.request_id,
        address: origin.address.as_deref(),
        detail: json!({ "sessionId": session.session_id }),
    };
    Ok(audit::write(tx, &change).await?)
}

/// What the token of somebody with this role allows.
fn role_and_scope(name: &str) -> Option<(Role, &'static str)> {
    match name {
        "player" => Some((Role::Player, "rewards.read rewards.redeem")),
        "staff" => Some((Role::Staff, "rewards.read")),
        "admin" => Some((Role::Admin, "rewards.read rewards.redeem")),
        _ => None,
    }
}

fn tokens(
    own: &own::OwnIssuer,
    session: &Session,
    refresh_token: &str,
    delivery: TokenDelivery,
) -> Result<Response, ApiError> {
    let internal = |error: String| ApiError::Internal(error);
    let (role, scope) = role_and_scope(&session.role)
        .ok_or_else(|| internal(format!("{} is no role", session.role)))?;
    let grant = own::Grant {
        subject: &session.user_id.to_string(),
        scope,
        role: Some(role),
        merchants: None,
        session: Some(session.session_id),
    };
    let access_token = own
        .token(&grant)
        .map_err(|error| internal(error.to_string()))?;
    let in_body = delivery == TokenDelivery::Body;
    let mut response = Json(Tokens {
        access_token,
        token_type: "Bearer",
        expires_in: own.settings.access_token_ttl_seconds,
        refresh_token: in_body.then(|| refresh_token.to_owned()),
        user_id: session.user_id,
        roles: vec![role.as_str()],
    })
    .into_response();
    if !in_body {
        let seconds = own.settings.refresh_token_ttl_seconds;
        set_cookie(&mut response, refresh_token, seconds);
    }
    Ok(response)
}

fn token_hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

fn set_cookie(response: &mut Response, value: &str, max_age_seconds: u64) {
    let cookie = format!(
        "{COOKIE}={value}; Path={COOKIE_PATH}; Max-Age={max_age_seconds}; HttpOnly; Secure; \
         SameSite=Strict"
    );
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

/// The refresh token of a request, from the one place where it is, and where that was.
fn presented(
    app: &App,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(Option<String>, TokenDelivery), ApiError> {
    let given: RefreshToken = body::read(body)?;
    if given.refresh_token.is_some() {
        return Ok((given.refresh_token, TokenDelivery::Body));
    }
    let token = cookie(headers);
    if token.is_some() {
        from_here(app, headers)?;
    }
    Ok((token, TokenDelivery::Cookie))
}

/// The cookie's value; none when there are several, of which one was put there by somebody else.
fn cookie(headers: &HeaderMap) -> Option<String> {
    let mut values = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value.to_owned());
    values.next().filter(|_| values.next().is_none())
}

/// Refuses requests that a page of elsewhere made a browser send. `SameSite=Strict` keeps the cookie
/// from them already, and they cannot send JSON without asking; this is for pages of the same site
/// and for browsers that know neither.
fn from_here(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    if let Some(origin) = origin::of(headers) {
        let allowed = &app.own()?.settings.cookie_origins;
        if origin::is_own(&app.settings, origin) || allowed.iter().any(|one| one == origin) {
            return Ok(());
        }
        return Err(ApiError::OriginNotAllowed);
    }
    let site = headers.get(SEC_FETCH_SITE);
    if site.is_some_and(|site| site == "cross-site" || site == "same-site") {
        return Err(ApiError::OriginNotAllowed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> String {
        match body::read::<Registration>(body.as_bytes()) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("not refused: {body}"),
        }
    }

    #[test]
    fn what_is_wrong_with_a_body_is_told_without_repeating_it() {
        assert!(
            refused(r#"{"username": "a", "password": "b", "role": "admin"}"#).contains("`role`")
        );
        assert!(refused(r#"{"username": "a"}"#).contains("`password`"));
        for body in [
            r#"{"username": "a", "password": 4711}"#,
            r#"["4711"]"#,
            r#"{"username": "a", "password": "4711"#,
            "4711",
        ] {
            let told = refused(body);
            assert!(
                !told.contains("4711") && !told.contains("Registration"),
                "{told}"
            );
        }
    }

    #[test]
    fn a_cookie_is_read_when_it_is_the_only_one() {
        let of = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, line.parse().expect("a header"));
            }
            cookie(&headers)
        };
        let one = format!("a=b; {COOKIE}=token; c=d");
        assert_eq!(of(&[&one]).as_deref(), Some("token"));
        assert_eq!(of(&["a=b", &format!("x{COOKIE}=token")]), None);
        assert_eq!(of(&[&one, &format!("{COOKIE}=other")]), None);
    }
}
