//! What a stack is made of, before it is one.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Result, bail};

use crate::cache::Cache;
use crate::component::Component;
use crate::places;
use crate::plan::Plan;
use crate::ports::{MAX_BROKERS, MAX_REPLICAS, Ports, numbered};
use crate::progress::Progress;
use crate::provision::provision;
use crate::stack::Stack;
use crate::state::State;

/// Servers elsewhere that take the place of components.
#[derive(Debug, Clone, Default)]
pub(crate) struct External {
    pub(crate) database_url: Option<String>,
    pub(crate) kafka_brokers: Option<String>,
    pub(crate) temporal_address: Option<String>,
    pub(crate) temporal_http_url: Option<String>,
    pub(crate) temporal_ui_url: Option<String>,
}

impl External {
    fn from_environment() -> Self {
        let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            database_url: read("MEED_EXTERNAL_DATABASE_URL"),
            kafka_brokers: read("MEED_EXTERNAL_KAFKA_BROKERS"),
            temporal_address: read("MEED_EXTERNAL_TEMPORAL_ADDRESS"),
            temporal_http_url: read("MEED_EXTERNAL_TEMPORAL_HTTP_URL"),
            temporal_ui_url: read("MEED_EXTERNAL_TEMPORAL_UI_URL"),
        }
    }
}

/// Says what a stack is made of.
#[derive(Debug)]
#[must_use = "nothing happens before `start` or `open`"]
pub struct StackBuilder {
    ports: Ports,
    data_dir: Option<PathBuf>,
    components: Vec<Component>,
    plan: Option<Plan>,
    fresh: bool,
    progress: Progress,
    external: External,
    database: String,
    namespace: String,
    brokers: Option<u16>,
    kafka_reached_at: Option<u16>,
    replicas: Option<u16>,
    monitored: bool,
    variables: Vec<(String, String)>,
}

impl StackBuilder {
    pub(crate) fn new() -> Self {
        Self {
            ports: Ports::at(20000),
            data_dir: None,
            components: Component::ALL.to_vec(),
            plan: None,
            fresh: false,
            progress: Progress::quiet(),
            external: External::default(),
            database: "app".into(),
            namespace: "default".into(),
            brokers: None,
            kafka_reached_at: None,
            replicas: None,
            monitored: false,
            variables: Vec::new(),
        }
    }

    /// The block of ports that begins at `base`. Call it after [`plan`](Self::plan) if both are used.
    pub fn ports(mut self, base: u16) -> Self {
        self.ports = self
            .plan
            .as_ref()
            .map_or_else(|| Ports::at(base), |plan| plan.ports_at(base));
        self
    }

    /// Ports that were chosen one by one.
    pub fn chosen_ports(mut self, ports: Ports) -> Self {
        self.ports = ports;
        self
    }

    /// Where data, logs and state are kept; `target/stack/<first port>` under the current directory by default, or for
    /// root in the system's temporary directory.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// The components to run; all by default.
    pub fn components(mut self, components: &[Component]) -> Self {
        self.components = components.to_vec();
        self
    }

    /// The plan whose variables and services the stack has.
    pub fn plan(mut self, plan: Plan) -> Self {
        self.ports = plan.ports_at(self.ports.base());
        self.database.clone_from(&plan.database);
        self.namespace.clone_from(&plan.namespace);
        self.plan = Some(plan);
        self
    }

