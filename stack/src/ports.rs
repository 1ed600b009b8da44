//! The block of ports of one stack.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::TcpListener;

use anyhow::{Context, Result, bail};

use crate::process;

/// Name, distance from the base, and the variable that moves this port alone.
const COMPONENT_PORTS: &[(&str, u16, &str)] = &[
    ("postgres", 10, "MEED_POSTGRES_PORT"),
    ("kafka", 20, "MEED_KAFKA_PORT"),
    ("kafka-controller", 21, "MEED_KAFKA_CONTROLLER_PORT"),
    ("temporal-ui", 30, "MEED_TEMPORAL_UI_PORT"),
    ("temporal-http", 31, "MEED_TEMPORAL_HTTP_PORT"),
    ("temporal-metrics", 32, "MEED_TEMPORAL_METRICS_PORT"),
    ("temporal", 40, "MEED_TEMPORAL_PORT"),
    ("temporal-history", 41, "MEED_TEMPORAL_HISTORY_PORT"),
    ("temporal-matching", 42, "MEED_TEMPORAL_MATCHING_PORT"),
    ("temporal-worker", 46, "MEED_TEMPORAL_WORKER_PORT"),
    ("temporal-membership", 50, "MEED_TEMPORAL_MEMBERSHIP_PORT"),
    (
        "temporal-history-membership",
        51,
        "MEED_TEMPORAL_HISTORY_MEMBERSHIP_PORT",
    ),
    (
        "temporal-matching-membership",
        52,
        "MEED_TEMPORAL_MATCHING_MEMBERSHIP_PORT",
    ),
    (
        "temporal-worker-membership",
        56,
        "MEED_TEMPORAL_WORKER_MEMBERSHIP_PORT",
    ),
    ("nginx", 60, "MEED_NGINX_PORT"),
    ("prometheus", 61, "MEED_PROMETHEUS_PORT"),
];

/// Of how many brokers a stack's Kafka may consist. Each has two ports, the second's after those of the first.
pub const MAX_BROKERS: u16 = 5;
/// How many of one service a stack may run. The ports of the second of each are this far from those of the first, and
/// so on, so that a service with several may have an offset below [`REPLICAS_STEP`].
pub const MAX_REPLICAS: u16 = 4;
const REPLICAS_OFFSET: u16 = 70;
pub(crate) const REPLICAS_STEP: u16 = 10;

/// How many ports a stack may use from its base on.
pub const BLOCK_SIZE: u16 = 100;

#[derive(Debug, Clone)]
struct Port {
    number: u16,
    variable: String,
}

/// The ports of one stack by name: a base, and what was moved away from it.
#[derive(Debug, Clone)]
pub struct Ports {
    base: u16,
    by_name: BTreeMap<String, Port>,
}

impl Ports {
    /// The block that begins at `base`, whatever the environment says.
    pub fn at(base: u16) -> Self {
        let mut ports = Self {
            base,
            by_name: BTreeMap::new(),
        };
        for (name, offset, variable) in COMPONENT_PORTS {
            ports.declare(name, *offset, variable);
        }
        for number in 2..=MAX_BROKERS {
            let offset = 20 + 2 * (number - 1);
            for (name, offset) in [("kafka", offset), ("kafka-controller", offset + 1)] {
                let variable = name.to_uppercase().replace('-', "_");
                ports.declare(
                    &numbered(name, number),
                    offset,
                    &format!("MEED_{variable}_{number}_PORT"),
                );
            }
        }
        ports
    }

    /// Adds the ports of a service's replicas from the second on.
    pub(crate) fn declare_replicas(&mut self, name: &str, offset: u16, variable: &str) {
        let stem = variable.strip_suffix("_PORT").unwrap_or(variable);
        for number in 2..=MAX_REPLICAS {
            self.declare(
                &numbered(name, number),
                REPLICAS_OFFSET + REPLICAS_STEP * (number - 2) + offset,
                &format!("{stem}_{number}_PORT"),
            );
        }
    }

