//! The steps of a job that assigns a promotion.

use std::sync::Arc;

use domain::AssignmentJobId;
use store::{
    PgPool,
    assignments::{self, Job},
};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use workflows::contract::{AssignPlayers, AssignmentView, definition};

use crate::activity_error;

/// What the steps work with.
#[derive(Clone)]
pub struct AssignSteps {
    /// The primary database.
    pub pool: PgPool,
}

fn view(job: &Job) -> AssignmentView {
    let count = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    AssignmentView {
        state: job.state,
        cancel_requested: job.cancel_requested,
        players: count(job.players),
        assigned: count(job.assigned),
        already: count(job.already),
        unknown: count(job.unknown),
    }
}

#[activities]
impl AssignSteps {
    #[activity(definition = definition::AssignPlayers)]
    pub async fn assign_players(
        self: Arc<Self>,
        _ctx: ActivityContext,
        input: AssignPlayers,
    ) -> Result<AssignmentView, ActivityError> {
        let job = assignments::assign_next(&self.pool, &input.job_id, input.at_most.into())
            .await
            .map_err(activity_error)?;
        Ok(view(&job))
    }

    #[activity(definition = definition::EndAssignment)]
    pub async fn end_assignment(
        self: Arc<Self>,
        _ctx: ActivityContext,
        job: AssignmentJobId,
    ) -> Result<AssignmentView, ActivityError> {
        let job = assignments::end(&self.pool, &job)
            .await
            .map_err(activity_error)?;
        Ok(view(&job))
    }
}
