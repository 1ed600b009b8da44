//! Temporal's four services in one process on PostgreSQL, and its Web UI.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::postgres;
use crate::command;
use crate::launch::{Farewell, Launch, Readiness};
use crate::places;
use crate::ports::Ports;
use crate::probe::{self, PostgresAddress};
use crate::progress::Task;
use crate::provision::Temporal;
use crate::template;
use crate::versions::Versions;

const SERVER: &str = include_str!("../../../deploy/temporal/server.yaml");
const DYNAMIC: &str = include_str!("../../../deploy/temporal/dynamic.yaml");
const UI: &str = include_str!("../../../deploy/temporal/ui.yaml");
/// What is changed in the visibility database once its schema is there.
const VISIBILITY: &str = include_str!("../../../deploy/temporal/visibility.sql");
const VISIBILITY_DATABASE: &str = "temporal_visibility";
const ROLE: &str = "temporal";
/// The server collects its garbage at five times what it needs, or before it has more than this. At twice, Go's default,
/// a seventh of its processor time went into that.
const COLLECTING: [(&str, &str); 2] = [("GOGC", "400"), ("GOMEMLIMIT", "1536MiB")];

/// Makes or updates both databases, once per data directory and version.
pub(crate) fn ensure_schema(
    temporal: &Temporal,
    data_dir: &Path,
    postgres_port: u16,
    task: &Task,
) -> Result<()> {
    let dir = data_dir.join("temporal");
    places::create_dir(&dir)?;
    let version = &Versions::get().temporal;
    let marker = dir.join(format!("schema-{version}-{}", digest(&[VISIBILITY])));
    if marker.exists() {
        return Ok(());
    }
    for (database, schema) in [
        ("temporal", "temporal"),
        (VISIBILITY_DATABASE, "visibility"),
    ] {
        postgres::ensure_database(postgres_port, ROLE, database)?;
        let run = |arguments: &[&str]| {
            let mut tool = Command::new(&temporal.sql_tool);
            tool.args(["--db", database])
                .args(arguments)
                .env("SQL_PLUGIN", "postgres12")
                .env("SQL_HOST", "127.0.0.1")
                .env("SQL_PORT", postgres_port.to_string())
                .env("SQL_USER", ROLE)
                .env("SQL_PASSWORD", ROLE);
            command::run(task, &mut tool, None)
        };
        let address = PostgresAddress {
            port: postgres_port,
            user: ROLE,
            database,
        };
        if probe::query(
            address,
            "SELECT 1 FROM pg_tables WHERE tablename = 'schema_version'",
        )?
        .is_empty()
        {
            run(&["setup-schema", "-v", "0.0"])?;
        }
        let versioned = temporal.schema.join(schema).join("versioned");
        run(&[
            "update-schema",
            "-d",
            versioned.to_str().context("an odd cache directory")?,
        ])?;
        if database == VISIBILITY_DATABASE {
            probe::query(address, VISIBILITY)?;
        }
    }
    Ok(fs::write(marker, "")?)
}

/// Writes the configuration and says how to start the server.
pub(crate) fn launch(
    temporal: &Temporal,
    data_dir: &Path,
    ports: &Ports,
    namespace: &str,
) -> Result<Launch> {
    let dir = data_dir.join("temporal");
    places::create_dir(&dir)?;
    let dynamic = dir.join("dynamic.yaml");
    let server = template::expand(SERVER, &|name| {
        let port = match name {
            "POSTGRES_PORT" => "postgres",
            "METRICS_PORT" => "temporal-metrics",
            "HTTP_PORT" => "temporal-http",
            "FRONTEND_PORT" => "temporal",
            "HISTORY_PORT" => "temporal-history",
            "MATCHING_PORT" => "temporal-matching",
            "WORKER_PORT" => "temporal-worker",
            "FRONTEND_MEMBERSHIP_PORT" => "temporal-membership",
            "HISTORY_MEMBERSHIP_PORT" => "temporal-history-membership",
            "MATCHING_MEMBERSHIP_PORT" => "temporal-matching-membership",
            "WORKER_MEMBERSHIP_PORT" => "temporal-worker-membership",
            "DYNAMIC_CONFIG" => return Some(dynamic.to_str()?.to_owned()),
            _ => return None,
        };
        ports.get(port).ok().map(|port| port.to_string())
    })?;
    fs::write(dir.join("server.yaml"), &server)?;
    fs::write(&dynamic, DYNAMIC)?;
    let config = dir
        .join("server.yaml")
        .to_str()
        .context("an odd data directory")?
        .to_owned();
    Ok(Launch {
        name: "temporal".into(),
        layer: 1,
        program: temporal.server.clone(),
        args: ["--config-file", &config, "--allow-no-auth", "start"]
            .map(str::to_owned)
            .into(),
        env: COLLECTING
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        directory: dir,
        log: data_dir.join("logs/temporal.log"),
        readiness: Readiness::Temporal {
            http_port: ports.get("temporal-http")?,
            namespace: namespace.to_owned(),
        },
        port: Some(ports.get("temporal")?),
        account: None,
        farewell: Farewell::Terminate,
        stop_seconds: 20,
        ready_seconds: 180,
        lock_file: None,
        attempts: 2,
        configuration: digest(&[&server, DYNAMIC]),
    })
}

/// Writes the Web UI's configuration and says how to start it.
pub(crate) fn ui_launch(
    temporal: &Temporal,
    data_dir: &Path,
    ports: &Ports,
    namespace: &str,
) -> Result<Launch> {
    let dir = data_dir.join("temporal-ui");
    places::create_dir(&dir)?;
    let port = ports.get("temporal-ui")?;
    let config = template::expand(UI, &|name| match name {
        "FRONTEND_PORT" => ports.get("temporal").ok().map(|port| port.to_string()),
        "UI_PORT" => Some(port.to_string()),
        "NAMESPACE" => Some(namespace.to_owned()),
        _ => None,
    })?;
    fs::write(dir.join("ui.yaml"), &config)?;
    let root = dir.to_str().context("an odd data directory")?;
    Ok(Launch {
        name: "temporal-ui".into(),
        layer: 2,
        program: temporal.ui_server.clone(),
        args: ["--root", root, "--config", ".", "--env", "ui", "start"]
            .map(str::to_owned)
            .into(),
        env: Vec::new(),
        directory: dir,
        log: data_dir.join("logs/temporal-ui.log"),
        readiness: Readiness::Url(format!("http://127.0.0.1:{port}/healthz")),
        port: Some(port),
        account: None,
        farewell: Farewell::Terminate,
        stop_seconds: 5,
        ready_seconds: 180,
        lock_file: None,
        attempts: 1,
        configuration: digest(&[&config]),
    })
}

fn digest(texts: &[&str]) -> String {
    hex::encode(Sha256::digest(texts.concat()))
}
