//! The service that acknowledges tier upgrades, simulated.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use simulator::{
    acknowledger::{self, Acknowledger, AcknowledgerMode, AcknowledgerOptions},
    process,
};

/// Reads loyalty.tierUpgraded.v1 and calls Meed back for each message.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Kafka's bootstrap servers.
    #[arg(long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:21020")]
    brokers: String,
    /// Address of Meed's API.
    #[arg(long, env = "MEED_API_URL", default_value = "http://127.0.0.1:21000")]
    api_url: String,
    /// Token with the scope callbacks.write. Without it, tokens come from the dev
    /// profile's /dev/token.
    #[arg(long, env = "MEED_ACK_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// How tier upgrades are acknowledged.
    #[arg(long, value_enum, default_value = "success")]
    mode: AcknowledgerMode,
    /// How late the mode `late` is.
    #[arg(long, default_value_t = 330)]
    late_seconds: u64,
    /// How many messages of a hundred are passed over.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    ignore_percent: u8,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    process::log_json_lines();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meed-acknowledger: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let acknowledger = Acknowledger::new(AcknowledgerOptions {
        api_url: arguments.api_url,
        token: arguments.token.filter(|token| !token.is_empty()),
        mode: arguments.mode,
        lateness: Duration::from_secs(arguments.late_seconds),
        ignore_percent: arguments.ignore_percent,
    })?;
    acknowledger::run(&arguments.brokers, &acknowledger, async {
        if let Err(error) = process::asked_to_end().await {
            tracing::error!(%error, "signals cannot be received");
        }
    })
    .await
    .context("the acknowledger cannot run")
}
