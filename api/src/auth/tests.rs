use std::path::Path;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::Utc;
use jsonwebtoken::{EncodingKey, Header, jwk::AlgorithmParameters};
use serde_json::{Value, json};

use super::*;
use crate::auth::dev::Grant;

fn settings(replace: &[(&str, &str)]) -> Settings {
    let mut text = include_str!("../../../meed.toml").to_owned();
    for (old, new) in replace {
        assert!(text.contains(old), "meed.toml has {old}");
        text = text.replace(old, new);
    }
    Settings::parse(Path::new("meed.toml"), &text, |_| Ok(None)).expect("it is right")
}

struct Setup {
    dev: DevIssuer,
    authenticator: Authenticator,
}

fn setup() -> Setup {
    let settings = settings(&[]);
    let dev = settings.auth.dev_issuer().expect("turned on");
    let dev = DevIssuer::new(dev, &settings.api.public_url).expect("a key");
    let authenticator = Authenticator::new(&settings, Some(&dev), None).expect("it is made");
    Setup { dev, authenticator }
}

impl Setup {
    /// The claims of a good token, with one of them changed, or left out when it is null.
    fn claims(&self, name: &str, value: Value) -> Value {
        let now = Utc::now().timestamp();
        let mut claims = json!({
            "iss": self.dev.issuer(), "aud": self.dev.audience(), "sub": "me",
            "scope": "rewards.read", "iat": now, "nbf": now, "exp": now + 60,
        });
        if value.is_null() {
            claims.as_object_mut().expect("an object").remove(name);
        } else {
            claims[name] = value;
        }
        claims
    }

    async fn refusal(&self, token: &str) -> String {
        match self.authenticator.check(token).await {
            Err(ApiError::InvalidToken(why)) => why.to_owned(),
            other => panic!("not refused: {other:?}"),
        }
    }

    async fn refusal_with(&self, name: &str, value: Value) -> String {
        let token = self.dev.sign(&self.claims(name, value)).expect("signed");
        self.refusal(&token).await
    }
}

#[tokio::test]
async fn a_token_says_who_asks_and_what_for() {
    let setup = setup();
    let grant = Grant {
        sub: "C1".to_owned(),
        scope: "rewards.read rewards.redeem".to_owned(),
        roles: vec!["player".to_owned(), "unheard-of".to_owned()],
        merchants: Some(vec!["M1".to_owned()]),
    };
    let token = setup.dev.token(&grant).expect("signed");
    let identity = setup.authenticator.check(&token).await.expect("it counts");
    assert_eq!(identity.subject, "C1");
    assert_eq!(identity.client(), "http://127.0.0.1:21000 C1");
    assert!(identity.has_scope(Scope::RewardsRead) && identity.has_scope(Scope::RewardsRedeem));
    assert!(!identity.has_scope(Scope::CallbacksWrite));
    let customer = |id: &str| CustomerId::new(id).expect("an id");
    assert!(
        identity.reaches_customer(&customer("C1")) && !identity.reaches_customer(&customer("C2"))
    );
    let merchant = |id: &str| MerchantId::new(id).expect("an id");
    assert!(
        identity.reaches_merchant(&merchant("M1")) && !identity.reaches_merchant(&merchant("M2"))
    );
}

#[tokio::test]
async fn staff_and_untied_clients_reach_everybody() {
    let setup = setup();
    for roles in [
        vec![],
        vec!["staff"],
        vec!["Admin"],
        vec!["player", "admin"],
        vec!["unheard-of", "STAFF"],
    ] {
        let roles = roles.into_iter().map(str::to_owned).collect();
        let grant = Grant {
            sub: "me".to_owned(),
            roles,
            ..Grant::default()
        };
        let token = setup.dev.token(&grant).expect("signed");
        let identity = setup.authenticator.check(&token).await.expect("it counts");
        assert!(identity.reaches_customer(&CustomerId::new("C2").expect("an id")));
        assert!(identity.reaches_merchant(&MerchantId::new("M2").expect("an id")));
    }
}

#[tokio::test]
async fn a_role_that_is_not_known_opens_nothing() {
    let setup = setup();
    for role in ["player", "Player", "customer", "staff-of-another", ""] {
        let grant = Grant {
            sub: "C1".to_owned(),
            roles: vec![role.to_owned()],
            ..Grant::default()
        };
        let token = setup.dev.token(&grant).expect("signed");
        let identity = setup.authenticator.check(&token).await.expect("it counts");
        let reaches = |id| identity.reaches_customer(&CustomerId::new(id).expect("an id"));
        assert_eq!((reaches("C1"), reaches("C2")), (true, false), "{role:?}");
    }
}

