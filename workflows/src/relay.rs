//! Relay: the one publisher. A long activity empties the outbox to Kafka, shift after shift.
//!
//! Temporal shows it, restarts it when its process dies and moves it to another. Each shift ends
//! in a new run, so that no history grows without end.

use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{ContinueAsNewOptions, WorkflowContext, WorkflowResult};

use crate::{contract::RelayActivities, options};

/// Publishes the outbox, for ever.
#[workflow]
#[derive(Default)]
pub struct Relay;

#[workflow_methods]
impl Relay {
    /// One shift.
    #[run(name = "Relay")]
    pub async fn run(
        ctx: &mut WorkflowContext<Self>,
        published_before: u64,
    ) -> WorkflowResult<u64> {
        ctx.set_current_details(format!(
            "{published_before} messages published by earlier shifts"
        ));
        let progress = ctx
            .execute_activity(
                RelayActivities::publish_outbox,
                options::RELAY_SHIFT.as_secs(),
                options::relay_shift(),
            )
            .await?;
        ctx.continue_as_new(
            published_before + progress.published,
            ContinueAsNewOptions::default(),
        )?;
        Ok(published_before)
    }
}
