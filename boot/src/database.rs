//! The pool of connections to the primary.

use std::{str::FromStr, time::Duration};

use anyhow::{Context, bail};
use sqlx::{
    ConnectOptions, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::settings::DatabaseSettings;

/// How long a process waits for the database when it starts.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a request or a step waits for a free connection. A database that is away is not noticed
/// otherwise, and whoever asks should soon be told to come again.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(2);

/// Connects, as `program` in the database's lists.
///
/// # Errors
/// When the address is wrong or the database does not answer within ten seconds.
pub async fn connect(settings: &DatabaseSettings, program: &str) -> anyhow::Result<PgPool> {
    let options = options(settings, program)?;
    let place = format!(
        "the database {} at {}:{}",
        options.get_database().unwrap_or("(unnamed)"),
        options.get_host(),
        options.get_port()
    );
    let pool = PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(ACQUIRE_WITHIN)
        .connect_lazy_with(options.clone());
    let started = tokio::time::Instant::now();
    loop {
        let remaining = CONNECT_WITHIN.saturating_sub(started.elapsed());
        // Not through the pool, which would hide why it does not come about.
        let error = match tokio::time::timeout(remaining, options.connect()).await {
            Ok(Ok(connection)) => {
                drop(connection);
                return Ok(pool);
            }
            Ok(Err(error)) => error,
            Err(_) => bail!(
                "{place} does not answer within {} seconds: check database.url (DATABASE_URL)",
                CONNECT_WITHIN.as_secs()
            ),
        };
        // A wrong user, password or database; anything else may pass, such as a start under way.
        let refused_for_good = matches!(&error, sqlx::Error::Database(refusal)
            if refusal.code().is_some_and(|code| code.starts_with("28") || code.starts_with("3D")));
        if refused_for_good || started.elapsed() + Duration::from_millis(500) >= CONNECT_WITHIN {
            return Err(error).with_context(|| {
                format!(
                    "{place} cannot be used: check that it runs and database.url (DATABASE_URL)"
                )
            });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
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
