//! A comparison at work: its counts, its findings, and how far it has come.

use std::sync::{Arc, Mutex, PoisonError};

use domain::Comparison;
use rdkafka::error::KafkaError;
use serde::{Serialize, de::DeserializeOwned};
use store::{
    PgPool,
    reconcile::findings::{self, Found, Noted},
};
use workflows::contract::{Compare, ComparisonOutcome};

use crate::measures;

/// How many things worth a look are listed.
const LISTED: usize = 20;

/// Why a comparison could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Kafka.
    #[error("Kafka is out of reach: {0}")]
    Kafka(#[from] KafkaError),
    /// Temporal.
    #[error("Temporal is out of reach: {0}")]
    Temporal(String),
    /// A task of this process.
    #[error("it was cut off: {0}")]
    CutOff(String),
}

/// How far a comparison has come, as its heartbeats tell.
#[derive(Debug, Clone, Default, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What it has found by then.
    pub outcome: ComparisonOutcome,
    /// Where to go on; each comparison has its own.
    pub cursor: serde_json::Value,
}

/// A comparison at work.
pub struct Work {
    /// The database.
    pub pool: PgPool,
    /// What was asked.
    pub input: Compare,
    comparison: Comparison,
    outcome: ComparisonOutcome,
    before: serde_json::Value,
    progress: Arc<Mutex<Progress>>,
}

impl Work {
    /// Begins, or goes on from where an earlier attempt was.
    pub fn new(
        pool: PgPool,
        comparison: Comparison,
        input: Compare,
        before: Option<Progress>,
    ) -> Self {
        let before = before.unwrap_or_default();
        Self {
            pool,
            input,
            comparison,
            outcome: before.outcome.clone(),
            before: before.cursor.clone(),
            progress: Arc::new(Mutex::new(before)),
        }
    }

    /// Where the heartbeats are to look.
    pub fn progress(&self) -> Arc<Mutex<Progress>> {
        Arc::clone(&self.progress)
    }

    /// Where an earlier attempt was.
    pub fn cursor<C: DeserializeOwned>(&self) -> Option<C> {
        serde_json::from_value(self.before.clone()).ok()
    }

    /// Says how far it has come: a later attempt goes on from here.
    pub fn reached<C: Serialize>(&self, cursor: &C) {
        let cursor = serde_json::to_value(cursor).unwrap_or_default();
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Progress {
            outcome: self.outcome.clone(),
            cursor,
        };
    }

    /// Things were looked at, so many of which agree.
    pub fn looked_at(&mut self, count: usize, agree: usize) {
        self.outcome.looked_at += count as u64;
        self.outcome.agree += agree as u64;
    }

    /// Things could not be compared.
    pub fn not_compared(&mut self, count: usize) {
        self.outcome.not_compared += count as u64;
    }

    /// Something is no disagreement, and worth a look.
    pub fn list(&mut self, line: String) {
        if self.outcome.listed.len() < LISTED {
            self.outcome.listed.push(line);
        }
    }

    /// Something does not agree and stays so.
    pub async fn found(&mut self, found: &Found) -> Result<(), Trouble> {
        match findings::note(&self.pool, found, self.input.started_at).await? {
            Noted::New => tracing::error!(
                comparison = found.comparison.as_str(),
                kind = found.kind,
                subject = found.subject,
                detail = found.detail,
                "the books do not agree"
            ),
            Noted::Known => {}
            Noted::Accepted => self.outcome.agree += 1,
        }
        Ok(())
    }

    /// Something did not agree and was put right.
    pub async fn repaired(&mut self, found: &Found) -> Result<(), Trouble> {
        findings::note_repaired(&self.pool, found, self.input.started_at).await?;
        tracing::warn!(
            comparison = found.comparison.as_str(),
            kind = found.kind,
            subject = found.subject,
            detail = found.detail,
            "the books did not agree and were put right"
        );
        measures::repaired(self.comparison);
        self.outcome.repaired += 1;
        Ok(())
    }

    /// What it came to.
    pub async fn outcome(mut self) -> Result<ComparisonOutcome, Trouble> {
        let open = findings::open(&self.pool, Some(self.comparison)).await?;
        self.outcome.open = open.len() as u64;
        Ok(self.outcome)
    }
}
