//! What is needed to start a process again in the same way.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::places::Account;
use crate::probe::{self, PostgresAddress};

/// How one finds out that a process serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// It serves as soon as it runs.
    Running,
    /// It answers an HTTP `GET` of this address with a success.
    Url(String),
    /// PostgreSQL answers a query at this port.
    Postgres(u16),
    /// A broker answers at this port.
    Kafka(u16),
    /// Temporal serves this namespace over its HTTP port; a missing namespace is made.
    Temporal {
        /// The frontend's HTTP port.
        http_port: u16,
        /// The namespace that has to be usable.
        namespace: String,
    },
}

impl Readiness {
    /// Asks once.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Running => Ok(()),
            Self::Url(url) => probe::http_answers(url),
            Self::Postgres(port) => {
                let address = PostgresAddress {
                    port: *port,
                    user: "postgres",
                    database: "postgres",
                };
                probe::query(address, "SELECT 1").map(|_| ())
            }
            Self::Kafka(port) => probe::kafka_answers(*port),
            Self::Temporal {
                http_port,
                namespace,
            } => temporal_serves(*http_port, namespace),
        }
    }
}

fn temporal_serves(http_port: u16, namespace: &str) -> Result<()> {
    let namespaces = format!("http://127.0.0.1:{http_port}/api/v1/namespaces");
    if probe::http_answers(&format!("{namespaces}/{namespace}")).is_err() {
        let body = serde_json::json!({
            "namespace": namespace,
            "workflowExecutionRetentionPeriod": "86400s",
        });
        let status = probe::http_post(&namespaces, &body)?;
        if !(200..300).contains(&status) {
            bail!("the namespace could not be made: Temporal answered {status}");
        }
    }
    // A new namespace is known at once and usable a moment later.
    probe::http_answers(&format!("{namespaces}/{namespace}/workflows?pageSize=1"))
}

/// The signal that asks a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Farewell {
    /// `SIGTERM`.
    Terminate,
    /// `SIGINT`, PostgreSQL's fast shutdown.
    Interrupt,
}

/// Everything needed to start a process again in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The name it is called by.
    pub name: String,
    /// Ends before those of a lower layer.
    pub layer: u8,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables beside those of the process that starts it.
    pub env: Vec<(String, String)>,
    /// Where it runs.
    pub directory: PathBuf,
    /// Where its output is appended.
    pub log: PathBuf,
    /// How one finds out that it serves.
    pub readiness: Readiness,
    /// The port to show for it.
    pub port: Option<u16>,
    /// Whom it runs as, if not as the one who starts it.
    pub account: Option<Account>,
    /// How it is asked to end.
    pub farewell: Farewell,
    /// How long it may take to end.
    pub stop_seconds: u64,
    /// How long it may take to serve.
    pub ready_seconds: u64,
    /// A file that keeps a second process from starting and whose first line is the pid of the first.
    pub lock_file: Option<PathBuf>,
    /// How often a start that fails is tried.
    pub attempts: u32,
    /// Digest of what else decides how it runs, such as a configuration file.
    pub configuration: String,
}

/// A process beside the components.
#[derive(Debug, Clone)]
pub struct Service {
    /// The name it is called by.
    pub name: String,
    /// The program, relative to `directory` or absolute.
    pub command: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables beside those of [`Stack::env`](crate::Stack::env), which every service gets.
    pub env: Vec<(String, String)>,
    /// Where it runs; the current directory by default.
    pub directory: Option<PathBuf>,
    /// Answers an HTTP `GET` with a success once it serves; without one it serves as soon as it runs.
    pub ready_url: Option<String>,
    /// Where its output is appended; `logs/NAME.log` in the data directory by default.
    pub log_file: Option<PathBuf>,
    /// The port to show for it.
    pub port: Option<u16>,
    /// How long it may take to end after `SIGTERM`.
    pub stop_seconds: u64,
    /// How long it may take to serve.
    pub ready_seconds: u64,
}

impl Service {
    /// A service without arguments that counts as serving as soon as it runs.
    pub fn new(name: impl Into<String>, command: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            command: command.into(),
            args: Vec::new(),
            env: Vec::new(),
            directory: None,
            ready_url: None,
            log_file: None,
            port: None,
            stop_seconds: 30,
            ready_seconds: 180,
        }
    }

    pub(crate) fn launch(self, data_dir: &Path, env: Vec<(String, String)>) -> Result<Launch> {
        let directory = match self.directory {
            Some(directory) => std::path::absolute(directory)?,
            None => std::env::current_dir()?,
        };
        let in_path = self.command.components().count() == 1;
        let program = if in_path {
            self.command
        } else {
            directory.join(self.command)
        };
        let log = self
            .log_file
            .unwrap_or_else(|| data_dir.join("logs").join(format!("{}.log", self.name)));
        Ok(Launch {
            name: self.name,
            layer: 2,
            program,
            args: self.args,
            env: env.into_iter().chain(self.env).collect(),
            directory,
            log: std::path::absolute(log)?,
            readiness: self.ready_url.map_or(Readiness::Running, Readiness::Url),
            port: self.port,
            account: None,
            farewell: Farewell::Terminate,
            stop_seconds: self.stop_seconds,
            ready_seconds: self.ready_seconds,
            lock_file: None,
            attempts: 1,
            configuration: String::new(),
        })
    }
}
