//! `dev.toml`: which services a repository has, in which order they start, and what its tests are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::component::Component;
use crate::launch::Service;
use crate::ports::{self, MAX_REPLICAS, Ports, REPLICAS_STEP, numbered};
use crate::template;

/// The variable that moves the whole block of ports.
const PORT_BASE_VARIABLE: &str = "MEED_PORT_BASE";

/// A repository's declaration of what runs on the components.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The directory of the file.
    #[serde(skip)]
    pub root: PathBuf,
    /// One line for the help.
    pub about: String,
    /// The first port of the block unless a variable says otherwise.
    pub port_base: u16,
    /// PostgreSQL's database and role.
    pub database: String,
    /// Temporal's namespace.
    pub namespace: String,
    /// Ports of the services by name.
    #[serde(default)]
    ports: BTreeMap<String, PortSpec>,
    /// Variables for every process, beside those of the components.
    #[serde(default)]
    env: toml::Table,
    /// Programs that building needs.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Makes the programs.
    pub build: Step,
    /// Run in this order before the services start.
    #[serde(default)]
    pub prepare: Vec<Step>,
    /// Started in this order, each when the one before it serves.
    #[serde(default)]
    pub services: Vec<ServiceSpec>,
    /// Stands in front of one of the services when there are several of it.
    pub proxy: Option<ProxySpec>,
    /// Asks the services for their metrics, when it is wanted.
    pub monitor: Option<MonitorSpec>,
    /// Run in this order once everything serves.
    #[serde(default)]
    pub demonstration: Vec<Step>,
    /// Addresses that `up` prints at its end.
    #[serde(default)]
    pub addresses: Vec<Address>,
    /// Commands whose output `up` prints at its end.
    #[serde(default)]
    pub closing: Vec<Step>,
    /// Further commands of `./dev`.
    #[serde(default)]
    pub commands: BTreeMap<String, CommandSpec>,
    /// What `./dev test` does.
    pub test: TestPlan,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortSpec {
    offset: u16,
    variable: String,
}

/// A command that ends by itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What it is called when it is shown.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// A process that stays.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// What it is called.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Answers an HTTP `GET` with a success once it serves.
    pub ready: Option<String>,
    /// The name of its port.
    pub port: Option<String>,
    /// The names of its other ports; `${port.NAME}` stands for each.
    #[serde(default)]
    pub other_ports: Vec<String>,
    /// There may be several of it: the second is called `NAME-2` and has the port `PORT-2`. `${port}`, `${port.NAME}`
    /// and `${instance}` (from 1) stand for those of each.
    #[serde(default)]
    pub replicated: bool,
    /// Variables of its own, after those of every process.
    #[serde(default)]
    env: toml::Table,
}

impl ServiceSpec {
    fn all_ports(&self) -> impl Iterator<Item = &String> {
        self.port.iter().chain(&self.other_ports)
    }
}

/// nginx in front of the replicas of a service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxySpec {
    /// Its configuration; the files beside it may be included. `${LISTEN}` stands for its address, `${SERVERS}` for
    /// one `server` line for each replica.
    pub config: PathBuf,
    /// The service.
    pub service: String,
}

/// Prometheus beside the services.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorSpec {
    /// Its configuration. `${DIRECTORY}` stands for the directory of this file, `${TARGETS}` for a file with the
    /// addresses of the services and of Temporal.
    pub config: PathBuf,
    /// The services that have metrics, at `/metrics` of their ports.
    pub services: Vec<String>,
}

/// Something to open in a browser.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// What it is.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// What has to run for it to be there, where that is not always so.
    pub component: Option<Component>,
}

/// A command of `./dev` that is a program of the repository.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandSpec {
    /// One line for the help.
    pub about: String,
    /// Program and first arguments; those of the user follow.
    pub command: Vec<String>,
    /// Programs that it needs.
    #[serde(default)]
    pub needs: Vec<String>,
}

