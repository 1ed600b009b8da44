//! Brokers that are their own controllers: one, or a cluster on one machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::command;
use crate::launch::{Farewell, Launch, Readiness};
use crate::places;
use crate::ports::numbered;
use crate::provision::Kafka;
use crate::template;

const PROPERTIES: &str = include_str!("../../../deploy/kafka/broker.properties");
const LOGGING: &str = include_str!("../../../deploy/kafka/log4j2.properties");
/// Sixteen bytes in the alphabet of Kafka's cluster ids.
const CLUSTER_ID: &str = "b25lLWJyb2tlci1zdGFjaw";

/// Of how many brokers at most each keeps a copy of everything.
const MAX_COPIES: usize = 3;
/// How long a broker may be silent before its place is taken, in milliseconds. One that was killed cannot come back
/// before; several share this machine's processors and may wait for them.
const SILENCE_ALONE_MS: u32 = 1_000;
const SILENCE_MS: u32 = 3_000;

/// The ports of a broker: where it listens for clients, where it tells them to come, and where for controllers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BrokerPorts {
    pub(crate) clients: u16,
    pub(crate) advertised: u16,
    pub(crate) controller: u16,
}

/// Writes the configuration of one of a cluster's brokers, counted from 1, into `dir` and, where there is none yet,
/// formats the storage; returns the properties file.
pub(crate) fn format(
    kafka: &Kafka,
    dir: &Path,
    cluster: &[BrokerPorts],
    number: u16,
) -> Result<PathBuf> {
    places::create_dir(dir)?;
    let ports = cluster
        .get(usize::from(number) - 1)
        .context("a broker beyond its cluster")?;
    let voters = (1..).zip(cluster).map(|(id, ports): (u16, _)| {
        let port = ports.controller;
        format!("{id}@127.0.0.1:{port}")
    });
    let voters = voters.collect::<Vec<_>>().join(",");
    let copies = cluster.len().min(MAX_COPIES);
    // One of three may be away.
    let in_sync = copies.max(2) - 1;
    let silence = if cluster.len() == 1 {
        SILENCE_ALONE_MS
    } else {
        SILENCE_MS
    };
    let log_dir = dir.join("data");
    let text = template::expand(PROPERTIES, &|name| match name {
        "NODE_ID" => Some(number.to_string()),
        "VOTERS" => Some(voters.clone()),
        "COPIES" => Some(copies.to_string()),
        "IN_SYNC" => Some(in_sync.to_string()),
        "SILENCE_MS" => Some(silence.to_string()),
        "CLIENTS_PORT" => Some(ports.clients.to_string()),
        "ADVERTISED_PORT" => Some(ports.advertised.to_string()),
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

/// Prepares one of a cluster's brokers, counted from 1, and says how to start it.
pub(crate) fn launch(
    kafka: &Kafka,
    data_dir: &Path,
    cluster: &[BrokerPorts],
    number: u16,
) -> Result<Launch> {
    let name = numbered("kafka", number);
    let dir = data_dir.join(&name);
    let properties = format(kafka, &dir, cluster, number)?;
    let ports = cluster[usize::from(number) - 1];
    let configuration = hex::encode(Sha256::digest(
        [
            fs::read(&properties)?,
            fs::read(dir.join("log4j2.properties"))?,
        ]
        .concat(),
    ));
    Ok(Launch {
        log: data_dir.join(format!("logs/{name}.log")),
        name,
        layer: 1,
        program: kafka.java.clone(),
        args: arguments(kafka, &dir, &properties),
        env: Vec::new(),
        directory: dir,
        readiness: Readiness::Kafka(ports.clients),
        port: Some(ports.clients),
        account: None,
        farewell: Farewell::Terminate,
        stop_seconds: 20,
        ready_seconds: 180,
        lock_file: None,
        attempts: 1,
        configuration,
    })
}
