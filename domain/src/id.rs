//! Identifiers: newtypes that can only hold what every part of the system can carry.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest identifier accepted anywhere, in characters.
pub const ID_MAX_CHARS: usize = 128;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("{what} is empty")]
    Empty {
        /// Which identifier was read.
        what: &'static str,
    },
    /// The text is longer than [`ID_MAX_CHARS`].
    #[error("{what} has {chars} characters, more than {ID_MAX_CHARS}")]
    TooLong {
        /// Which identifier was read.
        what: &'static str,
        /// How long it was.
        chars: usize,
    },
    /// The text holds a control character (NUL, line break, ...) or starts or ends with a space.
    #[error("{what} holds a control character or outer white space")]
    Unprintable {
        /// Which identifier was read.
        what: &'static str,
    },
    /// The text holds a character that this identifier may not have.
    #[error("{what} holds the character {character:?}, which it may not")]
    Forbidden {
        /// Which identifier was read.
        what: &'static str,
        /// The character at fault.
        character: char,
    },
}

fn check(text: &str, what: &'static str, forbidden: &[char]) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { what });
    }
    let chars = text.chars().count();
    if chars > ID_MAX_CHARS {
        return Err(IdError::TooLong { what, chars });
    }
    if text.chars().any(char::is_control) || text.trim() != text {
        return Err(IdError::Unprintable { what });
    }
    // What stands in addresses may not be a step of a path.
    if !forbidden.is_empty() && matches!(text, "." | "..") {
        return Err(IdError::Forbidden {
            what,
            character: '.',
        });
    }
    match text.chars().find(|c| forbidden.contains(c)) {
        Some(character) => Err(IdError::Forbidden { what, character }),
        None => Ok(()),
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $what:literal, $forbidden:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Reads the identifier.
            ///
            /// # Errors
            /// When the text is empty, too long, or holds a character that cannot be carried.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                check(&text, $what, $forbidden)?;
                Ok(Self(text))
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

identifier!(
    /// A customer of the programme. Opaque: never a name or an address.
    CustomerId, "customerId", &[]
);
identifier!(
    /// A merchant at which points are redeemed.
    MerchantId, "merchantId", &['/']
);
identifier!(
    /// An order at a merchant.
    OrderId, "orderId", &[]
);
identifier!(
    /// One business event, as its sender names it.
    EventId, "eventId", &[]
);
identifier!(
    /// What a notification is about, as its sender names it, such as PROMOTION.
    NotificationKind, "eventType", &[]
);
identifier!(
    /// One redemption, as its client names it. It stands in addresses and is the id of the
    /// redemption's workflow; since every other workflow id has a slash and this has none, the
    /// two can never meet.
    RedeemRequestId, "redeemRequestId", &['/']
);
identifier!(
    /// A promotion.
    PromotionId, "promotionId", &['/']
);
identifier!(
    /// One job that assigns a promotion to players.
    AssignmentJobId, "jobId", &['/']
);
identifier!(
    /// One credit or debit that another service asks for, as that service names it.
    TransactionId, "transactionId", &[]
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_cannot_be_carried() {
        assert!(matches!(CustomerId::new(""), Err(IdError::Empty { .. })));
        assert!(matches!(
            CustomerId::new("x".repeat(129)),
            Err(IdError::TooLong { chars: 129, .. })
        ));
        assert!(matches!(
            CustomerId::new("a\0b"),
            Err(IdError::Unprintable { .. })
        ));
        assert!(matches!(
            CustomerId::new(" a"),
            Err(IdError::Unprintable { .. })
        ));
        assert!(matches!(
            RedeemRequestId::new("award/orders"),
            Err(IdError::Forbidden { character: '/', .. })
        ));
        for step in [".", ".."] {
            assert!(matches!(
                RedeemRequestId::new(step),
                Err(IdError::Forbidden { character: '.', .. })
            ));
        }
        assert!(CustomerId::new("ü".repeat(128)).is_ok());
    }
}
