//! The compose file and the Dockerfile, checked without Docker: what they name exists, the versions are those of the
//! development stack, and the settings are those that `dev.toml` gives every process.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where something is missing"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use stack::{Plan, Stack, Versions};
use yaml_serde::Value;

#[derive(Debug, Deserialize)]
struct Compose {
    services: BTreeMap<String, Service>,
    volumes: BTreeMap<String, Option<Value>>,
}

#[derive(Debug, Deserialize)]
struct Service {
    image: String,
    build: Option<Build>,
    restart: String,
    #[serde(default)]
    environment: BTreeMap<String, Value>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    expose: Vec<String>,
    #[serde(default)]
    deploy: BTreeMap<String, u16>,
    #[serde(default)]
    depends_on: BTreeMap<String, Dependency>,
    healthcheck: Option<HealthCheck>,
}

#[derive(Debug, Deserialize)]
struct Build {
    context: String,
    args: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    condition: String,
}

#[derive(Debug, Deserialize)]
struct HealthCheck {
    test: Vec<String>,
}

impl Service {
    fn is_job(&self) -> bool {
        self.restart == "no"
    }

    fn is_meed(&self) -> bool {
        self.build.is_some()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn compose() -> Compose {
    let text = std::fs::read_to_string(root().join("docker-compose.yml")).unwrap();
    let mut value: Value = yaml_serde::from_str(&text).unwrap();
    value.apply_merge().unwrap();
    yaml_serde::from_value(value).unwrap()
}

fn development_stack() -> Stack {
    let plan = Plan::load(&root().join("dev.toml")).unwrap();
    let ports = plan.port_base;
    Stack::builder().plan(plan).ports(ports).open().unwrap()
}

fn dockerfile() -> String {
    std::fs::read_to_string(root().join("Dockerfile")).unwrap()
}

#[test]
fn it_runs_the_services_of_the_development_stack() {
    let compose = compose();
    let plan = Plan::load(&root().join("dev.toml")).unwrap();
    for service in &plan.services {
        let composed = compose.services.get(&service.name);
        let composed = composed.unwrap_or_else(|| panic!("no service {}", service.name));
        let program = Path::new(&service.command[0])
            .file_name()
            .unwrap()
            .to_str()
            .unwrap();
        assert_eq!(composed.command, [program], "{}", service.name);
    }
    let prepared = plan.prepare.iter().map(|step| {
        let program = Path::new(&step.command[0])
            .file_name()
            .unwrap()
            .to_str()
            .unwrap();
        format!("{program} {}", step.command[1..].join(" "))
    });
    let prepared: Vec<String> = prepared.collect();
    assert_eq!(
        compose.services["migrate"].command,
        ["sh", "-euc", &prepared.join("; ")]
    );
    for component in [
        "postgres",
        "kafka",
        "temporal",
        "temporal-ui",
        "redis",
        "nginx",
    ] {
        assert!(compose.services.contains_key(component), "{component}");
    }
}

#[test]
fn there_are_three_of_what_there_may_be_several_of() {
    let compose = compose();
    let plan = Plan::load(&root().join("dev.toml")).unwrap();
    for service in plan.services.iter().filter(|service| service.replicated) {
        let composed = &compose.services[&service.name];
        assert_eq!(
            composed.deploy.get("replicas"),
            Some(&3),
            "{}",
            service.name
        );
        // Three cannot have one port of this machine.
        assert!(composed.ports.is_empty(), "{}", service.name);
    }
    let brokers = ["kafka", "kafka-2", "kafka-3"];
    let mut nodes = BTreeSet::new();
    for broker in brokers {
        let environment = &compose.services[broker].environment;
        let text = |name: &str| environment[name].as_str().unwrap().to_owned();
        assert!(nodes.insert(text("KAFKA_NODE_ID")), "{broker}");
        let voters = text("KAFKA_CONTROLLER_QUORUM_VOTERS");
        for (number, other) in (1..).zip(brokers) {
            assert!(
                voters.contains(&format!("{number}@{other}:9093")),
                "{voters}"
            );
        }
        let advertised = text("KAFKA_ADVERTISED_LISTENERS");
        assert!(
            advertised.contains(&format!("CLIENTS://{broker}:9092")),
            "{advertised}"
        );
    }
    let replica = &compose.services["redis-replica"].command;
    assert!(
        replica
            .windows(2)
            .any(|words| words == ["--replicaof", "redis"]),
        "{replica:?}"
    );
}

/// The proxy of the compose file is the development stack's, in front of Docker's names.
#[test]
fn the_proxy_is_the_one_that_is_tested() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let (composed, stacks) = (
        read("deploy/docker/nginx.conf"),
        read("deploy/nginx/nginx.conf"),
    );
    for included in ["http.conf", "site.conf"] {
        assert!(stacks.contains(&format!("include {included};")));
        assert!(
            composed.contains(&format!("include meed/{included};")),
            "{included}"
        );
    }
    let services = compose().services;
    let environment = &services["api"].environment;
    assert_eq!(environment["MEED_API_URL"], "http://nginx:8080");
    assert!(composed.contains("listen 8080;"));
    // Whoever opens the page comes from where the proxy's port is published.
    let origin = environment["MEED_PAGE_ORIGIN"].as_str().unwrap();
    let published = &services["nginx"].ports;
    let published = published
        .iter()
        .map(|port| port.strip_suffix(":8080").unwrap());
    let published: Vec<String> = published.map(|at| format!("http://{at}")).collect();
    assert_eq!(published, [origin]);
}

#[test]
fn images_are_pinned_to_the_versions_of_the_development_stack() {
    let versions = Versions::get();
    // The jars of PostgreSQL count three places, PostgreSQL itself two.
    let postgres = versions.postgres.version.rsplit_once('.').unwrap().0;
    let expected = [
        ("postgres", postgres),
        ("apache/kafka", &versions.kafka),
        ("temporalio/server", &versions.temporal),
        ("temporalio/admin-tools", &versions.temporal),
        ("temporalio/ui", &versions.temporal_ui),
        ("redis", "7.4.1"),
        ("nginx", "1.28.0"),
        ("prom/prometheus", "v3.5.0"),
        ("grafana/grafana", "12.1.0"),
        ("meed", "local"),
    ];
    let expected: BTreeMap<&str, &str> = expected.into_iter().collect();
    for (name, service) in compose().services {
        let (image, tag) = service
            .image
            .split_once(':')
            .unwrap_or_else(|| panic!("{name} has no tag"));
        assert_eq!(expected.get(image), Some(&tag), "{name}");
    }
    for line in dockerfile()
        .lines()
        .filter(|line| line.starts_with("FROM "))
    {
        let image = line.split_whitespace().nth(1).unwrap();
        let is_stage = dockerfile().contains(&format!(" AS {image}\n"));
        let is_pinned = image
            .split_once(':')
            .is_some_and(|(_, tag)| tag.starts_with(|first: char| first.is_ascii_digit()));
        assert!(is_stage || is_pinned, "{line}");
    }
}

#[test]
fn what_stays_has_a_health_check_and_what_is_waited_for_can_be() {
    let compose = compose();
    for (name, service) in &compose.services {
        let checked = service.healthcheck.is_some();
        if let Some(check) = &service.healthcheck {
            assert!(!service.is_job() && check.test.len() > 1, "{name}");
        }
        let listens = !service.ports.is_empty() || !service.expose.is_empty();
        assert_eq!(
            listens, checked,
            "{name} is asked for its health if it can be"
        );
        for (of, dependency) in &service.depends_on {
            let on = compose
                .services
                .get(of)
                .unwrap_or_else(|| panic!("{name} waits for {of}, which is not there"));
            match dependency.condition.as_str() {
                "service_healthy" => assert!(on.healthcheck.is_some(), "{name} waits for {of}"),
                "service_completed_successfully" => assert!(on.is_job(), "{name} waits for {of}"),
                other => panic!("{name} waits for {of} to be {other}"),
            }
        }
    }
}

#[test]
fn ports_are_open_on_this_machine_only_and_moved_by_the_same_variables() {
    let stack = development_stack();
    let mut taken = BTreeSet::new();
    for (name, service) in compose().services {
        for port in service.ports {
            let inside = port
                .strip_prefix("127.0.0.1:${")
                .and_then(|rest| rest.split_once("}:"));
            let (published, container) = inside.unwrap_or_else(|| panic!("{name}: {port}"));
            let (variable, number) = published.split_once(":-").unwrap();
            let number: u16 = number.parse().unwrap();
            container.parse::<u16>().unwrap();
            assert!(taken.insert(number), "{number} is published twice");
            if name == "grafana" {
                // The one thing that only the compose file has.
                continue;
            }
            let port_name = variable
                .strip_prefix("MEED_")
                .unwrap()
                .strip_suffix("_PORT")
                .unwrap();
            let port_name = port_name.to_lowercase().replace('_', "-");
            assert_eq!(stack.ports().get(&port_name).unwrap(), number, "{variable}");
        }
    }
}

#[test]
fn processes_get_the_variables_of_the_development_stack() {
    // A superuser is no business of any process, and in a container the data have their places.
    let expected: BTreeSet<String> = development_stack()
        .env()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name != "DATABASE_SUPERUSER_URL" && name != "STACK_DATA_DIR")
        .chain(["REDIS_URL".to_owned()])
        .collect();
    for (name, service) in compose()
        .services
        .iter()
        .filter(|(_, service)| service.is_meed())
    {
        let given: BTreeSet<String> = service.environment.keys().cloned().collect();
        assert_eq!(given, expected, "{name}");
    }
}

