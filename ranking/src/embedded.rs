//! The ranking in the memory of a process.

use std::sync::{
    Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicU64, Ordering},
};

use store::ranking::{Changes, Earned, Position};

use crate::{
    Trouble,
    index::{Found, Progress, State},
    ladder::{Customers, Ladder},
};

/// How many changes are made at a time, so that nobody who looks waits long.
const CHANGES_AT_A_TIME: usize = 32;

/// The ranking in memory.
#[derive(Default)]
pub(crate) struct Embedded {
    live: RwLock<Option<Live>>,
    progress: Mutex<Option<Progress>>,
    builds: AtomicU64,
}

struct Live {
    ladder: Ladder,
    state: State,
}

impl Embedded {
    fn live(&self) -> RwLockReadGuard<'_, Option<Live>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn live_mut(&self) -> RwLockWriteGuard<'_, Option<Live>> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress_mut(&self) -> MutexGuard<'_, Option<Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> Option<State> {
        self.live().as_ref().map(|live| live.state.clone())
    }

    pub(crate) fn progress(&self) -> Option<Progress> {
        *self.progress_mut()
    }

    pub(crate) fn top(&self, count: usize) -> Option<Found> {
        let live = self.live();
        let live = live.as_ref()?;
        Some(live.found(0, count))
    }

    pub(crate) fn around(&self, customer: &str, neighbours: usize) -> Option<Found> {
        let live = self.live();
        let live = live.as_ref()?;
        let Some(place) = live.ladder.place(customer) else {
            return Some(live.found(0, 0));
        };
        let first = place.saturating_sub(neighbours);
        Some(live.found(first, place - first + 1 + neighbours))
    }

    pub(crate) fn raise(&self, earned: &[Earned]) {
        for some in earned.chunks(CHANGES_AT_A_TIME) {
            if let Some(live) = &mut *self.live_mut() {
                live.raise(some);
            }
        }
    }

    pub(crate) fn apply(&self, before: &State, changes: &Changes) {
        for some in changes.earned.chunks(CHANGES_AT_A_TIME) {
            if let Some(live) = self.live_mut().as_mut().filter(|live| live.is(before)) {
                live.raise(some);
            }
        }
        if let Some(live) = self.live_mut().as_mut().filter(|live| live.is(before)) {
            live.state.follow(changes);
        }
    }

    pub(crate) fn begin(&self, rebuild_id: i64, position: Position, expected: u64) -> Build<'_> {
        *self.progress_mut() = Some(Progress {
            loaded: 0,
            expected,
        });
        let number = self.builds.fetch_add(1, Ordering::Relaxed);
        Build {
            index: self,
            customers: Customers::with_capacity(usize::try_from(expected).unwrap_or_default()),
            ladder: Ladder::default(),
            state: State::new(number.to_string(), rebuild_id, position),
        }
    }
}

impl Live {
    fn is(&self, state: &State) -> bool {
        self.state.build == state.build
    }

    fn found(&self, first: usize, count: usize) -> Found {
        let here = self.ladder.from(first).take(count);
        Found {
            as_of: self.state.as_of,
            first: first as u64,
            customers: here
                .map(|(customer, points)| Earned {
                    customer_id: customer.to_owned(),
                    points,
                })
                .collect(),
        }
    }

    fn raise(&mut self, earned: &[Earned]) {
        for earned in earned {
            self.ladder.raise(&earned.customer_id, earned.points);
        }
        self.state.customers = self.ladder.len() as u64;
    }
}

/// One that is being made beside the one that is looked at.
pub(crate) struct Build<'a> {
    index: &'a Embedded,
    customers: Customers,
    ladder: Ladder,
    state: State,
}

impl Build<'_> {
    pub(crate) fn add(&mut self, earned: &[Earned]) {
        for earned in earned {
            self.customers.set(&earned.customer_id, earned.points);
        }
        if let Some(progress) = &mut *self.index.progress_mut() {
            progress.loaded = self.customers.len() as u64;
        }
    }

    /// Everybody is there: puts them in order.
    pub(crate) async fn arrange(&mut self) -> Result<(), Trouble> {
        let customers = std::mem::take(&mut self.customers);
        self.ladder = tokio::task::spawn_blocking(|| Ladder::of(customers))
            .await
            .map_err(|_| Trouble::CutOff)?;
        Ok(())
    }

    pub(crate) fn position(&self) -> &Position {
        &self.state.position
    }

    pub(crate) fn apply(&mut self, changes: &Changes) {
        for earned in &changes.earned {
            self.ladder.raise(&earned.customer_id, earned.points);
        }
        self.state.follow(changes);
    }

    /// Takes the place of the one before.
    pub(crate) fn finish(&mut self) {
        let ladder = std::mem::take(&mut self.ladder);
        self.state.customers = ladder.len() as u64;
        let live = Live {
            ladder,
            state: self.state.clone(),
        };
        let before = self.index.live_mut().replace(live);
        // A large one takes a while, in which nobody waits for it.
        drop(before);
    }
}

impl Drop for Build<'_> {
    fn drop(&mut self) {
        *self.index.progress_mut() = None;
    }
}
