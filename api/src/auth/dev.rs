//! The issuer of the dev profile: tokens for the asking.

use anyhow::Context;
use boot::settings;
use chrono::Utc;
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// What stands before the 32 bytes of an Ed25519 key in PKCS #8 (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
const KEY_ID: &str = "meed-dev";

/// Signs tokens with an Ed25519 key derived from the configuration, so that every replica has the
/// same one.
pub struct DevIssuer {
    issuer: String,
    audience: String,
    token_ttl_seconds: u64,
    key: EncodingKey,
    public: Jwk,
}

/// What a dev token is asked to say.
#[derive(Debug, Clone, Default)]
pub struct Grant {
    /// The subject.
    pub sub: String,
    /// Scopes, separated by spaces.
    pub scope: String,
    /// Roles.
    pub roles: Vec<String>,
    /// The merchants it is tied to, if any.
    pub merchants: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    scope: &'a str,
    roles: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    merchants: Option<&'a [String]>,
    iat: i64,
    nbf: i64,
    exp: i64,
}

/// The Ed25519 key with these 32 bytes.
pub(super) fn key(seed: &[u8]) -> EncodingKey {
    EncodingKey::from_ed_der(&[&PKCS8_PREFIX[..], seed].concat())
}

impl DevIssuer {
    /// The issuer that the configuration describes, known under the api's address.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(settings: &settings::DevIssuer, issuer: &str) -> anyhow::Result<Self> {
        let seed = Sha256::digest(settings.signing_seed.expose().as_bytes());
        let key = key(&seed);
        let mut public =
            Jwk::from_encoding_key(&key, Algorithm::EdDSA).context("the dev issuer's key")?;
        public.common.key_id = Some(KEY_ID.to_owned());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self {
            issuer: issuer.to_owned(),
            audience: settings.audience.clone(),
            token_ttl_seconds: settings.token_ttl_seconds,
            key,
            public,
        })
    }

    /// The `iss` of its tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The `aud` of its tokens.
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// How long its tokens are valid, in seconds.
    pub fn token_ttl_seconds(&self) -> u64 {
        self.token_ttl_seconds
    }

    /// Its public key.
    pub fn jwks(&self) -> JwkSet {
        JwkSet {
            keys: vec![self.public.clone()],
        }
    }

    /// Signs a token.
    ///
    /// # Errors
    /// What the cryptography reports.
    pub fn token(&self, grant: &Grant) -> Result<String, jsonwebtoken::errors::Error> {
        let now = Utc::now().timestamp();
        let ttl = i64::try_from(self.token_ttl_seconds).unwrap_or(i64::MAX);
        self.sign(&Claims {
            iss: &self.issuer,
            aud: &self.audience,
            sub: &grant.sub,
            scope: &grant.scope,
            roles: &grant.roles,
            merchants: grant.merchants.as_deref(),
            iat: now,
            nbf: now,
            exp: now.saturating_add(ttl),
        })
    }

    /// Signs any claims; tests make tokens with it that nobody should get.
    pub(super) fn sign(
        &self,
        claims: &impl Serialize,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(KEY_ID.to_owned());
        jsonwebtoken::encode(&header, claims, &self.key)
    }
}