#[test]
fn what_is_mounted_copied_and_built_exists() {
    let root = root();
    let compose = compose();
    for (name, service) in &compose.services {
        for volume in &service.volumes {
            let source = volume.split(':').next().unwrap();
            let exists = if source.starts_with('.') {
                root.join(source).exists()
            } else {
                compose.volumes.contains_key(source)
            };
            assert!(exists, "{name} mounts {source}");
        }
        if let Some(build) = &service.build {
            assert!(root.join(&build.context).join("Dockerfile").exists());
            for argument in build.args.keys() {
                assert!(
                    dockerfile().contains(&format!("ARG {argument}=")),
                    "{argument}"
                );
            }
        }
    }

    let ignored = std::fs::read_to_string(root.join(".dockerignore")).unwrap();
    let ignored: Vec<&str> = ignored
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    assert!(ignored.contains(&"target") && ignored.contains(&".git"));

    let metadata = cargo_metadata::MetadataCommand::new()
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .unwrap();
    let targets = metadata
        .packages
        .iter()
        .flat_map(|package| &package.targets);
    let programs: BTreeSet<&str> = targets
        .filter(|target| target.is_bin())
        .map(|target| target.name.as_str())
        .collect();
    let mut in_image = BTreeSet::new();
    for source in copied(&dockerfile()) {
        if let Some(program) = source.strip_prefix("/src/target/release/") {
            assert!(
                programs.contains(program),
                "{program} is not a program of the workspace"
            );
            in_image.insert(program.to_owned());
        } else {
            assert!(
                root.join(&source).exists(),
                "{source} is copied and not there"
            );
            let hidden = ignored
                .iter()
                .any(|ignored| Path::new(&source).starts_with(ignored));
            assert!(!hidden, "{source} is copied and ignored");
        }
    }
    for (name, service) in compose
        .services
        .iter()
        .filter(|(_, service)| service.is_meed())
    {
        let used = service
            .command
            .iter()
            .flat_map(|words| words.split([' ', ';']))
            .filter(|word| word.starts_with("meed"));
        for program in used {
            assert!(in_image.contains(program), "{name} runs {program}");
        }
    }
}

/// The sources of every COPY, but those of one stage from another unless they are built programs.
fn copied(dockerfile: &str) -> Vec<String> {
    let mut sources = Vec::new();
    for line in dockerfile.replace("\\\n", " ").lines() {
        let Some(rest) = line.strip_prefix("COPY ") else {
            continue;
        };
        let words: Vec<&str> = rest
            .split_whitespace()
            .filter(|word| !word.starts_with("--chmod"))
            .collect();
        let (stage, words) = match words.split_first() {
            Some((first, others)) if first.starts_with("--from=") => (Some(*first), others),
            _ => (None, words.as_slice()),
        };
        let (_target, from) = words.split_last().unwrap();
        let kept = from
            .iter()
            .filter(|source| stage.is_none() || source.starts_with("/src/target/"));
        sources.extend(kept.map(|source| (*source).to_owned()));
    }
    sources
}
