//! What the rules and dashboards ask of Prometheus.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::components::repository;

/// A query of a panel or rule.
#[derive(Debug, Clone)]
pub struct Query {
    /// Where it stands.
    pub of: String,
    /// In PromQL.
    pub expr: String,
}

/// One rule of a rule file.
#[derive(Debug, Deserialize)]
pub struct Rule {
    /// The name of what it records.
    pub record: Option<String>,
    /// The name of the alert.
    pub alert: Option<String>,
    /// In PromQL.
    pub expr: String,
    /// What an alert says.
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

/// The directory of rules and their tests.
pub fn rules_directory() -> PathBuf {
    repository().join("deploy/prometheus")
}

/// The files there whose names end so.
///
/// # Panics
/// When there is none.
pub fn files(directory: &str, suffix: &str) -> Vec<PathBuf> {
    let directory = repository().join(directory);
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("the directory is there")
        .map(|entry| entry.expect("it is readable").path())
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no file ends in {suffix}");
    files
}

/// Every rule.
///
/// # Panics
/// When a rule file cannot be read.
pub fn rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for file in files("deploy/prometheus", ".rules.yaml") {
        let text = fs::read_to_string(&file).expect("it is readable");
        let read: RuleFile = yaml_serde::from_str(&text).expect("it is a rule file");
        rules.extend(read.groups.into_iter().flat_map(|group| group.rules));
    }
    rules
}

/// Every query of every panel.
///
/// # Panics
/// When a dashboard cannot be read.
pub fn panels() -> Vec<Query> {
    let mut queries = Vec::new();
    for file in files("deploy/grafana", ".json") {
        let text = fs::read_to_string(&file).expect("it is readable");
        let dashboard: Value = serde_json::from_str(&text).expect("it is JSON");
        for panel in dashboard["panels"].as_array().expect("panels") {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().expect("a text").to_owned();
                queries.push(Query {
                    of: format!("{}, {}", text(&dashboard["title"]), text(&panel["title"])),
                    expr: text(&target["expr"]),
                });
            }
        }
    }
    queries
}

/// The names of the metrics that a query asks for: what is neither a function, a label nor a word
/// of PromQL begins with one of these.
pub fn metrics_of(expr: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    expr.split(|c| !is_name(c))
        .filter(|word| {
            ["meed_", "meed:", "temporal_", "process_"]
                .iter()
                .any(|prefix| word.starts_with(prefix))
        })
        .map(str::to_owned)
        .collect()
}
