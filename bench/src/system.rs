//! The stack of a measurement: fresh components, Meed's programs as they are deployed, and the
//! repository's own configuration with merchants whose bulkhead is wide enough to be loaded.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use boot::Settings;
use reqwest::Client;
use serde_json::Value;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use stack::{Plan, Progress, Service, Stack, Step};

use crate::options::Options;
use crate::sampling::Sampler;

/// Where programs are built as they are deployed.
const RELEASE: &str = "target/release/";
/// Where the plan has them.
const DEBUG: &str = "target/debug/";
/// How the plan creates topics.
const APPLY_TOPICS: [&str; 2] = ["topics", "apply"];
/// How often the books are compared: not while something is measured.
const WEEK_SECONDS: u64 = 604_800;
/// A merchant that confirms at once and takes as many requests as come.
pub const MERCHANT: &str = "WIDE";

/// The running system.
pub struct System {
    /// Its processes.
    pub stack: Arc<Stack>,
    /// What the repository says of them, with the programs as they are deployed.
    pub plan: Plan,
    /// The database.
    pub pool: PgPool,
    /// Kafka's address.
    pub brokers: String,
    /// The api's address.
    pub api: String,
    /// The merchants' address.
    pub partners: String,
    /// The configuration that the services have.
    pub settings: Settings,
    /// A client.
    pub http: Client,
    /// Variables of Meed's services beside those of the stack.
    env: Vec<(String, String)>,
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
        .to_owned()
}

impl System {
    /// Starts fresh components, prepares them, and starts none of Meed's services.
    ///
    /// # Errors
    /// When something cannot be started.
    pub async fn start(options: &Options) -> Result<Self> {
        Self::begin(options, None).await
    }

    /// The same with so many partitions of every topic.
    ///
    /// # Errors
    /// When something cannot be started.
    pub async fn with_partitions(options: &Options, partitions: usize) -> Result<Self> {
        Self::begin(options, Some(partitions)).await
    }

    async fn begin(options: &Options, partitions: Option<usize>) -> Result<Self> {
        let asked = options.clone();
        let components = move || components(&asked, partitions);
        let (stack, plan) = tokio::task::spawn_blocking(components).await??;
        let known: HashMap<String, String> = stack.env().into_iter().collect();
        let of_stack = |name: &str| {
            let value = known.get(name).cloned();
            value.with_context(|| format!("the stack has no {name}"))
        };
        let config = configuration(&plan.root, stack.data_dir())?;
        let env = own_env(&config);
        let look_up = |name: &str| {
            let own = env.iter().find(|(known, _)| known == name);
            let own = own.map(|(_, value)| value.clone());
            Ok(own.or_else(|| known.get(name).cloned()))
        };
        let settings = Settings::parse(&config, &std::fs::read_to_string(&config)?, look_up)?;
        let pool = PgPoolOptions::new()
            .max_connections(16)
            .connect(&of_stack("DATABASE_URL")?)
            .await?;
        let partners = stack.ports().get("partners")?;
        Ok(Self {
            pool,
            brokers: of_stack("KAFKA_BROKERS")?,
            api: of_stack("MEED_API_URL")?,
            partners: format!("http://127.0.0.1:{partners}"),
            settings,
            http: Client::new(),
            env,
            stack: Arc::new(stack),
            plan,
        })
    }

    /// Starts a service as the repository declares it, such as `worker`, `worker-2` or `api`,
    /// with these variables more, and waits until it serves.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start_service(&self, name: &str, env: &[(&str, &str)]) -> Result<()> {
        let mut service: Service =
            self.plan
                .service(name, self.stack.ports(), &self.stack.env())?;
        service.env.extend(self.env.iter().cloned());
        let more = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        service.env.extend(more);
        let stack = Arc::clone(&self.stack);
        tokio::task::spawn_blocking(move || stack.start_service(service)).await?
    }

    /// Starts a service that is not the repository's, with the variables of those that are.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start_other(&self, mut service: Service) -> Result<()> {
        service.env.extend(self.env.iter().cloned());
        let stack = Arc::clone(&self.stack);
        tokio::task::spawn_blocking(move || stack.start_service(service)).await?
    }

    /// Writes the configuration of the services anew with other settings: in which line each stands
    /// now, and what stands there instead. The file is for `MEED_CONFIG`.
    ///
    /// # Errors
    /// When there is no such line, or it cannot be written.
    pub fn configured(&self, name: &str, instead: &[(&str, &str)]) -> Result<PathBuf> {
        let directory = self.stack.data_dir();
        let mut text = std::fs::read_to_string(directory.join("meed.toml"))?;
        for (now, other) in instead {
            ensure!(text.contains(now), "meed.toml does not say `{now}`");
            text = text.replacen(now, other, 1);
        }
        let path = directory.join(format!("meed-{name}.toml"));
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Stops a service.
    ///
    /// # Errors
    /// When it does not run or does not end.
    pub async fn stop_service(&self, name: &str) -> Result<()> {
        let (stack, name) = (Arc::clone(&self.stack), name.to_owned());
        tokio::task::spawn_blocking(move || stack.stop(&name)).await?
    }

    /// Begins to watch what every running process uses, and this one, as `bench`.
    ///
    /// # Errors
    /// When it cannot be told what runs.
    pub fn watch(&self) -> Result<Sampler> {
        let running = self.stack.status()?.into_iter();
        let mut roots: Vec<(String, i32)> = running
            .filter_map(|status| Some((status.name, status.pid?)))
            .collect();
        roots.push(("bench".to_owned(), i32::try_from(std::process::id())?));
        Ok(Sampler::start(roots))
    }

    /// A token of the dev profile, for a subject with a scope.
    ///
    /// # Errors
    /// When the api does not give one.
    pub async fn token(&self, subject: &str, scope: &str) -> Result<String> {
        let url = format!("{}/dev/token", self.api);
        let query = [("sub", subject), ("scope", scope)];
        let answer = self.http.get(url).query(&query).send().await?;
        let answer: Value = answer.error_for_status()?.json().await?;
        let token = answer["access_token"].as_str();
        Ok(token.context("no token in the answer")?.to_owned())
    }
}