    /// PostgreSQL's database and its role, `app` by default.
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.database = name.into();
        self
    }

    /// Temporal's namespace, `default` by default.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = name.into();
        self
    }

    /// Of how many brokers Kafka consists; as many as its data are of by default, or one. Each is broker and controller,
    /// they are the processes `kafka`, `kafka-2`, …, and everything is kept by up to three of them.
    pub fn brokers(mut self, count: u16) -> Self {
        self.brokers = Some(count);
        self
    }

    /// The port that Kafka's first broker tells clients as its own, for a proxy of the caller's in front of it.
    pub fn kafka_reached_at(mut self, port: u16) -> Self {
        self.kafka_reached_at = Some(port);
        self
    }

    /// How many there are of each service of which the plan allows several; as many as run by default, or one. With
    /// more than one the plan's proxy stands in front of them.
    pub fn replicas(mut self, count: u16) -> Self {
        self.replicas = Some(count);
        self
    }

    /// With Prometheus as the plan wants it.
    pub fn monitored(mut self, monitored: bool) -> Self {
        self.monitored = monitored;
        self
    }

    /// A variable for every process. The plan may use it, and what the plan says of it counts more.
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Removes the data of an earlier run first.
    pub fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// How progress is shown; quiet by default.
    pub fn progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Uses running servers in place of components where a variable `MEED_EXTERNAL_…` names one.
    pub fn external_from_environment(mut self) -> Self {
        self.external = External::from_environment();
        self
    }

    /// The stack as it is now, with nothing started or ended.
    pub fn open(self) -> Result<Stack> {
        let data_dir = match self.data_dir {
            Some(dir) => std::path::absolute(dir)?,
            None => default_data_dir(self.ports.base())?,
        };
        let mut components = self.components;
        if self.external.kafka_brokers.is_some() {
            components.retain(|component| *component != Component::Kafka);
        }
        if self.external.temporal_address.is_some() {
            components.retain(|component| *component != Component::Temporal);
        }
        // Temporal keeps its own databases in the stack's PostgreSQL, wherever the application's is.
        let needs_postgres = components.contains(&Component::Temporal);
        if self.external.database_url.is_some() && !needs_postgres {
            components.retain(|component| *component != Component::Postgres);
        } else if needs_postgres && !components.contains(&Component::Postgres) {
            components.push(Component::Postgres);
        }
        let brokers_before = brokers_of(&data_dir).filter(|_| !self.fresh);
        let brokers = self.brokers.or(brokers_before).unwrap_or(1);
        if !(1..=MAX_BROKERS).contains(&brokers) {
            bail!("Kafka can have 1 to {MAX_BROKERS} brokers here, not {brokers}");
        }
        if let Some(before) = brokers_before.filter(|before| *before != brokers) {
            bail!(
                "the data in {} are those of {before} brokers, not {brokers}; remove them with `down --wipe`",
                data_dir.display()
            );
        }
        let replicas_before = || -> Result<Option<u16>> {
            Ok(State::read(&data_dir)?.replicas.filter(|_| !self.fresh))
        };
        let replicas = match self.replicas {
            Some(replicas) => replicas,
            None => replicas_before()?.unwrap_or(1),
        };
        if !(1..=MAX_REPLICAS).contains(&replicas) {
            bail!("there can be 1 to {MAX_REPLICAS} of a service here, not {replicas}");
        }
        let has_proxy = self.plan.as_ref().is_some_and(|plan| plan.proxy.is_some());
        if replicas > 1 && has_proxy && !components.contains(&Component::Nginx) {
            components.push(Component::Nginx);
        }
        if self.monitored {
            components.push(Component::Prometheus);
        }
        let mut stack = Stack {
            env: Vec::new(),
            data_dir,
            brokers,
            kafka_reached_at: self.kafka_reached_at,
            replicas,
            variables: self.variables,
            ports: self.ports,
            components,
            plan: self.plan,
            external: self.external,
            database: self.database,
            namespace: self.namespace,
            progress: self.progress,
            children: Mutex::default(),
            held: Mutex::default(),
            sentinel: Mutex::default(),
        };
        stack.env = stack.filled_in_env()?;
        Ok(stack)
    }

    /// Provisions and starts the components. What a run that died left behind in the data directory is ended first.
    pub fn start(self) -> Result<Stack> {
        let fresh = self.fresh;
        let stack = self.open()?;
        let provisioned = provision(&stack.components, &Cache::open()?, &stack.progress)?;
        stack.end_leftovers()?;
        if fresh {
            stack.wipe()?;
        }
        stack.take_ownership()?;
        stack.start_components(&provisioned)?;
        Ok(stack)
    }
}

/// Of how many brokers the data in this directory are.
fn brokers_of(data_dir: &Path) -> Option<u16> {
    let formatted = |number: &u16| {
        let dir = data_dir.join(numbered("kafka", *number));
        dir.join("data/meta.properties").exists()
    };
    (1..=MAX_BROKERS).take_while(formatted).last()
}

fn default_data_dir(base: u16) -> Result<PathBuf> {
    let parent = if places::is_root() {
        std::env::temp_dir().join("stack")
    } else {
        Path::new("target/stack").into()
    };
    Ok(std::path::absolute(parent.join(base.to_string()))?)
}
