//! What tests ask of flows: asked again where the server is only too slow to answer.

use std::time::{Duration, Instant};

use temporalio_client::errors::{WorkflowGetResultError, WorkflowInteractionError};

use crate::system::PATIENCE;

/// How long a flow may take that fails and is repeated many times beside others.
const TO_ITS_END: Duration = Duration::from_secs(600);

/// Waits for the result of a flow. `ask` waits for it once.
///
/// # Panics
/// When it does not end well in time.
pub async fn result_of<T>(ask: impl AsyncFn() -> Result<T, WorkflowGetResultError>) -> T {
    let asked = async {
        loop {
            match ask().await {
                Err(WorkflowGetResultError::Rpc(status)) => {
                    eprintln!("the result is asked for again: {status}");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                result => return result.expect("it ends well"),
            }
        }
    };
    tokio::time::timeout(TO_ITS_END, asked)
        .await
        .expect("it ends in time")
}

/// Sends a signal until it has arrived, or there is nobody any more to whom it could.
///
/// # Panics
/// When it cannot be sent.
pub async fn signalled(send: impl AsyncFn() -> Result<(), WorkflowInteractionError>) {
    let started = Instant::now();
    loop {
        match send().await {
            Ok(()) | Err(WorkflowInteractionError::NotFound(_)) => return,
            Err(error) => assert!(started.elapsed() < PATIENCE, "it is not sent: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
