//! Says what is going on whenever something takes longer than two seconds: with moving lines on a terminal, with plain
//! ones elsewhere.

use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

const FIRST_WORD_AFTER: Duration = Duration::from_secs(2);
const REPEAT_EVERY: Duration = Duration::from_secs(20);
const LAST_LINE_CHARACTERS: usize = 80;

#[derive(Debug, Clone)]
enum Style {
    Lively(MultiProgress),
    Plain,
    Quiet,
}

/// Where tasks show themselves.
#[derive(Debug, Clone)]
pub struct Progress {
    style: Style,
}

impl Progress {
    /// For people: moving lines on a terminal, otherwise a plain line per task.
    pub fn shown() -> Self {
        let lively = std::io::stderr().is_terminal() && std::env::var_os("CI").is_none();
        Self {
            style: if lively {
                Style::Lively(MultiProgress::new())
            } else {
                Style::Plain
            },
        }
    }

    /// A plain line per task, for when other programs write to the same terminal.
    pub fn plain() -> Self {
        Self {
            style: Style::Plain,
        }
    }

    /// For tests: only what takes long says a word.
    pub fn quiet() -> Self {
        Self {
            style: Style::Quiet,
        }
    }

    /// Begins a task.
    pub fn task(&self, name: &str) -> Task {
        let last_line = Arc::new(Mutex::new(String::new()));
        let (bar, ticker) = match &self.style {
            Style::Lively(bars) => {
                let style = ProgressStyle::with_template(
                    "{spinner:.cyan} {prefix} {elapsed:.dim} {wide_msg:.dim}",
                )
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
                let bar = bars.add(
                    ProgressBar::new_spinner()
                        .with_style(style)
                        .with_prefix(name.to_owned()),
                );
                bar.enable_steady_tick(Duration::from_millis(120));
                (Some(bar), None)
            }
            Style::Plain | Style::Quiet => (
                None,
                Some(Ticker::start(name.to_owned(), Arc::clone(&last_line))),
            ),
        };
        Task {
            name: name.to_owned(),
            begun: Instant::now(),
            style: self.style.clone(),
            bar,
            ticker,
            last_line,
        }
    }

    /// Prints a line without disturbing the moving ones.
    pub fn say(&self, line: &str) {
        match &self.style {
            Style::Lively(bars) => bars.suspend(|| eprintln!("{line}")),
            Style::Plain => eprintln!("{line}"),
            Style::Quiet => {}
        }
    }
}

/// Something that takes time. It is shown as failed unless [`Task::done`] is called.
#[derive(Debug)]
pub struct Task {
    name: String,
    begun: Instant,
    style: Style,
    bar: Option<ProgressBar>,
    ticker: Option<Ticker>,
    last_line: Arc<Mutex<String>>,
}

impl Task {
    /// Shows the latest line of output beside the task.
    pub fn line(&self, line: &str) {
        let line: String = without_colours(line)
            .chars()
            .filter(|character| !character.is_control())
            .take(LAST_LINE_CHARACTERS)
            .collect();
        if line.trim().is_empty() {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.set_message(line);
        } else {
            *self
                .last_line
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = line;
        }
    }

    /// The task has ended well; `note` says what came of it and may be empty.
    pub fn done(mut self, note: &str) {
        let note = if note.is_empty() {
            String::new()
        } else {
            format!(" ({note})")
        };
        self.close(&format!("✓ {}{note}", self.name), true);
    }

    fn close(&mut self, line: &str, ended_well: bool) {
        let bar = self.bar.take();
        let spoke = self.ticker.take().is_some_and(Ticker::stop);
        let line = format!("{line} {}", seconds(self.begun.elapsed()));
        match &self.style {
            Style::Lively(bars) => {
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                    bars.remove(&bar);
                    bars.suspend(|| eprintln!("{line}"));
                }
            }
            Style::Plain => eprintln!("{line}"),
            Style::Quiet if spoke || !ended_well => eprintln!("{line}"),
            Style::Quiet => {}
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.bar.is_some() || self.ticker.is_some() {
            self.close(&format!("✗ {}", self.name), false);
        }
    }
}

/// The text without the escape sequences that colour it.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let end = part.find(|character: char| character.is_ascii_alphabetic());
        text + end.map_or("", |end| &part[end + 1..])
    })
}

/// `12.3 s` or `3 min 18 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(100) {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!(
            "{} min {} s",
            duration.as_secs() / 60,
            duration.as_secs() % 60
        )
    }
}

/// The thread that speaks up for a task where lines cannot move.
#[derive(Debug)]
struct Ticker {
    end: Sender<()>,
    thread: JoinHandle<bool>,
}

impl Ticker {
    fn start(name: String, last_line: Arc<Mutex<String>>) -> Self {
        let (end, ended) = mpsc::channel();
        let thread = thread::spawn(move || {
            let begun = Instant::now();
            let mut pause = FIRST_WORD_AFTER;
            loop {
                match ended.recv_timeout(pause) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return begun.elapsed() >= FIRST_WORD_AFTER,
                }
                let line = last_line
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                let line = if line.is_empty() {
                    line
                } else {
                    format!(": {line}")
                };
                eprintln!("… {name}, {}{line}", seconds(begun.elapsed()));
                pause = REPEAT_EVERY;
            }
        });
        Self { end, thread }
    }

    /// Ends the thread and says whether it had spoken.
    fn stop(self) -> bool {
        drop(self.end);
        self.thread.join().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_taken_off() {
        assert_eq!(
            without_colours("[\u{1b}[1;34mINFO\u{1b}[m] done"),
            "[INFO] done"
        );
        assert_eq!(without_colours("plain"), "plain");
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(1240)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(198)), "3 min 18 s");
    }
}
