//! The schedules, made and kept up to date by `meed temporal apply`.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result, anyhow};
use boot::Settings;
use serde::Serialize;
use temporalio_client::{
    Connection,
    tonic::{Code, IntoRequest, Status},
};
use temporalio_common::protos::temporal::api::{
    common::v1::{Payload, Payloads, WorkflowType},
    enums::v1::ScheduleOverlapPolicy,
    schedule::v1::{
        IntervalSpec, Schedule, ScheduleAction, SchedulePolicies, ScheduleSpec, ScheduleState,
        schedule_action::Action,
    },
    sdk::v1::UserMetadata,
    taskqueue::v1::TaskQueue,
    workflow::v1::NewWorkflowExecutionInfo,
    workflowservice::v1::{CreateScheduleRequest, DescribeScheduleRequest, UpdateScheduleRequest},
};
use workflows::{
    contract::{RankingRebuildRequest, ReconcileRequest},
    id, visibility,
};

/// How often the books are compared where nothing says otherwise, in seconds.
const RECONCILE_EVERY_SECONDS: u64 = 900;
/// How often the ranking is made anew where nothing says otherwise, in seconds.
const RANKING_EVERY_SECONDS: u64 = 86_400;
/// How often old records are removed.
const PRUNE_EVERY: Duration = Duration::from_hours(1);
/// A time that was missed for longer than this, while Temporal was away, is left out.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);

/// How often what is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// The books are compared.
    pub reconcile: Duration,
    /// The ranking is made anew.
    pub ranking: Duration,
}

impl Intervals {
    /// What was given, or the configuration file, or the default where there is no file, as in a
    /// step of a deployment that has only an address.
    pub fn of(reconcile_seconds: Option<u64>, ranking_seconds: Option<u64>) -> Self {
        let settings = Settings::load().ok();
        let configured = settings.as_ref();
        let seconds = |given: Option<u64>, configured: Option<u64>, default| {
            let given = given.filter(|seconds| *seconds > 0);
            Duration::from_secs(given.or(configured).unwrap_or(default))
        };
        Self {
            reconcile: seconds(
                reconcile_seconds,
                configured.map(|settings| settings.reconcile.every_seconds),
                RECONCILE_EVERY_SECONDS,
            ),
            ranking: seconds(
                ranking_seconds,
                configured.map(|settings| settings.ranking.rebuild_every_seconds),
                RANKING_EVERY_SECONDS,
            ),
        }
    }
}

/// A workflow that is started again and again.
struct Scheduled {
    schedule_id: &'static str,
    workflow_id: &'static str,
    workflow: &'static str,
    task_queue: &'static str,
    input: Option<Payload>,
    summary: String,
    note: String,
    every: Duration,
}

impl Scheduled {
    fn all(intervals: Intervals) -> Result<[Self; 3]> {
        let reconcile = ReconcileRequest {
            repair: true,
            since: None,
        };
        let rebuild = RankingRebuildRequest {
            asked_by: "the schedule".to_owned(),
        };
        Ok([
            Self {
                schedule_id: id::RECONCILE_SCHEDULE_ID,
                workflow_id: id::RECONCILE_SCHEDULED_WORKFLOW_ID,
                workflow: "Reconcile",
                task_queue: id::RECONCILE_TASK_QUEUE,
                input: Some(json(&reconcile)?),
                summary: visibility::reconcile(&reconcile),
                note: format!(
                    "Compares the books of Kafka, ledger, flows and merchants every {} seconds \
                     and repairs what is safe",
                    intervals.reconcile.as_secs()
                ),
                every: intervals.reconcile,
            },
            Self {
                schedule_id: id::RANKING_SCHEDULE_ID,
                workflow_id: id::RANKING_SCHEDULED_WORKFLOW_ID,
                workflow: "RebuildRanking",
                task_queue: id::RANKING_TASK_QUEUE,
                input: Some(json(&rebuild)?),
                summary: visibility::rebuild_ranking(&rebuild),
                note: format!(
                    "Makes the ranking anew from the ledger every {} seconds",
                    intervals.ranking.as_secs()
                ),
                every: intervals.ranking,
            },
            Self {
                schedule_id: id::PRUNE_SCHEDULE_ID,
                workflow_id: id::PRUNE_SCHEDULED_WORKFLOW_ID,
                workflow: "Prune",
                task_queue: id::RECONCILE_TASK_QUEUE,
                input: None,
                summary: "Removes what nobody needs any more".to_owned(),
                note: "Removes what nobody needs any more, every hour".to_owned(),
                every: PRUNE_EVERY,
            },
        ])
    }
}

