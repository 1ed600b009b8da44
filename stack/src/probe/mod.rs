//! Asks each component, in its own protocol, whether it serves.

mod kafka;
mod postgres;

use std::time::Duration;

use anyhow::{Result, ensure};

pub use self::kafka::kafka_answers;
pub use self::postgres::{PostgresAddress, query};

const LIMIT: Duration = Duration::from_secs(2);

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(LIMIT))
        .http_status_as_error(false)
        .proxy(None);
    config.build().into()
}

/// An HTTP `GET` that must be answered with a success.
pub fn http_answers(url: &str) -> Result<()> {
    let status = agent().get(url).call()?.status();
    ensure!(status.is_success(), "{url} answered {status}");
    Ok(())
}

/// An HTTP `POST` of JSON; returns the status.
pub(crate) fn http_post(url: &str, body: &serde_json::Value) -> Result<u16> {
    Ok(agent().post(url).send_json(body)?.status().as_u16())
}
