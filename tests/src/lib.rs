//! What the whole-stack tests share: the components, once for all tests of a process, and benches
//! on which one flow runs with real Temporal, a real database and a partner that obeys.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where something is missing"
)]
#![expect(
    missing_docs,
    reason = "the SDK's macros make public items without documentation"
)]

pub mod breakable;
pub mod components;
pub mod faults;
pub mod flows;
pub mod history;
pub mod observability;
pub mod otlp;
pub mod own;
pub mod promotion_bench;
pub mod redeem_bench;
pub mod stalls;
pub mod steady;
pub mod system;
pub mod tier_bench;
pub mod watcher;
