//! How often may be guessed: attempts are taken from buckets in the database before anything is
//! checked, so that many at once are no way around, and given back when they were right.

use std::{net::IpAddr, time::Duration};

use boot::settings::ThrottleSettings;
use sha2::{Digest, Sha256};
use store::{
    PgPool,
    attempts::{self, Bucket, Taken},
};

use crate::{error::ApiError, measures};

/// The attempts that were taken for one request.
#[derive(Debug)]
pub(crate) struct Attempt {
    buckets: Vec<Bucket>,
}

/// The address as it is counted: of IPv6 the network, of which one household or host has many
/// addresses.
pub(crate) fn counted(address: Option<&str>) -> String {
    match address.and_then(|address| address.parse().ok()) {
        Some(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_none() => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        _ => address.unwrap_or("unknown").to_owned(),
    }
}

/// What is kept of an address.
pub(crate) fn address_hash(address: Option<&str>) -> [u8; 32] {
    Sha256::digest(counted(address)).into()
}

fn name(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().into()
}

fn bucket(settings: &ThrottleSettings, kind: &'static str, name: [u8; 32], holds: u32) -> Bucket {
    Bucket {
        kind,
        name,
        holds,
        refill: Duration::from_secs(settings.refill_seconds),
    }
}

/// Takes an attempt to log in. `at_home` says that the user has logged in from this address before:
/// then what others guess elsewhere does not count, or they could lock the user out.
pub(crate) async fn login(
    pool: &PgPool,
    settings: &ThrottleSettings,
    account: &str,
    address: Option<&str>,
    at_home: bool,
) -> Result<Attempt, ApiError> {
    let address = counted(address);
    let mut buckets = vec![
        bucket(
            settings,
            "login-address",
            name(&[&address]),
            settings.failures_per_address,
        ),
        bucket(
            settings,
            "login-account-address",
            name(&[account, &address]),
            settings.failures_per_account_and_address,
        ),
    ];
    if !at_home {
        buckets.push(bucket(
            settings,
            "login-account",
            name(&[account]),
            settings.failures_per_account,
        ));
    }
    take(pool, buckets).await
}

/// Takes an attempt of a client to prove itself.
pub(crate) async fn client(
    pool: &PgPool,
    settings: &ThrottleSettings,
    client: &str,
    address: Option<&str>,
) -> Result<Attempt, ApiError> {
    let address = counted(address);
    let buckets = vec![
        bucket(
            settings,
            "client-address",
            name(&[&address]),
            settings.failures_per_address,
        ),
        bucket(
            settings,
            "client-pair",
            name(&[client, &address]),
            settings.failures_per_account_and_address,
        ),
    ];
    take(pool, buckets).await
}

/// Takes a registration; it is not given back.
pub(crate) async fn registration(
    pool: &PgPool,
    settings: &ThrottleSettings,
    address: Option<&str>,
) -> Result<(), ApiError> {
    let bucket = bucket(
        settings,
        "registration",
        name(&[&counted(address)]),
        settings.registrations_per_address,
    );
    take(pool, vec![bucket]).await.map(drop)
}

async fn take(pool: &PgPool, buckets: Vec<Bucket>) -> Result<Attempt, ApiError> {
    match attempts::take(pool, &buckets).await? {
        Taken::Yes => Ok(Attempt { buckets }),
        Taken::After(wait) => {
            measures::attempt_refused(buckets[0].kind);
            Err(ApiError::TooManyAttempts(wait))
        }
    }
}

impl Attempt {
    /// Gives the attempt back: it was right.
    pub(crate) async fn was_right(self, pool: &PgPool) -> Result<(), ApiError> {
        Ok(attempts::give_back(pool, &self.buckets).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_with_its_network() {
        assert_eq!(counted(Some("192.0.2.7")), "192.0.2.7");
        assert_eq!(counted(Some("2001:db8:1:2:3:4:5:6")), "2001:db8:1:2::/64");
        assert_eq!(
            address_hash(Some("2001:db8:1:2::1")),
            address_hash(Some("2001:db8:1:2:ffff::9"))
        );
        assert_ne!(
            address_hash(Some("2001:db8:1:2::1")),
            address_hash(Some("2001:db8:1:3::1"))
        );
        assert_ne!(name(&["ab", "c"]), name(&["a", "bc"]));
    }
}
