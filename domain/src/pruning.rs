//! What is removed after a while.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Records that nobody needs any more once they are old. What points depend on is not among them:
/// transfers, processed events, redemptions and daily caps are kept for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prunable {
    /// Answers to requests, by idempotency key, once they have expired.
    IdempotencyKeys,
    /// Messages of the outbox, long after they were published.
    PublishedMessages,
    /// Ids of events that came over HTTP, long after they were counted or refused.
    AcceptedEvents,
    /// Which messages were refused, once their dead letters are gone from Kafka.
    DeadLetters,
    /// What reconciliation found and has ended, and its runs.
    SettledFindings,
    /// Notifications, long after they were read.
    ReadNotifications,
}

impl Prunable {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::IdempotencyKeys,
        Self::PublishedMessages,
        Self::AcceptedEvents,
        Self::DeadLetters,
        Self::SettledFindings,
        Self::ReadNotifications,
    ];

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IdempotencyKeys => "idempotency-keys",
            Self::PublishedMessages => "published-messages",
            Self::AcceptedEvents => "accepted-events",
            Self::DeadLetters => "dead-letters",
            Self::SettledFindings => "settled-findings",
            Self::ReadNotifications => "read-notifications",
        }
    }

    /// What it is, in words.
    pub const fn title(self) -> &'static str {
        match self {
            Self::IdempotencyKeys => "expired idempotency keys",
            Self::PublishedMessages => "published messages of the outbox",
            Self::AcceptedEvents => "ids of accepted events",
            Self::DeadLetters => "ids of dead letters",
            Self::SettledFindings => "settled findings",
            Self::ReadNotifications => "notifications that were read",
        }
    }
}

impl fmt::Display for Prunable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
