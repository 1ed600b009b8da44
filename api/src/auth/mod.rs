//! Who asks, and what for: bearer tokens, checked here without asking anybody.

pub mod dev;
mod keys;
pub mod own;
mod remembered;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::bail;
use axum::{
    extract::{FromRequestParts, MatchedPath, OptionalFromRequestParts},
    http::{header, request::Parts},
};
use boot::{
    Settings,
    settings::{KeySource, TokenAlgorithm, WithoutRoles},
};
use domain::{CustomerId, MerchantId};
use jsonwebtoken::{Algorithm, Validation};
use serde::{Deserialize, Deserializer};

use uuid::Uuid;

use crate::{
    App,
    auth::{dev::DevIssuer, keys::KeySet, own::OwnIssuer, remembered::Remembered},
    error::ApiError,
    limits::Class,
};

/// The longest token that is looked at, in bytes.
const TOKEN_MAX_BYTES: usize = 8_192;
/// The longest subject that can be kept, in bytes: OpenID Connect Core 1.0, section 2, allows 255
/// ASCII characters, and an id of a customer may have 128 of any kind.
const SUBJECT_MAX_BYTES: usize = 512;

/// What a token may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Reading balances.
    RewardsRead,
    /// Sending events.
    RewardsWrite,
    /// Redeeming, and looking at redemptions.
    RewardsRedeem,
    /// Answering callbacks.
    CallbacksWrite,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::RewardsRead,
        Self::RewardsWrite,
        Self::RewardsRedeem,
        Self::CallbacksWrite,
    ];

    /// The scope's name in tokens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RewardsRead => "rewards.read",
            Self::RewardsWrite => "rewards.write",
            Self::RewardsRedeem => "rewards.redeem",
            Self::CallbacksWrite => "callbacks.write",
        }
    }
}

/// What kind of person a token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A customer, who reaches only their own data; so does whoever has a role that is not known.
    Player,
    /// Somebody who works for the programme.
    Staff,
    /// Somebody who may do everything.
    Admin,
}

impl Role {
    /// The role's name in tokens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Player => "player",
            Self::Staff => "staff",
            Self::Admin => "admin",
        }
    }

    fn parse(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "staff" => Self::Staff,
            "admin" => Self::Admin,
            _ => Self::Player,
        }
    }
}

/// Whom a token stands for, once it has been checked.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The subject.
    pub subject: String,
    /// The issuer.
    pub issuer: String,
    scopes: Vec<String>,
    roles: Vec<Role>,
    merchants: Option<Vec<String>>,
    /// The session of one of Meed's own users.
    pub(crate) session: Option<Uuid>,
    /// Until when the token counts, since the Unix epoch.
    expires: Duration,
}

impl Identity {
    /// Whether somebody has the role. Whoever has it has none of the rights of another one.
    pub fn has_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// The client as idempotency keys and the audit record know it: a subject of one issuer is
    /// somebody else at another.
    pub fn client(&self) -> String {
        format!("{} {}", self.issuer, self.subject)
    }

    /// For how long the token counts from now on.
    pub fn valid_for(&self) -> Duration {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.expires.saturating_sub(now.unwrap_or_default())
    }

    /// Whether the token has the scope.
    pub fn has_scope(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|name| name == scope.as_str())
    }

    /// Whether the customer's data is within reach: all of it for staff, and for a client, which
    /// has no roles at all; with any other role only one's own.
    pub fn reaches_customer(&self, customer: &CustomerId) -> bool {
        let privileged = self
            .roles
            .iter()
            .any(|role| matches!(role, Role::Staff | Role::Admin));
        privileged || self.roles.is_empty() || self.subject == customer.as_str()
    }

    /// Whether the merchant is within reach: a client may be tied to its own.
    pub fn reaches_merchant(&self, merchant: &MerchantId) -> bool {
        self.merchants
            .as_ref()
            .is_none_or(|merchants| merchants.iter().any(|name| name == merchant.as_str()))
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    iss: String,
    exp: f64,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    roles: Vec<String>,
    /// Absent for no tie. A tie to null is none that can be read.
    #[serde(default, deserialize_with = "given")]
    merchants: Option<Vec<String>>,
    #[serde(default)]
    sid: Option<serde_json::Value>,
}

fn given<'de, D: Deserializer<'de>>(claim: D) -> Result<Option<Vec<String>>, D::Error> {
    Vec::deserialize(claim).map(Some)
}

