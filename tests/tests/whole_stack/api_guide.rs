//! The commands of docs/api.md, as a reader types them.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use serde_json::{Deserializer, Value};
use tests::components::repository;
use tokio::{process::Command, time::timeout};

use crate::api_system::{api_system, found_by_dev};

/// Stands for whatever differs from run to run.
const ANYTHING: char = '…';

/// All commands together may take this long.
const PATIENCE: Duration = Duration::from_secs(900);

/// What the guide must show, whatever else it does.
const SHOWN: [&str; 10] = [
    "meed clients add",
    "/oauth/token",
    "/rewards/events",
    "?wait=30",
    "/cancel",
    "Meed-Signature",
    "/callbacks/$CALLBACK/success",
    "/transactions",
    "/rewards/query",
    "ratelimit",
];

/// Commands, and what they print where the guide says it.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    line: usize,
    commands: String,
    printed: Option<Printed>,
}

#[derive(Debug, PartialEq, Eq)]
enum Printed {
    Json(String),
    Text(String),
}

/// The parts of the text. A block that the rules do not allow ends the test.
fn parts(text: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else {
            continue;
        };
        let block: String = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .flat_map(|line| [line, "\n"])
            .collect();
        let line = number + 1;
        if kind == "sh" {
            parts.push(Part {
                line,
                commands: block,
                printed: None,
            });
            continue;
        }
        let printed = match kind {
            "json" => Printed::Json(block),
            "text" => Printed::Text(block),
            other => panic!("line {line}: a block of kind {other:?}"),
        };
        let part = parts.last_mut().expect("commands come first");
        let before = part.printed.replace(printed);
        assert_eq!(before, None, "line {line}: commands print one thing");
    }
    parts
}

/// Whether the text is as the pattern says, in which `…` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split(ANYTHING);
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    for piece in pieces {
        let Some(at) = rest.find(piece) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

fn is_like(pattern: &Value, value: &Value) -> bool {
    match (pattern, value) {
        (Value::String(pattern), _) if pattern.chars().eq([ANYTHING]) => true,
        (Value::String(pattern), Value::String(text)) => fits(pattern, text),
        (Value::Array(patterns), Value::Array(values)) => {
            patterns.len() == values.len()
                && patterns.iter().zip(values).all(|(p, v)| is_like(p, v))
        }
        (Value::Object(patterns), Value::Object(values)) => {
            patterns.len() == values.len()
                && patterns
                    .iter()
                    .all(|(name, p)| values.get(name).is_some_and(|v| is_like(p, v)))
        }
        _ => pattern == value,
    }
}

fn documents(text: &str) -> Vec<Value> {
    Deserializer::from_str(text)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap_or_else(|error| panic!("{error} in {text}"))
}

impl Printed {
    fn is(&self, output: &str) -> bool {
        match self {
            Self::Json(said) => {
                let (said, output) = (documents(said), documents(output));
                is_like(&said.into(), &output.into())
            }
            Self::Text(said) => {
                said.lines().count() == output.lines().count()
                    && said.lines().zip(output.lines()).all(|(p, t)| fits(p, t))
            }
        }
    }
}

/// One session with all commands; what each part prints goes to a file of its own.
fn session(parts: &[Part], outputs: &Path) -> String {
    let mut script = "set -euo pipefail\n".to_owned();
    for (number, part) in parts.iter().enumerate() {
        let file = output_of(outputs, number);
        let _ = writeln!(
            script,
            "{{\n{}}} >'{}'",
            part.commands,
            file.to_string_lossy()
        );
    }
    script
}

fn output_of(outputs: &Path, number: usize) -> PathBuf {
    outputs.join(format!("{number}.out"))
}

/// A directory in which `./dev` is the program behind it, so that nothing is compiled here.
fn directory() -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let root = repository();
    let directory = std::env::temp_dir().join(format!("meed-guide-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    let dev = format!(
        "#!/bin/sh\nexec '{}' \"$@\"\n",
        root.join("target/debug/stack").display()
    );
    let file = directory.join("dev");
    fs::write(&file, dev).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it is ours");
    directory
}

#[tokio::test]
async fn every_command_of_the_guide_does_what_it_says() {
    let text = fs::read_to_string(repository().join("docs/api.md")).expect("it is there");
    let parts = parts(&text);
    for shown in SHOWN {
        let is_shown = parts.iter().any(|part| part.commands.contains(shown));
        assert!(is_shown, "no command with {shown}");
    }

    let system = api_system().await;
    let directory = directory();
    let mut session_of_bash = Command::new("bash");
    session_of_bash
        .arg("-c")
        .arg(session(&parts, &directory))
        .current_dir(&directory)
        .envs(found_by_dev(&system))
        .kill_on_drop(true);
    let running = timeout(PATIENCE, session_of_bash.output());
    let Output { status, stderr, .. } = running.await.expect("in time").expect("bash runs");
    let stderr = String::from_utf8_lossy(&stderr);

    for (number, part) in parts.iter().enumerate() {
        let output = fs::read_to_string(output_of(&directory, number)).unwrap_or_default();
        let is_last = !output_of(&directory, number + 1).exists();
        assert!(
            status.success() || !is_last,
            "docs/api.md, line {}: the commands end with {status}\n{output}\n{stderr}",
            part.line
        );
        if let Some(printed) = &part.printed {
            assert!(
                printed.is(&output),
                "docs/api.md, line {}: the commands print\n{output}\n{stderr}",
                part.line
            );
        }
    }
    fs::remove_dir_all(&directory).expect("it is ours");
    system.assert_ledger_agrees().await;
}

#[test]
fn what_is_printed_is_compared() {
    for (pattern, text) in [
        ("a", "a"),
        ("R-…-1", "R-17-1"),
        ("…", ""),
        ("r=…;t=…", "r=1;t=2"),
    ] {
        assert!(fits(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in [("a", "ab"), ("R-…-1", "R-17-2"), ("…a", "ab"), ("a…a", "a")] {
        assert!(!fits(pattern, text), "{pattern} {text}");
    }
    let json = |text: &str| Printed::Json(text.to_owned());
    assert!(json("{\"a\": \"…\", \"b\": [1]}").is("{\"b\":[1],\"a\":null}"));
    assert!(json("1\n2").is("1 2"));
    for (said, output) in [
        ("{}", "{\"a\":1}"),
        ("{\"a\":1}", "{}"),
        ("1", "1 2"),
        ("[1]", "[]"),
    ] {
        assert!(!json(said).is(output), "{said} {output}");
    }
}

#[test]
fn blocks_are_read_with_what_follows() {
    let text = "one\n```sh\na\nb\n```\n```json\n1\n```\n```sh\nc\n```\n";
    let [first, second] = &parts(text)[..] else {
        panic!("two parts");
    };
    assert_eq!(first.commands, "a\nb\n");
    assert_eq!(first.printed, Some(Printed::Json("1\n".to_owned())));
    assert_eq!((second.line, &second.printed), (9, &None));
}
