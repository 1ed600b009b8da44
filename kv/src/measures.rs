//! What is counted, by its Prometheus name.

use metrics::{counter, describe_counter};

const FAILURES: &str = "meed_redis_failures_total";

/// Says what it means, and begins it at zero.
pub fn describe() {
    describe_counter!(
        FAILURES,
        "Questions that Redis did not answer; this process was on its own."
    );
    counter!(FAILURES).increment(0);
}

/// Redis did not answer.
pub(crate) fn redis_failed() {
    counter!(FAILURES).increment(1);
}