/// Only what says whose keys to take; nothing of it is believed before the signature is checked.
#[derive(Deserialize)]
struct Issued {
    iss: String,
}

struct TrustedIssuer {
    audiences: Vec<String>,
    keys: KeySet,
    without_roles: WithoutRoles,
}

/// Checks tokens of the configured issuers.
pub struct Authenticator {
    /// The `iss` of Meed's own tokens.
    own_name: Option<String>,
    issuers: HashMap<String, TrustedIssuer>,
    algorithms: Vec<Algorithm>,
    clock_skew_seconds: u64,
    remembered: Remembered,
}

fn algorithm(allowed: TokenAlgorithm) -> Algorithm {
    match allowed {
        TokenAlgorithm::RS256 => Algorithm::RS256,
        TokenAlgorithm::RS384 => Algorithm::RS384,
        TokenAlgorithm::RS512 => Algorithm::RS512,
        TokenAlgorithm::PS256 => Algorithm::PS256,
        TokenAlgorithm::ES256 => Algorithm::ES256,
        TokenAlgorithm::ES384 => Algorithm::ES384,
        TokenAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}

impl Authenticator {
    /// Trusts the issuers of the configuration, Meed's own, and the dev issuer where there is one.
    ///
    /// # Errors
    /// When an issuer's key file cannot be read, no HTTP client can be made, or two issuers have
    /// the same name.
    pub fn new(
        settings: &Settings,
        dev: Option<&DevIssuer>,
        own: Option<&OwnIssuer>,
    ) -> anyhow::Result<Self> {
        let mut issuers = HashMap::new();
        for issuer in &settings.auth.issuers {
            let timing = &settings.auth.keys;
            let keys = match &issuer.keys {
                KeySource::Discovery => KeySet::discovered(&issuer.issuer, timing)?,
                KeySource::Url(url) => KeySet::at_url(url, timing)?,
                KeySource::File(file) => KeySet::in_file(&settings.path(file), timing)?,
            };
            let audiences = vec![issuer.audience.clone()];
            let trusted = TrustedIssuer {
                audiences,
                keys,
                without_roles: issuer.without_roles,
            };
            if issuers.insert(issuer.issuer.clone(), trusted).is_some() {
                bail!("auth.issuers has {} twice", issuer.issuer);
            }
        }
        // The dev issuer and Meed's own have the same name: the keys of both count under it.
        let mut here = Vec::new();
        let mut audiences = Vec::new();
        if let Some(dev) = dev {
            here.extend(dev.jwks().keys);
            audiences.push(dev.audience().to_owned());
        }
        if let Some(own) = own {
            here.extend(own.public_keys());
            audiences.push(own.audience().to_owned());
        }
        if !here.is_empty() {
            let keys = KeySet::fixed(here);
            let name = settings.api.public_url.clone();
            let trusted = TrustedIssuer {
                audiences,
                keys,
                // Meed's own tokens of people always have a role.
                without_roles: WithoutRoles::Client,
            };
            if issuers.insert(name, trusted).is_some() {
                bail!("auth.issuers has api.public_url, which is Meed's own name");
            }
        }
        Ok(Self {
            own_name: own.map(|own| own.issuer().to_owned()),
            issuers,
            algorithms: settings
                .auth
                .algorithms
                .iter()
                .copied()
                .map(algorithm)
                .collect(),
            clock_skew_seconds: settings.auth.clock_skew_seconds,
            remembered: Remembered::default(),
        })
    }

    /// Checks a token: algorithm, issuer, signature, audience and times. One that has been checked
    /// before with the keys that are in force is only looked at for its time.
    ///
    /// # Errors
    /// [`ApiError::InvalidToken`], or [`ApiError::KeysUnavailable`] while the issuer's keys have
    /// never been read.
    pub async fn check(&self, token: &str) -> Result<Identity, ApiError> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(ApiError::InvalidToken("it is too long"));
        }
        let fingerprint = Remembered::fingerprint(token);
        let keys_read_at = |issuer: &str| self.issuers.get(issuer)?.keys.read_at();
        if let Some(identity) = self.remembered.find(&fingerprint, keys_read_at) {
            return Ok(identity);
        }
        let (identity, read_at) = self.check_anew(token).await?;
        self.remembered.keep(fingerprint, identity.clone(), read_at);
        Ok(identity)
    }

    /// Checks all of a token; whom it stands for, and when the key was read that says so.
    async fn check_anew(&self, token: &str) -> Result<(Identity, Instant), ApiError> {
        let invalid = ApiError::InvalidToken;
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid("it is not a JWT"))?;
        if header.crit.is_some() {
            return Err(invalid(
                "it has critical extensions, of which none is known",
            ));
        }
        if !header.typ.as_deref().is_none_or(is_access_token) {
            return Err(invalid("it is no access token by its type"));
        }
        if !self.algorithms.contains(&header.alg) {
            return Err(invalid("its algorithm is not accepted"));
        }
        let unchecked: Issued = jsonwebtoken::dangerous::insecure_decode_claims(token)
            .map_err(|_| invalid("it names no issuer"))?;
        let issuer = self
            .issuers
            .get(&unchecked.iss)
            .ok_or(invalid("its issuer is not trusted"))?;
        let (key, read_at) = issuer.keys.find(header.kid.as_deref(), header.alg).await?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = self.clock_skew_seconds;
        validation.validate_nbf = true;
        validation.set_audience(&issuer.audiences);
        validation.set_issuer(&[&unchecked.iss]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation)
            .map_err(|error| invalid(why(error.kind())))?
            .claims;
        let subject = &claims.sub;
        if subject.is_empty()
            || subject.len() > SUBJECT_MAX_BYTES
            || subject.chars().any(char::is_control)
        {
            return Err(invalid("its subject cannot be used"));
        }
        // Only Meed's own tokens tell of its sessions.
        let session = match claims.sid {
            Some(sid) if self.own_name.as_deref() == Some(claims.iss.as_str()) => {
                let sid = serde_json::from_value(sid);
                Some(sid.map_err(|_| invalid("its claims cannot be read"))?)
            }
            _ => None,
        };
        let mut roles: Vec<Role> = claims.roles.iter().map(|name| Role::parse(name)).collect();
        if roles.is_empty() && issuer.without_roles == WithoutRoles::Player {
            roles.push(Role::Player);
        }
        let clock_skew = Duration::from_secs(self.clock_skew_seconds);
        let expires = Duration::try_from_secs_f64(claims.exp).unwrap_or(Duration::MAX);
        let identity = Identity {
            session,
            expires: expires.saturating_add(clock_skew),
            subject: claims.sub,
            issuer: claims.iss,
            scopes: claims.scope.split_whitespace().map(str::to_owned).collect(),
            roles,
            merchants: claims.merchants,
        };
        Ok((identity, read_at))
    }
}

