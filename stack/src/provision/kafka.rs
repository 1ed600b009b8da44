//! The broker: jars from Maven, and a class-data archive that makes it start in half the time.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::command;
use crate::component::kafka::{self as broker, BrokerPorts};
use crate::probe;
use crate::progress::{Progress, Task};
use crate::toolchain::{self, Java};
use crate::versions::{KAFKA_POM, KAFKA_SHA256SUMS, Versions};

/// A broker that can be started.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// The Java runtime.
    pub java: PathBuf,
    /// All jars, in the order that the archive was made with.
    pub classpath: String,
    /// The class-data archive, where this runtime could make one.
    pub archive: Option<PathBuf>,
}

fn entry_name() -> String {
    let digest = hex::encode(Sha256::digest([KAFKA_POM, KAFKA_SHA256SUMS].concat()));
    format!("kafka-{}-{}", Versions::get().kafka, &digest[..8])
}

pub(super) fn is_missing(cache: &Cache) -> bool {
    cache.find(&entry_name()).is_none()
}

pub(super) fn provision(cache: &Cache, progress: &Progress) -> Result<Kafka> {
    let java = toolchain::find_java().context("Java is not installed")?;
    let jars = if let Some(dir) = cache.find(&entry_name()) {
        dir
    } else {
        let task = progress.task(&format!(
            "fetching Kafka {} with Maven",
            Versions::get().kafka
        ));
        let dir = cache.entry(&entry_name(), &task, |dir| fetch(dir, &task))?;
        task.done("");
        dir
    };
    let mut paths: Vec<String> = fs::read_dir(&jars)?
        .filter_map(|entry| Some(entry.ok()?.path().to_str()?.to_owned()))
        .filter(|path| {
            Path::new(path)
                .extension()
                .is_some_and(|extension| extension == "jar")
        })
        .collect();
    paths.sort();
    let mut kafka = Kafka {
        java: java.program.clone(),
        classpath: paths.join(":"),
        archive: None,
    };
    kafka.archive = archive(&kafka, &java, &jars, cache, progress);
    Ok(kafka)
}

fn fetch(dir: &Path, task: &Task) -> Result<()> {
    fs::write(dir.join("pom.xml"), KAFKA_POM)?;
    let mut maven = Command::new("mvn");
    maven
        .args([
            "-B",
            "-C",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
        ])
        .arg(format!("-DoutputDirectory={}", dir.display()))
        .current_dir(dir);
    command::run(task, &mut maven, None)?;
    check(dir)
}

/// Every jar of the list and no other, each with its checksum.
fn check(dir: &Path) -> Result<()> {
    let mut expected: BTreeMap<&str, &str> = KAFKA_SHA256SUMS
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, name)| (name, sum))
        .collect();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !name.ends_with(".jar") {
            continue;
        }
        let sum = expected.remove(name.as_ref()).with_context(|| {
            format!("Maven brought {name}, which tools/kafka/SHA256SUMS does not know")
        })?;
        let found = hex::encode(Sha256::digest(fs::read(dir.join(name.as_ref()))?));
        ensure!(
            found == sum,
            "{name} has the checksum {found}, tools/kafka/SHA256SUMS says {sum}"
        );
    }
    if let Some(name) = expected.keys().next() {
        bail!("Maven did not bring {name}");
    }
    Ok(())
}

/// The archive of loaded classes depends on the runtime and on the jars' places. It only saves time: a runtime that
/// cannot make one goes without.
fn archive(
    kafka: &Kafka,
    java: &Java,
    jars: &Path,
    cache: &Cache,
    progress: &Progress,
) -> Option<PathBuf> {
    let digest = hex::encode(Sha256::digest(
        [java.version.as_str(), &kafka.classpath].concat(),
    ));
    let name = format!("{}-classes-{}", entry_name(), &digest[..8]);
    let file = |dir: PathBuf| dir.join("kafka.jsa");
    if let Some(dir) = cache.find(&name) {
        return Some(file(dir));
    }
    let task = progress.task("archiving Kafka's loaded classes for faster starts");
    let dir = cache.entry(&name, &task, |dir| {
        record_classes(kafka, dir, jars)?;
        fs::remove_dir_all(dir.join("broker")).ok();
        Ok(())
    });
    match dir {
        Ok(dir) => {
            task.done("");
            Some(file(dir))
        }
        Err(error) => {
            task.done(&format!("left out, so that starts take longer: {error:#}"));
            None
        }
    }
}

/// Runs a broker once, from an empty directory to its clean end.
fn record_classes(kafka: &Kafka, dir: &Path, jars: &Path) -> Result<()> {
    const LIMIT: Duration = Duration::from_mins(1);
    let ports = [free_port()?, free_port()?];
    let ports = BrokerPorts {
        clients: ports[0],
        advertised: ports[0],
        controller: ports[1],
    };
    let properties = broker::format(kafka, &dir.join("broker"), &[ports], 1)?;
    let mut java = Command::new(&kafka.java);
    java.arg(format!(
        "-XX:ArchiveClassesAtExit={}",
        dir.join("kafka.jsa").display()
    ))
    .args(broker::arguments(kafka, &dir.join("broker"), &properties))
    .current_dir(jars)
    .stdin(Stdio::null())
    .stdout(Stdio::null())
    .stderr(Stdio::null());
    let mut child = java.spawn().context("cannot run Java")?;
    let deadline = Instant::now() + LIMIT;
    let mut asked = false;
    loop {
        if let Some(status) = child.try_wait()? {
            // 143 is how a JVM says that it ended on SIGTERM.
            ensure!(
                asked && (status.success() || status.code() == Some(143)),
                "the broker ended with {status}"
            );
            return Ok(());
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("the broker took too long");
        }
        if !asked && probe::kafka_answers(ports.clients).is_ok() {
            let pid = i32::try_from(child.id()).context("a pid beyond 31 bits")?;
            signal::kill(Pid::from_raw(pid), Signal::SIGTERM)?;
            asked = true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
