//! `meed verify`: recomputes what must be true of the ledger, and the hash chain over it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use comfy_table::Table;
use serde_json::{Value, json};
use store::{
    PgPool,
    chain::{Findings, Head},
    verify::{Check, Progress, Report},
};

/// How often the progress is told, and how long nothing is told at first.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Checks every property of the ledger and its chain, and prints what holds.
///
/// # Errors
/// When the database cannot be asked, or something does not hold.
pub async fn run(pool: &PgPool, noted: &[Head], as_json: bool) -> Result<()> {
    let mut progress = Told(Instant::now());
    let report = store::verify::report(pool, noted, &mut |step| progress.tell(step))
        .await
        .context("the ledger could not be read")?;
    let broken = broken(&report.checks).count();
    if as_json {
        println!("{:#}", to_json(&report));
    } else {
        print(&report);
    }
    if broken > 0 {
        bail!("{broken} of {} properties do not hold", report.checks.len());
    }
    if !as_json {
        println!("All {} properties hold.", report.checks.len());
    }
    Ok(())
}

fn broken(checks: &[Check]) -> impl Iterator<Item = &Check> {
    checks.iter().filter(|check| check.violations > 0)
}

/// When the progress was told last.
struct Told(Instant);

impl Told {
    fn tell(&mut self, step: Progress) {
        if self.0.elapsed() < TELL_EVERY {
            return;
        }
        self.0 = Instant::now();
        match step {
            Progress::Property { done, of, property } => {
                eprintln!("{done} of {of} properties looked at; now: {property}");
            }
            Progress::Chain(transfers) => eprintln!("{transfers} transfers of the chain looked at"),
        }
    }
}

fn print(report: &Report) {
    let mut table = Table::new();
    table.set_header(["property", "holds", "who breaks it"]);
    for check in &report.checks {
        let holds = if check.violations == 0 {
            "yes".to_owned()
        } else {
            format!("NO, {} times", check.violations)
        };
        table.add_row([
            check.property,
            holds.as_str(),
            check.examples.join("\n").as_str(),
        ]);
    }
    println!("{table}");
    let Findings {
        head,
        sealed,
        unsealed,
        examples,
        ..
    } = &report.chain;
    match head {
        Some(head) => println!("Sealed: {sealed} transfers; the head of the chain is {head}"),
        None => println!("Sealed: nothing yet"),
    }
    println!("Not yet sealed: {unsealed} transfers");
    if let Some(first) = examples.first() {
        println!("First bad row: {first}");
    }
}

fn to_json(report: &Report) -> Value {
    let checks: Vec<Value> = report
        .checks
        .iter()
        .map(|check| {
            json!({
                "property": check.property,
                "holds": check.violations == 0,
                "violations": check.violations,
                "examples": check.examples,
            })
        })
        .collect();
    let chain = &report.chain;
    let faults: Vec<Value> = chain
        .examples
        .iter()
        .map(|violation| {
            json!({
                "transferId": violation.transfer_id,
                "fault": violation.fault.as_str(),
                "text": violation.to_string(),
            })
        })
        .collect();
    json!({
        "holds": broken(&report.checks).next().is_none(),
        "checks": checks,
        "chain": {
            "head": chain.head.as_ref().map(|head| json!({
                "transferId": head.transfer_id,
                "hash": head.hex(),
            })),
            "sealed": chain.sealed,
            "unsealed": chain.unsealed,
            "violations": chain.violations,
            "firstViolations": faults,
        },
    })
}
