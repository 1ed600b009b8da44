//! PostgreSQL on a private data directory.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command;
use crate::launch::{Farewell, Launch, Readiness};
use crate::places;
use crate::probe::{self, PostgresAddress};
use crate::progress::Task;
use crate::provision::Postgres;

/// Makes the data directory where it is missing and says how to start the server.
pub(crate) fn launch(
    postgres: &Postgres,
    data_dir: &Path,
    port: u16,
    task: &Task,
) -> Result<Launch> {
    let account = places::unprivileged_account()?;
    let data = data_dir.join("postgres");
    if data.join("PG_VERSION").exists() {
        let made_by = fs::read_to_string(data.join("PG_VERSION"))?;
        ensure!(
            made_by.trim() == postgres.major.to_string(),
            "{} was made by PostgreSQL {}, and the one found here is {} ({}); remove the data with `down --wipe`, or \
             name the older one's programs with MEED_POSTGRES_BIN",
            data.display(),
            made_by.trim(),
            postgres.major,
            postgres.programs.display(),
        );
    } else {
        let unfinished = data_dir.join("postgres.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        places::create_dir(&unfinished)?;
        if let Some(account) = account {
            chown(&unfinished, Some(account.uid), Some(account.gid))?;
        }
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o700))?;
        let mut initdb = Command::new(postgres.programs.join("initdb"));
        initdb
            .args([
                "-A",
                "trust",
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--locale=C",
                "-D",
            ])
            .arg(&unfinished)
            .current_dir("/");
        if let Some(account) = account {
            initdb.uid(account.uid).gid(account.gid);
        }
        command::run(task, &mut initdb, None)
            .context("PostgreSQL's data directory could not be made")?;
        fs::rename(&unfinished, &data)?;
    }
    let setting = |text: &str| ["-c".to_owned(), text.to_owned()];
    let mut args = vec![
        "-D".to_owned(),
        data.to_str().context("an odd data directory")?.to_owned(),
    ];
    args.extend(["-p".to_owned(), port.to_string()]);
    args.extend(setting("listen_addresses=127.0.0.1"));
    args.extend(setting("unix_socket_directories="));
    args.extend(setting("max_connections=500"));
    args.extend(setting("log_destination=stderr"));
    args.extend(setting("log_line_prefix=%m [%p] %d "));
    args.extend(setting("timezone=UTC"));
    Ok(Launch {
        name: "postgres".into(),
        layer: 0,
        program: postgres.programs.join("postgres"),
        args,
        env: Vec::new(),
        directory: "/".into(),
        log: data_dir.join("logs/postgres.log"),
        readiness: Readiness::Postgres(port),
        port: Some(port),
        account,
        farewell: Farewell::Interrupt,
        stop_seconds: 20,
        ready_seconds: 180,
        lock_file: Some(data.join("postmaster.pid")),
        // A backend that outlives a killed postmaster for a moment keeps the next one from starting.
        attempts: 5,
        configuration: String::new(),
    })
}

/// Makes a role that may log in, and a database of its own, where they are missing.
pub(crate) fn ensure_database(port: u16, role: &str, database: &str) -> Result<()> {
    ensure!(
        is_name(role) && is_name(database),
        "`{database}` cannot be the name of a database"
    );
    let address = PostgresAddress {
        port,
        user: "postgres",
        database: "postgres",
    };
    let roles = format!("SELECT 1 FROM pg_roles WHERE rolname = '{role}'");
    if probe::query(address, &roles)?.is_empty() {
        probe::query(
            address,
            &format!("CREATE ROLE {role} LOGIN CREATEDB PASSWORD '{role}'"),
        )?;
    }
    let databases = format!("SELECT 1 FROM pg_database WHERE datname = '{database}'");
    if probe::query(address, &databases)?.is_empty() {
        probe::query(address, &format!("CREATE DATABASE {database} OWNER {role}"))?;
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.chars().all(|character| {
            character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_'
        })
}
