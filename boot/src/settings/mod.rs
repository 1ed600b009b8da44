//! The configuration of every process: one TOML file, named by `MEED_CONFIG`.
//!
//! Each field says what it is for; `meed.toml` at the root of the repository is the one of the dev
//! profile. A file with faults is refused, and every fault is told with its line and the reason.

mod auth;
mod cache;
mod expand;
mod faults;
mod grpc;
mod kafka;
mod limits;
mod promotions;
mod ranking;
mod sockets;
mod telemetry;
#[cfg(test)]
mod tests;
mod value;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use domain::MerchantId;
use ipnet::IpNet;
use serde::Deserialize;
use workflows::redeem::RedeemLimits;

pub use auth::{KeysSettings, OwnIssuer, OwnKeys, PasswordSettings, ThrottleSettings};
pub use cache::{CacheSettings, RedisSettings};
pub use grpc::{GrpcSettings, GrpcTls};
pub use kafka::{KafkaCertificate, KafkaSasl, KafkaSettings, KafkaTls, ScramMechanism};
pub use limits::{ClassLimits, LimitsSettings};
pub use promotions::PromotionSettings;
pub use ranking::RankingSettings;
pub use sockets::SocketSettings;
pub use telemetry::{LogFormat, TelemetrySettings};
pub use value::{BUILT_IN_MERCHANT, Secret};

/// The environment variable with the path of the configuration file.
pub const CONFIG_VARIABLE: &str = "MEED_CONFIG";
/// The configuration file when the variable is not set.
pub const CONFIG_DEFAULT: &str = "meed.toml";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// There is no such file, or it cannot be read.
    #[error("{file} cannot be read: {source}; {CONFIG_VARIABLE} names the configuration file")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// Something in it is wrong: everything that is, in the order of the file.
    #[error("{}", told(file, faults))]
    Wrong {
        /// The file.
        file: String,
        /// What is wrong.
        faults: Vec<Fault>,
    },
}

/// Something that is wrong in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters, after variables were put in.
    pub column: usize,
    /// What is wrong there.
    pub reason: String,
}

/// One line for each fault.
fn told(file: &str, faults: &[Fault]) -> String {
    let lines = faults.iter().map(|fault| {
        let Fault {
            line,
            column,
            reason,
        } = fault;
        format!("{file}, line {line}, column {column}: {reason}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A variable of the environment, or the content of the file that `NAME_FILE` names: where secrets
/// are mounted as files. Nothing when neither is set.
///
/// # Errors
/// When both are set, or the file cannot be read.
pub fn variable(name: &str) -> Result<Option<String>, String> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let file_variable = format!("{name}_FILE");
    match (set(name), set(&file_variable)) {
        (Some(_), Some(_)) => Err(format!("both {name} and {file_variable} are set")),
        (value, None) => Ok(value),
        (None, Some(file)) => std::fs::read_to_string(&file)
            .map(|text| Some(text.trim_end_matches(['\n', '\r']).to_owned()))
            .map_err(|error| {
                format!("{file_variable} names {file}, which cannot be read: {error}")
            }),
    }
}

/// For whom the system runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// For people who work on it: readable logs, and tokens for the asking.
    Dev,
    /// For everybody else.
    Production,
}

/// The whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// For whom it runs.
    pub profile: Profile,
    /// The ledger's database.
    pub database: DatabaseSettings,
    /// The Temporal cluster.
    pub temporal: TemporalSettings,
    /// The Kafka cluster.
    pub kafka: KafkaSettings,
    /// The HTTP API.
    pub api: ApiSettings,
    /// What other services of the house ask for.
    #[serde(default)]
    pub grpc: GrpcSettings,
    /// The worker.
    pub worker: WorkerSettings,
    /// What operators may see of customers.
    pub visibility: VisibilitySettings,
    /// The rules.
    pub programme: ProgrammeSettings,
    /// Redemptions.
    #[serde(default)]
    pub redeem: RedeemSettings,
    /// Tier upgrades.
    #[serde(default)]
    pub tier: TierSettings,
    /// Promotions.
    #[serde(default)]
    pub promotions: PromotionSettings,
    /// Reconciliation.
    #[serde(default)]
    pub reconcile: ReconcileSettings,
    /// Copies of balances.
    #[serde(default)]
    pub cache: CacheSettings,
    /// What replicas of the API share.
    #[serde(default)]
    pub redis: RedisSettings,
    /// Who has earned most.
    #[serde(default)]
    pub ranking: RankingSettings,
    /// How much is taken from one client, and at once.
    #[serde(default)]
    pub limits: LimitsSettings,
    /// WebSockets.
    #[serde(default)]
    pub sockets: SocketSettings,
    /// Logs and traces.
    #[serde(default)]
    pub telemetry: TelemetrySettings,
    /// Who may do what.
    pub auth: AuthSettings,
    /// The services that tier upgrades ask.
    pub services: ServicesSettings,
    /// The merchants, by id.
    #[serde(default, deserialize_with = "value::merchants")]
    pub merchants: BTreeMap<MerchantId, MerchantSettings>,
    /// The directory of the file, to which paths in it are relative.
    #[serde(skip)]
    directory: PathBuf,
}

/// `[database]`: the primary that decides everything.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// Its address, `postgres://user:password@host:port/database`.
    pub url: Secret,
    /// How many connections a process may hold.
    #[serde(default = "default_connections", deserialize_with = "value::count")]
    pub max_connections: u32,
    /// How long a statement may take, in seconds.
    #[serde(
        default = "default_statement_seconds",
        deserialize_with = "value::positive"
    )]
    pub statement_timeout_seconds: u64,
    /// How long a statement may wait for a lock, in seconds.
    #[serde(default = "default_lock_seconds", deserialize_with = "value::positive")]
    pub lock_timeout_seconds: u64,
}

