//! Tokens for clients: RFC 6749, section 4.4, and the metadata of RFC 8414.

mod support;

use std::sync::Arc;

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use support::{Answer, Api, get};

const SECRET: &str = "s3cret-of-the-client";

async fn client(api: &Api, id: &str, merchants: Option<&[String]>) {
    let hash = api
        .app
        .passwords
        .hash(SECRET.to_owned())
        .await
        .expect("a hash");
    let mut conn = api.database.pool.acquire().await.expect("a connection");
    let scopes = ["rewards.read".to_owned(), "rewards.redeem".to_owned()];
    let added = store::clients::add(&mut conn, id, &hash, &scopes, merchants).await;
    assert!(added.expect("added"));
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}")))
}

async fn ask(api: &Api, authorization: Option<&str>, form: &str) -> Answer {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri("/oauth/token")
        .header("content-type", "application/x-www-form-urlencoded");
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    api.send(
        request
            .body(Body::from(form.to_owned()))
            .expect("a request"),
    )
    .await
}

#[track_caller]
fn refused(answer: &Answer, status: u16, error: &str) {
    assert_eq!(
        (answer.status.as_u16(), answer.text("error").as_str()),
        (status, error)
    );
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(
        answer.headers.contains_key("www-authenticate"),
        status == 401
    );
}

#[tokio::test]
async fn a_token_says_what_the_client_may_do_and_for_whom() {
    let api = Api::new(&[]).await;
    client(&api, "partner-1", Some(&["M1".to_owned()])).await;
    let auth = basic("partner-1", SECRET);
    let answer = ask(
        &api,
        Some(&auth),
        "grant_type=client_credentials&unheard=of",
    )
    .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.body["token_type"], "Bearer");
    assert_eq!(answer.body["expires_in"], 900);
    assert_eq!(answer.body["scope"], "rewards.read rewards.redeem");
    let token = answer.text("access_token");
    let claims: Value = {
        let part = token.split('.').nth(1).expect("claims");
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
    };
    assert_eq!(claims["sub"], "partner-1");
    assert_eq!(claims["scope"], "rewards.read rewards.redeem");
    assert_eq!(claims["roles"], json!([]));
    assert_eq!(claims["merchants"], json!(["M1"]));
    // It counts at the routes, and binds the client to its merchants.
    let read = api.send(get("/api/v1/rewards/C1", &token)).await;
    assert_eq!(read.code(), "CUSTOMER_NOT_FOUND");
    let bearer = format!("Bearer {token}");
    let body = json!({
        "redeemRequestId": "R1", "customerId": "C1", "requestedPoints": 1,
        "merchantContext": { "merchantId": "M2", "orderId": "O1" }
    });
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k")];
    let other = api
        .send(support::post("/api/v1/redeem", &headers, &body))
        .await;
    assert_eq!(other.code(), "MERCHANT_NOT_ALLOWED");

    let form = format!(
        "grant_type=client_credentials&scope=rewards.read&client_id=partner-1&client_secret={SECRET}"
    );
    let narrow = ask(&api, None, &form).await;
    assert_eq!(narrow.body["scope"], "rewards.read", "{}", narrow.body);
    client(&api, "everywhere", None).await;
    let all = ask(
        &api,
        Some(&basic("everywhere", SECRET)),
        "grant_type=client_credentials",
    )
    .await;
    let part = all.text("access_token");
    let part = BASE64_URL_SAFE_NO_PAD.decode(part.split('.').nth(1).expect("claims"));
    let claims: Value = serde_json::from_slice(&part.expect("base64")).expect("JSON");
    assert!(claims.get("merchants").is_none(), "{claims}");
}

#[tokio::test]
async fn refusals_are_those_of_the_rfc() {
    let api = Api::new(&[]).await;
    client(&api, "p", None).await;
    let grant = "grant_type=client_credentials";
    let right = basic("p", SECRET);
    for wrong in [
        basic("p", "wrong"),
        basic("q", SECRET),
        basic("p\0", SECRET),
        "Basic ?".to_owned(),
        "Bearer x".to_owned(),
    ] {
        refused(&ask(&api, Some(&wrong), grant).await, 401, "invalid_client");
    }
    refused(&ask(&api, None, grant).await, 401, "invalid_client");
    let other = format!("{grant}&client_id=q");
    refused(
        &ask(&api, Some(&right), &other).await,
        401,
        "invalid_client",
    );
    let both = format!("{grant}&client_id=p&client_secret={SECRET}");
    refused(
        &ask(&api, Some(&right), &both).await,
        400,
        "invalid_request",
    );
    let twice = format!("{grant}&{grant}");
    refused(
        &ask(&api, Some(&right), &twice).await,
        400,
        "invalid_request",
    );
    refused(&ask(&api, Some(&right), "").await, 400, "invalid_request");
    refused(
        &ask(&api, Some(&right), "grant_type=password").await,
        400,
        "unsupported_grant_type",
    );
    for scope in ["callbacks.write", "rewards.read+callbacks.write", "%22"] {
        let form = format!("{grant}&scope={scope}");
        refused(&ask(&api, Some(&right), &form).await, 400, "invalid_scope");
    }
    let json = support::post("/oauth/token", &[("authorization", &right)], &json!({}));
    refused(&api.send(json).await, 400, "invalid_request");
}

