//! An issuer's public keys: kept, and read again for a key that is not known.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::RwLock,
    time::{Duration, Instant},
};

use anyhow::Context;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse},
};
use tokio::sync::Mutex;

use crate::error::ApiError;

/// The shortest time between two readings, so that made-up key ids cannot make this process hammer
/// the issuer.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// How long keys count before they are read again: one that was withdrawn is refused after this.
const KEYS_COUNT_FOR: Duration = Duration::from_secs(600);
/// How long the issuer may take to answer.
const FETCH_WITHIN: Duration = Duration::from_secs(3);
/// The largest set of keys that is read, in bytes.
const KEYS_MAX_BYTES: usize = 262_144;

enum Source {
    Fixed,
    File(PathBuf),
    Url {
        url: String,
        client: reqwest::Client,
    },
}

#[derive(Clone)]
struct Key {
    decoding: DecodingKey,
    jwk: Jwk,
}

#[derive(Default)]
struct Keys {
    by_id: HashMap<String, Key>,
    without_id: Vec<Key>,
    read_at: Option<Instant>,
}

/// The keys of one issuer.
pub(super) struct KeySet {
    source: Source,
    keys: RwLock<Keys>,
    last_try: Mutex<Option<Instant>>,
}

impl KeySet {
    pub(super) fn fixed(set: &JwkSet) -> Self {
        Self::new(Source::Fixed, Keys::of(set.keys.iter().cloned()))
    }

    pub(super) fn in_file(file: &Path) -> anyhow::Result<Self> {
        let keys = read_file(file)?;
        Ok(Self::new(Source::File(file.to_owned()), keys))
    }

    pub(super) fn at_url(url: &str) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(FETCH_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("no HTTP client for the issuers' keys")?;
        Ok(Self::new(
            Source::Url {
                url: url.to_owned(),
                client,
            },
            Keys::default(),
        ))
    }

    fn new(source: Source, keys: Keys) -> Self {
        Self {
            source,
            keys: RwLock::new(keys),
            last_try: Mutex::new(None),
        }
    }

    /// The key with this id, for this algorithm. Without an id, the only key there is.
    pub(super) async fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<DecodingKey, ApiError> {
        let unknown = ApiError::InvalidToken("its key is not one of its issuer's");
        let found = match self.look(id) {
            (Some(key), Some(age)) if age < KEYS_COUNT_FOR => Some(key),
            _ => {
                self.read_again().await;
                self.look(id).0
            }
        };
        match found {
            Some(key) if key.allows(algorithm) => Ok(key.decoding),
            Some(_) => Err(ApiError::InvalidToken(
                "its algorithm is not that of its key",
            )),
            None if self.look(id).1.is_none() => Err(ApiError::KeysUnavailable),
            None => Err(unknown),
        }
    }

    fn look(&self, id: Option<&str>) -> (Option<Key>, Option<Duration>) {
        let keys = self
            .keys
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
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
    async fn read_again(&self) {
        if matches!(self.source, Source::Fixed) {
            return;
        }
        let mut last_try = self.last_try.lock().await;
        if last_try.is_some_and(|at| at.elapsed() < READ_AGAIN_AFTER) {
            return;
        }
        *last_try = Some(Instant::now());
        match self.read().await {
            Ok(read) => {
                *self
                    .keys
                    .write()
                    .unwrap_or_else(std::sync::PoisonError::into_inner) = read;
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "an issuer's keys"),
        }
    }

    async fn read(&self) -> anyhow::Result<Keys> {
        match &self.source {
            Source::Fixed => Ok(Keys::default()),
            Source::File(file) => read_file(file),
            Source::Url { url, client } => {
                let mut response = client.get(url).send().await?.error_for_status()?;
                let mut body = Vec::new();
                while let Some(chunk) = response.chunk().await? {
                    body.extend_from_slice(&chunk);
                    anyhow::ensure!(body.len() <= KEYS_MAX_BYTES, "{url} is too large");
                }
                parse(&body).with_context(|| format!("{url} is no set of keys"))
            }
        }
    }
}

fn read_file(file: &Path) -> anyhow::Result<Keys> {
    let place = || format!("the key file {}", file.display());
    let text = std::fs::read(file).with_context(place)?;
    parse(&text).with_context(place)
}

fn parse(text: &[u8]) -> anyhow::Result<Keys> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(text)?;
    // Keys of a kind that is not known here are for others.
    Ok(Keys::of(
        set.keys
            .into_iter()
            .filter_map(|key| serde_json::from_value(key).ok()),
    ))
}

impl Keys {
    fn of(set: impl IntoIterator<Item = Jwk>) -> Self {
        let mut keys = Self {
            read_at: Some(Instant::now()),
            ..Self::default()
        };
        for jwk in set {
            let symmetric = matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
            let signs = matches!(
                jwk.common.public_key_use,
                None | Some(PublicKeyUse::Signature)
            );
            let Ok(decoding) = DecodingKey::from_jwk(&jwk) else {
                continue;
            };
            if symmetric || !signs {
                continue;
            }
            let key = Key { decoding, jwk };
            match key.jwk.common.key_id.clone() {
                Some(id) => drop(keys.by_id.insert(id, key)),
                None => keys.without_id.push(key),
            }
        }
        keys
    }
}

impl Key {
    /// A key that names its algorithm is for no other.
    fn allows(&self, algorithm: Algorithm) -> bool {
        self.jwk.common.key_algorithm.is_none_or(|named| {
            named
                .to_string()
                .parse::<Algorithm>()
                .is_ok_and(|named| named == algorithm)
        })
    }
}
