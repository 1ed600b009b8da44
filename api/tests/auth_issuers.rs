//! Tokens of other issuers: a server with the shape of an OpenID provider, whose keys change while
//! it serves.

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, http::StatusCode, routing::get as route};
use chrono::Utc;
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{KeyAlgorithm, PublicKeyUse},
};
use serde_json::{Value, json};
use support::{Api, get, keys::Key};

/// How long the API waits for keys: those that take longer are asked for again.
const FETCHED_WITHIN: Duration = Duration::from_secs(3);

/// An OpenID provider.
struct Provider {
    address: String,
    keys: Arc<Mutex<Value>>,
    fetches: Arc<AtomicUsize>,
    server: tokio::task::JoinHandle<()>,
}

impl Provider {
    async fn start(keys: &[&Key]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let published = Arc::new(Mutex::new(json!({})));
        let fetches = Arc::new(AtomicUsize::new(0));
        let description = json!({
            "issuer": address,
            "authorization_endpoint": format!("{address}/authorize"),
            "token_endpoint": format!("{address}/token"),
            "jwks_uri": format!("{address}/keys"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
        });
        let (shown, counted) = (Arc::clone(&published), Arc::clone(&fetches));
        let router = Router::new()
            .route(
                "/.well-known/openid-configuration",
                route(async move || axum::Json(description.clone())),
            )
            .route(
                "/keys",
                route(async move || {
                    counted.fetch_add(1, Ordering::SeqCst);
                    axum::Json(shown.lock().expect("no panic").clone())
                }),
            );
        let server =
            tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
        let provider = Self {
            address,
            keys: published,
            fetches,
            server,
        };
        provider.publish(keys);
        provider
    }

    fn publish(&self, keys: &[&Key]) {
        let keys: Vec<Value> = keys
            .iter()
            .map(|key| serde_json::to_value(&key.public).expect("JSON"))
            .chain([json!({ "kty": "unheard-of", "kid": "x" })])
            .collect();
        *self.keys.lock().expect("no panic") = json!({ "keys": keys });
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    /// An API that trusts it and has read its keys; `keys` says where they are, if not where it
    /// says itself.
    async fn api(&self, keys: &str, more: &[(&str, &str)]) -> Api {
        let strange = Key::ed("strange").sign(&self.claims(&json!({})));
        // Where the machine stalls, they do not come in time: then another one is taken.
        for _ in 0..20 {
            let api = self.api_without_keys(keys, more).await;
            let (fetches, began) = (self.fetches(), Instant::now());
            let status = ask(&api, &strange).await.0;
            if status != StatusCode::SERVICE_UNAVAILABLE && began.elapsed() < FETCHED_WITHIN {
                return api;
            }
            self.fetches.store(fetches, Ordering::SeqCst);
        }
        panic!("its keys never came in time");
    }

    async fn api_without_keys(&self, keys: &str, more: &[(&str, &str)]) -> Api {
        let issuer = format!(
            "issuers = [{{ issuer = {:?}, audience = \"meed-api\"{keys} }}]",
            self.address
        );
        let mut replace = vec![("issuers = []", issuer.as_str())];
        replace.extend(more);
        Api::new(&replace).await
    }

    fn claims(&self, changes: &Value) -> Value {
        let now = Utc::now().timestamp();
        let mut claims = json!({
            "iss": self.address, "aud": "meed-api", "sub": "C1", "scope": "rewards.read",
            "roles": ["player"], "sid": "a session of theirs", "iat": now, "nbf": now, "exp": now + 300,
        });
        for (name, value) in changes.as_object().expect("changes") {
            claims[name] = value.clone();
        }
        claims
    }
}

/// 404 when the token counts: there is no such account.
async fn ask(api: &Api, token: &str) -> (StatusCode, String) {
    let answer = api.send(get("/api/v1/rewards/C1", token)).await;
    (answer.status, answer.text("detail"))
}

/// Asks until the status is this one. Keys that do not come in time are asked for again a second
/// later.
async fn until(api: &Api, token: &str, status: StatusCode) {
    for _ in 0..60 {
        if ask(api, token).await.0 == status {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    panic!("it is never answered with {status}");
}

#[track_caller]
fn counts(answer: &(StatusCode, String)) {
    assert_eq!(answer.0, StatusCode::NOT_FOUND, "{}", answer.1);
}

#[track_caller]
fn refused(answer: &(StatusCode, String), why: &str) {
    assert_eq!(answer.0, StatusCode::UNAUTHORIZED, "{}", answer.1);
    assert!(answer.1.contains(why), "{} is not {why}", answer.1);
}

#[tokio::test]
async fn keys_of_three_kinds_are_found_by_discovery_address_and_file() {
    let (rsa, ec, ed) = (Key::rsa("rsa", 2_048), Key::ec("ec"), Key::ed("ed"));
    let provider = Provider::start(&[&rsa, &ec, &ed]).await;
    let file = std::env::temp_dir().join(format!("meed-jwks-{}", uuid::Uuid::new_v4()));
    std::fs::write(&file, provider.keys.lock().expect("no panic").to_string()).expect("written");
    let url = format!(", jwks_url = \"{}/keys\"", provider.address);
    let in_file = format!(", jwks_file = {:?}", file.display().to_string());
    for place in ["", url.as_str(), in_file.as_str()] {
        let api = provider.api(place, &[]).await;
        for key in [&rsa, &ec, &ed] {
            counts(&ask(&api, &key.sign(&provider.claims(&json!({})))).await);
            let list = json!({ "aud": ["elsewhere", "meed-api"] });
            counts(&ask(&api, &key.sign(&provider.claims(&list))).await);
        }
    }
    assert_eq!(provider.fetches(), 2, "one for each api that asks");
    std::fs::remove_file(&file).expect("removed");
}

#[tokio::test]
async fn what_a_token_says_is_checked() {
    let ed = Key::ed("ed");
    let provider = Provider::start(&[&ed]).await;
    let api = provider.api("", &[]).await;
    let now = Utc::now().timestamp();
    for (changes, why) in [
        (
            json!({ "iss": "https://elsewhere.example" }),
            "issuer is not trusted",
        ),
        (json!({ "iss": [provider.address] }), "names no issuer"),
        (json!({ "aud": "elsewhere" }), "another audience"),
        (json!({ "aud": ["elsewhere"] }), "another audience"),
        (json!({ "aud": null }), ""),
        (json!({ "exp": now - 31 }), "expired"),
        (json!({ "exp": null }), ""),
        (json!({ "nbf": now + 60 }), "not valid yet"),
    ] {
        refused(&ask(&api, &ed.sign(&provider.claims(&changes))).await, why);
    }
    counts(
        &ask(
            &api,
            &ed.sign(&provider.claims(&json!({ "exp": now - 20, "nbf": now + 20 }))),
        )
        .await,
    );
    let header = |change: &dyn Fn(&mut Header)| {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some("ed".to_owned());
        change(&mut header);
        ed.sign_with(&header, &provider.claims(&json!({})))
    };
    for (kind, right) in [
        (None, true),
        (Some("JWT"), true),
        (Some("at+jwt"), true),
        (Some("application/at+JWT"), true),
        (Some("dpop+jwt"), false),
        (Some("logout+jwt"), false),
    ] {
        let token = header(&|header| header.typ = kind.map(str::to_owned));
        let answer = ask(&api, &token).await;
        if right {
            counts(&answer);
        } else {
            refused(&answer, "type");
        }
    }
    let critical = header(&|header| header.crit = Some(vec!["exp".to_owned()]));
    refused(&ask(&api, &critical).await, "critical");
    let long = ed.sign(&provider.claims(&json!({ "padding": "x".repeat(9_000) })));
    refused(&ask(&api, &long).await, "too long");
    let without_id = header(&|header| header.kid = None);
    counts(&ask(&api, &without_id).await);
}

#[tokio::test]
async fn keys_are_for_their_own_algorithm_and_for_signatures() {
    let (rsa, weak, ec) = (
        Key::rsa("rsa", 2_048),
        Key::rsa("weak", 1_024),
        Key::ec("ec"),
    );
    let mut encrypts = Key::ed("encrypts");
    encrypts.public.common.public_key_use = Some(PublicKeyUse::Encryption);
    let mut named = Key::rsa("named", 2_048);
    named.public.common.key_algorithm = Some(KeyAlgorithm::RS512);
    let provider = Provider::start(&[&rsa, &weak, &ec, &encrypts, &named]).await;
    let api = provider.api("", &[]).await;
    let claims = provider.claims(&json!({}));
    counts(&ask(&api, &rsa.sign(&claims)).await);
    refused(&ask(&api, &weak.sign(&claims)).await, "key is not one");
    refused(&ask(&api, &encrypts.sign(&claims)).await, "key is not one");
    refused(
        &ask(&api, &named.sign(&claims)).await,
        "algorithm is not that of its key",
    );
    let mut crossed = Header::new(Algorithm::ES256);
    crossed.kid = Some("rsa".to_owned());
    refused(
        &ask(&api, &ec.sign_with(&crossed, &claims)).await,
        "algorithm is not that of its key",
    );
    // HMAC with what is public, and no signature at all.
    let public = serde_json::to_vec(&rsa.public).expect("JSON");
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("rsa".to_owned());
    let secret = EncodingKey::from_secret(&public);
    let token = jsonwebtoken::encode(&header, &claims, &secret).expect("signed");
    refused(&ask(&api, &token).await, "algorithm is not accepted");
    let signed = rsa.sign(&claims);
    let body = signed.split('.').nth(1).expect("claims");
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    refused(&ask(&api, &format!("{none}.{body}.")).await, "not a JWT");
}

#[tokio::test]
async fn keys_change_while_serving_and_unknown_ones_are_no_flood() {
    let (old, new) = (Key::ed("old"), Key::ed("new"));
    let provider = Provider::start(&[&old]).await;
    let quick = [("unknown_key_seconds = 60", "unknown_key_seconds = 1")];
    let api = Arc::new(provider.api("", &quick).await);
    let patient = Arc::new(provider.api("", &[]).await);
    let claims = provider.claims(&json!({}));
    for api in [&api, &patient] {
        counts(&ask(api, &old.sign(&claims)).await);
    }
    assert_eq!(provider.fetches(), 2);
    provider.publish(&[&old, &new]);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let began = Instant::now();
    until(&api, &new.sign(&claims), StatusCode::NOT_FOUND).await;
    let fetches = provider.fetches();
    assert!(
        fetches == 3 || began.elapsed() >= FETCHED_WITHIN,
        "read again for the unknown one: {fetches}"
    );
    // Before a minute is over it is not read again, however many come.
    let flood = (0..50).map(|_| {
        let (patient, token) = (Arc::clone(&patient), new.sign(&claims));
        tokio::spawn(async move { ask(&patient, &token).await })
    });
    for answer in futures::future::join_all(flood).await {
        refused(&answer.expect("ended"), "key is not one");
    }
    counts(&ask(&patient, &old.sign(&claims)).await);
    assert_eq!(provider.fetches(), fetches);
}

#[tokio::test]
async fn keys_are_read_again_at_intervals_and_count_while_the_issuer_is_away() {
    let (old, new) = (Key::ed("old"), Key::ed("new"));
    let provider = Provider::start(&[&old]).await;
    let quick = [
        ("refresh_seconds = 600", "refresh_seconds = 1"),
        ("unknown_key_seconds = 60", "unknown_key_seconds = 1"),
    ];
    let api = provider.api("", &quick).await;
    let claims = provider.claims(&json!({}));
    counts(&ask(&api, &old.sign(&claims)).await);
    provider.publish(&[&new]);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    until(&api, &old.sign(&claims), StatusCode::UNAUTHORIZED).await;
    refused(&ask(&api, &old.sign(&claims)).await, "key is not one");
    counts(&ask(&api, &new.sign(&claims)).await);
    provider.server.abort();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    counts(&ask(&api, &new.sign(&claims)).await);
}

#[tokio::test]
async fn a_document_without_end_or_of_another_issuer_is_not_believed() {
    let ed = Key::ed("ed");
    let provider = Provider::start(&[&ed]).await;
    let padding = "x".repeat(300_000);
    *provider.keys.lock().expect("no panic") = json!({ "keys": [ed.public], "padding": padding });
    let api = provider.api_without_keys("", &[]).await;
    let token = ed.sign(&provider.claims(&json!({})));
    assert_eq!(ask(&api, &token).await.0, StatusCode::SERVICE_UNAVAILABLE);
    // The same server under another name, as which it does not describe itself.
    let other = provider.address.replace("127.0.0.1", "localhost");
    let issuer = format!("issuers = [{{ issuer = {other:?}, audience = \"meed-api\" }}]");
    let api = Api::new(&[("issuers = []", &issuer)]).await;
    provider.publish(&[&ed]);
    let token = ed.sign(&provider.claims(&json!({ "iss": other })));
    assert_eq!(ask(&api, &token).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

/// An issuer may keep roles where they are not looked for: its players must not pass for clients.
#[tokio::test]
async fn a_token_without_roles_is_a_players_unless_the_configuration_says_otherwise() {
    let key = Key::ed("ed");
    let provider = Provider::start(&[&key]).await;
    let own = key.sign(&provider.claims(&json!({ "roles": [] })));
    let others = key.sign(&provider.claims(&json!({ "roles": [], "sub": "C2" })));
    let api = provider.api("", &[]).await;
    counts(&ask(&api, &own).await);
    assert_eq!(ask(&api, &others).await.0, StatusCode::FORBIDDEN);
    let of_clients = provider.api(", without_roles = \"client\"", &[]).await;
    counts(&ask(&of_clients, &others).await);
}
