//! The classes of routes.

use axum::http::Method;
use boot::settings::{ClassLimits, LimitsSettings};

/// A class of routes, which have their limits together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Reading.
    Read,
    /// Changing something that is no other class.
    Write,
    /// Spending points.
    Redeem,
    /// Answering callbacks.
    Callback,
    /// Registering, logging in, asking for tokens.
    Auth,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Read,
        Self::Write,
        Self::Redeem,
        Self::Callback,
        Self::Auth,
    ];

    /// Its name in headers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Redeem => "redeem",
            Self::Callback => "callback",
            Self::Auth => "auth",
        }
    }

    /// Its limits.
    pub(super) const fn of(self, settings: &LimitsSettings) -> ClassLimits {
        match self {
            Self::Read => settings.read,
            Self::Write => settings.write,
            Self::Redeem => settings.redeem,
            Self::Callback => settings.callback,
            Self::Auth => settings.auth,
        }
    }

    /// The class of a route; none for what the operators' own programs ask, for documents that
    /// never change, the page among them, and for tokens of the dev profile.
    pub fn of_route(method: &Method, route: &str) -> Option<Self> {
        let under = |prefix: &str| route.starts_with(prefix);
        let free = [
            "/health",
            "/metrics",
            "/app",
            "/docs",
            "/openapi.json",
            "/.well-known",
            "/dev",
        ];
        if free.into_iter().any(under) {
            return None;
        }
        let reads = method == Method::GET || method == Method::HEAD;
        Some(if under("/oauth") || under("/api/v1/auth") {
            Self::Auth
        } else if reads || route == "/api/v1/rewards/query" {
            Self::Read
        } else if under("/api/v1/redeem") || route.ends_with("/loyalty") {
            Self::Redeem
        } else if route.contains("callbacks/") {
            Self::Callback
        } else {
            Self::Write
        })
    }
}
