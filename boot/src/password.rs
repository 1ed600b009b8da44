//! Hashes of passwords and client secrets: argon2id.

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::Rng;

use crate::settings::PasswordSettings;

/// Makes and checks hashes. Both take tens of milliseconds and megabytes by design: not for a
/// thread that serves others.
#[derive(Debug, Clone)]
pub struct Hasher {
    argon2: Argon2<'static>,
}

impl Hasher {
    /// A hasher with the costs of the configuration.
    ///
    /// # Errors
    /// When argon2 cannot work with such costs.
    pub fn new(settings: &PasswordSettings) -> anyhow::Result<Self> {
        let params = Params::new(
            settings.memory_kib,
            settings.iterations,
            settings.parallelism,
            None,
        )
        .map_err(|error| anyhow::anyhow!("[auth.passwords] cannot be used: {error}"))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        Ok(Self { argon2 })
    }

    /// A hash with a salt of its own, in the PHC format.
    ///
    /// # Errors
    /// When no random numbers can be had.
    pub fn hash(&self, password: &str) -> anyhow::Result<String> {
        let hash = self
            .argon2
            .hash_password(password.as_bytes())
            .map_err(|error| anyhow::anyhow!("a password could not be hashed: {error}"))?;
        Ok(hash.to_string())
    }

    /// Whether the password is the one of the hash, with the costs that the hash names.
    pub fn verify(&self, password: &str, hash: &str) -> bool {
        self.argon2
            .verify_password(password.as_bytes(), hash)
            .is_ok()
    }

    /// Whether the hash was made with other costs than new ones are.
    pub fn is_outdated(&self, hash: &str) -> bool {
        let params = self.argon2.params();
        let costs = format!(
            "$argon2id$v=19$m={},t={},p={}$",
            params.m_cost(),
            params.t_cost(),
            params.p_cost()
        );
        !hash.starts_with(&costs)
    }
}

/// A secret that cannot be guessed: 256 random bits of the operating system, in URL-safe base64.
pub fn secret() -> String {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_salted_and_names_its_costs() {
        let cheap = PasswordSettings {
            memory_kib: 64,
            iterations: 1,
            ..PasswordSettings::default()
        };
        let hasher = Hasher::new(&cheap).expect("costs");
        let hash = hasher.hash("correct horse battery").expect("a hash");
        assert!(hash.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{hash}");
        assert_ne!(hash, hasher.hash("correct horse battery").expect("a hash"));
        assert!(hasher.verify("correct horse battery", &hash));
        assert!(!hasher.verify("correct horse batterx", &hash));
        assert!(!hasher.verify("correct horse battery", "no hash"));
        let now = Hasher::new(&PasswordSettings::default()).expect("costs");
        assert!(now.is_outdated(&hash) && !hasher.is_outdated(&hash));
        assert!(
            now.verify("correct horse battery", &hash),
            "costs stand in the hash"
        );
    }

    #[test]
    fn secrets_have_256_bits() {
        let (one, other) = (secret(), secret());
        assert_eq!(one.len(), 43);
        assert_ne!(one, other);
    }
}