#[tokio::test]
async fn times_issuer_and_audience_are_checked() {
    let setup = setup();
    let now = Utc::now().timestamp();
    // 30 seconds of clock skew are allowed.
    let with = |name: &'static str, value| setup.refusal_with(name, value);
    assert_eq!(with("exp", json!(now - 31)).await, "it has expired");
    assert_eq!(with("nbf", json!(now + 40)).await, "it is not valid yet");
    assert_eq!(
        with("iss", json!("https://elsewhere")).await,
        "its issuer is not trusted"
    );
    assert_eq!(
        with("aud", json!("elsewhere")).await,
        "it is for another audience"
    );
    for claim in ["exp", "aud", "sub"] {
        let why = with(claim, Value::Null).await;
        assert!(why.contains("claim"), "without {claim}: {why}");
    }
    assert_eq!(with("iss", Value::Null).await, "it names no issuer");
    let fresh = setup
        .dev
        .sign(&setup.claims("exp", json!(now - 20)))
        .expect("signed");
    assert!(
        setup.authenticator.check(&fresh).await.is_ok(),
        "within the clock skew"
    );
}

#[tokio::test]
async fn a_tie_that_cannot_be_read_is_not_taken_for_none() {
    let setup = setup();
    for merchants in [Value::Null, json!("M1"), json!([1])] {
        let mut claims = setup.claims("sub", json!("me"));
        claims["merchants"] = merchants;
        let token = setup.dev.sign(&claims).expect("signed");
        let why = setup.refusal(&token).await;
        assert_eq!(why, "its claims cannot be read", "{claims}");
    }
    let nowhere = setup.claims("merchants", json!([]));
    let token = setup.dev.sign(&nowhere).expect("signed");
    let identity = setup.authenticator.check(&token).await.expect("it counts");
    assert!(!identity.reaches_merchant(&MerchantId::new("M1").expect("an id")));
}

#[tokio::test]
async fn a_subject_is_one_that_can_be_kept() {
    let setup = setup();
    for subject in ["", "a\0b", "a\nb", &"a".repeat(513)] {
        let why = setup.refusal_with("sub", json!(subject)).await;
        assert_eq!(why, "its subject cannot be used", "{subject:?}");
    }
    let long = setup.claims("sub", json!("\u{fc}".repeat(128)));
    let token = setup.dev.sign(&long).expect("signed");
    assert!(setup.authenticator.check(&token).await.is_ok());
}

#[tokio::test]
async fn a_token_without_a_signature_does_not_count() {
    let setup = setup();
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = part(&setup.claims("sub", json!("me")));
    for algorithm in ["none", "None", "NONE"] {
        let header = part(&json!({ "alg": algorithm, "typ": "JWT", "kid": "meed-dev" }));
        assert_eq!(
            setup.refusal(&format!("{header}.{claims}.")).await,
            "it is not a JWT"
        );
    }
    let header = part(&json!({ "alg": "EdDSA", "typ": "JWT", "kid": "meed-dev" }));
    setup.refusal(&format!("{header}.{claims}.")).await;
    let token = setup
        .dev
        .sign(&setup.claims("sub", json!("me")))
        .expect("signed");
    let (signed, _) = token.rsplit_once('.').expect("three parts");
    setup.refusal(signed).await;
    setup.refusal("").await;
    let other = part(&setup.claims("sub", json!("somebody else")));
    let mut parts: Vec<&str> = token.split('.').collect();
    parts[1] = &other;
    assert_eq!(
        setup.refusal(&parts.join(".")).await,
        "its signature does not match"
    );
}

#[tokio::test]
async fn the_public_key_is_no_secret_to_sign_with() {
    let setup = setup();
    let jwks = setup.dev.jwks();
    let AlgorithmParameters::OctetKeyPair(public) = &jwks.keys[0].algorithm else {
        panic!("an Ed25519 key");
    };
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(&public.x).expect("base64");
    for secret in [bytes.as_slice(), public.x.as_bytes()] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("meed-dev".to_owned());
        let claims = setup.claims("sub", json!("me"));
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret));
        let why = setup.refusal(&token.expect("signed")).await;
        assert_eq!(why, "its algorithm is not accepted");
    }
}

#[tokio::test]
async fn a_key_of_somebody_else_does_not_count() {
    let ours = setup();
    let theirs = settings(&[("\"dev-signing-seed\"", "\"another-seed\"")]);
    let theirs = DevIssuer::new(theirs.auth.dev_issuer().expect("on"), ours.dev.issuer());
    let token = theirs
        .expect("a key")
        .sign(&ours.claims("sub", json!("me")))
        .expect("signed");
    assert_eq!(ours.refusal(&token).await, "its signature does not match");
}

