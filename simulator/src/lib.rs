//! The world around Meed, for development and tests.
//!
//! Two programs live here. `meed-partners` plays the merchants and the Product,
//! Product Search and Order services; `meed-acknowledger` plays the service that
//! answers tier upgrades. Both speak to Meed only over HTTP and Kafka and share
//! no code with it, so that what they check is the protocol and not a common
//! library. The merchants' side is written from `docs/partner-protocol.md`.

pub mod acknowledger;
mod book;
mod callback;
mod connection;
mod context;
mod control;
mod merchant;
mod mode;
mod partners;
pub mod process;
mod redemption;
pub mod signature;

pub use book::BookError;
pub use context::{ServiceMode, ServiceName, ServiceSettings};
pub use mode::{MerchantMode, MerchantSettings};
pub use partners::{PartnersOptions, ServeError, serve};
pub use redemption::{CallbackState, Redemption, RedemptionStatus, StatusChange};
