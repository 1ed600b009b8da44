//! Who may do what, as a matrix: every call of the route table is tried with everything that must
//! not get through, and by everybody who may make it.

mod forged;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use serde_json::{Value, json};
use support::{Answer, Api};
use table::{CALLBACKS, Others, READ, REDEEM, ROWS, Row, WRITE, Who};
use world::{ALL_SCOPES, Ask, Proof, SECRET, World, claims, whoever_may};

/// Calls by method and path.
fn calls(document: &Value) -> BTreeMap<String, Value> {
    let paths = document["paths"].as_object().expect("paths");
    paths
        .iter()
        .flat_map(|(path, operations)| {
            let operations = operations.as_object().expect("operations");
            operations.iter().map(move |(method, operation)| {
                let call = format!("{} {path}", method.to_uppercase());
                (call, operation.clone())
            })
        })
        .collect()
}

/// The route table, with what only the dev profile has.
async fn served() -> Value {
    let api = Api::new(&[]).await;
    let served = api.send(support::get("/openapi.json", "none")).await;
    assert_eq!(served.status, 200);
    served.body
}

fn published() -> Value {
    serde_json::to_value(api::routes::document()).expect("JSON")
}

#[track_caller]
fn is_refused(answer: &Answer, status: u16, code: &str, what: &str) {
    let got = answer.status.as_u16();
    assert_eq!(
        (got, answer.code()),
        (status, code),
        "{what}: {}",
        answer.body
    );
}

/// Rows that only a token opens.
fn rows_with_tokens() -> impl Iterator<Item = &'static Row> {
    ROWS.iter()
        .filter(|row| matches!(row.who, Who::Scope(_) | Who::Role(_)))
}

#[tokio::test]
async fn every_call_has_a_row_and_every_row_a_call() {
    let served: BTreeSet<String> = calls(&served().await).into_keys().collect();
    let published: BTreeSet<String> = calls(&published()).into_keys().collect();
    let rows: BTreeSet<String> = ROWS.iter().map(|row| row.call.to_owned()).collect();
    assert_eq!(rows.len(), ROWS.len(), "each call has one row");
    let without: Vec<_> = served.difference(&rows).collect();
    assert!(without.is_empty(), "no row says who may make {without:?}");
    let gone: Vec<_> = rows.difference(&served).collect();
    assert!(gone.is_empty(), "there is no call {gone:?}");
    let dev: Vec<_> = served.difference(&published).map(String::as_str).collect();
    assert_eq!(dev, ["GET /dev/token", "POST /dev/token"]);
    assert!(published.is_subset(&served));
}

/// A route that is added without its description would be in no table.
#[test]
fn no_route_is_left_out_of_the_route_table() {
    let source = include_str!("../../src/routes/mod.rs");
    for way in [".route(", ".route_service(", ".nest(", ".nest_service("] {
        assert!(!source.contains(way), "{way} in api/src/routes/mod.rs");
    }
    assert_eq!(
        source.matches(".merge(").count(),
        2,
        "the documentation and the page alone"
    );
}

#[tokio::test]
async fn the_description_says_who_may() {
    let described = calls(&served().await);
    for row in ROWS {
        let said = &described[row.call]["security"];
        let expected = match row.who {
            Who::Open => json!([{}]),
            Who::Scope(scope) => json!([{ "token": [scope] }]),
            Who::Role(roles) => roles
                .iter()
                .map(|role| json!({ "token": [role] }))
                .collect(),
            // The secret may also be in the form.
            Who::ClientSecret => json!([{ "clientSecret": [] }, {}]),
            Who::Signature => json!([{ "merchantSignature": [] }]),
        };
        assert_eq!(said, &expected, "{}", row.call);
    }
}

/// The names of members and parameters, also of the schemas that are referred to.
fn names(document: &Value, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, inner) in members {
                match (name.as_str(), inner) {
                    ("example" | "examples", _) => {}
                    ("$ref", Value::String(reference)) => {
                        if found.insert(reference.clone()) {
                            let schema = document.pointer(&reference[1..]).expect("a schema");
                            names(document, schema, found);
                        }
                    }
                    ("properties", Value::Object(properties)) => {
                        found.extend(properties.keys().cloned());
                        names(document, inner, found);
                    }
                    ("name", Value::String(name)) => {
                        found.insert(name.clone());
                    }
                    _ => names(document, inner, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|one| names(document, one, found)),
        _ => {}
    }
}

