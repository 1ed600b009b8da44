//! A run from its first start to its verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::acknowledger::Acknowledger;
use crate::faults::Faults;
use crate::load::{self, Pace, Sent};
use crate::merchants::DEAF;
use crate::observe::{Observed, observe};
use crate::options::Options;
use crate::oracle;
use crate::plan::Plan;
use crate::points;
use crate::quiesce;
use crate::report::{Counted, Report};
use crate::sender::Sender;
use crate::services::{KEPT, Services};
use crate::system::{System, repository};

/// How long the load lasts for each fault.
const FOR_EACH_FAULT: Duration = Duration::from_millis(2_300);
/// How long the load lasts when nothing but crash points break it.
const AIMED: Duration = Duration::from_secs(12);
/// A point that is aimed at has to be reached this often, unless a number is given.
const AIMED_TARGET: u32 = 3;
/// How long the points for those who redeem may take to arrive.
const FUNDING_LIMIT: Duration = Duration::from_secs(60);
/// How long more load is made for crash points that were not reached often enough.
const EXTRA_LIMIT: Duration = Duration::from_secs(25 * 60);
/// The same when one point is aimed at.
const EXTRA_LIMIT_AIMED: Duration = Duration::from_secs(40);
/// How long one more round of load lasts.
const EXTRA_ROUND: Duration = Duration::from_secs(2);
/// How long nothing may change before what is under way is taken for stuck.
const PATIENCE: Duration = Duration::from_secs(90);
/// The same when one point is aimed at.
const PATIENCE_AIMED: Duration = Duration::from_secs(30);
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What tells people how far it is: a line that changes on a terminal, now and then a line elsewhere.
struct Teller {
    bar: ProgressBar,
    started: Instant,
    said: std::sync::Mutex<Instant>,
}

impl Teller {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            started: Instant::now(),
            said: std::sync::Mutex::new(Instant::now()),
        }
    }

    fn say(&self, text: &str) {
        self.bar.set_message(text.to_owned());
        self.bar.tick();
        if !self.bar.is_hidden() {
            return;
        }
        let mut said = self
            .said
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if said.elapsed() > Duration::from_secs(10) {
            *said = Instant::now();
            println!("{:>5.0} s  {text}", self.started.elapsed().as_secs_f64());
        }
    }

    fn part(&self, name: &str) {
        self.bar
            .suspend(|| println!("{:>5.0} s  {name}", self.started.elapsed().as_secs_f64()));
    }
}

/// Runs it and says what came of it.
pub async fn run(options: &Options) -> Result<Report> {
    let size = options.size();
    let plan = Plan::new(options.seed, size);
    let digest = plan.digest();
    let mut targets = options.targets;
    if options.point.is_some() && targets == 0 {
        targets = AIMED_TARGET;
    }
    println!(
        "Seed {}, plan {digest}: {} deliveries, {} redemptions, {} faults of which {} kill",
        options.seed,
        plan.messages.len(),
        size.redemptions,
        plan.faults.len(),
        size.kills
    );
    let teller = Arc::new(Teller::new());
    let mut clock = Clock::default();

    teller.part("starting");
    let system = Arc::new(System::start(options).await?);
    clock.lap("start");
    teller.part("funding those who redeem");
    fund(&system, &plan).await?;

    let only = options.point.as_deref().and_then(points::named);
    let services = Arc::new(Services::new(
        Arc::clone(&system),
        options.seed,
        only,
        targets,
    ));
    let faults = Arc::new(Faults::new(Arc::clone(&system), Arc::clone(&services)));
    let acknowledger = Arc::new(Acknowledger::new(Arc::clone(&system), options.seed));
    let keepers = KEPT.map(|name| {
        let services = Arc::clone(&services);
        tokio::task::spawn_blocking(move || services.keep(name))
    });
    let watching = tokio::spawn(Arc::clone(&faults).watch());
    let acknowledging = tokio::spawn(Arc::clone(&acknowledger).run());
    clock.lap("funding");

    teller.part("sending and breaking");
    let sent = {
        let telling = tell(&teller, &services, &faults);
        let work = send_and_break(
            options, &plan, &system, &services, &faults, targets, &teller,
        );
        tokio::select! {
            sent = work => sent?,
            () = telling => bail!("telling has ended"),
        }
    };
    clock.lap("load");

    teller.part("letting everything come to its end");
    services.arm(false);
    for proxy in system.proxies.values() {
        proxy.heal();
    }
    let patience = if only.is_some() {
        PATIENCE_AIMED
    } else {
        PATIENCE
    };
    let left_open =
        quiesce::wait(&system, patience, |open| teller.say(&format!("{open:?}"))).await?;
    while acknowledger.open() > 0 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    services.end();
    faults.end();
    acknowledger.end();
    for keeper in keepers {
        keeper.await?;
    }
    watching.await??;
    acknowledging.await??;
    clock.lap("quiet");

    teller.part("judging");
    let observed = Observed {
        sent: sent.messages,
        answers: sent.answers,
        acknowledgements: acknowledger.said(),
        deaf: vec![DEAF.to_owned()],
        ..observe(&system).await?
    };
    let properties = oracle::judge(&observed);
    clock.lap("verdict");

    let counted = Counted {
        broken: faults.broken(),
        counts: services.counts(),
    };
    let short_of = services.short_of(targets);
    let holds = properties.iter().all(oracle::Property::holds) && short_of.is_empty();
    let data_dir = system.stack.data_dir().display().to_string();
    let report = Report {
        holds,
        command: options.command(),
        seed: options.seed,
        plan: digest,
        deliveries: observed.sent.len(),
        redemptions: observed.redemptions.len(),
        ends: count(
            observed
                .redemptions
                .iter()
                .map(|row| row.reason.clone().unwrap_or_else(|| row.state.clone())),
        ),
        answers: count(observed.answers.iter().map(|answer| {
            let status = answer
                .status
                .map_or("nothing".to_owned(), |s| s.to_string());
            format!("{:?}/{status}", answer.asked)
        })),
        repeated: observed
            .answers
            .iter()
            .map(|a| a.attempts.saturating_sub(1))
            .sum(),
        upgrades: observed
            .tier_orders
            .iter()
            .filter(|o| o.new_tier.is_some())
            .count(),
        kills: counted.kills(),
        kills_by_target: counted.broken.kills,
        rearmed: counted.counts.rearmed,
        pauses: counted.broken.pauses,
        cuts: counted.broken.cuts,
        lies: counted.broken.lies,
        crash_points: counted.counts.reached,
        short_of,
        ended_by_themselves: counted.counts.ended_by_itself,
        seconds: clock.laps,
        left_open,
        properties,
        // What was planted is meant to break.
        kept: ((!holds && options.planted.is_none()) || options.keep).then_some(data_dir),
    };
    report.write(&repository().join(&options.report))?;
    report.print();
    end(&system, report.kept.is_none()).await?;
    Ok(report)
}

