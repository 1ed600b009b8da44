//! What reconciliation compares with what.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Two records of the same things, kept apart, that must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// What came over Kafka, and what the ledger has of it.
    Events,
    /// The transfers, and the balances projected from them.
    Balances,
    /// What happened in the ledger, and what the world was told of it.
    Confirmations,
    /// Points held and orders open, and the flows that are at work on them.
    Flows,
    /// What merchants have in their books, and how redemptions ended.
    Partners,
}

impl Comparison {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Events,
        Self::Balances,
        Self::Confirmations,
        Self::Flows,
        Self::Partners,
    ];

    /// The comparison's name in the database and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Balances => "balances",
            Self::Confirmations => "confirmations",
            Self::Flows => "flows",
            Self::Partners => "partners",
        }
    }

    /// Reads a comparison's name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str() == name)
    }

    /// What is compared with what, in words.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Events => "Kafka events against ledger",
            Self::Balances => "ledger against balances",
            Self::Confirmations => "ledger against confirmations",
            Self::Flows => "holds against open workflows",
            Self::Partners => "partner book against redemptions",
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
