//! How a merchant behaves, and how it can be told to behave otherwise.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The ways in which a simulated merchant can treat a redemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MerchantMode {
    /// Confirms at once.
    Confirm,
    /// Refuses at once, with the reason `OUT_OF_STOCK`.
    Refuse,
    /// Answers PENDING and calls back with CONFIRMED after the callback delay.
    PendingConfirm,
    /// Answers PENDING and calls back with REFUSED after the callback delay.
    PendingRefuse,
    /// Answers PENDING, never decides and never calls back.
    PendingSilent,
    /// Answers PENDING, confirms in its book after the callback delay, and never
    /// calls back: only asking for the status tells.
    PendingCallbackLost,
    /// Reads the request, books nothing and never answers. With a delay it closes
    /// the connection when that has passed.
    Silent,
    /// Confirms in its book and closes the connection without an answer, for the
    /// first `times` posts of an id.
    AnswerLost,
    /// Confirms in its book and never answers a post. With a delay it closes the
    /// connection when that has passed.
    AnswerLostForever,
    /// Answers everything with 503.
    Error,
    /// Answers the first `times` posts of an id with 503 and then confirms.
    Flaky,
    /// Confirms after the delay, whether or not the caller still waits.
    Slow,
    /// Confirms and calls back before it answers the post with PENDING.
    CallbackFirst,
    /// Answers PENDING; what it has once accepted it can no longer void.
    NotVoidable,
}

/// A mode with its numbers, as the control routes take and show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MerchantSettings {
    /// How the merchant behaves.
    pub mode: MerchantMode,
    /// `slow`: time until the answer, 1000 by default. `silent` and
    /// `answer-lost-forever`: time until the connection is closed, by default never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Time between answering PENDING and the decision, 300 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_delay_ms: Option<u64>,
    /// `answer-lost`: how many answers are lost for an id, 1 by default.
    /// `flaky`: how many posts of an id fail, 2 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

impl MerchantSettings {
    /// A mode with the default numbers.
    pub const fn of(mode: MerchantMode) -> Self {
        Self {
            mode,
            delay_ms: None,
            callback_delay_ms: None,
            times: None,
        }
    }

    /// What a merchant does that nobody has told otherwise.
    pub fn default_for(merchant_id: &str) -> Self {
        Self::of(match merchant_id {
            "M2" => MerchantMode::PendingConfirm,
            "M3" => MerchantMode::Refuse,
            "M4" => MerchantMode::AnswerLost,
            "M5" => MerchantMode::Silent,
            "M6" => MerchantMode::PendingSilent,
            "M7" => MerchantMode::Flaky,
            _ => MerchantMode::Confirm,
        })
    }

    pub(crate) fn slow_delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms.unwrap_or(1000))
    }

    pub(crate) fn silence(&self) -> Option<Duration> {
        self.delay_ms.map(Duration::from_millis)
    }

    pub(crate) fn callback_delay(&self) -> Duration {
        Duration::from_millis(self.callback_delay_ms.unwrap_or(300))
    }

    pub(crate) fn lost_answers(&self) -> u32 {
        self.times.unwrap_or(1)
    }

    pub(crate) fn failed_posts(&self) -> u32 {
        self.times.unwrap_or(2)
    }
}
