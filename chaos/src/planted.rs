//! The check of the checker: Meed with one safeguard left out at a time, aimed at the moment that
//! the safeguard is for. Each of these runs must fail, and in the property that the bug breaks.

use anyhow::{Context as _, Result, bail};

use crate::options::Options;
use crate::report::{self, Report};
use crate::run;

/// A safeguard that can be left out, as `faultpoint` and the schema know it.
#[derive(Debug, Clone, Copy)]
pub struct Bug {
    /// Its name.
    pub name: &'static str,
    /// The crash point at which it shows.
    pub point: &'static str,
    /// How often that has to be reached for it to be seen.
    pub targets: u32,
    /// What it takes out of the schema: a safeguard that has a second one behind it is only out
    /// when both are.
    pub sql: &'static str,
    /// The properties of which at least one must break.
    pub breaks: &'static [&'static str],
}

const NO_UNIQUE_KEY: &str = "ALTER TABLE transfers DROP CONSTRAINT transfers_once";
const NO_HOLD_GUARD: &str = "ALTER TABLE transfers DROP CONSTRAINT transfers_once;
    DROP INDEX transfers_one_closing_per_hold;
    ALTER TABLE customers DROP CONSTRAINT customers_held_not_negative;";

/// All of them.
pub const BUGS: [Bug; 6] = [
    Bug {
        name: "unique-key",
        point: "offset.before-commit",
        targets: 4,
        sql: NO_UNIQUE_KEY,
        breaks: &["events have one effect"],
    },
    Bug {
        name: "offset-order",
        point: "intake.before-commit",
        targets: 4,
        sql: "",
        breaks: &["requests are answered", "events have one effect"],
    },
    Bug {
        name: "hold-guard",
        point: "settle.after-commit",
        // Most redemptions are settled in their first workflow task; one that is run again after a crash sees in its first
        // step that it has ended, and needs no guard.
        targets: 16,
        sql: NO_HOLD_GUARD,
        breaks: &["redemptions have one effect"],
    },
    Bug {
        name: "state-before-call",
        point: "partner.after-call",
        targets: 10,
        sql: "",
        breaks: &["merchants agree"],
    },
    Bug {
        name: "void-before-release",
        point: "void.before-call",
        targets: 4,
        sql: "",
        breaks: &["merchants agree"],
    },
    Bug {
        name: "outbox-mark",
        point: "relay.before-publish",
        targets: 4,
        sql: "",
        breaks: &["awards are confirmed", "redemptions are published"],
    },
];

/// The bug of this name.
pub fn named(name: &str) -> Option<&'static Bug> {
    BUGS.iter().find(|bug| bug.name == name)
}

/// The run that is aimed at a bug.
fn aimed(options: &Options, bug: &Bug) -> Options {
    Options {
        planted: Some(bug.name.to_owned()),
        point: Some(
            options
                .point
                .clone()
                .unwrap_or_else(|| bug.point.to_owned()),
        ),
        targets: options.targets.max(bug.targets),
        report: options
            .report
            .with_file_name(format!("planted-{}.json", bug.name)),
        // Built once, by the first.
        no_build: true,
        ..options.clone()
    }
}

/// What of a report speaks for the bug having been found.
fn found(bug: &Bug, report: &Report) -> Option<String> {
    report
        .properties
        .iter()
        .find(|property| !property.holds() && bug.breaks.contains(&property.name))
        .map(|property| {
            let example = property.examples.first().map_or("", String::as_str);
            format!("{}: {} ({example})", property.name, property.violations)
        })
}

/// Plants one bug after the other (or the one of this name) and answers whether each was found.
pub async fn run_all(options: &Options, which: &str) -> Result<bool> {
    let bugs: Vec<&Bug> = if which == "all" {
        BUGS.iter().collect()
    } else {
        vec![named(which).with_context(|| format!("no bug is called {which}"))?]
    };
    if !options.no_build {
        crate::system::build()?;
    }
    let mut table = report::table();
    table.set_header(["planted bug", "at", "found", "by"]);
    let mut all = true;
    for bug in bugs {
        println!("\n== Without the safeguard {}", bug.name);
        let report = run::run(&aimed(options, bug)).await?;
        if report.crash_points.values().sum::<u32>() == 0 {
            bail!("{} was never reached", bug.point);
        }
        let by = found(bug, &report);
        all &= by.is_some();
        table.add_row([
            bug.name,
            bug.point,
            if by.is_some() { "yes" } else { "NO" },
            by.as_deref()
                .unwrap_or("every property it should break holds"),
        ]);
    }
    println!("\n{table}");
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::points;

    #[test]
    fn each_bug_is_aimed_at_a_crash_point_that_there_is() {
        for bug in BUGS {
            assert!(points::named(bug.point).is_some(), "{}", bug.name);
            assert!(!bug.breaks.is_empty());
        }
        assert!(named("outbox-mark").is_some() && named("all").is_none());
    }
}
