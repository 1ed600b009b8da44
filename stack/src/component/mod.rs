//! How each component is configured and started.

pub(crate) mod kafka;
pub(crate) mod nginx;
pub(crate) mod postgres;
pub(crate) mod prometheus;
pub(crate) mod temporal;

use anyhow::{Result, bail};
use serde::Deserialize;

/// A part that the stack provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Component {
    /// PostgreSQL, as process `postgres`.
    Postgres,
    /// One broker as process `kafka`, or several as `kafka`, `kafka-2` and so on.
    Kafka,
    /// Temporal on PostgreSQL with its Web UI, as processes `temporal` and `temporal-ui`.
    Temporal,
    /// The plan's proxy, as process `nginx`; it runs when there are several of the service behind it.
    Nginx,
    /// Prometheus, as process `prometheus`; it runs when it is asked for.
    Prometheus,
}

impl Component {
    /// All that run without being asked for.
    pub const ALL: [Self; 3] = [Self::Postgres, Self::Kafka, Self::Temporal];

    /// The names of its processes.
    pub fn processes(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgres"],
            Self::Kafka => &["kafka"],
            Self::Temporal => &["temporal", "temporal-ui"],
            Self::Nginx => &["nginx"],
            Self::Prometheus => &["prometheus"],
        }
    }
}

impl std::str::FromStr for Component {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "postgres" => Self::Postgres,
            "kafka" => Self::Kafka,
            "temporal" => Self::Temporal,
            "nginx" => Self::Nginx,
            "prometheus" => Self::Prometheus,
            _ => bail!(
                "there is no component `{name}`; there are postgres, kafka, temporal, nginx and prometheus"
            ),
        })
    }
}