/// Whether a `typ` is one of an access token: `JWT`, or `at+jwt` (RFC 9068).
fn is_access_token(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    matches!(
        kind.strip_prefix("application/").unwrap_or(&kind),
        "jwt" | "at+jwt"
    )
}

fn why(kind: &jsonwebtoken::errors::ErrorKind) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;
    match kind {
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::InvalidIssuer => "its issuer is not trusted",
        ErrorKind::MissingRequiredClaim(_) => {
            "a claim is missing: exp, iss, aud and sub are needed"
        }
        ErrorKind::Json(_) => "its claims cannot be read",
        _ => "its signature does not match",
    }
}

/// A scope at compile time, so that a handler's signature says what it needs.
pub trait Needs: Send + Sync + 'static {
    /// The scope.
    const SCOPE: Scope;
}

macro_rules! needs {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;
        impl Needs for $name {
            const SCOPE: Scope = Scope::$name;
        }
    )*};
}

needs!(
    /// Needs `rewards.read`.
    RewardsRead,
    /// Needs `rewards.write`.
    RewardsWrite,
    /// Needs `rewards.redeem`.
    RewardsRedeem,
    /// Needs `callbacks.write`.
    CallbacksWrite,
);

/// Somebody whose token has been checked and has the scope `N`.
#[derive(Debug, Clone)]
pub struct Caller<N> {
    /// Who.
    pub identity: Identity,
    needs: PhantomData<N>,
}

impl<N: Needs> FromRequestParts<Arc<App>> for Caller<N> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let identity = identify(app, parts).await?;
        if !identity.has_scope(N::SCOPE) {
            return Err(ApiError::MissingScope(N::SCOPE));
        }
        Ok(Self {
            identity,
            needs: PhantomData,
        })
    }
}

/// A role at compile time, so that a handler's signature says who may.
pub trait Stands: Send + Sync + 'static {
    /// The role.
    const ROLE: Role;

    /// Whether somebody may.
    fn stands(identity: &Identity) -> bool {
        identity.has_role(Self::ROLE)
    }
}

