//! Tests on the whole stack: real Temporal, PostgreSQL and Kafka, started once for all of them.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where something is missing"
)]

mod journeys;
mod redeem_flow;
mod refused_starts;
mod tier_flow;
