//! Logs: JSON lines, readable ones in the dev profile. `RUST_LOG` chooses what is logged.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::Profile;

/// What is logged when `RUST_LOG` is not set.
const DEV_FILTER: &str = "info,sqlx=warn,temporalio_sdk=warn,temporalio_sdk_core=warn";
/// The same elsewhere: slow statements are logged with their SQL, which is for developers.
const PRODUCTION_FILTER: &str = "info,sqlx=error,temporalio_sdk=warn,temporalio_sdk_core=warn";

/// Turns logging on, for the whole process. A second call changes nothing.
pub fn init(profile: Profile) {
    let default = match profile {
        Profile::Dev => DEV_FILTER,
        Profile::Production => PRODUCTION_FILTER,
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let registry = tracing_subscriber::registry().with(filter);
    let _ = match profile {
        Profile::Dev => {
            let colours = std::io::stdout().is_terminal();
            registry
                .with(fmt::layer().compact().with_ansi(colours))
                .try_init()
        }
        Profile::Production => {
            let json = fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(true);
            registry.with(json.with_span_list(false)).try_init()
        }
    };
    if let Some(faults) = faultpoint::armed() {
        tracing::warn!(faults, "this process is made to fail, for a test");
    }
}
