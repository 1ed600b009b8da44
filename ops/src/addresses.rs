//! Where things are: environment variables, or the configuration file where they are not set, so
//! that a step of a deployment needs no more than the address it works on.

use anyhow::{Context, Result, anyhow};
use boot::{
    Settings,
    settings::{DatabaseSettings, TemporalSettings},
    web_ui::WebUi,
};
use store::PgPool;

/// The namespace when nothing names one.
const NAMESPACE_DEFAULT: &str = "meed";
/// How long one statement may take: those of operators look at whole tables.
const STATEMENT_TIMEOUT_SECONDS: u64 = 6 * 3_600;

/// A variable that is set and not empty.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The configuration file, for what no variable says.
fn settings(instead_of: &str) -> Result<Settings> {
    Settings::load().with_context(|| format!("{instead_of} is not set"))
}

/// The database.
pub fn database() -> Result<DatabaseSettings> {
    let Some(url) = variable("DATABASE_URL") else {
        let mut database = settings("DATABASE_URL")?.database;
        database.statement_timeout_seconds = STATEMENT_TIMEOUT_SECONDS;
        return Ok(database);
    };
    let database = serde_json::json!({
        "url": url,
        "max_connections": 4,
        "statement_timeout_seconds": STATEMENT_TIMEOUT_SECONDS,
    });
    serde_json::from_value(database).context("DATABASE_URL")
}

/// Connections to the database.
pub async fn pool() -> Result<PgPool> {
    boot::database::connect(&database()?, "meed").await
}

/// Kafka's brokers.
pub fn kafka() -> Result<String> {
    match variable("KAFKA_BROKERS") {
        Some(brokers) => Ok(brokers),
        None => Ok(settings("KAFKA_BROKERS")?.kafka.brokers),
    }
}

/// The consumer group that reads events.
pub fn kafka_group() -> Result<String> {
    Ok(Settings::load()
        .context("the consumer group stands in the configuration file")?
        .kafka
        .group)
}

/// Temporal.
pub fn temporal() -> Result<TemporalSettings> {
    match variable("TEMPORAL_ADDRESS") {
        Some(address) => Ok(TemporalSettings {
            address,
            namespace: namespace(),
            ui_url: None,
        }),
        None => Ok(settings("TEMPORAL_ADDRESS")?.temporal),
    }
}

/// Temporal's namespace.
pub fn namespace() -> String {
    variable("TEMPORAL_NAMESPACE")
        .or_else(|| {
            Settings::load()
                .ok()
                .map(|settings| settings.temporal.namespace)
        })
        .unwrap_or_else(|| NAMESPACE_DEFAULT.to_owned())
}

/// Temporal's Web UI.
pub fn web_ui() -> Option<WebUi> {
    match variable("TEMPORAL_UI_URL") {
        Some(url) => Some(WebUi::new(&url, &namespace())),
        None => WebUi::of(&Settings::load().ok()?.temporal),
    }
}

/// Who is at work, for the audit record.
pub fn operator() -> String {
    let user = variable("USER").unwrap_or_else(|| "unknown".to_owned());
    format!("operator:{user}")
}

/// The configuration file, for what only it says.
pub fn whole_settings() -> Result<Settings> {
    Settings::load().map_err(|error| anyhow!(error))
}
