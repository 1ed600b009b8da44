//! Own users: registering, logging in, sessions, deactivating.

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use store::users::NewUser;
use support::{Answer, Api, get, post};
use uuid::Uuid;

const PASSWORD: &str = "correct horse battery";
/// How long the API waits for the database to say whether a session goes on.
const LOOKED_UP_WITHIN: Duration = Duration::from_millis(500);
/// How often that may take longer than that before a test has failed.
const TRIES: usize = 60;

async fn register(api: &Api, key: &str, body: &Value) -> Answer {
    let path = "/api/v1/auth/register";
    api.send(post(path, &[("idempotency-key", key)], body))
        .await
}

async fn player(api: &Api, name: &str) -> String {
    let body = json!({ "username": name, "password": PASSWORD });
    let answer = register(api, &format!("register-{name}"), &body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    answer.text("userId")
}

async fn login_from(api: &Api, address: &str, name: &str, password: &str) -> Answer {
    let body = json!({ "username": name, "password": password });
    api.send_from(address, post("/api/v1/auth/login", &[], &body))
        .await
}

async fn login(api: &Api, name: &str) -> Answer {
    let answer = login_from(api, "192.0.2.1", name, PASSWORD).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer
}

async fn refresh(api: &Api, token: &str) -> Answer {
    let body = json!({ "refreshToken": token });
    api.send(post("/api/v1/auth/refresh", &[], &body)).await
}

/// The status of a read with the token: 404 when it counts, as the account is not open yet. Where
/// the database does not say in time whether the session goes on, the token counts alone: such an
/// answer says nothing, and it is asked again.
async fn reads(api: &Api, user: &str, token: &str) -> StatusCode {
    for _ in 0..TRIES {
        let asked = Instant::now();
        let status = reads_once(api, user, token).await;
        if status == StatusCode::UNAUTHORIZED || asked.elapsed() < LOOKED_UP_WITHIN {
            return status;
        }
    }
    panic!("the database never says in time whether the session goes on");
}

async fn reads_once(api: &Api, user: &str, token: &str) -> StatusCode {
    api.send(get(&format!("/api/v1/rewards/{user}"), token))
        .await
        .status
}

/// The answer to a change, once the database says in time whether the session goes on.
async fn changes(api: &Api, change: impl Fn() -> Request<Body>) -> Answer {
    for _ in 0..TRIES {
        let answer = api.send(change()).await;
        if answer.status != StatusCode::SERVICE_UNAVAILABLE {
            return answer;
        }
    }
    panic!("the database never says in time whether the session goes on");
}

async fn admin(api: &Api) -> (Uuid, String) {
    let user_id = Uuid::new_v4();
    let name = format!("admin-{}", user_id.simple());
    let username = domain::Username::new(&name).expect("a name");
    let password_hash = api
        .app
        .passwords
        .hash(PASSWORD.to_owned())
        .await
        .expect("a hash");
    let mut conn = api.database.pool.acquire().await.expect("a connection");
    let new = NewUser {
        user_id,
        username: &username,
        password_hash: &password_hash,
        role: "admin",
    };
    assert!(
        store::users::register(&mut conn, &new)
            .await
            .expect("registered")
    );
    let token = login(api, &name).await.text("accessToken");
    (user_id, token)
}

fn deactivation(token: &str, user: &str) -> Request<Body> {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("idempotency-key", user),
    ];
    let path = format!("/api/v1/users/{user}/deactivate");
    post(&path, &headers, &json!({}))
}

async fn deactivate(api: &Api, token: &str, user: &str) -> Answer {
    changes(api, || deactivation(token, user)).await
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).expect("claims");
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
}

