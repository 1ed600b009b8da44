//! Temporal with certificates on both sides, as the `TEMPORAL_TLS_*` variables ask for it: a server
//! of its own, whose frontend asks whoever comes for a certificate.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sqlx::PgPool;
use stack::{Component, Provisioned, Service, Stack, cache::Cache};
use tests::system::{PATIENCE, system};

use super::{TEMPORAL_PORTS, certificates, meed, refused, until_said};

/// The server, in the stack's list of processes.
const NAME: &str = "temporal-tls";
/// Its databases, each with the name of its schema.
const DATABASES: [(&str, &str); 2] = [
    ("temporal_tls", "temporal"),
    ("temporal_tls_visibility", "visibility"),
];
/// Whose they are.
const ROLE: &str = "temporal";

/// Makes its databases.
async fn databases(stack: &Stack) {
    let superuser = stack
        .superuser_url()
        .expect("PostgreSQL is the stack's own");
    let superuser = PgPool::connect(&superuser).await.expect("it answers");
    for (database, _) in DATABASES {
        let statement = format!("CREATE DATABASE {database} OWNER {ROLE}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&superuser)
            .await
            .expect("a superuser may");
    }
    superuser.close().await;
}

fn schema(stack: &Stack, temporal: &stack::provision::Temporal) {
    let port = stack.ports().get("postgres").expect("a port").to_string();
    for (database, schema) in DATABASES {
        let versioned = temporal.schema.join(schema).join("versioned");
        let versioned = versioned.display().to_string();
        for step in [
            &["setup-schema", "-v", "0.0"][..],
            &["update-schema", "-d", &versioned],
        ] {
            let output = Command::new(&temporal.sql_tool)
                .args(["--db", database])
                .args(step)
                .env("SQL_PLUGIN", "postgres12")
                .env("SQL_HOST", "127.0.0.1")
                .env("SQL_PORT", &port)
                .env("SQL_USER", ROLE)
                .env("SQL_PASSWORD", ROLE)
                .output()
                .expect("it runs");
            assert!(output.status.success(), "{step:?}: {output:?}");
        }
    }
}

/// The configuration of the stack's server, with other places and with TLS.
fn configuration(stack: &Stack, dir: &Path) -> Value {
    let shared = stack.data_dir().join("temporal/server.yaml");
    let shared = fs::read_to_string(shared).expect("the stack's");
    let mut config: Value = yaml_serde::from_str(&shared).expect("YAML");
    for (store, (database, _)) in ["default", "visibility"].into_iter().zip(DATABASES) {
        config["persistence"]["datastores"][store]["sql"]["databaseName"] = json!(database);
    }
    let first = stack.ports().base() + TEMPORAL_PORTS;
    for (port, service) in (first..).zip(["frontend", "history", "matching", "worker"]) {
        let rpc = &mut config["services"][service]["rpc"];
        rpc["grpcPort"] = json!(port);
        rpc["membershipPort"] = json!(port + 4);
    }
    config["services"]["frontend"]["rpc"]["httpPort"] = json!(first + 8);
    config["global"]["metrics"]["prometheus"]["listenAddress"] =
        json!(format!("127.0.0.1:{}", first + 9));
    config["clusterMetadata"]["clusterInformation"]["active"]["rpcAddress"] = json!(address(stack));

    let file = |name: &str| dir.join(name).display().to_string();
    let client = json!({ "serverName": "localhost", "rootCaFiles": [file("authority.pem")] });
    config["global"]["tls"] = json!({
        "frontend": {
            "server": {
                "certFile": file("server.pem"),
                "keyFile": file("server.key"),
                "requireClientAuth": true,
                "clientCaFiles": [file("authority.pem")],
            },
            "client": client,
        },
        // Its own workers come to the frontend as everybody does.
        "systemWorker": {
            "certFile": file("server.pem"),
            "keyFile": file("server.key"),
            "client": client,
        },
    });
    config
}

/// Where its frontend listens.
fn address(stack: &Stack) -> String {
    format!("127.0.0.1:{}", stack.ports().base() + TEMPORAL_PORTS)
}

fn start(stack: &Stack, dir: &Path) {
    certificates(dir);
    let cache = Cache::open().expect("a cache");
    let Provisioned { temporal, .. } =
        stack::provision(&[Component::Temporal], &cache, stack.progress()).expect("it is there");
    let temporal = temporal.expect("Temporal");
    schema(stack, &temporal);
    // JSON is YAML.
    let file = dir.join("server.yaml");
    fs::write(&file, configuration(stack, dir).to_string()).expect("written");
    let mut service = Service::new(NAME, temporal.server);
    service.args = ["--config-file", &file.display().to_string()]
        .into_iter()
        .chain(["--allow-no-auth", "start"])
        .map(str::to_owned)
        .collect();
    service.directory = Some(dir.to_owned());
    stack.start_service(service).expect("it starts");
}

#[tokio::test]
async fn temporal_is_told_who_meed_is_and_no_stranger_is_believed() {
    let system = system().await;
    let stack = &system.components.stack;
    let dir = stack.data_dir().join(NAME);
    databases(stack).await;
    let place = dir.clone();
    tokio::task::spawn_blocking(move || start(stack, &place))
        .await
        .expect("it starts");

    let file = |name: &str| dir.join(name).display().to_string();
    let apply = |ca: &str, own: Option<&str>| {
        let mut variables = vec![
            ("TEMPORAL_ADDRESS", address(stack)),
            ("TEMPORAL_TLS_SERVER_CA_CERT_PATH", file(ca)),
        ];
        if let Some(own) = own {
            let (cert, key) = (format!("{own}.pem"), format!("{own}.key"));
            variables.push(("TEMPORAL_TLS_CLIENT_CERT_PATH", file(&cert)));
            variables.push(("TEMPORAL_TLS_CLIENT_KEY_PATH", file(&key)));
        }
        meed(&["temporal", "apply"], variables)
    };

    // Its services find each other a while after its port is open.
    let began = Instant::now();
    loop {
        let (succeeded, said) = apply("authority.pem", Some("meed")).await;
        if succeeded {
            assert!(said.contains("search attributes"), "{said}");
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{said}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let unknown = "UnknownIssuer";
    let misled = async || apply("stranger.pem", Some("meed")).await;
    // Each takes as long as an answer may take, so all at once.
    let (none, impostor, misled) = tokio::join!(
        apply("authority.pem", None),
        apply("authority.pem", Some("impostor")),
        until_said(unknown, misled),
    );
    stack.stop(NAME).expect("it ends");
    for said in [none, impostor] {
        let said = refused(said);
        assert!(said.contains("TEMPORAL_TLS_"), "{said}");
    }
    let said = refused(misled);
    assert!(said.contains(unknown), "{said}");
}
