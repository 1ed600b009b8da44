//! When this machine stood still: what was asked then says nothing about who was asked.

use std::{
    sync::{Mutex, MutexGuard, Once, PoisonError},
    thread,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

/// How often the clock is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The machine stood still where the next look came so much too late.
const LATE: Duration = Duration::from_millis(500);
/// Then it takes a while until all have caught up: nginx leaves replicas alone for a second or two
/// that did not answer in time.
const AFTERMATH: Duration = Duration::from_secs(3);

static METER: Mutex<Meter> = Mutex::new(Meter {
    last_look: None,
    stalls: Vec::new(),
});

struct Meter {
    last_look: Option<Instant>,
    /// From which look to which.
    stalls: Vec<(Instant, Instant)>,
}

impl Meter {
    fn look(&mut self) {
        let now = Instant::now();
        if let Some(before) = self.last_look.replace(now)
            && now.duration_since(before) > LOOK_EVERY + LATE
        {
            self.stalls.push((before, now));
        }
    }
}

fn meter() -> MutexGuard<'static, Meter> {
    METER.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look_on_and_on() {
    loop {
        meter().look();
        thread::sleep(LOOK_EVERY);
    }
}

/// Begins to look at the clock, if nobody does yet.
pub fn watch() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        thread::spawn(look_on_and_on);
    });
}

/// Whether the machine stood still between these two, or just before. It is known since [`watch`].
pub fn overlap(from: Instant, to: Instant) -> bool {
    watch();
    let mut meter = meter();
    // Whoever asks may be awake again before the meter is.
    meter.look();
    let mut stalls = meter.stalls.iter();
    stalls.any(|(began, ended)| from <= *ended + AFTERMATH && to >= *began)
}

/// The same for the times of a log.
pub fn overlap_in_log(from: DateTime<Utc>, to: DateTime<Utc>) -> bool {
    let (now, time) = (Instant::now(), Utc::now());
    let instant = |at: DateTime<Utc>| {
        let ago = (time - at).to_std().unwrap_or_default();
        now.checked_sub(ago).unwrap_or(now)
    };
    overlap(instant(from), instant(to))
}
