//! What reconciliation reads and repairs, one file per comparison, and what it remembers.

pub mod balances;
pub mod confirmations;
pub mod events;
pub mod findings;
pub mod flows;
pub mod marks;
pub mod partners;
pub mod runs;
