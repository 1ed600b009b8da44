//! How a database step runs: beside the workflow while it is quick, as an ordinary activity when
//! it is not.

use std::time::Duration;

use temporalio_common::{ActivityDefinition, data_converters::TemporalDeserializable};
use temporalio_workflow::{
    WorkflowContext,
    common::error::{ActivityExecutionError, IncomingError},
};

use crate::options;

/// Runs a step that must get done. It is local for `budget`; after that the same step runs as an
/// ordinary activity without limit, where operators see it and its failures.
///
/// # Errors
/// Only what the activity itself calls final.
pub(crate) async fn step<W, A>(
    ctx: &WorkflowContext<W>,
    activity: impl Fn() -> A,
    input: A::Input,
    summary: String,
    budget: Duration,
) -> Result<A::Output, ActivityExecutionError>
where
    A: ActivityDefinition,
    A::Input: Clone,
    A::Output: TemporalDeserializable,
{
    let locally = options::local(summary.clone(), budget);
    match ctx
        .execute_local_activity(activity(), input.clone(), locally)
        .await
    {
        Err(error) if !is_final(&error) => {
            ctx.execute_activity(activity(), input, options::until_done(summary))
                .await
        }
        result => result,
    }
}

/// Whether the activity said that trying again is of no use.
pub(crate) fn is_final(error: &ActivityExecutionError) -> bool {
    match error.cause() {
        Some(IncomingError::Application(failure)) => failure.is_non_retryable(),
        _ => false,
    }
}
