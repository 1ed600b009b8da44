//! What Temporal keeps of flows, encrypted: inputs, results, failures and details are read by
//! whoever has the key. Search attributes are not encrypted, and so hold nothing of a person.
//!
//! AES-256-GCM, a random nonce for each payload before its text. Each says with which key it was
//! encrypted, so that keys can be replaced: the first one encrypts, all decrypt. Without keys
//! everything is plain, and what was encrypted is refused with the name of the key that is missing.

use std::sync::Arc;

use aes_gcm::{
    Aes256Gcm, Nonce,
    aead::{Aead, KeyInit},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::future::{BoxFuture, FutureExt, ready};
use prost::Message;
use temporalio_common::{
    data_converters::{PayloadCodec, PayloadConversionError, SerializationContextData},
    protos::temporal::api::common::v1::Payload,
};

const ENCODING: &str = "encoding";
const KEY_ID: &str = "encryption-key-id";
/// How a payload is encoded that is encrypted.
const ENCRYPTED: &[u8] = b"binary/encrypted";
const NONCE_BYTES: usize = 12;

/// Why a payload cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// None of the keys at hand is the one it was encrypted with.
    #[error("it was encrypted with the key {0:?}, which is not among temporal.payload_keys")]
    UnknownKey(String),
    /// It was changed, or encrypted with another key of this name.
    #[error("it is not what was encrypted with the key {0:?}")]
    NotGenuine(String),
    /// It could not be encrypted.
    #[error("it is too large to be encrypted")]
    TooLarge,
}

struct Key {
    id: String,
    cipher: Aes256Gcm,
}

/// Encrypts and decrypts payloads; with no keys it leaves them plain. Cloning is cheap.
#[derive(Clone)]
pub struct Codec {
    keys: Arc<[Key]>,
}

