//! What was found, as figures and goals.

use super::buying::At;
use super::sale::{ANSWERED_WITHIN, Sale};
use super::{Alone, Round};
use crate::report::{Figure, Report, median};
use crate::sampling::Uses;

/// How much Meed and every baseline does a second.
pub fn rates(report: &mut Report, rounds: &[Round]) {
    for at in At::ALL {
        let last = rounds.last().map(|round| &round.full[at as usize]);
        let uses = last.map(|full| full.uses.clone()).unwrap_or_default();
        report.add(Figure::new(
            at.name(),
            "redemptions/s",
            super::rates(rounds, at),
            uses,
        ));
    }
    let meed = super::rates(rounds, At::Meed);
    let mut ratios = |at: At, name: &str| {
        let other = super::rates(rounds, at);
        let ratios = meed.iter().zip(other).map(|(meed, other)| meed / other);
        report.add(Figure::new(name, "×", ratios.collect(), Uses::new()))
    };
    let of_floor = ratios(At::Floor, "Meed to (a)");
    let of_ordinary = ratios(At::Ordinary, "Meed to (b)");
    ratios(At::Plain, "Meed to (c)");
    let beyond = beyond(rounds);
    report.at_least(
        "at least 0.85 of (a), the engine's floor",
        of_floor,
        0.85,
        &format!(
            "both cores are busy, so it is processor time that counts: beyond the floor's, a \
             redemption takes {beyond}"
        ),
    );
    report.at_least(
        "at least 2.5 × (b), ordinary activities",
        of_ordinary,
        2.5,
        "what is the same in both, the writes and the merchant's answer, is too much of it: an \
         ordinary activity costs the server more, but not so much more",
    );
}

/// What a redemption takes beyond what the floor takes, in milliseconds of processor time.
fn beyond(rounds: &[Round]) -> String {
    let Some(round) = rounds.last() else {
        return String::new();
    };
    let used = |at: At, name: &str| {
        let used = round.full[at as usize].uses.get(name);
        used.map_or(0.0, |used| used.cpu_seconds_per_thousand)
    };
    let names = ["postgres", "temporal", "partners", "worker"];
    let mut parts = vec![("api", used(At::Meed, "api") - used(At::Floor, "baseline"))];
    parts.extend(names.map(|name| (name, used(At::Meed, name) - used(At::Floor, name))));
    let told = parts.iter().map(|(name, ms)| format!("{name} {ms:+.1} ms"));
    told.collect::<Vec<_>>().join(", ")
}

/// How long a redemption takes while less is asked.
pub fn latencies(report: &mut Report, rounds: &[Round]) {
    let mut figure = |name: &str, of: &dyn Fn(&Round) -> f64| {
        let rounds = rounds.iter().map(of).collect();
        report.add(Figure::new(name, "ms", rounds, Uses::new()))
    };
    figure("one at a time, until it is answered, median", &|round| {
        round.alone.answered.median()
    });
    let alone = figure("one at a time, median", &|round| {
        round.alone.confirmed.median()
    });
    figure("one at a time, 99th percentile", &|round| {
        round.alone.confirmed.p99()
    });
    figure("half of the rate, median", &|round| round.half.median());
    let half = figure("half of the rate, 99th percentile", &|round| {
        round.half.p99()
    });
    report.at_most(
        "one at a time, until it is known to be confirmed, median under 25 ms",
        alone,
        25.0,
        "the steps of one at a time, below, say which takes how long",
    );
    report.at_most(
        "99th percentile under 100 ms at half of the saturation rate",
        half,
        100.0,
        "the steps at half of the rate, below, say which takes how long",
    );
}

/// What came of the sale.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
pub fn sale(
    report: &mut Report,
    sale: &Sale,
    finished_after: f64,
    rounds: &[Round],
    after: &Alone,
) {
    let mut figure = |name: &str, unit: &'static str, value: f64| {
        report.add(Figure::new(name, unit, vec![value], Uses::new()))
    };
    figure("flash sale, requests", "", sale.requests as f64);
    figure("flash sale, accepted", "", sale.accepted as f64);
    figure("flash sale, shed (429 or 503)", "", sale.shed as f64);
    figure(
        "flash sale, answered otherwise or not",
        "",
        sale.others as f64,
    );
    figure("flash sale, answers, 99th percentile", "ms", sale.p99_ms);
    let slowest = figure("flash sale, answers, slowest", "ms", sale.slowest_ms);
    figure(
        "flash sale, all that was accepted finished after",
        "s",
        finished_after,
    );
    let now = figure(
        "after the sale, one at a time, median",
        "ms",
        after.confirmed.median(),
    );
    let before = rounds.iter().map(|round| round.alone.confirmed.median());
    let before = median(&before.collect::<Vec<_>>());
    let other = sale.first_other.as_deref().unwrap_or("none");
    report.at_most(
        "flash sale: neither accepted nor shed",
        sale.others as f64,
        0.0,
        &format!("the first such answer: {other}"),
    );
    report.at_most(
        "flash sale: every answer within 1,000 ms",
        slowest,
        ANSWERED_WITHIN.as_secs_f64() * 1_000.0,
        &format!(
            "{} of {} answers came later: as many requests are let in as there are places \
             (limits.redeem.max_concurrent), and they wait for each other",
            sale.late, sale.requests
        ),
    );
    report.at_most(
        "30 s after the sale: latency, to that of before",
        now / before,
        1.5,
        &format!("what was accepted in the sale was finished {finished_after:.0} s after its end"),
    );
}
