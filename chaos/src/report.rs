//! What a run says at its end: a table for people, JSON for programs.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::faults::Broken;
use crate::oracle::Property;
use crate::quiesce::Open;
use crate::services::Counts;

/// Everything there is to say.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// All properties hold and all that was to be reached was.
    pub holds: bool,
    /// The command that makes the same choices again.
    pub command: String,
    /// The seed.
    pub seed: u64,
    /// A digest of every choice that was made from it.
    pub plan: String,
    /// Event deliveries that Kafka took, with requests to redeem.
    pub deliveries: usize,
    /// Redemptions that were accepted.
    pub redemptions: usize,
    /// How redemptions ended, by reason.
    pub ends: BTreeMap<String, usize>,
    /// Answers of the api by what was asked and their status.
    pub answers: BTreeMap<String, usize>,
    /// How often a request had no definite answer and was repeated.
    pub repeated: u32,
    /// Tier upgrades.
    pub upgrades: usize,
    /// All kills, by the runner and by crash points.
    pub kills: u32,
    /// Kills by the runner.
    pub kills_by_target: BTreeMap<&'static str, u32>,
    /// Kills of services that passed none of their crash points for a while.
    pub rearmed: BTreeMap<&'static str, u32>,
    /// Pauses.
    pub pauses: BTreeMap<&'static str, u32>,
    /// Connections that were cut.
    pub cuts: BTreeMap<&'static str, u32>,
    /// Times that the merchant was told to lie.
    pub lies: u32,
    /// How often each crash point was reached.
    pub crash_points: BTreeMap<&'static str, u32>,
    /// Crash points that were reached less often than was asked for.
    pub short_of: Vec<(&'static str, u32)>,
    /// Ends that nobody had asked for.
    pub ended_by_themselves: BTreeMap<String, u32>,
    /// Seconds of each part of the run.
    pub seconds: Vec<(&'static str, f64)>,
    /// What was left open.
    pub left_open: Open,
    /// Each property.
    pub properties: Vec<Property>,
    /// Where data and logs are, when they were kept.
    pub kept: Option<String>,
}

/// What was counted while things were broken.
#[derive(Debug)]
pub struct Counted {
    /// By the runner.
    pub broken: Broken,
    /// By the supervisor.
    pub counts: Counts,
}

impl Counted {
    /// All kills together.
    pub fn kills(&self) -> u32 {
        let by_runner: u32 = self.broken.kills.values().sum();
        let by_points: u32 = self.counts.reached.values().sum();
        let rearmed: u32 = self.counts.rearmed.values().sum();
        by_runner + by_points + rearmed
    }
}

impl Report {
    /// Writes the JSON.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text).with_context(|| path.display().to_string())
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("\n{}", self.counts());
        println!("\n{}", self.verdicts());
        for property in &self.properties {
            for example in &property.examples {
                println!("  {}: {example}", property.name);
            }
            for listed in &property.listed {
                println!("  listed: {listed}");
            }
        }
        for (point, reached) in &self.short_of {
            println!("  {point} was reached {reached} times only");
        }
        if let Some(kept) = &self.kept {
            println!("\nData and logs are in {kept}.");
        }
        println!("\nThe same choices again: {}", self.command);
        println!(
            "{}",
            if self.holds {
                "Nothing lost, nothing twice."
            } else {
                "It does not hold."
            }
        );
    }

    fn counts(&self) -> Table {
        let mut table = table();
        let mut row = |name: &str, value: String| {
            table.add_row([name.to_owned(), value]);
        };
        row("seed, plan", format!("{}, {}", self.seed, self.plan));
        row("deliveries", self.deliveries.to_string());
        row(
            "redemptions",
            format!("{} ({})", self.redemptions, listed(&self.ends)),
        );
        row("answers", listed(&self.answers));
        row("repeated for want of an answer", self.repeated.to_string());
        row("tier upgrades", self.upgrades.to_string());
        row("kills", self.kills.to_string());
        row("  by the runner", listed(&self.kills_by_target));
        row(
            "  of crash points",
            self.crash_points.values().sum::<u32>().to_string(),
        );
        row("  to arm others", listed(&self.rearmed));
        row("pauses", listed(&self.pauses));
        row("cuts", listed(&self.cuts));
        row("lies", self.lies.to_string());
        row("ended by themselves", listed(&self.ended_by_themselves));
        row("crash points", listed(&self.crash_points));
        let seconds = self
            .seconds
            .iter()
            .map(|(name, s)| format!("{name} {s:.0} s"));
        row("time", seconds.collect::<Vec<_>>().join(", "));
        table
    }

    fn verdicts(&self) -> Table {
        let mut table = table();
        table.set_header(["property", "looked at", "violations", ""]);
        for property in &self.properties {
            table.add_row([
                property.name.to_owned(),
                property.looked_at.to_string(),
                property.violations.to_string(),
                if property.holds() { "holds" } else { "BROKEN" }.to_owned(),
            ]);
        }
        table
    }
}

pub(crate) fn table() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table
}

fn listed<K: std::fmt::Display, V: std::fmt::Display>(counts: &BTreeMap<K, V>) -> String {
    let words: Vec<String> = counts.iter().map(|(k, v)| format!("{k} {v}")).collect();
    if words.is_empty() {
        "none".to_owned()
    } else {
        words.join(", ")
    }
}
