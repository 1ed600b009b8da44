//! Tests on the whole stack: real Temporal, PostgreSQL and Kafka, started once for all of them.

mod api_contract;
mod api_guide;
mod api_journeys;
mod api_system;
mod batch_flow;
mod browser;
mod commands;
mod dead_letters;
mod journeys;
mod observability;
mod outbox;
mod page;
mod promotion_flow;
mod promotion_journeys;
mod pruning;
mod ranking;
mod reconcile;
mod redeem_flow;
mod refused_starts;
mod swagger_ui;
mod telemetry;
mod tier_flow;
mod tls;
mod upgrade;
mod verify_command;
