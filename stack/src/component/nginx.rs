//! nginx in front of the replicas of a service, unprivileged and in a directory of its own.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::launch::{Farewell, Launch, Readiness};
use crate::places;
use crate::template;

/// After one failure a replica is left alone for a second, then tried again.
const SERVER: &str = "max_fails=1 fail_timeout=1s";

/// Writes the configuration, made from `config` and the files beside it, and says how to start nginx at `port` in front
/// of the services at the ports `upstream`. It has to answer at `/health` itself.
pub(crate) fn launch(
    program: &Path,
    data_dir: &Path,
    port: u16,
    config: &Path,
    upstream: &[u16],
) -> Result<Launch> {
    let dir = data_dir.join("nginx");
    places::create_dir(&dir)?;
    places::create_dir(&dir.join("temp"))?;
    let account = places::unprivileged_account()?;
    if let Some(account) = account {
        for dir in [&dir, &dir.join("temp")] {
            chown(dir, Some(account.uid), Some(account.gid))?;
        }
    }
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
    };
    let servers: Vec<String> = upstream
        .iter()
        .map(|port| format!("server 127.0.0.1:{port} {SERVER};"))
        .collect();
    let text = template::expand(&read(config)?, &|name| match name {
        "LISTEN" => Some(format!("127.0.0.1:{port}")),
        "SERVERS" => Some(servers.join("\n        ")),
        _ => None,
    })?;
    let mut digest = Sha256::new();
    digest.update(&text);
    let main = dir.join("nginx.conf");
    fs::write(&main, text)?;
    let beside = config
        .parent()
        .context("a configuration file is somewhere")?;
    let mut others: Vec<_> = fs::read_dir(beside)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    others.sort();
    for other in others
        .iter()
        .filter(|other| *other != config && other.is_file())
    {
        let text = read(other)?;
        digest.update(&text);
        let name = other.file_name().context("a file without a name")?;
        fs::write(dir.join(name), text)?;
    }
    let text = |path: &Path| -> Result<String> {
        Ok(path.to_str().context("an odd data directory")?.to_owned())
    };
    Ok(Launch {
        name: "nginx".into(),
        // Ends before the services behind it.
        layer: 3,
        program: program.to_owned(),
        args: vec![
            "-p".into(),
            text(&dir)?,
            "-c".into(),
            text(&main)?,
            "-e".into(),
            "stderr".into(),
        ],
        env: Vec::new(),
        directory: dir,
        log: data_dir.join("logs/nginx.log"),
        readiness: Readiness::Url(format!("http://127.0.0.1:{port}/health")),
        port: Some(port),
        account,
        farewell: Farewell::Terminate,
        stop_seconds: 5,
        ready_seconds: 20,
        lock_file: None,
        attempts: 1,
        configuration: hex::encode(digest.finalize()),
    })
}
