//! The store on a real PostgreSQL: what the ledger promises, tried on the ledger.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where something is missing"
)]

mod assignments;
mod callbacks;
mod chain;
mod claims;
mod ledger;
mod notifications;
mod outbox;
mod pictures;
mod promotions;
mod pruning;
mod ranking;
mod reconcile;
mod redemptions;
mod story;
mod support;
mod tiers;
mod transactions;
