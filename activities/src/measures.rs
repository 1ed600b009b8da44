//! What the steps count, by its Prometheus names. Of a step that runs again only what it changed
//! counts.

use std::time::Duration;

use domain::{
    MerchantId,
    redemption::{BUILT_IN_MERCHANT, RedemptionState},
};
use metrics::{counter, describe_counter, describe_histogram, histogram};
use store::redemptions::Redemption;
use workflows::contract::TierOutcome;

use crate::partner::{PartnerError, Said};

const REDEMPTIONS: &str = "meed_redemptions_total";
const REDEMPTION_DURATION: &str = "meed_redemption_duration_seconds";
const REDEEMED: &str = "meed_points_redeemed_total";
const PARTNER_REQUESTS: &str = "meed_partner_requests_total";
const PARTNER_DURATION: &str = "meed_partner_request_duration_seconds";
const TIER_UPGRADES: &str = "meed_tier_upgrades_total";

/// What stands for every merchant that is not configured: clients can make up ids.
const UNKNOWN_MERCHANT: &str = "unknown";

/// Says what each one means, and begins those of the configured merchants at zero: what has not
/// happened yet would otherwise look like what is not measured.
pub fn describe<'a>(merchants: impl IntoIterator<Item = &'a MerchantId>) {
    describe_counter!(
        REDEMPTIONS,
        "Redemptions that have ended, by merchant, status and reason."
    );
    describe_histogram!(
        REDEMPTION_DURATION,
        "How long redemptions took from their acceptance to their end, by status."
    );
    describe_counter!(REDEEMED, "Points deducted for redemptions, by merchant.");
    describe_counter!(
        PARTNER_REQUESTS,
        "Requests to merchants, by question and outcome; with the outcomes busy and circuit-open \
         none was sent."
    );
    describe_histogram!(
        PARTNER_DURATION,
        "How long requests to merchants took, with the wait for a place."
    );
    describe_counter!(
        TIER_UPGRADES,
        "Looks at a tier that have ended, by outcome."
    );
    let merchants = merchants.into_iter().map(MerchantId::as_str);
    for merchant in merchants.chain([BUILT_IN_MERCHANT]) {
        let merchant = merchant.to_owned();
        counter!(REDEMPTIONS, "merchant" => merchant.clone(), "status" => "SUCCESS", "reason" => "")
            .increment(0);
        counter!(REDEEMED, "merchant" => merchant).increment(0);
    }
}

/// A step has ended a redemption.
pub fn redemption_ended(row: &Redemption, merchant_is_known: bool) {
    let merchant = if merchant_is_known {
        row.merchant_id.as_str()
    } else {
        UNKNOWN_MERCHANT
    };
    let merchant = merchant.to_owned();
    let status = row.state.as_str();
    let reason = row.reason.map_or("", |reason| reason.as_str());
    let took = (row.updated_at - row.created_at).as_seconds_f64();
    counter!(REDEMPTIONS, "merchant" => merchant.clone(), "status" => status, "reason" => reason)
        .increment(1);
    histogram!(REDEMPTION_DURATION, "status" => status).record(took.max(0.0));
    if row.state == RedemptionState::Success {
        let points = u64::try_from(row.points_deducted.get()).unwrap_or(0);
        counter!(REDEEMED, "merchant" => merchant).increment(points);
    }
}

/// A configured merchant was asked, or could not be.
pub fn partner_asked(
    merchant: &MerchantId,
    question: &'static str,
    answer: &Result<Said, PartnerError>,
    took: Duration,
) {
    let outcome = match answer {
        Ok(_) => "answered",
        Err(PartnerError::Unavailable { .. }) => "unavailable",
        Err(PartnerError::Lost { .. }) => "lost",
        Err(PartnerError::Busy { .. }) => "busy",
        Err(PartnerError::CircuitOpen { .. }) => "circuit-open",
    };
    let merchant = merchant.to_string();
    counter!(
        PARTNER_REQUESTS,
        "merchant" => merchant.clone(), "question" => question, "outcome" => outcome
    )
    .increment(1);
    histogram!(PARTNER_DURATION, "merchant" => merchant, "question" => question)
        .record(took.as_secs_f64());
}

/// A look at a tier has ended.
pub fn tier_upgrade_ended(outcome: TierOutcome) {
    counter!(TIER_UPGRADES, "outcome" => outcome.as_str()).increment(1);
}
