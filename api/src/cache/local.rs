//! The copies in this process's memory: a slot for each customer, the least recently used ones
//! given up first.
//!
//! The crate `lru` keeps the order; `moka`, which also bounds and expires, gives up entries that
//! somebody still works on, and a late reader could then put an older version where a newer one
//! had been shown.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domain::CustomerId;
use lru::LruCache;
use tokio::time::Instant;

use super::Account;

/// When the ledger was asked this much later than a newer version was kept and still has an older
/// one, it was set back, such as from a backup, and is believed. No question takes so long.
const SET_BACK_AFTER: Duration = Duration::from_secs(10);

/// At how many slots, at most, is looked for one to give up when another customer needs one: more than
/// one, so that those above the room there is go again.
const LOOKED_AT_TO_GIVE_UP: usize = 4;

/// A copy that is kept.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// The account.
    pub account: Arc<Account>,
    /// When the ledger was asked; it may have changed since.
    pub seen: Instant,
}

/// The place of one customer's copy.
#[derive(Default)]
pub(super) struct Slot {
    state: Mutex<State>,
    /// Held by who asks the ledger.
    pub asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// When the version in `held` was kept first.
    kept_at: Option<Instant>,
    /// What was seen before does not count as fresh.
    lapsed: Option<Instant>,
    asked_for: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    /// Keeps the copy unless a newer one is there; of the same version, what either knows. What is
    /// kept then.
    pub(super) fn offer(&self, account: Arc<Account>, seen: Instant) -> Held {
        let mut state = lock(&self.state);
        let offered = Held { account, seen };
        let Some(held) = state.held.clone() else {
            state.kept_at = Some(Instant::now());
            return state.held.insert(offered).clone();
        };
        let set_back = state
            .kept_at
            .is_some_and(|kept_at| kept_at + SET_BACK_AFTER <= seen);
        if offered.account.version == held.account.version {
            let account = if offered.account.knows_as_much_as(&held.account) {
                offered.account
            } else {
                Arc::new(offered.account.with(&held.account))
            };
            let seen = seen.max(held.seen);
            return state.held.insert(Held { account, seen }).clone();
        }
        if offered.account.version > held.account.version || set_back {
            state.kept_at = Some(Instant::now());
            return state.held.insert(offered).clone();
        }
        held
    }

    /// The account with what else is known of the same version.
    pub(super) fn completed(&self, account: Account) -> Account {
        match self.held() {
            Some(held) if held.account.version == account.version => account.with(&held.account),
            _ => account,
        }
    }

    /// What is kept.
    pub(super) fn held(&self) -> Option<Held> {
        lock(&self.state).held.clone()
    }

    /// What is kept, if it was seen not longer ago than this and has not lapsed.
    pub(super) fn fresh(&self, within: Duration) -> Option<Held> {
        let state = lock(&self.state);
        let held = state.held.clone()?;
        let lapsed = state.lapsed.is_some_and(|lapsed| held.seen <= lapsed);
        (!lapsed && held.seen.elapsed() < within).then_some(held)
    }

    /// What has been seen until now is not fresh.
    pub(super) fn lapse(&self) {
        lock(&self.state).lapsed = Some(Instant::now());
    }
}

impl Account {
    fn knows_as_much_as(&self, other: &Self) -> bool {
        self.breakdown.is_some() >= other.breakdown.is_some()
            && self.recent.is_some() >= other.recent.is_some()
    }

    fn with(&self, other: &Self) -> Self {
        Self {
            breakdown: self.breakdown.clone().or_else(|| other.breakdown.clone()),
            recent: self.recent.clone().or_else(|| other.recent.clone()),
            ..*self
        }
    }
}

/// All slots.
pub(super) struct Local {
    slots: Mutex<LruCache<CustomerId, Arc<Slot>>>,
    capacity: usize,
    asked: Mutex<Vec<(CustomerId, Arc<Slot>)>>,
}

