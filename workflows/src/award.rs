//! AwardBatch: consecutive messages of one partition become points, once.
//!
//! Input: the range of messages. Outcome: counts of what was posted, repeated and refused. The
//! one step posts the whole batch in one transaction; posting it again changes nothing, so a
//! crash between the commit and this workflow's record of it is harmless.

use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{WorkflowContext, WorkflowContextView, WorkflowResult};

use crate::{
    contract::{AwardActivities, BatchOutcome, MessageRange},
    options,
    step::step,
    visibility::{POINTS, REFUSED, STATUS},
};

/// Posts one batch of events.
#[workflow]
pub struct AwardBatch {
    range: MessageRange,
}

#[workflow_methods]
impl AwardBatch {
    #[init]
    fn new(_ctx: &WorkflowContextView, range: MessageRange) -> Self {
        Self { range }
    }

    /// Posts the batch and tells what came of it.
    #[run(name = "AwardBatch")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<BatchOutcome> {
        let range = ctx.state(|s| s.range.clone());
        let summary = format!(
            "Posts {} messages, offsets {} to {}",
            range.messages, range.first_offset, range.last_offset
        );
        let outcome = step(
            ctx,
            || AwardActivities::post_batch,
            range,
            summary,
            options::LOCAL_BATCH_BUDGET,
        )
        .await?;
        Self::tell(ctx, &outcome);
        Ok(outcome)
    }

    fn tell(ctx: &WorkflowContext<Self>, outcome: &BatchOutcome) {
        let refused: u32 = outcome.refused.values().sum();
        ctx.set_current_details(format!(
            "{} events posted for {} points, {} posted before, {} ignored, {refused} refused",
            outcome.posted, outcome.points, outcome.duplicates, outcome.ignored
        ));
        ctx.upsert_search_attributes([
            STATUS.value_set("POSTED".to_owned()),
            POINTS.value_set(outcome.points),
            REFUSED.value_set(i64::from(refused)),
        ]);
    }
}