impl Codec {
    /// Reads keys as they stand in the configuration: `id:base64`, separated by commas, each of 32
    /// bytes. An empty text has none.
    ///
    /// # Errors
    /// Which key cannot be used, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let named = text.split(',').map(str::trim).filter(|key| !key.is_empty());
        let keys: Vec<Key> = named.map(key).collect::<Result<_, _>>()?;
        Ok(Self { keys: keys.into() })
    }

    /// Whether it has keys, and so encrypts.
    pub fn encrypts(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Encrypts one payload; without keys it stays as it is.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`].
    pub fn encrypt(&self, payload: Payload) -> Result<Payload, CodecError> {
        let Some(key) = self.keys.first() else {
            return Ok(payload);
        };
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let text = payload.encode_to_vec();
        let encrypted = key.cipher.encrypt(&Nonce::from(nonce), text.as_slice());
        let mut data = nonce.to_vec();
        data.extend(encrypted.map_err(|_| CodecError::TooLarge)?);
        let metadata = [
            (ENCODING.to_owned(), ENCRYPTED.to_vec()),
            (KEY_ID.to_owned(), key.id.clone().into_bytes()),
        ];
        Ok(Payload {
            metadata: metadata.into(),
            data,
            ..Payload::default()
        })
    }

    /// Decrypts one payload. One that is not encrypted is as it is: it comes from before.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decrypt(&self, payload: Payload) -> Result<Payload, CodecError> {
        if payload.metadata.get(ENCODING).map(Vec::as_slice) != Some(ENCRYPTED) {
            return Ok(payload);
        }
        let id = payload
            .metadata
            .get(KEY_ID)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let id = String::from_utf8_lossy(id).into_owned();
        let Some(key) = self.keys.iter().find(|key| key.id == id) else {
            return Err(CodecError::UnknownKey(id));
        };
        let genuine = payload
            .data
            .split_at_checked(NONCE_BYTES)
            .and_then(|(nonce, text)| {
                let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
                let text = key.cipher.decrypt(&Nonce::from(nonce), text).ok()?;
                Payload::decode(text.as_slice()).ok()
            });
        genuine.ok_or(CodecError::NotGenuine(id))
    }
}

fn key(text: &str) -> Result<Key, String> {
    let (id, key) = text
        .split_once(':')
        .filter(|(id, _)| !id.is_empty())
        .ok_or("a key is written as its name, a colon and 32 bytes in base64")?;
    let cipher = BASE64_STANDARD
        .decode(key)
        .ok()
        .and_then(|bytes| Aes256Gcm::new_from_slice(&bytes).ok())
        .ok_or_else(|| format!("the key {id:?} is not 32 bytes in base64"))?;
    Ok(Key {
        id: id.to_owned(),
        cipher,
    })
}

fn all(
    payloads: Vec<Payload>,
    each: impl Fn(Payload) -> Result<Payload, CodecError>,
) -> BoxFuture<'static, Result<Vec<Payload>, PayloadConversionError>> {
    let done: Result<Vec<Payload>, CodecError> = payloads.into_iter().map(each).collect();
    let done = done.map_err(|error| PayloadConversionError::EncodingError(error.into()));
    ready(done).boxed()
}

impl PayloadCodec for Codec {
    fn encode(
        &self,
        _context: &SerializationContextData,
        payloads: Vec<Payload>,
    ) -> BoxFuture<'static, Result<Vec<Payload>, PayloadConversionError>> {
        all(payloads, |payload| self.encrypt(payload))
    }

    fn decode(
        &self,
        _context: &SerializationContextData,
        payloads: Vec<Payload>,
    ) -> BoxFuture<'static, Result<Vec<Payload>, PayloadConversionError>> {
        all(payloads, |payload| self.decrypt(payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec(keys: &[(&str, u8)]) -> Codec {
        let keys: Vec<String> = keys
            .iter()
            .map(|(id, byte)| format!("{id}:{}", BASE64_STANDARD.encode([*byte; 32])))
            .collect();
        Codec::parse(&keys.join(", ")).expect("they are keys")
    }

    fn payload() -> Payload {
        Payload {
            metadata: [(ENCODING.to_owned(), b"json/plain".to_vec())].into(),
            data: br#"{"customerId":"C-42"}"#.to_vec(),
            ..Payload::default()
        }
    }

    #[test]
    fn what_is_encrypted_is_read_again_and_by_nobody_else() {
        let codec = codec(&[("k1", 1)]);
        let encrypted = codec.encrypt(payload()).expect("encrypted");
        assert_eq!(encrypted.metadata[ENCODING], ENCRYPTED);
        assert!(!encrypted.data.windows(4).any(|bytes| bytes == b"C-42"));
        assert_ne!(
            encrypted,
            codec.encrypt(payload()).expect("encrypted"),
            "another nonce"
        );
        assert_eq!(
            codec.decrypt(encrypted.clone()).expect("genuine"),
            payload()
        );
        let stranger = self::codec(&[("k1", 9)]);
        assert!(matches!(
            stranger.decrypt(encrypted.clone()),
            Err(CodecError::NotGenuine(id)) if id == "k1"
        ));
        let mut changed = encrypted;
        *changed.data.last_mut().expect("bytes") ^= 1;
        assert!(matches!(
            codec.decrypt(changed),
            Err(CodecError::NotGenuine(_))
        ));
    }

    #[test]
    fn keys_are_replaced_and_what_was_plain_stays_readable() {
        let (old, both) = (codec(&[("k1", 1)]), codec(&[("k2", 2), ("k1", 1)]));
        let before = old.encrypt(payload()).expect("encrypted");
        assert_eq!(both.decrypt(before).expect("genuine"), payload());
        let after = both.encrypt(payload()).expect("encrypted");
        assert_eq!(after.metadata[KEY_ID], b"k2");
        assert!(matches!(old.decrypt(after), Err(CodecError::UnknownKey(id)) if id == "k2"));
        assert_eq!(both.decrypt(payload()).expect("plain"), payload());
    }

    #[test]
    fn without_keys_payloads_are_plain_and_the_key_that_is_missing_is_named() {
        let none = Codec::parse(" , ").expect("no keys");
        assert!(!none.encrypts());
        assert_eq!(none.encrypt(payload()).expect("plain"), payload());
        assert_eq!(none.decrypt(payload()).expect("plain"), payload());
        let encrypted = codec(&[("k1", 1)]).encrypt(payload()).expect("encrypted");
        let refused = none.decrypt(encrypted).expect_err("the key is missing");
        assert_eq!(
            refused.to_string(),
            "it was encrypted with the key \"k1\", which is not among temporal.payload_keys"
        );
    }

    #[test]
    fn keys_that_are_none_are_named() {
        for wrong in ["k1", "k1:short", ":AAAA", "k1:AAAA"] {
            assert!(Codec::parse(wrong).is_err(), "{wrong}");
        }
    }
}
