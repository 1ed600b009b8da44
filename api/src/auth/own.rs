//! Meed as an issuer: access tokens for clients and for its own users.

use anyhow::{Context, ensure};
use boot::{
    Settings,
    settings::{self, OwnKeys, TokenAlgorithm},
};
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, PublicKeyUse, ThumbprintHash},
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Role, dev};

/// The type of an access token (RFC 9068).
const ACCESS_TOKEN: &str = "at+jwt";

struct SigningKey {
    encoding: EncodingKey,
    algorithm: Algorithm,
    public: Jwk,
    id: String,
}

/// Signs access tokens with the first of its keys, and publishes all of them.
pub struct OwnIssuer {
    issuer: String,
    /// How long tokens are valid, and the rest of what the configuration says.
    pub settings: settings::OwnIssuer,
    keys: Vec<SigningKey>,
    derived: [u8; 32],
}

/// What an access token says.
#[derive(Debug, Clone)]
pub struct Grant<'a> {
    /// The subject: a client or a user.
    pub subject: &'a str,
    /// Scopes, separated by spaces.
    pub scope: &'a str,
    /// The role of a user; none for a client.
    pub role: Option<Role>,
    /// The merchants that a client is tied to, if any.
    pub merchants: Option<&'a [String]>,
    /// The session of a user.
    pub session: Option<Uuid>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    scope: &'a str,
    roles: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    merchants: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<Uuid>,
    jti: Uuid,
    iat: i64,
    nbf: i64,
    exp: i64,
}

impl OwnIssuer {
    /// The issuer that the configuration describes, if it does, known under the api's address.
    ///
    /// # Errors
    /// When a key cannot be read or used, or its algorithm is not among those that are accepted.
    pub fn of(settings: &Settings) -> anyhow::Result<Option<Self>> {
        let Some(own) = settings.auth.own.clone() else {
            return Ok(None);
        };
        let (keys, secret) = match &own.keys {
            OwnKeys::Seed(seed) => {
                let seed = Sha256::digest(seed.expose().as_bytes());
                let key = SigningKey::new(dev::key(&seed), Algorithm::EdDSA)?;
                (vec![key], seed.to_vec())
            }
            OwnKeys::Files(files) => {
                let mut keys = Vec::new();
                let mut first = None;
                for file in files {
                    let file = settings.path(file);
                    let place = || format!("the key file {} of auth.own", file.display());
                    let text = std::fs::read(&file).with_context(place)?;
                    keys.push(SigningKey::in_pem(&text).with_context(place)?);
                    first.get_or_insert(text);
                }
                (keys, first.unwrap_or_default())
            }
        };
        for key in &keys {
            let named = match key.algorithm {
                Algorithm::ES256 => TokenAlgorithm::ES256,
                _ => TokenAlgorithm::EdDSA,
            };
            ensure!(
                settings.auth.algorithms.contains(&named),
                "auth.own signs with {named:?}, which is not among auth.algorithms"
            );
        }
        let derived = Sha256::digest([b"meed own issuer\0".as_slice(), &secret].concat()).into();
        Ok(Some(Self {
            issuer: settings.api.public_url.clone(),
            settings: own,
            keys,
            derived,
        }))
    }

    /// The `iss` of its tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The `aud` of its tokens.
    pub fn audience(&self) -> &str {
        &self.settings.audience
    }

    /// Its public keys.
    pub fn public_keys(&self) -> impl Iterator<Item = Jwk> + '_ {
        self.keys.iter().map(|key| key.public.clone())
    }

    /// Signs an access token.
    ///
    /// # Errors
    /// What the cryptography reports.
    pub fn token(&self, grant: &Grant<'_>) -> Result<String, jsonwebtoken::errors::Error> {
        let now = Utc::now().timestamp();
        let ttl = i64::try_from(self.settings.access_token_ttl_seconds).unwrap_or(i64::MAX);
        let claims = Claims {
            iss: &self.issuer,
            aud: &self.settings.audience,
            sub: grant.subject,
            client_id: grant.role.is_none().then_some(grant.subject),
            scope: grant.scope,
            roles: grant.role.iter().map(|role| role.as_str()).collect(),
            merchants: grant.merchants,
            sid: grant.session,
            jti: Uuid::new_v4(),
            iat: now,
            nbf: now,
            exp: now.saturating_add(ttl),
        };
        // There is at least one key: the configuration is refused without.
        let key = &self.keys[0];
        let mut header = Header::new(key.algorithm);
        header.typ = Some(ACCESS_TOKEN.to_owned());
        header.kid = Some(key.id.clone());
        jsonwebtoken::encode(&header, &claims, &key.encoding)
    }

    /// A keyed hash that only those with the signing key can compute, for this purpose. What is
    /// stored of a secret under it is of no use to who reads the database.
    ///
    /// # Panics
    /// Never: HMAC takes keys of any length.
    pub fn keyed_hash(&self, purpose: &str, of: &[u8]) -> [u8; 32] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.derived).expect("HMAC takes keys of any length");
        mac.update(purpose.as_bytes());
        mac.update(&[0]);
        mac.update(of);
        mac.finalize().into_bytes().into()
    }
}

impl SigningKey {
    /// A PKCS #8 private key, Ed25519 or P-256.
    fn in_pem(text: &[u8]) -> anyhow::Result<Self> {
        if let Ok(key) = EncodingKey::from_ed_pem(text) {
            return Self::new(key, Algorithm::EdDSA);
        }
        let key = EncodingKey::from_ec_pem(text)
            .ok()
            .context("it is no PKCS #8 private key in PEM, Ed25519 or P-256")?;
        Self::new(key, Algorithm::ES256)
    }

    fn new(encoding: EncodingKey, algorithm: Algorithm) -> anyhow::Result<Self> {
        let mut public = Jwk::from_encoding_key(&encoding, algorithm)
            .map_err(|_| anyhow::anyhow!("it is no private key for {algorithm:?}"))?;
        let id = public
            .thumbprint(ThumbprintHash::SHA256)
            .context("its thumbprint")?;
        public.common.key_id = Some(id.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self {
            encoding,
            algorithm,
            public,
            id,
        })
    }
}
