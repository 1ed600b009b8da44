//! One redemption as a merchant sees it: what each request does to it. Everything
//! here is a function of values; the clock and the mode come in as arguments.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::mode::{MerchantMode, MerchantSettings};

/// The reason that a merchant gives for refusing when its mode says so.
pub(crate) const OUT_OF_STOCK: &str = "OUT_OF_STOCK";

/// What the merchant has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RedemptionStatus {
    /// The customer gets what was ordered.
    Confirmed,
    /// Not decided yet.
    Pending,
    /// The customer gets nothing.
    Refused,
    /// Undone, or made impossible before it came.
    Voided,
}

/// How far the late answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CallbackState {
    /// It is being delivered.
    Owed,
    /// It was taken.
    Delivered,
    /// It was turned away, took too long, or lost its purpose through a void.
    GivenUp,
}

/// One entry in the history of a redemption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusChange {
    /// What it became.
    pub status: RedemptionStatus,
    /// When.
    pub at: DateTime<Utc>,
}

/// A decision that a PENDING redemption is waiting for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Decision {
    pub(crate) outcome: RedemptionStatus,
    pub(crate) at: DateTime<Utc>,
    pub(crate) calls_back: bool,
}

/// A redemption in a merchant's book, with the counts of what was asked about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Redemption {
    /// Meed's id, the idempotency key.
    pub redeem_request_id: String,
    /// The order; absent when a void came first.
    pub order_id: Option<String>,
    /// The points; absent when a void came first.
    pub points: Option<i64>,
    /// Where the late answer goes: the address in the latest post.
    pub callback_url: Option<String>,
    /// Absent while nothing is booked, for instance when posts were only answered
    /// with 503.
    pub status: Option<RedemptionStatus>,
    /// The merchant's own id of a confirmed redemption.
    pub confirmation_id: Option<String>,
    /// Why it was refused.
    pub reason: Option<String>,
    /// How often it was posted, answered or not.
    pub posts: u32,
    /// How often its status was asked.
    pub status_queries: u32,
    /// How often it was voided.
    pub voids: u32,
    /// How often the late answer was sent.
    pub callbacks: u32,
    /// How far the late answer has come, when there is one.
    pub callback: Option<CallbackState>,
    /// The HTTP status of the latest answer to a callback.
    pub callback_answer: Option<u16>,
    /// Every status it had, oldest first.
    pub changes: Vec<StatusChange>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) decision: Option<Decision>,
}

/// The body of `POST /redemptions`, checked.
#[derive(Clone, Debug)]
pub(crate) struct RedemptionRequest {
    pub(crate) redeem_request_id: String,
    pub(crate) order_id: String,
    pub(crate) points: i64,
    pub(crate) callback_url: String,
}

/// What a merchant does with a post after its book has taken it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// Answer with the status as the book has it.
    Answer,
    /// Answer with the status; the decision comes later.
    AnswerAndDecide(Decision),
    /// Call back, then answer PENDING.
    CallBackThenAnswer,
    /// The same id was posted with another order or other points.
    Differs,
    /// 503.
    Unavailable,
    /// No answer on an open connection.
    Silence,
    /// No answer on a closed connection.
    Cut,
}

impl Redemption {
    pub(crate) fn unbooked(redeem_request_id: &str) -> Self {
        Self {
            redeem_request_id: redeem_request_id.to_owned(),
            order_id: None,
            points: None,
            callback_url: None,
            status: None,
            confirmation_id: None,
            reason: None,
            posts: 0,
            status_queries: 0,
            voids: 0,
            callbacks: 0,
            callback: None,
            callback_answer: None,
            changes: Vec::new(),
            decision: None,
        }
    }

