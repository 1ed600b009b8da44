//! Ten thousand open sockets on one process of the api, each of another player: what they cost, and
//! how soon players are told.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use stack::{Progress, Task};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use uuid::Uuid;

use crate::load::Latencies;
use crate::options::Options;
use crate::report::{Figure, Report};
use crate::sampling::{Uses, resident_mib};
use crate::system::System;

/// How many there are.
const SOCKETS: usize = 10_000;
/// What the process may have resident with all of them open: 500 MB.
const MOST_MIB: f64 = 500_000_000.0 / 1_048_576.0;
/// How many come at the same time.
const COME_AT_A_TIME: usize = 64;
/// How many messages are on their way to Kafka when everybody is told.
const SENT_AT_A_TIME: usize = 1_000;
/// How long after the last one has come, or was told, memory is looked at.
const SETTLE: Duration = Duration::from_secs(5);
/// How long everybody may take to be told.
const TOLD_WITHIN: Duration = Duration::from_secs(120);
/// How many are told something one after the other in a round.
const ONE_BY_ONE: usize = 200;
/// What a client reads at once, in bytes: all of them are in this process.
const CLIENT_BUFFER_BYTES: usize = 1_024;

/// How many files this process and the api may have open beside the sockets.
const OTHER_FILES: u64 = 500;

/// A player who was told something, and when.
type Told = Result<(usize, Instant)>;

/// What one round found.
struct Round {
    told_mib: f64,
    everybody_seconds: f64,
    uses: Uses,
    one: Latencies,
}

/// Measures.
///
/// # Errors
/// When something does not run, a socket is refused or ends, or somebody is not told in time.
pub async fn measure(options: &Options) -> Result<Report> {
    let sockets = options.scaled(SOCKETS);
    let files = boot::descriptors::raise()?;
    ensure!(
        files >= sockets as u64 + OTHER_FILES,
        "{sockets} sockets need more than the {files} files that may be open (ulimit -Hn)"
    );
    let system = System::start(options).await?;
    system.start_service("worker", &[]).await?;
    system.start_service("api", &[]).await?;
    let api = system.stack.pid("api")?;
    let players: Vec<String> = (0..sockets).map(|_| unique("P")).collect();
    let progress = Progress::shown();

    let before_mib = resident_mib(api)?;
    let task = progress.task(&format!("opening {sockets} sockets"));
    let (told, mut is_told) = mpsc::unbounded_channel();
    let began = Instant::now();
    let open = open(&system, &players, &told, &task).await?;
    let coming_seconds = began.elapsed().as_secs_f64();
    task.done("");
    tokio::time::sleep(SETTLE).await;
    let open_mib = resident_mib(api)?;

    let outlet = Outlet::new(&system.brokers)?;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let task = progress.task(&format!("telling players, round {number}"));
        rounds.push(round(&system, api, &outlet, &players, &mut is_told).await?);
        task.done("");
    }
    drop(open);
    Ok(report(
        sockets,
        before_mib,
        open_mib,
        coming_seconds,
        &rounds,
    ))
}

fn report(
    sockets: usize,
    before_mib: f64,
    open_mib: f64,
    coming_seconds: f64,
    rounds: &[Round],
) -> Report {
    let mut report = Report::new("sockets");
    report.set("sockets", sockets);
    report.set("playersToldOneByOne", ONE_BY_ONE);
    let each = |what: fn(&Round) -> f64| rounds.iter().map(what).collect::<Vec<_>>();
    let uses = rounds.last().map(|round| round.uses.clone());
    let one = |name: &str, unit, value| Figure::new(name, unit, vec![value], Uses::new());
    report.add(one("all of them connect", "s", coming_seconds));
    report.add(one("the api's memory before", "MiB", before_mib));
    report.add(one("the same with all of them open", "MiB", open_mib));
    let told_mib = each(|round| round.told_mib);
    let most_mib = told_mib.iter().copied().fold(open_mib, f64::max);
    let figures = [
        (
            "the same after everybody was told something",
            "MiB",
            told_mib,
            Uses::new(),
        ),
        (
            "from the first message on Kafka until everybody is told",
            "s",
            each(|round| round.everybody_seconds),
            uses.unwrap_or_default(),
        ),
        (
            "from a message to Kafka until its player is told, p50",
            "ms",
            each(|round| round.one.median()),
            Uses::new(),
        ),
        (
            "the same, p99",
            "ms",
            each(|round| round.one.p99()),
            Uses::new(),
        ),
    ];
    for (name, unit, values, uses) in figures {
        report.add(Figure::new(name, unit, values, uses));
    }
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let kib = (most_mib - before_mib) * 1_024.0 / sockets as f64;
    report.at_most(
        &format!("at most 500 MB resident with {sockets} sockets open, told or not, in MiB"),
        most_mib,
        MOST_MIB,
        &format!("each socket takes {kib:.1} KiB, beside the {before_mib:.0} MiB without any"),
    );
    report.notes.push(
        "The clients are in the process `bench`, on the same processors. Memory is what is resident."
            .to_owned(),
    );
    report
}

/// Opens a socket for each player. They stay open until what this gives is dropped.
async fn open(
    system: &System,
    players: &[String],
    told: &UnboundedSender<Told>,
    task: &Task,
) -> Result<JoinSet<()>> {
    let mut open = JoinSet::new();
    let mut coming = stream::iter(players.iter().enumerate())
        .map(|(number, player)| async move {
            let socket = Socket::open(system, player).await;
            socket
                .map(|socket| (number, socket))
                .with_context(|| player.clone())
        })
        .buffer_unordered(COME_AT_A_TIME);
    while let Some((number, socket)) = coming.try_next().await? {
        open.spawn(listen(number, socket, told.clone()));
        task.line(&format!("{} are open", open.len()));
    }
    Ok(open)
}