#[tokio::test]
async fn no_row_forgets_whose_data_it_is() {
    let document = served().await;
    let described = calls(&document);
    for row in ROWS {
        let operation = &described[row.call];
        let (mut all, mut asked) = (BTreeSet::new(), BTreeSet::new());
        names(&document, operation, &mut all);
        names(&document, &operation["parameters"], &mut asked);
        let of_redemption = asked.contains("redeemRequestId");
        if all.contains("customerId") || of_redemption {
            assert_ne!(
                row.customer,
                Others::Nobody,
                "{} is about a customer",
                row.call
            );
        }
        if all.contains("merchantId") || of_redemption || row.who == Who::Signature {
            assert_ne!(
                row.merchant,
                Others::Nobody,
                "{} is about a merchant",
                row.call
            );
        }
    }
}

#[tokio::test]
async fn no_call_takes_a_token_that_does_not_count() {
    let world = World::new().await;
    let before = world.everything().await;
    for row in rows_with_tokens() {
        let (name, Proof::Token(good)) = whoever_may(row).swap_remove(0) else {
            panic!("{} is made with a token", row.call);
        };
        let ask = world.ask(row).await;
        for forged in forged::all(&world, &good) {
            let what = format!("{} by {name}: {}", row.call, forged.name);
            let answer = world
                .send(&ask, &Proof::Authorization(forged.authorization.clone()))
                .await;
            is_refused(&answer, 401, forged.code, &what);
            let challenge = answer.headers["www-authenticate"].to_str().expect("text");
            let expected = if forged.code == "INVALID_TOKEN" {
                "Bearer error=\"invalid_token\""
            } else {
                "Bearer"
            };
            assert_eq!(challenge, expected, "{what}");
            // Nothing of a token is repeated, and nothing of the inside told.
            for header in &forged.authorization {
                let token = header.rsplit(' ').next().unwrap_or_default();
                let told = answer.body.to_string();
                assert!(token.len() < 8 || !told.contains(token), "{what}: {told}");
            }
        }
    }
    assert_eq!(
        world.everything().await,
        before,
        "a refusal changes nothing"
    );
}

#[tokio::test]
async fn a_token_counts_in_its_header_alone() {
    let world = World::new().await;
    let before = world.everything().await;
    for row in rows_with_tokens() {
        let (_, Proof::Token(good)) = whoever_may(row).swap_remove(0) else {
            panic!("{} is made with a token", row.call);
        };
        let token = world::RSA.sign(&good);
        let ask = world.ask(row).await;
        let joined = if ask.uri.contains('?') { '&' } else { '?' };
        let in_query = Ask {
            uri: format!("{}{joined}access_token={token}", ask.uri),
            ..ask.clone()
        };
        let answer = world.send(&in_query, &Proof::Nothing).await;
        is_refused(&answer, 401, "UNAUTHENTICATED", row.call);
        if ask.body.is_empty() && ask.method == Method::POST {
            let in_body = Ask {
                body: format!("access_token={token}"),
                ..ask.clone()
            };
            let answer = world.send(&in_body, &Proof::Nothing).await;
            is_refused(&answer, 401, "UNAUTHENTICATED", row.call);
        }
        // Whoever may not is told that, and not what is wrong with the request.
        let wrong = Ask {
            uri: ask.uri.clone(),
            method: ask.method.clone(),
            body: if ask.body.is_empty() { "" } else { "[" }.to_owned(),
        };
        let answer = world.send(&wrong, &Proof::Nothing).await;
        is_refused(&answer, 401, "UNAUTHENTICATED", row.call);
        if ask.method == Method::GET {
            let head = Ask {
                method: Method::HEAD,
                ..ask.clone()
            };
            let answer = world.send(&head, &Proof::Nothing).await;
            assert_eq!(answer.status, 401, "HEAD of {}", row.call);
        }
        // Other methods and other spellings lead nowhere.
        for method in [Method::PUT, Method::PATCH, Method::DELETE, Method::TRACE] {
            let other = Ask {
                method,
                ..ask.clone()
            };
            let answer = world.send(&other, &Proof::Nothing).await;
            assert!([404, 405].contains(&answer.status.as_u16()), "{other:?}");
        }
        let (path, query) = ask.uri.split_once('?').unwrap_or((&ask.uri, ""));
        for path in [
            format!("{path}/"),
            format!("/{path}"),
            path.to_uppercase(),
            format!("{path}/."),
            format!("/api/../{}", &path[1..]),
        ] {
            let other = Ask {
                uri: format!("{path}?{query}"),
                ..ask.clone()
            };
            let answer = world.send(&other, &Proof::Nothing).await;
            assert!(
                [401, 404, 405].contains(&answer.status.as_u16()),
                "{other:?}"
            );
        }
    }
    assert_eq!(
        world.everything().await,
        before,
        "a refusal changes nothing"
    );
}

