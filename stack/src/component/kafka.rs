//! One broker that is its own controller.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::command;
use crate::launch::{Farewell, Launch, Readiness};
use crate::places;
use crate::provision::Kafka;
use crate::template;

const PROPERTIES: &str = include_str!("../../../deploy/kafka/broker.properties");
const LOGGING: &str = include_str!("../../../deploy/kafka/log4j2.properties");
/// Sixteen bytes in the alphabet of Kafka's cluster ids.
const CLUSTER_ID: &str = "b25lLWJyb2tlci1zdGFjaw";

/// The two ports of a broker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BrokerPorts {
    pub(crate) clients: u16,
    pub(crate) controller: u16,
}

/// Writes the configuration into `dir` and, where there is none yet, formats the storage; returns the properties file.
pub(crate) fn format(kafka: &Kafka, dir: &Path, ports: BrokerPorts) -> Result<PathBuf> {
    places::create_dir(dir)?;
    let log_dir = dir.join("data");
    let text = template::expand(PROPERTIES, &|name| match name {
        "CLIENTS_PORT" => Some(ports.clients.to_string()),
        "CONTROLLER_PORT" => Some(ports.controller.to_string()),
        "LOG_DIR" => Some(log_dir.to_str()?.to_owned()),
        _ => None,
    })?;
    let properties = dir.join("broker.properties");
    fs::write(&properties, text)?;
    fs::write(dir.join("log4j2.properties"), LOGGING)?;
    if !log_dir.join("meta.properties").exists() {
        let mut storage = Command::new(&kafka.java);
        storage.args([
            "-Xshare:auto",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
        ]);
        if let Some(archive) = &kafka.archive {
            storage.arg(format!("-XX:SharedArchiveFile={}", archive.display()));
        }
        storage
            .args(["-cp", &kafka.classpath])
            .arg(format!(
                "-Dlog4j2.configurationFile={}",
                dir.join("log4j2.properties").display()
            ))
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
            .arg(&properties);
        command::output(&mut storage).context("Kafka's storage could not be formatted")?;
    }
    Ok(properties)
}

/// Java's arguments for a broker in `dir`.
pub(crate) fn arguments(kafka: &Kafka, dir: &Path, properties: &Path) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "-Xms64m",
        "-Xmx256m",
        "-Xss512k",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
    ]
    .map(str::to_owned)
    .into();
    if let Some(archive) = &kafka.archive {
        arguments.push(format!("-XX:SharedArchiveFile={}", archive.display()));
    }
    arguments.extend(["-cp".to_owned(), kafka.classpath.clone()]);
    arguments.push(format!(
        "-Dlog4j2.configurationFile={}",
        dir.join("log4j2.properties").display()
    ));
    arguments.extend(["kafka.Kafka".to_owned(), properties.display().to_string()]);
    arguments
}

/// Prepares a broker and says how to start it.
pub(crate) fn launch(kafka: &Kafka, data_dir: &Path, ports: BrokerPorts) -> Result<Launch> {
    let dir = data_dir.join("kafka");
    let properties = format(kafka, &dir, ports)?;
    let configuration = hex::encode(Sha256::digest(
        [
            fs::read(&properties)?,
            fs::read(dir.join("log4j2.properties"))?,
        ]
        .concat(),
    ));
    Ok(Launch {
        name: "kafka".into(),
        layer: 1,
        program: kafka.java.clone(),
        args: arguments(kafka, &dir, &properties),
        env: Vec::new(),
        directory: dir,
        log: data_dir.join("logs/kafka.log"),
        readiness: Readiness::Kafka(ports.clients),
        port: Some(ports.clients),
        account: None,
        farewell: Farewell::Terminate,
        stop_seconds: 20,
        ready_seconds: 60,
        lock_file: None,
        attempts: 1,
        configuration,
    })
}
