//! The stack of a run: fresh components, the services behind proxies, and how each is started.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use reqwest::Client;
use serde_json::Value;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use stack::{Plan, Progress, Service, Stack, Step};

use crate::merchants::{HURRIED_MS, MERCHANTS};
use crate::options::Options;
use crate::plan::LINKS;
use crate::planted;
use crate::proxy::Proxy;

/// How far the proxies' ports are from the first of the block.
const PROXY_OFFSET: u16 = 70;
/// The same for the second worker's port.
const SECOND_WORKER_OFFSET: u16 = 75;
/// The worker beside the one that the repository declares.
pub const SECOND_WORKER: &str = "worker-2";
/// Time limits of the run's own configuration, by table and name: short, so that a run sees them pass.
const LIMITS: [(&str, &str, i64); 7] = [
    ("redeem", "hold_ttl_seconds", 120),
    ("redeem", "confirm_within_seconds", 10),
    ("redeem", "callback_within_seconds", 15),
    ("redeem", "stale_after_seconds", 10),
    (
        "tier",
        "acknowledge_within_seconds",
        ACKNOWLEDGE_WITHIN_SECONDS,
    ),
    ("api", "drain_seconds", 3),
    ("worker", "drain_seconds", 3),
];
/// How long the acknowledgement of a tier upgrade may take in a run, in seconds.
pub const ACKNOWLEDGE_WITHIN_SECONDS: i64 = 6;

const A_YEAR: u32 = 365 * 24 * 3600;

/// The running system.
pub struct System {
    /// Its processes.
    pub stack: Arc<Stack>,
    /// What the repository says of them.
    pub plan: Plan,
    /// The proxies by what is behind them.
    pub proxies: HashMap<&'static str, Proxy>,
    /// The database, without a proxy.
    pub pool: PgPool,
    /// Kafka's address.
    pub brokers: String,
    /// The api's address.
    pub api: String,
    /// The merchants' address.
    pub partners: String,
    /// A client for both.
    pub http: Client,
    /// Variables of Meed's services beside those of the stack.
    pub env: Vec<(String, String)>,
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
        .to_owned()
}

/// The place of a run's data and logs.
pub fn data_dir(options: &Options) -> Result<PathBuf> {
    stack::places::data_dir(&repository(), options.port_base)
}

