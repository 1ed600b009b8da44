//! The sample file: gzip over one JSON object per line, one line per delivery.
//!
//! `{"topic":"orders","key":"100042","headers":{},"value":"{…}"}`; a value that is
//! not UTF-8 stands in `valueBase64` instead. The order of the lines is the order
//! of sending.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::bufread::GzDecoder;
use flate2::{Compression, GzBuilder};
use serde::{Deserialize, Serialize};

/// One message as it is handed to Kafka, valid or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Topic it is sent to.
    pub topic: String,
    /// Record key: the customer the sender believes it is about.
    pub key: String,
    /// Record headers, by name.
    pub headers: BTreeMap<String, String>,
    /// Record value, byte for byte.
    pub value: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    topic: String,
    key: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl From<Delivery> for Line {
    fn from(delivery: Delivery) -> Self {
        let (value, value_base64) = match String::from_utf8(delivery.value) {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(BASE64.encode(error.as_bytes()))),
        };
        Self {
            topic: delivery.topic,
            key: delivery.key,
            headers: delivery.headers,
            value,
            value_base64,
        }
    }
}

impl Line {
    fn into_delivery(self) -> Result<Delivery, String> {
        let value = match (self.value, self.value_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(encoded)) => BASE64.decode(encoded).map_err(|error| error.to_string())?,
            _ => return Err("a line has either value or valueBase64".to_owned()),
        };
        Ok(Delivery {
            topic: self.topic,
            key: self.key,
            headers: self.headers,
            value,
        })
    }
}

/// Where the committed sample lies in a checkout.
pub fn committed_sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("day.jsonl.gz")
}

/// Reads a sample file. A line that cannot be read is an error naming its number.
pub fn read(path: &Path) -> io::Result<Vec<Delivery>> {
    let file = BufReader::new(File::open(path)?);
    BufReader::new(GzDecoder::new(file))
        .lines()
        .enumerate()
        .map(|(index, line)| {
            let invalid = |reason: String| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{}, line {}: {reason}", path.display(), index + 1),
                )
            };
            let line: Line =
                serde_json::from_str(&line?).map_err(|error| invalid(error.to_string()))?;
            line.into_delivery().map_err(invalid)
        })
        .collect()
}

/// Writes a sample file. The same deliveries give the same bytes: the gzip header
/// carries no time and no name.
pub fn write(path: &Path, deliveries: &[Delivery]) -> io::Result<()> {
    let file = BufWriter::new(File::create(path)?);
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(file, Compression::best());
    for delivery in deliveries {
        serde_json::to_writer(&mut encoder, &Line::from(delivery.clone()))?;
        encoder.write_all(b"\n")?;
    }
    encoder.finish()?.flush()
}