#[tokio::test]
async fn keys_are_read_again_for_one_that_is_not_known() {
    let directory = std::env::temp_dir().join(format!("meed-keys-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&directory).expect("a directory");
    let file = directory.join("keys.json");
    std::fs::write(&file, r#"{"keys": [{"kty": "unheard-of"}]}"#).expect("written");
    let issuer = format!(
        "issuers = [{{ issuer = \"http://127.0.0.1:21000\", audience = \"meed\", jwks_file = {:?} }}]",
        file.display()
    );
    let settings = settings(&[("issuers = []", &issuer)]);
    let authenticator = Authenticator::new(&settings, None, None).expect("it is made");
    let Setup { dev, .. } = setup();
    let token = dev
        .token(&Grant {
            sub: "me".to_owned(),
            ..Grant::default()
        })
        .expect("signed");
    std::fs::write(&file, serde_json::to_vec(&dev.jwks()).expect("JSON")).expect("written");
    assert!(authenticator.check(&token).await.is_ok());
    std::fs::remove_dir_all(&directory).expect("removed");
}

#[tokio::test]
async fn keys_out_of_reach_are_not_the_clients_fault() {
    boot::process::install_crypto();
    let issuer = "issuers = [{ issuer = \"http://127.0.0.1:21000\", audience = \"meed\", \
                  jwks_url = \"http://127.0.0.1:1/keys\" }]";
    let settings = settings(&[("issuers = []", issuer)]);
    let authenticator = Authenticator::new(&settings, None, None).expect("it is made");
    let Setup { dev, .. } = setup();
    let token = dev
        .token(&Grant {
            sub: "me".to_owned(),
            ..Grant::default()
        })
        .expect("signed");
    let answer = authenticator.check(&token).await;
    assert!(
        matches!(answer, Err(ApiError::KeysUnavailable)),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_token_that_was_checked_before_counts_no_longer_than_its_time() {
    let setup = setup();
    let mut tries = 0;
    // With the clock skew it counts for five seconds more, of which the last one is counted whole.
    // A machine that stands still may leave nothing of them: then another one is taken.
    let token = loop {
        let claims = setup.claims("exp", json!(Utc::now().timestamp() - 25));
        let token = setup.dev.sign(&claims).expect("signed");
        let first = setup.authenticator.check(&token).await;
        let second = setup.authenticator.check(&token).await;
        if let (Ok(first), Ok(second)) = (&first, &second) {
            assert_eq!((&*first.subject, &*second.subject), ("me", "me"));
            break token;
        }
        tries += 1;
        assert!(tries < 10, "it does not count: {first:?}, {second:?}");
    };
    tokio::time::sleep(Duration::from_millis(6_100)).await;
    assert_eq!(setup.refusal(&token).await, "it has expired");
}

#[tokio::test]
async fn a_token_that_was_checked_before_counts_no_longer_than_its_key() {
    let directory = std::env::temp_dir().join(format!("meed-keys-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&directory).expect("a directory");
    let file = directory.join("keys.json");
    let Setup { dev, .. } = setup();
    std::fs::write(&file, serde_json::to_vec(&dev.jwks()).expect("JSON")).expect("written");
    let issuer = format!(
        "issuers = [{{ issuer = \"http://127.0.0.1:21000\", audience = \"meed\", jwks_file = {:?} }}]",
        file.display()
    );
    let settings = settings(&[
        ("issuers = []", &issuer),
        ("refresh_seconds = 600", "refresh_seconds = 1"),
        ("unknown_key_seconds = 60", "unknown_key_seconds = 1"),
    ]);
    let authenticator = Authenticator::new(&settings, None, None).expect("it is made");
    let token = dev
        .token(&Grant {
            sub: "me".to_owned(),
            ..Grant::default()
        })
        .expect("signed");
    for _ in 0..2 {
        assert!(authenticator.check(&token).await.is_ok());
    }
    let mut other = dev.jwks();
    other.keys[0].common.key_id = Some("another".to_owned());
    std::fs::write(&file, serde_json::to_vec(&other).expect("JSON")).expect("written");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let answer = authenticator.check(&token).await;
    let Err(ApiError::InvalidToken(why)) = answer else {
        panic!("the key is gone: {answer:?}");
    };
    assert_eq!(why, "its key is not one of its issuer's");
    std::fs::remove_dir_all(&directory).expect("removed");
}