fn default_connections() -> u32 {
    16
}

fn default_statement_seconds() -> u64 {
    20
}

fn default_lock_seconds() -> u64 {
    5
}

/// `[temporal]`. TLS, keys and metadata come from `TEMPORAL_*` variables and `temporal.toml`, as
/// for every client of Temporal.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemporalSettings {
    /// Its address, `host:port`.
    #[serde(deserialize_with = "value::text")]
    pub address: String,
    /// The namespace of every flow.
    #[serde(deserialize_with = "value::text")]
    pub namespace: String,
    /// Where operators' browsers reach its Web UI, for links to it; empty for none.
    #[serde(default, deserialize_with = "value::http_url_if_given")]
    pub ui_url: Option<String>,
    /// Whether flows that take long stay with the version that began them. Each release is then
    /// promoted with `meed temporal promote`; without it new ones do not begin.
    #[serde(default)]
    pub pin_long_flows: bool,
    /// What Temporal keeps of flows is encrypted with the first of these keys and decrypted with
    /// any, each `id:base64`, separated by commas; it is not encrypted when there is none.
    #[serde(default, deserialize_with = "value::payload_keys")]
    pub payload_keys: Option<Secret>,
}

/// `[api]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiSettings {
    /// Where it listens, `address:port`.
    pub listen: SocketAddr,
    /// Under which address clients and partners reach it.
    #[serde(deserialize_with = "value::http_url")]
    pub public_url: String,
    /// The proxies in front of it, as networks such as `10.0.0.0/8`. What they say in
    /// `X-Forwarded-For` is believed; what anybody else says there is not.
    #[serde(default)]
    pub trusted_proxies: Vec<IpNet>,
    /// The origins, such as `https://app.example`, whose pages may call it from a browser (CORS).
    #[serde(default, deserialize_with = "value::origins")]
    pub cors_origins: Vec<String>,
    /// How long an accepted redemption is waited for before the answer is given, in milliseconds.
    #[serde(
        default = "default_outcome_wait_ms",
        deserialize_with = "value::not_negative"
    )]
    pub outcome_wait_ms: u64,
    /// How long a client may wait for a redemption's end, in seconds.
    #[serde(
        default = "default_max_wait_seconds",
        deserialize_with = "value::positive"
    )]
    pub max_wait_seconds: u64,
    /// How long an idempotency key is kept, in hours.
    #[serde(
        default = "default_idempotency_hours",
        deserialize_with = "value::positive"
    )]
    pub idempotency_ttl_hours: u64,
    /// How long requests are still taken after a signal to stop, in seconds. Readiness answers 503 meanwhile, so that
    /// whoever spreads the load looks elsewhere before connections are refused: longer than it takes to notice.
    #[serde(default, deserialize_with = "value::not_negative")]
    pub drain_pause_seconds: u64,
    /// How long requests and steps under way may take to end after that, in seconds.
    #[serde(
        default = "default_drain_seconds",
        deserialize_with = "value::positive"
    )]
    pub drain_seconds: u64,
}