#[tokio::test]
async fn a_secret_that_was_right_is_not_hashed_again_but_a_new_one_counts_at_once() {
    let api = Api::new(&[]).await;
    client(&api, "p", None).await;
    let (right, grant) = (basic("p", SECRET), "grant_type=client_credentials");
    assert_eq!(ask(&api, Some(&right), grant).await.status, StatusCode::OK);
    let (hash,): (String,) = sqlx::query_as("SELECT secret_hash FROM clients")
        .fetch_one(&api.database.pool)
        .await
        .expect("a hash");
    assert!(api.app.passwords.was_right("p", SECRET, &hash));
    assert!(!api.app.passwords.was_right("p", "wrong", &hash));
    refused(
        &ask(&api, Some(&basic("p", "wrong")), grant).await,
        401,
        "invalid_client",
    );

    let mut conn = api.database.pool.acquire().await.expect("a connection");
    let other = api
        .app
        .passwords
        .hash("another secret".to_owned())
        .await
        .expect("a hash");
    assert!(
        store::clients::rotate_secret(&mut conn, "p", &other)
            .await
            .expect("done")
    );
    refused(&ask(&api, Some(&right), grant).await, 401, "invalid_client");
    let rotated = basic("p", "another+secret");
    assert_eq!(
        ask(&api, Some(&rotated), grant).await.status,
        StatusCode::OK
    );
    assert!(store::clients::disable(&mut conn, "p").await.expect("done"));
    refused(
        &ask(&api, Some(&rotated), grant).await,
        401,
        "invalid_client",
    );
}

#[tokio::test]
async fn wrong_secrets_are_slowed_down_over_all_replicas() {
    let slow = [("refill_seconds = 30", "refill_seconds = 3600")];
    let api = Api::new(&slow).await;
    let other = Api::on(Arc::clone(&api.database), &slow);
    client(&api, "p", None).await;
    let grant = "grant_type=client_credentials";
    for guess in 0..5 {
        let replica = if guess % 2 == 0 { &api } else { &other };
        refused(
            &ask(replica, Some(&basic("p", "wrong")), grant).await,
            401,
            "invalid_client",
        );
    }
    for replica in [&api, &other] {
        let answer = ask(replica, Some(&basic("p", SECRET)), grant).await;
        assert_eq!(answer.code(), "TOO_MANY_ATTEMPTS");
        assert!(answer.headers.contains_key("retry-after"));
    }
    // A client that is not known is treated the same.
    for _ in 0..5 {
        refused(
            &ask(&api, Some(&basic("q", "wrong")), grant).await,
            401,
            "invalid_client",
        );
    }
    let answer = ask(&api, Some(&basic("q", "wrong")), grant).await;
    assert_eq!(answer.code(), "TOO_MANY_ATTEMPTS");
}

#[tokio::test]
async fn keys_of_files_sign_and_are_published_and_the_first_one_signs() {
    let directory = std::env::temp_dir().join(format!("meed-own-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&directory).expect("a directory");
    let pem = |seed: u8| {
        let mut der = vec![
            0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
        ];
        der.extend([seed; 32]);
        let line = BASE64_STANDARD.encode(der);
        format!("-----BEGIN PRIVATE KEY-----\n{line}\n-----END PRIVATE KEY-----\n")
    };
    let ec = {
        use p256::pkcs8::{EncodePrivateKey, LineEnding};
        let key = p256::SecretKey::from_slice(&[7; 32]).expect("a key");
        key.to_pkcs8_pem(LineEnding::LF).expect("PEM").to_string()
    };
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("written");
        format!("{:?}", path.display().to_string())
    };
    let (new, old, ec) = (file("new", &pem(2)), file("old", &pem(1)), file("ec", &ec));
    let seed = "signing_seed = \"dev-own-signing-seed\"";
    let with = |files: &str| format!("key_files = [{files}]");
    let before = Api::new(&[(seed, &with(&old))]).await;
    client(&before, "p", None).await;
    let during = Api::on(
        Arc::clone(&before.database),
        &[(seed, &with(&format!("{new}, {old}, {ec}")))],
    );
    let after = Api::on(Arc::clone(&before.database), &[(seed, &with(&ec))]);
    let ask = async |api: &Api| {
        let answer = ask(
            api,
            Some(&basic("p", SECRET)),
            "grant_type=client_credentials",
        )
        .await;
        answer.text("access_token")
    };
    let (old, new, ec) = (ask(&before).await, ask(&during).await, ask(&after).await);
    let reads =
        async |api: &Api, token: &str| api.send(get("/api/v1/rewards/C1", token)).await.status;
    for token in [&old, &new, &ec] {
        assert_eq!(reads(&during, token).await, StatusCode::NOT_FOUND);
    }
    assert_eq!(reads(&before, &new).await, StatusCode::UNAUTHORIZED);
    assert_eq!(
        reads(&after, &old).await,
        StatusCode::UNAUTHORIZED,
        "it was withdrawn"
    );
    let published = during.send(get("/.well-known/jwks.json", "x")).await.body;
    let keys = published["keys"].as_array().expect("keys");
    assert_eq!(keys.len(), 4, "with that of the dev issuer");
    assert!(
        keys.iter()
            .all(|key| key["use"] == "sig" && key.get("d").is_none()),
        "{published}"
    );
    std::fs::remove_dir_all(&directory).expect("removed");
}

#[tokio::test]
async fn the_metadata_leads_to_the_token() {
    let api = Api::new(&[]).await;
    let metadata = api
        .send(get("/.well-known/oauth-authorization-server", "x"))
        .await
        .body;
    assert_eq!(metadata["issuer"], "http://127.0.0.1:21000");
    assert_eq!(
        metadata["token_endpoint"],
        "http://127.0.0.1:21000/oauth/token"
    );
    assert_eq!(
        metadata["jwks_uri"],
        "http://127.0.0.1:21000/.well-known/jwks.json"
    );
    assert_eq!(
        metadata["grant_types_supported"],
        json!(["client_credentials"])
    );
}
