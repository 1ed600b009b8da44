//! Waiting for a redemption or a claim to move on.

use std::{hash::Hash, time::Duration};

use activities::outcomes::{Changes, ClaimOf};
use domain::RedeemRequestId;
use store::{
    claims::{self, Assignment},
    redemptions::{self, Redemption},
};
use tokio::time::Instant;

use crate::{App, error::ApiError};

/// How soon the row is looked at when nobody tells; the steps may run in another process.
const LOOK_AFTER: Duration = Duration::from_millis(50);
/// The longest pause between two looks.
const LOOK_AFTER_MAX: Duration = Duration::from_secs(1);

/// A row that a flow moves on.
pub(crate) trait Moving: Sized + Send {
    /// By what it is known.
    type Id: Clone + Eq + Hash + Send + Sync;

    /// Reads the row.
    fn read(
        app: &App,
        id: &Self::Id,
    ) -> impl Future<Output = Result<Option<Self>, ApiError>> + Send;
}

impl Moving for Redemption {
    type Id = RedeemRequestId;

    async fn read(app: &App, id: &RedeemRequestId) -> Result<Option<Self>, ApiError> {
        find(app, id).await
    }
}

impl Moving for Assignment {
    type Id = ClaimOf;

    async fn read(app: &App, (promotion, customer): &ClaimOf) -> Result<Option<Self>, ApiError> {
        let mut conn = app.pool.acquire().await.map_err(store::Error::from)?;
        Ok(claims::find(&mut conn, promotion, customer).await?)
    }
}

/// Which of the changes that this process makes are worth a look at the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookAt {
    /// Every one.
    EveryChange,
    /// Those after which it rests: it has ended, or waits for somebody.
    Rest,
}

/// Waits until `done` is true of the row, or the deadline has passed; how it stands then. Nothing
/// when there is no such row. `changes` are those since the row was read or written.
pub(crate) async fn until<T: Moving>(
    app: &App,
    id: &T::Id,
    mut changes: Changes<T::Id>,
    look_at: LookAt,
    deadline: Instant,
    done: impl Fn(&T) -> bool,
) -> Result<Option<T>, ApiError> {
    let mut pause = LOOK_AFTER;
    loop {
        let next_look = deadline.min(Instant::now() + pause);
        tokio::select! {
            rests = changes.changed() => {
                // The steps run here, so the next one is heard of too.
                pause = LOOK_AFTER_MAX;
                if !rests && look_at == LookAt::Rest {
                    continue;
                }
            }
            () = tokio::time::sleep_until(next_look) => {
                pause = (pause * 4).min(LOOK_AFTER_MAX);
            }
            () = app.readiness.draining().cancelled() => {}
        }
        let Some(row) = T::read(app, id).await? else {
            return Ok(None);
        };
        if done(&row) || Instant::now() >= deadline || app.readiness.draining().is_cancelled() {
            return Ok(Some(row));
        }
    }
}

/// Reads a redemption's row.
pub(crate) async fn find(app: &App, id: &RedeemRequestId) -> Result<Option<Redemption>, ApiError> {
    let mut conn = app.pool.acquire().await.map_err(store::Error::from)?;
    Ok(redemptions::find(&mut conn, id).await?)
}