impl Local {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            slots: Mutex::new(LruCache::unbounded()),
            capacity,
            asked: Mutex::default(),
        }
    }

    /// The customer's slot. There is one of each at a time, and none that somebody works on is given
    /// up, or what is shown from it would not bind those who come meanwhile: while all are worked
    /// on, there are more than there is room for.
    pub(super) fn slot(&self, customer: &CustomerId) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.get(customer) {
            return Arc::clone(slot);
        }
        for _ in 0..LOOKED_AT_TO_GIVE_UP {
            if slots.len() < self.capacity {
                break;
            }
            if let Some((oldest, slot)) = slots.pop_lru()
                && Arc::strong_count(&slot) > 1
            {
                slots.put(oldest, slot);
            }
        }
        let new = Arc::new(Slot::default());
        slots.put(customer.clone(), Arc::clone(&new));
        new
    }

    /// Somebody was shown the copy.
    pub(super) fn asked_for(&self, customer: &CustomerId, slot: &Arc<Slot>) {
        if !std::mem::replace(&mut lock(&slot.state).asked_for, true) {
            lock(&self.asked).push((customer.clone(), Arc::clone(slot)));
        }
    }

    /// Those that somebody was shown since the last time.
    pub(super) fn take_asked(&self) -> Vec<(CustomerId, Arc<Slot>)> {
        let asked = std::mem::take(&mut *lock(&self.asked));
        for (_, slot) in &asked {
            lock(&slot.state).asked_for = false;
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use domain::Tier;
    use store::history::Version;

    use super::*;

    fn account(version: i64, tier: i64, breakdown: bool) -> Arc<Account> {
        Arc::new(Account {
            version: Version {
                account: version,
                tier,
            },
            available: version,
            held: 0,
            tier: Tier::Bronze,
            breakdown: breakdown.then(Vec::new),
            recent: None,
        })
    }

    #[test]
    fn an_older_version_never_replaces_a_newer_one() {
        let slot = Slot::default();
        let now = Instant::now();
        assert_eq!(slot.offer(account(5, 1, false), now).account.available, 5);
        for (version, tier) in [(4, 9), (5, 0), (0, 0)] {
            let held = slot.offer(account(version, tier, true), Instant::now());
            assert_eq!(
                (held.account.version.account, held.account.version.tier),
                (5, 1)
            );
            assert!(
                held.account.breakdown.is_none(),
                "nothing of the older one is taken"
            );
        }
        assert_eq!(
            slot.offer(account(5, 2, false), now).account.version.tier,
            2
        );
        assert_eq!(slot.offer(account(6, 0, false), now).account.available, 6);
    }

    #[test]
    fn the_same_version_keeps_what_either_knows_and_the_later_look() {
        let slot = Slot::default();
        let early = Instant::now();
        slot.offer(account(5, 0, true), early);
        let later = early + Duration::from_millis(5);
        let held = slot.offer(account(5, 0, false), later);
        assert!(held.account.breakdown.is_some());
        assert_eq!(held.seen, later);
        let held = slot.offer(account(5, 0, false), early);
        assert_eq!(held.seen, later);
        assert!(
            slot.offer(account(6, 0, false), later)
                .account
                .breakdown
                .is_none()
        );
    }

    #[test]
    fn a_ledger_that_was_set_back_is_believed_after_a_while() {
        let slot = Slot::default();
        let now = Instant::now();
        slot.offer(account(9, 0, false), now);
        let soon = Instant::now() + Duration::from_secs(9);
        assert_eq!(slot.offer(account(3, 0, false), soon).account.available, 9);
        let later = Instant::now() + Duration::from_secs(11);
        assert_eq!(slot.offer(account(3, 0, false), later).account.available, 3);
    }

    #[test]
    fn a_copy_is_fresh_until_its_time_is_up_or_it_lapses() {
        let slot = Slot::default();
        let hour = Duration::from_secs(3_600);
        assert!(slot.fresh(hour).is_none());
        slot.offer(account(1, 0, false), Instant::now());
        assert!(slot.fresh(hour).is_some());
        assert!(slot.fresh(Duration::ZERO).is_none());
        slot.lapse();
        assert!(slot.fresh(hour).is_none());
        assert!(slot.held().is_some());
        slot.offer(
            account(1, 0, false),
            Instant::now() + Duration::from_millis(1),
        );
        assert!(slot.fresh(hour).is_some());
    }

    #[test]
    fn the_least_recently_used_is_given_up_unless_somebody_works_on_it() {
        let local = Local::new(2);
        let id = |text: &str| CustomerId::new(text).expect("an id");
        let keep = |text: &str| {
            local
                .slot(&id(text))
                .offer(account(1, 0, false), Instant::now());
        };
        let kept = |text: &str| {
            let slots = lock(&local.slots);
            slots
                .peek(&id(text))
                .is_some_and(|slot| slot.held().is_some())
        };
        keep("a");
        keep("b");
        keep("a");
        keep("c");
        assert!(kept("a") && !kept("b") && kept("c"));
        let working = local.slot(&id("a"));
        keep("d");
        assert!(kept("a") && !kept("c") && kept("d"), "a is worked on");
        let also = local.slot(&id("d"));
        keep("e");
        assert!(kept("a") && kept("d") && kept("e"), "each has one place");
        drop((working, also));
        keep("f");
        assert!(kept("f") && lock(&local.slots).len() <= 2);
    }

    #[test]
    fn those_that_were_shown_are_looked_at_once() {
        let local = Local::new(2);
        let id = CustomerId::new("a").expect("an id");
        let slot = local.slot(&id);
        local.asked_for(&id, &slot);
        local.asked_for(&id, &slot);
        assert_eq!(local.take_asked().len(), 1);
        assert!(local.take_asked().is_empty());
        local.asked_for(&id, &slot);
        assert_eq!(local.take_asked().len(), 1);
    }
}
