//! Clients of Kafka, and what it says when it cannot be used.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use boot::settings::KafkaSettings;
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
};

/// How long a broker may take to answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// What a client cannot be made of.
pub const UNUSABLE: &str = "the settings of Kafka ([kafka], KAFKA_*) cannot be used";

/// What a connection failed of, most recently. The answer to a request says only that there is none.
#[derive(Default)]
struct Heard(Mutex<Option<String>>);

impl ClientContext for Heard {
    fn error(&self, error: KafkaError, reason: &str) {
        // This one only counts what the others have said.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Heard {}

/// What every client of this program begins with.
///
/// # Errors
/// When a file that the settings name cannot be read.
pub fn client(kafka: &KafkaSettings) -> Result<ClientConfig> {
    boot::kafka::check_files(kafka)?;
    let mut config: ClientConfig = boot::kafka::properties(kafka).into_iter().collect();
    config.set("client.id", "meed");
    // What is out of reach is said once, by `reach`.
    config.set_log_level(RDKafkaLogLevel::Emerg);
    Ok(config)
}

/// Makes sure that Kafka answers: what topics and brokers it has.
///
/// # Errors
/// When it does not, with the reason: nobody listens there, a certificate is not accepted, or a
/// password is wrong.
pub fn reach(kafka: &KafkaSettings) -> Result<Metadata> {
    let consumer: BaseConsumer<Heard> = client(kafka)?
        .create_with_context(Heard::default())
        .context(UNUSABLE)?;
    consumer
        .fetch_metadata(None, ANSWER_WITHIN)
        .map_err(|error| {
            // Hears what has happened meanwhile.
            while consumer.poll(Duration::ZERO).is_some() {}
            let heard = &consumer.context().0;
            let heard = heard.lock().unwrap_or_else(PoisonError::into_inner).take();
            silent(kafka, &heard.unwrap_or_else(|| error.to_string()))
        })
}

/// Kafka does not answer, for this reason.
pub fn silent(kafka: &KafkaSettings, reason: &str) -> anyhow::Error {
    let proofs = match &kafka.tls {
        None => "",
        Some(tls) if tls.sasl.is_some() => ", and the certificates and the password of [kafka]",
        Some(_) => ", and the certificates of [kafka]",
    };
    anyhow!(
        "Kafka at {} does not answer within {} seconds: check that it runs, kafka.brokers \
         (KAFKA_BROKERS), host:port{proofs} ({reason})",
        kafka.brokers,
        ANSWER_WITHIN.as_secs()
    )
}