#[tokio::test]
async fn registering_tells_players_once_and_writes_an_audit_record() {
    let api = Api::new(&[]).await;
    let body = json!({ "username": "anna@example.org", "password": PASSWORD });
    let first = register(&api, "k1", &body).await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.body);
    assert_eq!(first.body["role"], "player");
    let id = first.text("userId");
    let (topic, key, message): (String, Vec<u8>, Vec<u8>) =
        sqlx::query_as("SELECT topic, message_key, body FROM outbox")
            .fetch_one(&api.database.pool)
            .await
            .expect("one message");
    assert_eq!((topic.as_str(), key.as_slice()), ("players", id.as_bytes()));
    let message: Value = serde_json::from_slice(&message).expect("JSON");
    assert_eq!(
        message,
        json!({ "eventType": "PLAYER_REGISTERED", "user_id": id })
    );
    let audits = "SELECT count(*) FROM audit_records a JOIN users u ON a.subject = u.user_id::text
                  WHERE a.action = 'user.register' AND a.address = '192.0.2.1'
                    AND a.actor = 'http://127.0.0.1:21000 ' || u.user_id";
    assert_eq!(api.count(audits).await, 1);

    let again = register(&api, "k1", &body).await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let other = json!({ "username": "anna@example.org", "password": "another long password" });
    assert_eq!(
        register(&api, "k1", &other).await.code(),
        "IDEMPOTENCY_KEY_REUSED"
    );
    // Somebody else's key has nothing to do with it, even when it is the same.
    let somebody = json!({ "username": "berta@example.org", "password": PASSWORD });
    let somebody = register(&api, "k1", &somebody).await;
    assert_eq!(somebody.status, StatusCode::CREATED, "{}", somebody.body);
    let taken = json!({ "username": "ANNA@example.org", "password": PASSWORD });
    let taken = register(&api, "k2", &taken).await;
    assert_eq!(
        (taken.status, taken.code()),
        (StatusCode::CONFLICT, "USERNAME_TAKEN")
    );
    assert_eq!(api.count("SELECT count(*) FROM users").await, 2);
    assert_eq!(api.count("SELECT count(*) FROM outbox").await, 2);

    let without = post("/api/v1/auth/register", &[], &body);
    assert_eq!(api.send(without).await.code(), "IDEMPOTENCY_KEY_MISSING");
}

#[tokio::test]
async fn names_passwords_and_members_that_may_not_be_are_refused() {
    let api = Api::new(&[]).await;
    for (name, password) in [
        ("ab", PASSWORD),
        ("an na", PASSWORD),
        ("anna", "too short"),
        ("anna", "password1234"),
        ("a-long-username", "A-Long-Username"),
        ("anna", &"xy".repeat(65)),
    ] {
        let body = json!({ "username": name, "password": password });
        let answer = register(&api, "k", &body).await;
        assert_eq!(
            answer.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{name} {password}"
        );
        assert_eq!(answer.code(), "CREDENTIALS_NOT_ALLOWED");
        assert!(
            !answer.body.to_string().contains(password),
            "{}",
            answer.body
        );
    }
    let body = json!({ "username": "anna", "password": PASSWORD, "role": "admin" });
    let answer = register(&api, "k", &body).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::BAD_REQUEST, "INVALID_BODY")
    );
    for path in ["login", "refresh", "logout"] {
        let body = json!({ "username": "a", "password": "b", "refreshToken": "c", "x": 1 });
        let answer = api
            .send(post(&format!("/api/v1/auth/{path}"), &[], &body))
            .await;
        assert_eq!(answer.code(), "INVALID_BODY", "{path}");
    }
    assert_eq!(api.count("SELECT count(*) FROM users").await, 0);
}

