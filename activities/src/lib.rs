//! What turns numbers into facts: the activities behind the contract in `workflows`, over the
//! ledger (through `store`), the partners and the context services.

#![expect(
    missing_docs,
    reason = "the SDK's macros make public items without documentation"
)]

mod answer;
pub mod assign;
pub mod claim;
pub mod context;
mod failure;
pub mod measures;
pub mod outcomes;
pub mod partner;
pub mod redeem;
pub mod signature;
pub mod tier;

pub use failure::{Failure, activity_error};
