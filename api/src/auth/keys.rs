//! An issuer's public keys: kept, and read again at intervals and for a key that is not known.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use boot::settings::KeysSettings;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::error::ApiError;

/// After how long a reading that failed is tried again, when that is shorter than the floor.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long the issuer may take to answer.
const FETCH_WITHIN: Duration = Duration::from_secs(3);
/// The largest document that is read, in bytes.
const DOCUMENT_MAX_BYTES: usize = 262_144;
/// The most keys of one issuer that are kept.
const KEYS_MAX: usize = 100;
/// The shortest RSA modulus that counts, in bytes (RFC 7518, section 3.3).
const RSA_MIN_BYTES: usize = 256;

enum Source {
    Fixed,
    File(PathBuf),
    Url {
        url: String,
        client: reqwest::Client,
    },
    Discovery {
        issuer: String,
        client: reqwest::Client,
    },
}

#[derive(Clone)]
struct Key {
    decoding: DecodingKey,
    jwk: Jwk,
    /// When it was read, with all others of the issuer.
    read_at: Instant,
}

#[derive(Default)]
struct Keys {
    by_id: HashMap<String, Key>,
    without_id: Vec<Key>,
    read_at: Option<Instant>,
}

/// The last time that keys were read, or that it was tried.
#[derive(Clone, Copy)]
struct Try {
    at: Instant,
    read: bool,
}

/// The keys of one issuer.
pub(super) struct KeySet {
    source: Source,
    refresh_after: Duration,
    floor: Duration,
    keys: RwLock<Keys>,
    last_try: Mutex<Option<Try>>,
}

impl KeySet {
    /// Keys that never change.
    pub(super) fn fixed(set: impl IntoIterator<Item = Jwk>) -> Self {
        let keys = Keys::of(set);
        Self::new(Source::Fixed, &KeysSettings::default(), keys)
    }

    /// The keys of a JWKS document in a file, which must be there.
    pub(super) fn in_file(file: &Path, settings: &KeysSettings) -> anyhow::Result<Self> {
        let keys = read_file(file)?;
        Ok(Self::new(Source::File(file.to_owned()), settings, keys))
    }

    /// The keys of a JWKS document at an address, read when they are needed.
    pub(super) fn at_url(url: &str, settings: &KeysSettings) -> anyhow::Result<Self> {
        let url = url.to_owned();
        let client = client()?;
        let source = Source::Url { url, client };
        Ok(Self::new(source, settings, Keys::default()))
    }

    /// The keys where the issuer's own description (OpenID Connect Discovery) says they are, read
    /// when they are needed.
    pub(super) fn discovered(issuer: &str, settings: &KeysSettings) -> anyhow::Result<Self> {
        let issuer = issuer.to_owned();
        let client = client()?;
        let source = Source::Discovery { issuer, client };
        Ok(Self::new(source, settings, Keys::default()))
    }

    fn new(source: Source, settings: &KeysSettings, keys: Keys) -> Self {
        Self {
            source,
            refresh_after: Duration::from_secs(settings.refresh_seconds),
            floor: Duration::from_secs(settings.unknown_key_seconds),
            keys: RwLock::new(keys),
            last_try: Mutex::new(None),
        }
    }

    /// The key with this id, for this algorithm, and when it was read. Without an id, the only key
    /// there is.
    pub(super) async fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<(DecodingKey, Instant), ApiError> {
        let found = match self.look(id) {
            (Some(key), Some(age)) if age < self.refresh_after => Some(key),
            // One request reads them again; the others do not wait for it, nor for an issuer that
            // is away.
            (Some(key), _) => {
                if let Ok(last_try) = self.last_try.try_lock() {
                    self.read_again(last_try).await;
                    self.look(id).0
                } else {
                    Some(key)
                }
            }
            (None, _) => {
                self.read_again(self.last_try.lock().await).await;
                self.look(id).0
            }
        };
        match found {
            Some(key) if key.allows(algorithm) => Ok((key.decoding, key.read_at)),
            Some(_) => Err(ApiError::InvalidToken(
                "its algorithm is not that of its key",
            )),
            None if self.look(id).1.is_none() => Err(ApiError::KeysUnavailable),
            None => Err(ApiError::InvalidToken("its key is not one of its issuer's")),
        }
    }

    /// When the keys in force were read; nothing when it is time to read them again.
    pub(super) fn read_at(&self) -> Option<Instant> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let in_force = |at: &Instant| {
            matches!(self.source, Source::Fixed) || at.elapsed() < self.refresh_after
        };
        keys.read_at.filter(in_force)
    }

    /// The key, and how long ago the keys were read.
    fn look(&self, id: Option<&str>) -> (Option<Key>, Option<Duration>) {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let found = if let Some(id) = id {
            keys.by_id.get(id)
        } else {
            let mut all = keys.by_id.values().chain(&keys.without_id);
            all.next().filter(|_| all.next().is_none())
        };
        let age = if matches!(self.source, Source::Fixed) {
            Some(Duration::ZERO)
        } else {
            keys.read_at.map(|at| at.elapsed())
        };
        (found.cloned(), age)
    }

    /// Reads the keys again, unless that was tried a moment ago. Keys stay when it fails.
    async fn read_again(&self, mut last_try: tokio::sync::MutexGuard<'_, Option<Try>>) {
        if matches!(self.source, Source::Fixed) {
            return;
        }
        let too_soon = last_try.is_some_and(|last| {
            let floor = if last.read {
                self.floor
            } else {
                self.floor.min(TRY_AGAIN_AFTER)
            };
            last.at.elapsed() < floor
        });
        if too_soon {
            return;
        }
        let at = Instant::now();
        *last_try = Some(Try { at, read: false });
        match self.read().await {
            Ok(read) => {
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = read;
                *last_try = Some(Try { at, read: true });
            }
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "an issuer's keys cannot be read"
                );
            }
        }
    }

    async fn read(&self) -> anyhow::Result<Keys> {
        match &self.source {
            Source::Fixed => Ok(Keys::default()),
            Source::File(file) => read_file(file),
            Source::Url { url, client } => keys_at(client, url).await,
            Source::Discovery { issuer, client } => {
                let url = discover(client, issuer).await?;
                keys_at(client, &url).await
            }
        }
    }
}

