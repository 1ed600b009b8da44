//! Redeem: reserve, ask the merchant, deduct; or give the points back.
//!
//! Input: which redemption and its time limits. Outcome: the redemption's row at its end. The row
//! is the state machine: every step is a conditional update of it that returns where it stands,
//! and this workflow follows that answer, never its memory, because finished local steps may run
//! again after a crash. Points go back only while the merchant has not been asked, or on its word
//! that it will not deliver.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{
    MerchantId, Points, RedeemRequestId,
    redemption::{FailureReason, PartnerVerdict, RedemptionState},
};
use serde::{Deserialize, Serialize};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{
    SyncWorkflowContext, TimerOptions, WorkflowCancellationToken, WorkflowContext,
    WorkflowContextView, WorkflowResult, select,
};

use crate::{
    contract::{
        ConfirmWithPartner, PartnerAnswer, PartnerReply, RedeemActivities, RedemptionView, Release,
        Reserve, Settle,
    },
    options,
    step::step,
    visibility::{REASON, STATUS},
};

/// Which redemption, and how long each part of it may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedeemInput {
    /// The redemption.
    pub redeem_request_id: RedeemRequestId,
    /// The merchant, for people who read the history.
    pub merchant_id: MerchantId,
    /// The points, for people who read the history.
    pub points: Points,
    /// The time limits.
    pub limits: RedeemLimits,
}

/// Time limits of a redemption, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedeemLimits {
    /// How long the points may be held. When it passes, the workflow begins to void.
    pub hold_ttl_ms: u64,
    /// How long the merchant is asked to confirm.
    pub confirm_within_ms: u64,
    /// How long a promised callback may take.
    pub callback_within_ms: u64,
    /// How long the first, quick attempt may take; zero to go without it.
    pub quick_attempt_ms: u64,
}

/// What the merchant's word comes down to.
enum Word {
    /// It delivers: the points are due.
    Delivers {
        confirmation_id: Option<String>,
        beyond_cancel: bool,
    },
    /// It does not deliver, or was never asked: the points go back.
    Declines(FailureReason),
    /// Nobody knows; why it has to be made certain.
    Uncertain(FailureReason),
}

/// One redemption.
#[workflow]
pub struct Redeem {
    input: RedeemInput,
    called_back: bool,
    cancel_requested: bool,
    last: Option<RedemptionView>,
}

#[workflow_methods]
impl Redeem {
    #[init]
    fn new(_ctx: &WorkflowContextView, input: RedeemInput) -> Self {
        Self {
            input,
            called_back: false,
            cancel_requested: false,
            last: None,
        }
    }

