//! Progress on a terminal as a bar, elsewhere as a line every few seconds.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const FIRST_LINE_AFTER: Duration = Duration::from_secs(2);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How far one phase is.
pub(crate) struct Progress {
    name: &'static str,
    length: usize,
    bar: Option<ProgressBar>,
    started: Instant,
    next_line_at: Instant,
}

impl Progress {
    pub(crate) fn new(name: &'static str, length: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix:12} {bar:30} {pos}/{len} {msg}")
                .expect("the template is valid");
            ProgressBar::new(length as u64)
                .with_style(style)
                .with_prefix(name)
        });
        let started = Instant::now();
        Self {
            name,
            length,
            bar,
            started,
            next_line_at: started + FIRST_LINE_AFTER,
        }
    }

    /// Shows where it is, if it is time to.
    pub(crate) fn at(&mut self, position: usize, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(position as u64);
            bar.set_message(message.to_owned());
        } else if Instant::now() >= self.next_line_at {
            self.next_line_at = Instant::now() + LINE_EVERY;
            eprintln!("{}: {position}/{} {message}", self.name, self.length);
        }
    }

    /// Says how long it took.
    pub(crate) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!(
            "{}: {} messages sent and settled in {:.1} s",
            self.name,
            self.length,
            self.started.elapsed().as_secs_f64()
        );
    }
}