    /// Adds a port of a service.
    pub fn declare(&mut self, name: &str, offset: u16, variable: &str) {
        let port = Port {
            number: self.base + offset,
            variable: variable.to_owned(),
        };
        self.by_name.insert(name.to_owned(), port);
    }

    /// Moves each port whose variable is set in the environment of this process.
    pub fn overridden_by_environment(mut self) -> Result<Self> {
        for port in self.by_name.values_mut() {
            if let Ok(text) = std::env::var(&port.variable) {
                port.number = parse(&port.variable, &text)?;
            }
        }
        Ok(self)
    }

    /// The first port of the block.
    pub fn base(&self) -> u16 {
        self.base
    }

    /// The port of this name; a name that was never declared is a mistake of the caller.
    pub fn get(&self, name: &str) -> Result<u16> {
        let port = self.by_name.get(name);
        port.map(|port| port.number)
            .with_context(|| format!("no port is called `{name}`"))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Fails with one message if one of these ports is taken.
    pub(crate) fn require_free(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let Some(port) = self.by_name.get(*name) else {
                continue;
            };
            match TcpListener::bind(("127.0.0.1", port.number)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::AddrInUse => {
                    let holder = process::listener_on(port.number)
                        .map_or_else(String::new, |holder| {
                            format!(" (held by process {}: {})", holder.pid, holder.command)
                        });
                    bail!(
                        "port {} for {name} is in use{holder}; end that process, set {} to another port, or move the \
                         whole block with MEED_PORT_BASE",
                        port.number,
                        port.variable,
                    );
                }
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("port {} for {name} cannot be opened", port.number)
                    });
                }
            }
        }
        Ok(())
    }
}

/// The name of the first, second, … of several: `api`, `api-2`, ….
pub(crate) fn numbered(name: &str, number: u16) -> String {
    if number == 1 {
        name.to_owned()
    } else {
        format!("{name}-{number}")
    }
}

/// Reads a port number out of a variable.
pub(crate) fn parse(variable: &str, text: &str) -> Result<u16> {
    text.trim()
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .with_context(|| format!("{variable} is `{text}`, which is not a port number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_does_not_reach_into_the_next() {
        for (name, offset, _) in COMPONENT_PORTS {
            assert!(*offset < BLOCK_SIZE, "{name}");
        }
    }

    #[test]
    fn no_two_have_the_same_port() {
        let mut ports = Ports::at(20000);
        for offset in 0..REPLICAS_STEP {
            let name = format!("service{offset}");
            ports.declare(&name, offset, "TRIAL_PORT");
            ports.declare_replicas(&name, offset, "TRIAL_PORT");
        }
        let numbers: std::collections::BTreeSet<u16> =
            ports.by_name.values().map(|port| port.number).collect();
        assert_eq!(numbers.len(), ports.by_name.len());
        assert!(numbers.iter().all(|port| *port < 20000 + BLOCK_SIZE));
        assert_eq!(ports.by_name["kafka-3"].variable, "MEED_KAFKA_3_PORT");
        assert_eq!(ports.by_name["service0-2"].variable, "TRIAL_2_PORT");
    }

    #[test]
    fn a_taken_port_is_named_with_its_variable_and_holder() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let number = taken.local_addr().unwrap().port();
        let mut ports = Ports::at(20000);
        ports.by_name.insert(
            "trial".into(),
            Port {
                number,
                variable: "TRIAL_PORT".into(),
            },
        );
        let message = ports.require_free(&["trial"]).unwrap_err().to_string();
        assert!(message.contains(&number.to_string()), "{message}");
        assert!(message.contains("TRIAL_PORT"), "{message}");
        if cfg!(target_os = "linux") {
            assert!(
                message.contains(&std::process::id().to_string()),
                "{message}"
            );
        }
    }

    #[test]
    fn a_port_is_a_number() {
        assert_eq!(parse("P", " 8080 ").unwrap(), 8080);
        assert!(parse("P", "0").is_err());
        assert!(
            parse("P", "eighty")
                .unwrap_err()
                .to_string()
                .contains("eighty")
        );
    }
}
