//! Who is not let in, and how sockets end.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    app,
    support::{PATH, PATIENCE, Replica, store, tell},
};

#[tokio::test]
async fn the_handshake_is_answered_like_any_request_when_it_is_refused() {
    let replica = Replica::new(&[(
        "cors_origins = []",
        "cors_origins = [\"https://app.example\"]",
    )])
    .await;
    let player = format!("Bearer {}", replica.token("C1", "player"));
    let staff = format!("Bearer {}", replica.token("S1", "staff"));
    let in_address = format!("?access_token={}", replica.token("C1", "player"));
    let host = replica.address.to_string();
    let own = format!("http://{host}");
    for (query, headers, expected) in [
        (
            "",
            &[("authorization", "Bearer x.y.z")][..],
            (401, "INVALID_TOKEN"),
        ),
        (
            "",
            &[("authorization", "Basic Og==")],
            (401, "UNAUTHENTICATED"),
        ),
        ("", &[("authorization", &staff)], (403, "INSUFFICIENT_ROLE")),
        // Nothing is believed that stands in the address, and nothing unknown is ignored there.
        (&in_address, &[], (400, "INVALID_PARAMETER")),
        (
            "?lastSeenId=-1",
            &[("authorization", &player)],
            (400, "INVALID_PARAMETER"),
        ),
        ("?lastSeenId=x", &[], (400, "INVALID_PARAMETER")),
        (
            "",
            &[("origin", "https://elsewhere.example")],
            (403, "ORIGIN_NOT_ALLOWED"),
        ),
        (
            "",
            &[("authorization", &player), ("origin", "null")],
            (403, "ORIGIN_NOT_ALLOWED"),
        ),
        (
            "",
            &[("sec-websocket-version", "8")],
            (401, "UNAUTHENTICATED"),
        ),
        (
            "",
            &[("sec-websocket-version", "8"), ("authorization", &player)],
            (426, "UPGRADE_REQUIRED"),
        ),
    ] {
        let Err((status, problem)) = replica.handshake(query, headers).await else {
            panic!("{query} {headers:?} is let in");
        };
        assert_eq!(
            (status, problem["code"].as_str()),
            (expected.0, Some(expected.1))
        );
    }
    for origin in ["https://app.example", &own, "http://127.0.0.1:21000"] {
        let headers = [("authorization", player.as_str()), ("origin", origin)];
        let socket = replica.handshake("", &headers).await;
        assert_eq!(socket.expect("it is let in").ready().await, 0, "{origin}");
    }
    let plain = app::get(PATH, &replica.token("C1", "player"));
    let plain = replica.api.send(plain).await;
    assert_eq!(
        (plain.status.as_u16(), plain.code()),
        (426, "UPGRADE_REQUIRED")
    );
    assert_eq!(plain.headers["upgrade"], "websocket");
}