fn default_outcome_wait_ms() -> u64 {
    300
}

fn default_max_wait_seconds() -> u64 {
    30
}

fn default_idempotency_hours() -> u64 {
    24
}

fn default_drain_seconds() -> u64 {
    10
}

fn every_task_queue() -> Vec<&'static str> {
    workflows::id::WORKER_TASK_QUEUES.into()
}

/// `[worker]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerSettings {
    /// Where its health and metrics are served, `address:port`.
    pub listen: SocketAddr,
    /// The task queues it works on, separated by commas in the file; all when it names none. Who
    /// works on `award` reads Kafka.
    #[serde(default = "every_task_queue", deserialize_with = "value::task_queues")]
    pub task_queues: Vec<&'static str>,
    /// How long steps under way may take to end after a signal to stop, in seconds.
    #[serde(
        default = "default_drain_seconds",
        deserialize_with = "value::positive"
    )]
    pub drain_seconds: u64,
    /// The intake.
    #[serde(default)]
    pub intake: IntakeSettings,
    /// The outbox.
    #[serde(default)]
    pub outbox: OutboxSettings,
    /// How long other records are kept.
    #[serde(default)]
    pub keep: KeepSettings,
}

/// `[worker.intake]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IntakeSettings {
    /// The most messages in one award batch.
    #[serde(deserialize_with = "value::count")]
    pub max_batch: u32,
}

impl Default for IntakeSettings {
    fn default() -> Self {
        Self { max_batch: 500 }
    }
}

/// `[worker.outbox]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboxSettings {
    /// How long messages are kept after they were published, in days.
    #[serde(deserialize_with = "value::days_kept")]
    pub keep_published_days: u64,
}

impl Default for OutboxSettings {
    fn default() -> Self {
        Self {
            keep_published_days: 35,
        }
    }
}

impl OutboxSettings {
    /// How long messages are kept after they were published.
    pub const fn keep_published(&self) -> Duration {
        Duration::from_secs(self.keep_published_days * 86_400)
    }
}

/// `[worker.keep]`: what is removed after a while, beside the outbox.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeepSettings {
    /// How long it is remembered which messages were refused, in days: longer than Kafka keeps dead
    /// letters.
    #[serde(deserialize_with = "value::days_kept")]
    pub dead_letters_days: u64,
    /// How long findings of reconciliation are kept after they have ended, in days.
    #[serde(deserialize_with = "value::days_kept")]
    pub settled_findings_days: u64,
    /// How long notifications are kept after they were read, in days. Unread ones are kept.
    #[serde(deserialize_with = "value::days_kept")]
    pub read_notifications_days: u64,
}

impl Default for KeepSettings {
    fn default() -> Self {
        Self {
            dead_letters_days: 400,
            settled_findings_days: 90,
            read_notifications_days: 90,
        }
    }
}

impl KeepSettings {
    /// How long it is remembered which messages were refused.
    pub const fn dead_letters(&self) -> Duration {
        Duration::from_secs(self.dead_letters_days * 86_400)
    }

    /// How long findings are kept after they have ended.
    pub const fn settled_findings(&self) -> Duration {
        Duration::from_secs(self.settled_findings_days * 86_400)
    }

    /// How long notifications are kept after they were read.
    pub const fn read_notifications(&self) -> Duration {
        Duration::from_secs(self.read_notifications_days * 86_400)
    }
}