fn own_env(config: &Path) -> Vec<(String, String)> {
    let own = [
        ("MEED_CONFIG", config.display().to_string()),
        ("MEED_PROFILE", "dev".to_owned()),
        ("RUST_LOG", "warn".to_owned()),
    ];
    own.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

fn components(options: &Options, partitions: Option<usize>) -> Result<(Stack, Plan)> {
    let root = repository();
    let mut plan = Plan::load(&root.join("dev.toml"))?;
    let commands = plan.prepare.iter_mut().map(|step| &mut step.command);
    let commands = commands.chain(plan.services.iter_mut().map(|service| &mut service.command));
    for command in commands {
        command[0] = command[0].replacen(DEBUG, RELEASE, 1);
    }
    let stack = Stack::builder()
        .plan(plan.clone())
        .ports(options.port_base)
        .data_dir(stack::places::data_dir(&root, options.port_base)?)
        .progress(Progress::shown())
        .fresh()
        .start()?;
    let config = configuration(&root, stack.data_dir())?;
    let mut env = stack.env();
    env.extend(own_env(&config));
    if let Some(partitions) = partitions {
        let topics = topics(&root, stack.data_dir(), partitions)?;
        let steps = plan.prepare.iter_mut().map(|step| &mut step.command);
        for command in steps.filter(|command| command.ends_with(&APPLY_TOPICS.map(str::to_owned))) {
            command.extend(["--file".to_owned(), topics.display().to_string()]);
        }
    }
    for step in &plan.prepare {
        run(step, &root, &env)?;
    }
    Ok((stack, plan))
}

/// The repository's topics with so many partitions each.
fn topics(root: &Path, data_dir: &Path, partitions: usize) -> Result<PathBuf> {
    let text = std::fs::read_to_string(root.join("deploy/kafka/topics.toml"))?;
    let (mut changed, of_each) = (String::new(), "partitions = ");
    for line in text.lines() {
        if line.starts_with(of_each) {
            writeln!(changed, "{of_each}{partitions}")?;
        } else {
            writeln!(changed, "{line}")?;
        }
    }
    let path = data_dir.join("topics.toml");
    std::fs::write(&path, changed)?;
    Ok(path)
}

fn run(step: &Step, root: &Path, env: &[(String, String)]) -> Result<()> {
    let task = Progress::shown().task(&step.name);
    let mut command = Command::new(root.join(&step.command[0]));
    command
        .args(&step.command[1..])
        .envs(env.iter().cloned())
        .current_dir(root);
    stack::command::run(&task, &mut command, None)?;
    task.done("");
    Ok(())
}

/// The repository's configuration with one merchant more, and without a reconciliation, which would
/// begin at some quarter of an hour and be part of one round and not of the others. What is measured
/// is what is in it.
fn configuration(root: &Path, data_dir: &Path) -> Result<PathBuf> {
    let text = std::fs::read_to_string(root.join("meed.toml"))?;
    let file = "file = \"programme.toml\"";
    ensure!(text.contains(file), "meed.toml does not say `{file}`");
    let programme = root.join("programme.toml").display().to_string();
    let mut text = text.replace(file, &format!("file = {}", toml_string(&programme)));
    let every = "every_seconds = 900 #";
    ensure!(text.contains(every), "meed.toml does not say `{every}`");
    text = text.replace(every, &format!("every_seconds = {WEEK_SECONDS} #"));
    write!(
        text,
        "\n[merchants.{MERCHANT}]\nbase_url = \"${{PARTNERS_URL}}/merchants/{MERCHANT}\"\n\
         signing_key = \"dev-key-{MERCHANT}\"\nmax_concurrent = 512\n"
    )?;
    let path = data_dir.join("meed.toml");
    std::fs::write(&path, text)?;
    Ok(path)
}

/// A string of TOML, which quotes as JSON does.
fn toml_string(text: &str) -> String {
    Value::from(text).to_string()
}
