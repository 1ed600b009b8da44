//! Every recorded history is replayed with today's code.

use std::collections::BTreeMap;

use temporalio_client::WorkflowHistory;
use temporalio_sdk::workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions};
use tests::history;
use workflows::{
    AssignPromotion, AwardBatch, ClaimPromotion, Prune, RebuildRanking, Reconcile, Redeem, Relay,
    TierUpgrade,
};

fn replayer() -> WorkflowReplayer {
    let options = WorkflowReplayerOptions::new()
        .register_workflow::<AssignPromotion>()
        .expect("AssignPromotion registers once")
        .register_workflow::<AwardBatch>()
        .expect("AwardBatch registers once")
        .register_workflow::<Prune>()
        .expect("Prune registers once")
        .register_workflow::<ClaimPromotion>()
        .expect("ClaimPromotion registers once")
        .register_workflow::<RebuildRanking>()
        .expect("RebuildRanking registers once")
        .register_workflow::<Reconcile>()
        .expect("Reconcile registers once")
        .register_workflow::<Redeem>()
        .expect("Redeem registers once")
        .register_workflow::<Relay>()
        .expect("Relay registers once")
        .register_workflow::<TierUpgrade>()
        .expect("TierUpgrade registers once")
        .build();
    WorkflowReplayer::new(options).expect("a replayer")
}

#[tokio::test]
async fn every_recorded_history_replays() {
    let mut replayed: BTreeMap<String, u32> = BTreeMap::new();
    let mut files: Vec<_> = std::fs::read_dir(history::directory())
        .expect("histories are recorded")
        .map(|entry| entry.expect("it is readable").path())
        .collect();
    files.sort();
    for file in files {
        let name = file
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let bytes = std::fs::read(&file).expect("it is readable");
        let history = WorkflowHistory::from_json(&bytes).expect("it is a history");
        if let Err(error) = replayer().replay_workflow(history).await {
            panic!("{name} does not replay: {error:?}");
        }
        let workflow = name.split('-').next().expect("a name").to_owned();
        *replayed.entry(workflow).or_default() += 1;
    }
    for workflow in [
        "AssignPromotion",
        "AwardBatch",
        "ClaimPromotion",
        "Prune",
        "RebuildRanking",
        "Reconcile",
        "Redeem",
        "Relay",
        "TierUpgrade",
    ] {
        assert!(
            replayed.contains_key(workflow),
            "no history of {workflow} among {replayed:?}"
        );
    }
}

/// The check of the check: a history whose steps ran in another order does not replay.
#[tokio::test]
async fn a_history_of_another_story_does_not_replay() {
    let file = history::directory().join("Redeem-confirmed-1.json");
    let text = std::fs::read_to_string(file).expect("it is recorded");
    // Payloads of markers are base64; the marker's activity name is inside.
    let mut history: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let events = history["events"].as_array_mut().expect("events");
    let markers: Vec<usize> = events
        .iter()
        .enumerate()
        .filter(|(_, event)| event.to_string().contains("core_local_activity"))
        .map(|(index, _)| index)
        .collect();
    assert!(markers.len() >= 3, "reserve, confirm and settle are local");
    let first = events[markers[0]]["attributes"].clone();
    events[markers[0]]["attributes"] = events[markers[2]]["attributes"].clone();
    events[markers[2]]["attributes"] = first;
    let bytes = serde_json::to_vec(&history).expect("JSON");
    let history = WorkflowHistory::from_json(&bytes).expect("it still reads as a history");
    assert!(replayer().replay_workflow(history).await.is_err());
}