    /// Takes a post in and says how to answer it.
    pub(crate) fn post(
        &mut self,
        settings: &MerchantSettings,
        request: &RedemptionRequest,
        now: DateTime<Utc>,
    ) -> Reaction {
        self.posts += 1;
        match settings.mode {
            MerchantMode::Error => return Reaction::Unavailable,
            MerchantMode::Flaky if self.posts <= settings.failed_posts() => {
                return Reaction::Unavailable;
            }
            MerchantMode::Silent => return Reaction::Silence,
            _ => {}
        }
        let first = self.status.is_none();
        if first {
            self.order_id = Some(request.order_id.clone());
            self.points = Some(request.points);
            self.book(settings, now);
        } else if self.status != Some(RedemptionStatus::Voided) && self.differs_from(request) {
            return Reaction::Differs;
        }
        self.callback_url = Some(request.callback_url.clone());
        match (settings.mode, &self.decision) {
            (MerchantMode::AnswerLost, _) if self.posts <= settings.lost_answers() => Reaction::Cut,
            (MerchantMode::AnswerLostForever, _) => Reaction::Silence,
            (MerchantMode::CallbackFirst, _) if first => Reaction::CallBackThenAnswer,
            (_, Some(decision)) if first => Reaction::AnswerAndDecide(decision.clone()),
            _ => Reaction::Answer,
        }
    }

    fn book(&mut self, settings: &MerchantSettings, now: DateTime<Utc>) {
        let mut decide_later = |outcome, calls_back| {
            self.decision = Some(Decision {
                outcome,
                at: now + settings.callback_delay(),
                calls_back,
            });
        };
        match settings.mode {
            MerchantMode::Refuse => return self.become_status(RedemptionStatus::Refused, now),
            MerchantMode::PendingConfirm => decide_later(RedemptionStatus::Confirmed, true),
            MerchantMode::PendingRefuse => decide_later(RedemptionStatus::Refused, true),
            MerchantMode::PendingCallbackLost => decide_later(RedemptionStatus::Confirmed, false),
            MerchantMode::PendingSilent | MerchantMode::NotVoidable => {}
            MerchantMode::CallbackFirst => {
                self.become_status(RedemptionStatus::Pending, now);
                self.become_status(RedemptionStatus::Confirmed, now);
                self.callback = Some(CallbackState::Owed);
                return;
            }
            MerchantMode::Confirm
            | MerchantMode::Silent
            | MerchantMode::AnswerLost
            | MerchantMode::AnswerLostForever
            | MerchantMode::Error
            | MerchantMode::Flaky
            | MerchantMode::Slow => return self.become_status(RedemptionStatus::Confirmed, now),
        }
        self.become_status(RedemptionStatus::Pending, now);
    }

    /// Whether the request is for another order or other points. The callback
    /// address is not part of what is bought, so the latest one simply counts.
    fn differs_from(&self, request: &RedemptionRequest) -> bool {
        self.order_id.as_deref() != Some(&request.order_id) || self.points != Some(request.points)
    }

    /// Makes the decision that was due, unless something else happened since.
    /// Answers whether a callback is owed now.
    pub(crate) fn decide(&mut self, expected: &Decision, now: DateTime<Utc>) -> bool {
        if self.status != Some(RedemptionStatus::Pending)
            || self.decision.as_ref() != Some(expected)
        {
            return false;
        }
        self.decision = None;
        self.become_status(expected.outcome, now);
        if expected.calls_back {
            self.callback = Some(CallbackState::Owed);
        }
        expected.calls_back
    }

    /// Undoes the redemption, or leaves a tombstone where there is none yet. In
    /// the mode `not-voidable`, what was accepted stays, and becomes CONFIRMED.
    pub(crate) fn void(&mut self, mode: MerchantMode, now: DateTime<Utc>) -> RedemptionStatus {
        self.voids += 1;
        let accepted = matches!(
            self.status,
            Some(RedemptionStatus::Pending | RedemptionStatus::Confirmed)
        );
        let outcome = if accepted && mode == MerchantMode::NotVoidable {
            RedemptionStatus::Confirmed
        } else {
            if self.callback == Some(CallbackState::Owed) {
                self.callback = Some(CallbackState::GivenUp);
            }
            RedemptionStatus::Voided
        };
        self.decision = None;
        if self.status != Some(outcome) {
            self.become_status(outcome, now);
        }
        outcome
    }

    fn become_status(&mut self, status: RedemptionStatus, at: DateTime<Utc>) {
        self.status = Some(status);
        match status {
            RedemptionStatus::Confirmed => {
                self.confirmation_id = Some(format!("C-{}", Uuid::now_v7().simple()));
            }
            RedemptionStatus::Refused => self.reason = Some(OUT_OF_STOCK.to_owned()),
            RedemptionStatus::Pending | RedemptionStatus::Voided => {}
        }
        self.changes.push(StatusChange { status, at });
    }
}
