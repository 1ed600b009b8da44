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
use workflows::{contract::ReconcileRequest, id, visibility};

/// How often the books are compared where nothing says otherwise, in seconds.
const RECONCILE_EVERY_SECONDS: u64 = 900;
/// How often old records are removed.
const PRUNE_EVERY: Duration = Duration::from_hours(1);
/// A time that was missed for longer than this, while Temporal was away, is left out.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);
/// What every scheduled reconciliation is asked.
const REQUEST: ReconcileRequest = ReconcileRequest {
    repair: true,
    since: None,
};

/// How often the books are to be compared: what was given, or the configuration file, or the
/// default where there is no file, as in a step of a deployment that has only an address.
pub fn interval(given_seconds: Option<u64>) -> Duration {
    let seconds = given_seconds.filter(|seconds| *seconds > 0).or_else(|| {
        let settings = Settings::load().ok()?;
        Some(settings.reconcile.every_seconds)
    });
    Duration::from_secs(seconds.unwrap_or(RECONCILE_EVERY_SECONDS))
}

/// A flow that is started again and again.
struct Scheduled {
    schedule_id: &'static str,
    every: Duration,
    note: String,
    /// What the ids of its runs begin with; the server adds the time.
    workflow_id: &'static str,
    workflow_type: &'static str,
    task_queue: &'static str,
    input: Vec<Payload>,
    summary: String,
}

/// Creates the schedules, or brings them up to date; one that somebody has paused stays paused.
/// The books are compared as often as `reconcile_every` says.
///
/// # Errors
/// When Temporal refuses.
pub async fn apply(
    connection: &Connection,
    namespace: &str,
    reconcile_every: Duration,
) -> Result<()> {
    let reconciliation = Scheduled {
        schedule_id: id::RECONCILE_SCHEDULE_ID,
        every: reconcile_every,
        note: format!(
            "Compares the books of Kafka, ledger, flows and merchants every {} seconds and \
             repairs what is safe",
            reconcile_every.as_secs()
        ),
        workflow_id: id::RECONCILE_SCHEDULED_WORKFLOW_ID,
        workflow_type: "Reconcile",
        task_queue: id::RECONCILE_TASK_QUEUE,
        input: vec![json(&REQUEST)?],
        summary: visibility::reconcile(&REQUEST),
    };
    let pruning = Scheduled {
        schedule_id: id::PRUNE_SCHEDULE_ID,
        every: PRUNE_EVERY,
        note: "Removes what nobody needs any more, every hour".to_owned(),
        workflow_id: id::PRUNE_SCHEDULED_WORKFLOW_ID,
        workflow_type: "Prune",
        task_queue: id::RECONCILE_TASK_QUEUE,
        input: Vec::new(),
        summary: "Removes what nobody needs any more".to_owned(),
    };
    for scheduled in [reconciliation, pruning] {
        keep(connection, namespace, scheduled).await?;
    }
    Ok(())
}

async fn keep(connection: &Connection, namespace: &str, scheduled: Scheduled) -> Result<()> {
    let schedule_id = scheduled.schedule_id;
    let mut schedule = schedule(scheduled)?;
    let mut service = connection.workflow_service();
    let describe = DescribeScheduleRequest {
        namespace: namespace.to_owned(),
        schedule_id: schedule_id.to_owned(),
    };
    match service.describe_schedule(describe.into_request()).await {
        Ok(found) => {
            let found = found.into_inner();
            if let (Some(state), Some(now)) =
                (&mut schedule.state, found.schedule.and_then(|s| s.state))
                && now.paused
            {
                // Whoever paused it has said why.
                *state = now;
            }
            let update = UpdateScheduleRequest {
                namespace: namespace.to_owned(),
                schedule_id: schedule_id.to_owned(),
                schedule: Some(schedule),
                conflict_token: found.conflict_token,
                identity: "meed".to_owned(),
                request_id: uuid::Uuid::new_v4().to_string(),
                ..Default::default()
            };
            service
                .update_schedule(update.into_request())
                .await
                .map_err(|status| refused(schedule_id, &status))?;
        }
        Err(status) if status.code() == Code::NotFound => {
            let create = CreateScheduleRequest {
                namespace: namespace.to_owned(),
                schedule_id: schedule_id.to_owned(),
                schedule: Some(schedule),
                identity: "meed".to_owned(),
                request_id: uuid::Uuid::new_v4().to_string(),
                ..Default::default()
            };
            match service.create_schedule(create.into_request()).await {
                Ok(_) => {}
                Err(status) if status.code() == Code::AlreadyExists => {}
                Err(status) => return Err(refused(schedule_id, &status)),
            }
        }
        Err(status) => return Err(refused(schedule_id, &status)),
    }
    Ok(())
}

fn refused(schedule_id: &str, status: &Status) -> anyhow::Error {
    anyhow!(
        "Temporal refused the schedule {schedule_id}: {:?}, {}",
        status.code(),
        status.message()
    )
}

fn json(value: &impl Serialize) -> Result<Payload> {
    Ok(Payload {
        metadata: HashMap::from([("encoding".to_owned(), b"json/plain".to_vec())]),
        data: serde_json::to_vec(value).context("a payload cannot be written")?,
        ..Default::default()
    })
}

fn schedule(scheduled: Scheduled) -> Result<Schedule> {
    let workflow = NewWorkflowExecutionInfo {
        workflow_id: scheduled.workflow_id.to_owned(),
        workflow_type: Some(WorkflowType {
            name: scheduled.workflow_type.to_owned(),
        }),
        task_queue: Some(TaskQueue {
            name: scheduled.task_queue.to_owned(),
            ..Default::default()
        }),
        input: Some(Payloads {
            payloads: scheduled.input,
        }),
        user_metadata: Some(UserMetadata {
            summary: Some(json(&scheduled.summary)?),
            ..Default::default()
        }),
        ..Default::default()
    };
    let interval = IntervalSpec {
        interval: scheduled.every.try_into().ok(),
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
            notes: scheduled.note,
            ..Default::default()
        }),
    })
}
