//! A day of a loyalty programme as messages, and what ought to come of it.
//!
//! * [`generate`] makes the day from a seed,
//! * [`feed`] is the file format it is kept in (`samples/day.jsonl.gz`),
//! * [`recompute`] says from the file alone what the ledger must hold afterwards.
//!
//! Nothing here depends on the engine: what the two agree on, they agree on
//! because both follow the programme, not because they share code.

pub mod feed;
pub mod generate;
pub mod recompute;
