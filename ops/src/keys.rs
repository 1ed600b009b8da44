//! `meed keys`: the keys that Meed signs tokens with.

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use rand::Rng;

/// What stands before the 32 bytes of an Ed25519 key in PKCS #8 (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Writes a new Ed25519 key to a new file that only its owner can read.
///
/// # Errors
/// When there is such a file, or it cannot be written.
pub fn generate(file: &Path) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut open| open.write_all(pem().as_bytes()))
        .with_context(|| format!("{} cannot be written", file.display()))?;
    println!(
        "{} is written. Name it in auth.own.key_files: last until every api has it, then first.",
        file.display()
    );
    Ok(())
}

fn pem() -> String {
    let mut key = [0_u8; 32];
    rand::rng().fill_bytes(&mut key);
    // 48 bytes are 64 characters: one line, as PEM wants it.
    let line = BASE64_STANDARD.encode([&PKCS8_PREFIX[..], &key].concat());
    format!("-----BEGIN PRIVATE KEY-----\n{line}\n-----END PRIVATE KEY-----\n")
}