/// Creates the schedules, or brings them up to date; one that somebody has paused stays paused.
///
/// # Errors
/// When Temporal refuses.
pub async fn apply(connection: &Connection, namespace: &str, intervals: Intervals) -> Result<()> {
    for scheduled in Scheduled::all(intervals)? {
        scheduled.apply(connection, namespace).await?;
    }
    Ok(())
}

impl Scheduled {
    async fn apply(&self, connection: &Connection, namespace: &str) -> Result<()> {
        let mut service = connection.workflow_service();
        let describe = DescribeScheduleRequest {
            namespace: namespace.to_owned(),
            schedule_id: self.schedule_id.to_owned(),
        };
        match service.describe_schedule(describe.into_request()).await {
            Ok(found) => {
                let found = found.into_inner();
                let mut schedule = self.schedule()?;
                if let (Some(state), Some(now)) =
                    (&mut schedule.state, found.schedule.and_then(|s| s.state))
                    && now.paused
                {
                    // Whoever paused it has said why.
                    *state = now;
                }
                let update = UpdateScheduleRequest {
                    namespace: namespace.to_owned(),
                    schedule_id: self.schedule_id.to_owned(),
                    schedule: Some(schedule),
                    conflict_token: found.conflict_token,
                    identity: "meed".to_owned(),
                    request_id: uuid::Uuid::new_v4().to_string(),
                    ..Default::default()
                };
                service
                    .update_schedule(update.into_request())
                    .await
                    .map_err(|status| self.refused(&status))?;
            }
            Err(status) if status.code() == Code::NotFound => {
                let create = CreateScheduleRequest {
                    namespace: namespace.to_owned(),
                    schedule_id: self.schedule_id.to_owned(),
                    schedule: Some(self.schedule()?),
                    identity: "meed".to_owned(),
                    request_id: uuid::Uuid::new_v4().to_string(),
                    ..Default::default()
                };
                match service.create_schedule(create.into_request()).await {
                    Ok(_) => {}
                    Err(status) if status.code() == Code::AlreadyExists => {}
                    Err(status) => return Err(self.refused(&status)),
                }
            }
            Err(status) => return Err(self.refused(&status)),
        }
        Ok(())
    }

    fn refused(&self, status: &Status) -> anyhow::Error {
        anyhow!(
            "Temporal refused the schedule {}: {:?}, {}",
            self.schedule_id,
            status.code(),
            status.message()
        )
    }

    fn schedule(&self) -> Result<Schedule> {
        let workflow = NewWorkflowExecutionInfo {
            workflow_id: self.workflow_id.to_owned(),
            workflow_type: Some(WorkflowType {
                name: self.workflow.to_owned(),
            }),
            task_queue: Some(TaskQueue {
                name: self.task_queue.to_owned(),
                ..Default::default()
            }),
            input: Some(Payloads {
                payloads: self.input.clone().into_iter().collect(),
            }),
            user_metadata: Some(UserMetadata {
                summary: Some(json(&self.summary)?),
                ..Default::default()
            }),
            ..Default::default()
        };
        let interval = IntervalSpec {
            interval: self.every.try_into().ok(),
            ..Default::default()
        };
        Ok(Schedule {
            spec: Some(ScheduleSpec {
                interval: vec![interval],
                ..Default::default()
            }),
            action: Some(ScheduleAction {
                action: Some(Action::StartWorkflow(workflow)),
            }),
            policies: Some(SchedulePolicies {
                overlap_policy: ScheduleOverlapPolicy::Skip.into(),
                catchup_window: CATCH_UP_WITHIN.try_into().ok(),
                ..Default::default()
            }),
            state: Some(ScheduleState {
                notes: self.note.clone(),
                ..Default::default()
            }),
        })
    }
}

fn json(value: &impl Serialize) -> Result<Payload> {
    Ok(Payload {
        metadata: HashMap::from([("encoding".to_owned(), b"json/plain".to_vec())]),
        data: serde_json::to_vec(value).context("a payload cannot be written")?,
        ..Default::default()
    })
}
