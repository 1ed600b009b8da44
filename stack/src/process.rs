//! Processes by identity rather than by number: a pid may be given to somebody else, a pid with its start time not.

use std::fs;
use std::path::Path;
#[cfg(not(target_os = "linux"))]
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process that was started at a known time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    started: String,
}

impl Identity {
    /// The process that has this pid now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let facts = facts(pid)?;
        Some(Self {
            pid,
            started: facts.started,
        })
    }

    /// This process.
    pub(crate) fn own() -> Self {
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        Self::of(pid).unwrap_or(Self {
            pid,
            started: String::new(),
        })
    }

    /// Runs still (stopped counts as running, a zombie does not).
    pub(crate) fn is_alive(&self) -> bool {
        facts(self.pid).is_some_and(|facts| facts.started == self.started && facts.runs)
    }

    /// True while it is stopped by a signal.
    pub(crate) fn is_paused(&self) -> bool {
        facts(self.pid).is_some_and(|facts| facts.started == self.started && facts.state == 'T')
    }

    /// Sends a signal to the process alone.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.is_alive() {
            signal::kill(Pid::from_raw(self.pid), signal).ok();
        }
    }

    /// Sends a signal to the process, its group and all that descends from it.
    pub(crate) fn signal_all(&self, signal: Signal) {
        if !self.is_alive() {
            return;
        }
        // Stopped first, so that it starts nothing while its descendants are counted.
        signal::kill(Pid::from_raw(self.pid), Signal::SIGSTOP).ok();
        let descendants = descendants(self.pid);
        for pid in std::iter::once(self.pid).chain(descendants) {
            signal::kill(Pid::from_raw(pid), signal).ok();
        }
        if signal != Signal::SIGSTOP && signal != Signal::SIGKILL {
            signal::kill(Pid::from_raw(self.pid), Signal::SIGCONT).ok();
        }
        signal::killpg(Pid::from_raw(self.pid), signal).ok();
    }

    /// Waits until it is gone.
    pub(crate) fn wait_gone(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        true
    }
}

/// Removes a lock file whose holder is a zombie. Programs take a zombie for a living process, and where nothing collects
/// orphans, as in many containers, a killed process stays one. The file stays while anything works in its directory.
pub(crate) fn remove_lock_of_zombie(lock_file: &Path) {
    let holder = || {
        fs::read_to_string(lock_file)
            .ok()?
            .lines()
            .next()?
            .trim()
            .parse::<i32>()
            .ok()
    };
    let Some(facts) = holder().and_then(facts) else {
        return;
    };
    if !facts.runs && !works_in(lock_file.parent().unwrap_or(lock_file)) {
        fs::remove_file(lock_file).ok();
    }
}

#[cfg(target_os = "linux")]
fn works_in(dir: &Path) -> bool {
    let Ok(dir) = fs::canonicalize(dir) else {
        return true;
    };
    parents()
        .into_iter()
        .any(|(pid, _)| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir))
}

#[cfg(not(target_os = "linux"))]
fn works_in(_dir: &Path) -> bool {
    // Other systems collect orphans at once, so that there is no zombie to ask about.
    true
}

struct Facts {
    started: String,
    state: char,
    runs: bool,
}

#[cfg(target_os = "linux")]
fn facts(pid: i32) -> Option<Facts> {
    let (_, rest) = stat(pid)?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Counted from the state, which is the third field of proc_pid_stat(5); the number of threads is the 20th, the
    // start time the 22nd.
    let state = fields.first()?.chars().next()?;
    let threads: u32 = fields.get(17)?.parse().ok()?;
    Some(Facts {
        state,
        // The first thread may be a zombie while others still hold ports.
        runs: state != 'Z' || threads > 1,
        started: (*fields.get(19)?).to_owned(),
    })
}

