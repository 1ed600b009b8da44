//! What operators see of a flow without opening it: search attributes, summaries, details.
//!
//! Search attributes are not encrypted by a payload codec, so the customer stands there only as a
//! keyed hash.

use domain::{
    CustomerId, MerchantId, Points, PromotionId, Tier,
    promotion::{AssignmentState, ClaimState},
    redemption::RedemptionState,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use temporalio_common::search_attributes::{SearchAttributeKey, SearchAttributes};

use crate::contract::{
    MessageRange, PromotionClaim, RankingRebuildRequest, ReconcileRequest, TierOrder,
};

/// The merchant of a redemption.
pub const MERCHANT: SearchAttributeKey<String> = SearchAttributeKey::keyword("MeedMerchant");
/// Where a flow stands: a redemption's state, an upgrade's outcome.
pub const STATUS: SearchAttributeKey<String> = SearchAttributeKey::keyword("MeedStatus");
/// Why a redemption failed.
pub const REASON: SearchAttributeKey<String> = SearchAttributeKey::keyword("MeedReason");
/// The tier a customer was given.
pub const TIER: SearchAttributeKey<String> = SearchAttributeKey::keyword("MeedTier");
/// The customer, as [`customer_key`].
pub const CUSTOMER: SearchAttributeKey<String> = SearchAttributeKey::keyword("MeedCustomer");
/// The topic of an award batch.
pub const TOPIC: SearchAttributeKey<String> = SearchAttributeKey::keyword("MeedTopic");
/// The promotion that is claimed or assigned.
pub const PROMOTION: SearchAttributeKey<String> = SearchAttributeKey::keyword("MeedPromotion");
/// Points redeemed, or awarded by a batch.
pub const POINTS: SearchAttributeKey<i64> = SearchAttributeKey::int("MeedPoints");
/// How many messages of a batch went to the dead letters.
pub const REFUSED: SearchAttributeKey<i64> = SearchAttributeKey::int("MeedRefused");

/// Every search attribute by name, and whether it is a whole number (a keyword otherwise): what
/// the provisioning step creates.
pub const ALL: [(&str, bool); 9] = [
    ("MeedMerchant", false),
    ("MeedStatus", false),
    ("MeedReason", false),
    ("MeedTier", false),
    ("MeedCustomer", false),
    ("MeedTopic", false),
    ("MeedPromotion", false),
    ("MeedPoints", true),
    ("MeedRefused", true),
];

/// How many hexadecimal digits of the keyed hash stand for a customer: 64 bits.
const CUSTOMER_KEY_DIGITS: usize = 16;

/// The customer as operators see it: HMAC-SHA256 under the visibility key, cut to 64 bits.
///
/// # Panics
/// Never: HMAC takes a key of any length.
pub fn customer_key(key: &[u8], customer: &CustomerId) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(customer.as_str().as_bytes());
    let mut digits = hex::encode(mac.finalize().into_bytes());
    digits.truncate(CUSTOMER_KEY_DIGITS);
    digits
}

/// What a flow shows in lists from its start.
#[derive(Debug, Clone)]
pub struct StartVisibility {
    /// One line.
    pub summary: String,
    /// To search by.
    pub attributes: SearchAttributes,
}

/// A redemption, as it starts.
pub fn redeem(customer_key: &str, merchant: &MerchantId, points: Points) -> StartVisibility {
    StartVisibility {
        summary: format!("Redeem {points} points at {merchant} for customer {customer_key}"),
        attributes: SearchAttributes::new([
            MERCHANT.value_set(merchant.to_string()),
            STATUS.value_set(RedemptionState::Queued.to_string()),
            CUSTOMER.value_set(customer_key.to_owned()),
            POINTS.value_set(points.get()),
        ]),
    }
}

/// An award batch, as it starts.
pub fn award(range: &MessageRange) -> StartVisibility {
    StartVisibility {
        summary: format!(
            "Award {} messages of {}, partition {}, offsets {} to {}",
            range.messages, range.topic, range.partition, range.first_offset, range.last_offset
        ),
        attributes: SearchAttributes::new([
            TOPIC.value_set(range.topic.clone()),
            STATUS.value_set("POSTING".to_owned()),
        ]),
    }
}

/// A tier upgrade, as it starts.
pub fn tier_upgrade(customer_key: &str, order: &TierOrder, tier: Tier) -> StartVisibility {
    StartVisibility {
        summary: format!(
            "Look at the tier of customer {customer_key} (now {tier}), order {}",
            order.order_id
        ),
        attributes: SearchAttributes::new([
            TIER.value_set(tier.to_string()),
            STATUS.value_set("EVALUATING".to_owned()),
            CUSTOMER.value_set(customer_key.to_owned()),
        ]),
    }
}

/// A claim, as it starts.
pub fn claim(customer_key: &str, claim: &PromotionClaim) -> StartVisibility {
    StartVisibility {
        summary: format!(
            "Claim promotion {} for customer {customer_key}",
            claim.promotion_id
        ),
        attributes: SearchAttributes::new([
            PROMOTION.value_set(claim.promotion_id.to_string()),
            STATUS.value_set(ClaimState::Claiming.to_string()),
            CUSTOMER.value_set(customer_key.to_owned()),
        ]),
    }
}

/// A job that assigns a promotion, as it starts.
pub fn assign_promotion(promotion_id: &PromotionId, players: u32) -> StartVisibility {
    StartVisibility {
        summary: format!("Assign promotion {promotion_id} to {players} players"),
        attributes: SearchAttributes::new([
            PROMOTION.value_set(promotion_id.to_string()),
            STATUS.value_set(AssignmentState::Queued.to_string()),
        ]),
    }
}

/// One line for a reconciliation.
pub fn reconcile(request: &ReconcileRequest) -> String {
    let what = if request.repair {
        "Compares the books and repairs what is safe"
    } else {
        "Compares the books and repairs nothing"
    };
    match request.since {
        Some(since) => format!("{what}, from {} on", since.format("%Y-%m-%d %H:%M:%S UTC")),
        None => format!("{what}, from where the last one ended"),
    }
}

/// One line for a rebuild of the ranking.
pub fn rebuild_ranking(request: &RankingRebuildRequest) -> String {
    format!(
        "Makes the ranking anew from the ledger, for {}",
        request.asked_by
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_customer_key_depends_on_the_key_and_the_customer() {
        let c = |id: &str| CustomerId::new(id).expect("valid");
        let one = customer_key(b"key", &c("C1"));
        assert_eq!(one.len(), CUSTOMER_KEY_DIGITS);
        assert_eq!(one, customer_key(b"key", &c("C1")));
        assert_ne!(one, customer_key(b"key", &c("C2")));
        assert_ne!(one, customer_key(b"other", &c("C1")));
    }
}
