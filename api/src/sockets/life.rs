//! The life of a socket: who is there, what it is told, how it ends.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    body::Bytes,
    extract::ws::{Message, WebSocket},
};
use domain::CustomerId;
use store::notifications;
use tokio::time::{Instant, interval_at, sleep, timeout};
use uuid::Uuid;

use super::{
    Seat, Ticket,
    end::End,
    message::{Authenticate, Told},
};
use crate::{
    App,
    auth::{self, Identity, Role},
    error::ApiError,
    measures, notification,
};

/// How many notifications are sent in one message.
const TOLD_AT_A_TIME: u32 = 50;
/// The contents of one message, in bytes: as soon as they have so many, no other is put in. Each
/// socket keeps a buffer of its largest message.
const TOLD_MAX_BYTES: u32 = 8_192;
/// How many frames a client may send between two pings.
const FRAMES_MAX: u32 = 100;
/// What the first message is, where one is needed.
const FIRST_MESSAGE: &str =
    r#"The first message is {"type": "authenticate", "token": "...", "lastSeenId": 0}."#;
/// How long a client may take to read why it is sent away, and to close too.
const FAREWELL: Duration = Duration::from_secs(2);

/// Whoever comes with a socket.
pub(crate) struct Visitor {
    /// Who it is, when that was said with the request.
    pub(crate) identity: Option<Identity>,
    /// The number of the last notification that the client has, when that was said.
    pub(crate) last_seen: Option<u32>,
    /// From where it comes, as it is counted.
    pub(crate) address: String,
    /// What keeps it counted.
    pub(crate) ticket: Ticket,
}

/// Attends to a socket until it ends.
pub(crate) async fn attend(app: Arc<App>, mut socket: WebSocket, visitor: Visitor) {
    let Visitor {
        identity,
        last_seen,
        address,
        ticket,
    } = visitor;
    let end = {
        let live = pin!(live(&app, &mut socket, identity, last_seen, address));
        tokio::select! {
            end = live => end,
            () = app.readiness.draining().cancelled() => End::Stopping,
        }
    };
    tracing::debug!(?end, "a socket ended");
    measures::socket_ended(end.as_str());
    let _ = timeout(FAREWELL, say_farewell(socket, &end)).await;
    drop(ticket);
}

/// Says why, and waits until the client has closed too: a connection that is dropped while there is
/// something unread takes what was sent last with it.
async fn say_farewell(mut socket: WebSocket, end: &End) {
    match end.told() {
        Some(frame) => {
            if socket.send(Message::Close(Some(frame))).await.is_err() {
                return;
            }
        }
        // The closing of its own is answered by reading on.
        None if matches!(end, End::Left) => {}
        None => return,
    }
    while let Some(read) = socket.recv().await {
        if read.is_err() {
            if end.leaves_unread() {
                sleep(FAREWELL).await;
            }
            return;
        }
    }
}

async fn live(
    app: &App,
    socket: &mut WebSocket,
    identity: Option<Identity>,
    last_seen: Option<u32>,
    address: String,
) -> End {
    let entered = match identity {
        Some(identity) => Player::of(identity, last_seen),
        None => Box::pin(enter(app, socket, address, last_seen)).await,
    };
    let player = match entered {
        Ok(player) => player,
        Err(end) => return end,
    };
    // Before it is known from where on it is told: what comes meanwhile wakes it.
    let Some(seated) = app.sockets.sit(player.user.as_str(), player.session) else {
        return End::TooMany;
    };
    let mut client = Client {
        app,
        socket,
        user: &player.user,
        seat: &seated.seat,
        told: 0,
    };
    if let Err(end) = Box::pin(client.begin(player.last_seen)).await {
        return end;
    }
    client.serve(player.valid_for).await
}

/// Whose socket it is.
struct Player {
    user: CustomerId,
    session: Option<Uuid>,
    /// For how long the token counts.
    valid_for: Duration,
    /// The number of the last notification that the client has.
    last_seen: Option<u32>,
}

impl Player {
    fn of(identity: Identity, last_seen: Option<u32>) -> Result<Self, End> {
        let (session, valid_for) = (identity.session, identity.valid_for());
        let user = CustomerId::new(identity.subject).map_err(|_| {
            let why = "its subject cannot be a customer";
            End::Refused(ApiError::InvalidToken(why))
        })?;
        Ok(Self {
            user,
            session,
            valid_for,
            last_seen,
        })
    }
}

/// Waits for the first message, which says who it is.
async fn enter(
    app: &App,
    socket: &mut WebSocket,
    address: String,
    last_seen: Option<u32>,
) -> Result<Player, End> {
    let Some(_place) = app.sockets.entering.take(&address) else {
        return Err(End::Refused(ApiError::Overloaded));
    };
    let within = app.sockets.settings.authenticate_within();
    let first = timeout(within, first_message(socket))
        .await
        .map_err(|_| End::Silent)??;
    let first = Authenticate::read(&first).ok_or(End::Garbage(FIRST_MESSAGE))?;
    let identity = auth::authenticate(app, &first.token)
        .await
        .map_err(End::Refused)?;
    if !identity.has_role(Role::Player) {
        return Err(End::Refused(ApiError::MissingRole(Role::Player)));
    }
    Player::of(identity, first.last_seen_id.or(last_seen))
}

