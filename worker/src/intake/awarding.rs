//! A batch of awards on its way: its workflow is started and waited for, for as long as it takes.

use std::{sync::Arc, time::Duration};

use temporalio_client::errors::WorkflowGetResultError;
use workflows::contract::MessageRange;

use super::buffer::{BatchBuffer, range_of};
use crate::{backoff::Backoff, flows::Flows, measures, record::Record};

/// Sees to it that a batch of awards is posted. Comes back only then.
pub async fn award(flows: Flows, buffer: Arc<BatchBuffer>, records: Vec<Record>) {
    let Some(range) = range_of(&records) else {
        return;
    };
    // In the buffer for as long as this runs, so that the activity need not read Kafka again.
    let _buffered = buffer.put(range.clone(), records);
    let mut unlucky = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    loop {
        start(&flows, &range).await;
        match outcome(&flows, &range).await {
            Ok(()) => return,
            Err(error) => {
                // Never go past it: its events would be lost.
                measures::batch_failed(&range.topic);
                tracing::error!(
                    error = %describe(&error),
                    topic = range.topic,
                    partition = range.partition,
                    first_offset = range.first_offset,
                    last_offset = range.last_offset,
                    "an award batch did not succeed; its partition waits and it is started again"
                );
                unlucky.pause().await;
            }
        }
    }
}

async fn start(flows: &Flows, range: &MessageRange) {
    let mut backoff = Backoff::short();
    loop {
        match flows.start_award(range).await {
            Ok(()) => return,
            Err(error) => {
                let workflow_id = workflows::id::award(range);
                tracing::warn!(%error, workflow_id, "a batch is not started yet");
                backoff.pause().await;
            }
        }
    }
}

/// How the workflow ended; failures to ask are met by asking again.
async fn outcome(flows: &Flows, range: &MessageRange) -> Result<(), WorkflowGetResultError> {
    let mut backoff = Backoff::short();
    loop {
        match flows.award_outcome(range).await {
            Ok(_) => return Ok(()),
            Err(WorkflowGetResultError::Rpc(status)) => {
                let workflow_id = workflows::id::award(range);
                tracing::warn!(%status, workflow_id, "a batch's outcome is not known yet");
                backoff.pause().await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The error with its causes, which say why the workflow failed.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