/// `[visibility]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisibilitySettings {
    /// The key of the hash that stands for a customer in Temporal's lists.
    pub customer_key: Secret,
}

/// `[programme]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgrammeSettings {
    /// The rules, relative to the configuration file.
    pub file: PathBuf,
}

/// `[redeem]`: time limits, of which a merchant may have its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedeemSettings {
    /// How long points may be held, in seconds.
    #[serde(deserialize_with = "value::positive")]
    pub hold_ttl_seconds: u64,
    /// How long a merchant is asked to confirm, in seconds.
    #[serde(deserialize_with = "value::positive")]
    pub confirm_within_seconds: u64,
    /// How long a promised callback may take, in seconds.
    #[serde(deserialize_with = "value::positive")]
    pub callback_within_seconds: u64,
    /// How long the first, quick attempt may take, in milliseconds, at most 300; 0 for none.
    #[serde(deserialize_with = "value::quick_attempt")]
    pub quick_attempt_ms: u64,
    /// After how many seconds a QUEUED redemption is started again.
    #[serde(deserialize_with = "value::positive")]
    pub requeue_after_seconds: u64,
    /// After how many seconds without a change a redemption is looked at again.
    #[serde(deserialize_with = "value::positive")]
    pub stale_after_seconds: u64,
}

impl Default for RedeemSettings {
    fn default() -> Self {
        Self {
            hold_ttl_seconds: 900,
            confirm_within_seconds: 30,
            callback_within_seconds: 300,
            quick_attempt_ms: 250,
            requeue_after_seconds: 4,
            stale_after_seconds: 60,
        }
    }
}

/// `[tier]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TierSettings {
    /// How long the acknowledgement of a tier upgrade may take, in seconds.
    #[serde(deserialize_with = "value::positive")]
    pub acknowledge_within_seconds: u64,
    /// After how many seconds an upgrade that has not ended is looked at again. Those that wait for
    /// their acknowledgement are asked after in vain when this is shorter than that.
    #[serde(deserialize_with = "value::positive")]
    pub stale_after_seconds: u64,
}

impl Default for TierSettings {
    fn default() -> Self {
        Self {
            acknowledge_within_seconds: 300,
            stale_after_seconds: 360,
        }
    }
}

/// `[reconcile]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReconcileSettings {
    /// How often the books are compared, in seconds; `meed temporal apply` puts it into force.
    #[serde(deserialize_with = "value::positive")]
    pub every_seconds: u64,
    /// How many redemptions a second merchants are asked about.
    #[serde(deserialize_with = "value::count")]
    pub partner_requests_per_second: u32,
}

impl Default for ReconcileSettings {
    fn default() -> Self {
        Self {
            every_seconds: 900,
            partner_requests_per_second: 20,
        }
    }
}

/// A signature algorithm of tokens. Symmetric ones are not among them: who can check such a token
/// can also make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum TokenAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// ECDSA on P-256.
    ES256,
    /// ECDSA on P-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

/// `[auth]`: whose tokens count.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthSettings {
    /// The issuers.
    #[serde(default)]
    pub issuers: Vec<Issuer>,
    /// The signature algorithms that are accepted.
    pub algorithms: Vec<TokenAlgorithm>,
    /// How far the clocks of issuers may be off, in seconds.
    #[serde(default = "default_clock_skew", deserialize_with = "value::clock_skew")]
    pub clock_skew_seconds: u64,
    /// How their keys are kept.
    #[serde(default)]
    pub keys: KeysSettings,
    /// Meed as an issuer.
    #[serde(default)]
    pub own: Option<OwnIssuer>,
    /// What hashes of passwords and secrets cost.
    #[serde(default)]
    pub passwords: PasswordSettings,
    /// How often may be guessed.
    #[serde(default)]
    pub throttle: ThrottleSettings,
    /// The issuer for people who work on Meed.
    #[serde(default)]
    pub dev: Option<DevIssuer>,
}

fn default_clock_skew() -> u64 {
    30
}

/// One issuer of tokens.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "IssuerTable")]
pub struct Issuer {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The `aud` that its tokens must have.
    pub audience: String,
    /// Where its keys are.
    pub keys: KeySource,
    /// Whom a token of it stands for that has no roles.
    pub without_roles: WithoutRoles,
}

