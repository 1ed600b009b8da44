//! The signal to stop.

use tokio::signal::unix::{self, SignalKind};

/// Waits for SIGTERM or SIGINT, and says which it was.
///
/// # Panics
/// When the process may not listen for signals at all.
pub async fn signal() -> &'static str {
    let mut terminate =
        unix::signal(SignalKind::terminate()).expect("a process may listen for SIGTERM");
    let mut interrupt =
        unix::signal(SignalKind::interrupt()).expect("a process may listen for SIGINT");
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
