//! Runs a program to its end, shows its latest line, and keeps enough of its output to say why it failed.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::progress::Task;

const KEPT_LINES: usize = 40;

/// Runs `command`; a failure carries its last lines. With `log`, all of its output is appended there too.
pub fn run(task: &Task, command: &mut Command, log: Option<&Path>) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let log = log
        .map(|path| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| path.display().to_string())
        })
        .transpose()?;
    let output = Output {
        task,
        log: Mutex::new(log),
        lines: Mutex::new(VecDeque::new()),
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{program}`"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        scope.spawn(|| output.follow(stdout));
        scope.spawn(|| output.follow(stderr));
    });
    let status = child
        .wait()
        .with_context(|| format!("lost sight of `{program}`"))?;
    if !status.success() {
        let lines = output
            .lines
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        bail!(
            "`{}` ended with {status}\n{}",
            spelled(command),
            indented(lines.iter().map(String::as_str))
        );
    }
    Ok(())
}

struct Output<'a> {
    task: &'a Task,
    log: Mutex<Option<File>>,
    lines: Mutex<VecDeque<String>>,
}

impl Output<'_> {
    fn follow(&self, stream: Option<impl Read>) {
        let Some(stream) = stream else { return };
        let mut reader = BufReader::new(stream);
        let mut bytes = Vec::new();
        while reader
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|read| read > 0)
        {
            if let Some(log) = self
                .log
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_mut()
            {
                // A full disk shows itself in what the command does; its log must not end it.
                log.write_all(&bytes).ok();
            }
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            self.task.line(&line);
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push_back(line);
            if lines.len() > KEPT_LINES {
                lines.pop_front();
            }
        }
    }
}

/// Runs `command` and returns what it printed, without its last line end.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{program}`"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` ended with {}\n{}",
            spelled(command),
            output.status,
            indented(error.lines())
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}

/// The command as one would type it.
pub(crate) fn spelled(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The last lines of a log file.
pub fn last_lines(path: &Path, count: usize) -> String {
    let Ok(bytes) = fs::read(path) else {
        return String::new();
    };
    // Enough for `count` long lines, without walking a large file.
    let tail = &bytes[bytes.len().saturating_sub(count * 4096)..];
    let text = String::from_utf8_lossy(tail);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

pub(crate) fn indented<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Progress;

    #[test]
    fn a_failure_carries_the_last_words() {
        let task = Progress::quiet().task("trial");
        let error = run(
            &task,
            Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]),
            None,
        )
        .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("one") && text.contains("two") && text.contains('3'),
            "{text}"
        );
        task.done("");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = output(&mut Command::new("no-such-program")).unwrap_err();
        assert!(error.to_string().contains("no-such-program"));
    }
}