async fn first_message(socket: &mut WebSocket) -> Result<String, End> {
    let mut frames = 0;
    while frames < FRAMES_MAX {
        frames += 1;
        match socket.recv().await {
            None => return Err(End::Lost),
            Some(Err(error)) => return Err(End::of(error)),
            Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
            Some(Ok(Message::Binary(_))) => return Err(End::Garbage(FIRST_MESSAGE)),
            Some(Ok(Message::Close(_))) => return Err(End::Left),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
        }
    }
    Err(End::Flooding)
}

/// A player on a socket.
struct Client<'a> {
    app: &'a App,
    socket: &'a mut WebSocket,
    user: &'a CustomerId,
    seat: &'a Seat,
    /// The number of the last notification that was sent.
    told: i64,
}

impl Client<'_> {
    /// Says from where on the client is told. One that has seen more than there is, such as after a
    /// backup was restored, is told what comes from now on.
    async fn begin(&mut self, last_seen: Option<u32>) -> Result<(), End> {
        let newest = {
            let _turn = self.app.sockets.reading.acquire().await;
            notifications::last_id(&self.app.pool, self.user).await
        };
        let newest = newest.map_err(|error| End::Refused(error.into()))?;
        self.told = last_seen.map_or(newest, |seen| i64::from(seen).min(newest));
        self.send(&Told::Ready {
            user_id: self.user.as_str(),
            last_seen_id: self.told,
        })
        .await?;
        self.seat.told.store(self.told, Ordering::Relaxed);
        if self.told < newest {
            self.seat.wake.notify_one();
        }
        Ok(())
    }

    async fn serve(mut self, valid_for: Duration) -> End {
        let every = self.app.sockets.settings.ping_every();
        let mut pings = interval_at(Instant::now() + every, every);
        let mut expiry = pin!(sleep(valid_for));
        let mut pinged = false;
        // Since the last ping.
        let mut frames = 0;
        loop {
            tokio::select! {
                frame = self.socket.recv() => {
                    frames += 1;
                    match frame {
                        None => return End::Lost,
                        Some(Err(error)) => return End::of(error),
                        Some(Ok(Message::Close(_))) => return End::Left,
                        Some(Ok(Message::Text(_) | Message::Binary(_))) => {
                            return End::Garbage("No message is expected.");
                        }
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) if frames > FRAMES_MAX => {
                            return End::Flooding;
                        }
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    }
                }
                () = self.seat.wake.notified() => {
                    if self.seat.session_ended.load(Ordering::Relaxed) {
                        let why = "its session has ended";
                        return End::Refused(ApiError::InvalidToken(why));
                    }
                    // Apart, so that a socket that waits is small.
                    if let Err(end) = Box::pin(self.tell()).await {
                        return end;
                    }
                }
                _ = pings.tick() => {
                    if pinged && frames == 0 {
                        return End::Dead;
                    }
                    (pinged, frames) = (true, 0);
                    if let Err(end) = self.send_frame(Message::Ping(Bytes::new())).await {
                        return end;
                    }
                }
                () = &mut expiry => {
                    return End::Refused(ApiError::InvalidToken("it has expired"));
                }
            }
        }
    }

    /// Sends everything that there is and has not been sent.
    async fn tell(&mut self) -> Result<(), End> {
        loop {
            let page = {
                let _turn = self.app.sockets.reading.acquire().await;
                let (pool, limit) = (&self.app.pool, TOLD_AT_A_TIME);
                notifications::after(pool, self.user, self.told, limit, TOLD_MAX_BYTES).await
            };
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    // It is found again when everybody's inbox is looked at.
                    tracing::warn!(%error, "a player is not told yet");
                    return Ok(());
                }
            };
            let Some(newest) = page.last().map(|last| last.notification_id) else {
                return Ok(());
            };
            let (count, bytes) = (
                page.len(),
                page.iter().map(|n| n.content.len()).sum::<usize>(),
            );
            let notifications = notification::bodies(page).map_err(End::Refused)?;
            self.send(&Told::Notifications {
                user_id: self.user.as_str(),
                notifications,
            })
            .await?;
            self.told = newest;
            self.seat.told.store(newest, Ordering::Relaxed);
            measures::delivered(count);
            // What came after this was read wakes the socket again.
            if count < TOLD_AT_A_TIME as usize && bytes < TOLD_MAX_BYTES as usize {
                return Ok(());
            }
        }
    }

    async fn send(&mut self, told: &Told<'_>) -> Result<(), End> {
        let text = serde_json::to_string(told)
            .map_err(|error| End::Refused(ApiError::Internal(error.to_string())))?;
        self.send_frame(Message::text(text)).await
    }

    async fn send_frame(&mut self, frame: Message) -> Result<(), End> {
        let within = self.app.sockets.settings.read_within();
        match timeout(within, self.socket.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Lost),
            Err(_) => Err(End::Slow),
        }
    }
}
