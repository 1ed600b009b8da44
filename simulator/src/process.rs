//! What both programs need from the operating system: logs, signals, TLS.

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// What is logged when `RUST_LOG` does not say. The Kafka client reports its errors
/// twice by itself; the consumer reports them once more, and that is enough.
const DEFAULT_LOG_FILTER: &str = "info,librdkafka=off,rdkafka::client=off";

/// Writes log records as JSON lines to standard error, at the level that
/// `RUST_LOG` names, or `info`.
pub fn log_json_lines() {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG_FILTER));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

/// Completes when the process is asked to end, by `SIGTERM` or Ctrl-C.
///
/// # Errors
/// When the signal handlers cannot be installed.
pub async fn asked_to_end() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Chooses the process's TLS implementation, which the HTTP client needs before
/// it can be built. A choice that was made earlier stays.
pub fn choose_tls_provider() {
    // The error only says that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
