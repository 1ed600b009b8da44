//! Breaks what the plan says, when the load is as far as the plan says, and mends it again.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::load::Pace;
use crate::merchants::{self, LIES, PLAIN};
use crate::plan::{Cut, Fault, Planned, TARGETS};
use crate::services::Services;
use crate::system::System;

/// How many faults may overlap.
const AT_ONCE: usize = 3;
/// How far the load may be ahead of the faults, in faults.
const AHEAD: usize = 4;
const LOOK: Duration = Duration::from_millis(50);
/// How long starting a component again is tried.
const RESTART_LIMIT: Duration = Duration::from_secs(90);
/// What is restarted by the runner; api and worker have a supervisor of their own.
const COMPONENTS: [&str; 4] = ["kafka", "postgres", "temporal", "partners"];

/// What was broken, by what and in which way.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Broken {
    /// Kills by the runner.
    pub kills: BTreeMap<&'static str, u32>,
    /// Pauses.
    pub pauses: BTreeMap<&'static str, u32>,
    /// Connections that were cut.
    pub cuts: BTreeMap<&'static str, u32>,
    /// Times the plain merchant was told to lie.
    pub lies: u32,
}

/// Breaks things.
pub struct Faults {
    system: Arc<System>,
    services: Arc<Services>,
    broken: Mutex<Broken>,
    /// One fault at a time for each thing that can be broken.
    turns: HashMap<&'static str, tokio::sync::Mutex<()>>,
    done: AtomicUsize,
    over: AtomicBool,
}

impl Faults {
    /// Breaks nothing before [`run`](Self::run).
    pub fn new(system: Arc<System>, services: Arc<Services>) -> Self {
        let links = ["postgres/link", "temporal/link", "partners/link", PLAIN];
        Self {
            system,
            services,
            broken: Mutex::default(),
            turns: TARGETS
                .into_iter()
                .chain(links)
                .map(|name| (name, tokio::sync::Mutex::new(())))
                .collect(),
            done: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// What was broken so far.
    pub fn broken(&self) -> Broken {
        self.locked().clone()
    }

    /// How many faults are over.
    pub fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    /// Components are no longer watched.
    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Broken> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Breaks everything in its order and returns when all is mended.
    pub async fn run(self: &Arc<Self>, planned: &[Planned], pace: &Arc<Pace>) -> Result<()> {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = tokio::task::JoinSet::new();
        for one in planned {
            self.hold_back(planned, pace);
            while pace.progress() < one.at {
                self.hold_back(planned, pace);
                tokio::time::sleep(LOOK).await;
            }
            let permit = Arc::clone(&room).acquire_owned().await?;
            let (faults, fault) = (Arc::clone(self), one.fault.clone());
            tasks.spawn(async move {
                let result = faults.inflict(&fault).await;
                faults.done.fetch_add(1, Ordering::SeqCst);
                drop(permit);
                result.with_context(|| format!("{fault:?}"))
            });
        }
        pace.allow(1.0);
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(())
    }

    fn hold_back(&self, planned: &[Planned], pace: &Pace) {
        let furthest = planned.get(self.done() + AHEAD).map_or(1.0, |one| one.at);
        pace.allow(furthest + f64::EPSILON);
    }

    async fn inflict(&self, fault: &Fault) -> Result<()> {
        match *fault {
            Fault::Kill { target, down_ms } => {
                let _turn = self.turns[target].lock().await;
                self.services.will_be_killed(target);
                self.blocking(move |stack| stack.kill(target)).await?;
                *self.locked().kills.entry(target).or_default() += 1;
                if COMPONENTS.contains(&target) {
                    tokio::time::sleep(Duration::from_millis(down_ms)).await;
                    self.restart(target).await?;
                }
            }
            Fault::Pause { target, ms } => {
                let _turn = self.turns[target].lock().await;
                self.blocking(move |stack| stack.pause(target)).await?;
                *self.locked().pauses.entry(target).or_default() += 1;
                tokio::time::sleep(Duration::from_millis(ms)).await;
                self.blocking(move |stack| stack.resume(target)).await?;
            }
            Fault::Cut { link, how, ms } => {
                let turn = match link {
                    "postgres" => "postgres/link",
                    "temporal" => "temporal/link",
                    _ => "partners/link",
                };
                let _turn = self.turns[turn].lock().await;
                let proxy = &self.system.proxies[link];
                match how {
                    Cut::Drop => proxy.drop_all(),
                    Cut::Refuse => proxy.refuse(),
                    Cut::Stall => proxy.stall(),
                }
                *self.locked().cuts.entry(link).or_default() += 1;
                if how != Cut::Drop {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    proxy.heal();
                }
            }
            Fault::Lie { lie, ms } => {
                let _turn = self.turns[PLAIN].lock().await;
                let (mode, delay, callback_delay) = LIES[lie];
                let settings = merchants::settings(mode, delay, callback_delay);
                self.insist_on(&settings).await;
                self.locked().lies += 1;
                tokio::time::sleep(Duration::from_millis(ms)).await;
                if let Some(plain) = merchants::named(PLAIN) {
                    self.insist_on(&plain.settings()).await;
                }
            }
        }
        Ok(())
    }

    /// The merchants may be away for a moment.
    async fn insist_on(&self, settings: &serde_json::Value) {
        let started = Instant::now();
        while self.system.tell_merchant(PLAIN, settings).await.is_err()
            && started.elapsed() < RESTART_LIMIT
        {
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&stack::Stack) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let stack = Arc::clone(&self.system.stack);
        tokio::task::spawn_blocking(move || work(&stack)).await?
    }

    /// Temporal cannot start while PostgreSQL is away, so a start is tried for a while.
    async fn restart(&self, target: &'static str) -> Result<()> {
        let started = Instant::now();
        loop {
            match self.blocking(move |stack| stack.restart(target)).await {
                Ok(()) => return Ok(()),
                Err(error) if started.elapsed() > RESTART_LIMIT => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
            }
        }
    }

    /// Starts components that have ended by themselves, such as without what they need.
    pub async fn watch(self: Arc<Self>) -> Result<()> {
        while !self.over.load(Ordering::SeqCst) {
            for name in COMPONENTS {
                let Ok(_turn) = self.turns[name].try_lock() else {
                    continue;
                };
                if !self
                    .blocking(move |stack| Ok(stack.is_running(name)))
                    .await?
                {
                    self.services.ended(name);
                    self.restart(name).await?;
                }
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }
}
