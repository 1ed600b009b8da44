//! What was found, as figures and goals.

use super::{Asked, Found, wrk::Done};
use crate::load::Latencies;
use crate::report::{Figure, Report};
use crate::sampling::Uses;

/// How much each does a second, how long its answers take, and how old they are.
pub fn all(report: &mut Report, asked: &[Asked], rounds: &[Vec<Found>], shown_after: &[Latencies]) {
    let rates = |place: usize| {
        rounds
            .iter()
            .map(|round| round[place].rate)
            .collect::<Vec<_>>()
    };
    for (place, one) in asked.iter().enumerate() {
        let uses = rounds.last().map(|round| round[place].uses.clone());
        let figure = Figure::new(
            one.name,
            "requests/s",
            rates(place),
            uses.unwrap_or_default(),
        );
        report.add(figure);
    }
    let mut ratio = |place: usize, name: &str| {
        let ratios = rates(place)
            .into_iter()
            .zip(rates(0))
            .map(|(meed, bare)| meed / bare);
        report.add(Figure::new(name, "×", ratios.collect(), Uses::new()))
    };
    let not_cached = ratio(1, "not cached, to the bare handler");
    let cached = ratio(2, "cached, to the bare handler");
    let costs = costs(rounds);
    report.at_least(
        "not cached: at least 0.8 of the bare handler",
        not_cached,
        0.8,
        &costs,
    );
    report.at_least(
        "cached: at least 1.5 × the bare handler",
        cached,
        1.5,
        &costs,
    );

    let shown: Vec<f64> = shown_after.iter().map(Latencies::p99).collect();
    let medians = shown_after.iter().map(Latencies::median).collect();
    report.add(Figure::new(
        "cached: a commit is shown after, median",
        "ms",
        medians,
        Uses::new(),
    ));
    let name = "cached: a commit is shown after, 99th percentile";
    let stale = report.add(Figure::new(name, "ms", shown, Uses::new()));
    report.at_most(
        "cached: no older than 100 ms, 99th percentile",
        stale,
        100.0,
        "copies that are asked for are read again after half of cache.fresh_ms, and that is how old \
         they become",
    );
    for (place, one) in asked.iter().enumerate() {
        let halves = rounds.iter().map(|round| &round[place].half);
        let halves: Vec<&(Done, Uses)> = halves.collect();
        let uses = halves
            .last()
            .map(|(_, uses)| uses.clone())
            .unwrap_or_default();
        let medians = halves.iter().map(|(done, _)| done.median_ms()).collect();
        let name = format!("{}: half of its rate, median", one.name);
        report.add(Figure::new(name, "ms", medians, uses));
        let p99s = halves.iter().map(|(done, _)| done.p99_ms()).collect();
        let name = format!("{}: half of its rate, 99th percentile", one.name);
        let p99 = report.add(Figure::new(name, "ms", p99s, Uses::new()));
        if place > 0 {
            report.at_most(
                &format!(
                    "{}: 99th percentile under 5 ms at half of its rate",
                    one.name
                ),
                p99,
                5.0,
                "whoever makes these requests works on the same two cores, and takes as much of \
                 them as the table says beside the median",
            );
        }
    }
}

/// What an answer takes of the processor.
fn costs(rounds: &[Vec<Found>]) -> String {
    let used = |place: usize, name: &str| {
        let used = rounds.last().and_then(|round| round[place].uses.get(name));
        used.map_or(0.0, |used| used.cpu_seconds_per_thousand)
    };
    format!(
        "an answer takes {:.2} ms of processor time from the bare handler and {:.2} from \
         PostgreSQL; not cached {:.2} from the api and {:.2} from PostgreSQL; cached {:.2} from the \
         api",
        used(0, "baseline"),
        used(0, "postgres"),
        used(1, "api-2"),
        used(1, "postgres"),
        used(2, "api"),
    )
}
