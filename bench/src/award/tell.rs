//! What was found, and why goals are not reached.

use super::meed::{Drained, Idle};
use super::{Round, Run, WORKER};
use crate::load::Latencies;
use crate::report::{Figure, Report, median};
use crate::sampling::{Look, Uses};

/// How much more memory the end of a backlog may take than its first half, in MiB, beside 15 %:
/// what allocators do.
const MEMORY_SLACK_MIB: f64 = 10.0;

/// Tells what the rounds found.
pub fn rounds(report: &mut Report, rounds: &[Round]) {
    let rates = [
        rate("Meed", rounds, |round| &round.meed),
        rate("Meed, all events of one customer", rounds, |round| {
            &round.hot
        }),
        rate("(a) PostgreSQL alone", rounds, |round| &round.ledger_alone),
        rate("(b) a plain consumer", rounds, |round| {
            &round.plain_consumer
        }),
        rate("(c) one workflow per event", rounds, |round| {
            &round.flow_per_event
        }),
    ];
    for figure in rates.clone() {
        report.add(figure);
    }
    let [meed, hot, ledger_alone, plain_consumer, flow_per_event] = rates;
    let idle = |part: f64, of: fn(&Idle) -> &Latencies| -> Vec<f64> {
        let of_round = |round: &Round| of(&round.idle).quantile(part);
        rounds.iter().map(of_round).collect()
    };
    let alone = "Meed, one event at a time";
    let [posted, half, most] = [
        (
            "until it is in the ledger, median",
            idle(0.5, |idle| &idle.posted),
        ),
        (
            "until it is confirmed, median",
            idle(0.5, |idle| &idle.confirmed),
        ),
        (
            "until it is confirmed, 99th percentile",
            idle(0.99, |idle| &idle.confirmed),
        ),
    ]
    .map(|(what, rounds)| {
        report.add(Figure::new(
            format!("{alone}, {what}"),
            "ms",
            rounds,
            Uses::new(),
        ))
    });

    let why_not = costs(&meed);
    report.at_least("at least 10,000 events/s", meed.median, 10_000.0, &why_not);
    for (goal, baseline, wanted) in [
        ("at least 0.30 of (a)", &ledger_alone, 0.30),
        ("at least 3 times (b)", &plain_consumer, 3.0),
        ("at least 40 times (c)", &flow_per_event, 40.0),
    ] {
        report.at_least(goal, ratio(&meed, baseline), wanted, &why_not);
    }
    report.at_least(
        "all events of one customer: at least 0.5 of the rate of many",
        ratio(&hot, &meed),
        0.5,
        &format!(
            "they are in one partition, and each of its batches waits until the one before it is \
             posted; {}",
            costs(&hot)
        ),
    );
    report.at_most(
        "one event at a time: 99th percentile within 100 ms",
        most,
        100.0,
        &format!(
            "half of the events are in the ledger within {posted:.0} ms and confirmed within \
             {half:.0} ms; the slowest wait for a processor that others use"
        ),
    );
}

/// Tells how the backlog was drained.
pub fn backlog(report: &mut Report, drained: &Drained, events: usize) {
    let Drained {
        run,
        looks,
        sealed_after,
    } = drained;
    let name = format!("Meed, a backlog of {events}");
    report.add(Figure::new(
        name,
        "events/s",
        vec![run.per_second],
        run.uses.clone(),
    ));
    let (first, last) = memory(looks);
    for (part, mib) in [("first half", first), ("last quarter", last)] {
        let name = format!("peak memory of the worker, {part} of the backlog");
        report.add(Figure::new(name, "MiB", vec![mib], Uses::new()));
    }
    report.at_most(
        &format!(
            "flat memory: last quarter at most 1.15 times the first half and \
             {MEMORY_SLACK_MIB:.0} MiB (first half {first:.0} MiB)"
        ),
        last,
        1.15 * first + MEMORY_SLACK_MIB,
        "the worker's memory grows with what it has done",
    );
    report.notes.push(format!(
        "The hash chain over the backlog was complete {:.1} s after its last confirmation.",
        sealed_after.as_secs_f64()
    ));
}

/// The most memory of the worker in the first half and in the last quarter of the looks.
fn memory(looks: &[Look]) -> (f64, f64) {
    let peak = |looks: &[Look]| {
        let mib = looks.iter().filter_map(|(_, mib)| mib.get(WORKER));
        mib.copied().fold(0.0, f64::max)
    };
    (
        peak(&looks[..looks.len().div_ceil(2)]),
        peak(&looks[looks.len() * 3 / 4..]),
    )
}

fn rate(name: &str, rounds: &[Round], of: impl Fn(&Round) -> &Run) -> Figure {
    let rates = rounds.iter().map(|round| of(round).per_second).collect();
    let uses = rounds.last().map(|round| of(round).uses.clone());
    Figure::new(name, "events/s", rates, uses.unwrap_or_default())
}

/// The middle of the rounds' ratios: both sides of each were measured in the same minutes.
fn ratio(of: &Figure, to: &Figure) -> f64 {
    let rounds = of.rounds.iter().zip(&to.rounds);
    median(&rounds.map(|(of, to)| of / to).collect::<Vec<_>>())
}

/// What the processors were used for in the last round, and how many events a second that allows.
#[expect(clippy::cast_precision_loss, reason = "few processors")]
pub fn costs(figure: &Figure) -> String {
    let mut parts: Vec<_> = figure
        .uses
        .iter()
        .map(|(name, used)| (name, used.cpu_seconds_per_thousand))
        .collect();
    parts.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let sum: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
    let parts: Vec<_> = parts
        .iter()
        .filter(|(_, seconds)| *seconds >= sum / 100.0)
        .map(|(name, seconds)| format!("{name} {seconds:.3} s"))
        .collect();
    let rate = figure.rounds.last().copied().unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "1,000 events take {sum:.3} s of processor time ({}), so {processors} processors allow \
         {:.0} events/s, and {rate:.0} events/s use {:.1} of them",
        parts.join(", "),
        processors as f64 * 1_000.0 / sum.max(f64::MIN_POSITIVE),
        rate * sum / 1_000.0
    )
}
