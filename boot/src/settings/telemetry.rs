//! `[telemetry]`: logs and traces.

use serde::Deserialize;

use super::value;

/// In which form logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Readable,
    /// One JSON object a line.
    Json,
}

/// `[telemetry]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySettings {
    /// In which form logs are written; empty is readable in the dev profile and JSON elsewhere.
    #[serde(deserialize_with = "value::log_format_if_given")]
    pub logs: Option<LogFormat>,
    /// Where traces are sent, by OTLP over gRPC, such as `http://127.0.0.1:4317`; empty is nowhere.
    #[serde(deserialize_with = "value::http_url_if_given")]
    pub otlp_endpoint: Option<String>,
    /// The part of traces that is kept, from 0 to 1, unless whoever asks has decided already.
    #[serde(deserialize_with = "value::ratio")]
    pub sample_ratio: f64,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            logs: None,
            otlp_endpoint: None,
            sample_ratio: 1.0,
        }
    }
}