#[cfg(not(target_os = "linux"))]
fn facts(pid: i32) -> Option<Facts> {
    let output = Command::new("ps")
        .args(["-o", "state=,lstart=", "-p", &pid.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let (state, started) = text.split_once(' ')?;
    let state = state.chars().next()?;
    Some(Facts {
        state,
        runs: state != 'Z',
        started: started.trim().to_owned(),
    })
}

/// The name in parentheses, and the fields after it, of `/proc/PID/stat`.
#[cfg(target_os = "linux")]
fn stat(pid: i32) -> Option<(String, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (start, end) = (text.find('(')?, text.rfind(')')?);
    Some((
        text[start + 1..end].to_owned(),
        text[end + 1..].trim_start().to_owned(),
    ))
}

/// Pairs of process and parent.
#[cfg(target_os = "linux")]
fn parents() -> Vec<(i32, i32)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let (_, rest) = stat(pid)?;
            Some((pid, rest.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn parents() -> Vec<(i32, i32)> {
    let Ok(output) = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        })
        .collect()
}

fn descendants(pid: i32) -> Vec<i32> {
    let parents = parents();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found.split_off(1)
}

/// The process that listens on a port.
pub(crate) struct Holder {
    pub(crate) pid: i32,
    pub(crate) command: String,
}

/// Who listens on this TCP port, as far as this process may see it.
#[cfg(target_os = "linux")]
pub(crate) fn listener_on(port: u16) -> Option<Holder> {
    const LISTENING: &str = "0A";
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inode = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .find_map(|table| {
            table.lines().skip(1).find_map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let (_, number) = fields.get(1)?.rsplit_once(':')?;
                let is_it =
                    u16::from_str_radix(number, 16) == Ok(port) && *fields.get(3)? == LISTENING;
                is_it
                    .then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))
                    .flatten()
            })
        })?;
    for (pid, _) in parents() {
        let Ok(handles) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        let holds = handles.filter_map(Result::ok).any(|handle| {
            fs::read_link(handle.path()).is_ok_and(|target| target.to_str() == Some(inode.as_str()))
        });
        if holds {
            return Some(Holder {
                pid,
                command: command_line(pid),
            });
        }
    }
    None
}

/// Who listens on this TCP port, as far as this process may see it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn listener_on(port: u16) -> Option<Holder> {
    let output = Command::new("lsof")
        .args(["-nP", "-sTCP:LISTEN", "-t", "-i", &format!("TCP:{port}")])
        .output()
        .ok()?;
    let pid = String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()?
        .trim()
        .parse()
        .ok()?;
    Some(Holder {
        pid,
        command: command_line(pid),
    })
}

#[cfg(target_os = "linux")]
fn command_line(pid: i32) -> String {
    const SHOWN_CHARACTERS: usize = 60;
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    text.trim().chars().take(SHOWN_CHARACTERS).collect()
}

#[cfg(not(target_os = "linux"))]
fn command_line(pid: i32) -> String {
    let output = Command::new("ps")
        .args(["-o", "command=", "-p", &pid.to_string()])
        .output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Long enough for a busy machine; nothing waits for it when all is well.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn killing_reaches_grandchildren() {
        let mut child = Command::new("sh")
            .args(["-c", "sh -c 'sleep 600 & wait' & wait"])
            .spawn()
            .unwrap();
        let identity = Identity::of(i32::try_from(child.id()).unwrap()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while descendants(identity.pid).len() < 2 {
            assert!(Instant::now() < deadline, "the shells did not start");
            thread::yield_now();
        }
        let below: Vec<Identity> = descendants(identity.pid)
            .into_iter()
            .filter_map(Identity::of)
            .collect();
        assert!(identity.is_alive());
        identity.signal_all(Signal::SIGKILL);
        child.wait().unwrap();
        assert!(!identity.is_alive());
        assert!(below.iter().all(|process| process.wait_gone(PATIENCE)));
    }

    #[test]
    fn a_paused_process_is_alive() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let identity = Identity::of(i32::try_from(child.id()).unwrap()).unwrap();
        identity.signal_all(Signal::SIGSTOP);
        let deadline = Instant::now() + PATIENCE;
        while !identity.is_paused() {
            assert!(Instant::now() < deadline, "it did not stop");
        }
        assert!(identity.is_alive());
        identity.signal_all(Signal::SIGCONT);
        identity.signal(Signal::SIGTERM);
        child.wait().unwrap();
        assert!(!identity.is_alive());
    }
}
