//! Keeping a ranking: it is fed with what is committed, and made anew when it is not there or when
//! somebody asks for it.
//!
//! An embedded one is kept by the process that it is in. The one in Redis is fed by one process at a
//! time, and made anew by whoever begins first; how far it has come is known there, so that
//! another process can go on.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::Utc;
use store::{
    ranking::{self as ledger, Everybody, IndexState},
    turn::{self, Duty},
};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{
    Ranking, Trouble,
    index::{Build, Index, State},
    measures,
};

/// How many transfers are read at a time.
const TRANSFERS_AT_A_TIME: u32 = 5_000;
/// How often it is looked whether it has to be made anew.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often operators are told how it is.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// The pause after trouble.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// What keeps a part of the work from going on.
#[derive(Default)]
struct Obstacle(Mutex<Option<String>>);

impl Obstacle {
    /// Remembers how it went, says so when that has changed, and pauses after trouble.
    async fn note(&self, what: &str, went: Result<(), Trouble>) {
        let now = went.err().map(|trouble| trouble.to_string());
        let before = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match &now {
            Some(trouble) if before != now => tracing::warn!(trouble, "the ranking is not {what}"),
            None if before.is_some() => tracing::info!("the ranking is {what} again"),
            _ => {}
        }
        let pause = now.is_some();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
        if pause {
            tokio::time::sleep(TROUBLE_PAUSE).await;
        }
    }

    fn now(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

impl Ranking {
    /// Keeps it until told to stop.
    pub async fn keep(&self, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = Box::pin(self.work()) => {}
        }
        if matches!(self.index, Index::Embedded(_))
            && let Err(error) = ledger::leave(&self.pool, &self.options.name).await
        {
            tracing::debug!(%error, "the ranking of this process stays in the list for a moment");
        }
    }

    async fn work(&self) {
        let (feeding, making) = (Obstacle::default(), Obstacle::default());
        let feed = async {
            let mut turns = every(self.options.poll);
            loop {
                turns.tick().await;
                feeding.note("fed", self.feed().await).await;
            }
        };
        let make = async {
            let mut turns = every(LOOK_EVERY);
            loop {
                turns.tick().await;
                making.note("made", self.make_if_needed().await).await;
            }
        };
        let tell = async {
            let mut turns = every(TELL_EVERY);
            loop {
                turns.tick().await;
                if let Err(error) = self.tell(feeding.now().or(making.now())).await {
                    tracing::debug!(%error, "how the ranking is cannot be told");
                }
            }
        };
        let ((), (), ()) = tokio::join!(feed, make, tell);
    }

    /// Feeds it with everything that has been committed, if it is there and this process's turn.
    async fn feed(&self) -> Result<(), Trouble> {
        let _turn = match self.index {
            Index::Embedded(_) => None,
            Index::SortedSet(_) => match turn::take(&self.pool, Duty::FeedRanking).await? {
                Some(turn) => Some(turn),
                None => return Ok(()),
            },
        };
        loop {
            let Some(state) = self.index.state().await? else {
                return Ok(());
            };
            let look = ledger::look(&self.pool).await?;
            if !follows(&state, &look) {
                return Ok(());
            }
            let (position, limit) = (&state.position, TRANSFERS_AT_A_TIME);
            let changes = ledger::changes(&self.pool, &look, position, limit).await?;
            self.index.apply(&state, &changes).await?;
            if changes.as_of.is_some() {
                return Ok(());
            }
        }
    }

    async fn make_if_needed(&self) -> Result<(), Trouble> {
        let state = self.index.state().await?;
        let look = ledger::look(&self.pool).await?;
        let why = match state {
            None => "it is not there",
            Some(state) if !follows(&state, &look) => "the ledger was set back",
            Some(state) if state.rebuild_id != look.wanted => "somebody has asked for it",
            Some(_) => return Ok(()),
        };
        if self.index.progress().await?.is_some() {
            // Somebody else is at it.
            return Ok(());
        }
        tracing::info!(why, rebuild = look.wanted, "the ranking is made anew");
        let started = Instant::now();
        let made = self.make(look.wanted).await;
        let took = started.elapsed();
        match made {
            Ok(true) => {
                measures::built(took, true);
                tracing::info!(seconds = took.as_secs_f64(), "the ranking was made anew");
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(trouble) => {
                measures::built(took, false);
                Err(trouble)
            }
        }
    }

    /// Whether it was made here: somebody else may have begun.
    async fn make(&self, rebuild_id: i64) -> Result<bool, Trouble> {
        let position = ledger::beginning(&self.pool).await?;
        let expected = ledger::about_how_many(&self.pool).await?;
        let expected = u64::try_from(expected).unwrap_or_default();
        let begun = self.index.begin(rebuild_id, position, expected).await?;
        let Some(mut build) = begun else {
            return Ok(false);
        };
        let made = self.fill(&mut build).await;
        if made.is_err() {
            build.give_up().await;
        }
        made.map(|()| true)
    }

    /// Reads everybody, then what was committed meanwhile, and lets it take its place.
    async fn fill(&self, build: &mut Build<'_>) -> Result<(), Trouble> {
        let mut everybody = Everybody::begin(&self.pool).await?;
        let mut page = everybody.next().await?;
        while !page.is_empty() {
            // The database reads on meanwhile.
            let (added, next) = tokio::join!(build.add(&page), everybody.next());
            added?;
            page = next?;
        }
        drop(everybody);
        build.arrange().await?;
        loop {
            let look = ledger::look(&self.pool).await?;
            let (position, limit) = (build.position(), TRANSFERS_AT_A_TIME);
            let changes = ledger::changes(&self.pool, &look, position, limit).await?;
            build.apply(&changes).await?;
            if changes.as_of.is_some() {
                return build.finish().await;
            }
        }
    }

    /// Tells operators how it is.
    async fn tell(&self, mut trouble: Option<String>) -> Result<(), store::Error> {
        let state = match self.index.state().await {
            Ok(state) => state,
            Err(other) => {
                trouble.get_or_insert(other.to_string());
                None
            }
        };
        let progress = self.index.progress().await.ok().flatten();
        let lag = state.as_ref().and_then(|state| state.as_of);
        // Clocks differ by a little.
        let lag = lag.map(|as_of| (Utc::now() - as_of).to_std().unwrap_or_default());
        measures::stands(lag, state.as_ref().map(|state| state.customers));
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let index = IndexState {
            index_name: self.options.name.clone(),
            rebuild_id: state.as_ref().map(|state| state.rebuild_id),
            customers: state.as_ref().map(|state| number(state.customers)),
            as_of: state.and_then(|state| state.as_of),
            loaded: progress.map(|progress| number(progress.loaded)),
            expected: progress.map(|progress| number(progress.expected)),
            trouble,
        };
        ledger::tell(&self.pool, &index).await
    }
}

/// Whether the ledger has all that the index had followed before it was looked at: it may have been
/// set back, such as from a backup.
fn follows(state: &State, look: &ledger::Look) -> bool {
    state.position.read_to <= look.last_transfer
}