    /// Reserves, hears the merchant, makes an uncertain answer certain, then settles or releases.
    #[run(name = "Redeem")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<RedemptionView> {
        let mut view = Self::reserve(ctx).await?;
        let mut pause = options::STALLED_PAUSE;
        while !view.state.is_final() {
            let before = (view.state, view.verdict, view.cancel_requested);
            let mut word = Self::hear_partner(ctx, &view).await?;
            if let Word::Uncertain(reason) = word {
                word = Self::make_certain(ctx, reason).await?;
            }
            view = match word {
                Word::Delivers {
                    confirmation_id,
                    beyond_cancel,
                } => Self::settle(ctx, confirmation_id, beyond_cancel).await?,
                Word::Declines(reason) => Self::release(ctx, reason).await?,
                Word::Uncertain(_) => Self::read(ctx).await?,
            };
            if before == (view.state, view.verdict, view.cancel_requested) {
                // Nothing follows from what is known: ask again, but never in a rush.
                ctx.set_current_details("Nothing has come of asking; asking again soon");
                ctx.timer(
                    TimerOptions::builder(pause)
                        .summary("Waits before it asks again".to_owned())
                        .cancellation_token(WorkflowCancellationToken::new())
                        .build(),
                )
                .await;
                pause = (pause * 2).min(options::STALLED_PAUSE_MAX);
            }
        }
        Self::tell(ctx, &view);
        Ok(view)
    }

    /// The merchant's answer has been stored; the row says what it is.
    #[signal(name = "partner-called-back")]
    pub fn partner_called_back(&mut self, _ctx: &mut SyncWorkflowContext<Self>, _input: ()) {
        self.called_back = true;
    }

    /// The client's wish to take it back has been stored.
    #[signal(name = "cancel-requested")]
    pub fn cancel_requested(&mut self, _ctx: &mut SyncWorkflowContext<Self>, _input: ()) {
        self.cancel_requested = true;
    }

    /// The row as the last step left it.
    #[query(name = "redemption")]
    pub fn redemption(&self, _ctx: &WorkflowContextView, _input: ()) -> Option<RedemptionView> {
        self.last.clone()
    }

    // ------------------------------------------------------------------ what the merchant says

    /// Asks the merchant and, if it promises to, waits for it to call back.
    async fn hear_partner(
        ctx: &WorkflowContext<Self>,
        view: &RedemptionView,
    ) -> WorkflowResult<Word> {
        if let Some(word) = Self::word_of_row(ctx, view) {
            return Ok(word);
        }
        if Self::is_taken_back(ctx, view) && !view.cancel_requested {
            // Cancelled from the Web UI: the row has to know before anything follows from it.
            let view = Self::record_cancel(ctx).await?;
            return Ok(
                Self::word_of_row(ctx, &view).unwrap_or(Word::Uncertain(FailureReason::Cancelled))
            );
        }
        if view.state == RedemptionState::AwaitingCallback {
            return Self::await_callback(ctx, view).await;
        }
        let Some(reply) = Self::ask_to_confirm(ctx, view).await else {
            let view = Self::read(ctx).await?;
            return Ok(Self::word_of_row(ctx, &view)
                .unwrap_or_else(|| Word::Uncertain(Self::reason_now(ctx, &view))));
        };
        if let Some(word) = Self::word_of_row(ctx, &reply.view) {
            return Ok(word);
        }
        match reply.answer {
            PartnerAnswer::Confirmed { confirmation_id } => Ok(Word::Delivers {
                confirmation_id,
                beyond_cancel: false,
            }),
            PartnerAnswer::Pending => Self::await_callback(ctx, &reply.view).await,
            PartnerAnswer::Refused
            | PartnerAnswer::Voided
            | PartnerAnswer::Unknown
            | PartnerAnswer::NotAsked => Ok(Word::Uncertain(Self::reason_now(ctx, &reply.view))),
        }
    }

    /// What already follows from the row, without asking anybody.
    fn word_of_row(ctx: &WorkflowContext<Self>, view: &RedemptionView) -> Option<Word> {
        match view.verdict {
            Some(PartnerVerdict::Confirmed) if view.cancel_requested => {
                Some(Word::Uncertain(FailureReason::Cancelled))
            }
            Some(PartnerVerdict::Confirmed) => Some(Word::Delivers {
                confirmation_id: None,
                beyond_cancel: false,
            }),
            Some(PartnerVerdict::Refused) => Some(Word::Declines(FailureReason::PartnerRefused)),
            Some(PartnerVerdict::Voided) => Some(Word::Declines(Self::reason_now(ctx, view))),
            None if view.cancel_requested && view.state == RedemptionState::Reserved => {
                Some(Word::Declines(FailureReason::Cancelled))
            }
            // Held for too long before the merchant was ever asked: nobody else has to be.
            None if view.state == RedemptionState::Reserved
                && Self::hold_remaining(ctx, view).is_zero() =>
            {
                Some(Word::Declines(FailureReason::HoldExpired))
            }
            None if view.cancel_requested => Some(Word::Uncertain(FailureReason::Cancelled)),
            None => None,
        }
    }

    /// A short attempt beside the workflow, then patient ones. Nothing when the merchant has not
    /// answered in time or the client took it back meanwhile.
    async fn ask_to_confirm(
        ctx: &WorkflowContext<Self>,
        view: &RedemptionView,
    ) -> Option<PartnerReply> {
        if Self::hold_remaining(ctx, view).is_zero() {
            return None;
        }
        let input = ctx.state(|s| s.input.clone());
        let summary = format!("Asks {} to deliver", input.merchant_id);
        if input.limits.quick_attempt_ms > 0 {
            let quick = ctx
                .execute_local_activity(
                    RedeemActivities::confirm_with_partner,
                    ConfirmWithPartner {
                        redeem_request_id: input.redeem_request_id.clone(),
                        quick_attempt_ms: Some(input.limits.quick_attempt_ms),
                    },
                    options::local_once(summary.clone(), options::LOCAL_STEP_BUDGET),
                )
                .await;
            match quick {
                Ok(reply) if reply.answer != PartnerAnswer::NotAsked => return Some(reply),
                Ok(reply) if Self::word_of_row(ctx, &reply.view).is_some() => return Some(reply),
                _ => {}
            }
        }
        let within = Duration::from_millis(input.limits.confirm_within_ms)
            .min(Self::hold_remaining(ctx, view));
        if within.is_zero() {
            return None;
        }
        ctx.set_current_details(format!("Waiting for {} to answer", input.merchant_id));
        ctx.upsert_search_attributes([STATUS.value_set(RedemptionState::Confirming.to_string())]);
        let token = WorkflowCancellationToken::new();
        let mut patient = ctx.execute_activity(
            RedeemActivities::confirm_with_partner,
            ConfirmWithPartner {
                redeem_request_id: input.redeem_request_id,
                quick_attempt_ms: None,
            },
            options::partner(summary, Some(within), token.clone()),
        );
        let mut taken_back = ctx.wait_condition(|s| s.cancel_requested);
        select! {
            reply = patient => reply.ok(),
            _ = taken_back => {
                token.cancel_with_reason("the client took the redemption back");
                None
            }
        }
    }

    /// Waits until the merchant calls back, the client takes it back, or the time is up.
    async fn await_callback(
        ctx: &WorkflowContext<Self>,
        view: &RedemptionView,
    ) -> WorkflowResult<Word> {
        let input = ctx.state(|s| s.input.clone());
        ctx.set_current_details(format!("Waiting for {} to call back", input.merchant_id));
        ctx.upsert_search_attributes([
            STATUS.value_set(RedemptionState::AwaitingCallback.to_string())
        ]);
        let within = Duration::from_millis(input.limits.callback_within_ms)
            .min(Self::hold_remaining(ctx, view))
            .max(options::SHORTEST_WAIT);
        let token = WorkflowCancellationToken::new();
        let mut timer = ctx.timer(
            TimerOptions::builder(within)
                .summary(format!("Waits for {} to call back", input.merchant_id))
                .cancellation_token(token.clone())
                .build(),
        );
        let mut in_time = true;
        loop {
            {
                let mut woken = ctx.wait_condition(|s| s.called_back || s.cancel_requested);
                select! {
                    _ = woken => ctx.state_mut(|s| s.called_back = false),
                    _ = timer => in_time = false,
                }
            }
            let view = Self::read(ctx).await?;
            if let Some(word) = Self::word_of_row(ctx, &view) {
                token.cancel();
                return Ok(word);
            }
            if view.state.is_final() || !in_time || Self::is_taken_back(ctx, &view) {
                token.cancel();
                return Ok(Word::Uncertain(Self::reason_now(ctx, &view)));
            }
        }
    }

    /// Learns what became of the redemption at the merchant, or takes it back there for good.
    async fn make_certain(
        ctx: &WorkflowContext<Self>,
        reason: FailureReason,
    ) -> WorkflowResult<Word> {
        let input = ctx.state(|s| s.input.clone());
        if ctx.cancellation_token().is_cancelled() {
            let view = Self::record_cancel(ctx).await?;
            if view.state.is_final() {
                return Ok(Word::Uncertain(reason));
            }
        }
        if reason != FailureReason::Cancelled {
            ctx.set_current_details(format!(
                "No answer from {}: asking what became of it",
                input.merchant_id
            ));
            let status = ctx
                .execute_activity(
                    RedeemActivities::ask_partner_status,
                    input.redeem_request_id.clone(),
                    options::partner(
                        format!("Asks {} what became of it", input.merchant_id),
                        Some(options::PARTNER_STATUS_WITHIN),
                        WorkflowCancellationToken::new(),
                    ),
                )
                .await;
            match status.map(|reply| reply.answer) {
                Ok(PartnerAnswer::Confirmed { confirmation_id }) => {
                    return Ok(Word::Delivers {
                        confirmation_id,
                        beyond_cancel: false,
                    });
                }
                Ok(PartnerAnswer::Refused) => {
                    return Ok(Word::Declines(FailureReason::PartnerRefused));
                }
                Ok(PartnerAnswer::Voided) => return Ok(Word::Declines(reason)),
                _ => {}
            }
        }
        ctx.set_current_details(format!(
            "Taking it back at {} ({reason}); the points stay held until it has answered",
            input.merchant_id
        ));
        ctx.upsert_search_attributes([STATUS.value_set("VOIDING".to_owned())]);
        let reply = ctx
            .execute_activity(
                RedeemActivities::void_at_partner,
                input.redeem_request_id,
                options::partner(
                    format!("Voids it at {}: {reason}", input.merchant_id),
                    None,
                    WorkflowCancellationToken::new(),
                ),
            )
            .await?;
        Ok(match reply.answer {
            PartnerAnswer::Confirmed { confirmation_id } => Word::Delivers {
                confirmation_id,
                beyond_cancel: true,
            },
            PartnerAnswer::Refused => Word::Declines(FailureReason::PartnerRefused),
            PartnerAnswer::Voided => Word::Declines(reason),
            PartnerAnswer::Pending | PartnerAnswer::Unknown | PartnerAnswer::NotAsked => {
                Word::Uncertain(reason)
            }
        })
    }

    // ------------------------------------------------------- steps: each a change of the row

    /// Holds the points.
    async fn reserve(ctx: &WorkflowContext<Self>) -> WorkflowResult<RedemptionView> {
        let input = ctx.state(|s| s.input.clone());
        let reserve = Reserve {
            redeem_request_id: input.redeem_request_id,
            hold_ttl_ms: input.limits.hold_ttl_ms,
        };
        let summary = format!("Holds {} points", input.points);
        let budget = options::LOCAL_STEP_BUDGET;
        let view = step(ctx, || RedeemActivities::reserve, reserve, summary, budget).await?;
        Ok(Self::keep(ctx, view))
    }

    /// Gives the held points back: the undo of [`Self::reserve`].
    async fn release(
        ctx: &WorkflowContext<Self>,
        reason: FailureReason,
    ) -> WorkflowResult<RedemptionView> {
        let input = ctx.state(|s| s.input.clone());
        let release = Release {
            redeem_request_id: input.redeem_request_id,
            reason,
        };
        let summary = format!("Gives {} points back: {reason}", input.points);
        let budget = options::LOCAL_STEP_BUDGET;
        let view = step(ctx, || RedeemActivities::release, release, summary, budget).await?;
        Ok(Self::keep(ctx, view))
    }

    /// Deducts the held points. Nothing undoes it.
    async fn settle(
        ctx: &WorkflowContext<Self>,
        confirmation_id: Option<String>,
        beyond_cancel: bool,
    ) -> WorkflowResult<RedemptionView> {
        let input = ctx.state(|s| s.input.clone());
        let settle = Settle {
            redeem_request_id: input.redeem_request_id,
            confirmation_id,
            beyond_cancel,
        };
        let summary = format!("Deducts {} points for {}", input.points, input.merchant_id);
        let budget = options::LOCAL_STEP_BUDGET;
        let view = step(ctx, || RedeemActivities::settle, settle, summary, budget).await?;
        Ok(Self::keep(ctx, view))
    }

    async fn read(ctx: &WorkflowContext<Self>) -> WorkflowResult<RedemptionView> {
        let id = ctx.state(|s| s.input.redeem_request_id.clone());
        let summary = "Reads what has been recorded".to_owned();
        let budget = options::LOCAL_STEP_BUDGET;
        let view = step(
            ctx,
            || RedeemActivities::read_redemption,
            id,
            summary,
            budget,
        )
        .await?;
        Ok(Self::keep(ctx, view))
    }

    async fn record_cancel(ctx: &WorkflowContext<Self>) -> WorkflowResult<RedemptionView> {
        let id = ctx.state(|s| s.input.redeem_request_id.clone());
        let summary = "Records that it is taken back".to_owned();
        let budget = options::LOCAL_STEP_BUDGET;
        let view = step(
            ctx,
            || RedeemActivities::request_cancel,
            id,
            summary,
            budget,
        )
        .await?;
        Ok(Self::keep(ctx, view))
    }

    fn keep(ctx: &WorkflowContext<Self>, view: RedemptionView) -> RedemptionView {
        ctx.state_mut(|s| s.last = Some(view.clone()));
        view
    }

    // ------------------------------------------------------------------------- small questions

    fn is_taken_back(ctx: &WorkflowContext<Self>, view: &RedemptionView) -> bool {
        view.cancel_requested
            || ctx.state(|s| s.cancel_requested)
            || ctx.cancellation_token().is_cancelled()
    }

    /// Why it would have to end now.
    fn reason_now(ctx: &WorkflowContext<Self>, view: &RedemptionView) -> FailureReason {
        if Self::is_taken_back(ctx, view) {
            FailureReason::Cancelled
        } else if Self::hold_remaining(ctx, view).is_zero() {
            FailureReason::HoldExpired
        } else {
            FailureReason::PartnerTimeout
        }
    }

    /// How long the hold has left, by the workflow's own time.
    fn hold_remaining(ctx: &WorkflowContext<Self>, view: &RedemptionView) -> Duration {
        match (view.hold_expires_at, ctx.workflow_time()) {
            (Some(expires_at), Some(now)) => (expires_at - DateTime::<Utc>::from(now))
                .to_std()
                .unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }

    /// Shows operators how it ended.
    fn tell(ctx: &WorkflowContext<Self>, view: &RedemptionView) {
        let input = ctx.state(|s| s.input.clone());
        match view.reason {
            None => {
                ctx.set_current_details(format!(
                    "SUCCESS: {} points deducted for {}",
                    view.points_deducted, input.merchant_id
                ));
                ctx.upsert_search_attributes([STATUS.value_set(view.state.to_string())]);
            }
            Some(reason) => {
                ctx.set_current_details(format!("FAILED: {reason}; nothing was deducted"));
                ctx.upsert_search_attributes([
                    STATUS.value_set(view.state.to_string()),
                    REASON.value_set(reason.to_string()),
                ]);
            }
        }
    }
}
