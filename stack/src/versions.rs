//! The versions and checksums of everything the stack fetches, from `tools/`, compiled in.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::go_tool::GoModule;

/// The module whose tools are the Temporal servers.
pub(crate) const TEMPORAL: GoModule = GoModule {
    go_mod: include_str!("../../tools/temporal/go.mod"),
    go_sum: include_str!("../../tools/temporal/go.sum"),
};
/// Each of Go's tools with its package and its module.
pub(crate) const GO_TOOLS: [(&str, &str, GoModule); 2] = [
    (
        "helm",
        "helm.sh/helm/v3/cmd/helm",
        GoModule {
            go_mod: include_str!("../../tools/helm/go.mod"),
            go_sum: include_str!("../../tools/helm/go.sum"),
        },
    ),
    (
        "kubectl-validate",
        "sigs.k8s.io/kubectl-validate",
        GoModule {
            go_mod: include_str!("../../tools/kubectl-validate/go.mod"),
            go_sum: include_str!("../../tools/kubectl-validate/go.sum"),
        },
    ),
];
/// The Maven project whose dependencies are the broker.
pub(crate) const KAFKA_POM: &str = include_str!("../../tools/kafka/pom.xml");
/// The checksum of each of its jars, in the format of `sha256sum`.
pub(crate) const KAFKA_SHA256SUMS: &str = include_str!("../../tools/kafka/SHA256SUMS");

/// Each of Python's tools with what it consists of, in the format of pip's requirements.
pub(crate) const PYTHON_LOCKS: [(&str, &str); 1] = [(
    "schemathesis",
    include_str!("../../tools/python/schemathesis.txt"),
)];

static VERSIONS: LazyLock<Versions> = LazyLock::new(|| {
    toml::from_str(include_str!("../../tools/versions.toml"))
        .expect("tools/versions.toml is checked by a test of this crate")
});

/// What `tools/versions.toml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// Version of the Kafka broker.
    pub kafka: String,
    /// Version of the Temporal server.
    pub temporal: String,
    /// Version of Temporal's Web UI server.
    pub temporal_ui: String,
    /// PostgreSQL: what is accepted, and what is fetched otherwise.
    pub postgres: PostgresVersions,
    /// Java, Maven and Python.
    pub toolchain: ToolchainVersions,
    /// Cargo's own tools by crate name.
    pub cargo_tools: BTreeMap<String, String>,
    /// Go's tools by name.
    pub go_tools: BTreeMap<String, String>,
    /// Python's tools by their name on its package index.
    pub python_tools: BTreeMap<String, String>,
    /// Tools that are files in a jar.
    pub maven_tools: BTreeMap<String, MavenArtifact>,
}

/// A jar at Maven Central.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MavenArtifact {
    /// Its group and name, as `group:name`.
    pub artifact: String,
    /// Its version.
    pub version: String,
    /// Its checksum.
    pub sha256: String,
}

/// PostgreSQL's part of [`Versions`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresVersions {
    /// The oldest installed major version that is used as it is.
    pub minimum_major: u32,
    /// The version fetched from Maven Central otherwise.
    pub version: String,
    /// Its group and artifact, without the platform.
    pub artifact: String,
    /// The checksum of the jar by platform.
    pub sha256: BTreeMap<String, String>,
}

/// The toolchain's part of [`Versions`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolchainVersions {
    /// The oldest Java that runs the broker.
    pub java_minimum_major: u32,
    /// The Maven plugin that copies artifacts.
    pub maven_dependency_plugin: String,
    /// The oldest Python 3 that runs its tools, by the second part of its version.
    pub python_minimum_minor: u32,
}

impl Versions {
    /// The versions this build was compiled with.
    pub fn get() -> &'static Self {
        &VERSIONS
    }
}

/// The Go version that `tools/temporal/go.mod` asks for, such as `1.26.8`.
pub(crate) fn required_go() -> &'static str {
    TEMPORAL
        .go_mod
        .lines()
        .find_map(|line| line.strip_prefix("go "))
        .expect("tools/temporal/go.mod has a go line")
        .trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_that_repeat_a_version_agree() {
        let versions = Versions::get();
        assert!(KAFKA_POM.contains(&format!("<version>{}</version>", versions.kafka)));
        assert!(KAFKA_POM.contains(&format!(
            "<version>{}</version>",
            versions.toolchain.maven_dependency_plugin
        )));
        assert!(KAFKA_SHA256SUMS.contains(&format!("kafka_2.13-{}.jar", versions.kafka)));
        assert!(
            TEMPORAL
                .go_mod
                .contains(&format!("go.temporal.io/server v{}", versions.temporal))
        );
        assert!(TEMPORAL.go_mod.contains(&format!(
            "github.com/temporalio/ui-server/v2 v{}",
            versions.temporal_ui
        )));
        assert!(required_go().starts_with("1."));
        assert_eq!(versions.go_tools.len(), GO_TOOLS.len());
        for (name, package, module) in GO_TOOLS {
            let version = &versions.go_tools[name];
            let pinned = module.go_mod.lines().any(|line| {
                let mut words = line.trim().split(' ');
                let is_of = words.next().is_some_and(|path| package.starts_with(path));
                is_of && words.next() == Some(&format!("v{version}"))
            });
            assert!(pinned, "{name}");
        }
        assert_eq!(versions.python_tools.len(), PYTHON_LOCKS.len());
        for (name, lock) in PYTHON_LOCKS {
            let pinned = format!("{name}=={} ", versions.python_tools[name]);
            assert!(lock.lines().any(|line| line.starts_with(&pinned)), "{name}");
        }
    }

    #[test]
    fn every_checksum_is_one() {
        let versions = Versions::get();
        let sums = versions.postgres.sha256.values().map(String::as_str);
        let tools = versions.maven_tools.values();
        let jars = KAFKA_SHA256SUMS
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        for sum in sums
            .chain(jars)
            .chain(tools.map(|tool| tool.sha256.as_str()))
        {
            assert_eq!(sum.len(), 64, "{sum}");
            assert!(sum.chars().all(|digit| digit.is_ascii_hexdigit()), "{sum}");
        }
    }
}
