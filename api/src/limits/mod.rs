//! How much is taken from one client, and at once: a token bucket for each client and class of
//! routes, and a bound on what is under way. Whoever asks too often is told when to ask again
//! (429); what would only be waited for is refused at once (503), so that the rest stays fast.
//!
//! The headers are those of draft-ietf-httpapi-ratelimit-headers-10. With Redis replicas count
//! together; while it is away, each counts for itself.

mod class;
mod places;
mod shared;

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use boot::settings::{ClassLimits, LimitsSettings};
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
};
use kv::Redis;

use crate::{App, address, auth, body, error::ApiError, throttle};
pub use class::Class;
pub(crate) use places::Places;
use shared::Shared;

/// What is left of a client's requests.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// How many a client has.
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// The only route where a client can wait.
const WHERE_TO_WAIT: &str = "/api/v1/redeem/{redeemRequestId}";
/// The only route where one request is about many players.
const WHERE_MANY_ARE_NAMED: &str = "/api/v1/promotions/{promotionId}/assign";
/// How often buckets that are full again are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

type Buckets = DefaultKeyedRateLimiter<Client, StateInformationMiddleware>;

/// A client as it is counted: the issuer and subject of its token, or the network it asks from.
type Client = String;

/// The limits of one class.
struct Limit {
    class: Class,
    settings: ClassLimits,
    buckets: Buckets,
    places: Places,
}

/// The limits of all classes.
pub struct Limits {
    all: Vec<Limit>,
    waiting: Places,
    shared: Option<Shared>,
}

/// What a client has left after a request, or how long it has to wait for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    remaining: u32,
    /// Nothing where the request was within the limit.
    wait: Option<Duration>,
}

impl Limit {
    fn new(class: Class, settings: ClassLimits) -> Self {
        let at_least_one = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(settings.refill_per_second))
            .allow_burst(at_least_one(settings.capacity));
        Self {
            class,
            settings,
            buckets: RateLimiter::keyed(quota).with_middleware::<StateInformationMiddleware>(),
            places: Places::new(settings.max_concurrent),
        }
    }

    fn take_here(&self, client: &Client) -> Standing {
        match self.buckets.check_key(client) {
            Ok(state) => Standing {
                remaining: state.remaining_burst_capacity(),
                wait: None,
            },
            Err(until) => Standing {
                remaining: 0,
                wait: Some(until.wait_time_from(DefaultClock::default().now())),
            },
        }
    }

    /// How long an empty bucket takes to be full, in seconds.
    fn window(&self) -> u64 {
        self.refilled(self.settings.capacity)
    }

    /// How long so many requests take to come back, in seconds.
    fn refilled(&self, requests: u32) -> u64 {
        u64::from(requests.div_ceil(self.settings.refill_per_second.max(1)))
    }

    fn tell(&self, standing: Standing, response: &mut Response) {
        let name = self.class.as_str();
        let missing = self.settings.capacity.saturating_sub(standing.remaining);
        let policy = format!(
            "\"{name}\";q={};w={}",
            self.settings.capacity,
            self.window()
        );
        let left = format!(
            "\"{name}\";r={};t={}",
            standing.remaining,
            self.refilled(missing)
        );
        for (header, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, left)] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(header, value);
            }
        }
    }
}

impl Limits {
    /// The limits of the configuration, counted together with other replicas where there is a
    /// Redis.
    pub fn new(settings: &LimitsSettings, redis: Option<Arc<Redis>>) -> Self {
        Self {
            all: Class::ALL
                .map(|class| Limit::new(class, class.of(settings)))
                .into(),
            waiting: Places::new(settings.max_waiting),
            shared: redis.map(Shared::new),
        }
    }

    fn of(&self, class: Class) -> Option<&Limit> {
        self.all.iter().find(|limit| limit.class == class)
    }

    async fn take(&self, limit: &Limit, client: &Client) -> Standing {
        if let Some(shared) = &self.shared
            && let Some(standing) = shared.take(limit.class, limit.settings, client).await
        {
            return standing;
        }
        limit.take_here(client)
    }

