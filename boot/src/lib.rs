//! What every process of Meed starts with: configuration, telemetry, connections, and an end that
//! says why.

pub mod claim;
pub mod codec;
pub mod customer;
pub mod database;
pub mod descriptors;
pub mod kafka;
pub mod listen;
mod memory;
pub mod metrics;
pub mod password;
pub mod process;
pub mod programme;
pub mod redeem;
pub mod redis;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod temporal;
mod version;
mod waiting;
pub mod watch;
pub mod web_ui;

pub use customer::customer_key;
pub use programme::LiveProgramme;
pub use settings::{Profile, Settings};
pub use version::version;
