//! Seals transfers into the hash chain, behind those who post them.

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
