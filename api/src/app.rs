//! What the handlers work with.

use std::{collections::HashMap, sync::Arc};

use activities::outcomes::Outcomes;
use boot::{LiveProgramme, Settings, metrics::Metrics, settings::Secret};
use domain::MerchantId;
use kv::Redis;
use ranking::{Options, Ranking};
use store::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    auth::{Authenticator, dev::DevIssuer, own::OwnIssuer},
    cache::Cache,
    error::{ApiError, Thing},
    flows::Flows,
    idempotency::UnderWay,
    limits::Limits,
    passwords::Passwords,
    readiness::Readiness,
    sessions::OpenSessions,
    sockets::Sockets,
};

/// What the handlers work with. One for the process.
pub struct App {
    /// The configuration.
    pub settings: Arc<Settings>,
    /// The rules.
    pub programme: Arc<LiveProgramme>,
    /// The primary database.
    pub pool: PgPool,
    /// The flows.
    pub flows: Arc<dyn Flows>,
    /// Tells of redemptions and claims that a step in this process has changed.
    pub outcomes: Outcomes,
    /// Copies of accounts.
    pub cache: Cache,
    /// Who has earned most.
    pub ranking: Ranking,
    /// How much is taken from one client, and at once.
    pub limits: Limits,
    /// Checks tokens.
    pub authenticator: Authenticator,
    /// Makes tokens in the dev profile.
    pub dev_issuer: Option<DevIssuer>,
    /// Makes tokens for clients and for Meed's own users.
    pub own_issuer: Option<OwnIssuer>,
    /// Hashes and checks passwords and secrets.
    pub passwords: Passwords,
    /// Sessions that were seen open.
    pub sessions: OpenSessions,
    /// WebSockets of players.
    pub sockets: Sockets,
    /// Whether this process can take requests.
    pub readiness: Readiness,
    /// What was measured, when it is.
    pub metrics: Option<Arc<Metrics>>,
    /// Idempotency keys of requests under way.
    pub under_way: UnderWay,
    signing_keys: HashMap<MerchantId, Secret>,
}

impl App {
    /// Puts together what the configuration asks for.
    ///
    /// # Errors
    /// When an issuer's keys cannot be had from their file, no HTTP client can be made, or the
    /// address of Redis cannot be read.
    pub fn new(
        settings: Arc<Settings>,
        programme: Arc<LiveProgramme>,
        pool: PgPool,
        flows: Arc<dyn Flows>,
        outcomes: Outcomes,
        metrics: Option<Arc<Metrics>>,
    ) -> anyhow::Result<Self> {
        let dev_issuer = settings
            .auth
            .dev_issuer()
            .map(|dev| DevIssuer::new(dev, &settings.api.public_url))
            .transpose()?;
        let own_issuer = OwnIssuer::of(&settings)?;
        let authenticator =
            Authenticator::new(&settings, dev_issuer.as_ref(), own_issuer.as_ref())?;
        let passwords = Passwords::new(&settings.auth.passwords)?;
        let signing_keys = settings
            .merchants
            .iter()
            .map(|(id, merchant)| (id.clone(), merchant.signing_key.clone()))
            .collect();
        let redis = boot::redis::connect(&settings.redis)?;
        let cache = Cache::new(&settings.cache, pool.clone(), redis.clone());
        let ranking = ranking(&settings, &pool, redis.as_ref());
        let limits = Limits::new(&settings.limits, redis);
        let sockets = Sockets::new(&settings.sockets);
        Ok(Self {
            settings,
            programme,
            pool,
            cache,
            ranking,
            limits,
            flows,
            outcomes,
            authenticator,
            dev_issuer,
            own_issuer,
            passwords,
            sessions: OpenSessions::default(),
            sockets,
            readiness: Readiness::default(),
            metrics,
            under_way: UnderWay::default(),
            signing_keys,
        })
    }

    /// Keeps what this process keeps of the ranking until told to stop: in Redis, workers do.
    pub async fn keep_ranking(&self, stop: &CancellationToken) {
        if self.settings.redis.url.is_none() {
            self.ranking.keep(stop).await;
        }
    }

    /// Meed as an issuer.
    ///
    /// # Errors
    /// When the configuration has none: then its routes lead nowhere.
    pub fn own(&self) -> Result<&OwnIssuer, ApiError> {
        self.own_issuer
            .as_ref()
            .ok_or(ApiError::NotFound(Thing::Route))
    }

    /// Sessions that this process has ended do not count any more.
    pub fn sessions_ended(&self, sessions: &[Uuid]) {
        self.sessions.ended(sessions);
        self.sockets.sessions_ended(sessions);
    }

    /// The key that the merchant and Meed sign with.
    pub fn signing_key(&self, merchant: &str) -> Option<&[u8]> {
        let merchant = MerchantId::new(merchant).ok()?;
        self.signing_keys
            .get(&merchant)
            .map(|key| key.expose().as_bytes())
    }
}

fn ranking(settings: &Settings, pool: &PgPool, redis: Option<&Arc<Redis>>) -> Ranking {
    let options = Options {
        name: format!("api {} {}", settings.api.listen, Uuid::new_v4().simple()),
        poll: settings.ranking.poll(),
        max_lag: settings.ranking.max_lag(),
    };
    match redis {
        Some(redis) => Ranking::in_redis(pool.clone(), Arc::clone(redis), options),
        None => Ranking::embedded(pool.clone(), options),
    }
}
