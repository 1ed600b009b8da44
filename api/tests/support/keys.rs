//! Keys that sign tokens, as issuers elsewhere have them.

use base64::{Engine, prelude::BASE64_STANDARD};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, PublicKeyUse},
};
use p256::pkcs8::EncodePrivateKey;
use rsa::{
    pkcs1::{EncodeRsaPrivateKey, EncodeRsaPublicKey},
    traits::PublicKeyParts,
};
use serde_json::Value;

/// What stands before the 32 bytes of a public Ed25519 key in its DER form (RFC 8410).
const ED_PUBLIC: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// A key.
pub struct Key {
    pub id: &'static str,
    pub algorithm: Algorithm,
    pub private: EncodingKey,
    pub public: Jwk,
    /// The public key as files have it; nothing for the curve P-256.
    pub public_der: Vec<u8>,
}

impl Key {
    fn new(id: &'static str, algorithm: Algorithm, private: EncodingKey, der: Vec<u8>) -> Self {
        let mut public = Jwk::from_encoding_key(&private, algorithm).expect("a public key");
        public.common.key_id = Some(id.to_owned());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Self {
            id,
            algorithm,
            private,
            public,
            public_der: der,
        }
    }

    pub fn rsa(id: &'static str, bits: usize) -> Self {
        let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, bits).expect("a key");
        assert_eq!(key.size() * 8, bits);
        let der = key.to_pkcs1_der().expect("DER");
        let public = key.to_public_key().to_pkcs1_der().expect("DER");
        let private = EncodingKey::from_rsa_der(der.as_bytes());
        Self::new(id, Algorithm::RS256, private, public.as_bytes().to_vec())
    }

    pub fn ec(id: &'static str) -> Self {
        let key = p256::SecretKey::random(&mut rsa::rand_core::OsRng);
        let der = key.to_pkcs8_der().expect("DER");
        let private = EncodingKey::from_ec_der(der.as_bytes());
        Self::new(id, Algorithm::ES256, private, Vec::new())
    }

    pub fn ed(id: &'static str) -> Self {
        let mut der = vec![
            0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
        ];
        der.extend(uuid::Uuid::new_v4().into_bytes());
        der.extend(uuid::Uuid::new_v4().into_bytes());
        let mut key = Self::new(
            id,
            Algorithm::EdDSA,
            EncodingKey::from_ed_der(&der),
            Vec::new(),
        );
        let point = serde_json::to_value(&key.public).expect("JSON")["x"].take();
        let point = base64::prelude::BASE64_URL_SAFE_NO_PAD
            .decode(point.as_str().expect("a point"))
            .expect("base64");
        key.public_der = [&ED_PUBLIC[..], &point].concat();
        key
    }

    /// The public key in PEM.
    pub fn public_pem(&self) -> String {
        let name = match self.algorithm {
            Algorithm::RS256 => "RSA PUBLIC KEY",
            _ => "PUBLIC KEY",
        };
        let text = BASE64_STANDARD.encode(&self.public_der);
        let mut pem = format!("-----BEGIN {name}-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.push_str(std::str::from_utf8(line).expect("ASCII"));
            pem.push('\n');
        }
        pem + &format!("-----END {name}-----\n")
    }

    pub fn header(&self) -> Header {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.to_owned());
        header
    }

    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(&self.header(), claims)
    }

    pub fn sign_with(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &self.private).expect("signed")
    }
}
