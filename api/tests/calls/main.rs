//! The calls of the API over a real PostgreSQL, by topic.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod audit;
mod cache;
mod events;
mod idempotency;
mod limits;
mod loyalty;
mod notifications;
mod promotions;
mod query;
mod ranking;
mod rewards;
mod support;
mod transactions;
