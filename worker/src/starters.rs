//! What sees to it that nothing accepted is left lying: flows that were not started or were cut
//! off are started, callbacks and cancellations that were stored and not signalled are signalled.
//!
//! The loops are apart from each other and from the relay, so that no outage of one blocks the
//! others. None of them moves points. Several workers may run them: they take turns, and doing
//! something twice changes nothing.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use domain::RedeemRequestId;
use futures::{StreamExt, stream};
use store::{
    PgPool,
    assignments::Job,
    callbacks::{Callback, Kind},
    claims::Assignment,
    redemptions::Redemption,
    tiers::Order,
    turn::{self, Duty},
};
use temporalio_client::errors::WorkflowInteractionError;
use tokio_util::sync::CancellationToken;
use workflows::{
    assign_promotion::AssignPromotionInput,
    contract::{PromotionClaim, TierOrder},
    id,
};

use crate::{
    backoff::Backoff,
    flows::{Flows, RedemptionToStart},
    measures,
};

/// How many calls to Temporal a loop has under way.
const CALLS_AT_A_TIME: usize = 16;
/// How much a loop takes on in one turn.
const AT_A_TIME: i64 = 500;
/// How many rows are looked at in one turn; most of those that were started wait rightly.
const LOOKED_AT_A_TIME: i64 = 10_000;
/// How often waiting redemptions are looked for.
const REDEMPTIONS_EVERY: Duration = Duration::from_millis(500);
/// How often ordered tier upgrades are looked for.
const TIER_ORDERS_EVERY: Duration = Duration::from_millis(200);
/// How often claims and jobs of promotions are looked for.
const PROMOTIONS_EVERY: Duration = Duration::from_millis(500);
/// How often callbacks to signal are looked for.
const CALLBACKS_EVERY: Duration = Duration::from_millis(500);
/// A flow that was found open or started is not asked for again within this time, or the time
/// after which it counts as left lying, if that is shorter.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// The api signals at once; after this long it has not been able to.
const SIGNAL_AFTER: Duration = Duration::from_secs(1);
/// A flow that was told of a cancellation may wait for its partner: it is told again after this
/// time, and then less and less often.
const CANCEL_AGAIN_AFTER: Duration = Duration::from_secs(15);
/// The longest pause before it is told again.
const CANCEL_AGAIN_AT_LEAST_EVERY: Duration = Duration::from_mins(10);
/// Longer than any row is left alone.
const NEVER: Duration = Duration::from_hours(100 * 365 * 24);

/// When something counts as left lying.
#[derive(Debug, Clone, Copy)]
pub struct Ages {
    /// A redemption QUEUED for this long: it was not started.
    pub queued: Duration,
    /// A redemption not ended and untouched for this long: its flow may have been cut off.
    pub stale: Duration,
    /// A tier upgrade that takes this long: it may have been cut off.
    pub tier_order: Duration,
    /// A claim, or a job that assigns a promotion, untouched for this long: it was not started, or
    /// may have been cut off.
    pub promotion: Duration,
}

impl Ages {
    /// For how long a flow that was found open or started is left alone.
    fn ask_again(self) -> Duration {
        ASK_AGAIN_AFTER.min(self.stale).min(self.tier_order)
    }
}

/// The starters of one worker.
pub struct Starters {
    pool: PgPool,
    flows: Flows,
    ages: Ages,
    /// Flows that were found open or were started, and when.
    open: Mutex<HashMap<String, Instant>>,
    /// Flows that were told of their cancellation.
    told: Mutex<Told>,
}

/// Something a loop could not do.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("Temporal is out of reach: {0}")]
    Temporal(String),
}