#[tokio::test]
async fn no_call_takes_another_scope_or_role() {
    let world = World::new().await;
    let before = world.everything().await;
    for row in rows_with_tokens() {
        let ask = world.ask(row).await;
        let mut refused = Vec::new();
        match row.who {
            Who::Scope(scope) => {
                let others = [READ, WRITE, REDEEM, CALLBACKS]
                    .map(|other| if other == scope { "openid" } else { other });
                let scopes = [
                    String::new(),
                    others.join(" "),
                    scope.to_uppercase(),
                    scope.replace('.', " "),
                    scope.replace('.', ":"),
                    format!("{scope}.all"),
                    format!("x{scope}"),
                    format!("{scope},{scope}"),
                    scope.split('.').next().unwrap_or_default().to_owned(),
                    "* rewards.* *.*".to_owned(),
                ];
                for given in scopes {
                    for roles in [&[][..], &["player"], &["staff"], &["admin"]] {
                        let token = claims("C1", &given, roles, None);
                        refused.push((token, "INSUFFICIENT_SCOPE"));
                    }
                }
                if !row.players {
                    for roles in [
                        &["player"][..],
                        &["player", "staff"],
                        &["Player"],
                        &["guest"],
                    ] {
                        let token = claims("C1", scope, roles, None);
                        refused.push((token, "INSUFFICIENT_ROLE"));
                    }
                }
            }
            Who::Role(roles) => {
                let others = ["player", "staff", "admin"].into_iter();
                let mut given: Vec<Vec<&str>> = others
                    .filter(|other| !roles.contains(other))
                    .map(|other| vec![other])
                    .collect();
                given.push(Vec::new());
                if !roles.contains(&"player") {
                    given.extend([vec!["guest"], vec!["administrator"], vec!["staff,admin"]]);
                }
                for roles in given {
                    let token = claims("C1", &format!("{ALL_SCOPES} admin staff"), &roles, None);
                    refused.push((token, "INSUFFICIENT_ROLE"));
                }
            }
            Who::Open | Who::ClientSecret | Who::Signature => {}
        }
        assert!(!refused.is_empty());
        for (token, code) in refused {
            let what = format!("{} with {token}", row.call);
            let answer = world.send(&ask, &Proof::Token(token)).await;
            is_refused(&answer, 403, code, &what);
            let challenge = answer.headers["www-authenticate"].to_str().expect("text");
            assert!(
                challenge.contains("insufficient_scope"),
                "{what}: {challenge}"
            );
        }
    }
    assert_eq!(
        world.everything().await,
        before,
        "a refusal changes nothing"
    );
}

