//! The store on a real PostgreSQL: what the ledger promises, tried on the ledger.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where something is missing"
)]

mod callbacks;
mod chain;
mod ledger;
mod outbox;
mod pruning;
mod reconcile;
mod redemptions;
mod support;
mod tiers;
