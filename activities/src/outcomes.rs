//! Wakes requests in the same process that wait for a redemption to move on.

use domain::RedeemRequestId;
use tokio::sync::broadcast;

/// How many changes a slow listener may lag behind before it has to look for itself.
const CAPACITY: usize = 1024;

/// Tells of every redemption whose row a step in this process has changed.
#[derive(Debug, Clone)]
pub struct Outcomes {
    changes: broadcast::Sender<RedeemRequestId>,
}

impl Default for Outcomes {
    fn default() -> Self {
        Self {
            changes: broadcast::channel(CAPACITY).0,
        }
    }
}

impl Outcomes {
    /// Listens from now on. What is heard is only a reason to read the row.
    pub fn listen(&self) -> broadcast::Receiver<RedeemRequestId> {
        self.changes.subscribe()
    }

    /// Tells that a row has changed. Nobody listening is fine.
    pub(crate) fn changed(&self, id: &RedeemRequestId) {
        let _ = self.changes.send(id.clone());
    }
}
