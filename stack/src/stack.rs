//! A running stack: the processes of one data directory.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::Flock;
use nix::sys::signal::Signal;

use crate::builder::{External, StackBuilder};
use crate::cache;
use crate::command;
use crate::component::kafka::BrokerPorts;
use crate::component::{Component, kafka, nginx, postgres, prometheus, temporal};
use crate::launch::{Farewell, Launch, Service};
use crate::places;
use crate::plan::Plan;
use crate::ports::{Ports, numbered};
use crate::process::{self, Identity};
use crate::progress::{Progress, Task};
use crate::provision::Provisioned;
use crate::state::{Entry, State, now_unix_seconds, program_stamp};

const LOG_TAIL_LINES: usize = 25;
const LOG_LIMIT_BYTES: u64 = 64 << 20;
/// How long a killed process may take to disappear.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Reads its data, then nothing until the holder of the stack dies or says a word; in the first case it ends what the
/// holder had started. `$0` names the list of signals and processes.
const SENTINEL: &str = r#"if read -r word; then exit 0; fi
while read -r signal target; do kill -s "$signal" -- "$target"; done <"$0" 2>/dev/null
rm -f "$0""#;

/// See [`Stack::begin_change`].
#[derive(Debug)]
pub struct Change {
    _lock: Flock<File>,
}

/// How a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It runs and serves.
    Ready,
    /// It runs and does not serve, for this reason.
    Unready(String),
    /// It was stopped by a signal.
    Paused,
    /// It does not run, for this reason.
    Ended(String),
}

/// One line of [`Stack::status`].
#[derive(Debug, Clone)]
pub struct Status {
    /// The process's name.
    pub name: String,
    /// Its pid, if it runs.
    pub pid: Option<i32>,
    /// Its port.
    pub port: Option<u16>,
    /// How long it has run.
    pub uptime: Duration,
    /// How it is.
    pub health: Health,
}

