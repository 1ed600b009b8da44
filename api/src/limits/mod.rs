//! How much is taken from one client, and at once: a token bucket for each client and class of
//! routes, and a bound on what is under way. Whoever asks too often is told when to ask again
//! (429); what would only be waited for is refused at once (503), so that the rest stays fast.
//!
//! The headers are those of draft-ietf-httpapi-ratelimit-headers-10. With Redis replicas count
//! together; while it is away, each counts for itself.

mod class;
mod places;
mod shared;

use std::{
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use boot::{
    Settings,
    settings::{ClassLimits, LimitsSettings},
    watch::Watched,
};
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
};
use kv::Redis;

use crate::{
    App, address,
    auth::{self, Identity, Role},
    body,
    error::ApiError,
    measures, throttle,
};
pub use class::Class;
pub(crate) use places::{Place, Places};
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
    places: Arc<Places>,
}

/// The limits of all classes.
pub struct Limits {
    in_force: RwLock<Arc<InForce>>,
    shared: Option<Shared>,
}

/// The limits as they are for now. Requests that began under others end under them.
struct InForce {
    settings: LimitsSettings,
    all: Vec<Arc<Limit>>,
    waiting: Arc<Places>,
    starting: Arc<Places>,
}

impl InForce {
    fn of(&self, class: Class) -> Option<&Limit> {
        let limit = self.all.iter().find(|limit| limit.class == class);
        limit.map(|limit| &**limit)
    }
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
        let limit = |class: Class| Arc::new(Limit::new(class, class.of(settings)));
        let in_force = InForce {
            settings: settings.clone(),
            all: Class::ALL.map(limit).into(),
            waiting: Places::new(settings.max_waiting),
            starting: Places::new(settings.max_starting),
        };
        Self {
            in_force: RwLock::new(Arc::new(in_force)),
            shared: redis.map(Shared::new),
        }
    }

    fn in_force(&self) -> Arc<InForce> {
        let in_force = self.in_force.read();
        Arc::clone(&in_force.unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other limits into force. What has not changed goes on as it was; a class with other
    /// limits begins with full buckets.
    fn put_into_force(&self, settings: &LimitsSettings) {
        let before = self.in_force();
        let limit = |class: Class| {
            let limit = before.all.iter().find(|limit| limit.class == class);
            let same = limit.filter(|limit| limit.settings == class.of(settings));
            same.cloned()
                .unwrap_or_else(|| Arc::new(Limit::new(class, class.of(settings))))
        };
        let in_force = InForce {
            settings: settings.clone(),
            all: Class::ALL.map(limit).into(),
            waiting: before.waiting.or_so_many(settings.max_waiting),
            starting: before.starting.or_so_many(settings.max_starting),
        };
        *self
            .in_force
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(in_force);
    }

    /// Follows `[limits]` of the configuration file, until the end. What else changes there counts
    /// from the next start on.
    pub async fn follow(&self, file: PathBuf) {
        let mut watched = Watched::new(file.clone());
        loop {
            watched.changed().await;
            match Settings::read(&file) {
                Ok(settings) if settings.limits == self.in_force().settings => {}
                Ok(settings) => {
                    self.put_into_force(&settings.limits);
                    tracing::info!(limits = ?settings.limits, "the limits were read again");
                }
                Err(error) => {
                    tracing::error!(%error, "the new configuration is refused; the limits stay");
                }
            }
        }
    }

    /// Places for redemptions that are accepted and have not come to rest.
    pub(crate) fn starting(&self) -> Arc<Places> {
        Arc::clone(&self.in_force().starting)
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
            for limit in &self.in_force().all {
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
    let in_force = app.limits.in_force();
    let Some(limit) = class.and_then(|class| in_force.of(class)) else {
        return next.run(request).await;
    };
    let (mut parts, body) = request.into_parts();
    let known = auth::known(&app, &mut parts).await;
    // Nobody who may not name many makes this process hold much.
    let staff = parts.extensions.get::<Identity>();
    let staff = staff.is_some_and(|who| who.has_role(Role::Staff) || who.has_role(Role::Admin));
    let body_max_bytes = if staff && is_at(&parts, WHERE_MANY_ARE_NAMED) {
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
            pass(&in_force, limit, &client, body_max_bytes, request, next)
                .await
                .unwrap_or_else(ApiError::into_response)
        }
        Some(wait) => {
            measures::limited(limit.class);
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
    limits: &InForce,
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
        measures::shed(limit.class);
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
    fn other_limits_come_into_force_and_the_rest_goes_on() {
        let class = |capacity| ClassLimits {
            capacity,
            refill_per_second: 1,
            max_concurrent: 1,
        };
        let mut settings = LimitsSettings {
            read: class(2),
            write: class(2),
            ..LimitsSettings::default()
        };
        let limits = Limits::new(&settings, None);
        let client = "a".to_owned();
        let left = |class| {
            let in_force = limits.in_force();
            let limit = in_force.of(class).expect("it has limits");
            limit.take_here(&client).remaining
        };
        assert_eq!([left(Class::Read), left(Class::Write)], [1, 1]);
        settings.read = class(10);
        limits.put_into_force(&settings);
        assert_eq!([left(Class::Read), left(Class::Write)], [9, 0]);
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
