//! The acknowledger against an API that answers as each test wants.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use serde_json::{Value, json};
use simulator::acknowledger::{
    Acknowledger, AcknowledgerMode, AcknowledgerOptions, Outcome, TierUpgraded,
};
use tokio::net::{TcpListener, TcpSocket};

type TestResult = anyhow::Result<()>;

/// What the API has seen, and what it will answer.
#[derive(Default)]
struct Seen {
    answers: Vec<u16>,
    tokens_issued: u32,
    calls: Vec<(String, String, String)>,
}

type Shared = Arc<Mutex<Seen>>;

async fn token(State(seen): State<Shared>) -> Json<Value> {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.tokens_issued += 1;
    let token = format!("token-{}", seen.tokens_issued);
    Json(json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600}))
}

async fn callback(
    State(seen): State<Shared>,
    Path((id, verdict)): Path<(String, String)>,
    headers: HeaderMap,
) -> StatusCode {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let authorization = headers.get("authorization");
    let authorization = authorization.and_then(|value| value.to_str().ok());
    let authorization = authorization.unwrap_or_default().to_owned();
    seen.calls.push((id, verdict, authorization));
    let status = if seen.answers.is_empty() {
        200
    } else {
        seen.answers.remove(0)
    };
    StatusCode::from_u16(status).unwrap_or_default()
}

/// An API that answers callbacks with the given statuses in turn, and with 200
/// after the last.
async fn api(answers: &[u16]) -> anyhow::Result<(String, Shared)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let seen: Shared = Arc::default();
    seen.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .answers
        .extend(answers);
    let app = Router::new()
        .route("/dev/token", get(token))
        .route("/api/v1/callbacks/{id}/{verdict}", post(callback))
        .with_state(Arc::clone(&seen));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok((url, seen))
}

fn options(api_url: &str, mode: AcknowledgerMode) -> AcknowledgerOptions {
    AcknowledgerOptions {
        api_url: api_url.to_owned(),
        token: None,
        mode,
        lateness: Duration::from_millis(50),
        ignore_percent: 0,
    }
}

fn upgrade(callback_id: &str) -> anyhow::Result<TierUpgraded> {
    Ok(serde_json::from_value(json!({
        "userId": "C-1",
        "previousTier": "BRONZE",
        "newTier": "SILVER",
        "currentPoints": 510,
        "upgradedAt": "2026-11-01T12:00:00Z",
        "recommendations": [{"productId": "P-105", "name": "Spa day", "price": "89.90"}],
        "callbackId": callback_id,
    }))?)
}

fn calls(seen: &Shared) -> Vec<(String, String, String)> {
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.calls.clone()
}

#[tokio::test]
async fn each_mode_says_what_its_name_says() -> TestResult {
    for (mode, verdict) in [
        (AcknowledgerMode::Success, Some("success")),
        (AcknowledgerMode::Failure, Some("failure")),
        (AcknowledgerMode::Late, Some("success")),
        (AcknowledgerMode::Silent, None),
    ] {
        let (url, seen) = api(&[]).await?;
        let acknowledger = Acknowledger::new(options(&url, mode))?;
        let outcome = acknowledger.answer(&upgrade("cb-1")?).await;
        let verdicts: Vec<_> = calls(&seen).into_iter().map(|call| call.1).collect();
        let expected = if verdict.is_some() {
            Outcome::Taken
        } else {
            Outcome::NothingSaid
        };
        assert_eq!(outcome, expected);
        assert_eq!(verdicts, Vec::from_iter(verdict));
    }
    Ok(())
}

#[tokio::test]
async fn one_token_serves_many_calls_and_is_replaced_when_turned_away() -> TestResult {
    let (url, seen) = api(&[200, 401, 200]).await?;
    let acknowledger = Acknowledger::new(options(&url, AcknowledgerMode::Success))?;
    acknowledger.answer(&upgrade("cb-1")?).await;
    assert_eq!(acknowledger.answer(&upgrade("cb-2")?).await, Outcome::Taken);
    let tokens: Vec<_> = calls(&seen).into_iter().map(|call| call.2).collect();
    assert_eq!(
        tokens,
        ["Bearer token-1", "Bearer token-1", "Bearer token-2"]
    );
    Ok(())
}

#[tokio::test]
async fn a_fixed_token_is_used_as_it_is() -> TestResult {
    let (url, seen) = api(&[200, 401]).await?;
    let acknowledger = Acknowledger::new(AcknowledgerOptions {
        token: Some("fixed".to_owned()),
        ..options(&url, AcknowledgerMode::Success)
    })?;
    assert_eq!(acknowledger.answer(&upgrade("cb-1")?).await, Outcome::Taken);
    let turned_away = acknowledger.answer(&upgrade("cb-2")?).await;
    assert_eq!(turned_away, Outcome::TurnedAway(401));
    assert!(calls(&seen).iter().all(|call| call.2 == "Bearer fixed"));
    Ok(())
}

#[tokio::test]
async fn failures_are_repeated_and_refusals_are_final() -> TestResult {
    for (answers, expected, attempts) in [
        (vec![500, 503, 200], Outcome::Taken, 3),
        (vec![429, 200], Outcome::Taken, 2),
        (vec![404], Outcome::TurnedAway(404), 1),
        (vec![409], Outcome::TurnedAway(409), 1),
        (vec![410], Outcome::TurnedAway(410), 1),
        (vec![401, 401], Outcome::TurnedAway(401), 2),
    ] {
        let (url, seen) = api(&answers).await?;
        let acknowledger = Acknowledger::new(options(&url, AcknowledgerMode::Success))?;
        let outcome = acknowledger.answer(&upgrade("cb-1")?).await;
        assert_eq!(outcome, expected, "{answers:?}");
        assert_eq!(calls(&seen).len(), attempts, "{answers:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_api_that_comes_up_later_is_waited_for() -> TestResult {
    // The address is taken, but nobody listens on it until it was tried in vain.
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse()?)?;
    let address = socket.local_addr()?;
    let url = format!("http://{address}");
    let acknowledger = Acknowledger::new(options(&url, AcknowledgerMode::Success))?;
    let upgrade = upgrade("cb-1")?;
    let mut answer = std::pin::pin!(acknowledger.answer(&upgrade));
    tokio::time::timeout(Duration::from_millis(100), &mut answer)
        .await
        .expect_err("nobody listens yet");

    let seen: Shared = Arc::default();
    let app = Router::new()
        .route("/dev/token", get(token))
        .route("/api/v1/callbacks/{id}/{verdict}", post(callback))
        .with_state(seen);
    let listener = socket.listen(16)?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    assert_eq!(answer.await, Outcome::Taken);
    Ok(())
}

#[tokio::test]
async fn the_ignored_share_is_about_as_large_as_told_and_always_the_same() -> TestResult {
    let (url, seen) = api(&[]).await?;
    let acknowledger = Acknowledger::new(AcknowledgerOptions {
        ignore_percent: 30,
        ..options(&url, AcknowledgerMode::Success)
    })?;
    let mut rounds = Vec::new();
    for _ in 0..2 {
        for number in 0..200 {
            acknowledger
                .answer(&upgrade(&format!("cb-{number}"))?)
                .await;
        }
        let ids: Vec<_> = calls(&seen).into_iter().map(|call| call.0).collect();
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .calls
            .clear();
        rounds.push(ids);
    }
    assert_eq!(rounds[0], rounds[1]);
    assert!(
        (110..=170).contains(&rounds[0].len()),
        "{}",
        rounds[0].len()
    );
    Ok(())
}
