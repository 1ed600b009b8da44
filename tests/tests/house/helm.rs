//! The Helm chart: linted, rendered in its variants and checked against Kubernetes' own schemas, without a cluster or a
//! network. What it renders is held against what the programs and the house know.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde::Deserialize;
use tests::components::repository;
use yaml_serde::Value;

/// The oldest and the newest schemas that the chart allows and the validator has.
const KUBERNETES: [&str; 2] = ["1.27", "1.30"];
/// Without a cluster helm has to be told what it is.
const CLUSTER: &str = "1.30.0";

fn chart() -> PathBuf {
    repository().join("deploy/helm/meed")
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir(repository())
        // Nothing of the caller's own installation of it.
        .env("HELM_CACHE_HOME", std::env::temp_dir().join("meed-helm"))
        .env("HELM_CONFIG_HOME", std::env::temp_dir().join("meed-helm"))
        .env("HELM_DATA_HOME", std::env::temp_dir().join("meed-helm"))
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; `./dev test` builds it"))
}

fn succeeded(output: &Output, what: &str) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{what}: {out}{err}");
    out
}

const RULES: [&str; 2] = ["--set-file", "programme.file=programme.toml"];

fn rendered(values: &[&str]) -> String {
    let mut arguments = vec![
        "template",
        "meed",
        "deploy/helm/meed",
        "--namespace",
        "loyalty",
    ];
    arguments.extend(["--kube-version", CLUSTER]);
    arguments.extend(RULES);
    arguments.extend(["--set", "image.tag=abc1234"]);
    arguments.extend(values);
    succeeded(
        &run("helm", &arguments),
        &format!("helm template {values:?}"),
    )
}

fn objects(text: &str) -> Vec<Value> {
    text.split("\n---\n")
        .filter(|document| {
            document
                .lines()
                .any(|line| !line.starts_with('#') && !line.trim().is_empty())
        })
        .map(|document| yaml_serde::from_str(document).expect("it is YAML"))
        .filter(|value: &Value| !value.is_null())
        .collect()
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().expect("a kind")
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("a name")
}

/// Every variant that has something of its own.
fn variants() -> Vec<Vec<&'static str>> {
    vec![
        vec![],
        vec!["--set", "ingress.enabled=true"],
        vec![
            "--set",
            "ingress.enabled=true",
            "--values",
            "deploy/helm/canary.yaml",
        ],
        vec!["--set", "image.digest=sha256:0123456789abcdef"],
        vec![
            "--set",
            "api.autoscaling.enabled=false",
            "--set",
            "workers.intake.autoscaling.enabled=false",
        ],
        vec![
            "--set",
            "workers.intake.autoscaling.lagMessages=0",
            "--set",
            "networkPolicy.enabled=false",
        ],
        vec![
            "--set",
            "migration.enabled=false",
            "--set",
            "image.pullSecrets[0].name=registry",
        ],
        vec![
            "--set",
            "secrets.files[0]=kafka-ca.pem",
            "--set",
            "secrets.variables.KAFKA_SASL_PASSWORD=kafka-password",
        ],
    ]
}