#[tokio::test]
async fn whoever_does_not_say_at_once_who_it_is_is_sent_away_with_a_reason() {
    let within = |seconds: &'static str| [("authenticate_within_seconds = 5", seconds)];
    // Who says something is to be heard, however slow the machine is.
    let patient = Replica::new(&within("authenticate_within_seconds = 60")).await;
    let brief = within("authenticate_within_seconds = 1");
    let brief = Replica::on(patient.api.database.clone(), &brief).await;
    let token = patient.token("C1", "player");
    let first = |change: &dyn Fn(&mut Value)| {
        let mut first = json!({ "type": "authenticate", "token": token });
        change(&mut first);
        Message::text(first.to_string())
    };
    let staff = patient.token("S1", "staff");
    let long = "x".repeat(10_240);
    for (message, code, reason) in [
        (None, 4401, "UNAUTHENTICATED"),
        (Some(Message::Ping("x".into())), 4401, "UNAUTHENTICATED"),
        (Some(Message::text("")), 4400, "INVALID_MESSAGE"),
        (Some(Message::text("{")), 4400, "INVALID_MESSAGE"),
        (Some(Message::text(token.clone())), 4400, "INVALID_MESSAGE"),
        (
            Some(Message::binary(token.clone())),
            4400,
            "INVALID_MESSAGE",
        ),
        (
            Some(first(&|m| m["type"] = json!("hello"))),
            4400,
            "INVALID_MESSAGE",
        ),
        (
            Some(first(&|m| m["more"] = json!(1))),
            4400,
            "INVALID_MESSAGE",
        ),
        (
            Some(first(&|m| m["lastSeenId"] = json!(-1))),
            4400,
            "INVALID_MESSAGE",
        ),
        (
            Some(first(&|m| m["token"] = json!("x.y.z"))),
            4401,
            "INVALID_TOKEN",
        ),
        (
            Some(first(&|m| m["token"] = json!(""))),
            4401,
            "INVALID_TOKEN",
        ),
        (
            Some(first(&|m| m["token"] = json!(staff))),
            4403,
            "INSUFFICIENT_ROLE",
        ),
        (
            Some(first(&|m| m["token"] = json!(long))),
            1009,
            "The message is too large",
        ),
    ] {
        let replica = match message {
            None | Some(Message::Ping(_)) => &brief,
            Some(_) => &patient,
        };
        let mut socket = replica.stranger().await;
        if let Some(message) = message {
            socket.say(message).await;
        }
        socket.is_closed_with(code, reason).await;
    }
    assert_eq!(
        patient
            .api
            .count("SELECT count(*) FROM audit_records")
            .await,
        0
    );
}

#[tokio::test]
async fn whoever_says_something_later_is_sent_away() {
    let replica = Replica::new(&[]).await;
    for (message, code, reason) in [
        (Message::text("{}"), 4400, "INVALID_MESSAGE"),
        (Message::binary(vec![0; 10]), 4400, "INVALID_MESSAGE"),
        (
            Message::text("x".repeat(100_000)),
            1009,
            "The message is too large",
        ),
    ] {
        let mut socket = replica.player("C1", None).await;
        socket.ready().await;
        socket.say(message).await;
        socket.is_closed_with(code, reason).await;
    }
    let mut flood = replica.player("C1", None).await;
    flood.ready().await;
    for _ in 0..200 {
        flood.say(Message::Ping("x".into())).await;
    }
    flood.is_closed_with(4429, "RATE_LIMITED").await;
}

/// What comes from a connection until it ends.
async fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    // The server may have closed on what it had not read.
    let _ = read.expect("in time");
    all
}

async fn raw(replica: &Replica) -> TcpStream {
    let mut stream = TcpStream::connect(replica.address)
        .await
        .expect("it listens");
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Authorization: Bearer {}\r\n\r\n",
        replica.address,
        replica.token("C1", "player")
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    stream
}

/// The code of the frame that closes, which is the last one.
fn close_code(answer: &[u8]) -> Option<u16> {
    let at = answer.iter().rposition(|byte| *byte == 0x88)?;
    let code = answer.get(at + 2..at + 4)?;
    Some(u16::from_be_bytes([code[0], code[1]]))
}

