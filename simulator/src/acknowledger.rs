//! The service that is told of tier upgrades and acknowledges them.
//!
//! It reads `loyalty.tierUpgraded.v1` and calls Meed back for each message, in
//! one of several ways, so that each branch of the tier upgrade can be seen.

mod answering;
mod consuming;
mod token;

use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;

pub use answering::{Acknowledger, AcknowledgerError, Outcome};
pub use consuming::run;

/// The topic that tier upgrades are announced on.
pub const TOPIC: &str = "loyalty.tierUpgraded.v1";
/// The consumer group of the acknowledger.
pub const GROUP: &str = "meed-acknowledger";

/// How tier upgrades are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AcknowledgerMode {
    /// Says that the customer was told.
    Success,
    /// Says that the customer could not be told.
    Failure,
    /// Reads the message and says nothing.
    Silent,
    /// Says that the customer was told, after the lateness.
    Late,
}

/// What the acknowledger knows from the start.
#[derive(Clone, Debug)]
pub struct AcknowledgerOptions {
    /// Where Meed's API is, without a path.
    pub api_url: String,
    /// A token with the scope `callbacks.write`. Without one, tokens come from the
    /// dev profile's `/dev/token`.
    pub token: Option<String>,
    /// How to acknowledge.
    pub mode: AcknowledgerMode,
    /// How late `late` is.
    pub lateness: Duration,
    /// How many messages of a hundred are passed over, by a hash of the callback
    /// id, so that a message that comes twice is treated the same way twice.
    pub ignore_percent: u8,
}

/// What the acknowledger reads of a tier upgrade message; the rest is for others.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierUpgraded {
    /// The customer.
    pub user_id: String,
    /// The tier reached.
    pub new_tier: String,
    /// The single-use id under which Meed waits for the answer.
    pub callback_id: String,
}
