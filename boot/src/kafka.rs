//! What every client of Kafka begins with. The clients themselves are made where Kafka is spoken.

use anyhow::Context;

use crate::settings::KafkaSettings;

/// The properties of librdkafka that say where the brokers are and how both sides prove who they
/// are. They hold the password: they are for the client alone, not for logs.
pub fn properties(settings: &KafkaSettings) -> Vec<(String, String)> {
    let mut properties = vec![("bootstrap.servers", settings.brokers.clone())];
    if let Some(tls) = &settings.tls {
        let protocol = if tls.sasl.is_some() {
            "sasl_ssl"
        } else {
            "ssl"
        };
        properties.push(("security.protocol", protocol.to_owned()));
        properties.push(("ssl.ca.location", tls.ca_file.display().to_string()));
        if let Some(certificate) = &tls.certificate {
            let (cert_file, key_file) = (&certificate.cert_file, &certificate.key_file);
            properties.push(("ssl.certificate.location", cert_file.display().to_string()));
            properties.push(("ssl.key.location", key_file.display().to_string()));
        }
        if let Some(sasl) = &tls.sasl {
            properties.push(("sasl.mechanism", sasl.mechanism.name().to_owned()));
            properties.push(("sasl.username", sasl.user.clone()));
            properties.push(("sasl.password", sasl.password.expose().to_owned()));
        }
    }
    properties
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Makes sure that the files of `[kafka]` are there, since librdkafka does not say which is not.
///
/// # Errors
/// When one cannot be read, with its setting.
pub fn check_files(settings: &KafkaSettings) -> anyhow::Result<()> {
    for (setting, file) in settings.files() {
        std::fs::read(file)
            .with_context(|| format!("{setting}: {} cannot be read", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn settings(more: &Value) -> KafkaSettings {
        let mut settings = json!({ "brokers": "a:1,b:2" });
        let more = more.as_object().expect("a table").clone();
        settings.as_object_mut().expect("a table").extend(more);
        serde_json::from_value(settings).expect("it is right")
    }

    fn of(more: &Value) -> Vec<(String, String)> {
        properties(&settings(more))
    }

    fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn without_an_authority_nothing_is_encrypted() {
        assert_eq!(
            of(&json!({})),
            expected(&[("bootstrap.servers", "a:1,b:2")])
        );
    }

    #[test]
    fn a_certificate_is_shown_over_tls() {
        let files = json!({ "ca_file": "ca.pem", "cert_file": "meed.pem", "key_file": "meed.key" });
        let wanted = [
            ("bootstrap.servers", "a:1,b:2"),
            ("security.protocol", "ssl"),
            ("ssl.ca.location", "ca.pem"),
            ("ssl.certificate.location", "meed.pem"),
            ("ssl.key.location", "meed.key"),
        ];
        assert_eq!(of(&files), expected(&wanted));
    }

    #[test]
    fn a_password_is_proved_over_tls() {
        let sasl = json!({ "user": "meed", "password": "p" });
        let wanted = [
            ("bootstrap.servers", "a:1,b:2"),
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", "ca.pem"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "meed"),
            ("sasl.password", "p"),
        ];
        assert_eq!(
            of(&json!({ "ca_file": "ca.pem", "sasl": sasl })),
            expected(&wanted)
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named_with_its_setting() {
        let files = json!({ "ca_file": "/nowhere/ca.pem" });
        let error = check_files(&settings(&files)).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "kafka.ca_file (KAFKA_CA_FILE): /nowhere/ca.pem cannot be read"
        );
    }
}
