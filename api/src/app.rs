//! What the handlers work with.

use std::{collections::HashMap, sync::Arc};

use activities::outcomes::Outcomes;
use boot::{Settings, settings::Secret};
use domain::MerchantId;
use metrics_exporter_prometheus::PrometheusHandle;
use store::PgPool;

use crate::{
    auth::{Authenticator, dev::DevIssuer},
    flows::Flows,
    idempotency::UnderWay,
    readiness::Readiness,
};

/// What the handlers work with. One for the process.
pub struct App {
    /// The configuration.
    pub settings: Arc<Settings>,
    /// The primary database.
    pub pool: PgPool,
    /// The flows.
    pub flows: Arc<dyn Flows>,
    /// Tells of redemptions that a step in this process has changed.
    pub outcomes: Outcomes,
    /// Checks tokens.
    pub authenticator: Authenticator,
    /// Makes tokens in the dev profile.
    pub dev_issuer: Option<DevIssuer>,
    /// Whether this process can take requests.
    pub readiness: Readiness,
    /// Renders the metrics, when they are collected.
    pub metrics: Option<PrometheusHandle>,
    /// Idempotency keys of requests under way.
    pub under_way: UnderWay,
    signing_keys: HashMap<MerchantId, Secret>,
}

impl App {
    /// Puts together what the configuration asks for.
    ///
    /// # Errors
    /// When an issuer's keys cannot be had from their file, or no HTTP client can be made.
    pub fn new(
        settings: Arc<Settings>,
        pool: PgPool,
        flows: Arc<dyn Flows>,
        outcomes: Outcomes,
        metrics: Option<PrometheusHandle>,
    ) -> anyhow::Result<Self> {
        let dev_issuer = settings
            .auth
            .dev_issuer()
            .map(|dev| DevIssuer::new(dev, &settings.api.public_url))
            .transpose()?;
        let authenticator = Authenticator::new(&settings, dev_issuer.as_ref())?;
        let signing_keys = settings
            .merchants
            .iter()
            .map(|(id, merchant)| (id.clone(), merchant.signing_key.clone()))
            .collect();
        Ok(Self {
            settings,
            pool,
            flows,
            outcomes,
            authenticator,
            dev_issuer,
            readiness: Readiness::default(),
            metrics,
            under_way: UnderWay::default(),
            signing_keys,
        })
    }

    /// The key that the merchant and Meed sign with.
    pub fn signing_key(&self, merchant: &str) -> Option<&[u8]> {
        let merchant = MerchantId::new(merchant).ok()?;
        self.signing_keys
            .get(&merchant)
            .map(|key| key.expose().as_bytes())
    }
}
