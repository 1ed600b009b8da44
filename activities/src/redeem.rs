//! The steps of a redemption. Each is a change of its row, or a word with the merchant whose
//! outcome is recorded there.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use domain::{
    MerchantId, RedeemRequestId,
    redemption::{PartnerVerdict, RedemptionState},
};
use faultpoint::bug;
use store::{
    PgPool,
    redemptions::{self, Redemption},
};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use workflows::contract::{
    ConfirmWithPartner, PartnerAnswer, PartnerReply, RedemptionView, Release, Reserve, Settle,
    definition,
};

use crate::{
    Failure, activity_error, measures,
    outcomes::Outcomes,
    partner::{Attempt, PartnerError, Partners, Said},
};

/// What the steps work with.
#[derive(Clone)]
pub struct RedeemSteps {
    /// The primary database.
    pub pool: PgPool,
    /// The merchants.
    pub partners: Partners,
    /// Who waits for a redemption to move on.
    pub outcomes: Outcomes,
}

/// A row as a workflow sees it.
pub fn view(row: &Redemption) -> RedemptionView {
    RedemptionView {
        state: row.state,
        reason: row.reason,
        verdict: row.verdict,
        cancel_requested: row.cancel_requested,
        hold_expires_at: row.hold_expires_at,
        points_deducted: row.points_deducted,
        balance_after: row.balance_after,
    }
}

#[activities]
impl RedeemSteps {
    #[activity(definition = definition::Reserve)]
    pub async fn reserve(
        self: Arc<Self>,
        _ctx: ActivityContext,
        input: Reserve,
    ) -> Result<RedemptionView, ActivityError> {
        let id = &input.redeem_request_id;
        let ttl = Duration::from_millis(input.hold_ttl_ms);
        let is_known = |merchant: &MerchantId| self.partners.knows(merchant);
        let row = redemptions::reserve(&self.pool, id, ttl, is_known)
            .await
            .map_err(activity_error)?;
        Ok(self.changed(&row))
    }

    #[activity(definition = definition::ConfirmWithPartner)]
    pub async fn confirm_with_partner(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: ConfirmWithPartner,
    ) -> Result<PartnerReply, ActivityError> {
        let id = &input.redeem_request_id;
        let asks_first = faultpoint::planted(bug::STATE_BEFORE_CALL);
        let row = if asks_first {
            self.row(id).await.map_err(activity_error)?
        } else {
            redemptions::begin_confirm(&self.pool, id)
                .await
                .map_err(activity_error)?
        };
        let may_ask = row.state == RedemptionState::Confirming
            || (asks_first && row.state == RedemptionState::Reserved);
        if !may_ask || row.cancel_requested || row.verdict.is_some() {
            let answer = if row.state == RedemptionState::AwaitingCallback {
                PartnerAnswer::Pending
            } else {
                PartnerAnswer::NotAsked
            };
            return Ok(PartnerReply {
                answer,
                view: view(&row),
            });
        }
        let callback_id = row.callback_id.as_deref().ok_or_else(|| {
            activity_error(Failure::impossible(format!(
                "redemption {id} is CONFIRMING without a callback id"
            )))
        })?;
        let attempt = match input.quick_attempt_ms {
            Some(quick_ms) => Attempt::Quick(Duration::from_millis(quick_ms)),
            None => Attempt::Patient(time_left(&ctx)),
        };
        faultpoint::reach("partner", "before-call");
        let said = self
            .partners
            .confirm(
                &row.merchant_id,
                id,
                &row.order_id,
                row.points,
                callback_id,
                attempt,
            )
            .await;
        faultpoint::reach("partner", "after-call");
        if asks_first {
            redemptions::begin_confirm(&self.pool, id)
                .await
                .map_err(activity_error)?;
        }
        match said {
            Ok(said) => self.record(&row, said).await.map_err(activity_error),
            // A quick attempt that came to nothing is followed by a patient one.
            Err(error) if input.quick_attempt_ms.is_some() => {
                tracing::debug!(redeem_request_id = %id, %error, "quick attempt");
                Ok(PartnerReply {
                    answer: PartnerAnswer::NotAsked,
                    view: view(&row),
                })
            }
            Err(error) => Err(activity_error(error)),
        }
    }

    #[activity(definition = definition::AskPartnerStatus)]
    pub async fn ask_partner_status(
        self: Arc<Self>,
        _ctx: ActivityContext,
        id: RedeemRequestId,
    ) -> Result<PartnerReply, ActivityError> {
        let row = self.row(&id).await.map_err(activity_error)?;
        if !row.state.partner_may_know() {
            return Ok(PartnerReply {
                answer: PartnerAnswer::NotAsked,
                view: view(&row),
            });
        }
        let said = self
            .partners
            .status(&row.merchant_id, &id)
            .await
            .map_err(activity_error)?;
        if said == Said::Pending {
            return Ok(PartnerReply {
                answer: PartnerAnswer::Pending,
                view: view(&row),
            });
        }
        self.record(&row, said).await.map_err(activity_error)
    }