impl System {
    /// Builds, provisions and starts everything, with the services as they are in earnest.
    pub async fn start(options: &Options) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // First, as Kafka tells everybody to come to its proxy.
        let ports = Plan::load(&repository().join("dev.toml"))?.ports_at(options.port_base);
        let mut proxies = HashMap::new();
        for link in LINKS {
            let at = proxy_port(options, link)?;
            let target = SocketAddr::from(([127, 0, 0, 1], ports.get(link)?));
            let proxy = Proxy::start(at, target).await;
            proxies.insert(link, proxy.with_context(|| format!("port {at}"))?);
        }
        let asked = options.clone();
        let (stack, plan) = tokio::task::spawn_blocking(move || components(&asked)).await??;
        let env: HashMap<String, String> = stack.env().into_iter().collect();
        let known = |name: &str| {
            let value = env.get(name).cloned();
            value.with_context(|| format!("the stack has no {name}"))
        };
        let database_url = known("DATABASE_URL")?;
        let config = configuration(&plan.root, stack.data_dir())?;
        let own_port = format!(":{}/", ports.get("postgres")?);
        let mut own = vec![
            (
                "DATABASE_URL".to_owned(),
                database_url.replace(
                    &own_port,
                    &format!(":{}/", proxy_port(options, "postgres")?),
                ),
            ),
            (
                "TEMPORAL_ADDRESS".to_owned(),
                format!("127.0.0.1:{}", proxy_port(options, "temporal")?),
            ),
            (
                "PARTNERS_URL".to_owned(),
                format!("http://127.0.0.1:{}", proxy_port(options, "partners")?),
            ),
            (
                "KAFKA_BROKERS".to_owned(),
                format!("127.0.0.1:{}", proxy_port(options, "kafka")?),
            ),
            ("MEED_CONFIG".to_owned(), config.display().to_string()),
            ("MEED_PROFILE".to_owned(), "dev".to_owned()),
            ("RUST_BACKTRACE".to_owned(), "0".to_owned()),
        ];
        own.extend(options.env.iter().cloned());
        let pool = PgPoolOptions::new()
            .max_connections(3)
            .connect(&database_url)
            .await?;
        if let Some(bug) = options.planted.as_deref().and_then(planted::named) {
            own.push(("MEED_PLANTED_BUG".to_owned(), bug.name.to_owned()));
            sqlx::raw_sql(bug.sql).execute(&pool).await?;
        }
        let system = Self {
            pool,
            brokers: known("KAFKA_BROKERS")?,
            api: known("MEED_API_URL")?,
            partners: format!("http://127.0.0.1:{}", ports.get("partners")?),
            http: Client::builder()
                .timeout(std::time::Duration::from_secs(8))
                .build()?,
            env: own,
            stack: Arc::new(stack),
            plan,
            proxies,
        };
        for name in ["partners", "worker", SECOND_WORKER, "api"] {
            let service = system.service(name, &[])?;
            let stack = Arc::clone(&system.stack);
            tokio::task::spawn_blocking(move || stack.start_service(service)).await??;
        }
        for merchant in MERCHANTS {
            system
                .tell_merchant(merchant.id, &merchant.settings())
                .await?;
        }
        Ok(system)
    }

    /// A service as the repository declares it, behind the proxies, with these variables more.
    pub fn service(&self, name: &str, env: &[(String, String)]) -> Result<Service> {
        let is_second = name == SECOND_WORKER;
        let declared = if is_second { "worker" } else { name };
        let stack = &self.stack;
        let mut service = self.plan.service(declared, stack.ports(), &stack.env())?;
        service.env.extend(self.env.iter().chain(env).cloned());
        if is_second {
            let port = stack.ports().base() + SECOND_WORKER_OFFSET;
            let at = format!("127.0.0.1:{port}");
            service.ready_url = Some(format!("http://{at}/health/ready"));
            service.env.push(("MEED_WORKER_LISTEN".to_owned(), at));
            service.port = Some(port);
            SECOND_WORKER.clone_into(&mut service.name);
        }
        Ok(service)
    }

    /// Tells a simulated merchant how to behave.
    pub async fn tell_merchant(&self, merchant: &str, settings: &Value) -> Result<()> {
        let url = format!("{}/control/merchants/{merchant}", self.partners);
        let answer = self.http.put(url).json(settings).send().await?;
        answer.error_for_status()?;
        Ok(())
    }

    /// A token of the dev profile.
    pub async fn token(&self, subject: &str, scope: &str) -> Result<String> {
        let url = format!("{}/dev/token", self.api);
        let query = [("sub", subject), ("scope", scope)];
        let answer = self.http.get(url).query(&query).send().await?;
        let answer: Value = answer.error_for_status()?.json().await?;
        let token = answer["access_token"].as_str();
        Ok(token.context("no token in the answer")?.to_owned())
    }
}

/// Builds Meed's programs.
pub fn build() -> Result<()> {
    let root = repository();
    let plan = Plan::load(&root.join("dev.toml"))?;
    run(&plan.build, &root, &[])
}

/// The port of the proxy in front of this.
fn proxy_port(options: &Options, link: &str) -> Result<u16> {
    let (_, offset) = LINKS
        .into_iter()
        .zip(PROXY_OFFSET..)
        .find(|(name, _)| *name == link)
        .context("no such link")?;
    Ok(options.port_base + offset)
}

