//! The customer as operators see it.

use domain::CustomerId;

use crate::Settings;

/// The keyed hash that stands for a customer in Temporal's lists.
pub fn customer_key(settings: &Settings, customer: &CustomerId) -> String {
    let key = settings.visibility.customer_key.expose().as_bytes();
    workflows::visibility::customer_key(key, customer)
}
