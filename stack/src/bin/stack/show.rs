//! `status`, `env` and `logs`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write as _};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use stack::{Health, Stack, command};

pub(crate) fn status(stack: &Stack) -> Result<ExitCode> {
    let statuses = stack.status()?;
    if statuses.is_empty() {
        print("Nothing runs. `./dev up` starts everything.\n");
        return Ok(ExitCode::FAILURE);
    }
    let mut text = format!(
        "{:<14} {:>8} {:>6} {:>10}  health\n",
        "name", "pid", "port", "uptime"
    );
    let mut all_ready = true;
    for status in statuses {
        all_ready &= status.health == Health::Ready;
        let health = match &status.health {
            Health::Ready => "ready".to_owned(),
            Health::Unready(why) => format!("not ready: {why}"),
            Health::Paused => "paused".to_owned(),
            Health::Ended(why) => why.clone(),
        };
        let or_dash = |number: Option<String>| number.unwrap_or_else(|| "-".into());
        writeln!(
            text,
            "{:<14} {:>8} {:>6} {:>10}  {health}",
            status.name,
            or_dash(status.pid.map(|pid| pid.to_string())),
            or_dash(status.port.map(|port| port.to_string())),
            or_dash(status.pid.map(|_| uptime(status.uptime))),
        )?;
    }
    match stack.owner()? {
        Some(owner) => writeln!(text, "\nIt ends with the `up` of process {owner}.")?,
        None => writeln!(text, "\nIt goes on in the background until `./dev down`.")?,
    }
    writeln!(text, "Data and logs are in {}", stack.data_dir().display())?;
    print(&text);
    Ok(if all_ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn uptime(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

pub(crate) fn env(stack: &Stack) -> ExitCode {
    let line = |(name, value)| format!("{name}={value}\n");
    print(&stack.env().into_iter().map(line).collect::<String>());
    ExitCode::SUCCESS
}

pub(crate) fn logs(
    stack: &Stack,
    name: Option<&str>,
    follow: bool,
    lines: usize,
) -> Result<ExitCode> {
    let names: Vec<String> = match name {
        Some(name) => vec![name.to_owned()],
        None => stack
            .status()?
            .into_iter()
            .map(|status| status.name)
            .collect(),
    };
    if names.is_empty() {
        bail!("nothing was started here, so there are no logs");
    }
    let prefixed = names.len() > 1;
    let mut at = BTreeMap::new();
    for name in &names {
        let log = stack.log_file(name)?;
        at.insert(
            name,
            std::fs::metadata(&log).map_or(0, |metadata| metadata.len()),
        );
        if !print(&named(name, prefixed, &command::last_lines(&log, lines))) {
            return Ok(ExitCode::SUCCESS);
        }
    }
    if !follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        thread::sleep(Duration::from_millis(200));
        for name in &names {
            let position = at.entry(name).or_default();
            let mut text = String::new();
            let Ok(mut log) = File::open(stack.log_file(name)?) else {
                continue;
            };
            if log.metadata()?.len() < *position {
                *position = 0;
            }
            log.seek(SeekFrom::Start(*position))?;
            let mut bytes = Vec::new();
            log.read_to_end(&mut bytes)?;
            // Only whole lines, so that those of several processes do not mix.
            let whole = bytes
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            text.push_str(&String::from_utf8_lossy(&bytes[..whole]));
            *position += u64::try_from(whole)?;
            if !print(&named(name, prefixed, &text)) {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

/// The lines of one process, each with its name where there are several.
fn named(name: &str, prefixed: bool, text: &str) -> String {
    let line = |line: &str| {
        if prefixed {
            format!("{name:<14} {line}\n")
        } else {
            format!("{line}\n")
        }
    };
    text.lines().map(line).collect()
}

/// Prints to whoever reads; false when nobody does any more, as after `| head`.
fn print(text: &str) -> bool {
    std::io::stdout().lock().write_all(text.as_bytes()).is_ok()
}
