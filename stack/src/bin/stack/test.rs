//! `test`: the plan's steps in order, each timed. What failed is shown again at the end, with a table of the steps.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::iter;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use stack::cache::Cache;
use stack::toolchain::Need;
use stack::{Plan, Progress, Stack, TestStep, places, provision, toolchain};

use crate::{repository_command, used_components};

/// How much of a test that failed is shown again.
const SHOWN_LINES: usize = 60;
/// How long a command that has ended may stay silent before nothing more is expected of it.
const LAST_WORDS: Duration = Duration::from_millis(500);

enum Outcome {
    Passed,
    Failed { why: String, tests: Vec<String> },
    Skipped(String),
    NotReached,
}

pub(crate) fn test(plan: &Plan, suite_name: &str) -> Result<ExitCode> {
    let suites = || {
        plan.test
            .suites
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let suite = plan.test.suites.get(suite_name);
    let suite = suite
        .with_context(|| format!("there is no suite `{suite_name}`, there are: {}", suites()))?;
    let steps: Vec<&TestStep> = plan
        .test
        .steps
        .iter()
        .filter(|step| step.suites.iter().any(|name| name == suite_name))
        .collect();
    let progress = Progress::plain();
    let cache = Cache::open()?;
    toolchain::ensure(&needs(plan, &steps)?, &cache, &progress)?;
    let mut bench = Bench::new(plan, &cache, &progress, &suite.env)?;
    bench.begin_fetching(&steps);

    let begun = Instant::now();
    let mut results: Vec<(&TestStep, Outcome, Duration)> = Vec::new();
    for step in steps {
        if results
            .iter()
            .any(|(_, outcome, _)| matches!(outcome, Outcome::Failed { .. }))
        {
            results.push((step, Outcome::NotReached, Duration::ZERO));
            continue;
        }
        let begun = Instant::now();
        eprintln!("\n── {}: {}", step.name, step.command.join(" "));
        let outcome = bench.run(step).unwrap_or_else(|error| Outcome::Failed {
            why: format!("{error:#}"),
            tests: Vec::new(),
        });
        if let Outcome::Failed { why, .. } | Outcome::Skipped(why) = &outcome {
            eprintln!("── {}: {why}", step.name);
        }
        results.push((step, outcome, begun.elapsed()));
    }
    drop(bench);
    Ok(print_table(suite_name, &results, begun.elapsed()))
}

/// What has to be installed, known before the first step rather than after an hour.
fn needs(plan: &Plan, steps: &[&TestStep]) -> Result<Vec<Need>> {
    let of_steps = steps.iter().flat_map(|step| &step.needs);
    let named = plan.needs.iter().chain(of_steps);
    let mut needs: Vec<Need> = named.map(|need| Need::named(need)).collect::<Result<_>>()?;
    let tools = steps.iter().flat_map(|step| &step.tools);
    needs.extend(tools.flat_map(|tool| toolchain::needs_of_tool(tool)));
    needs.sort_unstable();
    needs.dedup();
    Ok(needs)
}

fn print_table(
    suite: &str,
    results: &[(&TestStep, Outcome, Duration)],
    total: Duration,
) -> ExitCode {
    let width = results
        .iter()
        .map(|(step, ..)| step.name.chars().count())
        .max()
        .unwrap_or(0);
    for (_, outcome, _) in results {
        if let Outcome::Failed { tests, .. } = outcome {
            for test in tests {
                println!("\n{test}");
            }
        }
    }
    println!("\n./dev test {suite}");
    let mut code = ExitCode::SUCCESS;
    for (step, outcome, took) in results {
        let (word, note) = match outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Failed { why, .. } => {
                code = ExitCode::FAILURE;
                ("FAILED", why.lines().next().unwrap_or_default())
            }
            Outcome::Skipped(why) => ("SKIPPED", why.as_str()),
            Outcome::NotReached => ("not reached", ""),
        };
        let line = format!(
            "  {:width$}  {:>7.1} s  {word:<11}  {note}",
            step.name,
            took.as_secs_f64()
        );
        println!("{}", line.trim_end());
    }
    println!("  {:width$}  {:>7.1} s", "all", total.as_secs_f64());
    code
}

/// Where the steps run: what is fetched meanwhile, and what runs beside them.
struct Bench<'a> {
    plan: &'a Plan,
    cache: &'a Cache,
    progress: &'a Progress,
    env: Vec<(String, String)>,
    components: Option<Receiver<Result<()>>>,
    tools: BTreeMap<String, Receiver<Result<PathBuf>>>,
    path: Vec<PathBuf>,
    stack: Option<Stack>,
}

impl<'a> Bench<'a> {
    fn new(
        plan: &'a Plan,
        cache: &'a Cache,
        progress: &'a Progress,
        suite_env: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let env = suite_env
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let path = std::env::var_os("PATH").context("PATH is not set")?;
        let path = std::env::split_paths(&path).collect();
        Ok(Self {
            plan,
            cache,
            progress,
            env,
            components: None,
            tools: BTreeMap::new(),
            path,
            stack: None,
        })
    }

