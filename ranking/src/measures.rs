//! What is measured, by its Prometheus names.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const LAG: &str = "meed_ranking_lag_seconds";
const CUSTOMERS: &str = "meed_ranking_customers";
const LOOKUPS: &str = "meed_ranking_lookups_total";
const LOOKUP: &str = "meed_ranking_lookup_seconds";
const CONTRADICTIONS: &str = "meed_ranking_contradictions_total";
const BUILT: &str = "meed_ranking_builds_total";
const BUILD: &str = "meed_ranking_build_seconds";

/// Which question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Who is first.
    Top,
    /// Where a customer stands.
    Standing,
}

impl Call {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Top => "top",
            Self::Standing => "standing",
        }
    }
}

/// Says what each one means, those of Redis too, and begins those of which everything is known at
/// zero.
pub fn describe() {
    kv::measures::describe();
    describe_gauge!(
        LAG,
        "How long ago the ranking knew all that was committed; NaN while there is none. Alert when it stays above ten seconds."
    );
    describe_gauge!(CUSTOMERS, "Customers in the ranking.");
    describe_counter!(
        LOOKUPS,
        "Looks at the ranking, by question and whether it was there."
    );
    describe_histogram!(
        LOOKUP,
        "How long a look at the ranking takes, without the ledger."
    );
    describe_counter!(
        CONTRADICTIONS,
        "Customers of whom the ranking has more points than the ledger. Alert on any: it has to be rebuilt."
    );
    describe_counter!(BUILT, "Times that the ranking was made anew, by outcome.");
    counter!(CONTRADICTIONS).increment(0);
    for call in [Call::Top, Call::Standing] {
        for outcome in ["found", "not-ready"] {
            counter!(LOOKUPS, "call" => call.as_str(), "outcome" => outcome).increment(0);
        }
    }
    describe_histogram!(BUILD, "How long it takes to make the ranking anew.");
}

/// Somebody looked.
pub(crate) fn looked(call: Call, took: Duration, found: bool) {
    let outcome = if found { "found" } else { "not-ready" };
    counter!(LOOKUPS, "call" => call.as_str(), "outcome" => outcome).increment(1);
    histogram!(LOOKUP, "call" => call.as_str()).record(took.as_secs_f64());
}

/// The ranking has more than the ledger.
pub(crate) fn contradicted() {
    counter!(CONTRADICTIONS).increment(1);
}

/// How the ranking is; nothing while there is none.
#[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
pub(crate) fn stands(lag: Option<Duration>, customers: Option<u64>) {
    gauge!(LAG).set(lag.map_or(f64::NAN, |lag| lag.as_secs_f64()));
    gauge!(CUSTOMERS).set(customers.map_or(f64::NAN, |customers| customers as f64));
}

/// It was made anew, or could not be.
pub(crate) fn built(took: Duration, well: bool) {
    let outcome = if well { "made" } else { "failed" };
    counter!(BUILT, "outcome" => outcome).increment(1);
    if well {
        histogram!(BUILD).record(took.as_secs_f64());
    }
}
