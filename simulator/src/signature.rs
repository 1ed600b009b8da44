//! The signature that travels with every request between Meed and a merchant,
//! in both directions, as `docs/partner-protocol.md` describes it.

use axum::http::HeaderMap;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Header with the Unix time, in seconds, at which the request was signed.
pub const TIMESTAMP_HEADER: &str = "meed-timestamp";
/// Header with the signature, `v1=` and 64 hexadecimal digits.
pub const SIGNATURE_HEADER: &str = "meed-signature";
/// How far the signer's clock may be from ours, either way.
pub const TOLERANCE_SECONDS: i64 = 300;

const VERSION_PREFIX: &str = "v1=";

/// Why a request was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// One of the two headers is missing or cannot be read.
    #[error("the headers Meed-Timestamp and Meed-Signature are required")]
    Missing,
    /// The timestamp is too far from the present.
    #[error("the timestamp is more than {TOLERANCE_SECONDS} seconds away from the present")]
    Stale,
    /// The signature is not the one that this key gives.
    #[error("the signature does not match the timestamp and the body")]
    Mismatch,
}

impl SignatureError {
    /// The stable code that the 401 answer carries.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Missing => "SIGNATURE_MISSING",
            Self::Stale => "TIMESTAMP_OUT_OF_TOLERANCE",
            Self::Mismatch => "SIGNATURE_INVALID",
        }
    }
}

/// The value of `Meed-Signature` for a body signed at a Unix time in seconds.
pub fn sign(key: &str, timestamp: i64, body: &[u8]) -> String {
    let digest = keyed(key, timestamp, body).finalize().into_bytes();
    format!("{VERSION_PREFIX}{}", hex::encode(digest))
}

/// Checks the two headers of a request against its raw body.
///
/// # Errors
/// [`SignatureError`], in the order in which its variants are declared.
pub fn verify(key: &str, headers: &HeaderMap, body: &[u8], now: i64) -> Result<(), SignatureError> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let timestamp: i64 = header(TIMESTAMP_HEADER)
        .and_then(|text| text.parse().ok())
        .ok_or(SignatureError::Missing)?;
    let signature = header(SIGNATURE_HEADER).ok_or(SignatureError::Missing)?;
    if now.saturating_sub(timestamp).saturating_abs() > TOLERANCE_SECONDS {
        return Err(SignatureError::Stale);
    }
    let digest = signature
        .strip_prefix(VERSION_PREFIX)
        .and_then(|digits| hex::decode(digits).ok())
        .ok_or(SignatureError::Mismatch)?;
    keyed(key, timestamp, body)
        .verify_slice(&digest)
        .map_err(|_| SignatureError::Mismatch)
}

fn keyed(key: &str, timestamp: i64, body: &[u8]) -> Hmac<Sha256> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOCOL_PAGE: &str = include_str!("../../docs/partner-protocol.md");
    const KEY: &str = "dev-key-M1";
    const TIMESTAMP: i64 = 1_793_534_400;
    const CALLBACK_TIMESTAMP: i64 = TIMESTAMP + 60;
    const CALLBACK_BODY: &str = r#"{"status":"CONFIRMED","confirmationId":"C-9001"}"#;
    const BODY: &str = r#"{"redeemRequestId":"R-1001","orderId":"ORD-77","points":250,"callbackUrl":"http://127.0.0.1:21000/api/v1/partner-callbacks/cb_5f0c"}"#;

    fn headers(timestamp: &str, signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = |text: &str| text.parse().expect("a header value");
        headers.insert(TIMESTAMP_HEADER, value(timestamp));
        headers.insert(SIGNATURE_HEADER, value(signature));
        headers
    }

    #[test]
    fn the_worked_examples_in_the_protocol_page_are_right() {
        for (timestamp, body) in [(TIMESTAMP, BODY), (CALLBACK_TIMESTAMP, CALLBACK_BODY)] {
            let signature = sign(KEY, timestamp, body.as_bytes());
            let example =
                format!("Meed-Timestamp: {timestamp}\nMeed-Signature: {signature}\n\n{body}\n");
            assert!(PROTOCOL_PAGE.contains(&example), "the page shows {example}");
        }
        let empty = sign(KEY, TIMESTAMP, b"");
        assert!(PROTOCOL_PAGE.contains(&empty), "the page shows {empty}");
    }

    #[test]
    fn an_untouched_request_is_believed() {
        let signature = sign(KEY, TIMESTAMP, BODY.as_bytes());
        let headers = headers(&TIMESTAMP.to_string(), &signature);
        assert_eq!(verify(KEY, &headers, BODY.as_bytes(), TIMESTAMP), Ok(()));
    }

    #[test]
    fn another_body_key_or_timestamp_is_not() {
        let signature = sign(KEY, TIMESTAMP, BODY.as_bytes());
        let signed = headers(&TIMESTAMP.to_string(), &signature);
        let mismatch = Err(SignatureError::Mismatch);
        assert_eq!(verify(KEY, &signed, b"{}", TIMESTAMP), mismatch);
        assert_eq!(
            verify("dev-key-M2", &signed, BODY.as_bytes(), TIMESTAMP),
            mismatch
        );
        let moved = headers(&(TIMESTAMP + 1).to_string(), &signature);
        assert_eq!(verify(KEY, &moved, BODY.as_bytes(), TIMESTAMP), mismatch);
        let unversioned = headers(&TIMESTAMP.to_string(), &signature[3..]);
        assert_eq!(
            verify(KEY, &unversioned, BODY.as_bytes(), TIMESTAMP),
            mismatch
        );
    }

    #[test]
    fn the_tolerance_holds_either_way() {
        let signature = sign(KEY, TIMESTAMP, b"");
        let headers = headers(&TIMESTAMP.to_string(), &signature);
        for (now, expected) in [
            (TIMESTAMP + 300, Ok(())),
            (TIMESTAMP - 300, Ok(())),
            (TIMESTAMP + 301, Err(SignatureError::Stale)),
            (TIMESTAMP - 301, Err(SignatureError::Stale)),
        ] {
            assert_eq!(verify(KEY, &headers, b"", now), expected, "at {now}");
        }
    }

    #[test]
    fn missing_or_unreadable_headers_are_named() {
        let missing = Err(SignatureError::Missing);
        assert_eq!(verify(KEY, &HeaderMap::new(), b"", TIMESTAMP), missing);
        let unreadable = headers("yesterday", &sign(KEY, TIMESTAMP, b""));
        assert_eq!(verify(KEY, &unreadable, b"", TIMESTAMP), missing);
    }
}
