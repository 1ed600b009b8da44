//! Prometheus, which asks the services and Temporal for their metrics.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::launch::{Farewell, Launch, Readiness};
use crate::places;
use crate::template;

/// How long samples are kept.
const KEPT_FOR: &str = "7d";

/// Someone whose metrics are asked for, at `/metrics`.
#[derive(Debug)]
pub(crate) struct Target {
    /// What it is, the same for all replicas.
    pub(crate) job: String,
    /// Its port on this machine.
    pub(crate) port: u16,
}

/// Writes the configuration, made from `config`, and says how to start Prometheus at `port`.
pub(crate) fn launch(
    program: &Path,
    data_dir: &Path,
    port: u16,
    config: &Path,
    targets: &[Target],
) -> Result<Launch> {
    let dir = data_dir.join("prometheus");
    places::create_dir(&dir)?;
    let text = |path: &Path| -> Result<String> {
        Ok(path.to_str().context("an odd directory")?.to_owned())
    };
    let beside = config
        .parent()
        .context("a configuration file is somewhere")?;
    let targets_file = dir.join("targets.json");
    let (directory, targets_path) = (text(beside)?, text(&targets_file)?);
    let read = fs::read_to_string(config)
        .with_context(|| format!("{} cannot be read", config.display()))?;
    let filled = template::expand(&read, &|name| match name {
        "DIRECTORY" => Some(directory.clone()),
        "TARGETS" => Some(targets_path.clone()),
        _ => None,
    })?;
    let groups: Vec<Value> = targets
        .iter()
        .map(|target| {
            let address = format!("127.0.0.1:{}", target.port);
            json!({ "targets": [address], "labels": { "job": target.job } })
        })
        .collect();
    let groups = serde_json::to_string_pretty(&groups)?;
    let mut digest = Sha256::new();
    digest.update(&filled);
    digest.update(&groups);
    let main = dir.join("prometheus.yml");
    fs::write(&main, filled)?;
    fs::write(&targets_file, groups)?;
    Ok(Launch {
        name: "prometheus".into(),
        // Ends after the services that it asks.
        layer: 1,
        program: program.to_owned(),
        args: vec![
            format!("--config.file={}", text(&main)?),
            format!("--storage.tsdb.path={}", text(&dir.join("data"))?),
            format!("--storage.tsdb.retention.time={KEPT_FOR}"),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--log.level=warn".into(),
        ],
        env: Vec::new(),
        directory: dir,
        log: data_dir.join("logs/prometheus.log"),
        readiness: Readiness::Url(format!("http://127.0.0.1:{port}/-/ready")),
        port: Some(port),
        account: None,
        farewell: Farewell::Terminate,
        stop_seconds: 10,
        ready_seconds: 30,
        lock_file: None,
        attempts: 1,
        configuration: hex::encode(digest.finalize()),
    })
}
