//! Tests on the whole stack: real Temporal, PostgreSQL and Kafka, started once for all of them.

mod batch_flow;
mod journeys;
mod redeem_flow;
mod refused_starts;
mod tier_flow;