#[tokio::test]
async fn passwords_and_tokens_are_stored_as_hashes_only() {
    let api = Api::new(&[]).await;
    player(&api, "anna").await;
    let tokens = login(&api, "anna").await;
    let refresh_token = tokens.text("refreshToken");
    refresh(&api, &refresh_token).await;
    let hashed = "SELECT count(*) FROM users WHERE password_hash LIKE '$argon2id$v=19$m=64,%'";
    assert_eq!(api.count(hashed).await, 1);
    for (table, row) in [
        ("users", "users"),
        ("idempotency_keys", "idempotency_keys"),
        ("audit_records", "audit_records"),
        ("refresh_tokens", "refresh_tokens"),
        ("outbox", "outbox"),
    ] {
        let query = format!("SELECT coalesce(string_agg({row}::text, ' '), '') FROM {table}");
        let (text,): (String,) = sqlx::query_as(sqlx::AssertSqlSafe(query))
            .fetch_one(&api.database.pool)
            .await
            .expect("text");
        assert!(
            !text.contains(PASSWORD) && !text.contains(&refresh_token),
            "{table}"
        );
        assert!(!text.contains(&tokens.text("accessToken")), "{table}");
    }
    // The kept hash of the body is not one that can be computed by guessing passwords.
    let body = json!({ "username": "anna", "password": PASSWORD }).to_string();
    let plain = <sha2::Sha256 as sha2::Digest>::digest([b"\0", body.as_bytes()].concat());
    let also_plain = <sha2::Sha256 as sha2::Digest>::digest(body.as_bytes());
    let (kept,): (Vec<u8>,) = sqlx::query_as("SELECT body_hash FROM idempotency_keys")
        .fetch_one(&api.database.pool)
        .await
        .expect("a key");
    assert!(kept != plain.as_slice() && kept != also_plain.as_slice());
}

#[tokio::test]
async fn a_login_gives_tokens_that_reach_ones_own_data() {
    let api = Api::new(&[]).await;
    let anna = player(&api, "anna").await;
    let bert = player(&api, "bert").await;
    let tokens = login(&api, "Anna").await;
    assert_eq!(tokens.headers["cache-control"], "no-store");
    assert_eq!(tokens.body["expiresIn"], 900);
    assert_eq!(tokens.body["roles"], json!(["player"]));
    let access = tokens.text("accessToken");
    let claims = claims(&access);
    assert_eq!(claims["sub"], anna.as_str());
    assert_eq!(claims["aud"], "meed");
    assert_eq!(
        claims["exp"].as_i64(),
        claims["iat"].as_i64().map(|at| at + 900)
    );
    assert_eq!(reads(&api, &anna, &access).await, StatusCode::NOT_FOUND);
    let other = api
        .send(get(&format!("/api/v1/rewards/{bert}"), &access))
        .await;
    assert_eq!(other.code(), "CUSTOMER_NOT_ALLOWED");
    let logins = "SELECT count(*) FROM audit_records WHERE action = 'auth.login'";
    assert_eq!(api.count(logins).await, 1);
}

#[tokio::test]
async fn nobody_learns_whether_there_is_a_user() {
    let api = Api::new(&[("refill_seconds = 30", "refill_seconds = 3600")]).await;
    player(&api, "anna").await;
    let told = |mut answer: Answer| {
        assert_eq!(answer.code(), "INVALID_CREDENTIALS");
        answer.body["requestId"].take();
        (answer.status, answer.body)
    };
    let wrong = told(login_from(&api, "192.0.2.1", "anna", "wrong horse battery").await);
    let unknown = told(login_from(&api, "192.0.2.1", "nobody", PASSWORD).await);
    let impossible = told(login_from(&api, "192.0.2.1", "no\u{0}body", PASSWORD).await);
    assert_eq!(wrong, unknown);
    assert_eq!(wrong, impossible);
    // Also how often one may guess is the same.
    for name in ["anna", "nobody"] {
        let mut guesses = 0;
        while login_from(&api, "192.0.2.1", name, "wrong").await.code() == "INVALID_CREDENTIALS" {
            guesses += 1;
        }
        assert_eq!(guesses, 4, "{name}: one of five was taken above");
    }
}

