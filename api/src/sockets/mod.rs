//! WebSockets on which players are told things as they happen.
//!
//! A socket has one task and no queue: it knows up to which number its player has been told, and
//! reads on from the database when it is woken. Who is woken is heard from PostgreSQL as
//! notifications are committed, whichever process stores them; that this was missed is found out by
//! looking every few seconds. A client that reads slowly is behind and holds up nobody.

mod end;
mod life;
mod message;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use boot::settings::SocketSettings;
use store::{
    PgPool,
    notifications::{self, Arrival, Arrivals},
    sessions,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};
use uuid::Uuid;

use crate::limits::Places;
pub(crate) use life::{Visitor, attend};

/// How often everybody's inbox is looked at, and whether sessions go on.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long after trouble PostgreSQL is listened to again.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How many are asked about in one statement.
const ASKED_AT_A_TIME: usize = 1_000;
/// The part of the places that may be taken by clients that have not said who they are.
const ENTERING_PART: u32 = 10;
/// How many sockets read from the database at once: few, so that requests find connections when
/// very many are woken together.
const READING: usize = 4;

/// The open sockets of a process.
pub struct Sockets {
    settings: SocketSettings,
    places: Arc<Semaphore>,
    entering: Arc<Places>,
    seats: Mutex<HashMap<String, Vec<Arc<Seat>>>>,
    reading: Semaphore,
    tasks: TaskTracker,
}

/// What keeps a socket counted, from before it is open until it is gone.
pub(crate) struct Ticket {
    _place: OwnedSemaphorePermit,
    _task: TaskTrackerToken,
}

/// A player's socket, for those who wake it.
struct Seat {
    session: Option<Uuid>,
    /// The number of the last notification that was sent.
    told: AtomicI64,
    session_ended: AtomicBool,
    wake: Notify,
}

/// Takes a player's socket off the list when it is dropped.
struct Seated<'a> {
    sockets: &'a Sockets,
    user: &'a str,
    seat: Arc<Seat>,
}

impl Sockets {
    /// None yet.
    pub fn new(settings: &SocketSettings) -> Self {
        Self {
            places: Arc::new(Semaphore::new(settings.max_open as usize)),
            entering: Places::new(settings.max_open.div_ceil(ENTERING_PART)),
            settings: settings.clone(),
            seats: Mutex::default(),
            reading: Semaphore::new(READING),
            tasks: TaskTracker::new(),
        }
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        (self.settings.max_open as usize).saturating_sub(self.places.available_permits())
    }

