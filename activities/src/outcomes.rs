//! Wakes requests in the same process that wait for a redemption or a claim to move on.

use domain::{CustomerId, PromotionId, RedeemRequestId};
use tokio::sync::broadcast;

/// How many changes a slow listener may lag behind before it has to look for itself.
const CAPACITY: usize = 1024;

/// A claim that has moved on, by promotion and player.
pub type ClaimOf = (PromotionId, CustomerId);

/// Tells of every redemption and claim whose row a step in this process has changed.
#[derive(Debug, Clone)]
pub struct Outcomes {
    redemptions: broadcast::Sender<RedeemRequestId>,
    claims: broadcast::Sender<ClaimOf>,
}

impl Default for Outcomes {
    fn default() -> Self {
        Self {
            redemptions: broadcast::channel(CAPACITY).0,
            claims: broadcast::channel(CAPACITY).0,
        }
    }
}

impl Outcomes {
    /// Listens from now on. What is heard is only a reason to read the row.
    pub fn listen(&self) -> broadcast::Receiver<RedeemRequestId> {
        self.redemptions.subscribe()
    }

    /// The same for claims.
    pub fn listen_to_claims(&self) -> broadcast::Receiver<ClaimOf> {
        self.claims.subscribe()
    }

    /// Tells that a row has changed. Nobody listening is fine.
    pub(crate) fn changed(&self, id: &RedeemRequestId) {
        let _ = self.redemptions.send(id.clone());
    }

    /// The same for claims.
    pub(crate) fn claim_changed(&self, promotion_id: &PromotionId, customer: &CustomerId) {
        let _ = self.claims.send((promotion_id.clone(), customer.clone()));
    }
}
