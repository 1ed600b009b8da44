//! `meed codec serve`: shows the Web UI what Temporal keeps encrypted, for those who may reach it.
//!
//! The UI sends what it is to show to `/decode` (*Codec server* in its settings). Nobody is asked
//! who they are: it listens on this machine alone, or stands behind a proxy that asks.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use anyhow::{Context, Result, anyhow, ensure};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    routing::post,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use boot::codec::Codec;
use serde::{Deserialize, Serialize};
use temporalio_common::protos::temporal::api::common::v1::Payload;
use tower_http::cors::CorsLayer;

/// Payloads in the form of the UI.
#[derive(Deserialize, Serialize)]
struct Payloads {
    payloads: Vec<Shown>,
}

#[derive(Deserialize, Serialize)]
struct Shown {
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    data: String,
}

/// Serves until it is told to stop.
///
/// # Errors
/// When there are no keys, or the address is in use.
pub async fn serve(listen: SocketAddr, origin: &str) -> Result<()> {
    let keys = boot::settings::variable("MEED_PAYLOAD_KEYS").map_err(|reason| anyhow!(reason))?;
    let codec = Codec::parse(&keys.unwrap_or_default()).map_err(|reason| anyhow!(reason))?;
    ensure!(
        codec.encrypts(),
        "MEED_PAYLOAD_KEYS (or MEED_PAYLOAD_KEYS_FILE) has no key"
    );
    let listener = boot::listen::bind("--listen", listen).await?;
    println!("The codec server of {origin} is http://{listen}");
    let stop = async {
        boot::shutdown::signal().await;
    };
    axum::serve(listener, routes(codec, origin)?)
        .with_graceful_shutdown(stop)
        .await
        .context("the codec server")
}

/// A new key, as it stands in the configuration.
pub fn new_key(id: &str) -> String {
    let bytes: [u8; 32] = rand::random();
    format!("{id}:{}", BASE64_STANDARD.encode(bytes))
}

fn routes(codec: Codec, origin: &str) -> Result<Router> {
    let origin: HeaderValue = origin.trim_end_matches('/').parse().context("the origin")?;
    let cors = CorsLayer::new()
        .allow_origin([origin])
        .allow_credentials(true)
        .allow_methods([Method::POST])
        .allow_headers([
            header::CONTENT_TYPE,
            header::AUTHORIZATION,
            HeaderName::from_static("x-namespace"),
        ]);
    Ok(Router::new()
        .route("/decode", post(decode))
        .route("/encode", post(encode))
        .layer(cors)
        .with_state(Arc::new(codec)))
}

async fn decode(
    State(codec): State<Arc<Codec>>,
    Json(body): Json<Payloads>,
) -> Result<Json<Payloads>, (StatusCode, String)> {
    each(body, |payload| {
        codec.decrypt(payload).map_err(|error| error.to_string())
    })
}

/// For what is entered in the UI, such as the input of a signal.
async fn encode(
    State(codec): State<Arc<Codec>>,
    Json(body): Json<Payloads>,
) -> Result<Json<Payloads>, (StatusCode, String)> {
    each(body, |payload| {
        codec.encrypt(payload).map_err(|error| error.to_string())
    })
}

fn each(
    body: Payloads,
    done: impl Fn(Payload) -> Result<Payload, String>,
) -> Result<Json<Payloads>, (StatusCode, String)> {
    let payloads = body.payloads.into_iter().map(|shown| {
        let payload = shown.read().ok_or("it is not base64")?;
        Ok(Shown::of(&done(payload)?))
    });
    let payloads: Result<Vec<Shown>, String> = payloads.collect();
    let payloads = payloads.map_err(|reason| (StatusCode::BAD_REQUEST, reason))?;
    Ok(Json(Payloads { payloads }))
}

impl Shown {
    fn read(self) -> Option<Payload> {
        let bytes = |text: &str| BASE64_STANDARD.decode(text).ok();
        let metadata = self.metadata.into_iter();
        let metadata = metadata.map(|(name, value)| Some((name, bytes(&value)?)));
        Some(Payload {
            metadata: metadata.collect::<Option<_>>()?,
            data: bytes(&self.data)?,
            ..Payload::default()
        })
    }

    fn of(payload: &Payload) -> Self {
        let text = |bytes: &Vec<u8>| BASE64_STANDARD.encode(bytes);
        let metadata = payload.metadata.iter();
        Self {
            metadata: metadata
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
            data: text(&payload.data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(data: &[u8]) -> Payloads {
        Payloads {
            payloads: vec![Shown {
                metadata: [("encoding".to_owned(), BASE64_STANDARD.encode("json/plain"))].into(),
                data: BASE64_STANDARD.encode(data),
            }],
        }
    }

    #[tokio::test]
    async fn what_was_encoded_is_decoded() {
        let keys = format!("k1:{}", BASE64_STANDARD.encode([7; 32]));
        let codec = Arc::new(Codec::parse(&keys).expect("a key"));
        let encoded = encode(State(Arc::clone(&codec)), Json(body(b"\"C-42\""))).await;
        let Json(encoded) = encoded.expect("encoded");
        let encoding = &encoded.payloads[0].metadata["encoding"];
        assert_eq!(*encoding, BASE64_STANDARD.encode("binary/encrypted"));
        let decoded = decode(State(Arc::clone(&codec)), Json(encoded)).await;
        let Json(decoded) = decoded.expect("decoded");
        assert_eq!(
            decoded.payloads[0].data,
            BASE64_STANDARD.encode(b"\"C-42\"")
        );

        let mut broken = body(b"");
        broken.payloads[0].data = "?".to_owned();
        let refused = decode(State(codec), Json(broken)).await;
        assert_eq!(
            refused.err().map(|(status, _)| status),
            Some(StatusCode::BAD_REQUEST)
        );
    }
}