fn components(options: &Options) -> Result<(Stack, Plan)> {
    let root = repository();
    let plan = Plan::load(&root.join("dev.toml"))?;
    if !options.no_build {
        run(&plan.build, &root, &[])?;
    }
    let stack = Stack::builder()
        .plan(plan.clone())
        .ports(options.port_base)
        .kafka_reached_at(proxy_port(options, "kafka")?)
        .data_dir(data_dir(options)?)
        .progress(Progress::quiet())
        .fresh()
        .start()?;
    let config = configuration(&plan.root, stack.data_dir())?;
    let mut env = stack.env();
    env.push(("MEED_CONFIG".to_owned(), config.display().to_string()));
    // Nothing may be repaired behind the oracle's back.
    env.push((
        "MEED_RECONCILE_EVERY_SECONDS".to_owned(),
        A_YEAR.to_string(),
    ));
    for step in &plan.prepare {
        run(step, &root, &env)?;
    }
    Ok((stack, plan))
}

fn run(step: &Step, root: &Path, env: &[(String, String)]) -> Result<()> {
    let program = if step.command[0].contains('/') {
        root.join(&step.command[0])
    } else {
        PathBuf::from(&step.command[0])
    };
    let task = Progress::quiet().task(&step.name);
    let mut command = Command::new(program);
    command
        .args(&step.command[1..])
        .envs(env.iter().cloned())
        .current_dir(root);
    stack::command::run(&task, &mut command, None)?;
    task.done("");
    Ok(())
}

/// A line of the configuration in which a variable that stands for a whole number has its default,
/// so that it is TOML before it is filled in.
fn with_default(line: &str) -> String {
    let number = line.split_once("= ${").and_then(|(name, rest)| {
        let (variable, rest) = rest.split_once('}')?;
        let (_, default) = variable.split_once(":-")?;
        Some(format!("{name}= {default}{rest}"))
    });
    number.unwrap_or_else(|| line.to_owned())
}

/// The repository's configuration with the run's merchants and short limits.
fn configuration(root: &Path, data_dir: &Path) -> Result<PathBuf> {
    let text = std::fs::read_to_string(root.join("meed.toml"))?;
    let lines: Vec<String> = text.lines().map(with_default).collect();
    let mut config: toml::Table = toml::from_str(&lines.join("\n"))?;
    let mut set = |table: &str, name: &str, value: toml::Value| {
        let table = config
            .entry(table)
            .or_insert_with(|| toml::Table::new().into());
        if let Some(table) = table.as_table_mut() {
            table.insert(name.to_owned(), value);
        }
    };
    for (table, name, value) in LIMITS {
        set(table, name, value.into());
    }
    let programme = root.join("programme.toml").display().to_string();
    set("programme", "file", programme.into());
    let mut merchants = toml::Table::new();
    for merchant in MERCHANTS {
        let mut entry = toml::Table::new();
        let base = format!("${{PARTNERS_URL}}/merchants/{}", merchant.id);
        entry.insert("base_url".to_owned(), base.into());
        let key = format!("dev-key-{}", merchant.id);
        entry.insert("signing_key".to_owned(), key.into());
        if merchant.hurried {
            let within = i64::try_from(HURRIED_MS)?;
            entry.insert("confirm_within_ms".to_owned(), within.into());
            entry.insert("callback_within_ms".to_owned(), within.into());
            // Its failures are what it is for.
            entry.insert("failure_threshold".to_owned(), 1_000.into());
        }
        merchants.insert(merchant.id.to_owned(), entry.into());
    }
    config.insert("merchants".to_owned(), merchants.into());
    let path = data_dir.join("meed.toml");
    std::fs::write(&path, toml::to_string(&config)?)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_the_repository_can_be_changed() {
        let dir = std::env::temp_dir().join(format!("chaos-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = configuration(&repository(), &dir).unwrap();
        let config: toml::Table = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(
            config["tier"]["acknowledge_within_seconds"].as_integer(),
            Some(6)
        );
        assert_eq!(
            config["merchants"].as_table().unwrap().len(),
            MERCHANTS.len()
        );
        assert!(
            config["database"]["url"]
                .as_str()
                .unwrap()
                .contains("${DATABASE_URL")
        );
    }
}