/// What `./dev test` does.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestPlan {
    /// How far the ports of the tests are from those of `up`.
    pub port_offset: u16,
    /// What runs while the tests do.
    pub components: Vec<Component>,
    /// Variables of the tests; the running components' may be used.
    #[serde(default)]
    env: toml::Table,
    /// The suites by name; the one called `all` is the default.
    pub suites: BTreeMap<String, Suite>,
    /// In this order.
    pub steps: Vec<TestStep>,
}

/// A choice of test steps.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// One line for the help.
    pub about: String,
    /// Variables of its own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// One step of the tests.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestStep {
    /// What it is called when it is shown.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The suites that it belongs to.
    pub suites: Vec<String>,
    /// Tools that have to be there, of the versions that `tools/versions.toml` names.
    #[serde(default)]
    pub tools: Vec<String>,
    /// Programs that it needs.
    #[serde(default)]
    pub needs: Vec<String>,
    /// It needs the components.
    #[serde(default)]
    pub components: bool,
    /// It runs tests: those that fail are shown again at the end.
    #[serde(default)]
    pub tests: bool,
    /// When it fails saying this, it could not be done here: it is skipped, and the table says so.
    pub unavailable: Option<Unavailable>,
}

/// How to tell that a step cannot be done here from a step that fails.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unavailable {
    /// Part of what it prints.
    pub says: String,
    /// What to tell people.
    pub because: String,
}

