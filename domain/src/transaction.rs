//! Transactions: credits and debits that other services ask for by an id of their own.

use std::{collections::BTreeMap, fmt};

use crate::{CustomerId, TransactionId, digest::Digest, money::Amount};

/// The longest description, in characters.
pub const DESCRIPTION_MAX_CHARS: usize = 500;
/// The most entries of additional data.
pub const DATA_MAX_ENTRIES: usize = 32;
/// The longest name of an entry, in characters.
pub const DATA_NAME_MAX_CHARS: usize = 64;
/// The longest value of an entry, in characters.
pub const DATA_VALUE_MAX_CHARS: usize = 1_000;

/// Which way the points go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the customer.
    Credit,
    /// From the customer.
    Debit,
}

impl Direction {
    /// The direction's name on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credit => "CREDIT",
            Self::Debit => "DEBIT",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A transaction that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The service's id of it: the same one again is nothing.
    pub transaction_id: TransactionId,
    /// Whose points.
    pub customer_id: CustomerId,
    /// Which way they go.
    pub direction: Direction,
    /// The worth, above zero, in the programme's default currency.
    pub amount: Amount,
    /// What it is for, in words.
    pub description: String,
    /// Whatever else the service wants to be kept.
    pub additional_data: BTreeMap<String, String>,
}

/// What is wrong with a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Nothing would move.
    #[error("amount is above zero")]
    Amount,
    /// The description is too long, or cannot be kept.
    #[error(
        "description has at most {DESCRIPTION_MAX_CHARS} characters, without control characters \
         but line breaks"
    )]
    Description,
    /// There is too much additional data, or some that cannot be kept.
    #[error(
        "additional_data has at most {DATA_MAX_ENTRIES} entries, with names of 1 to \
         {DATA_NAME_MAX_CHARS} and values of at most {DATA_VALUE_MAX_CHARS} characters, without \
         NUL"
    )]
    AdditionalData,
}

impl Transaction {
    /// The same transaction, once it makes sense.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn checked(self) -> Result<Self, TransactionError> {
        if self.amount == Amount::default() {
            return Err(TransactionError::Amount);
        }
        let cannot_be_shown = |c: char| c.is_control() && c != '\n';
        if self.description.chars().count() > DESCRIPTION_MAX_CHARS
            || self.description.chars().any(cannot_be_shown)
        {
            return Err(TransactionError::Description);
        }
        let fits = |text: &str, most: usize| text.chars().count() <= most && !text.contains('\0');
        let all_fit = self.additional_data.iter().all(|(name, value)| {
            !name.is_empty() && fits(name, DATA_NAME_MAX_CHARS) && fits(value, DATA_VALUE_MAX_CHARS)
        });
        if self.additional_data.len() > DATA_MAX_ENTRIES || !all_fit {
            return Err(TransactionError::AdditionalData);
        }
        Ok(self)
    }

    /// A hash of what is asked for, so that the same id with another body is noticed.
    pub fn body_hash(&self) -> [u8; 32] {
        let mut digest = Digest::new("transaction");
        digest.text(self.transaction_id.as_str());
        digest.text(self.customer_id.as_str());
        digest.text(self.direction.as_str());
        digest.text(&self.amount.to_string());
        digest.text(&self.description);
        digest.texts(&self.additional_data);
        digest.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction() -> Transaction {
        Transaction {
            transaction_id: TransactionId::new("t-1").expect("an id"),
            customer_id: CustomerId::new("c-1").expect("an id"),
            direction: Direction::Credit,
            amount: Amount::parse("12.50").expect("an amount"),
            description: "A refund".to_owned(),
            additional_data: BTreeMap::from([("game".to_owned(), "ROULETTE".to_owned())]),
        }
    }

    /// The hashes are in databases: when this fails, transactions already posted would be taken
    /// for others.
    #[test]
    fn the_hash_stays_what_it_is() {
        let hex = transaction().body_hash().map(|byte| format!("{byte:02x}"));
        assert_eq!(
            hex.concat(),
            "ef397a788a3fc64e6b7b8f5eceb37e59c610a10fdf613b6ee01591a00bf05cce"
        );
    }

    #[test]
    fn every_part_of_a_body_counts() {
        let first = transaction();
        let changes: [fn(&mut Transaction); 7] = [
            |t| t.transaction_id = TransactionId::new("t-2").expect("an id"),
            |t| t.customer_id = CustomerId::new("c-2").expect("an id"),
            |t| t.direction = Direction::Debit,
            |t| t.amount = Amount::parse("12.51").expect("an amount"),
            |t| t.description.push('!'),
            |t| t.additional_data.clear(),
            |t| {
                t.additional_data
                    .insert("game".to_owned(), "POKER".to_owned());
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut other = first.clone();
            change(&mut other);
            assert_ne!(other.body_hash(), first.body_hash(), "change {number}");
        }
        let same = Transaction {
            amount: Amount::parse("12.5").expect("an amount"),
            ..first.clone()
        };
        assert_eq!(same.body_hash(), first.body_hash());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |change: &dyn Fn(&mut Transaction)| {
            let mut transaction = transaction();
            change(&mut transaction);
            transaction.checked().err()
        };
        assert_eq!(refused(&|_| {}), None);
        assert_eq!(
            refused(&|t| t.amount = Amount::default()),
            Some(TransactionError::Amount)
        );
        assert_eq!(
            refused(&|t| t.description = "x".repeat(501)),
            Some(TransactionError::Description)
        );
        for (name, value) in [
            (String::new(), String::new()),
            ("n".repeat(65), String::new()),
            ("n".to_owned(), "v".repeat(1_001)),
            ("n".to_owned(), "\0".to_owned()),
        ] {
            let error = refused(&|t| {
                t.additional_data.insert(name.clone(), value.clone());
            });
            assert_eq!(error, Some(TransactionError::AdditionalData), "{name}");
        }
        let too_many = (0..=DATA_MAX_ENTRIES).map(|n| (n.to_string(), String::new()));
        let too_many: BTreeMap<_, _> = too_many.collect();
        assert_eq!(
            refused(&|t| t.additional_data = too_many.clone()),
            Some(TransactionError::AdditionalData)
        );
    }
}