#[test]
fn it_is_linted_and_every_variant_is_what_kubernetes_takes() {
    let mut arguments = vec![
        "lint",
        "--strict",
        "deploy/helm/meed",
        "--set",
        "image.tag=abc1234",
    ];
    arguments.extend(RULES);
    succeeded(&run("helm", &arguments), "helm lint");
    let dir = std::env::temp_dir().join(format!("meed-chart-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    for (number, variant) in variants().into_iter().enumerate() {
        let text = rendered(&variant);
        assert!(!objects(&text).is_empty());
        fs::write(dir.join(format!("{number}.yaml")), text).expect("written");
    }
    let path = dir.to_str().expect("a path");
    for version in KUBERNETES {
        let output = run("kubectl-validate", &[path, "--version", version]);
        succeeded(&output, &format!("kubectl-validate, {version}"));
    }
    fs::remove_dir_all(dir).expect("removed");
}

/// The check of the check.
#[test]
fn what_kubernetes_would_not_take_is_found() {
    let right = rendered(&[]);
    let text = right.replace("containerPort: 8080", "containerPorts: 8080");
    assert_ne!(text, right, "there is something to get wrong");
    let file = std::env::temp_dir().join(format!("meed-chart-wrong-{}.yaml", std::process::id()));
    fs::write(&file, text).expect("written");
    let output = run("kubectl-validate", &[file.to_str().expect("a path")]);
    fs::remove_file(file).expect("removed");
    assert!(!output.status.success(), "{output:?}");
}

#[test]
fn what_must_be_said_is_asked_for() {
    for (missing, arguments) in [
        (
            "image.tag",
            vec![
                "template",
                "meed",
                "deploy/helm/meed",
                "--kube-version",
                CLUSTER,
                RULES[0],
                RULES[1],
            ],
        ),
        (
            "programme.file",
            vec![
                "template",
                "meed",
                "deploy/helm/meed",
                "--kube-version",
                CLUSTER,
                "--set",
                "image.tag=a",
            ],
        ),
    ] {
        let output = run("helm", &arguments);
        assert!(!output.status.success(), "{missing}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(missing), "{said}");
    }
}

/// The configuration in the chart is right, in production, with exactly the variables that the chart gives.
#[test]
fn its_configuration_is_right_with_the_variables_it_gives() {
    let objects = objects(&rendered(&[]));
    let config = objects
        .iter()
        .find(|object| kind(object) == "ConfigMap" && name(object) == "meed-config");
    let text = config.expect("a configuration")["data"]["meed.toml"]
        .as_str()
        .expect("text")
        .to_owned();
    for object in objects
        .iter()
        .filter(|object| ["Deployment", "Job"].contains(&kind(object)))
    {
        let container = &object["spec"]["template"]["spec"]["containers"][0];
        let given: BTreeMap<String, String> = container["env"]
            .as_sequence()
            .expect("variables")
            .iter()
            .map(|variable| {
                let text = |key: &str| variable[key].as_str().expect("text").to_owned();
                (text("name"), text("value"))
            })
            .collect();
        let settings =
            boot::Settings::parse(Path::new("/etc/meed/config/meed.toml"), &text, |name| {
                let file = given.contains_key(&format!("{name}_FILE"));
                Ok(given
                    .get(name)
                    .cloned()
                    .or_else(|| file.then(|| secret(name))))
            });
        let settings = settings.unwrap_or_else(|error| panic!("{}: {error}", name(object)));
        assert_eq!(settings.profile, boot::Profile::Production);
        assert_eq!(
            settings.programme_file(),
            Path::new("/etc/meed/config/../programme/programme.toml")
        );
        let asked: BTreeSet<&str> = text
            .split("${")
            .skip(1)
            .map(|rest| {
                let end = rest.find([':', '}']).expect("it ends");
                &rest[..end]
            })
            .collect();
        for variable in given.keys().filter(|name| *name != "MEED_CONFIG") {
            let asked_for = asked.contains(variable.trim_end_matches("_FILE"));
            assert!(asked_for, "{}: nothing asks for {variable}", name(object));
        }
    }
}

fn secret(name: &str) -> String {
    match name {
        "DATABASE_URL" => "postgres://meed:secret@postgres:5432/meed".to_owned(),
        "MEED_PAYLOAD_KEYS" => format!("2026:{}=", "A".repeat(43)),
        _ => "from a secret".to_owned(),
    }
}

/// Pods end as the programs do, run what the image has, and between them work on every queue once.
#[test]
fn pods_are_what_the_programs_want() {
    let objects = objects(&rendered(&[]));
    let dockerfile = fs::read_to_string(repository().join("Dockerfile")).expect("there");
    let mut queues = Vec::new();
    for object in objects.iter().filter(|object| kind(object) == "Deployment") {
        let pods = &object["spec"]["template"];
        let pod = &pods["spec"];
        let container = &pod["containers"][0];
        let program = container["command"][0].as_str().expect("a program");
        assert!(
            dockerfile.contains(&format!("release/{program} ")),
            "{program}"
        );
        let variable = |wanted: &str| {
            let variables = container["env"].as_sequence().expect("variables");
            let found = variables.iter().find(|variable| variable["name"] == wanted);
            found.map(|variable| variable["value"].as_str().expect("text").to_owned())
        };
        let drain = |name: &str| {
            let seconds = variable(name).expect("how long it drains");
            seconds.parse::<u64>().expect("seconds")
        };
        let grace = pod["terminationGracePeriodSeconds"]
            .as_u64()
            .expect("seconds");
        let longest = if program == "meed-api" {
            // The pause, then requests, then sockets, then steps.
            variable("MEED_API_DRAIN_PAUSE_SECONDS")
                .expect("a pause")
                .parse::<u64>()
                .expect("seconds")
                + 3 * drain("MEED_API_DRAIN_SECONDS")
        } else {
            queues.extend(
                variable("MEED_WORKER_TASK_QUEUES")
                    .expect("queues")
                    .split(',')
                    .map(str::to_owned),
            );
            10 + drain("MEED_WORKER_DRAIN_SECONDS")
        };
        assert!(
            grace > longest,
            "{}: {grace} s are not enough",
            name(object)
        );
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert!(
                container[probe]["httpGet"]["path"]
                    .as_str()
                    .expect("a path")
                    .starts_with("/health/")
            );
        }
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        let guarded = objects
            .iter()
            .filter(|other| kind(other) == "PodDisruptionBudget");
        let labels = &pods["metadata"]["labels"];
        let guarded = guarded.filter(|budget| {
            let chosen = budget["spec"]["selector"]["matchLabels"].as_mapping();
            let mut chosen = chosen.expect("labels").iter();
            chosen.all(|(name, value)| labels[name] == *value)
        });
        assert_eq!(guarded.count(), 1, "{}", name(object));
    }
    let mut expected: Vec<String> = workflows::id::WORKER_TASK_QUEUES.map(str::to_owned).into();
    queues.sort();
    expected.sort();
    assert_eq!(queues, expected);
}

/// Flows of a version go on with workers of that version, so these have a Deployment for each version, with the configuration
/// of that version, which stays when the next one comes and shares no pods with it.
#[test]
fn workers_that_flows_stay_with_are_there_until_somebody_removes_them() {
    let of = |tag: &str| {
        let objects = objects(&rendered(&["--set", &format!("image.tag={tag}")]));
        let works_on_tiers = |object: &&Value| {
            let container = &object["spec"]["template"]["spec"]["containers"][0];
            let mut variables = container["env"].as_sequence().into_iter().flatten();
            variables.any(|variable| variable["value"] == workflows::id::TIER_TASK_QUEUE)
        };
        let mut found = objects.iter().filter(works_on_tiers);
        let deployment = found.next().expect("a worker of the queue alone").clone();
        assert!(found.next().is_none());
        let volumes = &deployment["spec"]["template"]["spec"]["volumes"];
        let maps = volumes.as_sequence().expect("volumes").iter();
        let maps: Vec<String> = maps
            .filter_map(|volume| volume["configMap"]["name"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(maps.len(), 2);
        let kept = objects.iter().filter(|object| {
            let its = kind(object) == "ConfigMap" && maps.iter().any(|map| map == name(object));
            its || works_on_tiers(object)
        });
        let kept: Vec<&Value> = kept.collect();
        assert_eq!(kept.len(), 3);
        let labels = &deployment["metadata"]["labels"];
        for object in kept {
            let policy = &object["metadata"]["annotations"]["helm.sh/resource-policy"];
            assert_eq!(policy, "keep", "{}", name(object));
            // By which the operator removes all of it.
            for label in ["component", "version"].map(|label| format!("app.kubernetes.io/{label}"))
            {
                assert_eq!(object["metadata"]["labels"][&label], labels[&label]);
            }
        }
        (deployment, maps)
    };
    let long = "2026-11-28-a-release-with-a-long-name";
    for (old, new) in [
        ("abc1234".to_owned(), "def5678".to_owned()),
        (format!("{long}-1"), format!("{long}-2")),
    ] {
        let ((old, old_maps), (new, new_maps)) = (of(&old), of(&new));
        assert_ne!(name(&old), name(&new));
        let chosen = |deployment: &Value| deployment["spec"]["selector"]["matchLabels"].clone();
        assert_ne!(chosen(&old), chosen(&new));
        assert!(old_maps.iter().all(|map| !new_maps.contains(map)));
    }
}

/// What the chart's notes tell to do exists.
#[test]
fn its_pods_are_asked_from_outside() {
    let objects = objects(&rendered(&["--set", "ingress.enabled=true"]));
    let ingress = objects.iter().find(|object| kind(object) == "Ingress");
    let paths = &ingress.expect("one")["spec"]["rules"][0]["http"]["paths"];
    let paths = paths.as_sequence().expect("paths");
    // What `meed smoke` asks for.
    for asked in ["/health", "/openapi.json", "/oauth", "/api"] {
        assert!(paths.iter().any(|path| path["path"] == asked), "{asked}");
    }
}

/// No secret is in what is rendered: pods mount them by reference.
#[test]
fn secrets_come_by_reference() {
    #[derive(Deserialize)]
    struct Values {
        secrets: Secrets,
    }
    #[derive(Deserialize)]
    struct Secrets {
        variables: BTreeMap<String, String>,
    }
    let values = fs::read_to_string(chart().join("values.yaml")).expect("there");
    let values: Values = yaml_serde::from_str(&values).expect("YAML");
    let objects = objects(&rendered(&[]));
    assert!(objects.iter().all(|object| kind(object) != "Secret"));
    for object in objects
        .iter()
        .filter(|object| ["Deployment", "Job"].contains(&kind(object)))
    {
        let pod = &object["spec"]["template"]["spec"];
        let volumes = pod["volumes"].as_sequence().expect("volumes");
        let secrets = volumes
            .iter()
            .find(|volume| volume["name"] == "secrets")
            .expect("secrets");
        let items = secrets["secret"]["items"].as_sequence().expect("items");
        let mounted: BTreeSet<&str> = items
            .iter()
            .map(|item| item["key"].as_str().expect("a key"))
            .collect();
        let wanted: BTreeSet<&str> = values
            .secrets
            .variables
            .values()
            .map(String::as_str)
            .collect();
        assert_eq!(mounted, wanted, "{}", name(object));
    }
}
