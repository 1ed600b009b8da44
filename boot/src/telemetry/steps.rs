//! Which flow the log lines of a step are of.

use std::sync::Arc;

use temporalio_sdk::{
    SimplePlugin,
    interceptors::{ActivityInboundInterceptor, ExecuteActivityInput, ExecuteActivityOutput, Next},
};
use tracing::{Instrument, info_span};

struct Steps;

impl ActivityInboundInterceptor for Steps {
    fn execute_activity<'a>(
        &'a self,
        input: ExecuteActivityInput,
        next: Next<'a, ExecuteActivityInput, ExecuteActivityOutput<'a>>,
    ) -> ExecuteActivityOutput<'a> {
        let info = input.activity_info();
        let span = info_span!(
            "step",
            activity = info.activity_type,
            workflow_id = info.workflow_id.as_deref().unwrap_or_default(),
            attempt = info.attempt,
        );
        Box::pin(next.run(input).instrument(span))
    }
}

pub(super) fn plugin() -> SimplePlugin {
    let steps: Arc<dyn ActivityInboundInterceptor> = Arc::new(Steps);
    SimplePlugin::builder("logs")
        .activity_inbound_interceptors(vec![steps])
        .build()
}
