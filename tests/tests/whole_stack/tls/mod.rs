//! PostgreSQL, Kafka and Temporal over TLS: each against the real server, with certificates that
//! count and with some that do not.

mod kafka;
mod postgres;
mod temporal;

use std::{fs, path::Path, process::Command, time::Instant};

use tests::{components::repository, system::PATIENCE};

/// The authority of the servers and of Meed.
const AUTHORITY: &str = "authority";
/// One whom nobody knows.
const STRANGER: &str = "stranger";
/// How far the ports of these servers are from the first of the shared stack, where only replicas
/// would listen, and it has none.
const KAFKA_PORTS: u16 = 70;
const TEMPORAL_PORTS: u16 = 80;

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(dir)
        .output()
        .expect("openssl is there; `./dev test` installs it");
    assert!(output.status.success(), "openssl {arguments}: {output:?}");
}

/// Two authorities in a directory, which is made: `NAME.pem` and `NAME.key` of each.
fn authorities(dir: &Path) {
    fs::create_dir_all(dir).expect("a directory");
    for name in [AUTHORITY, STRANGER] {
        openssl(
            dir,
            &format!(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} \
                 -keyout {name}.key -out {name}.pem"
            ),
        );
    }
}

/// A certificate for this machine, `NAME.pem` and `NAME.key`, by one of the authorities.
fn certificate(dir: &Path, name: &str, authority: &str) {
    openssl(
        dir,
        &format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"),
    );
    let names = "subjectAltName=IP:127.0.0.1,DNS:localhost";
    fs::write(dir.join("names"), names).expect("written");
    openssl(
        dir,
        &format!(
            "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key \
             -CAcreateserial -days 2 -extfile names -out {name}.pem"
        ),
    );
}

/// The certificates of both sides: the server's, Meed's, and one of Meed's by the stranger.
fn certificates(dir: &Path) {
    authorities(dir);
    certificate(dir, "server", AUTHORITY);
    certificate(dir, "meed", AUTHORITY);
    certificate(dir, "impostor", STRANGER);
}

/// Runs the operations program with these variables beside those of the stack: whether it
/// succeeded, and what it said.
async fn meed(
    arguments: &'static [&'static str],
    variables: Vec<(&'static str, String)>,
) -> (bool, String) {
    let run = move || {
        let output = Command::new(repository().join("target/debug/meed"))
            .args(arguments)
            .envs(&tests::components::components().env)
            .envs(variables)
            .current_dir(repository())
            .output()
            .expect("target/debug/meed is there; `./dev test` builds it first");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (output.status.success(), said)
    };
    tokio::task::spawn_blocking(run)
        .await
        .expect("it does not panic")
}

/// Runs it again for as long as it fails without saying this: a slow machine may not hear why in the
/// time that a run takes.
async fn until_said(why: &str, run: impl AsyncFn() -> (bool, String)) -> (bool, String) {
    let began = Instant::now();
    loop {
        let (succeeded, said) = run().await;
        if succeeded || said.contains(why) || began.elapsed() > PATIENCE {
            return (succeeded, said);
        }
    }
}

/// What a run that must fail has said.
fn refused((succeeded, said): (bool, String)) -> String {
    assert!(!succeeded, "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}
