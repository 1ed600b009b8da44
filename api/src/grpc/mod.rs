//! What other services of the house ask for over gRPC, on a port of its own: this machine alone is
//! served, or whoever shows a certificate.

#[expect(
    missing_docs,
    clippy::pedantic,
    reason = "generated from proto/meed/transactions/v1"
)]
pub mod transactions {
    tonic::include_proto!("meed.transactions.v1");
}
mod service;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Router, extract::Request, response::IntoResponse};
use boot::{Settings, settings::GrpcTls};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    server::NamedService,
    transport::{Certificate, Identity, Server, ServerTlsConfig, server::TcpIncoming},
};
use tower::Service;

use self::{service::Booking, transactions::transactions_server::TransactionsServer};
use crate::App;

/// What reflection shows of the services in `proto/`.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
/// The largest request that is read, in bytes: longer than one within its limits.
const REQUEST_MAX_BYTES: usize = 262_144;
/// How long a request may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// How many requests of one connection may be under way.
const AT_ONCE: usize = 64;
/// How often it is looked whether a client that says nothing is still there.
const ALIVE_EVERY: Duration = Duration::from_secs(30);

/// The certificates of the configuration.
///
/// # Errors
/// When a file cannot be read.
pub fn certificates(settings: &Settings, tls: &GrpcTls) -> anyhow::Result<ServerTlsConfig> {
    let read = |name: &str, file| {
        let path = settings.path(file);
        std::fs::read(&path)
            .with_context(|| format!("grpc.{name}: {} cannot be read", path.display()))
    };
    let own = Identity::from_pem(
        read("cert_file", &tls.cert_file)?,
        read("key_file", &tls.key_file)?,
    );
    let clients = Certificate::from_pem(read("client_ca_file", &tls.client_ca_file)?);
    Ok(ServerTlsConfig::new().identity(own).client_ca_root(clients))
}

/// Serves until told to stop; then lets requests under way end, for as long as `drain`.
///
/// # Errors
/// When the certificates cannot be used.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    tls: Option<ServerTlsConfig>,
    drain: Duration,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let booking =
        TransactionsServer::new(Booking::new(app)).max_decoding_message_size(REQUEST_MAX_BYTES);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<TransactionsServer<Booking>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("the services cannot be described")?;
    let routes =
        with(with(with(Router::new(), booking), health), reflection).fallback(async || {
            tonic::Status::unimplemented("there is no such service").into_http::<axum::body::Body>()
        });
    let mut server = Server::builder()
        .timeout(ANSWER_WITHIN)
        .concurrency_limit_per_connection(AT_ONCE)
        .http2_keepalive_interval(Some(ALIVE_EVERY));
    if let Some(tls) = tls {
        server = server
            .tls_config(tls)
            .context("the certificates of grpc cannot be used")?;
    }
    let told = async {
        stop.cancelled().await;
        reporter
            .set_not_serving::<TransactionsServer<Booking>>()
            .await;
    };
    let given_up = async {
        stop.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::select! {
        ended = server.serve_with_incoming_shutdown(routes, incoming, told) => {
            ended.context("the gRPC server")
        }
        () = given_up => {
            tracing::warn!("gRPC requests were still under way at the end of the drain");
            Ok(())
        }
    }
}

/// Adds a service under its name.
fn with<S>(routes: Router, service: S) -> Router
where
    S: Service<Request, Error = std::convert::Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    routes.route_service(&format!("/{}/{{*call}}", S::NAME), service)
}