/// Passes on whatever a player is told, until the socket ends.
async fn listen(number: usize, mut socket: Socket, told: UnboundedSender<Told>) {
    loop {
        match socket.next().await.context("a socket ended") {
            Ok(count) => {
                let at = Instant::now();
                for _ in 0..count {
                    let _ = told.send(Ok((number, at)));
                }
            }
            Err(error) => {
                let _ = told.send(Err(error));
                return;
            }
        }
    }
}

/// Tells everybody something at once, then some players one after the other.
async fn round(
    system: &System,
    api: i32,
    outlet: &Outlet,
    players: &[String],
    is_told: &mut UnboundedReceiver<Told>,
) -> Result<Round> {
    let watching = system.watch()?;
    let began = Instant::now();
    let arriving = async {
        for _ in players {
            next(is_told).await?;
        }
        anyhow::Ok(())
    };
    let everybody = async { tokio::try_join!(outlet.everybody(players), arriving) };
    let in_time = tokio::time::timeout(TOLD_WITHIN, everybody).await;
    in_time.context("not everybody was told in time")??;
    let everybody_seconds = began.elapsed().as_secs_f64();
    let (uses, _) = watching.stop(players.len());
    tokio::time::sleep(SETTLE).await;
    let told_mib = resident_mib(api)?;

    let mut times = Vec::with_capacity(ONE_BY_ONE);
    for (number, player) in players.iter().enumerate().cycle().take(ONE_BY_ONE) {
        let sent = Instant::now();
        outlet.one(player).await?;
        let (who, at) = tokio::time::timeout(TOLD_WITHIN, next(is_told))
            .await
            .with_context(|| format!("{player} was not told in time"))??;
        ensure!(
            who == number,
            "{} was told what was for {player}",
            players[who]
        );
        times.push(at.duration_since(sent));
    }
    Ok(Round {
        told_mib,
        everybody_seconds,
        uses,
        one: Latencies::of(times)?,
    })
}

async fn next(is_told: &mut UnboundedReceiver<Told>) -> Told {
    is_told.recv().await.context("every socket has ended")?
}

fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", Uuid::new_v4().simple())
}

/// A player's client, as an app would be: it knows the last number it has.
struct Socket {
    stream: WebSocketStream<TcpStream>,
    last: i64,
}

impl Socket {
    async fn open(system: &System, player: &str) -> Result<Self> {
        let token = token(system, player).await?;
        let address = system.api.trim_start_matches("http://");
        let url = format!("ws://{address}/api/v1/notifications/ws?lastSeenId=0");
        let mut request = url.into_client_request()?;
        let bearer = format!("Bearer {token}").parse()?;
        request.headers_mut().insert("authorization", bearer);
        let config = WebSocketConfig::default()
            .read_buffer_size(CLIENT_BUFFER_BYTES)
            .write_buffer_size(0);
        let stream = TcpStream::connect(address).await?;
        let (stream, _) = client_async_with_config(request, stream, Some(config)).await?;
        let mut socket = Self { stream, last: 0 };
        let ready = socket.frame().await?;
        ensure!(ready["type"] == "ready", "{ready} comes before it is ready");
        socket.last = ready["lastSeenId"].as_i64().context("no last number")?;
        Ok(socket)
    }

    async fn frame(&mut self) -> Result<Value> {
        loop {
            let message = self.stream.next().await.context("it broke")??;
            match message {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Close(reason) => anyhow::bail!("it was closed: {reason:?}"),
                _ => {}
            }
        }
    }

    /// How many notifications come next, of which each must be the one after the last.
    async fn next(&mut self) -> Result<usize> {
        let frame = self.frame().await?;
        let notifications = frame["notifications"].as_array();
        let notifications = notifications.with_context(|| format!("{frame} tells of nothing"))?;
        for notification in notifications {
            self.last += 1;
            ensure!(
                notification["id"] == self.last,
                "{notification} comes in place of number {}",
                self.last
            );
        }
        Ok(notifications.len())
    }
}

async fn token(system: &System, player: &str) -> Result<String> {
    let request = system.http.get(format!("{}/dev/token", system.api));
    let request = request.query(&[("sub", player), ("role", "player")]);
    let answer: Value = request.send().await?.error_for_status()?.json().await?;
    let token = answer["access_token"].as_str();
    Ok(token.context("no token in the answer")?.to_owned())
}

/// What tells players something.
struct Outlet(FutureProducer);

impl Outlet {
    fn new(brokers: &str) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .create()?;
        Ok(Self(producer))
    }

    async fn one(&self, player: &str) -> Result<()> {
        let body = json!({
            "user_id": player, "eventType": "PROMOTION",
            "content": { "title": "Welcome", "description": "Fifty points to begin with" }
        });
        let (id, body) = (unique("n"), body.to_string());
        let headers = OwnedHeaders::new().insert(Header {
            key: "ce_id",
            value: Some(&id),
        });
        let record = FutureRecord::to("notifications").key(player);
        let record = record.headers(headers).payload(&body);
        let sent = self.0.send(record, Duration::from_secs(30)).await;
        sent.map_err(|(error, _)| error)?;
        Ok(())
    }

    async fn everybody(&self, players: &[String]) -> Result<()> {
        let sending = stream::iter(players).map(|player| self.one(player));
        sending.buffer_unordered(SENT_AT_A_TIME).try_collect().await
    }
}
