//! The HTTP API: it checks who asks, writes what is asked for, starts or signals the flow, and
//! says how things stand. It decides nothing about points.

mod address;
pub mod app;
pub mod auth;
pub mod body;
pub mod cache;
pub mod error;
pub mod flows;
pub mod grpc;
pub mod idempotency;
pub mod limits;
pub mod measures;
mod notification;
pub mod observe;
pub mod openapi;
mod origin;
pub mod paging;
pub mod parameters;
pub mod passwords;
pub mod readiness;
pub mod routes;
pub mod serve;
pub mod sessions;
pub mod sockets;
pub mod throttle;
mod waiting;

pub use app::App;
pub use routes::router;