async fn end(system: &Arc<System>, wipe: bool) -> Result<()> {
    let stack = Arc::clone(&system.stack);
    system.pool.close().await;
    tokio::task::spawn_blocking(move || {
        // The data of the run have been read; nothing has to be drained.
        for status in stack.status()?.into_iter().rev() {
            stack.kill(&status.name)?;
        }
        if wipe { stack.wipe() } else { Ok(()) }
    })
    .await?
}

/// Sends the load while the faults come, and then more until each crash point was reached often
/// enough.
async fn send_and_break(
    options: &Options,
    plan: &Plan,
    system: &Arc<System>,
    services: &Arc<Services>,
    faults: &Arc<Faults>,
    targets: u32,
    teller: &Teller,
) -> Result<Sent> {
    services.arm(!options.no_faults);
    let lasts = match plan.faults.len() {
        0 if options.no_faults => Duration::ZERO,
        0 => AIMED,
        count => FOR_EACH_FAULT * u32::try_from(count).unwrap_or(u32::MAX),
    };
    let all = plan.messages.len() + plan.requests.len();
    let pace = Arc::new(Pace::new(all, lasts));
    let (mut sent, ()) = tokio::try_join!(
        load::send(system, &plan.messages, &plan.requests, &pace),
        faults.run(&plan.faults, &pace),
    )?;
    sent.messages.splice(0..0, plan.funding.iter().cloned());
    if options.no_faults {
        return Ok(sent);
    }
    let limit = if options.point.is_some() {
        EXTRA_LIMIT_AIMED
    } else {
        EXTRA_LIMIT
    };
    let started = Instant::now();
    let mut round = 0;
    while !services.short_of(targets).is_empty() && started.elapsed() < limit {
        if round == 0 {
            teller.part("sending more until every crash point was reached often enough");
        }
        let (messages, requests) = plan.extra(round);
        let pace = Arc::new(Pace::new(messages.len() + requests.len(), EXTRA_ROUND));
        let more = load::send(system, &messages, &requests, &pace).await?;
        sent.messages.extend(more.messages);
        sent.answers.extend(more.answers);
        round += 1;
    }
    Ok(sent)
}

async fn tell(teller: &Teller, services: &Services, faults: &Faults) {
    loop {
        let kills: u32 = faults.broken().kills.values().sum();
        teller.say(&format!(
            "{} faults over, {kills} kills, {} deaths at crash points",
            faults.done(),
            services.deaths()
        ));
        tokio::time::sleep(TELL_EVERY).await;
    }
}

async fn fund(system: &System, plan: &Plan) -> Result<()> {
    let mut sender = Sender::new(&system.brokers)?;
    for delivery in &plan.funding {
        sender.send(delivery.clone()).await?;
    }
    sender.flush().await?;
    let started = Instant::now();
    loop {
        let funded: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM customers WHERE customer_id = ANY($1) AND available > 0",
        )
        .bind(&plan.wallets)
        .fetch_one(&system.pool)
        .await
        .context("the balances")?;
        if usize::try_from(funded)? >= plan.wallets.len() {
            return Ok(());
        }
        if started.elapsed() > FUNDING_LIMIT {
            bail!(
                "{funded} of {} have points after {FUNDING_LIMIT:?}",
                plan.wallets.len()
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn count(words: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    counts
}

/// How long each part took.
struct Clock {
    since: Instant,
    laps: Vec<(&'static str, f64)>,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            laps: Vec::new(),
        }
    }
}

impl Clock {
    fn lap(&mut self, name: &'static str) {
        self.laps.push((name, self.since.elapsed().as_secs_f64()));
        self.since = Instant::now();
    }
}