impl Starters {
    /// Starters over this database and these flows.
    pub fn new(pool: PgPool, flows: Flows, ages: Ages) -> Self {
        Self {
            pool,
            flows,
            ages,
            open: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// Works until told to stop.
    pub async fn run(&self, stop: &CancellationToken) {
        tokio::join!(
            self.repeat(Duty::StartRedemptions, REDEMPTIONS_EVERY, stop),
            self.repeat(Duty::StartTierUpgrades, TIER_ORDERS_EVERY, stop),
            self.repeat(Duty::SignalCallbacks, CALLBACKS_EVERY, stop),
            self.repeat(Duty::StartClaims, PROMOTIONS_EVERY, stop),
            self.repeat(Duty::StartAssignments, PROMOTIONS_EVERY, stop),
            self.keep_relay_running(stop),
        );
    }

    /// One loop: a turn, a pause; a longer pause after trouble.
    async fn repeat(&self, duty: Duty, every: Duration, stop: &CancellationToken) {
        let mut backoff = Backoff::new(every, Duration::from_secs(5));
        let again = async {
            loop {
                match self.take_turn(duty).await {
                    Ok(()) => {
                        backoff.reset();
                        tokio::time::sleep(every).await;
                    }
                    Err(error) => {
                        tracing::warn!(%error, ?duty, "not done yet");
                        backoff.pause().await;
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = again => {}
        }
    }

    async fn take_turn(&self, duty: Duty) -> Result<(), Trouble> {
        let Some(_turn) = turn::take(&self.pool, duty).await? else {
            return Ok(());
        };
        match duty {
            Duty::StartRedemptions => self.start_redemptions().await,
            Duty::StartTierUpgrades => self.start_tier_upgrades().await,
            Duty::SignalCallbacks => {
                let callbacks = self.signal_callbacks().await;
                callbacks.and(self.signal_cancellations().await)
            }
            Duty::StartClaims => self.start_claims().await,
            Duty::StartAssignments => self.start_assignments().await,
            // Not those of the starters: see `sealer`.
            Duty::SealTransfers | Duty::FeedRanking => Ok(()),
        }
    }

    // ---------------------------------------------------------------------------- redemptions

    async fn start_redemptions(&self) -> Result<(), Trouble> {
        let pool = &self.pool;
        let queued =
            store::redemptions::to_start(pool, self.ages.queued, NEVER, LOOKED_AT_A_TIME).await?;
        let queued = self.due(queued, |r| id::redeem(&r.redeem_request_id));
        self.each(queued, |redemption| self.start_queued(redemption))
            .await?;
        let stale =
            store::redemptions::to_start(pool, NEVER, self.ages.stale, LOOKED_AT_A_TIME).await?;
        let stale = self.due(stale, |r| id::redeem(&r.redeem_request_id));
        self.each(stale, |redemption| self.resume_redemption(redemption))
            .await
    }

    /// Starts a redemption that is QUEUED. Since its row was read an earlier start of which nobody
    /// knew may have brought it to its end; then nothing is left to do, unless the row still says
    /// otherwise because the database was put back to an earlier state than Temporal's.
    async fn start_queued(&self, redemption: Redemption) -> Result<(), Trouble> {
        let id = &redemption.redeem_request_id;
        let started = self.flows.start_redeem_once(&to_start(&redemption)).await;
        if started.map_err(temporal)? {
            measures::flow_started("redeem");
            return self.waits_rightly(id).await;
        }
        match self.still_open(id).await? {
            Some(row) => self.start_redemption(row).await,
            None => Ok(()),
        }
    }

    /// The redemption's row as it is now, unless it has ended.
    async fn still_open(&self, id: &RedeemRequestId) -> Result<Option<Redemption>, Trouble> {
        let mut conn = self.pool.acquire().await.map_err(store::Error::from)?;
        let row = store::redemptions::find(&mut conn, id).await?;
        Ok(row.filter(|row| !row.state.is_final()))
    }

    async fn start_redemption(&self, redemption: Redemption) -> Result<(), Trouble> {
        self.flows
            .start_redeem(&to_start(&redemption))
            .await
            .map_err(temporal)?;
        measures::flow_started("redeem");
        self.waits_rightly(&redemption.redeem_request_id).await
    }

    /// Remembers that a redemption's flow is open. Under load it may stay QUEUED for a while, which
    /// is no reason to start it again, nor for the next worker.
    async fn waits_rightly(&self, id: &RedeemRequestId) -> Result<(), Trouble> {
        self.open_now(id::redeem(id));
        Ok(store::redemptions::mark_started(&self.pool, id).await?)
    }

    /// Starts a redemption again whose flow has no open run, such as after a termination in the
    /// Web UI. The new run goes on from the row.
    async fn resume_redemption(&self, redemption: Redemption) -> Result<(), Trouble> {
        let workflow_id = id::redeem(&redemption.redeem_request_id);
        if self.is_open(&workflow_id).await? {
            return self.waits_rightly(&redemption.redeem_request_id).await;
        }
        // It may have come to its end since its row was read, under load long ago; a run that is not
        // open and has not been cut off has ended its row.
        let Some(row) = self.still_open(&redemption.redeem_request_id).await? else {
            return Ok(());
        };
        tracing::warn!(workflow_id, state = %row.state, "a redemption had no open run");
        self.start_redemption(row).await
    }

    // -------------------------------------------------------------------------- tier upgrades

    async fn start_tier_upgrades(&self) -> Result<(), Trouble> {
        let ordered = store::tiers::orders_to_start(&self.pool, AT_A_TIME).await?;
        self.each(ordered, |order| self.start_tier_upgrade(order))
            .await?;
        let age = self.ages.tier_order;
        let stale = store::tiers::stale_orders(&self.pool, age, LOOKED_AT_A_TIME).await?;
        let stale = self.due(stale, |o| id::tier_upgrade(&o.customer_id, o.order_id));
        self.each(stale, |order| self.resume_tier_upgrade(order))
            .await
    }

    async fn start_tier_upgrade(&self, order: Order) -> Result<(), Trouble> {
        let Order {
            order_id,
            customer_id,
            tier,
        } = order;
        let order = TierOrder {
            order_id,
            customer_id,
        };
        self.flows
            .start_tier_upgrade(order, tier)
            .await
            .map_err(temporal)?;
        store::tiers::mark_started(&self.pool, order_id).await?;
        measures::flow_started("tier-upgrade");
        Ok(())
    }

    async fn resume_tier_upgrade(&self, order: Order) -> Result<(), Trouble> {
        let workflow_id = id::tier_upgrade(&order.customer_id, order.order_id);
        if self.is_open(&workflow_id).await? {
            return Ok(store::tiers::mark_started(&self.pool, order.order_id).await?);
        }
        tracing::warn!(workflow_id, "a tier upgrade had no open run");
        self.start_tier_upgrade(order).await
    }

    // ----------------------------------------------------------------------------- promotions

    async fn start_claims(&self) -> Result<(), Trouble> {
        let age = self.ages.promotion;
        let lying = store::claims::to_start(&self.pool, age, LOOKED_AT_A_TIME).await?;
        let lying = self.due(lying, |row| id::claim(&row.promotion_id, &row.customer_id));
        self.each(lying, |row| self.start_claim(row)).await
    }

    async fn start_claim(&self, row: Assignment) -> Result<(), Trouble> {
        let workflow_id = id::claim(&row.promotion_id, &row.customer_id);
        if self.is_open(&workflow_id).await? {
            return Ok(());
        }
        self.flows
            .start_claim(&to_claim(&row))
            .await
            .map_err(temporal)?;
        self.open_now(workflow_id);
        measures::flow_started("claim");
        Ok(())
    }

    async fn start_assignments(&self) -> Result<(), Trouble> {
        let age = self.ages.promotion;
        let lying = store::assignments::to_start(&self.pool, age, AT_A_TIME).await?;
        let lying = self.due(lying, |job| id::assign_promotion(&job.job_id));
        self.each(lying, |job| self.start_assignment(job)).await
    }

    async fn start_assignment(&self, job: Job) -> Result<(), Trouble> {
        let workflow_id = id::assign_promotion(&job.job_id);
        if self.is_open(&workflow_id).await? {
            return Ok(());
        }
        self.flows
            .start_assignment(to_assignment(&job))
            .await
            .map_err(temporal)?;
        self.open_now(workflow_id);
        measures::flow_started("assign-promotion");
        Ok(())
    }

    // ------------------------------------------------------------------------------ callbacks

    async fn signal_callbacks(&self) -> Result<(), Trouble> {
        let callbacks = store::callbacks::unsignalled(&self.pool, SIGNAL_AFTER, AT_A_TIME).await?;
        self.each(callbacks, |callback| self.signal(callback)).await
    }

    async fn signal(&self, callback: Callback) -> Result<(), Trouble> {
        let workflow_id = callback.workflow_id.as_str();
        let signalled = match callback.kind {
            Kind::Partner => self.flows.partner_called_back(workflow_id).await,
            Kind::TierUpgrade => self.flows.notification_acknowledged(workflow_id).await,
        };
        match signalled {
            Ok(()) => measures::flow_started("signal"),
            // It has ended, or a new run will read the row: nobody waits for the signal.
            Err(WorkflowInteractionError::NotFound(_)) => {}
            Err(error) => return Err(temporal(error)),
        }
        Ok(store::callbacks::mark_signalled(&self.pool, &callback.callback_id).await?)
    }

    // -------------------------------------------------------------------------- cancellations

    /// Tells flows what their rows say already: the api's own signal may have been lost.
    async fn signal_cancellations(&self) -> Result<(), Trouble> {
        let pool = &self.pool;
        let cancelled =
            store::redemptions::cancelled_and_open(pool, SIGNAL_AFTER, LOOKED_AT_A_TIME).await?;
        let due = self.told().due(cancelled, Instant::now());
        self.each(due, |redemption| self.signal_cancellation(redemption))
            .await
    }

    async fn signal_cancellation(&self, redemption: RedeemRequestId) -> Result<(), Trouble> {
        match self.flows.cancel_requested(&redemption).await {
            Ok(()) => measures::flow_started("cancel"),
            // It has ended, or was cut off: its next run reads the row.
            Err(WorkflowInteractionError::NotFound(_)) => {}
            Err(error) => return Err(temporal(error)),
        }
        self.told().now(redemption, Instant::now());
        Ok(())
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---------------------------------------------------------------------------------- relay

    /// Starts the relay's workflow, and again should somebody have ended it.
    async fn keep_relay_running(&self, stop: &CancellationToken) {
        let mut backoff = Backoff::short();
        let again = async {
            loop {
                match self.flows.start_relay().await {
                    Ok(()) => {
                        backoff.reset();
                        tokio::time::sleep(Duration::from_secs(5)).await;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the relay is not started yet");
                        backoff.pause().await;
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = again => {}
        }
    }

    // --------------------------------------------------------------------------------- common

    /// Does something with each item, some at a time. All are tried; the last trouble is told.
    async fn each<T, F>(&self, items: Vec<T>, work: impl Fn(T) -> F) -> Result<(), Trouble>
    where
        F: Future<Output = Result<(), Trouble>>,
    {
        let mut done = stream::iter(items)
            .map(work)
            .buffer_unordered(CALLS_AT_A_TIME);
        let mut outcome = Ok(());
        while let Some(result) = done.next().await {
            if let Err(Trouble::Temporal(_)) = &result {
                // The rest would fare the same.
                return result;
            }
            outcome = outcome.and(result);
        }
        outcome
    }

    /// Those whose flow was not found open or started just now, as many as one turn takes.
    fn due<T>(&self, rows: Vec<T>, workflow_id: impl Fn(&T) -> String) -> Vec<T> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, at| at.elapsed() < self.ages.ask_again());
        let due = rows
            .into_iter()
            .filter(|row| !open.contains_key(&workflow_id(row)));
        due.take(usize::try_from(AT_A_TIME).unwrap_or(usize::MAX))
            .collect()
    }

    fn open_now(&self, workflow_id: String) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(workflow_id, Instant::now());
    }

    async fn is_open(&self, workflow_id: &str) -> Result<bool, Trouble> {
        let open = self.flows.is_open(workflow_id).await.map_err(temporal)?;
        if open {
            self.open_now(workflow_id.to_owned());
        }
        Ok(open)
    }
}

fn to_start(redemption: &Redemption) -> RedemptionToStart {
    RedemptionToStart {
        id: redemption.redeem_request_id.clone(),
        customer: redemption.customer_id.clone(),
        merchant: redemption.merchant_id.clone(),
        points: redemption.points,
        traceparent: redemption.traceparent.clone(),
    }
}

/// A claim as its flow is started.
pub fn to_claim(row: &Assignment) -> PromotionClaim {
    PromotionClaim {
        promotion_id: row.promotion_id.clone(),
        customer_id: row.customer_id.clone(),
        number: row.claims,
    }
}

/// A job as its flow is started.
pub fn to_assignment(job: &Job) -> AssignPromotionInput {
    AssignPromotionInput {
        job_id: job.job_id.clone(),
        promotion_id: job.promotion_id.clone(),
        players: u32::try_from(job.players).unwrap_or(u32::MAX),
    }
}

fn temporal(error: impl std::fmt::Display) -> Trouble {
    Trouble::Temporal(error.to_string())
}

/// Redemptions whose flows were told of their cancellation: when to tell them again.
#[derive(Default)]
struct Told(HashMap<RedeemRequestId, (Instant, Backoff)>);

impl Told {
    /// Those of the cancelled and open ones that are to be told now, as many as one turn takes.
    /// The others that were told before have ended and are forgotten.
    fn due(&mut self, cancelled: Vec<RedeemRequestId>, now: Instant) -> Vec<RedeemRequestId> {
        let before = std::mem::take(&mut self.0);
        self.0 = cancelled
            .iter()
            .filter_map(|id| Some((id.clone(), *before.get(id)?)))
            .collect();
        let due = cancelled
            .into_iter()
            .filter(|id| self.0.get(id).is_none_or(|(again, _)| *again <= now));
        due.take(usize::try_from(AT_A_TIME).unwrap_or(usize::MAX))
            .collect()
    }

    /// It was told just now.
    fn now(&mut self, id: RedeemRequestId, now: Instant) {
        let pauses = Backoff::new(CANCEL_AGAIN_AFTER, CANCEL_AGAIN_AT_LEAST_EVERY);
        let (again, backoff) = self.0.entry(id).or_insert((now, pauses));
        *again = now + backoff.next_pause();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancellation_is_told_at_once_then_less_and_less_often_and_forgotten_when_it_has_ended() {
        let id = RedeemRequestId::new("R1").expect("an id");
        let all = || vec![id.clone()];
        let mut told = Told::default();
        let mut now = Instant::now();
        assert_eq!(told.due(all(), now), all());
        assert_eq!(
            told.due(all(), now),
            all(),
            "the signal did not get through"
        );
        for pause in [15, 30, 60, 120, 240, 480, 600, 600] {
            told.now(id.clone(), now);
            now += Duration::from_secs(pause);
            let just_before = now.checked_sub(Duration::from_millis(1)).expect("in range");
            assert_eq!(told.due(all(), just_before), vec![]);
            assert_eq!(told.due(all(), now), all());
        }
        assert_eq!(told.due(vec![], now), vec![]);
        assert!(told.0.is_empty());
    }
}
