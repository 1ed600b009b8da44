//! A player's client on a socket, as an app would be: it knows the last number it has.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest, handshake::client::Request},
};

use crate::system::PATIENCE;

/// Why a socket ended: the code, or nothing where it broke.
pub type Ended = Option<u16>;

/// A player's client.
pub struct Watcher {
    stream: WebSocketStream<TcpStream>,
    /// The last number that it has.
    pub last: i64,
}

fn request(api: &str, token: Option<&str>, last: Option<i64>) -> Request {
    let api = api.replacen("http://", "ws://", 1);
    let query = last.map_or(String::new(), |last| format!("?lastSeenId={last}"));
    let mut request = format!("{api}/api/v1/notifications/ws{query}")
        .into_client_request()
        .expect("a request");
    if let Some(token) = token {
        let bearer = format!("Bearer {token}").parse().expect("a header");
        request.headers_mut().insert("authorization", bearer);
    }
    request
}

impl Watcher {
    /// Connects to the api at this address, with the token in the header, and goes on after a number.
    ///
    /// # Errors
    /// When the handshake is refused, or the connection breaks before the server is ready.
    ///
    /// # Panics
    /// When the address is none.
    pub async fn connect(api: &str, token: &str, last: i64) -> Result<Self, Error> {
        Self::begin(api, request(api, Some(token), Some(last)), None).await
    }

    /// The same as a browser does: with the token in the first message.
    ///
    /// # Errors
    /// As those of `connect`.
    ///
    /// # Panics
    /// When the address is none.
    pub async fn connect_as_page(api: &str, token: &str, last: i64) -> Result<Self, Error> {
        let first = json!({ "type": "authenticate", "token": token, "lastSeenId": last });
        let mut request = request(api, None, None);
        let origin = api.parse().expect("a header");
        request.headers_mut().insert("origin", origin);
        Self::begin(api, request, Some(first)).await
    }

    async fn begin(api: &str, request: Request, first: Option<Value>) -> Result<Self, Error> {
        let address = api.trim_start_matches("http://");
        let stream = TcpStream::connect(address).await?;
        let (mut stream, _) = client_async(request, stream).await?;
        if let Some(first) = first {
            stream.send(Message::text(first.to_string())).await?;
        }
        let mut watcher = Self { stream, last: 0 };
        match watcher.frame().await {
            Ok(ready) if ready["type"] == "ready" => {
                watcher.last = ready["lastSeenId"].as_i64().expect("a number");
                Ok(watcher)
            }
            Ok(other) => panic!("{other} comes before anything is ready"),
            Err(_) => Err(Error::ConnectionClosed),
        }
    }

    async fn frame(&mut self) -> Result<Value, Ended> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => {
                    return Ok(serde_json::from_str(&text).expect("JSON"));
                }
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|f| f.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The notifications that come next, of which each must be the one after the last.
    ///
    /// # Errors
    /// Why the socket ended.
    ///
    /// # Panics
    /// When a number is missing or comes twice.
    pub async fn next(&mut self) -> Result<Vec<Value>, Ended> {
        let told = self.frame().await?;
        let told = told["notifications"].as_array().expect("notifications");
        for notification in told {
            let number = notification["id"].as_i64().expect("a number");
            assert_eq!(number, self.last + 1, "one after the other: {notification}");
            self.last = number;
        }
        Ok(told.clone())
    }

    /// Goes on until it has this number, or the socket ends.
    ///
    /// # Errors
    /// Why the socket ended.
    ///
    /// # Panics
    /// When a number is missing or comes twice, or nothing comes in time.
    pub async fn until(&mut self, last: i64) -> Result<(), Ended> {
        while self.last < last {
            timeout(PATIENCE, self.next()).await.expect("in time")?;
        }
        Ok(())
    }

    /// How the server closes it, whatever comes before.
    ///
    /// # Panics
    /// When it does not in time.
    pub async fn closed(&mut self) -> Ended {
        loop {
            if let Err(ended) = timeout(PATIENCE, self.next()).await.expect("in time") {
                return ended;
            }
        }
    }
}

/// Connects again and again, as an app does, until that succeeds.
///
/// # Panics
/// When it does not in time.
pub async fn come_again(api: &str, token: &str, last: i64) -> Watcher {
    let again = async {
        loop {
            match Watcher::connect(api, token, last).await {
                Ok(watcher) => return watcher,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    timeout(PATIENCE, again).await.expect("it is let in")
}
