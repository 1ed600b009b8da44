//! What an event costs with one, two and four workers, and as many partitions.

use anyhow::{Result, ensure};
use stack::Progress;

use crate::award::{self, Customers, Meed, Orders, Run};
use crate::options::Options;
use crate::report::{Figure, Report, median};
use crate::system::System;

/// The workers by name, as the plan numbers them.
const WORKERS: [&str; 4] = ["worker", "worker-2", "worker-3", "worker-4"];
/// With how many of them, and of the partitions, it is measured.
const COUNTS: [usize; 3] = [1, 2, 4];
/// Customers over whom events are spread.
const CUSTOMERS: usize = 10_000;
/// Events of one run.
const EVENTS: usize = 60_000;
/// Events that come before, so that everything is at work.
const WARM_UP: usize = 10_000;
/// How much more an event may cost with the most workers than with one.
const LEVEL: f64 = 1.25;
/// The process that sends and counts; whoever sends events in earnest is not Meed's cost.
const LOAD: &str = "bench";

/// Measures awards with several workers.
///
/// # Errors
/// When something does not run, or its result is wrong.
pub async fn measure(options: &Options) -> Result<Report> {
    let mut report = Report::new("scale");
    report.set("eventsInARun", options.scaled(EVENTS));
    let mut runs = COUNTS.map(|count| (count, Vec::new()));
    for round in 1..=options.rounds {
        for (count, runs) in &mut runs {
            Progress::shown().say(&format!("round {round}, {}", with(*count)));
            // A stack of its own for each: partitions can be added and not taken away.
            let system = System::with_partitions(options, *count).await?;
            let partitions = award::partitions(&system)?;
            ensure!(
                partitions == *count,
                "there are {partitions} partitions and not {count}"
            );
            award::tell_settings(&mut report, &system, partitions).await?;
            runs.push(of_workers(&system, options, *count).await?);
        }
    }

    report.set("kafka.partitions", "as many as workers");

    let (mut costs, mut explained) = (Vec::new(), Vec::new());
    for (count, runs) in &runs {
        let uses = || runs.last().map(|run| run.uses.clone()).unwrap_or_default();
        let name = with(*count);
        let each: Vec<f64> = runs.iter().map(cost).collect();
        costs.push(each.clone());
        let unit = "CPU s per 1,000 events";
        report.add(Figure::new(name.clone(), unit, each, uses()));
        let rates = runs.iter().map(|run| run.per_second).collect();
        let rate = Figure::new(name.clone(), "events/s", rates, uses());
        explained.push(format!("with {name}, {}", award::costs(&rate)));
        report.add(rate);
    }
    if let [of_one, .., of_most] = &costs[..] {
        let ratios = of_most.iter().zip(of_one).map(|(most, one)| most / one);
        report.at_most(
            &format!("an event with 4 workers costs at most {LEVEL} times that with one"),
            median(&ratios.collect::<Vec<_>>()),
            LEVEL,
            &explained.join("; "),
        );
    }
    report.notes.push(format!(
        "The cost is that of every process but `{LOAD}`, which sends the events and counts what \
         is confirmed. Every topic has as many partitions as there are workers."
    ));
    Ok(report)
}

async fn of_workers(system: &System, options: &Options, count: usize) -> Result<Run> {
    let customers = Customers::new("spread", options.scaled(CUSTOMERS));
    customers.open(&system.pool).await?;
    let orders = |what: &str, events| Orders::new(what, &customers, options.scaled(events));
    let workers = &WORKERS[..count];
    let meed = Meed::new(system)?;
    meed.start(workers, &orders("warm-up", WARM_UP)).await?;
    let run = meed.run(&with(count), &orders("run", EVENTS)).await?;
    meed.stop(workers).await?;
    Ok(run)
}

fn with(count: usize) -> String {
    if count == 1 {
        "1 worker, 1 partition".to_owned()
    } else {
        format!("{count} workers, {count} partitions")
    }
}

/// Processor time per thousand events, of all that Meed needs.
fn cost(run: &Run) -> f64 {
    let uses = run.uses.iter().filter(|(name, _)| *name != LOAD);
    uses.map(|(_, used)| used.cpu_seconds_per_thousand).sum()
}