    /// What needs the network, or one core for long, goes on while the first steps run.
    fn begin_fetching(&mut self, steps: &[&TestStep]) {
        if steps.iter().any(|step| step.components) {
            let (sender, receiver) = mpsc::channel();
            let (cache, progress) = (self.cache.clone(), self.progress.clone());
            let components = used_components(self.plan);
            thread::spawn(move || {
                sender
                    .send(provision(&components, &cache, &progress).map(|_| ()))
                    .ok()
            });
            self.components = Some(receiver);
        }
        let names: BTreeSet<String> = steps.iter().flat_map(|step| step.tools.clone()).collect();
        let mut senders = Vec::new();
        for name in names {
            let (sender, receiver) = mpsc::channel();
            self.tools.insert(name.clone(), receiver);
            senders.push((name, sender));
        }
        let (cache, progress) = (self.cache.clone(), self.progress.clone());
        thread::spawn(move || {
            for (name, sender) in senders {
                sender.send(toolchain::tool(&name, &cache, &progress)).ok();
            }
        });
    }

    fn run(&mut self, step: &TestStep) -> Result<Outcome> {
        for tool in &step.tools {
            if let Some(receiver) = self.tools.remove(tool) {
                let dir = receiver
                    .recv()
                    .map_err(|_| anyhow!("{tool} could not be made"))??;
                self.path.insert(0, dir);
            }
        }
        if step.components {
            self.start_components()?;
        }
        let mut command = repository_command(self.plan, &step.command);
        command.env("PATH", std::env::join_paths(&self.path)?);
        command.envs(
            self.env
                .iter()
                .map(|(name, value)| (OsString::from(name), OsString::from(value))),
        );
        command.stdin(Stdio::null());
        let unavailable = step.unavailable.as_ref();
        let (status, said) = if step.tests || unavailable.is_some() {
            run_listening(&mut command)?
        } else {
            let program = &step.command[0];
            let status = command.status();
            let status = status.with_context(|| format!("`{program}` cannot be run"))?;
            (status, String::new())
        };
        Ok(if status.success() {
            Outcome::Passed
        } else if let Some(known) = unavailable.filter(|known| said.contains(&known.says)) {
            Outcome::Skipped(known.because.clone())
        } else {
            Outcome::Failed {
                why: status.to_string(),
                tests: failed_tests(&said),
            }
        })
    }

    fn start_components(&mut self) -> Result<()> {
        if let Some(receiver) = self.components.take() {
            receiver
                .recv()
                .map_err(|_| anyhow!("a provisioning step panicked"))??;
        }
        if self.stack.is_some() {
            return Ok(());
        }
        let base = self.plan.ports()?.base() + self.plan.test.port_offset;
        let stack = Stack::builder()
            .plan(self.plan.clone())
            .ports(base)
            .data_dir(places::data_dir(&self.plan.root, base)?)
            .components(&self.plan.test.components)
            .progress(self.progress.clone())
            .fresh()
            .start()?;
        self.env
            .extend(self.plan.test_env(stack.ports(), &stack.env())?);
        self.stack = Some(stack);
        Ok(())
    }
}

/// Runs a command, passes its output on, and keeps it. What a process that it left behind says is
/// not waited for.
fn run_listening(command: &mut Command) -> Result<(ExitStatus, String)> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{program}` cannot be run"))?;
    let (sender, receiver) = mpsc::channel();
    let listen = |stream: Option<Box<dyn Read + Send>>, pass_on: fn(&str)| {
        let sender = sender.clone();
        let lines = stream.map(|stream| BufReader::new(stream).split(b'\n'));
        thread::spawn(move || {
            for line in lines.into_iter().flatten().map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                pass_on(&line);
                sender.send(line).ok();
            }
        });
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    listen(stdout.map(|stream| Box::new(stream) as _), |line| {
        println!("{line}");
    });
    listen(stderr.map(|stream| Box::new(stream) as _), |line| {
        eprintln!("{line}");
    });
    drop(sender);
    let mut said = String::new();
    let mut ended = None;
    loop {
        match receiver.recv_timeout(LAST_WORDS) {
            Ok(line) => said.extend([line.as_str(), "\n"]),
            Err(RecvTimeoutError::Timeout) if ended.is_none() => ended = child.try_wait()?,
            Err(_) => break,
        }
    }
    Ok((child.wait()?, said))
}

/// The reports of the tests that failed, as `cargo test` prints them, each with its first lines.
fn failed_tests(said: &str) -> Vec<String> {
    let mut tests: Vec<Vec<&str>> = Vec::new();
    let mut lines = said.lines();
    while let Some(line) = lines.next() {
        if !(line.starts_with("---- ") && line.ends_with(" ----")) {
            continue;
        }
        let report = lines.clone().take_while(|line| {
            !line.starts_with("---- ") && *line != "failures:" && *line != "stack backtrace:"
        });
        tests.push(iter::once(line).chain(report.take(SHOWN_LINES)).collect());
    }
    tests
        .iter()
        .map(|test| test.join("\n").trim_end().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_shown_again_without_what_passed() {
        let said = "running 3 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n\
            ---- b stdout ----\n\nthread 'b' panicked at b.rs:1:\nit is 2\nstack backtrace:\n   0: f\n\n\
            ---- c stdout ----\nit is 3\n\n\nfailures:\n    b\n    c\n\ntest result: FAILED.";
        assert_eq!(
            failed_tests(said),
            [
                "---- b stdout ----\n\nthread 'b' panicked at b.rs:1:\nit is 2",
                "---- c stdout ----\nit is 3"
            ]
        );
        assert!(failed_tests("test a ... ok").is_empty());
    }

    #[test]
    fn a_command_is_heard_to_its_end_and_what_it_leaves_behind_is_not() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 5 & echo out; echo err >&2; exit 3"]);
        let (status, said) = run_listening(&mut command).expect("it runs");
        assert_eq!(status.code(), Some(3));
        let mut lines: Vec<&str> = said.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["err", "out"]);
    }
}
