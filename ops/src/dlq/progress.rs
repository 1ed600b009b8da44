//! How far a reading of the topic is: a bar on a terminal, elsewhere a line every few seconds.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

const BAR_EVERY: Duration = Duration::from_millis(100);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows progress on standard error.
pub struct Progress {
    length: u64,
    bar: Option<ProgressBar>,
    next_at: Instant,
}

impl Progress {
    /// Over so many letters.
    pub fn new(length: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("dead letters {bar:30} {pos}/{len} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(length).with_style(style)
        });
        let first = if bar.is_some() { BAR_EVERY } else { LINE_EVERY };
        Self {
            length,
            bar,
            next_at: Instant::now() + first,
        }
    }

    /// So many are read, and this came of them.
    pub fn at(&mut self, position: u64, message: impl FnOnce() -> String) {
        if Instant::now() < self.next_at {
            return;
        }
        if let Some(bar) = &self.bar {
            self.next_at = Instant::now() + BAR_EVERY;
            bar.set_position(position);
            bar.set_message(message());
        } else {
            self.next_at = Instant::now() + LINE_EVERY;
            let length = self.length;
            eprintln!("dead letters: {position} of {length}, {}", message());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
