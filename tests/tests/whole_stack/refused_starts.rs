//! What cannot start says so in one clear message, and ends.

use std::process::Command;

use tests::{
    components::{components, repository},
    system::system,
};

/// The addresses that programs listen on; the running system has its own already.
const LISTEN: [&str; 3] = ["MEED_API_LISTEN", "MEED_GRPC_LISTEN", "MEED_WORKER_LISTEN"];

/// Runs a program that must not start, and gives what it said.
fn refused(program: &str, env: &[(&str, String)]) -> String {
    let output = Command::new(repository().join("target/debug").join(program))
        .envs(&components().env)
        .envs(LISTEN.map(|name| (name, "127.0.0.1:0")))
        .envs(env.iter().map(|(name, value)| (name, value)))
        .current_dir(repository())
        .output()
        .expect("it runs");
    assert!(!output.status.success(), "{program} started with {env:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !said.contains("panicked") && !said.contains("backtrace"),
        "{said}"
    );
    let last = said
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .expect("it says why");
    last.to_owned()
}

fn scratch(name: &str, text: &str) -> String {
    let path = std::env::temp_dir().join(format!("meed-{}-{name}", std::process::id()));
    std::fs::write(&path, text).expect("a scratch file");
    path.to_string_lossy().into_owned()
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let _system = system().await;
    tokio::task::spawn_blocking(|| {
        let config = std::fs::read_to_string(repository().join("meed.toml")).expect("meed.toml");
        for program in ["meed-worker", "meed-api"] {
            let (server, _) = components().env["DATABASE_URL"]
                .rsplit_once('/')
                .expect("an address");
            let said = refused(program, &[("DATABASE_URL", format!("{server}/nowhere"))]);
            assert!(said.contains("the database nowhere"), "{program}: {said}");
            let said = refused(program, &[("TEMPORAL_ADDRESS", "no address".into())]);
            assert!(said.contains("TEMPORAL_ADDRESS"), "{program}: {said}");
            let said = refused(program, &[("TEMPORAL_NAMESPACE", "nowhere".into())]);
            assert!(said.contains("no namespace nowhere"), "{program}: {said}");
            let taken = LISTEN.map(|name| (name, components().env[name].clone()));
            let said = refused(program, &taken);
            assert!(said.contains("in use"), "{program}: {said}");

            let broken = scratch(
                "config.toml",
                &config.replace("[database]", "[database]\nsurprise = 1"),
            );
            let said = refused(program, &[("MEED_CONFIG", broken)]);
            assert!(
                said.contains("line") && said.contains("surprise"),
                "{program}: {said}"
            );
        }
        let rules = std::fs::read_to_string(repository().join("programme.toml")).expect("rules");
        let rules = scratch(
            "programme.toml",
            &rules.replacen("[[rules]]", "[[rules]]\nfoo = 1", 1),
        );
        let with_rules = scratch(
            "rules.toml",
            &config.replace("\"programme.toml\"", &format!("{rules:?}")),
        );
        let said = refused("meed-worker", &[("MEED_CONFIG", with_rules)]);
        assert!(said.contains("line") && said.contains("foo"), "{said}");
    })
    .await
    .expect("checked");
}
