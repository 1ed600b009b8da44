//! Tokens that do not count, made from claims that would.

use std::sync::LazyLock;

use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::Utc;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::{
    support::keys::Key,
    world::{ED, RSA, SECRET, World},
};

/// Keys of somebody else, one under a name that the issuer's has.
static STRANGERS_RSA: LazyLock<Key> = LazyLock::new(|| Key::rsa("rsa", 2_048));
static STRANGERS_ED: LazyLock<Key> = LazyLock::new(|| Key::ed("stranger"));

/// A request's `Authorization` that does not count.
pub struct Forged {
    pub name: String,
    pub authorization: Vec<String>,
    pub code: &'static str,
}

fn encoded(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

/// Everything that does not count, made from claims that would count with the issuer's signature.
pub fn all(world: &World, claims: &Value) -> Vec<Forged> {
    let mut all = headers(claims);
    for (name, token) in changed(claims)
        .into_iter()
        .chain(unsigned(claims))
        .chain(with_public_keys(claims))
        .chain(with_other_keys(world, claims))
    {
        all.push(Forged {
            name,
            authorization: vec![format!("Bearer {token}")],
            code: "INVALID_TOKEN",
        });
    }
    all
}

/// Headers with no token to look at.
fn headers(claims: &Value) -> Vec<Forged> {
    let token = RSA.sign(claims);
    let pair = BASE64_STANDARD.encode(format!("partner-1:{SECRET}"));
    let none = |name: &str, authorization: &[String]| Forged {
        name: name.to_owned(),
        authorization: authorization.to_vec(),
        code: "UNAUTHENTICATED",
    };
    let bearer = format!("Bearer {token}");
    vec![
        none("no token", &[]),
        none("a client's secret", &[format!("Basic {pair}")]),
        none("another scheme", &[format!("DPoP {token}")]),
        none("no scheme", std::slice::from_ref(&token)),
        none("a scheme without a token", &["Bearer ".to_owned()]),
        none("a scheme and a comma", &[format!("Bearer,{token}")]),
        none("an empty header", &[String::new()]),
        none("the same token twice", &[bearer.clone(), bearer.clone()]),
        none(
            "a token after another scheme",
            &[format!("Basic {pair}"), bearer.clone()],
        ),
        none(
            "a token before another scheme",
            &[bearer.clone(), format!("Basic {pair}")],
        ),
        Forged {
            name: "two tokens in one header".to_owned(),
            authorization: vec![format!("{bearer}, {bearer}")],
            code: "INVALID_TOKEN",
        },
        Forged {
            name: "garbage".to_owned(),
            authorization: vec!["Bearer x.y.z".to_owned()],
            code: "INVALID_TOKEN",
        },
    ]
}

/// Signed by the issuer, and not for here and now.
fn changed(claims: &Value) -> Vec<(String, String)> {
    let now = Utc::now().timestamp();
    let mut all = Vec::new();
    for (name, claim, value) in [
        ("expired", "exp", json!(now - 60)),
        ("without an end", "exp", Value::Null),
        ("whose end is a text", "exp", json!("tomorrow")),
        ("not valid yet", "nbf", json!(now + 600)),
        (
            "of another issuer",
            "iss",
            json!("https://elsewhere.example"),
        ),
        (
            "of an issuer with a slash",
            "iss",
            json!("https://issuer.example/"),
        ),
        ("of no issuer", "iss", Value::Null),
        ("of Meed's name", "iss", json!("http://127.0.0.1:21000")),
        ("for another audience", "aud", json!("elsewhere")),
        ("for other audiences", "aud", json!(["elsewhere", "meed"])),
        ("for no audience", "aud", Value::Null),
        ("for an empty audience", "aud", json!([])),
        ("without a subject", "sub", Value::Null),
        ("with a number for a subject", "sub", json!(1)),
        ("with a list of scopes", "scope", json!([claims["scope"]])),
        ("with a text for roles", "roles", json!("admin")),
        ("with a text for merchants", "merchants", json!("M1")),
    ] {
        let mut changed = claims.clone();
        if value.is_null() {
            changed.as_object_mut().expect("claims").remove(claim);
        } else {
            changed[claim] = value;
        }
        all.push((name.to_owned(), RSA.sign(&changed)));
    }
    let mut header = RSA.header();
    header.typ = Some("logout+jwt".to_owned());
    all.push(("of another type".to_owned(), RSA.sign_with(&header, claims)));
    let mut header = RSA.header();
    header.crit = Some(vec!["b64".to_owned()]);
    all.push((
        "with an extension".to_owned(),
        RSA.sign_with(&header, claims),
    ));
    let mut long = claims.clone();
    long["padding"] = json!("x".repeat(9_000));
    all.push(("without end".to_owned(), RSA.sign(&long)));
    all
}

/// Not signed, or not over what they say.
fn unsigned(claims: &Value) -> Vec<(String, String)> {
    let signed = RSA.sign(claims);
    let (_, signature) = signed.rsplit_once('.').expect("three parts");
    let mut all = Vec::new();
    for algorithm in ["none", "None", "NONE", "nOnE", ""] {
        for kid in [None, Some("rsa")] {
            let mut header = json!({ "alg": algorithm, "typ": "JWT" });
            if let Some(kid) = kid {
                header["kid"] = json!(kid);
            }
            let parts = format!("{}.{}", encoded(&header), encoded(claims));
            for (what, signature) in [("", ""), (" and a signature", signature)] {
                let name = format!("alg {algorithm:?}, kid {kid:?}{what}");
                all.push((name, format!("{parts}.{signature}")));
            }
            all.push((format!("alg {algorithm:?}, kid {kid:?}, two parts"), parts));
        }
    }
    let [header, body] = signed.splitn(3, '.').collect::<Vec<_>>()[..2] else {
        panic!("three parts");
    };
    let mut more = claims.clone();
    more["admin"] = json!(true);
    all.push(("no signature".to_owned(), format!("{header}.{body}.")));
    all.push(("two parts".to_owned(), format!("{header}.{body}")));
    all.push(("four parts".to_owned(), format!("{signed}.{signature}")));
    all.push((
        "half a signature".to_owned(),
        format!("{header}.{body}.{}", &signature[..signature.len() / 2]),
    ));
    all.push((
        "other claims".to_owned(),
        format!("{header}.{}.{signature}", encoded(&more)),
    ));
    all
}

/// HMAC with what everybody can know.
fn with_public_keys(claims: &Value) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for key in [&*RSA, &*ED] {
        let jwk = serde_json::to_vec(&key.public).expect("JSON");
        let modulus = serde_json::to_value(&key.public).expect("JSON");
        let bare = modulus["n"].as_str().or(modulus["x"].as_str());
        let bare = BASE64_URL_SAFE_NO_PAD
            .decode(bare.expect("a number"))
            .expect("base64");
        let pem = key.public_pem();
        for (form, secret) in [
            ("PEM", pem.as_bytes()),
            ("PEM without its last line's end", pem.trim_end().as_bytes()),
            ("DER", &key.public_der),
            ("JWK", &jwk),
            ("bare", &bare),
            ("name", key.id.as_bytes()),
            ("nothing", b""),
        ] {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let mut header = Header::new(algorithm);
                header.kid = Some(key.id.to_owned());
                let secret = EncodingKey::from_secret(secret);
                let token = jsonwebtoken::encode(&header, claims, &secret).expect("signed");
                all.push((format!("{algorithm:?} with {}, {form}", key.id), token));
            }
        }
    }
    all
}

