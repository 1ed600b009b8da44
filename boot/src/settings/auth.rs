//! `[auth.keys]`, `[auth.own]`, `[auth.passwords]` and `[auth.throttle]`: keys of issuers, Meed's
//! own issuer, and how guessing is slowed down.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Secret, value};

/// `[auth.keys]`: how the keys of issuers are kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysSettings {
    /// After how long they are read again, in seconds. Those at hand count on while their issuer is
    /// away.
    #[serde(deserialize_with = "value::positive")]
    pub refresh_seconds: u64,
    /// The shortest time between two readings for a key that is not known, in seconds, so that
    /// made-up key ids do not become requests to the issuer.
    #[serde(deserialize_with = "value::positive")]
    pub unknown_key_seconds: u64,
}

impl Default for KeysSettings {
    fn default() -> Self {
        Self {
            refresh_seconds: 600,
            unknown_key_seconds: 60,
        }
    }
}

/// `[auth.own]`: Meed as an issuer, of tokens for clients (`POST /oauth/token`) and for its own
/// users (`/api/v1/auth`). Its `iss` is `api.public_url`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "OwnTable")]
pub struct OwnIssuer {
    /// Its signing keys.
    pub keys: OwnKeys,
    /// The `aud` of its tokens.
    pub audience: String,
    /// How long a token is valid, in seconds.
    pub access_token_ttl_seconds: u64,
    /// How long a refresh token can be used, in seconds.
    pub refresh_token_ttl_seconds: u64,
    /// After how long a user logs in again, however often tokens were refreshed, in seconds.
    pub session_ttl_seconds: u64,
    /// How long the same refresh token may come again, in seconds: two tabs at once, or an answer
    /// that was lost.
    pub refresh_grace_seconds: u64,
    /// Other origins than the one of `api.public_url` whose pages may use the refresh cookie.
    pub cookie_origins: Vec<String>,
}

/// Where the signing keys are.
#[derive(Debug, Clone)]
pub enum OwnKeys {
    /// Derived from this; in the dev profile only.
    Seed(Secret),
    /// Private keys (PKCS #8, PEM; Ed25519 or P-256), relative to the configuration file. The first
    /// one signs, all are published.
    Files(Vec<PathBuf>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnTable {
    signing_seed: Option<Secret>,
    #[serde(default)]
    key_files: Vec<PathBuf>,
    #[serde(deserialize_with = "value::text")]
    audience: String,
    #[serde(default = "fifteen_minutes", deserialize_with = "value::positive")]
    access_token_ttl_seconds: u64,
    #[serde(default = "a_week", deserialize_with = "value::positive")]
    refresh_token_ttl_seconds: u64,
    #[serde(default = "a_month", deserialize_with = "value::positive")]
    session_ttl_seconds: u64,
    #[serde(default = "ten_seconds", deserialize_with = "value::not_negative")]
    refresh_grace_seconds: u64,
    #[serde(default, deserialize_with = "value::origins")]
    cookie_origins: Vec<String>,
}

fn fifteen_minutes() -> u64 {
    900
}

fn a_week() -> u64 {
    7 * 86_400
}

fn a_month() -> u64 {
    30 * 86_400
}

fn ten_seconds() -> u64 {
    10
}

impl TryFrom<OwnTable> for OwnIssuer {
    type Error = String;

    fn try_from(table: OwnTable) -> Result<Self, String> {
        let keys = match (table.signing_seed, table.key_files) {
            (Some(seed), files) if files.is_empty() => OwnKeys::Seed(seed),
            (None, files) if !files.is_empty() => OwnKeys::Files(files),
            _ => return Err("[auth.own] has either key_files or signing_seed".to_owned()),
        };
        Ok(Self {
            keys,
            audience: table.audience,
            access_token_ttl_seconds: table.access_token_ttl_seconds,
            refresh_token_ttl_seconds: table.refresh_token_ttl_seconds,
            session_ttl_seconds: table.session_ttl_seconds,
            refresh_grace_seconds: table.refresh_grace_seconds,
            cookie_origins: table.cookie_origins,
        })
    }
}

/// `[auth.passwords]`: what a hash of a password or a client secret costs (argon2id). The defaults
/// are those of the OWASP cheat sheet.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PasswordSettings {
    /// Memory, in KiB.
    #[serde(deserialize_with = "value::hash_memory")]
    pub memory_kib: u32,
    /// Passes over it.
    #[serde(deserialize_with = "value::count")]
    pub iterations: u32,
    /// Lanes.
    #[serde(deserialize_with = "value::count")]
    pub parallelism: u32,
    /// How many hashes a process computes at once; more wait a moment, then are sent away.
    #[serde(deserialize_with = "value::count")]
    pub max_concurrent: u32,
}

impl Default for PasswordSettings {
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            iterations: 2,
            parallelism: 1,
            max_concurrent: 4,
        }
    }
}

/// `[auth.throttle]`: how often may be guessed. Each of these is a bucket in the database, so that it
/// holds over all replicas; it fills again by one every `refill_seconds`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThrottleSettings {
    /// Failures of one account from one address.
    #[serde(deserialize_with = "value::count")]
    pub failures_per_account_and_address: u32,
    /// Failures of one account from all addresses where its user has not logged in before.
    #[serde(deserialize_with = "value::count")]
    pub failures_per_account: u32,
    /// Failures from one address.
    #[serde(deserialize_with = "value::count")]
    pub failures_per_address: u32,
    /// Registrations from one address.
    #[serde(deserialize_with = "value::count")]
    pub registrations_per_address: u32,
    /// After how long each bucket has one more, in seconds.
    #[serde(deserialize_with = "value::positive")]
    pub refill_seconds: u64,
}

impl Default for ThrottleSettings {
    fn default() -> Self {
        Self {
            failures_per_account_and_address: 5,
            failures_per_account: 20,
            failures_per_address: 30,
            registrations_per_address: 20,
            refill_seconds: 30,
        }
    }
}
