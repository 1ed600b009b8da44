//! What was measured: a table for people, JSON for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::{Value, json};

use crate::sampling::Uses;
use crate::system::repository;

/// Everything there is to say of one benchmark.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Its name, also of its file.
    pub name: &'static str,
    /// The machine: processors, memory, kernel.
    pub machine: Value,
    /// Meed's commit, and the versions of what it runs on.
    pub versions: Value,
    /// Settings that matter for these figures.
    pub settings: BTreeMap<String, Value>,
    /// What was measured, in the order in which it is shown.
    pub figures: Vec<Figure>,
    /// What was to be reached.
    pub goals: Vec<Goal>,
    /// What has to be known to read it.
    pub notes: Vec<String>,
}

/// One quantity, measured once in each round.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    /// What it is, such as `Meed` or `(a) PostgreSQL alone`.
    pub name: String,
    /// Its unit, such as `events/s`.
    pub unit: &'static str,
    /// What each round found.
    pub rounds: Vec<f64>,
    /// The middle of them.
    pub median: f64,
    /// What processes used in the last round.
    pub uses: Uses,
}

/// Something to be reached.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Goal {
    /// What, such as `at least 0.30 of (a)`.
    pub wanted: String,
    /// What was found.
    pub found: f64,
    /// Whether it is reached.
    pub reached: bool,
    /// Why it is not; empty when it is.
    pub why_not: String,
}

impl Figure {
    /// A quantity and what each round found.
    pub fn new(name: impl Into<String>, unit: &'static str, rounds: Vec<f64>, uses: Uses) -> Self {
        Self {
            name: name.into(),
            unit,
            median: median(&rounds),
            rounds,
            uses,
        }
    }
}

/// The middle of these; zero of none.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

impl Report {
    /// An empty report of this machine and commit.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            machine: machine(),
            versions: versions(),
            settings: BTreeMap::new(),
            figures: Vec::new(),
            goals: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Says what a setting was.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.settings.insert(name.to_owned(), value.into());
    }

    /// Adds what was measured, and gives its median.
    pub fn add(&mut self, figure: Figure) -> f64 {
        let median = figure.median;
        self.figures.push(figure);
        median
    }

    /// A goal that wants at least so much; `why_not` is said when it is not reached.
    pub fn at_least(&mut self, goal: &str, found: f64, wanted: f64, why_not: &str) {
        self.goal(goal, found, found >= wanted, why_not);
    }

    /// A goal that wants no more than so much.
    pub fn at_most(&mut self, goal: &str, found: f64, wanted: f64, why_not: &str) {
        self.goal(goal, found, found <= wanted, why_not);
    }

    fn goal(&mut self, goal: &str, found: f64, reached: bool, why_not: &str) {
        let why_not = if reached { "" } else { why_not };
        self.goals.push(Goal {
            wanted: goal.to_owned(),
            found,
            reached,
            why_not: why_not.to_owned(),
        });
    }

    /// Every goal is reached, or the report says why not.
    pub fn explained(&self) -> bool {
        let explained = |goal: &Goal| goal.reached || !goal.why_not.is_empty();
        self.goals.iter().all(explained)
    }

    /// Writes `target/bench/<name>.json`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self) -> Result<()> {
        let directory = repository().join("target/bench");
        std::fs::create_dir_all(&directory)?;
        let path: PathBuf = directory.join(format!("{}.json", self.name));
        std::fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("{} cannot be written", path.display()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = new_table(&["", "median", "rounds", "", "CPU s per 1,000, peak MiB"]);
        for figure in &self.figures {
            let rounds = figure.rounds.iter().map(|&round| number(round));
            let uses = figure.uses.iter().map(|(name, used)| {
                format!(
                    "{name} {:.2} s, {:.0} MiB",
                    used.cpu_seconds_per_thousand, used.peak_mib
                )
            });
            table.add_row([
                figure.name.clone(),
                number(figure.median),
                rounds.collect::<Vec<_>>().join(" "),
                figure.unit.to_owned(),
                uses.collect::<Vec<_>>().join("; "),
            ]);
        }
        writeln!(f, "{}\n{table}", self.name)?;
        let mut table = new_table(&["goal", "found", "", "why not"]);
        for goal in &self.goals {
            let reached = if goal.reached {
                "reached"
            } else {
                "not reached"
            };
            table.add_row([
                goal.wanted.clone(),
                number(goal.found),
                reached.to_owned(),
                goal.why_not.clone(),
            ]);
        }
        write!(f, "{table}")?;
        for note in &self.notes {
            write!(f, "\n{note}")?;
        }
        Ok(())
    }
}

fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.iter().copied());
    table
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let line = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value.map(|(_, value)| value.trim().to_owned())
    };
    json!({
        "processors": std::thread::available_parallelism().map_or(1, usize::from),
        "processor": line(&read("/proc/cpuinfo"), "model name"),
        "memory": line(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

fn versions() -> Value {
    let git = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(repository())
        .output();
    let commit = git.ok().filter(|output| output.status.success());
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let pinned = std::fs::read_to_string(repository().join("tools/versions.toml"));
    let pin = |name: &str| {
        let text = pinned.as_deref().unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once('='));
        value.map(|(_, value)| value.trim().trim_matches('"').to_owned())
    };
    json!({
        "meed": commit,
        "kafka": pin("kafka"),
        "temporal": pin("temporal"),
        "build": "release",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_goal_that_is_missed_without_a_reason_is_not_explained() {
        let mut report = Report::new("trial");
        report.at_least("at least 2", 3.0, 2.0, "");
        assert!(report.explained());
        report.at_most("at most 2", 3.0, 2.0, "the machine is slow");
        assert!(report.explained());
        report.at_least("at least 2", 1.0, 2.0, "");
        assert!(!report.explained());
    }
}