#[tokio::test]
async fn frames_that_are_none_are_told_from_texts_that_are_none() {
    let replica = Replica::new(&[]).await;
    let masked = |first: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).expect("short");
        [&[first, 0x80 | length, 0, 0, 0, 0][..], payload].concat()
    };
    for (bytes, code) in [
        // Not masked, as clients must.
        (vec![0x81, 2, b'{', b'}'], 1002),
        // An opcode that is none.
        (masked(0x83, b"{}"), 1002),
        // Not UTF-8.
        (masked(0x81, &[0xff, 0xfe]), 1007),
    ] {
        let mut stream = raw(&replica).await;
        stream.write_all(&bytes).await.expect("sent");
        let answer = answer(&mut stream).await;
        assert_eq!(close_code(&answer), Some(code), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_dropped_and_one_that_does_stays() {
    // A machine that stands still leaves nobody time to answer: then all have more of it.
    for seconds in [1, 3, 12] {
        if outlives_one_that_answers_no_ping(seconds).await {
            return;
        }
    }
    panic!("a client that answers is dropped too");
}

/// Whether a client that answers pings is told something after one that does not was dropped.
async fn outlives_one_that_answers_no_ping(seconds: u32) -> bool {
    let often = format!("ping_every_seconds = {seconds}");
    let replica = Replica::new(&[("ping_every_seconds = 30", &often)]).await;
    let mut living = replica.player("C2", None).await;
    living.ready().await;
    let living = tokio::spawn(async move {
        let told = living.next().await;
        (living, told)
    });
    // It reads all that comes, and says nothing.
    let mut dead = raw(&replica).await;
    answer(&mut dead).await;
    replica.until_open(1).await;
    tell(replica.pool(), "C2", 1).await;
    let (_living, told) = living.await.expect("it ends");
    let Some(told) = told else {
        return false;
    };
    assert_eq!(crate::support::numbers(&told), [1]);
    true
}

#[tokio::test]
async fn a_player_has_so_many_sockets_and_a_process_too() {
    let replica = Replica::new(&[
        ("max_open = 12000", "max_open = 4"),
        ("max_per_user = 10", "max_per_user = 2"),
    ])
    .await;
    let mut first = replica.player("C1", None).await;
    let mut second = replica.player("C1", None).await;
    first.ready().await;
    second.ready().await;
    let mut third = replica.player("C1", None).await;
    third.is_closed_with(4429, "TOO_MANY_SOCKETS").await;
    drop(third);
    replica.until_open(2).await;
    let mut other = replica.player("C2", None).await;
    other.ready().await;
    let mut another = replica.player("C3", None).await;
    another.ready().await;
    let bearer = format!("Bearer {}", replica.token("C4", "player"));
    let Err((status, problem)) = replica.handshake("", &[("authorization", &bearer)]).await else {
        panic!("there is no place");
    };
    assert_eq!(
        (status, problem["code"].as_str()),
        (503, Some("OVERLOADED"))
    );
    drop(another);
    // A place is free again once the connection is seen to be gone.
    loop {
        match replica.handshake("", &[("authorization", &bearer)]).await {
            Ok(mut socket) => return assert_eq!(socket.ready().await, 0),
            Err((status, _)) => assert_eq!(status, 503),
        }
    }
}

#[tokio::test]
async fn strangers_cannot_take_all_places() {
    let replica = Replica::new(&[
        ("max_open = 12000", "max_open = 30"),
        (
            "authenticate_within_seconds = 5",
            "authenticate_within_seconds = 60",
        ),
    ])
    .await;
    // A tenth of the places, and half of that for one address.
    let mut waiting = [replica.stranger().await, replica.stranger().await];
    let mut third = replica.stranger().await;
    third.is_closed_with(4503, "OVERLOADED").await;
    let mut player = replica.player("C1", None).await;
    assert_eq!(player.ready().await, 0);
    for socket in &mut waiting {
        socket
            .authenticate(&replica.token("C2", "player"), None)
            .await;
        assert_eq!(socket.ready().await, 0);
    }
}

#[tokio::test]
async fn a_socket_ends_with_its_token() {
    let replica = Replica::new(&[
        ("token_ttl_seconds = 43200", "token_ttl_seconds = 5"),
        ("clock_skew_seconds = 30", "clock_skew_seconds = 0"),
    ])
    .await;
    let expired = "The token was refused: it has expired.";
    // A machine that stands still may leave nothing of a token's time.
    let mut tries = 0;
    let mut socket = loop {
        let bearer = format!("Bearer {}", replica.token("C1", "player"));
        match replica.handshake("", &[("authorization", &bearer)]).await {
            Ok(socket) => break socket,
            Err((_, problem)) => assert_eq!(problem["detail"], expired),
        }
        tries += 1;
        assert!(tries < 10, "each token is refused");
    };
    socket.ready().await;
    socket
        .is_closed_with(4401, &format!("INVALID_TOKEN: {expired}"))
        .await;
}

#[tokio::test]
async fn a_socket_ends_with_its_session_on_every_replica() {
    let here = Replica::new(&[]).await;
    let elsewhere = Replica::on(here.api.database.clone(), &[]).await;
    let user = json!({ "username": "anna", "password": "correct horse battery" });
    let key = [("idempotency-key", "1")];
    here.api
        .send(app::post("/api/v1/auth/register", &key, &user))
        .await;
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let login = here
            .api
            .send(app::post("/api/v1/auth/login", &[], &user))
            .await;
        let token = login.text("accessToken");
        let mut sockets = Vec::new();
        for replica in [&here, &elsewhere] {
            let mut socket = replica.stranger().await;
            socket.authenticate(&token, None).await;
            socket.ready().await;
            sockets.push(socket);
        }
        sessions.push((login, sockets));
    }
    let (second, mut of_second) = sessions.pop().expect("two");
    let (_, mut of_first) = sessions.pop().expect("two");
    let refresh = json!({ "refreshToken": second.text("refreshToken") });
    let ended = here
        .api
        .send(app::post("/api/v1/auth/logout", &[], &refresh))
        .await;
    assert_eq!(ended.status, 204);
    for socket in &mut of_second {
        socket.is_closed_with(4401, "INVALID_TOKEN").await;
    }
    // The other session goes on, until the user is deactivated.
    let user = second.text("accessToken");
    let claims = user.split('.').nth(1).expect("claims");
    let claims = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, claims);
    let claims: Value = serde_json::from_slice(&claims.expect("base64")).expect("JSON");
    let user = claims["sub"].as_str().expect("a subject");
    tell(here.pool(), user, 1).await;
    for socket in &mut of_first {
        assert_eq!(socket.told(1).await, [1]);
    }
    let admin = format!("Bearer {}", here.token("A1", "admin"));
    let path = format!("/api/v1/users/{user}/deactivate");
    let headers = [("idempotency-key", "2"), ("authorization", &admin)];
    let done = elsewhere
        .api
        .send(app::post(&path, &headers, &json!({})))
        .await;
    assert_eq!(done.status, 200, "{}", done.body);
    for socket in &mut of_first {
        socket.is_closed_with(4401, "INVALID_TOKEN").await;
    }
}

