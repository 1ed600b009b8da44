//! The store on a real PostgreSQL: what the ledger promises, tried on the ledger.

mod callbacks;
mod ledger;
mod redemptions;
mod support;
mod tiers;
