//! The schedule of reconciliations, made and kept up to date by `meed temporal apply`.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result, anyhow};
use boot::Settings;
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
const EVERY_SECONDS: u64 = 900;
/// A time that was missed for longer than this, while Temporal was away, is left out.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);
/// What every scheduled run is asked.
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
    Duration::from_secs(seconds.unwrap_or(EVERY_SECONDS))
}

/// Creates the schedule, or brings it up to date; one that somebody has paused stays paused.
///
/// # Errors
/// When Temporal refuses.
pub async fn apply(connection: &Connection, namespace: &str, every: Duration) -> Result<()> {
    let mut service = connection.workflow_service();
    let describe = DescribeScheduleRequest {
        namespace: namespace.to_owned(),
        schedule_id: id::RECONCILE_SCHEDULE_ID.to_owned(),
    };
    let note = format!(
        "Compares the books of Kafka, ledger, flows and merchants every {} seconds and repairs \
         what is safe",
        every.as_secs()
    );
    match service.describe_schedule(describe.into_request()).await {
        Ok(found) => {
            let found = found.into_inner();
            let mut schedule = schedule(every, note)?;
            if let (Some(state), Some(now)) =
                (&mut schedule.state, found.schedule.and_then(|s| s.state))
                && now.paused
            {
                // Whoever paused it has said why.
                *state = now;
            }
            let update = UpdateScheduleRequest {
                namespace: namespace.to_owned(),
                schedule_id: id::RECONCILE_SCHEDULE_ID.to_owned(),
                schedule: Some(schedule),
                conflict_token: found.conflict_token,
                identity: "meed".to_owned(),
                request_id: uuid::Uuid::new_v4().to_string(),
                ..Default::default()
            };
            service
                .update_schedule(update.into_request())
                .await
                .map_err(|status| refused(&status))?;
        }
        Err(status) if status.code() == Code::NotFound => {
            let create = CreateScheduleRequest {
                namespace: namespace.to_owned(),
                schedule_id: id::RECONCILE_SCHEDULE_ID.to_owned(),
                schedule: Some(schedule(every, note)?),
                identity: "meed".to_owned(),
                request_id: uuid::Uuid::new_v4().to_string(),
                ..Default::default()
            };
            match service.create_schedule(create.into_request()).await {
                Ok(_) => {}
                Err(status) if status.code() == Code::AlreadyExists => {}
                Err(status) => return Err(refused(&status)),
            }
        }
        Err(status) => return Err(refused(&status)),
    }
    Ok(())
}

fn refused(status: &Status) -> anyhow::Error {
    anyhow!(
        "Temporal refused the schedule {}: {:?}, {}",
        id::RECONCILE_SCHEDULE_ID,
        status.code(),
        status.message()
    )
}

fn json(value: &impl serde::Serialize) -> Result<Payload> {
    Ok(Payload {
        metadata: HashMap::from([("encoding".to_owned(), b"json/plain".to_vec())]),
        data: serde_json::to_vec(value).context("a payload cannot be written")?,
        ..Default::default()
    })
}

fn schedule(every: Duration, note: String) -> Result<Schedule> {
    let workflow = NewWorkflowExecutionInfo {
        workflow_id: id::RECONCILE_SCHEDULED_WORKFLOW_ID.to_owned(),
        workflow_type: Some(WorkflowType {
            name: "Reconcile".to_owned(),
        }),
        task_queue: Some(TaskQueue {
            name: id::RECONCILE_TASK_QUEUE.to_owned(),
            ..Default::default()
        }),
        input: Some(Payloads {
            payloads: vec![json(&REQUEST)?],
        }),
        user_metadata: Some(UserMetadata {
            summary: Some(json(&visibility::reconcile(&REQUEST))?),
            ..Default::default()
        }),
        ..Default::default()
    };
    let interval = IntervalSpec {
        interval: every.try_into().ok(),
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
            notes: note,
            ..Default::default()
        }),
    })
}
