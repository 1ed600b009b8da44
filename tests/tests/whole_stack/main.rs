//! Tests on the whole stack: real Temporal, PostgreSQL and Kafka, started once for all of them.

mod redeem_flow;
mod tier_flow;
