//! The hash chain over the transfers, which shows whether what was posted still stands as it was.
//!
//! The hash of a transfer is
//!
//! ```text
//! SHA-256( hash of the sealed transfer before it, by transfer_id   (32 bytes; zeros for the first)
//!        | for each column that is not NULL, in the order of the table:
//!          length of its name  (8 bytes, big-endian) | its name
//!          length of its value (8 bytes, big-endian) | its value )
//! ```
//!
//! with values as PostgreSQL writes them as text, in UTF-8; an instant is the seconds since 1970 in
//! UTC with six decimals. Lengths and names leave no two rows with the same bytes. A column that is
//! NULL is left out, so that a column added later, NULL in what was sealed before, leaves those
//! hashes as they are.
//!
//! [`seal`] adds to the chain, [`check`] recomputes it. Whoever can write to both tables can make
//! the whole chain anew: that is seen against a [`Head`] that was noted elsewhere.

mod check;
mod seal;

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};
use sqlx::PgPool;

pub(crate) use check::check_on;
pub use check::{Fault, Findings, Violation, check};
pub use seal::{Sealed, seal};

use crate::Error;

/// The columns of `transfers`, in the order of the table.
pub const COLUMNS: [&str; 17] = [
    "transfer_id",
    "source",
    "source_event_id",
    "leg",
    "debit_account",
    "credit_account",
    "customer_id",
    "merchant_id",
    "amount",
    "reason",
    "workflow_id",
    "rule_set_version",
    "customer_version",
    "available_after",
    "held_after",
    "occurred_at",
    "posted_at",
];

/// The values of [`COLUMNS`] of a transfer `t`, in SQL.
macro_rules! values {
    () => {
        "ARRAY[t.transfer_id::text, t.source, t.source_event_id, t.leg, t.debit_account::text,
               t.credit_account::text, t.customer_id, t.merchant_id, t.amount::text, t.reason,
               t.workflow_id, t.rule_set_version, t.customer_version::text,
               t.available_after::text, t.held_after::text,
               extract(epoch FROM t.occurred_at)::text, extract(epoch FROM t.posted_at)::text]"
    };
}
use values;

/// The values of a transfer's columns, as text.
type Values = Vec<Option<String>>;

/// What stands before the first transfer.
const BEGINNING: [u8; 32] = [0; 32];

/// The hash of a transfer with these values after the one with the hash `previous`.
fn link(previous: &[u8], values: &Values) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(previous);
    for (name, value) in COLUMNS.iter().zip(values) {
        let Some(value) = value else { continue };
        for part in [name.as_bytes(), value.as_bytes()] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    digest.finalize().into()
}

/// The end of the chain at some time: as long as it is found in the chain again, nothing up to it
/// has changed since. Written as `ID:HASH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The last transfer that was sealed.
    pub transfer_id: i64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl Head {
    /// The hash in hexadecimal.
    pub fn hex(&self) -> String {
        hex::encode(self.hash)
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transfer_id, self.hex())
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is not ID:HASH with a hash of 64 hexadecimal digits");
        let (transfer_id, hash) = text.trim().split_once(':').ok_or_else(wrong)?;
        let mut head = Self {
            transfer_id: transfer_id.parse().map_err(|_| wrong())?,
            hash: BEGINNING,
        };
        hex::decode_to_slice(hash, &mut head.hash).map_err(|_| wrong())?;
        Ok(head)
    }
}

/// What is not sealed yet.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Unsealed {
    /// How many transfers.
    pub transfers: i64,
    /// How long ago the first of them was posted, in seconds.
    pub oldest_age_seconds: f64,
}

/// How much is not sealed yet, for the metrics.
///
/// # Errors
/// What the database reports.
pub async fn unsealed(pool: &PgPool) -> Result<Unsealed, Error> {
    let (transfers, oldest_age_seconds): (i64, f64) = sqlx::query_as(
        "WITH front AS (SELECT coalesce(max(transfer_id), 0) AS sealed FROM transfer_hashes)
         SELECT (SELECT count(*) FROM transfers, front WHERE transfer_id > sealed),
                coalesce(extract(epoch FROM clock_timestamp() - (
                    SELECT posted_at FROM transfers, front WHERE transfer_id > sealed
                    ORDER BY transfer_id LIMIT 1)), 0)::float8",
    )
    .fetch_one(pool)
    .await?;
    Ok(Unsealed {
        transfers,
        oldest_age_seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(set: &[(usize, &str)]) -> Values {
        let mut values = vec![None; COLUMNS.len()];
        for (at, value) in set {
            values[*at] = Some((*value).to_owned());
        }
        values
    }

    #[test]
    fn no_two_transfers_have_the_same_bytes() {
        let of = |set: &[(usize, &str)]| link(&BEGINNING, &values(set));
        assert_ne!(of(&[(1, "ab"), (2, "c")]), of(&[(1, "a"), (2, "bc")]));
        assert_ne!(
            of(&[(7, "m")]),
            of(&[(11, "m")]),
            "which column it is counts"
        );
        assert_ne!(of(&[(7, "")]), of(&[]), "empty is not nothing");
        assert_ne!(of(&[(1, "a")]), link(&[1; 32], &values(&[(1, "a")])));
    }

    /// Computed elsewhere: the encoding never changes.
    #[test]
    fn the_encoding_is_the_one_that_is_documented() {
        let mut bytes = vec![0_u8; 32];
        for part in ["transfer_id", "12", "leg", "award"] {
            bytes.extend([
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                u8::try_from(part.len()).expect("short"),
            ]);
            bytes.extend(part.bytes());
        }
        let expected: [u8; 32] = Sha256::digest(bytes).into();
        assert_eq!(
            link(&BEGINNING, &values(&[(0, "12"), (3, "award")])),
            expected
        );
    }

    #[test]
    fn a_head_is_written_and_read() {
        let head = Head {
            transfer_id: 12,
            hash: [0xab; 32],
        };
        assert_eq!(head.to_string(), format!("12:{}", "ab".repeat(32)));
        assert_eq!(head.to_string().parse(), Ok(head));
        for wrong in [
            "",
            "12",
            "12:",
            "12:abcd",
            "x:abcd",
            &format!("12:{}", "g".repeat(64)),
        ] {
            assert!(wrong.parse::<Head>().is_err(), "{wrong}");
        }
    }
}
