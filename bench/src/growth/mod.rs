//! The rate of awards as the ledger and the number of customers grow.

mod fill;
mod plot;

use anyhow::Result;
use stack::Progress;

use crate::award::{self, Customers, Meed, Orders, Run};
use crate::options::Options;
use crate::report::{Figure, Report};
use crate::system::{System, repository};
use fill::Filler;

const WORKER: &str = "worker";
/// Events of one run.
const EVENTS: usize = 20_000;
/// Events that come before, so that everything is at work.
const WARM_UP: usize = 5_000;
/// How many customers earn points while the ledger grows.
const CUSTOMERS: usize = 10_000;
/// The customers of the other axis.
const FEW_CUSTOMERS: usize = 1_000;
const MANY_CUSTOMERS: usize = 1_000_000;
/// How many rows the ledger has at first, then, and at the end.
const ROWS: [usize; 3] = [10_000, 1_000_000, 10_000_000];
/// The part of the fastest rate that the slowest has to be: within 15 %.
const LEVEL: f64 = 0.85;

/// Rates at one size.
struct Point {
    /// Ledger rows, or customers.
    size: usize,
    figure: Figure,
}

/// Measures awards at several sizes, and draws `bench/growth.svg` of the usual ones.
///
/// # Errors
/// When something does not run, or its result is wrong.
pub async fn measure(options: &Options) -> Result<Report> {
    let system = System::start(options).await?;
    let mut report = Report::new("growth");
    award::tell_settings(&mut report, &system, award::partitions(&system)?).await?;
    report.set("eventsInARun", options.scaled(EVENTS));
    let bench = Bench {
        meed: Meed::new(&system)?,
        options,
    };
    let [small, middle, large] = ROWS.map(|rows| options.scaled(rows));
    let some = Customers::new("some", options.scaled(CUSTOMERS));
    let few = Customers::new("few", options.scaled(FEW_CUSTOMERS));
    let many = Customers::new("many", options.scaled(MANY_CUSTOMERS));
    let mut filler = Filler::new(&system).await?;

    filler.open(&some).await?;
    filler.grow(&some, small).await?;
    let mut rows = vec![bench.at(small, "ledger rows", &some).await?];
    filler.grow(&some, middle).await?;
    rows.push(bench.at(middle, "ledger rows", &some).await?);
    filler.open(&few).await?;
    let mut customers = vec![bench.at(few.count, "customers", &few).await?];
    filler.open(&many).await?;
    customers.push(bench.at(many.count, "customers", &many).await?);
    filler.grow(&many, large).await?;
    rows.push(bench.at(large, "ledger rows", &some).await?);

    // Only the usual amounts are worth keeping.
    let usual = (options.scale - 1.0).abs() < f64::EPSILON;
    let directory = repository().join(if usual { "bench" } else { "target/bench" });
    std::fs::create_dir_all(&directory)?;
    let path = directory.join("growth.svg");
    plot::draw(&path, &rows, &customers)?;
    Progress::shown().say(&format!("{} is drawn", path.display()));
    for (axis, points) in [("ledger rows", rows), ("customers", customers)] {
        tell(&mut report, axis, points);
    }
    report.notes.push(format!(
        "While the ledger grows, {} customers earn points; with few and many customers it has \
         {middle} rows. Ids of orders are random. processed_events, transfer_hashes and (as \
         published) the outbox have a row for each row of the ledger.",
        some.count
    ));
    Ok(report)
}

struct Bench<'a> {
    meed: Meed<'a>,
    options: &'a Options,
}

impl Bench<'_> {
    /// Runs every round at one size.
    async fn at(&self, size: usize, axis: &str, customers: &Customers) -> Result<Point> {
        let name = format!("{} {axis}", readable(size));
        let orders = |what: &str, count| {
            Orders::new(
                format!("{what} {name}"),
                customers,
                self.options.scaled(count),
            )
        };
        self.meed
            .start(&[WORKER], &orders("warm-up", WARM_UP))
            .await?;
        let mut runs = Vec::new();
        for round in 1..=self.options.rounds {
            let orders = orders(&format!("round {round}"), EVENTS);
            runs.push(self.meed.run(&name, &orders).await?);
        }
        self.meed.stop(&[WORKER]).await?;
        let rates = runs.iter().map(|run: &Run| run.per_second).collect();
        let uses = runs.pop().map(|run| run.uses).unwrap_or_default();
        Ok(Point {
            size,
            figure: Figure::new(name, "events/s", rates, uses),
        })
    }
}

fn tell(report: &mut Report, axis: &str, points: Vec<Point>) {
    let of = |point: &Point| point.figure.median;
    let mut by_rate: Vec<&Point> = points.iter().collect();
    by_rate.sort_by(|one, other| of(one).total_cmp(&of(other)));
    if let (Some(slowest), Some(fastest)) = (by_rate.first(), by_rate.last()) {
        let why_not = format!(
            "at {}, {}; at {}, {}",
            slowest.figure.name,
            award::costs(&slowest.figure),
            fastest.figure.name,
            award::costs(&fastest.figure)
        );
        report.at_least(
            &format!("{axis}: the slowest rate at least {LEVEL} of the fastest"),
            of(slowest) / of(fastest),
            LEVEL,
            &why_not,
        );
    }
    for point in points {
        report.add(point.figure);
    }
}

/// `10 thousand`, `1 million`.
fn readable(size: usize) -> String {
    match size {
        millions if millions >= 1_000_000 && millions % 1_000_000 == 0 => {
            format!("{} million", millions / 1_000_000)
        }
        thousands if thousands >= 1_000 && thousands % 1_000 == 0 => {
            format!("{} thousand", thousands / 1_000)
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        let sizes = [100, 1_000, 10_000, 1_500_000, 10_000_000].map(readable);
        let expected = [
            "100",
            "1 thousand",
            "10 thousand",
            "1500 thousand",
            "10 million",
        ];
        assert_eq!(sizes, expected);
    }
}
