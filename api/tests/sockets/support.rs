//! What the tests of sockets share: replicas that listen, and clients that can be told things.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use api::{
    auth::dev::Grant,
    serve::{self, Patience},
};
use domain::{
    Command, Notification,
    inbound::{self, Message as Record, topic},
};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use store::{PgPool, notifications::Stored, testing::TestDatabase};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use crate::app::Api;

/// How long anything may take before a test has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const PATH: &str = "/api/v1/notifications/ws";

/// A replica that listens.
pub struct Replica {
    pub api: Api,
    pub address: SocketAddr,
    follows: JoinHandle<()>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.follows.abort();
        self.api.app.readiness.drain();
    }
}

impl Replica {
    pub async fn new(replace: &[(&str, &str)]) -> Self {
        Self::on(Arc::new(store::testing::database().await), replace).await
    }

    pub async fn on(database: Arc<TestDatabase>, replace: &[(&str, &str)]) -> Self {
        let api = Api::on(database, replace);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let patience = Patience {
            request: PATIENCE,
            drain: Duration::ZERO,
        };
        let stop = api.app.readiness.draining().clone();
        tokio::spawn(serve::serve(listener, api.router.clone(), patience, stop));
        let app = Arc::clone(&api.app);
        let follows = tokio::spawn(async move { app.sockets.follow(&app.pool).await });
        Self {
            api,
            address,
            follows,
        }
    }

    pub fn pool(&self) -> &PgPool {
        &self.api.database.pool
    }

    /// Waits until no more sockets than so many are open here.
    pub async fn until_open(&self, count: usize) {
        let fewer = async {
            while self.api.app.sockets.open() > count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, fewer).await.expect("they end");
    }

    pub fn token(&self, sub: &str, role: &str) -> String {
        let grant = Grant {
            sub: sub.to_owned(),
            scope: String::new(),
            roles: vec![role.to_owned()],
            merchants: None,
        };
        let issuer = self.api.app.dev_issuer.as_ref().expect("the dev profile");
        issuer.token(&grant).expect("a token")
    }

    /// Begins a WebSocket; the answer where that is refused.
    pub async fn handshake(
        &self,
        query: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Socket, (u16, Value)> {
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        self.handshake_on(stream, query, headers).await
    }

    async fn handshake_on(
        &self,
        stream: TcpStream,
        query: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Socket, (u16, Value)> {
        let url = format!("ws://{}{PATH}{query}", self.address);
        let mut request = url.into_client_request().expect("a request");
        for (name, value) in headers {
            let value = value.parse().expect("a header");
            request.headers_mut().insert(*name, value);
        }
        match client_async(request, stream).await {
            Ok((stream, _)) => Ok(Socket(stream)),
            Err(Error::Http(answer)) => {
                let body = answer.body().as_deref().unwrap_or_default();
                let body = serde_json::from_slice(body).unwrap_or_default();
                Err((answer.status().as_u16(), body))
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// A player's socket, with the token in the header.
    pub async fn player(&self, user: &str, last_seen: Option<i64>) -> Socket {
        let bearer = format!("Bearer {}", self.token(user, "player"));
        let query = last_seen.map_or(String::new(), |id| format!("?lastSeenId={id}"));
        let headers = [("authorization", bearer.as_str())];
        let socket = self.handshake(&query, &headers);
        socket.await.expect("it is let in")
    }

    /// The same, of a client that has next to no room for what it does not read.
    pub async fn player_with_little_room(&self, user: &str) -> Socket {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("it is small");
        let stream = socket.connect(self.address).await.expect("it listens");
        let bearer = format!("Bearer {}", self.token(user, "player"));
        let headers = [("authorization", bearer.as_str())];
        let socket = self.handshake_on(stream, "", &headers);
        socket.await.expect("it is let in")
    }

    /// A socket of a client that has not said who it is.
    pub async fn stranger(&self) -> Socket {
        let socket = self.handshake("", &[]);
        socket.await.expect("it is let in")
    }
}

/// A client's side of a socket.
pub struct Socket(pub WebSocketStream<TcpStream>);

impl Socket {
    pub async fn say(&mut self, message: impl Into<Message>) {
        let sent = self.0.send(message.into()).await;
        sent.expect("it is sent");
    }

    pub async fn authenticate(&mut self, token: &str, last_seen: Option<i64>) {
        let mut first = json!({ "type": "authenticate", "token": token });
        if let Some(last_seen) = last_seen {
            first["lastSeenId"] = json!(last_seen);
        }
        self.say(first.to_string()).await;
    }

    /// What comes next; nothing when the socket has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            let frame = timeout(PATIENCE, self.0.next()).await.expect("in time");
            match frame? {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).expect("JSON")),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The number after which the client is told.
    pub async fn ready(&mut self) -> i64 {
        let ready = self.next().await.expect("it is open");
        assert_eq!(ready["type"], "ready", "{ready}");
        ready["lastSeenId"].as_i64().expect("a number")
    }

    /// The numbers of the next notifications, at least so many.
    pub async fn told(&mut self, count: usize) -> Vec<i64> {
        let mut told = Vec::new();
        while told.len() < count {
            let next = self.next().await.expect("it is open");
            told.extend(numbers(&next));
        }
        told
    }

    /// How it is closed, whatever came before.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            let frame = timeout(PATIENCE, self.0.next()).await.expect("in time");
            match frame.expect("it is closed with a word") {
                Ok(Message::Close(Some(frame))) => {
                    return (frame.code.into(), frame.reason.to_string());
                }
                Ok(Message::Close(None)) => panic!("closed without a reason"),
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub async fn is_closed_with(&mut self, code: u16, reason: &str) {
        let (got, why) = self.closed().await;
        assert_eq!(got, code, "{why}");
        assert!(why.starts_with(reason), "{why}");
    }
}

pub fn numbers(told: &Value) -> Vec<i64> {
    assert_eq!(told["type"], "notifications", "{told}");
    let notifications = told["notifications"].as_array().expect("a list").iter();
    notifications
        .map(|n| n["id"].as_i64().expect("a number"))
        .collect()
}

/// A notification as it comes from Kafka.
pub fn notification(user: &str, id: &str, content: &Value) -> Notification {
    let body = json!({ "user_id": user, "eventType": "PROMOTION", "content": content });
    let body = body.to_string();
    let message = Record {
        topic: topic::NOTIFICATIONS,
        partition: 0,
        offset: 0,
        key: None,
        headers: &[("ce_id".to_owned(), id.as_bytes().to_vec())],
        value: Some(body.as_bytes()),
        timestamp: chrono::Utc::now(),
    };
    match inbound::read(&message, chrono::Utc::now()) {
        Ok(Some(Command::Notify(notification))) => notification,
        other => panic!("{other:?}"),
    }
}

/// Stores notifications, as the worker does.
pub async fn store(pool: &PgPool, notifications: &[Notification]) -> Vec<Stored> {
    let mut tx = store::transaction::begin(pool)
        .await
        .expect("a transaction");
    let stored = store::notifications::write(&mut tx, notifications).await;
    let stored = stored.expect("written");
    store::transaction::commit(tx, "test")
        .await
        .expect("committed");
    stored
}

/// Stores so many small notifications of a player, one transaction each.
pub async fn tell(pool: &PgPool, user: &str, count: usize) {
    for _ in 0..count {
        let id = uuid::Uuid::new_v4().to_string();
        store(pool, &[notification(user, &id, &json!({}))]).await;
    }
}
