//! The merchants of a run: one for each way in which a partner can behave.

use serde_json::{Value, json};

/// How a redemption at a merchant can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// With points deducted or not, as it happens.
    Either,
    /// Never with points deducted.
    NeverDeducted,
    /// Not at all while the merchant does not answer.
    NotYet,
}

/// A merchant.
#[derive(Debug, Clone, Copy)]
pub struct Merchant {
    /// Its id.
    pub id: &'static str,
    /// The simulator's name for how it behaves.
    pub mode: &'static str,
    /// Milliseconds until an answer or a closed connection, where the mode has such a time.
    pub delay_ms: Option<u64>,
    /// Milliseconds until its decision, where the mode has such a time.
    pub callback_delay_ms: Option<u64>,
    /// Its share of the requests.
    pub weight: u32,
    /// How redemptions there can end.
    pub ends: Ends,
    /// It is given a few seconds only, so that its silence is taken for one soon.
    pub hurried: bool,
}

/// How long a hurried merchant may take to answer and to call back, in milliseconds.
pub const HURRIED_MS: u64 = 3_000;
/// The merchant that nobody has configured.
pub const UNKNOWN: &str = "NOBODY";
/// The merchant that never answers, also at the end.
pub const DEAF: &str = "DEAF";
/// The merchant that confirms at once, and that is told to lie now and then.
pub const PLAIN: &str = "PLAIN";

const fn merchant(id: &'static str, mode: &'static str, weight: u32) -> Merchant {
    Merchant {
        id,
        mode,
        delay_ms: None,
        callback_delay_ms: None,
        weight,
        ends: Ends::Either,
        hurried: true,
    }
}

/// All that are configured.
pub const MERCHANTS: [Merchant; 15] = [
    Merchant {
        hurried: false,
        ..merchant(PLAIN, "confirm", 32)
    },
    Merchant {
        ends: Ends::NeverDeducted,
        hurried: false,
        ..merchant("REFUSES", "refuse", 8)
    },
    Merchant {
        hurried: false,
        ..merchant("CALLS-BACK", "pending-confirm", 12)
    },
    Merchant {
        ends: Ends::NeverDeducted,
        hurried: false,
        ..merchant("CALLS-BACK-TO-REFUSE", "pending-refuse", 5)
    },
    Merchant {
        ends: Ends::NeverDeducted,
        ..merchant("NEVER-DECIDES", "pending-silent", 6)
    },
    merchant("LOSES-CALLBACKS", "pending-callback-lost", 5),
    Merchant {
        callback_delay_ms: Some(HURRIED_MS),
        ..merchant("CALLS-BACK-LATE", "pending-confirm", 5)
    },
    merchant("CALLS-BACK-FIRST", "callback-first", 5),
    merchant("LOSES-AN-ANSWER", "answer-lost", 5),
    Merchant {
        delay_ms: Some(1_000),
        ..merchant("LOSES-ANSWERS", "answer-lost-forever", 4)
    },
    Merchant {
        delay_ms: Some(1_000),
        ends: Ends::NeverDeducted,
        ..merchant("SILENT", "silent", 4)
    },
    merchant("FLAKY", "flaky", 3),
    Merchant {
        delay_ms: Some(700),
        ..merchant("SLOW", "slow", 3)
    },
    merchant("CANNOT-UNDO", "not-voidable", 3),
    Merchant {
        ends: Ends::NotYet,
        ..merchant(DEAF, "error", 0)
    },
];

/// How the plain merchant is told to lie: the mode and its delay in milliseconds.
pub const LIES: [(&str, Option<u64>, Option<u64>); 5] = [
    ("slow", Some(1_500), None),
    ("answer-lost-forever", Some(800), None),
    ("callback-first", None, None),
    ("pending-confirm", None, Some(4_000)),
    ("answer-lost", None, None),
];

/// The merchant of this id.
pub fn named(id: &str) -> Option<Merchant> {
    MERCHANTS.iter().copied().find(|merchant| merchant.id == id)
}

/// A mode as the simulator's control routes take it.
pub fn settings(mode: &str, delay_ms: Option<u64>, callback_delay_ms: Option<u64>) -> Value {
    let mut settings = json!({ "mode": mode });
    if let Some(ms) = delay_ms {
        settings["delayMs"] = json!(ms);
    }
    if let Some(ms) = callback_delay_ms {
        settings["callbackDelayMs"] = json!(ms);
    }
    settings
}

impl Merchant {
    /// Its usual behaviour, as the simulator's control routes take it.
    pub fn settings(&self) -> Value {
        settings(self.mode, self.delay_ms, self.callback_delay_ms)
    }
}
