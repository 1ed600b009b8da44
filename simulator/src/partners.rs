//! The server that holds all partners: its options, its state, its life.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::{net::TcpListener, sync::watch};
use tracing::{info, warn};

use crate::{
    book::{Book, BookError},
    callback,
    connection::{Connection, CuttableListener},
    context::{self, ServiceName},
    control, merchant,
    process::choose_tls_provider,
};

/// How long connections may take to end after the server was asked to stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(5);
const BODY_LIMIT_BYTES: usize = 64 * 1024;

/// What the partners know from the start.
#[derive(Clone, Debug)]
pub struct PartnersOptions {
    /// The file that keeps the book over restarts; in memory only when absent.
    pub book: Option<PathBuf>,
    /// Signing keys by merchant id. The key of a merchant X that is not listed is
    /// `dev-key-X`.
    pub signing_keys: HashMap<String, String>,
    /// The secret with which tokens for the Order Service are signed (HS256).
    pub order_service_secret: String,
}

impl Default for PartnersOptions {
    fn default() -> Self {
        Self {
            book: None,
            signing_keys: HashMap::new(),
            order_service_secret: "dev-order-service-secret".to_owned(),
        }
    }
}

/// Why the partners could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The book file.
    #[error(transparent)]
    Book(#[from] BookError),
    /// The client that sends callbacks.
    #[error("the HTTP client for callbacks cannot be built")]
    Client(#[from] reqwest::Error),
    /// The listening socket.
    #[error("the server stopped")]
    Server(#[from] io::Error),
}

/// What is not kept in the book: who was turned away, and who asked for context.
#[derive(Default)]
pub(crate) struct Calls {
    pub(crate) unauthorized: BTreeMap<String, u64>,
    pub(crate) services: BTreeMap<ServiceName, u64>,
}

pub(crate) struct Partners {
    book: Mutex<Book>,
    calls: Mutex<Calls>,
    signing_keys: HashMap<String, String>,
    pub(crate) order_service_secret: String,
    pub(crate) http: reqwest::Client,
    stop: watch::Receiver<bool>,
}

impl Partners {
    fn open(options: PartnersOptions, stop: watch::Receiver<bool>) -> Result<Self, ServeError> {
        choose_tls_provider();
        let book = match &options.book {
            Some(path) => Book::open(path)?,
            None => Book::default(),
        };
        // Callbacks go to an address on the same machine or network; a proxy from
        // the environment would only lead them astray.
        let http = reqwest::Client::builder()
            .timeout(CALLBACK_TIMEOUT)
            .no_proxy()
            .build()?;
        Ok(Self {
            book: Mutex::new(book),
            calls: Mutex::default(),
            signing_keys: options.signing_keys,
            order_service_secret: options.order_service_secret,
            http,
            stop,
        })
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn signing_key(&self, merchant: &str) -> String {
        self.signing_keys
            .get(merchant)
            .cloned()
            .unwrap_or_else(|| format!("dev-key-{merchant}"))
    }

    /// Completes when the server is stopping.
    pub(crate) async fn stopping(&self) {
        let mut stop = self.stop.clone();
        // An error means that the sender is gone, and with it the server.
        let _ = stop.wait_for(|stopping| *stopping).await;
    }

    /// Waits, unless the server stops first; answers whether the time has passed.
    pub(crate) async fn pause(&self, duration: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(duration) => true,
            () = self.stopping() => false,
        }
    }
}

/// Serves all partners on the listener until `shutdown` completes, then ends open
/// connections (those that would never be answered are cut) and returns.
///
/// # Errors
/// When the book cannot be read or the server cannot run.
pub async fn serve(
    listener: TcpListener,
    options: PartnersOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let (stop, stopping) = watch::channel(false);
    let partners = Arc::new(Partners::open(options, stopping)?);
    callback::resume(&partners);
    info!(address = %listener.local_addr()?, "partners are listening");

    let service = router(Arc::clone(&partners)).into_make_service_with_connect_info::<Connection>();
    let server =
        axum::serve(CuttableListener(listener), service).with_graceful_shutdown(async move {
            shutdown.await;
            let _ = stop.send(true);
        });
    let overdue = async {
        partners.stopping().await;
        tokio::time::sleep(DRAIN_LIMIT).await;
    };
    tokio::select! {
        result = server.into_future() => result?,
        () = overdue => warn!("some connections did not end in time and are dropped"),
    }
    info!("partners have stopped");
    Ok(())
}

fn router(partners: Arc<Partners>) -> Router {
    Router::new()
        .route(
            "/health/live",
            get(|| async { Json(json!({"status": "UP"})) }),
        )
        .merge(merchant::routes())
        .merge(context::routes())
        .merge(control::routes())
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .with_state(partners)
}

/// An error answer in the form of RFC 9457.
pub(crate) fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    });
    let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, content_type, Json(body)).into_response()
}

/// The answer when the book file cannot be written: nothing has happened.
pub(crate) fn unwritable(error: &io::Error) -> Response {
    warn!(%error, "the book cannot be written");
    problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "BOOK_UNWRITABLE",
        "the book cannot be written; nothing was changed",
    )
}
