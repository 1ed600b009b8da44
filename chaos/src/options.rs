//! What can be asked of a run.

use clap::Parser;

use crate::{planted, points};

/// How much of a run is not load: starting, coming to an end, judging.
const SECONDS_BESIDE_LOAD: f64 = 60.0;
/// Kills in a minute of load.
const KILLS_PER_MINUTE: f64 = 13.0;
/// Event deliveries for each kill, unless a number is given.
const DELIVERIES_PER_KILL: f64 = 300.0;
/// Redemptions for each kill, unless a number is given.
const REDEMPTIONS_PER_KILL: f64 = 30.0;
/// Of a hundred redemptions, so many are cancelled.
const CANCEL_PERCENT: u32 = 12;
/// What the short run has.
const SHORT: Size = Size {
    kills: 10,
    deliveries: 2_000,
    redemptions: 200,
    cancel_percent: CANCEL_PERCENT,
};

/// What a run that is aimed at one crash point has.
const AIMED: Size = Size {
    kills: 0,
    deliveries: 600,
    redemptions: 80,
    // What a step leaves half done shows when the client takes it back just then.
    cancel_percent: 50,
};

/// Runs Meed under load while killing everything, and says whether anything was lost or done twice.
///
/// Starts components and services of its own on fresh data, in a block of ports of its own.
/// Ends with 0 when every property holds.
#[derive(Debug, Clone, Parser)]
#[command(name = "chaos", version)]
pub struct Options {
    /// Decides what is sent and what is broken, in which order
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How long it may take, about, from the first start to the verdict
    #[arg(long, conflicts_with = "kills")]
    pub minutes: Option<f64>,
    /// How often something is killed; crash points come on top
    #[arg(long)]
    pub kills: Option<u32>,
    /// Event deliveries, with duplicates and malformed ones
    #[arg(long)]
    pub deliveries: Option<usize>,
    /// Redemptions, over both roads
    #[arg(long)]
    pub redemptions: Option<usize>,
    /// Each crash point has to be reached this often
    #[arg(long, default_value_t = 0)]
    pub targets: u32,
    /// Only this crash point, again and again, and no other faults unless --kills asks for them
    #[arg(long, value_parser = known_point)]
    pub point: Option<String>,
    /// No faults at all: the load alone
    #[arg(long)]
    pub no_faults: bool,
    /// Leave one safeguard out, and succeed only when its absence is found: its name, or `all`
    #[arg(long, value_parser = known_bug)]
    pub planted: Option<String>,
    /// A variable for Meed's services, as NAME=VALUE; may be repeated
    #[arg(long = "env", value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// The first of the ports that it uses
    #[arg(long, env = "MEED_CHAOS_PORT_BASE", default_value_t = 28_000)]
    pub port_base: u16,
    /// Where the report is written, relative to the repository
    #[arg(long, default_value = "target/chaos/report.json")]
    pub report: std::path::PathBuf,
    /// Take the programs as they were built last
    #[arg(long)]
    pub no_build: bool,
    /// Leave data and logs behind also when every property holds
    #[arg(long)]
    pub keep: bool,
}

/// How much is sent and killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Kills by the runner.
    pub kills: u32,
    /// Event deliveries.
    pub deliveries: usize,
    /// Redemptions.
    pub redemptions: usize,
    /// Of these, so many in a hundred are cancelled.
    pub cancel_percent: u32,
}

impl Options {
    /// How much is sent and killed.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of minutes gives numbers far from any limit"
    )]
    pub fn size(&self) -> Size {
        let share = |kills: u32, each: f64| (f64::from(kills) * each) as usize;
        let mut size = match (self.minutes, self.kills) {
            (Some(minutes), _) => {
                let of_load = (minutes - SECONDS_BESIDE_LOAD / 60.0).max(0.5);
                let kills = (of_load * KILLS_PER_MINUTE).round() as u32;
                Size {
                    kills,
                    deliveries: share(kills, DELIVERIES_PER_KILL),
                    redemptions: share(kills, REDEMPTIONS_PER_KILL),
                    cancel_percent: CANCEL_PERCENT,
                }
            }
            (None, Some(kills)) if kills > SHORT.kills => Size {
                kills,
                deliveries: share(kills, DELIVERIES_PER_KILL),
                redemptions: share(kills, REDEMPTIONS_PER_KILL),
                cancel_percent: CANCEL_PERCENT,
            },
            (None, kills) => {
                let usual = if self.point.is_some() { AIMED } else { SHORT };
                Size {
                    kills: kills.unwrap_or(usual.kills),
                    ..usual
                }
            }
        };
        if self.no_faults {
            size.kills = 0;
        }
        size.deliveries = self.deliveries.unwrap_or(size.deliveries);
        size.redemptions = self.redemptions.unwrap_or(size.redemptions);
        size
    }

    /// The command that makes the same choices again.
    pub fn command(&self) -> String {
        let mut words = vec![format!("./dev chaos --seed {}", self.seed)];
        let mut add = |name: &str, value: Option<String>| {
            words.extend(value.map(|value| format!("--{name} {value}")));
        };
        add("minutes", self.minutes.map(|n| n.to_string()));
        add("kills", self.kills.map(|n| n.to_string()));
        add("deliveries", self.deliveries.map(|n| n.to_string()));
        add("redemptions", self.redemptions.map(|n| n.to_string()));
        add(
            "targets",
            (self.targets > 0).then(|| self.targets.to_string()),
        );
        add("point", self.point.clone());
        add("planted", self.planted.clone());
        for (name, value) in &self.env {
            add("env", Some(format!("{name}={value}")));
        }
        if self.no_faults {
            words.push("--no-faults".to_owned());
        }
        words.join(" ")
    }
}

fn known_point(name: &str) -> Result<String, String> {
    if points::named(name).is_some() {
        return Ok(name.to_owned());
    }
    let names: Vec<&str> = points::POINTS.iter().map(|point| point.name).collect();
    Err(format!("there are: {}", names.join(", ")))
}

fn known_bug(name: &str) -> Result<String, String> {
    if name == "all" || planted::named(name).is_some() {
        return Ok(name.to_owned());
    }
    let names: Vec<&str> = planted::BUGS.iter().map(|bug| bug.name).collect();
    Err(format!("there are: all, {}", names.join(", ")))
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Options {
        Options::parse_from([&["chaos"], arguments].concat())
    }

    #[test]
    fn the_size_follows_from_what_is_asked() {
        assert_eq!(options(&[]).size(), SHORT);
        assert_eq!(options(&["--kills", "10"]).size(), SHORT);
        assert_eq!(options(&["--minutes", "3"]).size().kills, 26);
        assert_eq!(options(&["--point", "settle.after-commit"]).size(), AIMED);
        let long = options(&["--kills", "200", "--deliveries", "7"]).size();
        assert_eq!(
            (long.kills, long.deliveries, long.redemptions),
            (200, 7, 6_000)
        );
        assert_eq!(options(&["--kills", "200", "--no-faults"]).size().kills, 0);
    }

    #[test]
    fn the_command_says_all_that_was_chosen() {
        let asked = ["--seed", "7", "--kills", "3", "--env", "A=b", "--no-faults"];
        let command = options(&asked).command();
        assert_eq!(
            command,
            "./dev chaos --seed 7 --kills 3 --env A=b --no-faults"
        );
    }
}
