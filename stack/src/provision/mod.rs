//! Finds or makes the programs of each component. What is missing is fetched by the language's own client, checked
//! against a checksum of this repository, and kept in the cache.

mod kafka;
mod postgres;
mod temporal;

use std::path::PathBuf;
use std::thread;

use anyhow::{Result, anyhow};

pub use self::kafka::Kafka;
pub use self::postgres::{Postgres, from_maven as postgres_from_maven};
pub use self::temporal::Temporal;
use crate::cache::Cache;
use crate::component::Component;
use crate::progress::Progress;
use crate::toolchain::{self, Need};

/// The programs of the components that were asked for.
#[derive(Debug, Clone, Default)]
pub struct Provisioned {
    /// PostgreSQL's programs.
    pub postgres: Option<Postgres>,
    /// The broker's classes.
    pub kafka: Option<Kafka>,
    /// Temporal's servers.
    pub temporal: Option<Temporal>,
    /// The `nginx` program.
    pub nginx: Option<PathBuf>,
    /// The `prometheus` program.
    pub prometheus: Option<PathBuf>,
}

/// Finds or makes what these components need, all at the same time.
pub fn provision(
    components: &[Component],
    cache: &Cache,
    progress: &Progress,
) -> Result<Provisioned> {
    let wants = |component| components.contains(&component);
    let mut needs = Vec::new();
    if wants(Component::Kafka) {
        needs.push(Need::Java);
        if kafka::is_missing(cache) {
            needs.push(Need::Maven);
        }
    }
    let installed = if wants(Component::Postgres) {
        postgres::installed()?
    } else {
        None
    };
    if wants(Component::Postgres) && installed.is_none() && postgres::is_missing(cache)? {
        needs.push(Need::Maven);
    }
    if wants(Component::Temporal) && temporal::is_missing(cache)? {
        needs.push(Need::Go);
    }
    if wants(Component::Nginx) {
        needs.push(Need::Nginx);
    }
    if wants(Component::Prometheus) {
        needs.push(Need::Prometheus);
    }
    toolchain::ensure(&needs, cache, progress)?;

    thread::scope(|scope| {
        let kafka =
            wants(Component::Kafka).then(|| scope.spawn(|| kafka::provision(cache, progress)));
        let temporal = wants(Component::Temporal)
            .then(|| scope.spawn(|| temporal::provision(cache, progress)));
        let postgres = match (wants(Component::Postgres), installed) {
            (false, _) => None,
            (true, Some(installed)) => Some(installed),
            (true, None) => Some(postgres::from_maven(cache, progress)?),
        };
        Ok(Provisioned {
            postgres,
            kafka: joined(kafka)?,
            temporal: joined(temporal)?,
            nginx: toolchain::find_nginx().filter(|_| wants(Component::Nginx)),
            prometheus: wants(Component::Prometheus).then(|| PathBuf::from("prometheus")),
        })
    })
}

fn joined<T>(thread: Option<thread::ScopedJoinHandle<'_, Result<T>>>) -> Result<Option<T>> {
    let joined = thread.map(|thread| {
        thread
            .join()
            .map_err(|_| anyhow!("a provisioning step panicked"))?
    });
    joined.transpose()
}
