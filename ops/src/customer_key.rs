//! `meed customer-key ID`: how a customer stands in Temporal's lists.

use anyhow::Result;
use domain::CustomerId;

use crate::addresses;

/// The customer's keyed hash, under the key of the configuration file.
///
/// # Errors
/// When the configuration file cannot be used.
pub fn of(customer: &CustomerId) -> Result<String> {
    Ok(boot::customer_key(&addresses::whole_settings()?, customer))
}