/// Whom a token without roles stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WithoutRoles {
    /// A customer, who reaches only their own data: an issuer may keep its roles elsewhere.
    #[default]
    Player,
    /// A client, which reaches every customer, as far as its scopes and merchants go.
    Client,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Where the issuer's own description says: `<issuer>/.well-known/openid-configuration`.
    Discovery,
    /// A JWKS document at an address.
    Url(String),
    /// A JWKS document in a file, relative to the configuration file.
    File(PathBuf),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerTable {
    #[serde(deserialize_with = "value::text")]
    issuer: String,
    #[serde(deserialize_with = "value::text")]
    audience: String,
    jwks_url: Option<String>,
    jwks_file: Option<PathBuf>,
    #[serde(default)]
    without_roles: WithoutRoles,
}

impl TryFrom<IssuerTable> for Issuer {
    type Error = String;

    fn try_from(table: IssuerTable) -> Result<Self, String> {
        let keys = match (table.jwks_url, table.jwks_file) {
            (Some(url), None) => KeySource::Url(url),
            (None, Some(file)) => KeySource::File(file),
            (None, None) => KeySource::Discovery,
            (Some(_), Some(_)) => {
                return Err("an issuer has either jwks_url or jwks_file, or neither".to_owned());
            }
        };
        let addresses = match &keys {
            KeySource::Url(url) => Some(url),
            KeySource::Discovery => Some(&table.issuer),
            KeySource::File(_) => None,
        };
        if let Some(address) = addresses.filter(|address| !value::is_http_url(address)) {
            return Err(format!(
                "{address:?} is not an http:// or https:// address, so no keys can be had there"
            ));
        }
        Ok(Self {
            issuer: table.issuer,
            audience: table.audience,
            keys,
            without_roles: table.without_roles,
        })
    }
}

/// `[auth.dev]`: the issuer behind `/dev/token`, refused outside the dev profile.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevIssuer {
    enabled: bool,
    /// What its signing key is derived from.
    pub signing_seed: Secret,
    /// The `aud` of its tokens.
    #[serde(deserialize_with = "value::text")]
    pub audience: String,
    /// How long its tokens are valid, in seconds.
    #[serde(
        default = "default_token_seconds",
        deserialize_with = "value::positive"
    )]
    pub token_ttl_seconds: u64,
}

fn default_token_seconds() -> u64 {
    43_200
}

impl AuthSettings {
    /// The dev issuer, when it is turned on.
    pub fn dev_issuer(&self) -> Option<&DevIssuer> {
        self.dev.as_ref().filter(|dev| dev.enabled)
    }
}

/// `[services]`: what tier upgrades ask.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicesSettings {
    /// Base address of the Product Service.
    #[serde(deserialize_with = "value::http_url")]
    pub product_url: String,
    /// Base address of the Product Search Service.
    #[serde(deserialize_with = "value::http_url")]
    pub search_url: String,
    /// Base address of the Order Service.
    #[serde(deserialize_with = "value::http_url")]
    pub orders_url: String,
    /// The secret that requests to the Order Service are signed with (HS256).
    pub orders_jwt_secret: Secret,
    /// How long one request may take, in milliseconds.
    #[serde(
        default = "default_service_timeout_ms",
        deserialize_with = "value::positive"
    )]
    pub timeout_ms: u64,
}

fn default_service_timeout_ms() -> u64 {
    2_000
}

/// `[merchants.ID]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MerchantSettings {
    /// Base address of its partner protocol.
    #[serde(deserialize_with = "value::http_url")]
    pub base_url: String,
    /// The key that both sides sign with.
    pub signing_key: Secret,
    /// How long it is asked to confirm, in milliseconds, where that differs from `[redeem]`.
    #[serde(default, deserialize_with = "value::positive_if_given")]
    pub confirm_within_ms: Option<u64>,
    /// How long its promised callback may take, in milliseconds, where that differs.
    #[serde(default, deserialize_with = "value::positive_if_given")]
    pub callback_within_ms: Option<u64>,
    /// How many requests to it may be under way at once in one process.
    #[serde(default = "default_max_concurrent", deserialize_with = "value::count")]
    pub max_concurrent: u32,
    /// After how many failures in a row it is left alone for a while.
    #[serde(
        default = "default_failure_threshold",
        deserialize_with = "value::count"
    )]
    pub failure_threshold: u32,
}

