//! As many requests as a server answers, or so many a second, made by `wrk`, which takes little of the
//! processor itself.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;

/// How many connections ask without a pause.
pub const CONNECTIONS: usize = 32;
/// How many ask with pauses: enough that the pauses are long beside the answers.
pub const PACED_CONNECTIONS: usize = 128;

/// Asks for one customer after the other, each with the token of another client, and ends with what
/// came of it in one line. With a pause, each connection waits that many milliseconds on average
/// before it asks again, at random, so that they do not ask in step.
const SCRIPT: &str = r#"
local requests, at, pause = {}, 0, 0

function init(args)
  for i, customer in ipairs(customers) do
    local headers = { Authorization = "Bearer " .. tokens[(i - 1) % #tokens + 1] }
    requests[i] = wrk.format("GET", string.format(args[1], customer), headers)
  end
  pause = tonumber(args[2])
  if pause > 0 then
    function delay()
      return math.random(0, 2 * pause)
    end
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"requests":%d,"microseconds":%d,"errors":%d,"refused":%d,"median":%d,"p99":%d}\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.timeout, e.status,
    latency:percentile(50), latency:percentile(99)))
end
"#;

/// The load of one kind of requests.
pub struct Wrk {
    script: PathBuf,
}

/// What came of it.
#[derive(Debug, Clone, Deserialize)]
pub struct Done {
    /// How many answers there were.
    pub requests: usize,
    microseconds: f64,
    errors: u64,
    refused: u64,
    /// How long answers took, in microseconds: half of them at most, and 99 of 100.
    median: f64,
    p99: f64,
}

impl Done {
    /// How many answers there were a second.
    #[expect(clippy::cast_precision_loss, reason = "counts of a measurement")]
    pub fn rate(&self) -> f64 {
        self.requests as f64 * 1_000_000.0 / self.microseconds
    }

    /// How long half of the answers took at most, in milliseconds.
    pub fn median_ms(&self) -> f64 {
        self.median / 1_000.0
    }

    /// How long 99 of 100 took at most, in milliseconds.
    pub fn p99_ms(&self) -> f64 {
        self.p99 / 1_000.0
    }
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

    /// Asks for so long, as much as is answered or about so much a second.
    ///
    /// # Errors
    /// When it does not run, or a request was not answered well.
    pub async fn run(
        &self,
        server: &str,
        path: &str,
        lasting: Duration,
        rate: Option<f64>,
    ) -> Result<Done> {
        let (connections, pause_ms) = match rate {
            #[expect(clippy::cast_precision_loss, reason = "a small number")]
            Some(rate) => (PACED_CONNECTIONS, 1_000.0 * PACED_CONNECTIONS as f64 / rate),
            None => (CONNECTIONS, 0.0),
        };
        let output = Command::new("wrk")
            .args(["--threads", "1", "--latency"])
            .args(["--connections", &connections.to_string()])
            .args(["--duration", &format!("{}s", lasting.as_secs().max(1))])
            .arg("--script")
            .arg(&self.script)
            .args([server, "--", path, &format!("{pause_ms:.0}")])
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
        Ok(done)
    }
}
