//! Keeps api and workers running while they die: of their crash points, of the runner, of
//! themselves. Each start arms the crash points that were reached least.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::points::{POINTS, Point};
use crate::system::System;

/// The services that are kept running: two workers, so that what one leaves the other takes up.
pub const KEPT: [&str; 3] = ["api", "worker", "worker-2"];
const LOOK: Duration = Duration::from_millis(100);
/// How many points are armed at one start: rarely passed ones must not hold up the others.
const ARMED: usize = 4;
/// A service whose points are not passed for so long is armed anew.
const ARMED_FOR: Duration = Duration::from_secs(20);

/// What has been counted.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// Deaths of each crash point.
    pub reached: BTreeMap<&'static str, u32>,
    /// Ends that nobody asked for, by service or component.
    pub ended_by_itself: BTreeMap<String, u32>,
    /// Starts by service.
    pub starts: BTreeMap<&'static str, u32>,
    /// Kills by the supervisor, because no armed point was passed.
    pub rearmed: BTreeMap<&'static str, u32>,
}

/// Supervises api and workers.
pub struct Services {
    system: Arc<System>,
    seed: u64,
    only: Option<Point>,
    targets: u32,
    counts: Mutex<Counts>,
    armed: AtomicBool,
    over: AtomicBool,
    killed: BTreeMap<&'static str, AtomicBool>,
    deaths: AtomicU32,
}

impl Services {
    /// Supervises as soon as [`keep`](Self::keep) runs.
    pub fn new(system: Arc<System>, seed: u64, only: Option<Point>, targets: u32) -> Self {
        Self {
            system,
            seed,
            only,
            targets,
            counts: Mutex::default(),
            armed: AtomicBool::new(false),
            over: AtomicBool::new(false),
            killed: KEPT
                .into_iter()
                .map(|name| (name, AtomicBool::new(false)))
                .collect(),
            deaths: AtomicU32::new(0),
        }
    }

    /// What has been counted so far.
    pub fn counts(&self) -> Counts {
        self.locked().clone()
    }

    /// How often crash points were reached.
    pub fn deaths(&self) -> u32 {
        self.deaths.load(Ordering::SeqCst)
    }

    /// Notes an end of a component that nobody asked for.
    pub fn ended(&self, name: &str) {
        let mut counts = self.locked();
        *counts.ended_by_itself.entry(name.to_owned()).or_default() += 1;
    }

    /// From now on services are started with crash points, those that run too.
    pub fn arm(&self, on: bool) {
        self.armed.store(on, Ordering::SeqCst);
    }

    /// The runner is about to kill this service.
    pub fn will_be_killed(&self, name: &str) {
        if let Some(flag) = self.killed.get(name) {
            flag.store(true, Ordering::SeqCst);
        }
    }

    /// Nothing is restarted after this.
    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// The points that were reached less often than is wanted, with how often.
    pub fn short_of(&self, wanted: u32) -> Vec<(&'static str, u32)> {
        let counts = self.locked();
        self.points()
            .filter_map(|point| {
                let reached = counts.reached.get(point.name).copied().unwrap_or(0);
                (reached < wanted).then_some((point.name, reached))
            })
            .collect()
    }

    fn points(&self) -> impl Iterator<Item = &'static Point> {
        let only = self.only;
        POINTS
            .iter()
            .filter(move |point| only.is_none_or(|only| only.name == point.name))
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Restarts a service whenever it has ended. Blocks until [`end`](Self::end).
    pub fn keep(&self, name: &'static str) {
        let stack = &self.system.stack;
        let log = self.crash_log(name);
        let mut read = 0;
        let mut is_armed = false;
        let mut since = Instant::now();
        while !self.over.load(Ordering::SeqCst) {
            let wants = self.armed.load(Ordering::SeqCst);
            if stack.is_running(name) {
                let stale = is_armed && wants && since.elapsed() > ARMED_FOR;
                if wants != is_armed || stale {
                    // What waits for its death by a point gets another chance; at the end all are disarmed.
                    if stale && !self.has_due(name) {
                        since = Instant::now();
                        continue;
                    }
                    self.killed[name].store(true, Ordering::SeqCst);
                    *self.locked().rearmed.entry(name).or_default() += 1;
                    let _ = stack.kill(name);
                } else {
                    std::thread::sleep(LOOK);
                    continue;
                }
            }
            read = self.count_death(name, &log, read);
            let env = if wants { self.arms(name) } else { Vec::new() };
            is_armed = wants;
            since = Instant::now();
            if let Err(error) = self.start(name, &env) {
                eprintln!("{name} did not start: {error:#}");
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }

    fn start(&self, name: &'static str, env: &[(String, String)]) -> anyhow::Result<()> {
        let mut service = self.system.service(name, env)?;
        // It may die before it serves, and what it needs may be away.
        service.ready_url = None;
        *self.locked().starts.entry(name).or_default() += 1;
        self.system.stack.start_service(service)
    }

    fn count_death(&self, name: &'static str, log: &PathBuf, read: usize) -> usize {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let was_killed = self.killed[name].swap(false, Ordering::SeqCst);
        let mut counts = self.locked();
        for line in &lines[read.min(lines.len())..] {
            if let Some(point) = POINTS.iter().find(|point| point.name == *line) {
                *counts.reached.entry(point.name).or_default() += 1;
                self.deaths.fetch_add(1, Ordering::SeqCst);
            }
        }
        if lines.len() == read && !was_killed {
            *counts.ended_by_itself.entry(name.to_owned()).or_default() += 1;
        }
        lines.len()
    }

    fn crash_log(&self, name: &str) -> PathBuf {
        self.system
            .stack
            .data_dir()
            .join(format!("crashes-{name}.log"))
    }

    fn has_due(&self, name: &str) -> bool {
        self.due(name).next().is_some()
    }

    /// The service's points that are still wanted, with how often they were reached. Without a
    /// target, all of them for ever.
    fn due(&self, name: &str) -> impl Iterator<Item = (u32, Point)> {
        let counts = self.counts();
        let enough = if self.targets == 0 {
            u32::MAX
        } else {
            self.targets
        };
        let kind = if name == "api" { "api" } else { "worker" };
        self.points()
            .filter(move |point| point.service == kind)
            .map(move |point| {
                let reached = counts.reached.get(point.name).copied().unwrap_or(0);
                (reached, *point)
            })
            .filter(move |(reached, _)| *reached < enough)
    }

    /// The variables of the next start: the points reached least, at a passing drawn by the seed.
    fn arms(&self, name: &'static str) -> Vec<(String, String)> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let start = self.locked().starts.get(name).copied().unwrap_or(0);
        let place = KEPT.iter().position(|kept| *kept == name).unwrap_or(0);
        rng.set_stream(u64::from(start) * KEPT.len() as u64 + place as u64);
        let mut due: Vec<(u32, Point)> = self.due(name).collect();
        due.shuffle(&mut rng);
        due.sort_by_key(|(reached, _)| *reached);
        let armed: Vec<String> = due
            .into_iter()
            .take(ARMED)
            .map(|(_, point)| format!("{}={}", point.name, rng.random_range(1..=point.at_most)))
            .collect();
        vec![
            ("MEED_CRASH_POINT".to_owned(), armed.join(",")),
            (
                "MEED_CRASH_LOG".to_owned(),
                self.crash_log(name).display().to_string(),
            ),
        ]
    }
}
