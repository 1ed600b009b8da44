//! `[grpc]`: where other services of the house are served, and how they prove who they are.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::Deserialize;

/// `[grpc]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Table")]
pub struct GrpcSettings {
    /// Where it listens, `address:port`; nothing when it is turned off.
    pub listen: Option<SocketAddr>,
    /// The certificates; without them only this machine is served.
    pub tls: Option<GrpcTls>,
}

/// The certificates of both sides, as PEM files relative to the configuration file.
#[derive(Debug, Clone)]
pub struct GrpcTls {
    /// Its own certificate, with those between it and its authority.
    pub cert_file: PathBuf,
    /// The key of that certificate.
    pub key_file: PathBuf,
    /// The authorities whose certificates clients must show.
    pub client_ca_file: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Table {
    listen: String,
    cert_file: PathBuf,
    key_file: PathBuf,
    client_ca_file: PathBuf,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 21_005)).to_string(),
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            client_ca_file: PathBuf::new(),
        }
    }
}

impl Default for GrpcSettings {
    fn default() -> Self {
        Self::try_from(Table::default()).unwrap_or(Self {
            listen: None,
            tls: None,
        })
    }
}

impl TryFrom<Table> for GrpcSettings {
    type Error = String;

    fn try_from(table: Table) -> Result<Self, String> {
        let listen = match table.listen.as_str() {
            "" => None,
            text => Some(text.parse::<SocketAddr>().map_err(|_| {
                format!("grpc.listen is {text:?}, which is not address:port; empty turns it off")
            })?),
        };
        let files = [&table.cert_file, &table.key_file, &table.client_ca_file];
        let given = files.iter().filter(|file| !file.as_os_str().is_empty());
        let tls = match given.count() {
            0 => None,
            3 => Some(GrpcTls {
                cert_file: table.cert_file,
                key_file: table.key_file,
                client_ca_file: table.client_ca_file,
            }),
            _ => {
                return Err(
                    "grpc needs cert_file, key_file and client_ca_file together: whoever may post \
                     to the ledger has to prove it"
                        .to_owned(),
                );
            }
        };
        if tls.is_none() && listen.is_some_and(|at| !at.ip().is_loopback()) {
            return Err(
                "grpc.listen is reached from other machines, so it needs cert_file, key_file and \
                 client_ca_file"
                    .to_owned(),
            );
        }
        Ok(Self { listen, tls })
    }
}