fn client() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        .timeout(FETCH_WITHIN)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .context("no HTTP client for the issuers' keys")
}

/// Where the issuer says that its keys are (OpenID Connect Discovery 1.0, section 4).
async fn discover(client: &reqwest::Client, issuer: &str) -> anyhow::Result<String> {
    #[derive(serde::Deserialize)]
    struct Description {
        issuer: String,
        jwks_uri: String,
    }
    let url = format!(
        "{}/.well-known/openid-configuration",
        issuer.trim_end_matches('/')
    );
    let description: Description = document(client, &url).await?;
    ensure!(
        description.issuer == issuer,
        "{url} is the description of another issuer"
    );
    let secure = |url: &str| url.starts_with("https://");
    ensure!(
        secure(&description.jwks_uri) || !secure(issuer),
        "{url} names keys at an address that is not https"
    );
    Ok(description.jwks_uri)
}

#[derive(serde::Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

async fn keys_at(client: &reqwest::Client, url: &str) -> anyhow::Result<Keys> {
    let set: Set = document(client, url).await?;
    Keys::read(set).with_context(|| format!("the keys at {url}"))
}

/// A JSON document of bounded size.
async fn document<T: DeserializeOwned>(client: &reqwest::Client, url: &str) -> anyhow::Result<T> {
    let mut response = client.get(url).send().await?.error_for_status()?;
    ensure!(response.status().is_success(), "{url} leads elsewhere");
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        ensure!(body.len() <= DOCUMENT_MAX_BYTES, "{url} is too large");
    }
    serde_json::from_slice(&body).with_context(|| format!("{url} is not what it should be"))
}

fn read_file(file: &Path) -> anyhow::Result<Keys> {
    let place = || format!("the key file {}", file.display());
    let text = std::fs::read(file).with_context(place)?;
    let set = serde_json::from_slice(&text).with_context(place)?;
    Keys::read(set).with_context(place)
}

impl Keys {
    /// The keys of a document. One without any that can be used is a fault, not a reason to forget
    /// those at hand.
    fn read(set: Set) -> anyhow::Result<Self> {
        ensure!(set.keys.len() <= KEYS_MAX, "there are more than {KEYS_MAX}");
        let empty = set.keys.is_empty();
        // Keys of a kind that is not known here are for others.
        let known = set
            .keys
            .into_iter()
            .filter_map(|key| serde_json::from_value(key).ok());
        let keys = Self::of(known);
        ensure!(!empty, "there are none");
        Ok(keys)
    }

    fn of(set: impl IntoIterator<Item = Jwk>) -> Self {
        let read_at = Instant::now();
        let mut keys = Self {
            read_at: Some(read_at),
            ..Self::default()
        };
        for jwk in set {
            if !verifies(&jwk) {
                continue;
            }
            let Ok(decoding) = DecodingKey::from_jwk(&jwk) else {
                continue;
            };
            let key = Key {
                decoding,
                jwk,
                read_at,
            };
            match key.jwk.common.key_id.clone() {
                Some(id) => drop(keys.by_id.insert(id, key)),
                None => keys.without_id.push(key),
            }
        }
        keys
    }
}

/// Whether a key is a public one for signatures, and not a weak one. Both `use` and `key_ops` may
/// be left out (RFC 7517, section 4.2); what they say otherwise counts.
fn verifies(jwk: &Jwk) -> bool {
    let named_use = matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    let operations = jwk
        .common
        .key_operations
        .as_ref()
        .is_none_or(|all| all.contains(&KeyOperations::Verify));
    let strong = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => false,
        AlgorithmParameters::RSA(key) => BASE64_URL_SAFE_NO_PAD
            .decode(&key.n)
            .is_ok_and(|n| n.len() >= RSA_MIN_BYTES),
        _ => true,
    };
    named_use && operations && strong
}

impl Key {
    /// Whether the key's kind and curve are those of the algorithm, and the algorithm is the one
    /// that the key names, if it names one.
    fn allows(&self, algorithm: Algorithm) -> bool {
        let kind = match (&self.jwk.algorithm, algorithm) {
            (
                AlgorithmParameters::RSA(_),
                Algorithm::RS256
                | Algorithm::RS384
                | Algorithm::RS512
                | Algorithm::PS256
                | Algorithm::PS384
                | Algorithm::PS512,
            ) => true,
            (AlgorithmParameters::EllipticCurve(key), Algorithm::ES256) => {
                key.curve == EllipticCurve::P256
            }
            (AlgorithmParameters::EllipticCurve(key), Algorithm::ES384) => {
                key.curve == EllipticCurve::P384
            }
            (AlgorithmParameters::OctetKeyPair(key), Algorithm::EdDSA) => {
                key.curve == EllipticCurve::Ed25519
            }
            _ => false,
        };
        let named = self.jwk.common.key_algorithm.is_none_or(|named| {
            named
                .to_string()
                .parse::<Algorithm>()
                .is_ok_and(|named| named == algorithm)
        });
        kind && named
    }
}
