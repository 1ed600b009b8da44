//! Prune: what nobody needs any more is removed, kind by kind.
//!
//! Outcome: how much of each. A kind that cannot be finished does not keep the next ones from being
//! pruned, and is made up for by the next run.

use domain::Prunable;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{WorkflowContext, WorkflowResult};

use crate::{
    contract::{PruneActivities, Pruned},
    options,
};

/// Removes old records, once.
#[workflow]
#[derive(Default)]
pub struct Prune {
    pruned: Vec<Pruned>,
}

#[workflow_methods]
impl Prune {
    /// Goes through the kinds.
    #[run(name = "Prune")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<Vec<Pruned>> {
        for what in Prunable::ALL {
            let removed = ctx
                .execute_activity(
                    PruneActivities::prune,
                    what,
                    options::pruning(format!("Removes {}", what.title())),
                )
                .await
                .ok();
            ctx.state_mut(|s| s.pruned.push(Pruned { what, removed }));
            let lines: Vec<String> =
                ctx.state(|s| s.pruned.iter().map(Pruned::to_string).collect());
            ctx.set_current_details(lines.join("\n\n"));
        }
        Ok(ctx.state(|s| s.pruned.clone()))
    }
}
