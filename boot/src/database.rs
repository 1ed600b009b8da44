//! The pool of connections to the primary.

use std::{str::FromStr, time::Duration};

use anyhow::Context;
use sqlx::{
    ConnectOptions, Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::Instant;

use crate::{
    settings::DatabaseSettings,
    waiting::{TRY_EVERY, Waiting},
};

/// How long an attempt may take, and how long programs of operators try.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a request or a step waits for a free connection. A database that is away is not noticed
/// otherwise, and whoever asks should soon be told to come again.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(2);
/// How long a connection may have been idle to be used without asking first whether it is still there.
/// When it came back to the pool, it was.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// Connections, as `program` in the database's lists; each is made when it is first needed.
///
/// # Errors
/// When the address cannot be read.
pub fn pool(settings: &DatabaseSettings, program: &str) -> anyhow::Result<PgPool> {
    Ok(PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(ACQUIRE_WITHIN)
        .test_before_acquire(false)
        .before_acquire(|connection, about| {
            Box::pin(async move {
                if about.idle_for > TRUSTED_FOR {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options(settings, program)?))
}

/// Connects, as `program` in the database's lists.
///
/// # Errors
/// When the address is wrong or the database does not answer within ten seconds.
pub async fn connect(settings: &DatabaseSettings, program: &str) -> anyhow::Result<PgPool> {
    reach(settings, program, Some(CONNECT_WITHIN)).await?;
    pool(settings, program)
}

/// Waits until the database answers, however long it is away; the log says so.
///
/// # Errors
/// When the address is wrong, or the database refuses the user or does not exist.
pub async fn wait(settings: &DatabaseSettings, program: &str) -> anyhow::Result<()> {
    reach(settings, program, None).await
}

async fn reach(
    settings: &DatabaseSettings,
    program: &str,
    within: Option<Duration>,
) -> anyhow::Result<()> {
    let options = options(settings, program)?;
    let place = format!(
        "the database {} at {}:{}",
        options.get_database().unwrap_or("(unnamed)"),
        options.get_host(),
        options.get_port()
    );
    let started = Instant::now();
    let mut waiting = Waiting::begin();
    loop {
        // Not through the pool, which would hide why it does not come about.
        let attempt = tokio::time::timeout(CONNECT_WITHIN, options.connect());
        let error = match attempt.await {
            Ok(Ok(_connection)) => return Ok(()),
            Ok(Err(error)) => error,
            Err(elapsed) => sqlx::Error::Io(elapsed.into()),
        };
        // A wrong user, password or database; anything else may pass, such as a start under way.
        let refused_for_good = matches!(&error, sqlx::Error::Database(refusal)
            if refusal.code().is_some_and(|code| code.starts_with("28") || code.starts_with("3D")));
        let is_over = within.is_some_and(|within| started.elapsed() + TRY_EVERY >= within);
        if refused_for_good || is_over {
            return Err(error).with_context(|| {
                format!(
                    "{place} cannot be used: check that it runs and database.url (DATABASE_URL)"
                )
            });
        }
        waiting.pause(&place, &error).await;
    }
}

fn options(settings: &DatabaseSettings, program: &str) -> anyhow::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(settings.url.expose()).map_err(|error| {
        // The error may quote the address, which holds the password.
        let reason = match error {
            sqlx::Error::Configuration(reason) => reason.to_string(),
            _ => "it cannot be read".to_owned(),
        };
        anyhow::anyhow!(
            "database.url (DATABASE_URL) is not postgres://user:password@host:port/database: {reason}"
        )
    })?;
    let milliseconds = |seconds: u64| (seconds * 1_000).to_string();
    // Each statement's text would be made ready for the log at the level of the traces' spans, where
    // nobody reads it. `RUST_LOG=sqlx=trace` shows statements.
    let options = options.log_statements(log::LevelFilter::Trace);
    Ok(options.application_name(program).options([
        (
            "statement_timeout",
            milliseconds(settings.statement_timeout_seconds),
        ),
        ("lock_timeout", milliseconds(settings.lock_timeout_seconds)),
        // A transaction that nobody works on holds locks for nothing.
        (
            "idle_in_transaction_session_timeout",
            milliseconds(settings.statement_timeout_seconds),
        ),
    ]))
}
