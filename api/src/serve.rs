//! Connections: HTTP/1.1, closed when no request comes, and ended when the process is.
//!
//! `axum::serve` waits for a request for ever, and `axum-server` does too until it knows the
//! version of HTTP.

use std::{net::SocketAddr, pin::pin, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

/// How long to wait when no connection can be taken, such as for want of file descriptors.
const TAKE_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// How long connections may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Without a request, or with one whose header is not there yet.
    pub request: Duration,
    /// After the process was told to stop.
    pub drain: Duration,
}

/// Serves connections until told to stop; then lets requests under way end.
pub async fn serve(
    listener: TcpListener,
    routes: Router,
    patience: Patience,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let taken = tokio::select! {
            taken = listener.accept() => taken,
            () = stop.cancelled() => break,
        };
        match taken {
            Ok((stream, peer)) => {
                let (routes, stop) = (routes.clone(), stop.clone());
                connections.spawn(async move {
                    if let Err(error) = attend(stream, peer, routes, patience.request, stop).await {
                        tracing::debug!(%error, %peer, "a connection broke");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(TAKE_AGAIN_AFTER).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(patience.drain, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!("requests were still under way at the end of the drain");
    }
}

async fn attend(
    stream: TcpStream,
    peer: SocketAddr,
    routes: Router,
    within: Duration,
    stop: CancellationToken,
) -> hyper::Result<()> {
    // Answers are small; nothing is gained by collecting them.
    let _ = stream.set_nodelay(true);
    let routes = routes.map_request(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(within)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn started(patience: Patience) -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let routes = Router::new().route(
            "/",
            axum::routing::get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| {
                peer.ip().to_string()
            }),
        );
        tokio::spawn(serve(listener, routes, patience, stop.clone()));
        (address, stop)
    }

    /// What comes until the connection is closed, after this was sent.
    async fn sent(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(text.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn a_connection_on_which_nothing_comes_is_closed() {
        let within = |request| Patience {
            request,
            drain: Duration::from_secs(60),
        };
        let (address, _stop) = started(within(Duration::from_millis(300))).await;
        // Each of them would go on for ever.
        for text in [
            "",
            "G",
            "GET / HTTP/1.1\r\nhost: a",
            "PRI * HTTP/2.0\r\n\r\n",
        ] {
            let answer = sent(address, text).await;
            assert!(!answer.contains("200 OK"), "{text:?}: {answer}");
        }
        // And so is one that has had its answer, for which there is time on a slow machine too.
        let (address, _stop) = started(within(Duration::from_secs(3))).await;
        let answer = sent(address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(
            answer.contains("200 OK") && answer.ends_with("127.0.0.1"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn told_to_stop_it_closes_what_is_idle_and_takes_no_more() {
        let (address, stop) = started(Patience {
            request: Duration::from_secs(3_600),
            drain: Duration::from_secs(3_600),
        })
        .await;
        let mut idle = TcpStream::connect(address).await.expect("a connection");
        // They are taken in turn: once a later one was answered, this one is attended to.
        let close = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let later = sent(address, close).await;
        assert!(later.contains("200 OK"), "{later}");
        stop.cancel();
        let mut rest = String::new();
        let _ = idle.read_to_string(&mut rest).await;
        assert_eq!(rest, "");
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