/// Needs the role admin.
#[derive(Debug, Clone, Copy)]
pub struct AsAdmin;

impl Stands for AsAdmin {
    const ROLE: Role = Role::Admin;
}

/// Needs the role staff, or admin.
#[derive(Debug, Clone, Copy)]
pub struct AsStaff;

impl Stands for AsStaff {
    const ROLE: Role = Role::Staff;

    fn stands(identity: &Identity) -> bool {
        identity.has_role(Role::Staff) || identity.has_role(Role::Admin)
    }
}

/// Needs the role player: the subject is a customer.
#[derive(Debug, Clone, Copy)]
pub struct AsPlayer;

impl Stands for AsPlayer {
    const ROLE: Role = Role::Player;
}

/// Needs the role player, staff or admin: somebody, and no client.
#[derive(Debug, Clone, Copy)]
pub struct AsPerson;

impl Stands for AsPerson {
    const ROLE: Role = Role::Player;

    fn stands(identity: &Identity) -> bool {
        AsPlayer::stands(identity) || AsStaff::stands(identity)
    }
}

/// Somebody whose token has been checked and has the role `R`.
#[derive(Debug, Clone)]
pub struct Holder<R> {
    /// Who.
    pub identity: Identity,
    role: PhantomData<R>,
}

impl<R: Stands> FromRequestParts<Arc<App>> for Holder<R> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let identity = identify(app, parts).await?;
        if !R::stands(&identity) {
            return Err(ApiError::MissingRole(R::ROLE));
        }
        Ok(Self {
            identity,
            role: PhantomData,
        })
    }
}

/// Nobody where the request says nothing of who makes it.
impl<R: Stands> OptionalFromRequestParts<Arc<App>> for Holder<R> {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &Arc<App>,
    ) -> Result<Option<Self>, ApiError> {
        if !parts.headers.contains_key(header::AUTHORIZATION) {
            return Ok(None);
        }
        <Self as FromRequestParts<Arc<App>>>::from_request_parts(parts, app)
            .await
            .map(Some)
    }
}

/// The client by the request's token, if that counts, for limits; what was found out is left with
/// the request.
pub(crate) async fn known(app: &App, parts: &mut Parts) -> Option<String> {
    let identity = app.authenticator.check(bearer(parts)?).await.ok()?;
    let client = identity.client();
    parts.extensions.insert(identity);
    Some(client)
}

/// Whom the request's token stands for.
async fn identify(app: &App, parts: &mut Parts) -> Result<Identity, ApiError> {
    let identity = if let Some(identity) = parts.extensions.remove::<Identity>() {
        identity
    } else {
        let token = bearer(parts).ok_or(ApiError::Unauthenticated)?;
        app.authenticator.check(token).await?
    };
    let route = parts.extensions.get::<MatchedPath>();
    let class = route.and_then(|route| Class::of_route(&parts.method, route.as_str()));
    with_session(app, identity, class == Some(Class::Read)).await
}

/// Whom a token stands for that came in another way than with a request, to be told something.
pub(crate) async fn authenticate(app: &App, token: &str) -> Result<Identity, ApiError> {
    let identity = app.authenticator.check(token).await?;
    with_session(app, identity, true).await
}

/// The token of one of Meed's own users counts only while the session goes on. Whoever only reads is
/// not refused when that cannot be asked: tokens are short-lived, and there are copies for when the
/// database is away. To change something it has to be known: a database that was too slow to be asked
/// may take the change a moment later.
async fn with_session(
    app: &App,
    identity: Identity,
    only_reads: bool,
) -> Result<Identity, ApiError> {
    let Some(session) = identity.session else {
        return Ok(identity);
    };
    match app.sessions.is_open(&app.pool, session).await? {
        Some(true) => Ok(identity),
        Some(false) => Err(ApiError::InvalidToken("its session has ended")),
        None if only_reads => {
            tracing::warn!("whether a session goes on cannot be asked; its token counts alone");
            Ok(identity)
        }
        None => {
            let why = "whether its session goes on cannot be asked";
            Err(ApiError::Unavailable(why.to_owned()))
        }
    }
}

fn bearer(parts: &Parts) -> Option<&str> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    // Of two, whoever stands in between may have looked at the other one.
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim())
        .filter(|token| !token.is_empty())
}
