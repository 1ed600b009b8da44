//! Where things are: environment variables, or the configuration file where they are not set, so
//! that a step of a deployment needs no more than the address it works on.

use anyhow::{Context, Result, anyhow};
use boot::{
    Settings,
    settings::{DatabaseSettings, KafkaSettings, TemporalSettings},
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
    let url = boot::settings::variable("DATABASE_URL").map_err(|reason| anyhow!(reason))?;
    let Some(url) = url else {
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

/// Kafka. How it is proved there who Meed is, may stand in the file alone.
pub fn kafka() -> Result<KafkaSettings> {
    let Some(brokers) = variable("KAFKA_BROKERS") else {
        return Ok(settings("KAFKA_BROKERS")?.kafka);
    };
    if let Ok(settings) = Settings::load() {
        return Ok(KafkaSettings {
            brokers,
            ..settings.kafka
        });
    }
    let of = |name| boot::settings::variable(name).map_err(|reason| anyhow!(reason));
    let mut sasl = serde_json::json!({
        "user": of("KAFKA_SASL_USER")?.unwrap_or_default(),
        "password": of("KAFKA_SASL_PASSWORD")?.unwrap_or_default(),
    });
    if let Some(mechanism) = of("KAFKA_SASL_MECHANISM")? {
        sasl["mechanism"] = mechanism.into();
    }
    let kafka = serde_json::json!({
        "brokers": brokers,
        "ca_file": of("KAFKA_CA_FILE")?.unwrap_or_default(),
        "cert_file": of("KAFKA_CERT_FILE")?.unwrap_or_default(),
        "key_file": of("KAFKA_KEY_FILE")?.unwrap_or_default(),
        "sasl": sasl,
    });
    serde_json::from_value(kafka).context("KAFKA_*")
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
    let Some(address) = variable("TEMPORAL_ADDRESS") else {
        return Ok(settings("TEMPORAL_ADDRESS")?.temporal);
    };
    let keys = boot::settings::variable("MEED_PAYLOAD_KEYS").map_err(|reason| anyhow!(reason))?;
    let temporal = serde_json::json!({
        "address": address,
        "namespace": namespace(),
        "payload_keys": keys.unwrap_or_default(),
    });
    serde_json::from_value(temporal).context("MEED_PAYLOAD_KEYS")
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

/// Who is at work, for the audit record: containers have no user's name, so they are told.
pub fn operator() -> String {
    let name = ["MEED_OPERATOR", "USER", "LOGNAME"]
        .into_iter()
        .find_map(variable);
    format!("operator:{}", name.as_deref().unwrap_or("unknown"))
}

/// The configuration file, for what only it says.
pub fn whole_settings() -> Result<Settings> {
    Settings::load().map_err(|error| anyhow!(error))
}
