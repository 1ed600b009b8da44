//! Where a process can be made to die, and which safeguard can be taken out, so that the fault
//! runs can prove what the safeguards are for.
//!
//! * [`reach`] marks a crash point. With `MEED_CRASH_POINT=settle.after-commit=3` the process is
//!   killed (SIGKILL) as it passes that point for the third time, after adding the point's name
//!   to the file `MEED_CRASH_LOG`. Several points are separated by commas.
//! * [`planted`] says whether a safeguard is to be left out: with `MEED_PLANTED_BUG=outbox-mark`
//!   the one of that name. The fault runs must then fail; this is how the checker is checked.
//!
//! Both exist only in builds with debug assertions; in a release build they are empty and the
//! variables mean nothing.
//!
//! The crate `fail` does much of this, but behind a feature, and so in a second build of
//! everything that has a point in it; and it does not count and kill.

/// The safeguards that can be left out, one at a time.
pub mod bug {
    /// An event that was posted before is posted again.
    pub const UNIQUE_KEY: &str = "unique-key";
    /// A Kafka offset is committed before its messages are posted.
    pub const OFFSET_ORDER: &str = "offset-order";
    /// A hold that was closed can be closed again.
    pub const HOLD_GUARD: &str = "hold-guard";
    /// The merchant is asked before the row says so.
    pub const STATE_BEFORE_CALL: &str = "state-before-call";
    /// Points go back without the merchant having voided.
    pub const VOID_BEFORE_RELEASE: &str = "void-before-release";
    /// An outbox row is marked before Kafka has acknowledged it.
    pub const OUTBOX_MARK: &str = "outbox-mark";
    /// All of them.
    pub const ALL: [&str; 6] = [
        UNIQUE_KEY,
        OFFSET_ORDER,
        HOLD_GUARD,
        STATE_BEFORE_CALL,
        VOID_BEFORE_RELEASE,
        OUTBOX_MARK,
    ];
}

/// Passes the crash point `<step>.<moment>`, such as `settle.after-commit`.
#[cfg(not(debug_assertions))]
#[inline]
pub const fn reach(_step: &str, _moment: &str) {}

/// Whether this safeguard is left out.
#[cfg(not(debug_assertions))]
#[inline]
pub const fn planted(_bug: &str) -> bool {
    false
}

/// What is armed in this process, in words; nothing when all is as it should be.
#[cfg(not(debug_assertions))]
#[inline]
pub const fn armed() -> Option<String> {
    None
}

#[cfg(debug_assertions)]
pub use armed::{armed, planted, reach};

#[cfg(debug_assertions)]
mod armed {
    use std::{
        collections::HashMap,
        fs::OpenOptions,
        io::Write,
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    use nix::{sys::signal, unistd::Pid};

    /// Passings that are left until the process dies, by point.
    static ARMED: LazyLock<HashMap<String, AtomicU64>> =
        LazyLock::new(|| parse(&std::env::var("MEED_CRASH_POINT").unwrap_or_default()));
    static PLANTED: LazyLock<String> =
        LazyLock::new(|| std::env::var("MEED_PLANTED_BUG").unwrap_or_default());

    /// Points as they stand in the variable; what is not one is said and left out.
    pub(super) fn parse(text: &str) -> HashMap<String, AtomicU64> {
        text.split(',')
            .filter(|entry| !entry.is_empty())
            .filter_map(|entry| {
                let parsed = entry
                    .split_once('=')
                    .and_then(|(point, nth)| Some((point.to_owned(), nth.parse().ok()?)))
                    .filter(|(_, nth)| *nth > 0);
                if parsed.is_none() {
                    eprintln!("MEED_CRASH_POINT: {entry:?} is not name=count; left out");
                }
                parsed.map(|(point, nth)| (point, AtomicU64::new(nth)))
            })
            .collect()
    }

    /// Passes the crash point `<step>.<moment>`, such as `settle.after-commit`.
    pub fn reach(step: &str, moment: &str) {
        if ARMED.is_empty() {
            return;
        }
        let point = format!("{step}.{moment}");
        let Some(left) = ARMED.get(&point) else {
            return;
        };
        if left.fetch_sub(1, Ordering::SeqCst) == 1 {
            die(&point);
        }
    }

    /// Whether this safeguard is left out.
    pub fn planted(bug: &str) -> bool {
        *PLANTED == bug
    }

    /// What is armed in this process, in words; nothing when all is as it should be.
    pub fn armed() -> Option<String> {
        let mut points: Vec<&str> = ARMED.keys().map(String::as_str).collect();
        points.sort_unstable();
        let mut words = Vec::new();
        if !points.is_empty() {
            words.push(format!("dies at {}", points.join(", ")));
        }
        if !PLANTED.is_empty() {
            words.push(format!("works without the safeguard {}", *PLANTED));
        }
        (!words.is_empty()).then(|| words.join("; "))
    }

    fn die(point: &str) {
        if let Ok(path) = std::env::var("MEED_CRASH_LOG") {
            // Whether it could be written or not, the process dies here.
            let _ = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .and_then(|mut file| file.write_all(format!("{point}\n").as_bytes()));
        }
        let _ = signal::kill(Pid::this(), signal::Signal::SIGKILL);
        // The signal is delivered before this thread goes on; should it not be, it still must not.
        std::process::abort();
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use std::sync::atomic::Ordering;

    #[test]
    fn points_are_read_and_nonsense_is_left_out() {
        let points = super::armed::parse("a.before=3,b=0,c,,d=x,e=1");
        let mut read: Vec<(String, u64)> = points
            .into_iter()
            .map(|(point, left)| (point, left.load(Ordering::SeqCst)))
            .collect();
        read.sort();
        assert_eq!(read, [("a.before".to_owned(), 3), ("e".to_owned(), 1)]);
    }

    #[test]
    fn nothing_happens_where_nothing_is_armed() {
        super::reach("nowhere", "at-all");
        assert!(!super::planted(super::bug::UNIQUE_KEY));
    }
}