    /// Forgets clients that have not asked for long, until the end.
    pub async fn keep_small(&self) {
        loop {
            tokio::time::sleep(FORGET_EVERY).await;
            for limit in &self.all {
                limit.buckets.retain_recent();
                limit.buckets.shrink_to_fit();
            }
        }
    }
}

/// Lets a request pass within the limits of its class, and says in the answer what is left of them.
pub(crate) async fn limit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let class = match request.extensions().get::<MatchedPath>() {
        Some(route) => Class::of_route(request.method(), route.as_str()),
        // Who looks for what is not there is counted too.
        None => Some(Class::Read),
    };
    let Some(limit) = class.and_then(|class| app.limits.of(class)) else {
        return next.run(request).await;
    };
    let (mut parts, body) = request.into_parts();
    let known = auth::known(&app, &mut parts).await;
    // Nobody who is not known makes this process hold much.
    let body_max_bytes = if known.is_some() && is_at(&parts, WHERE_MANY_ARE_NAMED) {
        body::MANY_PLAYERS_MAX_BYTES
    } else {
        body::BODY_MAX_BYTES
    };
    let client = known.unwrap_or_else(|| {
        let address = address::of(&parts, &app.settings.api.trusted_proxies);
        throttle::counted(address.map(|address| address.to_string()).as_deref())
    });
    let standing = app.limits.take(limit, &client).await;
    let mut response = match standing.wait {
        None => {
            let request = Request::from_parts(parts, body);
            pass(&app.limits, limit, &client, body_max_bytes, request, next)
                .await
                .unwrap_or_else(ApiError::into_response)
        }
        Some(wait) => {
            metrics::counter!("meed_requests_limited_total", "class" => limit.class.as_str())
                .increment(1);
            ApiError::RateLimited(wait).into_response()
        }
    };
    limit.tell(standing, &mut response);
    response
}

fn is_at(parts: &Parts, route: &str) -> bool {
    let matched = parts.extensions.get::<MatchedPath>();
    matched.is_some_and(|matched| matched.as_str() == route)
}

/// Lets a request in once it is all here, if there is a place for it. Whoever waits for a
/// redemption's end needs little but time, and takes no place from others.
async fn pass(
    limits: &Limits,
    limit: &Limit,
    client: &Client,
    body_max_bytes: usize,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let asks_to_wait =
        |query: &str| form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "wait");
    let waits = request
        .extensions()
        .get::<MatchedPath>()
        .is_some_and(|route| route.as_str() == WHERE_TO_WAIT)
        && request.uri().query().is_some_and(asks_to_wait);
    let places = if waits {
        &limits.waiting
    } else {
        &limit.places
    };
    let request = body::arrived(request, body_max_bytes).await?;
    let Some(_place) = places.take(client) else {
        metrics::counter!("meed_requests_shed_total", "class" => limit.class.as_str()).increment(1);
        return Err(ApiError::Overloaded);
    };
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(capacity: u32, refill_per_second: u32) -> Limit {
        let settings = ClassLimits {
            capacity,
            refill_per_second,
            max_concurrent: 1,
        };
        Limit::new(Class::Read, settings)
    }

    #[test]
    fn a_bucket_is_emptied_and_waited_for() {
        let limit = limit(3, 1);
        let (a, b) = ("a".to_owned(), "b".to_owned());
        let left = |client| limit.take_here(client).remaining;
        assert_eq!([left(&a), left(&a), left(&a)], [2, 1, 0]);
        let refused = limit.take_here(&a);
        let wait = refused.wait.expect("the bucket is empty");
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(left(&b), 2, "every client has a bucket of its own");
    }

    #[test]
    fn the_headers_say_what_is_left() {
        let limit = limit(10, 4);
        let mut response = ().into_response();
        let standing = Standing {
            remaining: 3,
            wait: None,
        };
        limit.tell(standing, &mut response);
        assert_eq!(response.headers()["ratelimit-policy"], "\"read\";q=10;w=3");
        assert_eq!(response.headers()["ratelimit"], "\"read\";r=3;t=2");
    }
}
