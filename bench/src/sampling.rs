//! What processes use while they are measured: processor time and memory, by name, from `/proc`.
//!
//! A process counts with all its descendants, so PostgreSQL with its backends, but without those that
//! are counted by a name of their own. Memory is the proportional set size where the kernel tells it (shared pages are counted once), the resident
//! set size otherwise.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use procfs::process::{Process, all_processes};
use serde::Serialize;
use tokio::task::JoinHandle;

/// How often memory is looked at: the kernel walks every page of a process for it.
const EVERY: Duration = Duration::from_secs(2);
/// A process for people, which is no part of what is measured.
const NOT_TOLD: &str = "temporal-ui";

/// What one process used.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Use {
    /// Processor time, in seconds.
    pub cpu_seconds: f64,
    /// Processor time per thousand operations, in seconds.
    pub cpu_seconds_per_thousand: f64,
    /// The most memory at any look, in MiB.
    pub peak_mib: f64,
}

/// What processes used, by name.
pub type Uses = BTreeMap<String, Use>;

/// One look at memory: seconds since the start, and MiB by name.
pub type Look = (f64, BTreeMap<String, f64>);

/// Watches processes until it is asked.
pub struct Sampler {
    roots: Vec<(String, i32)>,
    before: HashMap<String, f64>,
    looks: Arc<Mutex<Vec<Look>>>,
    watching: JoinHandle<()>,
}

impl Sampler {
    /// Watches these processes, by name and process id.
    pub fn start(roots: Vec<(String, i32)>) -> Self {
        let looks = Arc::new(Mutex::new(Vec::new()));
        let watching = tokio::spawn(watch(roots.clone(), Arc::clone(&looks)));
        let before = cpu_seconds(&roots);
        Self {
            roots,
            before,
            looks,
            watching,
        }
    }

    /// What was used since the start, for so many operations, and every look at memory.
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    pub fn stop(self, operations: usize) -> (Uses, Vec<Look>) {
        let after = cpu_seconds(&self.roots);
        self.watching.abort();
        let looks = self.looks.lock().map(|looks| looks.clone());
        let looks = looks.unwrap_or_default();
        let told = after.into_iter().filter(|(name, _)| name != NOT_TOLD);
        let uses = told.map(|(name, after)| {
            let cpu_seconds = after - self.before.get(&name).copied().unwrap_or(0.0);
            let peak = looks.iter().filter_map(|(_, mib)| mib.get(&name)).copied();
            let used = Use {
                cpu_seconds,
                cpu_seconds_per_thousand: cpu_seconds * 1_000.0 / operations.max(1) as f64,
                peak_mib: peak.fold(0.0, f64::max),
            };
            (name, used)
        });
        (uses.collect(), looks)
    }
}

async fn watch(roots: Vec<(String, i32)>, looks: Arc<Mutex<Vec<Look>>>) {
    let began = Instant::now();
    loop {
        let roots = roots.clone();
        if let Ok(mib) = tokio::task::spawn_blocking(move || memory_mib(&roots)).await
            && let Ok(mut looks) = looks.lock()
        {
            looks.push((began.elapsed().as_secs_f64(), mib));
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// What of one process is resident now, in MiB.
///
/// # Errors
/// When there is no such process.
#[expect(clippy::cast_precision_loss, reason = "memory of one machine")]
pub fn resident_mib(pid: i32) -> Result<f64> {
    let resident = Process::new(pid)?.status()?.vmrss;
    let kib = resident.with_context(|| format!("process {pid} has ended"))?;
    Ok(kib as f64 / 1_024.0)
}

/// Each root with its descendants.
fn families(roots: &[(String, i32)]) -> Vec<(String, Vec<Process>)> {
    let mut parents: HashMap<i32, Vec<i32>> = HashMap::new();
    for process in all_processes().into_iter().flatten().flatten() {
        if let Ok(stat) = process.stat() {
            parents.entry(stat.ppid).or_default().push(process.pid);
        }
    }
    // The services are children of this process, and are no part of what it uses.
    let apart: HashSet<i32> = roots.iter().map(|(_, root)| *root).collect();
    let family = |root: i32| {
        let mut members = vec![root];
        let mut looked_at = 0;
        while let Some(&pid) = members.get(looked_at) {
            let children = parents.get(&pid).into_iter().flatten();
            members.extend(children.filter(|child| !apart.contains(child)));
            looked_at += 1;
        }
        members.into_iter().filter_map(|pid| Process::new(pid).ok())
    };
    let named = |(name, root): &(String, i32)| (name.clone(), family(*root).collect());
    roots.iter().map(named).collect()
}

/// Processor time by name, with that of children that have ended.
#[expect(clippy::cast_precision_loss, reason = "ticks since a process began")]
fn cpu_seconds(roots: &[(String, i32)]) -> HashMap<String, f64> {
    let per_second = procfs::ticks_per_second() as f64;
    let ticks = |process: &Process| {
        process.stat().map_or(0.0, |stat| {
            let ended = stat.cutime.max(0).unsigned_abs() + stat.cstime.max(0).unsigned_abs();
            (stat.utime + stat.stime + ended) as f64
        })
    };
    let of = |processes: Vec<Process>| processes.iter().map(ticks).sum::<f64>() / per_second;
    let families = families(roots).into_iter();
    families
        .map(|(name, members)| (name, of(members)))
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "memory of one machine")]
fn memory_mib(roots: &[(String, i32)]) -> BTreeMap<String, f64> {
    let bytes = |process: &Process| -> f64 {
        let proportional = process.smaps_rollup().ok().and_then(|rollup| {
            let maps = rollup.memory_map_rollup;
            maps.0.first()?.extension.map.get("Pss").copied()
        });
        let resident = || process.status().ok()?.vmrss.map(|kib| kib * 1_024);
        proportional.or_else(resident).unwrap_or(0) as f64
    };
    let of = |processes: Vec<Process>| processes.iter().map(bytes).sum::<f64>() / 1_048_576.0;
    let families = families(roots).into_iter();
    families
        .map(|(name, members)| (name, of(members)))
        .collect()
}