/// The processes of one data directory. Those that this value started are killed when it is dropped, and by a small
/// shell process when the process that holds it dies; see [`detach`](Self::detach).
#[derive(Debug)]
pub struct Stack {
    pub(crate) env: Vec<(String, String)>,
    pub(crate) data_dir: PathBuf,
    pub(crate) brokers: u16,
    pub(crate) kafka_reached_at: Option<u16>,
    pub(crate) replicas: u16,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) ports: Ports,
    pub(crate) components: Vec<Component>,
    pub(crate) plan: Option<Plan>,
    pub(crate) external: External,
    pub(crate) database: String,
    pub(crate) namespace: String,
    pub(crate) progress: Progress,
    pub(crate) children: Mutex<HashMap<String, Child>>,
    /// The processes that end with this value.
    pub(crate) held: Mutex<BTreeSet<String>>,
    pub(crate) sentinel: Mutex<Option<Child>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stack {
    /// Begins a stack of all components at port 20000.
    pub fn builder() -> StackBuilder {
        StackBuilder::new()
    }

    /// Where data, logs and state are.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The stack's ports.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The components that this stack runs itself.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// The processes of Kafka: `kafka`, and `kafka-2` and so on when there are several brokers.
    pub fn brokers(&self) -> Vec<String> {
        (1..=self.brokers)
            .map(|number| numbered("kafka", number))
            .collect()
    }

    /// The names of the plan's services with their replicas, in the order of their starts.
    pub fn services(&self) -> Vec<String> {
        let plan = self.plan.as_ref();
        plan.map_or_else(Vec::new, |plan| plan.instances(self.replicas))
    }

    /// Where progress is shown.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The address of a component's or service's port.
    pub fn address(&self, port: &str) -> Result<String> {
        Ok(format!("127.0.0.1:{}", self.ports.get(port)?))
    }

    /// A URL of the stack's own PostgreSQL as superuser.
    pub fn superuser_url(&self) -> Result<String> {
        Ok(format!(
            "postgres://postgres@{}/postgres",
            self.address("postgres")?
        ))
    }

    /// The variables that every process of this stack gets: those of the components, then those of the plan.
    pub fn env(&self) -> Vec<(String, String)> {
        self.env.clone()
    }

    pub(crate) fn filled_in_env(&self) -> Result<Vec<(String, String)>> {
        let ports = &self.ports;
        let port = |name| ports.get(name);
        let external = &self.external;
        let database_url = match &external.database_url {
            Some(url) => url.clone(),
            None => format!(
                "postgres://{0}:{0}@127.0.0.1:{1}/{0}",
                self.database,
                port("postgres")?
            ),
        };
        let kafka_brokers = if let Some(brokers) = &external.kafka_brokers {
            brokers.clone()
        } else {
            let brokers = self.brokers();
            let brokers = brokers.iter().map(|broker| self.address(broker));
            brokers.collect::<Result<Vec<_>>>()?.join(",")
        };
        let or_local = |external: &Option<String>, scheme: &str, name| -> Result<String> {
            Ok(external
                .clone()
                .unwrap_or(format!("{scheme}127.0.0.1:{}", port(name)?)))
        };
        let mut env = vec![
            ("DATABASE_URL", database_url),
            ("DATABASE_SUPERUSER_URL", self.superuser_url()?),
            ("KAFKA_BROKERS", kafka_brokers),
            (
                "TEMPORAL_ADDRESS",
                or_local(&external.temporal_address, "", "temporal")?,
            ),
            (
                "TEMPORAL_HTTP_URL",
                or_local(&external.temporal_http_url, "http://", "temporal-http")?,
            ),
            (
                "TEMPORAL_UI_URL",
                or_local(&external.temporal_ui_url, "http://", "temporal-ui")?,
            ),
            ("TEMPORAL_NAMESPACE", self.namespace.clone()),
            ("STACK_DATA_DIR", self.data_dir.display().to_string()),
        ];
        if external.database_url.is_some() {
            env.retain(|(name, _)| *name != "DATABASE_SUPERUSER_URL");
        }
        let beside = [
            (Component::Nginx, "STACK_PROXY_URL", "nginx"),
            (Component::Prometheus, "STACK_PROMETHEUS_URL", "prometheus"),
        ];
        for (component, variable, port) in beside {
            if self.components.contains(&component) {
                env.push((variable, format!("http://{}", self.address(port)?)));
            }
        }
        let env = env
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .chain(self.variables.iter().cloned())
            .collect();
        match &self.plan {
            Some(plan) => plan.env(ports, env),
            None => Ok(env),
        }
    }

    /// Starts the components that do not run yet, PostgreSQL and Kafka side by side and Temporal after PostgreSQL.
    pub fn start_components(&self, provisioned: &Provisioned) -> Result<()> {
        self.make_data_dir()?;
        self.require_free_ports()?;
        State::update(&self.data_dir, |state| state.replicas = Some(self.replicas))?;
        thread::scope(|scope| {
            let broker = scope.spawn(|| self.start_kafka(provisioned));
            let rest = self
                .start_postgres(provisioned)
                .and_then(|()| self.start_temporal(provisioned));
            let broker = broker
                .join()
                .map_err(|_| anyhow!("starting Kafka panicked"))?;
            rest.and(broker)
        })?;
        self.start_nginx(provisioned)?;
        match &provisioned.prometheus {
            Some(program) => self.start_prometheus(program),
            None => Ok(()),
        }
    }

    /// Every port that something will be started at has to be free, before anything is.
    fn require_free_ports(&self) -> Result<()> {
        let state = State::read(&self.data_dir)?;
        let runs = |name: &str| {
            state
                .find(name)
                .is_some_and(|entry| entry.identity.is_alive())
        };
        let (brokers, services) = (self.brokers(), self.services());
        let names = self.ports.names().filter(|port| {
            let process = ["temporal-ui", "temporal", "nginx", "postgres", "prometheus"]
                .into_iter()
                .find(|process| port.starts_with(process))
                .map_or_else(|| port.replace("-controller", ""), str::to_owned);
            let wanted = match process.as_str() {
                "postgres" => self.components.contains(&Component::Postgres),
                "nginx" => self.components.contains(&Component::Nginx),
                "prometheus" => self.components.contains(&Component::Prometheus),
                "temporal" | "temporal-ui" => self.components.contains(&Component::Temporal),
                kafka if kafka.starts_with("kafka") => {
                    self.components.contains(&Component::Kafka) && brokers.contains(&process)
                }
                _ => services.contains(&process),
            };
            wanted && !runs(&process)
        });
        self.ports.require_free(&names.collect::<Vec<_>>())
    }

    fn start_postgres(&self, provisioned: &Provisioned) -> Result<()> {
        let Some(programs) = &provisioned.postgres else {
            return Ok(());
        };
        let port = self.ports.get("postgres")?;
        let task = self.progress.task("starting PostgreSQL");
        self.ensure_runs(
            &postgres::launch(programs, &self.data_dir, port, &task)?,
            &task,
        )?;
        if self.external.database_url.is_none() {
            postgres::ensure_database(port, &self.database, &self.database)?;
        }
        task.done(&self.address("postgres")?);
        Ok(())
    }

    fn start_kafka(&self, provisioned: &Provisioned) -> Result<()> {
        let Some(programs) = &provisioned.kafka else {
            return Ok(());
        };
        let task = self.progress.task("starting Kafka");
        let ports = |number| -> Result<BrokerPorts> {
            let clients = self.ports.get(&numbered("kafka", number))?;
            let elsewhere = self.kafka_reached_at.filter(|_| number == 1);
            Ok(BrokerPorts {
                clients,
                advertised: elsewhere.unwrap_or(clients),
                controller: self.ports.get(&numbered("kafka-controller", number))?,
            })
        };
        let cluster = (1..=self.brokers).map(ports).collect::<Result<Vec<_>>>()?;
        // Side by side: none of them serves before most of them run.
        thread::scope(|scope| {
            let starts: Vec<_> = (1..=self.brokers)
                .map(|number| {
                    let (cluster, task) = (&cluster, &task);
                    scope.spawn(move || {
                        let launch = kafka::launch(programs, &self.data_dir, cluster, number)?;
                        self.ensure_runs(&launch, task)
                    })
                })
                .collect();
            starts.into_iter().try_for_each(|start| {
                start
                    .join()
                    .map_err(|_| anyhow!("starting a broker panicked"))?
            })
        })?;
        task.done(&self.address("kafka")?);
        Ok(())
    }

    fn start_nginx(&self, provisioned: &Provisioned) -> Result<()> {
        let Some(program) = &provisioned.nginx else {
            return Ok(());
        };
        let plan = self.plan.as_ref();
        let proxy = plan.and_then(|plan| plan.proxy.as_ref());
        let (plan, proxy) = plan.zip(proxy).context("no plan says what nginx is for")?;
        let task = self.progress.task("starting nginx");
        let upstream: Vec<u16> = (1..=self.replicas)
            .map(|number| {
                let service = numbered(&proxy.service, number);
                let service = plan.service(&service, &self.ports, &self.env)?;
                service.port.context("a service without a port")
            })
            .collect::<Result<_>>()?;
        let config = plan.root.join(&proxy.config);
        let port = self.ports.get("nginx")?;
        let launch = nginx::launch(program, &self.data_dir, port, &config, &upstream)?;
        self.ensure_runs(&launch, &task)?;
        task.done(&self.address("nginx")?);
        Ok(())
    }

    /// Starts Prometheus, which asks the plan's services and Temporal for their metrics; they need not run yet.
    pub fn start_prometheus(&self, program: &Path) -> Result<()> {
        let plan = self.plan.as_ref();
        let monitor = plan.and_then(|plan| plan.monitor.as_ref());
        let (plan, monitor) = plan
            .zip(monitor)
            .context("no plan says what Prometheus is for")?;
        let task = self.progress.task("starting Prometheus");
        let mut targets = Vec::new();
        for job in &monitor.services {
            let service = plan.services.iter().find(|service| service.name == *job);
            let replicated = service.is_some_and(|service| service.replicated);
            for number in 1..=if replicated { self.replicas } else { 1 } {
                let service = plan.service(&numbered(job, number), &self.ports, &self.env)?;
                targets.push(prometheus::Target {
                    job: job.clone(),
                    port: service.port.context("a service without a port")?,
                });
            }
        }
        if self.components.contains(&Component::Temporal) {
            targets.push(prometheus::Target {
                job: "temporal".into(),
                port: self.ports.get("temporal-metrics")?,
            });
        }
        let config = plan.root.join(&monitor.config);
        let port = self.ports.get("prometheus")?;
        let launch = prometheus::launch(program, &self.data_dir, port, &config, &targets)?;
        self.ensure_runs(&launch, &task)?;
        task.done(&self.address("prometheus")?);
        Ok(())
    }

    fn start_temporal(&self, provisioned: &Provisioned) -> Result<()> {
        let Some(programs) = &provisioned.temporal else {
            return Ok(());
        };
        let task = self.progress.task("starting Temporal and its Web UI");
        temporal::ensure_schema(programs, &self.data_dir, self.ports.get("postgres")?, &task)?;
        self.ensure_runs(
            &temporal::launch(programs, &self.data_dir, &self.ports, &self.namespace)?,
            &task,
        )?;
        self.ensure_runs(
            &temporal::ui_launch(programs, &self.data_dir, &self.ports, &self.namespace)?,
            &task,
        )?;
        task.done(&self.address("temporal")?);
        Ok(())
    }

    /// Starts a service with the variables of this stack, and returns once it serves. A running one of the same name is
    /// kept if neither its program nor the way it is started has changed, else it is started again.
    pub fn start_service(&self, service: Service) -> Result<()> {
        self.make_data_dir()?;
        let launch = service.launch(&self.data_dir, self.env())?;
        let task = self.progress.task(&format!("starting {}", launch.name));
        self.ensure_runs(&launch, &task)?;
        task.done("");
        Ok(())
    }

    /// Starts the service of this name as the plan declares it.
    pub fn start_planned(&self, name: &str) -> Result<()> {
        let plan = self.plan.as_ref().context("this stack has no plan")?;
        self.start_service(plan.service(name, &self.ports, &self.env())?)
    }

    /// Kills a process and all that descends from it with `SIGKILL`.
    pub fn kill(&self, name: &str) -> Result<()> {
        let entry = self.entry(name)?;
        self.mark_ended(name, "killed")?;
        entry.identity.signal_all(Signal::SIGKILL);
        self.await_end(&entry, KILL_LIMIT)
    }

    /// Asks a process to end, and kills it when it takes longer than it may.
    pub fn stop(&self, name: &str) -> Result<()> {
        let entry = self.entry(name)?;
        self.mark_ended(name, "stopped")?;
        self.end(&entry)
    }

    /// Stops a process (`SIGSTOP`) with all that descends from it.
    pub fn pause(&self, name: &str) -> Result<()> {
        self.entry(name)?.identity.signal_all(Signal::SIGSTOP);
        Ok(())
    }

    /// Lets a paused process go on.
    pub fn resume(&self, name: &str) -> Result<()> {
        self.entry(name)?.identity.signal_all(Signal::SIGCONT);
        Ok(())
    }

    /// Sends a process alone a signal, such as `SIGTERM` for a shutdown that somebody else waits for.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        self.entry(name)?.identity.signal(signal);
        Ok(())
    }

    /// Starts a process again in the same way, asking it to end first if it runs; returns once it serves.
    pub fn restart(&self, name: &str) -> Result<()> {
        let entry = self.entry(name)?;
        self.end(&entry)?;
        let task = self.progress.task(&format!("restarting {name}"));
        self.launch(&entry.launch, &task)?;
        task.done("");
        Ok(())
    }

    /// True while the process of this name runs, paused or not.
    pub fn is_running(&self, name: &str) -> bool {
        self.reap();
        self.entry(name)
            .is_ok_and(|entry| entry.identity.is_alive())
    }

    /// The pid of a running process.
    pub fn pid(&self, name: &str) -> Result<i32> {
        let entry = self.entry(name)?;
        if !entry.identity.is_alive() {
            bail!("{name} does not run");
        }
        Ok(entry.identity.pid)
    }

    /// Waits until a running process serves.
    pub fn wait_ready(&self, name: &str, limit: Duration) -> Result<()> {
        let entry = self.entry(name)?;
        let deadline = Instant::now() + limit;
        loop {
            match entry.launch.readiness.check() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error)
                        .with_context(|| format!("{name} did not serve within {limit:?}"));
                }
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Waits until a process has ended by itself.
    pub fn wait_ended(&self, name: &str, limit: Duration) -> Result<()> {
        let entry = self.entry(name)?;
        self.await_end(&entry, limit)
    }

    /// The file of a process's output.
    pub fn log_file(&self, name: &str) -> Result<PathBuf> {
        Ok(self.entry(name)?.launch.log)
    }

    /// How every process is, in the order of their starts.
    pub fn status(&self) -> Result<Vec<Status>> {
        self.reap();
        let now = now_unix_seconds();
        let state = State::read(&self.data_dir)?;
        Ok(state
            .processes
            .into_iter()
            .map(|entry| {
                let alive = entry.identity.is_alive();
                let health = if !alive {
                    Health::Ended(entry.ended.unwrap_or_else(|| "ended by itself".into()))
                } else if entry.identity.is_paused() {
                    Health::Paused
                } else {
                    match entry.launch.readiness.check() {
                        Ok(()) => Health::Ready,
                        Err(error) => Health::Unready(error.to_string()),
                    }
                };
                Status {
                    name: entry.launch.name,
                    pid: alive.then_some(entry.identity.pid),
                    port: entry.launch.port,
                    uptime: Duration::from_secs(if alive {
                        now.saturating_sub(entry.since_unix_seconds)
                    } else {
                        0
                    }),
                    health,
                }
            })
            .collect())
    }

    /// The pid of the living process that ends this stack when it ends itself.
    pub fn owner(&self) -> Result<Option<i32>> {
        let owner = State::read(&self.data_dir)?.owner;
        Ok(owner.filter(Identity::is_alive).map(|owner| owner.pid))
    }

    /// Makes this process the one with which everything in the data directory ends.
    pub fn take_ownership(&self) -> Result<()> {
        self.make_data_dir()?;
        State::update(&self.data_dir, |state| state.owner = Some(Identity::own()))?;
        self.hold_all()
    }

    /// Makes everything in the data directory end with this value, whoever has started it.
    pub fn hold_all(&self) -> Result<()> {
        let state = State::read(&self.data_dir)?;
        locked(&self.held).extend(state.processes.into_iter().map(|entry| entry.launch.name));
        self.write_ends()
    }

    /// Lets everything go on after this value and this process have ended.
    pub fn detach(&self) -> Result<()> {
        State::update(&self.data_dir, |state| state.owner = None)?;
        self.release();
        Ok(())
    }

    /// Ends nothing when this value is dropped, and leaves the ownership as it is.
    pub fn release(&self) {
        locked(&self.held).clear();
        locked(&self.children).clear();
        if let Some(mut sentinel) = locked(&self.sentinel).take() {
            if let Some(mut pipe) = sentinel.stdin.take() {
                pipe.write_all(b"detached\n").ok();
            }
            sentinel.wait().ok();
        }
        fs::remove_file(self.ends_file()).ok();
    }

    /// Asks everything in the data directory to end, services before the components they use, and forgets it.
    pub fn end_all(&self) -> Result<()> {
        let state = State::read(&self.data_dir)?;
        let mut layers: Vec<u8> = state
            .processes
            .iter()
            .map(|entry| entry.launch.layer)
            .collect();
        layers.sort_unstable();
        layers.dedup();
        for layer in layers.into_iter().rev() {
            let entries = state
                .processes
                .iter()
                .filter(|entry| entry.launch.layer == layer);
            let entries: Vec<&Entry> = entries.filter(|entry| entry.identity.is_alive()).collect();
            for entry in &entries {
                self.mark_ended(&entry.launch.name, "stopped")?;
            }
            thread::scope(|scope| {
                let ends: Vec<_> = entries
                    .into_iter()
                    .map(|entry| {
                        scope.spawn(|| {
                            let task = self
                                .progress
                                .task(&format!("stopping {}", entry.launch.name));
                            self.end(entry)?;
                            task.done("");
                            anyhow::Ok(())
                        })
                    })
                    .collect();
                for end in ends {
                    end.join()
                        .map_err(|_| anyhow!("stopping a process panicked"))??;
                }
                anyhow::Ok(())
            })?;
        }
        if self.data_dir.exists() {
            State::update(&self.data_dir, |state| *state = State::default())?;
        }
        self.release();
        Ok(())
    }

    /// Removes the data directory of a stack in which nothing runs.
    pub fn wipe(&self) -> Result<()> {
        if !self.data_dir.exists() {
            return Ok(());
        }
        if let Some(entry) = State::read(&self.data_dir)?
            .processes
            .iter()
            .find(|entry| entry.identity.is_alive())
        {
            bail!(
                "{} still runs on the data in {}",
                entry.launch.name,
                self.data_dir.display()
            );
        }
        // Only a directory that a stack has made is removed.
        if !self.data_dir.join("state.json").exists()
            && fs::read_dir(&self.data_dir)?.next().is_some()
        {
            bail!(
                "{} does not look like the data of a stack; remove it yourself",
                self.data_dir.display()
            );
        }
        fs::remove_dir_all(&self.data_dir)
            .with_context(|| format!("cannot remove {}", self.data_dir.display()))
    }

    /// Names, once each, the processes that ended without being asked to since the last call, with their last words.
    pub fn unexpected_ends(&self) -> Result<Vec<(String, String)>> {
        let statuses = self.reap();
        let state = State::read(&self.data_dir)?;
        let dead = |entry: &&Entry| entry.ended.is_none() && !entry.identity.is_alive();
        let dead: Vec<Entry> = state.processes.iter().filter(dead).cloned().collect();
        for entry in &dead {
            self.mark_ended(&entry.launch.name, "ended by itself")?;
        }
        let words = |entry: Entry| {
            let status = statuses
                .get(&entry.launch.name)
                .map_or(String::new(), |status| format!(" with {status}"));
            let tail = command::last_lines(&entry.launch.log, LOG_TAIL_LINES);
            (
                entry.launch.name,
                format!(
                    "{status}; its last lines:\n{}",
                    command::indented(tail.lines())
                ),
            )
        };
        Ok(dead.into_iter().map(words).collect())
    }

    /// Keeps others from bringing the same stack up or down until the returned value is dropped.
    pub fn begin_change(&self) -> Result<Change> {
        self.make_data_dir()?;
        let lock = cache::try_lock(&self.data_dir.join("change.lock"))?;
        lock.map(|lock| Change { _lock: lock })
            .context("somebody else is changing it")
    }

    /// True when somebody else has ended the stack and forgotten its processes.
    pub fn was_ended(&self) -> Result<bool> {
        Ok(State::read(&self.data_dir)?.processes.is_empty())
    }

    fn make_data_dir(&self) -> Result<()> {
        places::create_dir(&self.data_dir.join("logs"))?;
        if !self.data_dir.join("state.json").exists() {
            State::update(&self.data_dir, |_| ())?;
        }
        Ok(())
    }

    fn entry(&self, name: &str) -> Result<Entry> {
        let state = State::read(&self.data_dir)?;
        let known = || {
            state
                .processes
                .iter()
                .map(|entry| entry.launch.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        state.find(name).cloned().with_context(|| match known() {
            known if known.is_empty() => format!("there is no `{name}`: nothing was started here"),
            known => format!("there is no `{name}` here, there are: {known}"),
        })
    }

    fn mark_ended(&self, name: &str, why: &str) -> Result<()> {
        State::update(&self.data_dir, |state| {
            if let Some(entry) = state
                .processes
                .iter_mut()
                .find(|entry| entry.launch.name == name)
            {
                entry.ended = Some(why.to_owned());
            }
        })
    }

    fn ensure_runs(&self, launch: &Launch, task: &Task) -> Result<()> {
        if let Some(entry) = State::read(&self.data_dir)?.find(&launch.name)
            && entry.identity.is_alive()
        {
            let unchanged =
                entry.launch == *launch && entry.program_stamp == program_stamp(&launch.program);
            if unchanged && !entry.identity.is_paused() && launch.readiness.check().is_ok() {
                return Ok(());
            }
            self.end(entry)?;
        }
        self.launch(launch, task)
    }

    fn launch(&self, launch: &Launch, task: &Task) -> Result<()> {
        let mut attempt = 1;
        loop {
            match self.launch_once(launch) {
                Err(error) if attempt < launch.attempts => {
                    task.line(&format!("{error}"));
                    attempt += 1;
                    thread::sleep(Duration::from_millis(300));
                }
                result => return result,
            }
        }
    }

    fn launch_once(&self, launch: &Launch) -> Result<()> {
        if fs::metadata(&launch.log).is_ok_and(|metadata| metadata.len() > LOG_LIMIT_BYTES) {
            fs::rename(&launch.log, launch.log.with_extension("old.log"))?;
        }
        if let Some(lock_file) = &launch.lock_file {
            process::remove_lock_of_zombie(lock_file);
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&launch.log);
        let log = log.with_context(|| format!("cannot open the log {}", launch.log.display()))?;
        let said_before = log.metadata()?.len();
        let mut command = Command::new(&launch.program);
        command
            .args(&launch.args)
            .envs(launch.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&launch.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        if let Some(account) = launch.account {
            command.uid(account.uid).gid(account.gid);
        }
        let mut child = command.spawn().with_context(|| {
            format!(
                "{} cannot be run ({})",
                launch.name,
                launch.program.display()
            )
        })?;
        let pid = i32::try_from(child.id()).context("a pid beyond 31 bits")?;
        let Some(identity) = Identity::of(pid) else {
            child.wait()?;
            bail!("{} disappeared at once", launch.name);
        };
        locked(&self.children).insert(launch.name.clone(), child);
        locked(&self.held).insert(launch.name.clone());
        let entry = Entry {
            launch: launch.clone(),
            identity: identity.clone(),
            since_unix_seconds: now_unix_seconds(),
            program_stamp: program_stamp(&launch.program),
            ended: None,
        };
        State::update(&self.data_dir, |state| state.put(entry))?;
        self.write_ends()?;

        let deadline = Instant::now() + Duration::from_secs(launch.ready_seconds);
        let mut pause = Duration::from_millis(10);
        loop {
            let ended = locked(&self.children)
                .get_mut(&launch.name)
                .map_or(Ok(None), Child::try_wait)?;
            if ended.is_some() || !identity.is_alive() {
                self.mark_ended(&launch.name, "ended at its start")?;
                let how = ended.map_or_else(String::new, |status| format!(" ({})", told(status)));
                bail!(
                    "{} ended at its start{how}{}",
                    launch.name,
                    last_words(launch, said_before)
                );
            }
            match launch.readiness.check() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    self.kill(&launch.name)?;
                    bail!(
                        "{} did not serve within {} s ({error:#}){}",
                        launch.name,
                        launch.ready_seconds,
                        last_words(launch, said_before)
                    );
                }
                Err(_) => thread::sleep(pause),
            }
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// Asks a process to end, kills it when it takes too long, and sees to it that nothing of it is left.
    fn end(&self, entry: &Entry) -> Result<()> {
        if entry.identity.is_alive() {
            if entry.identity.is_paused() {
                entry.identity.signal_all(Signal::SIGCONT);
            }
            entry.identity.signal(match entry.launch.farewell {
                Farewell::Terminate => Signal::SIGTERM,
                Farewell::Interrupt => Signal::SIGINT,
            });
            if !self.wait_reaping(entry, Duration::from_secs(entry.launch.stop_seconds)) {
                self.progress.say(&format!(
                    "  {} did not end within {} s and was killed",
                    entry.launch.name, entry.launch.stop_seconds
                ));
                entry.identity.signal_all(Signal::SIGKILL);
            }
        }
        self.await_end(entry, KILL_LIMIT)
    }

    fn await_end(&self, entry: &Entry, limit: Duration) -> Result<()> {
        if !self.wait_reaping(entry, limit) {
            bail!(
                "{} (process {}) did not end",
                entry.launch.name,
                entry.identity.pid
            );
        }
        Ok(())
    }

    fn wait_reaping(&self, entry: &Entry, limit: Duration) -> bool {
        let gone = entry.identity.wait_gone(limit);
        self.reap();
        gone
    }

    /// Collects what became of ended children.
    fn reap(&self) -> HashMap<String, String> {
        let mut ended = HashMap::new();
        locked(&self.children).retain(|name, child| match child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                ended.insert(name.clone(), told(status));
                false
            }
            Err(_) => false,
        });
        ended
    }

    pub(crate) fn end_leftovers(&self) -> Result<()> {
        if !self.data_dir.exists() {
            return Ok(());
        }
        let state = State::read(&self.data_dir)?;
        if let Some(owner) = state
            .owner
            .as_ref()
            .filter(|owner| owner.is_alive() && **owner != Identity::own())
        {
            bail!(
                "the stack in {} belongs to process {}, which still runs",
                self.data_dir.display(),
                owner.pid
            );
        }
        for entry in &state.processes {
            entry.identity.signal_all(Signal::SIGKILL);
            self.await_end(entry, KILL_LIMIT)?;
        }
        State::update(&self.data_dir, |state| *state = State::default())
    }

    fn ends_file(&self) -> PathBuf {
        self.data_dir.join(format!("ends-{}", std::process::id()))
    }

    /// Tells the sentinel what to end, starting it at the first call.
    fn write_ends(&self) -> Result<()> {
        // Held throughout: of two that start processes side by side, the later one writes both.
        let mut sentinel = locked(&self.sentinel);
        let state = State::read(&self.data_dir)?;
        let held = locked(&self.held);
        let mut text = Vec::new();
        for entry in state
            .processes
            .iter()
            .rev()
            .filter(|entry| held.contains(&entry.launch.name))
        {
            let pid = entry.identity.pid;
            // Killing only a postmaster leaves its children working for a moment; it ends them when asked.
            match entry.launch.farewell {
                Farewell::Interrupt => writeln!(text, "QUIT {pid}")?,
                Farewell::Terminate => writeln!(text, "KILL -{pid}")?,
            }
        }
        drop(held);
        let file = self.ends_file();
        fs::write(&file, text)?;
        if sentinel.is_none() {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", SENTINEL])
                .arg(&file)
                .current_dir("/")
                .process_group(0);
            shell
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            *sentinel = Some(shell.spawn().context("cannot run `sh`")?);
        }
        Ok(())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let held = std::mem::take(&mut *locked(&self.held));
        if let Ok(state) = State::read(&self.data_dir) {
            let entries = state
                .processes
                .iter()
                .rev()
                .filter(|entry| held.contains(&entry.launch.name));
            for entry in entries {
                entry.identity.signal_all(Signal::SIGKILL);
                entry.identity.wait_gone(KILL_LIMIT);
            }
        }
        if !held.is_empty() {
            State::update(&self.data_dir, |state| {
                state
                    .processes
                    .retain(|entry| !held.contains(&entry.launch.name));
                state.owner = None;
            })
            .ok();
        }
        self.reap();
        self.release();
    }
}

fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".into(),
    }
}

fn last_words(launch: &Launch, said_before: u64) -> String {
    let said = fs::metadata(&launch.log).is_ok_and(|metadata| metadata.len() > said_before);
    if !said {
        return format!(" without a word in {}", launch.log.display());
    }
    let tail = command::last_lines(&launch.log, LOG_TAIL_LINES);
    format!(
        "; the last lines of {}:\n{}",
        launch.log.display(),
        command::indented(tail.lines())
    )
}
