//! What is asked for.

use clap::{Parser, ValueEnum};

/// Measures Meed on a stack of its own, beside baselines of the same run.
#[derive(Debug, Clone, Parser)]
#[command(name = "bench", about)]
pub struct Options {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    pub what: What,
    /// How many rounds; each measures Meed and every baseline once
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// The part of the usual amounts, for a quick look: 0.1 for a tenth
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
    /// The first port of the block in which the stack runs
    #[arg(long, default_value_t = 28_000)]
    pub port_base: u16,
}

impl Options {
    /// So many, at this scale; at least one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "amounts of a measurement are small and positive"
    )]
    pub fn scaled(&self, amount: usize) -> usize {
        ((amount as f64 * self.scale) as usize).max(1)
    }
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Events on Kafka until they are in the ledger and confirmed on Kafka
    Award,
    /// Requests until the merchant has confirmed and the points are deducted
    Redeem,
    /// Balances over HTTP
    Read,
    /// Looking up ranks among five million customers
    Ranking,
    /// Ten thousand open sockets on one process
    Sockets,
    /// All of the above
    All,
    /// The rates as the ledger grows to ten million rows
    Growth,
    /// The cost of an operation with one, two and four workers
    Scale,
}

impl What {
    /// Its parts in the order in which they are measured.
    pub fn parts(self) -> Vec<Self> {
        match self {
            Self::All => vec![
                Self::Award,
                Self::Redeem,
                Self::Read,
                Self::Ranking,
                Self::Sockets,
            ],
            one => vec![one],
        }
    }

    /// Its name, also of its file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Award => "award",
            Self::Redeem => "redeem",
            Self::Read => "read",
            Self::Ranking => "ranking",
            Self::Sockets => "sockets",
            Self::All => "all",
            Self::Growth => "growth",
            Self::Scale => "scale",
        }
    }
}
