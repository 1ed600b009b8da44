//! The signature of the partner protocol: HMAC-SHA256 over timestamp and body, a key per
//! merchant. `docs/partner-protocol.md` is its description.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Header with the Unix time, in whole seconds.
pub const TIMESTAMP_HEADER: &str = "meed-timestamp";
/// Header with the signature.
pub const SIGNATURE_HEADER: &str = "meed-signature";
/// How far a timestamp may be from this side's clock, in seconds.
pub const TOLERANCE_SECONDS: i64 = 300;

/// Why a signature does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The timestamp is not whole seconds.
    #[error("the timestamp is not a Unix time in whole seconds")]
    Timestamp,
    /// The timestamp is too far from this side's clock.
    #[error("the timestamp is more than {TOLERANCE_SECONDS} seconds from now")]
    Stale,
    /// The signature is not that of this body and key.
    #[error("the signature does not match")]
    Mismatch,
}

/// Signs a body.
///
/// # Panics
/// Never: HMAC takes a key of any length.
pub fn sign(key: &[u8], timestamp: i64, body: &[u8]) -> String {
    format!(
        "v1={}",
        hex::encode(
            mac(key, &timestamp.to_string(), body)
                .finalize()
                .into_bytes()
        )
    )
}

/// Checks a signature, in constant time.
///
/// # Errors
/// Why it does not count.
pub fn verify(
    key: &[u8],
    timestamp: &str,
    signature: &str,
    body: &[u8],
    now: i64,
) -> Result<(), SignatureError> {
    let at: i64 = timestamp.parse().map_err(|_| SignatureError::Timestamp)?;
    let digest = signature
        .strip_prefix("v1=")
        .and_then(|digits| hex::decode(digits).ok())
        .ok_or(SignatureError::Mismatch)?;
    mac(key, timestamp, body)
        .verify_slice(&digest)
        .map_err(|_| SignatureError::Mismatch)?;
    if now.abs_diff(at) > TOLERANCE_SECONDS.unsigned_abs() {
        return Err(SignatureError::Stale);
    }
    Ok(())
}

fn mac(key: &[u8], timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of `docs/partner-protocol.md`.
    #[test]
    fn signs_as_the_protocol_page_says() {
        let signature = sign(b"dev-key-M1", 1_793_534_400, b"");
        assert_eq!(
            signature,
            "v1=73d5f4e7517e52603e14ba31f78c952ac293912a7839d322cad5548c594721c6"
        );
    }

    #[test]
    fn refuses_another_key_body_or_time() {
        let signature = sign(b"key", 1_000, b"body");
        assert_eq!(verify(b"key", "1000", &signature, b"body", 1_300), Ok(()));
        assert_eq!(
            verify(b"key", "1000", &signature, b"body", 1_301),
            Err(SignatureError::Stale)
        );
        assert_eq!(
            verify(b"other", "1000", &signature, b"body", 0),
            Err(SignatureError::Mismatch)
        );
        assert_eq!(
            verify(b"key", "1001", &signature, b"body", 0),
            Err(SignatureError::Mismatch)
        );
        assert_eq!(
            verify(b"key", "1000", &signature, b"bodi", 0),
            Err(SignatureError::Mismatch)
        );
        assert_eq!(
            verify(b"key", "soon", &signature, b"body", 0),
            Err(SignatureError::Timestamp)
        );
        assert_eq!(
            verify(b"key", "1000", "v1=zz", b"body", 0),
            Err(SignatureError::Mismatch)
        );
    }
}