impl Plan {
    /// Reads a plan; a mistake in it is named with its line.
    pub fn load(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path)?;
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let mut plan: Self =
            toml::from_str(&text).with_context(|| format!("{} is not right", path.display()))?;
        plan.root = path.parent().map(Path::to_owned).unwrap_or_default();
        for command in plan.all_commands() {
            if command.is_empty() {
                bail!("{}: a command is empty", path.display());
            }
        }
        for service in plan.services.iter().filter(|service| service.replicated) {
            let mut ports = service.all_ports().filter_map(|port| plan.ports.get(port));
            if ports.any(|port| port.offset >= REPLICAS_STEP) {
                bail!(
                    "{}: there can be several of `{}` only if its ports are less than {REPLICAS_STEP} from the base",
                    path.display(),
                    service.name
                );
            }
        }
        if let Some(proxy) = &plan.proxy
            && plan.find_service(&proxy.service)?.0.port.is_none()
        {
            bail!("{}: `{}` has no port", path.display(), proxy.service);
        }
        for service in plan.monitor.iter().flat_map(|monitor| &monitor.services) {
            if plan.find_service(service)?.0.port.is_none() {
                bail!("{}: `{service}` has no port", path.display());
            }
        }
        for step in &plan.test.steps {
            if let Some(suite) = step
                .suites
                .iter()
                .find(|suite| !plan.test.suites.contains_key(*suite))
            {
                bail!(
                    "{}: step `{}` is in suite `{suite}`, which is not declared",
                    path.display(),
                    step.name
                );
            }
        }
        Ok(plan)
    }

    fn all_commands(&self) -> impl Iterator<Item = &Vec<String>> {
        let steps = [&self.build]
            .into_iter()
            .chain(&self.prepare)
            .chain(&self.demonstration)
            .chain(&self.closing);
        steps
            .map(|step| &step.command)
            .chain(self.services.iter().map(|service| &service.command))
            .chain(self.commands.values().map(|command| &command.command))
            .chain(self.test.steps.iter().map(|step| &step.command))
    }

    /// The block of ports that begins at `base`, with the services' ports in it.
    pub fn ports_at(&self, base: u16) -> Ports {
        let mut ports = Ports::at(base);
        for (name, port) in &self.ports {
            ports.declare(name, port.offset, &port.variable);
        }
        for service in self.services.iter().filter(|service| service.replicated) {
            for name in service.all_ports() {
                if let Some(port) = self.ports.get(name) {
                    ports.declare_replicas(name, port.offset, &port.variable);
                }
            }
        }
        ports
    }

    /// The block of ports that the environment asks for.
    pub fn ports(&self) -> Result<Ports> {
        let base = match std::env::var(PORT_BASE_VARIABLE) {
            Ok(text) => ports::parse(PORT_BASE_VARIABLE, &text)?,
            Err(_) => self.port_base,
        };
        if base > u16::MAX - ports::BLOCK_SIZE {
            bail!(
                "{PORT_BASE_VARIABLE} is {base}: the block of {} ports does not fit",
                ports::BLOCK_SIZE
            );
        }
        self.ports_at(base).overridden_by_environment()
    }

    /// The variables of the plan, after those that are known already.
    pub(crate) fn env(
        &self,
        ports: &Ports,
        known: Vec<(String, String)>,
    ) -> Result<Vec<(String, String)>> {
        self.expand_table(&self.env, ports, known)
    }

    /// The variables of the tests alone.
    pub fn test_env(
        &self,
        ports: &Ports,
        known: &[(String, String)],
    ) -> Result<Vec<(String, String)>> {
        let all = self.expand_table(&self.test.env, ports, known.to_vec())?;
        Ok(all.into_iter().skip(known.len()).collect())
    }

    fn expand_table(
        &self,
        table: &toml::Table,
        ports: &Ports,
        mut known: Vec<(String, String)>,
    ) -> Result<Vec<(String, String)>> {
        for (name, value) in table {
            let Some(value) = value.as_str() else {
                bail!("the variable {name} is not a string")
            };
            let value = self
                .expand(value, ports, &known)
                .with_context(|| format!("the variable {name}"))?;
            known.push((name.clone(), value));
        }
        Ok(known)
    }

    /// Fills in `${ports.NAME}`, `${ports.base}`, `${ports.next}` (the block after this one), `${root}`, a variable of the
    /// stack, or one of this process. What a stack says of itself, `STACK_…`, is never taken from this process: that may be
    /// a step of another stack.
    pub fn expand(&self, text: &str, ports: &Ports, env: &[(String, String)]) -> Result<String> {
        template::expand(text, &|name| {
            if name == "ports.base" {
                return Some(ports.base().to_string());
            }
            if name == "ports.next" {
                return Some((ports.base() + ports::BLOCK_SIZE).to_string());
            }
            if let Some(port) = name.strip_prefix("ports.") {
                return ports.get(port).ok().map(|port| port.to_string());
            }
            if name == "root" {
                return self.root.to_str().map(str::to_owned);
            }
            let known = env
                .iter()
                .rev()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone());
            let of_a_stack = name.starts_with("STACK_");
            known.or_else(|| std::env::var(name).ok().filter(|_| !of_a_stack))
        })
    }

    /// The names of the services in the order of their starts, with so many of those of which there may be several.
    pub fn instances(&self, replicas: u16) -> Vec<String> {
        let count = |service: &ServiceSpec| if service.replicated { replicas } else { 1 };
        let names = self
            .services
            .iter()
            .flat_map(|service| (1..=count(service)).map(|number| numbered(&service.name, number)));
        names.collect()
    }

    /// The service of this name, and which one of it.
    fn find_service(&self, name: &str) -> Result<(&ServiceSpec, u16)> {
        let found = self.services.iter().find_map(|service| {
            let count = if service.replicated { MAX_REPLICAS } else { 1 };
            let number = (1..=count).find(|number| numbered(&service.name, *number) == name)?;
            Some((service, number))
        });
        found.with_context(|| format!("no service is called `{name}`"))
    }

    /// The service of this name, such as `api` or `api-2`, with everything filled in.
    pub fn service(&self, name: &str, ports: &Ports, env: &[(String, String)]) -> Result<Service> {
        let (spec, number) = self.find_service(name)?;
        let port = spec
            .port
            .as_deref()
            .map(|port| ports.get(&numbered(port, number)))
            .transpose()?;
        let mut known = env.to_vec();
        known.push(("instance".to_owned(), number.to_string()));
        if let Some(port) = port {
            known.push(("port".to_owned(), port.to_string()));
        }
        for other in &spec.other_ports {
            let port = ports.get(&numbered(other, number))?;
            known.push((format!("port.{other}"), port.to_string()));
        }
        let own = self.expand_table(&spec.env, ports, known.clone())?;
        let own = own.into_iter().skip(known.len()).collect();
        let env = &known;
        let mut words = spec
            .command
            .iter()
            .map(|word| self.expand(word, ports, env));
        let program = words.next().context("a service without a program")??;
        let mut service = Service::new(name, program);
        service.args = words.collect::<Result<_>>()?;
        service.env = own;
        service.directory = Some(self.root.clone());
        service.ready_url = spec
            .ready
            .as_deref()
            .map(|url| self.expand(url, ports, env))
            .transpose()?;
        service.port = port;
        Ok(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::Stack;
    use crate::toolchain::Need;

    fn repository_plan() -> Plan {
        Plan::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev.toml")).unwrap()
    }

    #[test]
    fn the_plan_of_this_repository_can_be_filled_in() {
        let plan = repository_plan();
        let stack = Stack::builder()
            .plan(plan.clone())
            .ports(30000)
            .monitored(true)
            .open()
            .unwrap();
        let env = stack.env();
        assert!(env.iter().any(|(_, value)| value.contains("30000")));
        for service in &plan.services {
            plan.service(&service.name, stack.ports(), &env).unwrap();
        }
        for address in &plan.addresses {
            plan.expand(&address.url, stack.ports(), &env).unwrap();
        }
        plan.test_env(stack.ports(), &env).unwrap();
        assert!(plan.test.suites.contains_key("all"));
        let of_commands = plan.commands.values().flat_map(|command| &command.needs);
        let of_steps = plan.test.steps.iter().flat_map(|step| &step.needs);
        for need in plan.needs.iter().chain(of_commands).chain(of_steps) {
            Need::named(need).unwrap();
        }
    }

    #[test]
    fn replicas_differ_in_name_port_and_what_they_listen_to() {
        let plan = repository_plan();
        let stack = Stack::builder()
            .plan(plan.clone())
            .ports(30000)
            .replicas(2)
            .open()
            .unwrap();
        let names = plan.instances(2);
        assert!(names.contains(&"api".to_owned()) && names.contains(&"api-2".to_owned()));
        assert!(
            names.contains(&"worker-2".to_owned()) && !names.contains(&"partners-2".to_owned())
        );
        let mut others = std::collections::BTreeSet::new();
        let ports: std::collections::BTreeSet<u16> = ["api", "api-2"]
            .map(|name| plan.service(name, stack.ports(), &stack.env()).unwrap())
            .into_iter()
            .map(|service| {
                let port = service.port.unwrap();
                let address = format!("127.0.0.1:{port}");
                assert!(service.ready_url.unwrap().contains(&address));
                assert!(service.env.iter().any(|(_, value)| *value == address));
                let [own, other] = ["MEED_API_LISTEN", "MEED_GRPC_LISTEN"].map(|name| {
                    let listens = service.env.iter().find(|(known, _)| known == name);
                    listens.unwrap().1.clone()
                });
                assert_ne!(own, other);
                others.insert(other);
                port
            })
            .collect();
        assert_eq!((ports.len(), others.len()), (2, 2));
        // Whoever asks for the api asks the proxy.
        let proxy = stack.address("nginx").unwrap();
        assert!(
            stack
                .env()
                .iter()
                .any(|(name, value)| name == "MEED_API_URL" && value.contains(&proxy))
        );
        assert!(plan.service("api-9", stack.ports(), &stack.env()).is_err());
    }

    #[test]
    fn an_unknown_service_is_named() {
        let plan = repository_plan();
        let error = plan
            .service("nobody", &plan.ports_at(30000), &[])
            .unwrap_err();
        assert!(error.to_string().contains("nobody"));
    }
}