fn default_max_concurrent() -> u32 {
    16
}

fn default_failure_threshold() -> u32 {
    5
}

fn fault_at(text: &str, found: &faults::Found) -> Fault {
    let before = text.get(..found.span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Fault {
        line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        reason: found.reason.trim().replace('\n', "; "),
    }
}

impl Settings {
    /// The file that `MEED_CONFIG` names.
    pub fn file() -> PathBuf {
        std::env::var_os(CONFIG_VARIABLE)
            .filter(|path| !path.is_empty())
            .map_or_else(|| PathBuf::from(CONFIG_DEFAULT), PathBuf::from)
    }

    /// Reads the file that `MEED_CONFIG` names.
    ///
    /// # Errors
    /// [`SettingsError`] with the line and the reason of everything that is wrong.
    pub fn load() -> Result<Self, SettingsError> {
        Self::read(&Self::file())
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`SettingsError`] with the line and the reason of everything that is wrong.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Unreadable {
            file: path.display().to_string(),
            source,
        })?;
        Self::parse(path, &text, variable)
    }

    /// Reads the text of a file; `path` is for messages and as the place of relative paths.
    ///
    /// # Errors
    /// [`SettingsError`] with the line and the reason of everything that is wrong.
    pub fn parse(
        path: &Path,
        text: &str,
        variable: impl Fn(&str) -> Result<Option<String>, String>,
    ) -> Result<Self, SettingsError> {
        let expanded = expand::expand(text, variable);
        let mut faults: Vec<Fault> = expanded
            .errors
            .iter()
            .map(|error| Fault {
                line: error.line,
                column: error.column,
                reason: error.reason.clone(),
            })
            .collect();
        let unfilled: BTreeSet<usize> = faults.iter().map(|fault| fault.line).collect();
        let read = faults::read(&expanded.text, &expanded.from_variables);
        let found = read.as_ref().err().into_iter().flatten();
        // What seems wrong where a variable is missing comes from that.
        faults.extend(
            found
                .map(|found| fault_at(&expanded.text, found))
                .filter(|fault| !unfilled.contains(&fault.line)),
        );
        match read {
            Ok(mut settings) if faults.is_empty() => {
                settings.directory = path.parent().map(Path::to_path_buf).unwrap_or_default();
                settings.kafka.relative_to(&settings.directory);
                Ok(settings)
            }
            _ => {
                faults.sort_by_key(|fault| (fault.line, fault.column));
                Err(SettingsError::Wrong {
                    file: path.display().to_string(),
                    faults,
                })
            }
        }
    }

    /// A path of the configuration, which is relative to its file.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }

    /// The file with the rules.
    pub fn programme_file(&self) -> PathBuf {
        self.path(&self.programme.file)
    }

    /// The time limits of a redemption at a merchant.
    pub fn redeem_limits(&self, merchant: &MerchantId) -> RedeemLimits {
        let merchant = self.merchants.get(merchant);
        let redeem = &self.redeem;
        RedeemLimits {
            hold_ttl_ms: redeem.hold_ttl_seconds * 1_000,
            confirm_within_ms: merchant
                .and_then(|merchant| merchant.confirm_within_ms)
                .unwrap_or(redeem.confirm_within_seconds * 1_000),
            callback_within_ms: merchant
                .and_then(|merchant| merchant.callback_within_ms)
                .unwrap_or(redeem.callback_within_seconds * 1_000),
            quick_attempt_ms: redeem.quick_attempt_ms,
        }
    }

    /// How long the acknowledgement of a tier upgrade may take.
    pub fn acknowledge_within(&self) -> Duration {
        Duration::from_secs(self.tier.acknowledge_within_seconds)
    }
}
