//! Rules and dashboards, checked without a running system: promtool reads the rules and runs their
//! tests, every alert is shown firing and has its chapter, and every dashboard can be imported.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use serde_json::Value;
use tests::{
    components::repository,
    observability::{files, metrics_of, panels, rules, rules_directory},
};

fn promtool(what: &[&str], suffix: &str) {
    let output = Command::new("promtool")
        .args(what)
        .args(files("deploy/prometheus", suffix))
        .current_dir(rules_directory())
        .output()
        .expect("promtool is there; `./dev test` installs it");
    assert!(
        output.status.success(),
        "promtool {what:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn promtool_takes_the_rules_and_their_tests_pass() {
    promtool(&["check", "rules"], ".rules.yaml");
    promtool(&["test", "rules"], ".rules.test.yaml");
}

/// The fragment for Kubernetes calls the chart's pods what rules and dashboards call them.
#[test]
fn promtool_takes_what_asks_the_pods_in_kubernetes() {
    let file = repository().join("deploy/prometheus/kubernetes.yml");
    let text = fs::read_to_string(file).expect("there");
    assert!(text.contains("regex: (api|worker)(-.*)?"), "{text}");
    // Debian's knows no Kubernetes; what is done with what is found there is the same.
    let found = "kubernetes_sd_configs:\n      - role: pod\n";
    assert!(text.contains(found), "{text}");
    let text = text.replace(found, "static_configs:\n      - targets: [pod]\n");
    let name = format!("meed-kubernetes-{}.yml", std::process::id());
    let file = std::env::temp_dir().join(name);
    fs::write(&file, text).expect("written");
    let output = Command::new("promtool")
        .args(["check", "config", "--syntax-only"])
        .arg(&file)
        .output()
        .expect("promtool is there; `./dev test` installs it");
    fs::remove_file(file).expect("removed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
}

#[test]
fn every_alert_is_shown_firing_and_has_its_chapter() {
    let tests: String = files("deploy/prometheus", ".rules.test.yaml")
        .iter()
        .map(|file| fs::read_to_string(file).expect("it is readable"))
        .collect();
    let operations = fs::read_to_string(repository().join("docs/operations.md")).expect("there");
    let mut chapters: BTreeMap<String, String> = BTreeMap::new();
    let mut chapter = String::new();
    for line in operations.lines() {
        if line.starts_with('#') {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            let kept = |c: &char| c.is_alphanumeric() || *c == ' ' || *c == '-';
            chapter = words.chars().filter(kept).collect();
            chapter = chapter.replace(' ', "-");
        }
        chapters.entry(chapter.clone()).or_default().push_str(line);
    }
    let mut alerts = 0;
    for rule in rules() {
        let Some(alert) = rule.alert else { continue };
        alerts += 1;
        let firing = format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"");
        let shown = tests.lines().any(|line| {
            let sample = line.trim().strip_prefix("- {labels: '");
            sample.is_some_and(|sample| sample.starts_with(&firing))
        });
        assert!(shown, "no test shows {alert} firing");
        let chapter = rule.annotations["runbook"]
            .strip_prefix("docs/operations.md#")
            .unwrap_or_else(|| panic!("{alert} has no chapter in docs/operations.md"));
        let treated = chapters.get(chapter);
        let treated = treated.unwrap_or_else(|| panic!("{alert}: no chapter {chapter}"));
        // By its name, or with others by how their names begin: `MeedBudgetBurns…`.
        let named = treated.split('`').any(|word| {
            let begins = word.strip_suffix('…');
            word == alert || begins.is_some_and(|begins| alert.starts_with(begins))
        });
        assert!(named, "{alert} is not named in {chapter}");
        assert!(!rule.annotations["summary"].is_empty(), "{alert}");
    }
    assert!(alerts > 20);
}

/// A name that is recorded is recorded somewhere, and a rule or panel that asks for it asks for
/// one that is.
#[test]
fn what_is_asked_for_under_a_recorded_name_is_recorded() {
    let recorded: BTreeSet<String> = rules().into_iter().filter_map(|rule| rule.record).collect();
    let rules = rules();
    let exprs = rules.iter().map(|rule| rule.expr.clone());
    for expr in exprs.chain(panels().into_iter().map(|panel| panel.expr)) {
        for name in metrics_of(&expr).iter().filter(|name| name.contains(':')) {
            assert!(recorded.contains(name), "{name} in {expr}");
        }
    }
}

#[test]
fn dashboards_can_be_imported_side_by_side() {
    let mut uids = BTreeSet::new();
    for file in files("deploy/grafana", ".json") {
        let text = fs::read_to_string(&file).expect("it is readable");
        let dashboard: Value = serde_json::from_str(&text).expect("it is JSON");
        let uid = dashboard["uid"].as_str().expect("a uid");
        assert!(uids.insert(uid.to_owned()), "{uid} twice");
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().expect("panels") {
            assert!(ids.insert(panel["id"].as_i64().expect("an id")), "{uid}");
            let place = &panel["gridPos"];
            let right = place["x"].as_i64().expect("x") + place["w"].as_i64().expect("w");
            assert!(right <= 24, "{uid}: {}", panel["title"]);
            if panel["type"] != "row" {
                assert_eq!(panel["datasource"]["uid"], "${datasource}", "{uid}");
                assert!(!panel["targets"].as_array().expect("targets").is_empty());
            }
        }
    }
}
