//! Keeps the ledger in order behind those who work on it: seals transfers into the hash chain, and
//! removes from the outbox what was published long ago. Neither is in anybody's way.

use std::time::Duration;

use store::{
    PgPool, chain,
    turn::{self, Duty},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{backoff::Backoff, measures};

/// How often new transfers are looked for.
const SEAL_EVERY: Duration = Duration::from_secs(1);
/// How many are sealed in one transaction.
const SEAL_AT_A_TIME: u32 = 2_000;
/// How often the end of the chain is written to the log, so that it is noted elsewhere too.
const NOTE_HEAD_EVERY: Duration = Duration::from_hours(1);
/// How often old messages are looked for.
const PRUNE_EVERY: Duration = Duration::from_mins(10);
/// How many are looked at in one transaction.
const PRUNE_AT_A_TIME: u32 = 1_000;
/// The longest pause after trouble.
const TROUBLE_PAUSE: Duration = Duration::from_secs(30);

/// Seals transfers until told to stop.
pub async fn seal(pool: &PgPool, stop: &CancellationToken) {
    let mut backoff = Backoff::new(SEAL_EVERY, TROUBLE_PAUSE);
    let mut note_at = Instant::now();
    let again = async {
        loop {
            match seal_all(pool).await {
                Ok(head) => {
                    backoff.reset();
                    if let Some(head) = head.filter(|_| note_at <= Instant::now()) {
                        note_at = Instant::now() + NOTE_HEAD_EVERY;
                        tracing::info!(%head, "the ledger is sealed up to here");
                    }
                    tokio::time::sleep(SEAL_EVERY).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the ledger is not sealed yet");
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

async fn seal_all(pool: &PgPool) -> Result<Option<chain::Head>, store::Error> {
    let mut head = None;
    loop {
        // A turn for each piece, so that none lasts long.
        let Some(_turn) = turn::take(pool, Duty::SealTransfers).await? else {
            return Ok(head);
        };
        let sealed = chain::seal(pool, SEAL_AT_A_TIME).await?;
        measures::sealed(sealed.transfers);
        head = sealed.head.or(head);
        if !sealed.more {
            return Ok(head);
        }
    }
}

/// Removes old messages from the outbox until told to stop; published ones are kept for `keep`.
pub async fn prune(pool: &PgPool, keep: Duration, stop: &CancellationToken) {
    let mut backoff = Backoff::new(SEAL_EVERY, TROUBLE_PAUSE);
    let again = async {
        loop {
            match prune_once(pool, keep).await {
                Ok(removed) => {
                    backoff.reset();
                    if removed > 0 {
                        measures::pruned(removed);
                        tracing::info!(removed, "old messages were removed from the outbox");
                    }
                    tokio::time::sleep(PRUNE_EVERY).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "old messages are still in the outbox");
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

async fn prune_once(pool: &PgPool, keep: Duration) -> Result<u64, store::Error> {
    match turn::take(pool, Duty::PruneOutbox).await? {
        Some(_turn) => store::relay::prune(pool, keep, PRUNE_AT_A_TIME).await,
        None => Ok(0),
    }
}
