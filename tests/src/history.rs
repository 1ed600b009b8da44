//! Recorded histories: what the tests replay, so that a change of a workflow that would break a
//! flow under way is noticed.
//!
//! With `MEED_RECORD_HISTORIES` set, the whole-stack tests write what they ran into
//! `tests/histories/`; recorded files are committed and only ever added to.

use std::{collections::HashMap, path::PathBuf, sync::Mutex};

use temporalio_client::WorkflowHistory;

use crate::components::repository;

/// Where recorded histories are kept.
pub fn directory() -> PathBuf {
    repository().join("tests/histories")
}

/// Records a history under the running test's name, when asked to.
///
/// # Panics
/// When it cannot be written.
pub async fn record(workflow: &str, history: WorkflowHistory) {
    static COUNTS: Mutex<Option<HashMap<String, u32>>> = Mutex::new(None);
    if std::env::var_os("MEED_RECORD_HISTORIES").is_none() {
        return;
    }
    let thread = std::thread::current();
    let test = thread
        .name()
        .and_then(|name| name.rsplit("::").next())
        .unwrap_or("flow")
        .to_owned();
    let number = {
        let mut counts = COUNTS.lock().expect("no test has panicked here");
        let number = counts
            .get_or_insert_default()
            .entry(format!("{workflow}-{test}"))
            .or_default();
        *number += 1;
        *number
    };
    // One of a kind is enough of those that repeat a story many times.
    if number > 4 {
        return;
    }
    let json = history.to_json().await.expect("the history is read");
    std::fs::create_dir_all(directory()).expect("a directory");
    let path = directory().join(format!("{workflow}-{test}-{number}.json"));
    std::fs::write(path, json).expect("the history is written");
}