    /// A place for another one, if there is one.
    pub(crate) fn admit(&self) -> Option<Ticket> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Ticket {
            _place: place,
            _task: self.tasks.token(),
        })
    }

    /// Puts a player's socket on the list, unless the player has too many.
    fn sit<'a>(&'a self, user: &'a str, session: Option<Uuid>) -> Option<Seated<'a>> {
        let mut seats = self.seats();
        let own = seats.entry(user.to_owned()).or_default();
        if own.len() >= self.settings.max_per_user as usize {
            return None;
        }
        let seat = Arc::new(Seat {
            session,
            // Nothing can be missed before it is known from where on it is told.
            told: AtomicI64::new(i64::MAX),
            session_ended: AtomicBool::new(false),
            wake: Notify::new(),
        });
        own.push(Arc::clone(&seat));
        drop(seats);
        Some(Seated {
            sockets: self,
            user,
            seat,
        })
    }

    /// Sessions that have ended: their sockets are closed.
    pub(crate) fn sessions_ended(&self, ended: &[Uuid]) {
        for seat in self.seats().values().flatten() {
            if seat.session.is_some_and(|session| ended.contains(&session)) {
                seat.session_ended.store(true, Ordering::Relaxed);
                seat.wake.notify_one();
            }
        }
    }

    /// Waits until all are gone, at most so long. They go when the process drains.
    pub async fn ended(&self, within: Duration) {
        self.tasks.close();
        if tokio::time::timeout(within, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(open = self.tasks.len(), "sockets were not closed in time");
        }
    }

    /// Wakes sockets for whose players there is something, and those whose sessions have ended.
    /// Never comes back.
    pub async fn follow(&self, pool: &PgPool) {
        tokio::join!(self.hear(pool), self.look_again(pool));
    }

    async fn hear(&self, pool: &PgPool) {
        loop {
            let lost = match Arrivals::listen(pool).await {
                Ok(mut arrivals) => loop {
                    // Whatever came before it was listened to.
                    self.look_at_inboxes(pool).await;
                    if let Err(error) = self.wake_each(&mut arrivals).await {
                        break error;
                    }
                },
                Err(error) => error,
            };
            tracing::warn!(error = %lost, "what is stored is not heard of now");
            tokio::time::sleep(LISTEN_AGAIN_AFTER).await;
        }
    }

    /// Wakes those who are told of, until the connection was lost and is there again.
    async fn wake_each(&self, arrivals: &mut Arrivals) -> Result<(), store::Error> {
        while let Arrival::For(users) = arrivals.next().await? {
            let seats = self.seats();
            for seat in users.iter().filter_map(|user| seats.get(user)).flatten() {
                seat.wake.notify_one();
            }
        }
        Ok(())
    }

    async fn look_again(&self, pool: &PgPool) {
        let mut turns = tokio::time::interval(LOOK_EVERY);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            self.look_at_inboxes(pool).await;
            self.look_at_sessions(pool).await;
        }
    }

    /// Wakes whoever has not been told of the newest notification.
    async fn look_at_inboxes(&self, pool: &PgPool) {
        let users: Vec<String> = self.seats().keys().cloned().collect();
        for users in users.chunks(ASKED_AT_A_TIME) {
            let users: Vec<&str> = users.iter().map(String::as_str).collect();
            let newest = match notifications::last_ids(pool, &users).await {
                Ok(newest) => newest,
                Err(error) => {
                    tracing::warn!(%error, "inboxes cannot be looked at now");
                    return;
                }
            };
            let seats = self.seats();
            for (user, last_id) in newest {
                for seat in seats.get(&user).into_iter().flatten() {
                    if seat.told.load(Ordering::Relaxed) < last_id {
                        seat.wake.notify_one();
                    }
                }
            }
        }
    }

    /// Ends the sockets of sessions that were ended elsewhere. While the database is out of reach,
    /// tokens count alone, as for requests.
    async fn look_at_sessions(&self, pool: &PgPool) {
        let sessions: Vec<Uuid> = {
            let seats = self.seats();
            seats.values().flatten().filter_map(|s| s.session).collect()
        };
        for sessions in sessions.chunks(ASKED_AT_A_TIME) {
            match sessions::ended_among(pool, sessions).await {
                Ok(ended) if ended.is_empty() => {}
                Ok(ended) => self.sessions_ended(&ended),
                Err(error) => {
                    tracing::warn!(%error, "whether sessions go on cannot be asked now");
                    return;
                }
            }
        }
    }

    fn seats(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<Seat>>>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        let mut seats = self.sockets.seats();
        if let Some(own) = seats.get_mut(self.user) {
            own.retain(|seat| !Arc::ptr_eq(seat, &self.seat));
            if own.is_empty() {
                seats.remove(self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(max_open: u32, max_per_user: u32) -> Sockets {
        Sockets::new(&SocketSettings {
            max_open,
            max_per_user,
            ..SocketSettings::default()
        })
    }

    #[test]
    fn places_are_given_back() {
        let sockets = sockets(2, 1);
        let first = sockets.admit().expect("a place");
        let _second = sockets.admit().expect("a place");
        assert!(sockets.admit().is_none());
        assert_eq!(sockets.open(), 2);
        drop(first);
        assert_eq!(sockets.open(), 1);
        assert!(sockets.admit().is_some());
    }

    #[test]
    fn a_player_has_so_many_and_is_forgotten_without_any() {
        let sockets = sockets(10, 2);
        let first = sockets.sit("a", None).expect("a seat");
        let second = sockets.sit("a", None).expect("another one");
        assert!(sockets.sit("a", None).is_none());
        let other = sockets.sit("b", None).expect("somebody else's");
        drop(first);
        assert!(sockets.sit("a", None).is_some());
        drop(second);
        drop(other);
        assert!(sockets.seats().is_empty());
    }

    #[test]
    fn only_the_sockets_of_the_session_end_with_it() {
        let sockets = sockets(10, 2);
        let session = Uuid::new_v4();
        let with = sockets.sit("a", Some(session)).expect("a seat");
        let without = sockets.sit("a", None).expect("a seat");
        sockets.sessions_ended(&[session]);
        let ended = |seated: &Seated<'_>| seated.seat.session_ended.load(Ordering::Relaxed);
        assert!(ended(&with) && !ended(&without));
    }
}
