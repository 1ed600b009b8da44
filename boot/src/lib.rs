//! What every process of Meed starts with: configuration, logging, connections, and an end that
//! says why.

pub mod claim;
pub mod customer;
pub mod database;
pub mod descriptors;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod password;
pub mod process;
pub mod programme;
pub mod redeem;
pub mod redis;
pub mod settings;
pub mod shutdown;
pub mod temporal;
mod waiting;
pub mod web_ui;

pub use customer::customer_key;
pub use programme::LiveProgramme;
pub use settings::{Profile, Settings};