#[tokio::test]
async fn guessing_is_slowed_down_on_every_replica_and_locks_nobody_out() {
    let api = Api::new(&[("refill_seconds = 30", "refill_seconds = 3600")]).await;
    let slow = [("refill_seconds = 30", "refill_seconds = 3600")];
    let other = Api::on(Arc::clone(&api.database), &slow);
    player(&api, "anna").await;
    login_from(&api, "192.0.2.9", "anna", PASSWORD).await;
    for guess in 0..5 {
        let replica = if guess % 2 == 0 { &api } else { &other };
        let answer = login_from(replica, "198.51.100.1", "anna", "wrong").await;
        assert_eq!(answer.code(), "INVALID_CREDENTIALS");
    }
    for replica in [&api, &other] {
        let answer = login_from(replica, "198.51.100.1", "anna", PASSWORD).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.code(), "TOO_MANY_ATTEMPTS");
        let wait: u64 = answer.headers["retry-after"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((3_000..=3_600).contains(&wait), "{wait}");
    }
    // From many addresses at once: the account's own bucket.
    for host in 2..=4 {
        for _ in 0..5 {
            login_from(&api, &format!("198.51.100.{host}"), "anna", "wrong").await;
        }
    }
    let fresh = login_from(&api, "198.51.100.77", "anna", PASSWORD).await;
    assert_eq!(fresh.code(), "TOO_MANY_ATTEMPTS");
    // Where the user has logged in before, all this does not count.
    let home = login_from(&api, "192.0.2.9", "anna", PASSWORD).await;
    assert_eq!(home.status, StatusCode::OK, "{}", home.body);
    // And the bucket fills again.
    sqlx::query("UPDATE attempts SET until = until - interval '2 hours'")
        .execute(&api.database.pool)
        .await
        .expect("time goes by");
    let later = login_from(&api, "198.51.100.77", "anna", PASSWORD).await;
    assert_eq!(later.status, StatusCode::OK, "{}", later.body);
}

#[tokio::test]
async fn guesses_at_once_are_no_way_around_and_right_ones_cost_nothing() {
    let api = Arc::new(Api::new(&[("refill_seconds = 30", "refill_seconds = 3600")]).await);
    player(&api, "anna").await;
    for _ in 0..8 {
        login(&api, "anna").await;
    }
    let guesses = (0..20).map(|_| {
        let api = Arc::clone(&api);
        tokio::spawn(async move { login_from(&api, "198.51.100.1", "anna", "wrong").await })
    });
    let mut looked_at = 0;
    for guess in futures::future::join_all(guesses).await {
        looked_at += i32::from(guess.expect("ended").status == StatusCode::UNAUTHORIZED);
    }
    assert_eq!(looked_at, 5);
}

#[tokio::test]
async fn addresses_are_limited_and_proxies_believed_only_when_configured() {
    let proxy = ("trusted_proxies = []", "trusted_proxies = [\"10.0.0.0/8\"]");
    let api = Api::new(&[
        proxy,
        (
            "registrations_per_address = 20",
            "registrations_per_address = 2",
        ),
        ("refill_seconds = 30", "refill_seconds = 3600"),
    ])
    .await;
    let via = |key: &str, forwarded: &str| {
        let body = json!({ "username": format!("user-{key}"), "password": PASSWORD });
        let headers = [("idempotency-key", key), ("x-forwarded-for", forwarded)];
        post("/api/v1/auth/register", &headers, &body)
    };
    for (key, peer, forwarded, status) in [
        ("1", "10.0.0.1", "198.51.100.1", 201),
        ("2", "10.0.0.2", "203.0.113.9, 198.51.100.1", 201),
        ("3", "10.0.0.1", "198.51.100.1", 429),
        ("4", "10.0.0.1", "198.51.100.2", 201),
        ("5", "192.0.2.1", "198.51.100.3", 201),
        ("6", "192.0.2.1", "198.51.100.4", 201),
        ("7", "192.0.2.1", "198.51.100.5", 429),
    ] {
        let answer = api.send_from(peer, via(key, forwarded)).await;
        assert_eq!(answer.status.as_u16(), status, "{key}: {}", answer.body);
    }
    let told = "SELECT count(*) FROM audit_records WHERE address = '198.51.100.1'";
    assert_eq!(api.count(told).await, 2);
}

