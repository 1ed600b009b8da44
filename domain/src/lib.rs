//! What Meed knows about points: total functions on values.
//!
//! Nothing here performs I/O, is async, reads a clock or draws a random number; time is an
//! argument. Numbers are decided here, order is decided in `workflows`, facts are made in `store`.

pub mod command;
mod digest;
pub mod id;
pub mod inbound;
mod json;
pub mod message;
pub mod money;
pub mod number;
pub mod points;
pub mod programme;
pub mod promotion;
pub mod pruning;
pub mod reconciliation;
pub mod redemption;
pub mod refusal;
pub mod tier;
pub mod transaction;
pub mod user;

pub use command::{
    Award, Command, EventType, Fact, Facts, Notification, RedeemRequest, SourceKind,
};
pub use id::{
    AssignmentJobId, CustomerId, EventId, IdError, MerchantId, NotificationKind, OrderId,
    PromotionId, RedeemRequestId, TransactionId,
};
pub use money::{Amount, Currency};
pub use number::Number;
pub use points::{Points, PointsError};
pub use programme::{BonusError, Contribution, Evaluation, Programme, ProgrammeError};
pub use promotion::{Promotion, PromotionType};
pub use pruning::Prunable;
pub use reconciliation::Comparison;
pub use refusal::{Refusal, RefusalClass};
pub use tier::{Tier, TierThresholds};
pub use user::Username;