#[tokio::test]
async fn when_the_process_stops_clients_are_told_to_come_again() {
    let replica = Replica::new(&[]).await;
    let mut player = replica.player("C1", None).await;
    player.ready().await;
    let mut stranger = replica.stranger().await;
    replica.api.app.readiness.drain();
    player.is_closed_with(1012, "Connect again").await;
    stranger.is_closed_with(1012, "Connect again").await;
    drop((player, stranger));
    replica.api.app.sockets.ended(PATIENCE).await;
    assert_eq!(replica.api.app.sockets.open(), 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_nobody_else_notices() {
    let replica = Replica::new(&[("read_within_seconds = 10", "read_within_seconds = 5")]).await;
    let pool = replica.pool();
    let mut slow = replica.player_with_little_room("C1").await;
    slow.ready().await;
    let mut reads = replica.player("C1", None).await;
    let mut other = replica.player("C2", None).await;
    reads.ready().await;
    other.ready().await;
    // More than fits into what lies between the two.
    let content = json!({ "text": "x".repeat(16_000) });
    let mut count = 0;
    let reading = tokio::spawn(async move {
        let mut last = 0;
        while let Some(told) = reads.next().await {
            for number in crate::support::numbers(&told) {
                assert_eq!(number, last + 1, "nothing is missed");
                last = number;
            }
            if last == 1_000 {
                break;
            }
        }
        last
    });
    while count < 1_000 {
        let batch: Vec<_> = (0..50)
            .map(|n| crate::support::notification("C1", &format!("n-{}", count + n), &content))
            .collect();
        store(pool, &batch).await;
        count += 50;
        tell(pool, "C2", 1).await;
        assert_eq!(other.told(1).await.len(), 1, "it goes on");
    }
    assert_eq!(reading.await.expect("it is told"), 1_000);
    // It ends without a word: what it has not read is in the way.
    replica.until_open(1).await;
    let mut last = 0;
    while let Some(told) = slow.next().await {
        last = crate::support::numbers(&told).pop().expect("some");
    }
    assert!(last < 1_000, "it was not told all");
    let mut again = replica.player("C1", Some(last)).await;
    assert_eq!(again.ready().await, last);
    assert_eq!(again.told(1).await[0], last + 1, "it goes on from there");
}
