//! What an event costs with one, two and four workers.

use anyhow::Result;

use crate::award::{self, Customers, Meed, Orders, Run};
use crate::options::Options;
use crate::report::{Figure, Report, median};
use crate::system::System;

/// The workers by name, as the plan numbers them.
const WORKERS: [&str; 4] = ["worker", "worker-2", "worker-3", "worker-4"];
/// With how many of them it is measured.
const COUNTS: [usize; 3] = [1, 2, 4];
/// Customers over whom events are spread.
const CUSTOMERS: usize = 10_000;
/// Events of one run.
const EVENTS: usize = 60_000;
/// How much more an event may cost with the most workers than with one.
const LEVEL: f64 = 1.25;
/// The process that sends and counts; whoever sends events in earnest is not Meed's cost.
const LOAD: &str = "bench";

/// Measures awards with several workers.
///
/// # Errors
/// When something does not run, or its result is wrong.
pub async fn measure(options: &Options) -> Result<Report> {
    let system = System::start(options).await?;
    let mut report = Report::new("scale");
    award::tell_settings(&mut report, &system, award::partitions(&system)?).await?;
    report.set("eventsInARun", options.scaled(EVENTS));
    let customers = Customers::new("spread", options.scaled(CUSTOMERS));
    customers.open(&system.pool).await?;
    let meed = Meed::new(&system)?;
    let mut runs = COUNTS.map(|count| (count, Vec::new()));
    for round in 1..=options.rounds {
        for (count, runs) in &mut runs {
            let name = format!("{count} {}", plural(*count));
            let workers = &WORKERS[..*count];
            let orders = |what: &str| {
                let name = format!("{what}, {name}, round {round}");
                Orders::new(name, &customers, options.scaled(EVENTS))
            };
            meed.start(workers, &orders("warm-up")).await?;
            runs.push(meed.run(&name, &orders("run")).await?);
            meed.stop(workers).await?;
        }
    }

    let (mut costs, mut explained) = (Vec::new(), Vec::new());
    for (count, runs) in &runs {
        let uses = || runs.last().map(|run| run.uses.clone()).unwrap_or_default();
        let name = format!("{count} {}", plural(*count));
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
         is confirmed. The partitions are the same with any number of workers."
    ));
    Ok(report)
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "worker" } else { "workers" }
}

/// Processor time per thousand events, of all that Meed needs.
fn cost(run: &Run) -> f64 {
    let uses = run.uses.iter().filter(|(name, _)| *name != LOAD);
    uses.map(|(_, used)| used.cpu_seconds_per_thousand).sum()
}