    #[activity(definition = definition::VoidAtPartner)]
    pub async fn void_at_partner(
        self: Arc<Self>,
        _ctx: ActivityContext,
        id: RedeemRequestId,
    ) -> Result<PartnerReply, ActivityError> {
        let row = self.row(&id).await.map_err(activity_error)?;
        if !row.state.partner_may_know() {
            return Ok(PartnerReply {
                answer: PartnerAnswer::NotAsked,
                view: view(&row),
            });
        }
        faultpoint::reach("void", "before-call");
        let said = if faultpoint::planted(bug::VOID_BEFORE_RELEASE) {
            Said::Voided
        } else {
            self.partners
                .void(&row.merchant_id, &id)
                .await
                .map_err(activity_error)?
        };
        faultpoint::reach("void", "after-call");
        match said {
            Said::Voided | Said::Confirmed { .. } => {
                self.record(&row, said).await.map_err(activity_error)
            }
            // Only a final word frees the points: anything else is asked again.
            Said::Pending | Said::Refused { .. } | Said::Unknown { .. } => {
                Err(activity_error(PartnerError::Lost {
                    merchant: row.merchant_id,
                    reason: format!("it answered a void with {said:?}"),
                }))
            }
        }
    }

    #[activity(definition = definition::Settle)]
    pub async fn settle(
        self: Arc<Self>,
        _ctx: ActivityContext,
        input: Settle,
    ) -> Result<RedemptionView, ActivityError> {
        let row = redemptions::settle(
            &self.pool,
            &input.redeem_request_id,
            input.confirmation_id.as_deref(),
            input.beyond_cancel,
        )
        .await
        .map_err(activity_error)?;
        Ok(self.changed(&row))
    }

    #[activity(definition = definition::Release)]
    pub async fn release(
        self: Arc<Self>,
        _ctx: ActivityContext,
        input: Release,
    ) -> Result<RedemptionView, ActivityError> {
        let row = redemptions::release(&self.pool, &input.redeem_request_id, input.reason)
            .await
            .map_err(activity_error)?;
        Ok(self.changed(&row))
    }

    #[activity(definition = definition::RequestCancel)]
    pub async fn request_cancel(
        self: Arc<Self>,
        _ctx: ActivityContext,
        id: RedeemRequestId,
    ) -> Result<RedemptionView, ActivityError> {
        let mut conn = self
            .pool
            .acquire()
            .await
            .map_err(store::Error::from)
            .map_err(activity_error)?;
        let row = redemptions::request_cancel(&mut conn, &id)
            .await
            .map_err(activity_error)?;
        Ok(self.changed(&row))
    }

    #[activity(definition = definition::ReadRedemption)]
    pub async fn read_redemption(
        self: Arc<Self>,
        _ctx: ActivityContext,
        id: RedeemRequestId,
    ) -> Result<RedemptionView, ActivityError> {
        Ok(view(&self.row(&id).await.map_err(activity_error)?))
    }
}

/// How long a request may take so that it has ended before its attempt is given up: a request
/// that outlives its attempt would meet the void that follows.
fn time_left(ctx: &ActivityContext) -> Option<Duration> {
    let left = ctx.info().deadline?.duration_since(SystemTime::now());
    Some(left.unwrap_or_default().mul_f64(0.9))
}

impl RedeemSteps {
    async fn row(&self, id: &RedeemRequestId) -> Result<Redemption, Failure> {
        let mut conn = self.pool.acquire().await.map_err(store::Error::from)?;
        let row = redemptions::find(&mut conn, id).await?;
        row.ok_or_else(|| {
            store::Error::NotFound {
                what: "redemption",
                id: id.to_string(),
            }
            .into()
        })
    }

    fn changed(&self, row: &Redemption) -> RedemptionView {
        if row.ended_now {
            measures::redemption_ended(row, self.partners.knows(&row.merchant_id));
        }
        self.outcomes.changed(&row.redeem_request_id, row.state);
        view(row)
    }

    /// Records what the merchant said in the row that it was asked for, before anything follows from
    /// it. CONFIRMED is recorded by settling, which sees whether the client has taken it back meanwhile.
    async fn record(&self, asked: &Redemption, said: Said) -> Result<PartnerReply, Failure> {
        let id = &asked.redeem_request_id;
        let (answer, row) = match said {
            Said::Confirmed { confirmation_id } => {
                return Ok(PartnerReply {
                    answer: PartnerAnswer::Confirmed { confirmation_id },
                    view: view(asked),
                });
            }
            Said::Pending => {
                let row = redemptions::await_callback(&self.pool, id).await?;
                (PartnerAnswer::Pending, row)
            }
            Said::Refused { reason } => {
                let verdict = PartnerVerdict::Refused;
                (
                    PartnerAnswer::Refused,
                    self.verdict(id, verdict, reason.as_deref()).await?,
                )
            }
            Said::Voided => (
                PartnerAnswer::Voided,
                self.verdict(id, PartnerVerdict::Voided, None).await?,
            ),
            Said::Unknown { .. } => (PartnerAnswer::Unknown, self.row(id).await?),
        };
        Ok(PartnerReply {
            answer,
            view: self.changed(&row),
        })
    }

    async fn verdict(
        &self,
        id: &RedeemRequestId,
        verdict: PartnerVerdict,
        detail: Option<&str>,
    ) -> Result<Redemption, Failure> {
        let mut conn = self.pool.acquire().await.map_err(store::Error::from)?;
        faultpoint::reach("verdict", "before-commit");
        let row = redemptions::record_verdict(&mut conn, id, verdict, detail).await?;
        faultpoint::reach("verdict", "after-commit");
        Ok(row)
    }
}
