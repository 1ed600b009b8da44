//! Waiting for a redemption to move on.

use std::time::Duration;

use domain::RedeemRequestId;
use store::redemptions::{self, Redemption};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::Instant,
};

use crate::{App, error::ApiError};

/// How soon the row is looked at when nobody tells; the steps may run in another process.
const LOOK_AFTER: Duration = Duration::from_millis(15);
/// The longest pause between two looks.
const LOOK_AFTER_MAX: Duration = Duration::from_millis(500);

/// Waits until `done` is true of the redemption, or the deadline has passed; how it stands then.
/// Nothing when there is no such redemption.
pub(crate) async fn until(
    app: &App,
    id: &RedeemRequestId,
    mut changes: Receiver<RedeemRequestId>,
    deadline: Instant,
    done: impl Fn(&Redemption) -> bool,
) -> Result<Option<Redemption>, ApiError> {
    let mut pause = LOOK_AFTER;
    loop {
        let Some(row) = find(app, id).await? else {
            return Ok(None);
        };
        if done(&row) || Instant::now() >= deadline || app.readiness.draining().is_cancelled() {
            return Ok(Some(row));
        }
        let next_look = deadline.min(Instant::now() + pause);
        tokio::select! {
            () = changed(&mut changes, id) => {}
            () = tokio::time::sleep_until(next_look) => {
                pause = (pause * 2).min(LOOK_AFTER_MAX);
            }
            () = app.readiness.draining().cancelled() => {}
        }
    }
}

/// Reads the row.
pub(crate) async fn find(app: &App, id: &RedeemRequestId) -> Result<Option<Redemption>, ApiError> {
    let mut conn = app.pool.acquire().await.map_err(store::Error::from)?;
    Ok(redemptions::find(&mut conn, id).await?)
}

/// Returns when the redemption has changed, or may have.
async fn changed(changes: &mut Receiver<RedeemRequestId>, id: &RedeemRequestId) {
    loop {
        match changes.recv().await {
            Ok(other) if other != *id => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            // Nobody in this process can tell; the clock still does.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
