//! As many requests as a server answers, made by `wrk`, which takes little of the processor itself.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;

/// How many connections ask.
pub const CONNECTIONS: usize = 32;

/// Asks for one customer after the other, each with the token of another client, and ends with what
/// came of it in one line.
const SCRIPT: &str = r#"
local requests, at = {}, 0

function init(args)
  for i, customer in ipairs(customers) do
    local headers = { Authorization = "Bearer " .. tokens[(i - 1) % #tokens + 1] }
    requests[i] = wrk.format("GET", string.format(args[1], customer), headers)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format('{"requests":%d,"microseconds":%d,"errors":%d,"refused":%d}\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.timeout, e.status))
end
"#;

/// The load of one kind of requests.
pub struct Wrk {
    script: PathBuf,
}

#[derive(Deserialize)]
struct Done {
    requests: usize,
    microseconds: f64,
    errors: u64,
    refused: u64,
}

impl Wrk {
    /// Writes its script.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(directory: &Path, customers: &[String], tokens: &[String]) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let script = directory.join("read.lua");
        // Lists of plain words look the same in both languages but for their brackets.
        let list = |words: &[String]| -> Result<String> {
            let list = serde_json::to_string(words)?;
            Ok(format!("{{{}}}", list.trim_matches(['[', ']'])))
        };
        let (customers, tokens) = (list(customers)?, list(tokens)?);
        let text = format!("customers = {customers}\ntokens = {tokens}\n{SCRIPT}");
        std::fs::write(&script, text)?;
        Ok(Self { script })
    }

    /// Asks for so long; how many answers there were, and how many a second.
    ///
    /// # Errors
    /// When it does not run, or a request was not answered well.
    #[expect(clippy::cast_precision_loss, reason = "counts of a measurement")]
    pub async fn run(&self, server: &str, path: &str, lasting: Duration) -> Result<(usize, f64)> {
        let output = Command::new("wrk")
            .args(["--threads", "1"])
            .args(["--connections", &CONNECTIONS.to_string()])
            .args(["--duration", &format!("{}s", lasting.as_secs().max(1))])
            .arg("--script")
            .arg(&self.script)
            .args([server, "--", path])
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output()
            .await
            .context("wrk cannot be run (./dev bench installs it)")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().rev().find(|line| line.starts_with('{'));
        let line = line.with_context(|| format!("wrk has not said what came of it: {text}"))?;
        let done: Done = serde_json::from_str(line)?;
        ensure!(
            done.errors == 0 && done.refused == 0,
            "{server}: {} requests failed and {} were refused, of {}",
            done.errors,
            done.refused,
            done.requests
        );
        let rate = done.requests as f64 * 1_000_000.0 / done.microseconds;
        Ok((done.requests, rate))
    }
}
