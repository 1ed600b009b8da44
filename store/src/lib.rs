//! All SQL, by aggregate. Named constraints become typed errors.
//!
//! Everything that changes a customer's points locks that customer's row first, in the order of
//! the customer id; a redemption's row is locked before its customer's. Knows nothing of Temporal,
//! Kafka or HTTP.

pub mod adjustments;
pub mod assignments;
pub mod attempts;
pub mod audit;
pub mod callbacks;
pub mod chain;
pub mod claims;
pub mod clients;
pub mod dead_letters;
mod error;
pub mod events;
pub mod health;
pub mod history;
pub mod idempotency;
pub mod ledger;
pub mod notifications;
pub mod outbox;
pub mod pictures;
mod posting;
pub mod promotions;
pub mod pruning;
pub mod ranking;
pub mod reconcile;
pub mod redemptions;
pub mod relay;
pub mod sessions;
pub mod story;
pub mod testing;
pub mod tiers;
pub mod trace;
pub mod transaction;
pub mod transactions;
pub mod turn;
pub mod users;
pub mod verify;
mod writers;

pub use error::Error;
pub use sqlx::{PgConnection, PgPool};

/// A transaction that outlives the call it was begun in.
pub type Transaction = sqlx::Transaction<'static, sqlx::Postgres>;

/// The schema, embedded.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");
