//! Finds or builds, starts, watches, kills and stops the parts of a system on one machine: PostgreSQL, Kafka,
//! Temporal with its Web UI, and whatever services are put beside them.
//!
//! The library knows nothing of what those services do. [`Plan`] (read from `dev.toml`) declares them; [`Stack`] runs
//! them. Several stacks stand side by side, each with its own block of ports and its own data directory, and each is
//! ended when its [`Stack`] is dropped or the process that holds it dies.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let stack = stack::Stack::builder().ports(23000).data_dir("/tmp/trial").fresh().start()?;
//! for (name, value) in stack.env() {
//!     println!("{name}={value}");
//! }
//! stack.kill("postgres")?;
//! stack.restart("postgres")?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod builder;
pub mod cache;
pub mod command;
mod component;
mod go_tool;
mod launch;
mod maven;
pub mod places;
mod plan;
mod ports;
pub mod probe;
mod process;
mod progress;
pub mod provision;
mod python;
mod stack;
mod state;
mod template;
pub mod toolchain;
mod versions;

pub use builder::StackBuilder;
pub use component::Component;
pub use nix::sys::signal::Signal;

pub use launch::{Launch, Readiness, Service};
pub use plan::{
    Address, CommandSpec, MonitorSpec, Plan, ServiceSpec, Step, Suite, TestPlan, TestStep,
    Unavailable,
};
pub use ports::Ports;
pub use progress::{Progress, Task};
pub use provision::{Provisioned, provision};
pub use stack::{Change, Health, Stack, Status};
pub use versions::Versions;
