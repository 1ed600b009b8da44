//! Every timeout and retry policy that is not part of a workflow's input, by name.

use std::time::Duration;

use temporalio_workflow::{
    ActivityOptions, LocalActivityOptions, RetryPolicy, WorkflowCancellationToken,
};

/// How long a local step may take before it runs as an ordinary activity, where operators see it.
pub const LOCAL_STEP_BUDGET: Duration = Duration::from_secs(2);
/// The same for posting a batch, which may hold a thousand events.
pub const LOCAL_BATCH_BUDGET: Duration = Duration::from_secs(5);
/// How long one attempt of an ordinary database step may take.
pub const STEP_ATTEMPT: Duration = Duration::from_secs(30);
/// How long one request to a partner or context service may take; its HTTP timeout is shorter.
pub const PARTNER_ATTEMPT: Duration = Duration::from_secs(8);
/// The HTTP timeout within [`PARTNER_ATTEMPT`].
pub const PARTNER_HTTP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a merchant is asked for the status of an uncertain redemption before it is voided.
pub const PARTNER_STATUS_WITHIN: Duration = Duration::from_secs(10);
/// How often a context service is asked before the upgrade goes on without it.
pub const CONTEXT_ATTEMPTS: u32 = 3;
/// How long a redemption from whose row nothing follows waits before it asks again, at first.
pub const STALLED_PAUSE: Duration = Duration::from_secs(1);
/// The same, at most.
pub const STALLED_PAUSE_MAX: Duration = Duration::from_secs(60);
/// The shortest a timer may be: the server refuses one of no time at all.
pub const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// A redemption's workflow task timeout: the pause after an api was killed.
pub const REDEEM_TASK_TIMEOUT: Duration = Duration::from_secs(3);
/// A claim's workflow task timeout: the pause after an api was killed.
pub const CLAIM_TASK_TIMEOUT: Duration = Duration::from_secs(3);
/// How many players one step of an assignment looks at.
pub const ASSIGNED_AT_A_TIME: u32 = 250;
/// How long one attempt of that step may take, and so the pause after a worker was killed.
pub const ASSIGN_ATTEMPT: Duration = Duration::from_secs(10);
/// How often the relay must say that it is alive.
pub const RELAY_HEARTBEAT: Duration = Duration::from_secs(5);
/// How long the relay works before it hands over to a new run, which keeps histories short.
pub const RELAY_SHIFT: Duration = Duration::from_secs(600);
/// How long one attempt of a comparison may take.
pub const COMPARISON_ATTEMPT: Duration = Duration::from_secs(6 * 3_600);
/// How often a comparison must say that it is alive.
pub const COMPARISON_HEARTBEAT: Duration = Duration::from_secs(30);
/// How often a comparison is tried in one run.
pub const COMPARISON_ATTEMPTS: u32 = 6;
/// How long the indexes of the ranking may take to be made anew.
pub const RANKING_REBUILD_ATTEMPT: Duration = Duration::from_secs(3_600);
/// How often waiting for them must say that it is alive.
pub const RANKING_REBUILD_HEARTBEAT: Duration = Duration::from_secs(15);

/// How long one attempt of removing old records may take.
pub const PRUNING_ATTEMPT: Duration = Duration::from_secs(3_600);
/// How often it must say that it is alive.
pub const PRUNING_HEARTBEAT: Duration = Duration::from_secs(30);
/// How often it is tried in one run.
pub const PRUNING_ATTEMPTS: u32 = 3;

/// Cancelling a flow must not cancel the steps that put it right, so every step has a token of
/// its own.
fn detached() -> WorkflowCancellationToken {
    WorkflowCancellationToken::new()
}

fn backoff() -> RetryPolicy {
    RetryPolicy::builder()
        .initial_interval(Duration::from_millis(200))
        .backoff_coefficient(2.0)
        .maximum_interval(Duration::from_secs(10))
        .build()
}

/// A step that runs beside its workflow, within `budget`.
pub fn local(summary: String, budget: Duration) -> LocalActivityOptions {
    LocalActivityOptions::builder()
        .summary(summary)
        .schedule_to_close_timeout(budget)
        .start_to_close_timeout(budget)
        .retry_policy(
            RetryPolicy::builder()
                .initial_interval(Duration::from_millis(50))
                .backoff_coefficient(2.0)
                .maximum_interval(Duration::from_millis(500))
                .build(),
        )
        .include_arguments_in_marker(true)
        .cancellation_token(detached())
        .build()
}