#[tokio::test]
async fn a_refresh_token_is_used_once_and_a_second_use_ends_the_family() {
    let api = Api::new(&[]).await;
    let anna = player(&api, "anna").await;
    let first = login(&api, "anna").await.text("refreshToken");
    let answer = refresh(&api, &first).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let second = answer.text("refreshToken");
    assert_ne!(first, second);
    let third = refresh(&api, &second).await.text("refreshToken");
    let access = refresh(&api, &third).await.text("accessToken");
    assert_eq!(reads(&api, &anna, &access).await, StatusCode::NOT_FOUND);

    // The first one was used, and so was its successor: somebody has a copy.
    let reused = refresh(&api, &first).await;
    assert_eq!(
        (reused.status, reused.code()),
        (StatusCode::UNAUTHORIZED, "INVALID_REFRESH_TOKEN")
    );
    let fourth = refresh(&api, &third).await;
    assert_eq!(
        fourth.code(),
        "INVALID_REFRESH_TOKEN",
        "the family has ended"
    );
    assert_eq!(reads(&api, &anna, &access).await, StatusCode::UNAUTHORIZED);
    let audits = "SELECT count(*) FROM audit_records WHERE action = 'auth.refresh-reused'";
    assert_eq!(api.count(audits).await, 1);
    let ended = "SELECT count(*) FROM user_sessions WHERE end_reason = 'REUSE'";
    assert_eq!(api.count(ended).await, 1);
    // Another login is another family.
    let other = login(&api, "anna").await.text("refreshToken");
    assert_eq!(refresh(&api, &other).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_same_refresh_token_at_once_has_one_successor() {
    let api = Arc::new(Api::new(&[]).await);
    player(&api, "anna").await;
    let first = login(&api, "anna").await.text("refreshToken");
    let at_once = (0..6).map(|_| {
        let (api, first) = (Arc::clone(&api), first.clone());
        tokio::spawn(async move { refresh(&api, &first).await })
    });
    let mut successors = Vec::new();
    for answer in futures::future::join_all(at_once).await {
        successors.push(answer.expect("ended").text("refreshToken"));
    }
    successors.dedup();
    assert_eq!(successors.len(), 1);
    assert_eq!(api.count("SELECT count(*) FROM refresh_tokens").await, 2);

    // Later it is a second use.
    sqlx::query("UPDATE refresh_tokens SET replaced_at = replaced_at - interval '11 seconds'")
        .execute(&api.database.pool)
        .await
        .expect("time goes by");
    assert_eq!(refresh(&api, &first).await.code(), "INVALID_REFRESH_TOKEN");
    assert_eq!(
        refresh(&api, &successors[0]).await.code(),
        "INVALID_REFRESH_TOKEN"
    );
}

#[tokio::test]
async fn without_a_grace_the_second_use_ends_the_family_at_once() {
    let api = Api::new(&[("refresh_grace_seconds = 10", "refresh_grace_seconds = 0")]).await;
    player(&api, "anna").await;
    let first = login(&api, "anna").await.text("refreshToken");
    let second = refresh(&api, &first).await.text("refreshToken");
    assert_eq!(refresh(&api, &first).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        refresh(&api, &second).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn times_end_refresh_tokens_and_sessions() {
    let api = Api::new(&[]).await;
    player(&api, "anna").await;
    for update in [
        "UPDATE refresh_tokens SET expires_at = clock_timestamp()",
        "UPDATE user_sessions SET expires_at = clock_timestamp()",
    ] {
        let token = login(&api, "anna").await.text("refreshToken");
        sqlx::query(update)
            .execute(&api.database.pool)
            .await
            .expect("time goes by");
        assert_eq!(
            refresh(&api, &token).await.code(),
            "INVALID_REFRESH_TOKEN",
            "{update}"
        );
    }
    assert_eq!(
        refresh(&api, "made up").await.code(),
        "INVALID_REFRESH_TOKEN"
    );
}

#[tokio::test]
async fn logging_out_ends_the_session() {
    let api = Api::new(&[]).await;
    let anna = player(&api, "anna").await;
    let tokens = login(&api, "anna").await;
    let (access, token) = (tokens.text("accessToken"), tokens.text("refreshToken"));
    assert_eq!(reads(&api, &anna, &access).await, StatusCode::NOT_FOUND);
    let logout = || {
        post(
            "/api/v1/auth/logout",
            &[],
            &json!({ "refreshToken": token }),
        )
    };
    assert_eq!(api.send(logout()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(reads(&api, &anna, &access).await, StatusCode::UNAUTHORIZED);
    assert_eq!(refresh(&api, &token).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        api.send(logout()).await.status,
        StatusCode::NO_CONTENT,
        "nothing to end"
    );
    let audits = "SELECT count(*) FROM audit_records WHERE action = 'auth.logout'";
    assert_eq!(api.count(audits).await, 1);
}

/// A database that is too slow to say whether a session goes on may take what is written a moment later.
#[tokio::test]
async fn who_may_have_been_deactivated_reads_and_changes_nothing() {
    let api = Api::new(&[]).await;
    let anna = player(&api, "anna").await;
    let (_, access) = admin(&api).await;
    let mut slow = api.database.pool.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE user_sessions")
        .execute(&mut *slow)
        .await
        .expect("locked");
    let change = api.send(deactivation(&access, &anna)).await;
    assert_eq!(
        (change.status, change.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE")
    );
    let read = reads_once(&api, &anna, &access).await;
    assert_ne!(read, StatusCode::UNAUTHORIZED);
    slow.rollback().await.expect("over");
    let change = deactivate(&api, &access, &anna).await;
    assert_eq!(change.status, StatusCode::OK, "{}", change.body);
}

#[tokio::test]
async fn a_page_keeps_its_token_in_a_cookie() {
    let api = Api::new(&[(
        "cookie_origins = [\"${MEED_PAGE_ORIGIN:-}\"]",
        "cookie_origins = [\"https://shop.example\"]",
    )])
    .await;
    player(&api, "anna").await;
    let body = json!({ "username": "anna", "password": PASSWORD, "tokenDelivery": "cookie" });
    let answer = api.send(post("/api/v1/auth/login", &[], &body)).await;
    assert!(answer.body.get("refreshToken").is_none(), "{}", answer.body);
    let set = answer.headers["set-cookie"].to_str().unwrap().to_owned();
    for attribute in [
        "HttpOnly",
        "Secure",
        "SameSite=Strict",
        "Path=/api/v1/auth",
        "Max-Age=604800",
    ] {
        assert!(
            set.split("; ").any(|part| part == attribute),
            "{attribute} in {set}"
        );
    }
    let mut cookie = set.split(';').next().unwrap().to_owned();
    let send = |path: &str, cookie: &str, extra: &[(&str, &str)]| {
        let mut headers = vec![("cookie", cookie)];
        headers.extend(extra);
        post(&format!("/api/v1/auth/{path}"), &headers, &json!({}))
    };
    for elsewhere in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        for path in ["refresh", "logout"] {
            let refused = api.send(send(path, &cookie, &[elsewhere])).await;
            assert_eq!(refused.code(), "ORIGIN_NOT_ALLOWED", "{path} {elsewhere:?}");
        }
        let login = post("/api/v1/auth/login", &[elsewhere], &body);
        assert_eq!(api.send(login).await.code(), "ORIGIN_NOT_ALLOWED");
    }
    let mut form = send("refresh", &cookie, &[]);
    form.headers_mut()
        .insert("content-type", "text/plain".parse().unwrap());
    assert_eq!(api.send(form).await.code(), "UNSUPPORTED_MEDIA_TYPE");
    for here in [
        ("origin", "http://127.0.0.1:21000"),
        ("origin", "https://shop.example"),
        ("sec-fetch-site", "same-origin"),
    ] {
        let next = api.send(send("refresh", &cookie, &[here])).await;
        assert_eq!(next.status, StatusCode::OK, "{here:?} {}", next.body);
        assert!(next.body.get("refreshToken").is_none());
        let set = next.headers["set-cookie"].to_str().unwrap();
        cookie = set.split(';').next().unwrap().to_owned();
    }
    let out = api.send(send("logout", &cookie, &[])).await;
    assert!(
        out.headers["set-cookie"]
            .to_str()
            .unwrap()
            .contains("Max-Age=0")
    );
    let after = api.send(send("refresh", &cookie, &[])).await;
    assert_eq!(after.code(), "INVALID_REFRESH_TOKEN");
}

#[tokio::test]
async fn an_admin_registers_staff_and_nobody_else_does() {
    let api = Api::new(&[]).await;
    let (_, admin) = admin(&api).await;
    player(&api, "anna").await;
    let anna = login(&api, "anna").await.text("accessToken");
    let body = json!({ "username": "sue", "password": PASSWORD });
    let staff = |token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k")];
        post("/api/v1/auth/register-staff", &headers, &body)
    };
    let outbox = api.count("SELECT count(*) FROM outbox").await;
    let refused = changes(&api, || staff(&anna)).await;
    assert_eq!(
        (refused.status, refused.code()),
        (StatusCode::FORBIDDEN, "INSUFFICIENT_ROLE")
    );
    let nobody = post(
        "/api/v1/auth/register-staff",
        &[("idempotency-key", "k")],
        &body,
    );
    assert_eq!(api.send(nobody).await.code(), "UNAUTHENTICATED");
    let done = changes(&api, || staff(&admin)).await;
    assert_eq!(
        (done.status, done.text("role").as_str()),
        (StatusCode::CREATED, "staff")
    );
    let again = changes(&api, || staff(&admin)).await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let sue = login(&api, "sue").await;
    assert_eq!(sue.body["roles"], json!(["staff"]));
    let sue = sue.text("accessToken");
    let refused = changes(&api, || staff(&sue)).await;
    assert_eq!(refused.code(), "INSUFFICIENT_ROLE");
    assert_eq!(
        api.count("SELECT count(*) FROM outbox").await,
        outbox,
        "staff has no account"
    );
}

#[tokio::test]
async fn deactivated_users_are_refused_at_once() {
    let api = Api::new(&[]).await;
    let other = Api::on(Arc::clone(&api.database), &[]);
    let (admin_id, admin) = admin(&api).await;
    let anna = player(&api, "anna").await;
    let tokens = login(&api, "anna").await;
    let access = tokens.text("accessToken");
    assert_eq!(reads(&api, &anna, &access).await, StatusCode::NOT_FOUND);
    assert_eq!(
        deactivate(&api, &access, &anna).await.code(),
        "INSUFFICIENT_ROLE"
    );

    let done = deactivate(&api, &admin, &anna).await;
    assert_eq!(
        (done.status, done.text("userId")),
        (StatusCode::OK, anna.clone())
    );
    assert_eq!(reads(&api, &anna, &access).await, StatusCode::UNAUTHORIZED);
    assert_eq!(
        reads(&other, &anna, &access).await,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        refresh(&api, &tokens.text("refreshToken")).await.status,
        StatusCode::UNAUTHORIZED
    );
    let login = login_from(&api, "192.0.2.1", "anna", PASSWORD).await;
    assert_eq!(
        (login.status, login.code()),
        (StatusCode::FORBIDDEN, "USER_DEACTIVATED")
    );
    let wrong = login_from(&api, "192.0.2.1", "anna", "wrong").await;
    assert_eq!(
        wrong.code(),
        "INVALID_CREDENTIALS",
        "told only to who knows the password"
    );
    assert_eq!(deactivate(&api, &admin, &anna).await.body, done.body);
    let audits = "SELECT count(*) FROM audit_records WHERE action = 'user.deactivate'";
    assert_eq!(api.count(audits).await, 1);

    let nobody = Uuid::new_v4().to_string();
    assert_eq!(
        deactivate(&api, &admin, &nobody).await.code(),
        "USER_NOT_FOUND"
    );
    assert_eq!(deactivate(&api, &admin, "x").await.code(), "USER_NOT_FOUND");
    let last = deactivate(&api, &admin, &admin_id.to_string()).await;
    assert_eq!(
        (last.status, last.code()),
        (StatusCode::CONFLICT, "LAST_ADMIN")
    );
}

#[tokio::test]
async fn hashes_follow_the_configured_costs() {
    let api = Api::new(&[]).await;
    player(&api, "anna").await;
    let dearer = Api::on(
        Arc::clone(&api.database),
        &[("parallelism = 1", "parallelism = 2")],
    );
    login(&dearer, "anna").await;
    let renewed = "SELECT count(*) FROM users WHERE password_hash LIKE '%m=64,t=1,p=2$%'";
    assert_eq!(api.count(renewed).await, 1);
    login(&api, "anna").await;
}
