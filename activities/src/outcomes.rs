//! Wakes requests in the same process that wait for a redemption or a claim to move on.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use domain::{CustomerId, PromotionId, RedeemRequestId, redemption::RedemptionState};
use tokio::sync::watch;

/// A claim that has moved on, by promotion and player.
pub type ClaimOf = (PromotionId, CustomerId);

/// Tells of every redemption and claim whose row a step in this process has changed.
#[derive(Debug, Clone, Default)]
pub struct Outcomes {
    redemptions: Listeners<RedeemRequestId>,
    claims: Listeners<ClaimOf>,
}

impl Outcomes {
    /// Listens for changes of a redemption from now on. What is heard is only a reason to read the
    /// row.
    pub fn listen(&self, id: &RedeemRequestId) -> Changes<RedeemRequestId> {
        self.redemptions.listen(id.clone())
    }

    /// The same for a claim.
    pub fn listen_to_claim(&self, claim: &ClaimOf) -> Changes<ClaimOf> {
        self.claims.listen(claim.clone())
    }

    /// Tells that a row has changed, and where it stands. Nobody listening is fine.
    pub(crate) fn changed(&self, id: &RedeemRequestId, state: RedemptionState) {
        let rests = state.is_final() || state == RedemptionState::AwaitingCallback;
        self.redemptions.tell(id, rests);
    }

    /// The same for claims; `rests` is whether it has ended.
    pub(crate) fn claim_changed(
        &self,
        promotion_id: &PromotionId,
        customer: &CustomerId,
        rests: bool,
    ) {
        self.claims
            .tell(&(promotion_id.clone(), customer.clone()), rests);
    }
}

/// Those who listen, by what they listen for: only they are woken.
#[derive(Debug)]
struct Listeners<K>(Arc<Mutex<HashMap<K, watch::Sender<bool>>>>);

impl<K> Clone for Listeners<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Default for Listeners<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Clone + Eq + Hash> Listeners<K> {
    fn by_key(&self) -> MutexGuard<'_, HashMap<K, watch::Sender<bool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, key: K) -> Changes<K> {
        let changed = self.by_key().entry(key.clone()).or_default().subscribe();
        Changes {
            key,
            changed: Some(changed),
            listeners: self.clone(),
        }
    }

    fn tell(&self, key: &K, rests: bool) {
        if let Some(changed) = self.by_key().get(key) {
            changed.send_replace(rests);
        }
    }
}

/// The changes of one row, until this is dropped.
#[derive(Debug)]
pub struct Changes<K: Clone + Eq + Hash> {
    key: K,
    /// There until this is dropped.
    changed: Option<watch::Receiver<bool>>,
    listeners: Listeners<K>,
}

impl<K: Clone + Eq + Hash> Changes<K> {
    /// Returns when the row has changed since the last time: whether it rests now, having ended or
    /// waiting for somebody.
    pub async fn changed(&mut self) -> bool {
        if let Some(changed) = &mut self.changed
            && changed.changed().await.is_ok()
        {
            return *changed.borrow_and_update();
        }
        // Nobody in this process can tell any more.
        std::future::pending().await
    }
}

impl<K: Clone + Eq + Hash> Drop for Changes<K> {
    fn drop(&mut self) {
        let mut listeners = self.listeners.by_key();
        // Under the lock, so that the last of several sees that it is the last.
        self.changed = None;
        if let Entry::Occupied(listened_for) = listeners.entry(self.key.clone())
            && listened_for.get().receiver_count() == 0
        {
            listened_for.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn id(name: &str) -> RedeemRequestId {
        RedeemRequestId::new(name).expect("an id")
    }

    #[tokio::test]
    async fn those_who_listen_are_told_and_nobody_else() {
        let outcomes = Outcomes::default();
        let mut first = outcomes.listen(&id("R-1"));
        let mut second = outcomes.listen(&id("R-1"));
        let mut other = outcomes.listen(&id("R-2"));
        let (held, ended) = (RedemptionState::Reserved, RedemptionState::Success);
        outcomes.changed(&id("R-1"), held);
        assert_eq!(first.changed().now_or_never(), Some(false));
        assert!(first.changed().now_or_never().is_none(), "it is told once");
        assert!(second.changed().now_or_never().is_some());
        assert!(other.changed().now_or_never().is_none());
        drop(first);
        outcomes.changed(&id("R-1"), ended);
        assert_eq!(second.changed().now_or_never(), Some(true));
    }

    #[test]
    fn what_nobody_listens_for_is_forgotten() {
        let outcomes = Outcomes::default();
        let (first, second) = (outcomes.listen(&id("R-1")), outcomes.listen(&id("R-1")));
        drop(first);
        assert_eq!(outcomes.redemptions.by_key().len(), 1);
        drop(second);
        assert!(outcomes.redemptions.by_key().is_empty());
        outcomes.changed(&id("R-1"), RedemptionState::Failed);
        assert!(outcomes.redemptions.by_key().is_empty());
    }
}