/// One local attempt, never retried.
pub fn local_once(summary: String, budget: Duration) -> LocalActivityOptions {
    let mut options = local(summary, budget);
    options.retry_policy = RetryPolicy::builder().maximum_attempts(1).build();
    options
}

/// A step that is tried until it is done. Compensation has no deadline.
pub fn until_done(summary: String) -> ActivityOptions {
    ActivityOptions::with_start_to_close_timeout(STEP_ATTEMPT)
        .summary(summary)
        .retry_policy(backoff())
        .cancellation_token(detached())
        .build()
}

/// One step of an assignment, tried until it is done. It takes milliseconds, so it says nothing on
/// its way: that its worker was killed is noticed when the attempt's time is up.
pub fn assign(summary: String) -> ActivityOptions {
    ActivityOptions::with_start_to_close_timeout(ASSIGN_ATTEMPT)
        .summary(summary)
        .retry_policy(backoff())
        .cancellation_token(detached())
        .build()
}

/// A request to a partner that is repeated until `within` has passed, or for ever.
pub fn partner(
    summary: String,
    within: Option<Duration>,
    token: WorkflowCancellationToken,
) -> ActivityOptions {
    use temporalio_workflow::common::ActivityCloseTimeouts;
    let timeouts = match within {
        Some(within) => ActivityCloseTimeouts::ScheduleAndStartToClose {
            start_to_close: PARTNER_ATTEMPT.min(within),
            schedule_to_close: within,
        },
        None => ActivityCloseTimeouts::StartToClose(PARTNER_ATTEMPT),
    };
    ActivityOptions::with_close_timeouts(timeouts)
        .summary(summary)
        .retry_policy(backoff())
        .cancellation_token(token)
        .build()
}

/// A request to a context service: a few tries, then without.
pub fn context(summary: String) -> ActivityOptions {
    ActivityOptions::with_start_to_close_timeout(PARTNER_ATTEMPT)
        .summary(summary)
        .retry_policy(
            RetryPolicy::builder()
                .initial_interval(Duration::from_millis(200))
                .backoff_coefficient(2.0)
                .maximum_attempts(CONTEXT_ATTEMPTS)
                .build(),
        )
        .cancellation_token(detached())
        .build()
}

/// One comparison of a reconciliation: long, with heartbeats from which the next attempt goes on.
/// It is given up after a while, because the next run makes up for it.
pub fn comparison(summary: String) -> ActivityOptions {
    ActivityOptions::with_start_to_close_timeout(COMPARISON_ATTEMPT)
        .summary(summary)
        .heartbeat_timeout(COMPARISON_HEARTBEAT)
        .retry_policy(
            RetryPolicy::builder()
                .initial_interval(Duration::from_millis(500))
                .backoff_coefficient(2.0)
                .maximum_interval(Duration::from_secs(10))
                .maximum_attempts(COMPARISON_ATTEMPTS)
                .build(),
        )
        .cancellation_token(detached())
        .build()
}

/// Removing old records of one kind. It is given up after a while, because the next run makes up
/// for it.
pub fn pruning(summary: String) -> ActivityOptions {
    ActivityOptions::with_start_to_close_timeout(PRUNING_ATTEMPT)
        .summary(summary)
        .heartbeat_timeout(PRUNING_HEARTBEAT)
        .retry_policy(
            RetryPolicy::builder()
                .initial_interval(Duration::from_secs(1))
                .backoff_coefficient(2.0)
                .maximum_attempts(PRUNING_ATTEMPTS)
                .build(),
        )
        .build()
}

/// Waiting for the indexes of the ranking: another attempt waits on.
pub fn ranking_rebuild(summary: String) -> ActivityOptions {
    ActivityOptions::with_start_to_close_timeout(RANKING_REBUILD_ATTEMPT)
        .summary(summary)
        .heartbeat_timeout(RANKING_REBUILD_HEARTBEAT)
        .retry_policy(backoff())
        .build()
}

/// The relay's shift.
pub fn relay_shift() -> ActivityOptions {
    ActivityOptions::with_start_to_close_timeout(RELAY_SHIFT + Duration::from_secs(60))
        .summary("Publishes what the ledger has to tell".to_owned())
        .heartbeat_timeout(RELAY_HEARTBEAT)
        .retry_policy(
            RetryPolicy::builder()
                .initial_interval(Duration::from_millis(100))
                .backoff_coefficient(2.0)
                .maximum_interval(Duration::from_secs(2))
                .build(),
        )
        .build()
}