/// Signed with keys that are not the issuer's, or not for this.
fn with_other_keys(world: &World, claims: &Value) -> Vec<(String, String)> {
    let mut brought = Header::new(Algorithm::EdDSA);
    brought.jwk = Some(STRANGERS_ED.public.clone());
    let mut led = STRANGERS_RSA.header();
    led.jku = Some("https://stranger.example/keys".to_owned());
    led.x5u = led.jku.clone();
    let mut crossed = STRANGERS_ED.header();
    crossed.kid = Some("ed".to_owned());
    let mut mixed = ED.header();
    mixed.kid = Some("rsa".to_owned());
    let dev = world.api.app.dev_issuer.as_ref().expect("turned on");
    let elsewhere = api::auth::dev::Grant {
        sub: "client".to_owned(),
        scope: crate::world::ALL_SCOPES.to_owned(),
        ..api::auth::dev::Grant::default()
    };
    let elsewhere = dev.token(&elsewhere).expect("signed");
    let (header, _) = elsewhere.split_once('.').expect("parts");
    let (_, signature) = elsewhere.rsplit_once('.').expect("parts");
    vec![
        (
            "a stranger's key of that name".to_owned(),
            STRANGERS_RSA.sign(claims),
        ),
        ("a stranger's key".to_owned(), STRANGERS_ED.sign(claims)),
        (
            "a stranger's key under another name".to_owned(),
            STRANGERS_ED.sign_with(&crossed, claims),
        ),
        (
            "a key that it brings along".to_owned(),
            STRANGERS_ED.sign_with(&brought, claims),
        ),
        (
            "a key that it leads to".to_owned(),
            STRANGERS_RSA.sign_with(&led, claims),
        ),
        (
            "another key than it says".to_owned(),
            ED.sign_with(&mixed, claims),
        ),
        (
            "another issuer's signature".to_owned(),
            format!("{header}.{}.{signature}", encoded(claims)),
        ),
        (
            "a session that has ended".to_owned(),
            world.logged_out.clone(),
        ),
        ("a refresh token".to_owned(), world.refresh_token.clone()),
        ("a client's secret".to_owned(), SECRET.to_owned()),
    ]
}
