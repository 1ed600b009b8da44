//! `[kafka]`: where events come from and go to, and how both sides prove who they are.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::value::{self, Secret};

/// `[kafka]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Table")]
pub struct KafkaSettings {
    /// The addresses to begin with, `host:port`, separated by commas.
    pub brokers: String,
    /// The consumer group of the intake.
    pub group: String,
    /// How brokers are reached over TLS; without it nothing is encrypted.
    pub tls: Option<KafkaTls>,
}

/// How brokers are reached over TLS. The files are PEM; after a configuration was read they are
/// relative to where its file is.
#[derive(Debug, Clone)]
pub struct KafkaTls {
    /// The authorities whose certificates brokers must show.
    pub ca_file: PathBuf,
    /// What Meed shows to brokers that ask for a certificate.
    pub certificate: Option<KafkaCertificate>,
    /// As whom Meed logs in at brokers that ask for that.
    pub sasl: Option<KafkaSasl>,
}

/// A certificate of Meed's own.
#[derive(Debug, Clone)]
pub struct KafkaCertificate {
    /// The certificate, with those between it and its authority.
    pub cert_file: PathBuf,
    /// The key of that certificate.
    pub key_file: PathBuf,
}

/// `[kafka.sasl]`: a user and a password.
#[derive(Debug, Clone)]
pub struct KafkaSasl {
    /// How the password is proved.
    pub mechanism: ScramMechanism,
    /// The user.
    pub user: String,
    /// The password of that user.
    pub password: Secret,
}

/// How a password is proved without being sent (RFC 5802).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum ScramMechanism {
    /// With SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    Sha256,
    /// With SHA-512.
    #[default]
    #[serde(rename = "SCRAM-SHA-512")]
    Sha512,
}

impl ScramMechanism {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }
}

impl KafkaSettings {
    /// The files that it names, each with its setting.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        let Some(tls) = &self.tls else {
            return Vec::new();
        };
        let mut files = vec![("kafka.ca_file (KAFKA_CA_FILE)", tls.ca_file.as_path())];
        if let Some(certificate) = &tls.certificate {
            files.push(("kafka.cert_file (KAFKA_CERT_FILE)", &certificate.cert_file));
            files.push(("kafka.key_file (KAFKA_KEY_FILE)", &certificate.key_file));
        }
        files
    }

    /// Finds the files from this directory on.
    pub(super) fn relative_to(&mut self, directory: &Path) {
        let Some(tls) = &mut self.tls else {
            return;
        };
        tls.ca_file = directory.join(&tls.ca_file);
        if let Some(certificate) = &mut tls.certificate {
            certificate.cert_file = directory.join(&certificate.cert_file);
            certificate.key_file = directory.join(&certificate.key_file);
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(deserialize_with = "value::text")]
    brokers: String,
    #[serde(default = "default_group", deserialize_with = "value::text")]
    group: String,
    #[serde(default)]
    ca_file: PathBuf,
    #[serde(default)]
    cert_file: PathBuf,
    #[serde(default)]
    key_file: PathBuf,
    #[serde(default)]
    sasl: SaslTable,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SaslTable {
    mechanism: ScramMechanism,
    user: String,
    #[serde(deserialize_with = "value::secret_if_given")]
    password: Option<Secret>,
}

fn default_group() -> String {
    "meed-intake".to_owned()
}

impl TryFrom<Table> for KafkaSettings {
    type Error = String;

    fn try_from(table: Table) -> Result<Self, String> {
        let given = |file: PathBuf| Some(file).filter(|file| !file.as_os_str().is_empty());
        let certificate = match (given(table.cert_file), given(table.key_file)) {
            (None, None) => None,
            (Some(cert_file), Some(key_file)) => Some(KafkaCertificate {
                cert_file,
                key_file,
            }),
            _ => {
                return Err(
                    "kafka needs cert_file (KAFKA_CERT_FILE) and key_file (KAFKA_KEY_FILE) \
                     together"
                        .to_owned(),
                );
            }
        };
        let SaslTable {
            mechanism,
            user,
            password,
        } = table.sasl;
        let sasl = match (user.trim(), password) {
            ("", None) => None,
            (user, Some(password)) if !user.is_empty() => Some(KafkaSasl {
                mechanism,
                user: user.to_owned(),
                password,
            }),
            _ => {
                return Err(
                    "kafka.sasl needs user (KAFKA_SASL_USER) and password (KAFKA_SASL_PASSWORD, \
                     or KAFKA_SASL_PASSWORD_FILE) together"
                        .to_owned(),
                );
            }
        };
        let tls = match given(table.ca_file) {
            Some(ca_file) => Some(KafkaTls {
                ca_file,
                certificate,
                sasl,
            }),
            None if certificate.is_none() && sasl.is_none() => None,
            None => {
                return Err(
                    "kafka needs ca_file (KAFKA_CA_FILE) with a certificate or a password: who \
                     Meed is, is told over TLS only, to brokers that have proved who they are"
                        .to_owned(),
                );
            }
        };
        Ok(Self {
            brokers: table.brokers,
            group: table.group,
            tls,
        })
    }
}