/// Asks for what is C1's and M1's as somebody else, who may make the call.
async fn asks_for_anothers(world: &World, row: &Row, ask: &Ask, others: Others, token: Value) {
    let what = format!("{} with {token}", row.call);
    let own = token["sub"].as_str().expect("a subject").to_owned();
    let answer = world.send(ask, &Proof::Token(token)).await;
    match others {
        Others::Nobody => {}
        Others::Refused(status, code) => is_refused(&answer, status, code, &what),
        Others::Within(code) => {
            assert_eq!(answer.status, 200, "{what}");
            let answers = answer.body.as_array().expect("a list");
            assert!(!answers.is_empty(), "{what}");
            for one in answers {
                assert_eq!(one["problem"]["code"], code, "{what}: {one}");
                assert!(one.get("totalPoints").is_none(), "{what}: {one}");
            }
        }
        Others::Without(words) => {
            assert_eq!(answer.status, 200, "{what}");
            let told = answer.body.to_string();
            for word in words {
                assert!(
                    !told.contains(&format!("{word:?}")),
                    "{what}: {word} in {told}"
                );
            }
        }
        Others::Everybody => {
            assert_eq!(answer.status, 200, "{what}");
            let told = answer.body.to_string();
            for customer in ["C1", "C2"] {
                assert!(told.contains(&format!("{customer:?}")), "{what}: {told}");
            }
        }
        Others::OnlyOneself => {
            let told = answer.body.to_string();
            assert!(!told.contains("\"C1\""), "{what}: {told}");
            if ask.method == Method::GET {
                let told = answer.body.get("userId").or(answer.body.get("user_id"));
                assert_eq!(told, Some(&json!(own)), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn players_reach_nobody_elses_data() {
    let world = World::new().await;
    let before = world.of_customer("C1").await;
    let mut asked = 0;
    for row in rows_with_tokens().filter(|row| row.customer != Others::Nobody) {
        let scope = match row.who {
            Who::Scope(scope) => scope,
            _ => "",
        };
        let ask = world.ask(row).await;
        // The customer is the same however the address is written.
        let spelt = Ask {
            uri: ask.uri.replace("/C1", "/%43%31").replace("=C1", "=%43%31"),
            ..ask.clone()
        };
        for (sub, roles) in [
            ("C2", &["player"][..]),
            ("C2", &["Player"]),
            ("C2", &["player", "unheard-of"]),
            // Whoever has a role that is not known is a player.
            ("C2", &["guest"]),
            ("c1", &["player"]),
            ("C1 ", &["player"]),
            ("C11", &["player"]),
        ] {
            for ask in [&ask, &spelt] {
                // A customer of that name may not even be.
                if row.who == Who::Role(&["player"]) && sub == "C1 " {
                    continue;
                }
                let token = claims(sub, scope, roles, None);
                asks_for_anothers(&world, row, ask, row.customer, token).await;
                asked += 1;
            }
        }
    }
    assert!(asked > 50, "{asked}");
    assert_eq!(world.of_customer("C1").await, before);
    let sent = world.contents(&["accepted_events"]).await;
    assert_eq!(sent, "accepted_events: \n");
}

#[tokio::test]
async fn partners_reach_no_other_partners_merchant() {
    let world = World::new().await;
    let before = world
        .contents(&["redemptions", "callbacks", "transfers"])
        .await;
    let mut asked = 0;
    for row in ROWS.iter().filter(|row| row.merchant != Others::Nobody) {
        let ask = world.ask(row).await;
        if let (Who::Signature, Others::Refused(status, code)) = (row.who, row.merchant) {
            for key in ["dev-key-M2", "dev-key-M1 ", ""] {
                let answer = world.send(&ask, &Proof::Signature(key, 0)).await;
                is_refused(&answer, status, code, row.call);
                asked += 1;
            }
            continue;
        }
        let (scope, partners) = match row.who {
            Who::Scope(scope) => (scope, &[&[][..], &["staff"]][..]),
            Who::Role(["staff", "admin"]) => ("", &[&["staff"][..], &["admin"]][..]),
            _ => panic!("{}: who is a partner there?", row.call),
        };
        for merchants in [&["M2"][..], &["m1", "M11", "M", "*"], &[""], &[]] {
            for roles in partners.iter().copied() {
                let token = claims("partner", scope, roles, Some(merchants));
                asks_for_anothers(&world, row, &ask, row.merchant, token).await;
                asked += 1;
            }
        }
        // What another one does not see is there to be seen.
        if let Others::Without(words) = row.merchant {
            let own = Proof::Token(claims("partner", scope, &[], Some(&["M1"])));
            let told = world.send(&ask, &own).await.body.to_string();
            for word in words {
                assert!(told.contains(&format!("{word:?}")), "{}: {told}", row.call);
            }
        }
    }
    assert!(asked > 20, "{asked}");
    let after = world
        .contents(&["redemptions", "callbacks", "transfers"])
        .await;
    assert_eq!(after, before);
}

#[tokio::test]
async fn secrets_and_signatures_are_what_they_must_be() {
    let world = World::new().await;
    let before = world.everything().await;
    let token = format!(
        "Bearer {}",
        world::RSA.sign(&claims("admin", ALL_SCOPES, &["admin"], None))
    );
    for row in ROWS {
        let ask = world.ask(row).await;
        match row.who {
            Who::ClientSecret => {
                for proof in [
                    Proof::Nothing,
                    Proof::Secret("partner-1", "wrong"),
                    Proof::Secret("partner-1", ""),
                    Proof::Secret("nobody", SECRET),
                    Proof::Secret("", SECRET),
                    Proof::Authorization(vec![token.clone()]),
                    Proof::Authorization(vec!["Basic".to_owned()]),
                    Proof::Authorization(vec!["Basic ???".to_owned()]),
                ] {
                    let answer = world.send(&ask, &proof).await;
                    let refused = (answer.status.as_u16(), answer.text("error"));
                    assert_eq!(refused, (401, "invalid_client".to_owned()), "{proof:?}");
                    assert!(
                        answer.headers["www-authenticate"]
                            .to_str()
                            .expect("text")
                            .starts_with("Basic")
                    );
                }
                let pair = "Basic cGFydG5lci0xOnMzY3JldC1vZi10aGUtY2xpZW50".to_owned();
                let twice = Proof::Authorization(vec![pair.clone(), pair]);
                let answer = world.send(&ask, &twice).await;
                assert_eq!(answer.text("error"), "invalid_request");
            }
            Who::Signature => {
                for proof in [
                    Proof::Nothing,
                    Proof::Authorization(vec![token.clone()]),
                    Proof::Secret("M1", "dev-key-M1"),
                    Proof::Signature("dev-key-M1", -3_600),
                    Proof::Signature("dev-key-M1", 3_600),
                    Proof::Signature("dev-key-m1", 0),
                ] {
                    let answer = world.send(&ask, &proof).await;
                    is_refused(&answer, 401, "INVALID_SIGNATURE", &format!("{proof:?}"));
                }
            }
            Who::Open | Who::Scope(_) | Who::Role(_) => {}
        }
    }
    // The rows before have logged in once for each that needs a refresh token.
    let sessions = [
        "user_sessions: ",
        "refresh_tokens: ",
        "audit_records: ",
        "user_addresses: ",
    ];
    let but_sessions = |contents: &str| -> Vec<String> {
        let lines = contents.lines().map(str::to_owned);
        lines
            .filter(|line| !sessions.iter().any(|table| line.starts_with(table)))
            .collect()
    };
    assert_eq!(
        but_sessions(&world.everything().await),
        but_sessions(&before)
    );
}

/// Without this, a matrix of refusals would be right of an api that refuses everything.
#[tokio::test]
async fn whoever_may_is_let_in() {
    let world = World::new().await;
    for row in ROWS {
        for (name, proof) in whoever_may(row) {
            let ask = world.ask(row).await;
            let answer = world.send(&ask, &proof).await;
            let what = format!("{} by {name}: {}", row.call, answer.body);
            assert_eq!(answer.status.as_u16(), row.answer, "{what}");
            // The name of the scheme is written in any case (RFC 9110, section 11.1).
            if let Proof::Token(claims) = proof {
                for scheme in ["bearer", "BEARER"] {
                    let header = format!("{scheme} {}", world::ED.sign(&claims));
                    let ask = world.ask(row).await;
                    let answer = world.send(&ask, &Proof::Authorization(vec![header])).await;
                    assert_eq!(answer.status.as_u16(), row.answer, "{what}");
                }
            }
        }
    }
}

/// Where nobody has to be known, a token that does not count is no reason to refuse.
#[tokio::test]
async fn open_calls_look_at_no_token() {
    let world = World::new().await;
    let mut expired = claims("C1", ALL_SCOPES, &["admin"], None);
    expired["exp"] = json!(1);
    for row in ROWS.iter().filter(|row| row.who == Who::Open) {
        for proof in [
            Proof::Token(expired.clone()),
            Proof::Authorization(vec!["Bearer x.y.z".to_owned()]),
            Proof::Authorization(vec!["Basic Og==".to_owned(), "Bearer".to_owned()]),
        ] {
            let ask = world.ask(row).await;
            let answer = world.send(&ask, &proof).await;
            assert_eq!(
                answer.status.as_u16(),
                row.answer,
                "{}: {}",
                row.call,
                answer.body
            );
        }
    }
}

/// Whoever copies the request of the description is understood.
#[tokio::test]
async fn the_examples_of_requests_are_understood() {
    let world = World::new().await;
    let document = served().await;
    let described = calls(&document);
    let mut sent = 0;
    for row in ROWS {
        let Some(bodies) = described[row.call]["requestBody"]["content"].as_object() else {
            continue;
        };
        for (kind, content) in bodies {
            let example = content.get("example").unwrap_or_else(|| {
                let schema = content["schema"]["$ref"].as_str().expect("a reference");
                &document.pointer(&schema[1..]).expect("a schema")["example"]
            });
            let body = if kind == "application/x-www-form-urlencoded" {
                let pairs = example.as_object().expect("a form").iter();
                let pairs = pairs
                    .map(|(name, value)| format!("{name}={}", value.as_str().expect("a text")));
                pairs.collect::<Vec<_>>().join("&")
            } else {
                example.to_string()
            };
            let ask = Ask {
                body,
                ..world.ask(row).await
            };
            let (_, proof) = whoever_may(row).swap_remove(0);
            let answer = world.send(&ask, &proof).await;
            let status = answer.status.as_u16();
            assert!(
                status < 500 && ![400, 408, 413, 415, 422].contains(&status),
                "{} with {}: {}",
                row.call,
                ask.body,
                answer.body
            );
            sent += 1;
        }
    }
    assert!(sent > 8, "{sent}");
}
