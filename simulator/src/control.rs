//! Routes by which a test tells the partners how to behave and asks what they saw.
//! They are open: the simulator belongs on loopback or in a test network.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;
use tracing::info;

use crate::{
    context::{ServiceName, ServiceSettings},
    mode::MerchantSettings,
    partners::{Calls, Partners, unwritable},
    redemption::Redemption,
};

pub(crate) fn routes() -> Router<Arc<Partners>> {
    Router::new()
        .route(
            "/control/merchants/{merchant}",
            get(merchant).put(set_merchant),
        )
        .route("/control/merchants/{merchant}/book", get(book))
        .route("/control/services/{service}", get(service).put(set_service))
        .route("/control/calls", get(calls))
        .route("/control/reset", post(reset))
}

async fn merchant(
    State(partners): State<Arc<Partners>>,
    Path(merchant): Path<String>,
) -> Json<MerchantSettings> {
    Json(partners.book().merchant(&merchant))
}

async fn set_merchant(
    State(partners): State<Arc<Partners>>,
    Path(merchant): Path<String>,
    Json(settings): Json<MerchantSettings>,
) -> Response {
    info!(merchant, ?settings, "merchant was told how to behave");
    match partners.book().set_merchant(merchant, settings) {
        Ok(()) => Json(settings).into_response(),
        Err(error) => unwritable(&error),
    }
}

async fn book(
    State(partners): State<Arc<Partners>>,
    Path(merchant): Path<String>,
) -> Json<Vec<Redemption>> {
    Json(partners.book().booked(&merchant))
}

async fn service(
    State(partners): State<Arc<Partners>>,
    Path(service): Path<ServiceName>,
) -> Json<ServiceSettings> {
    Json(partners.book().service(service))
}

async fn set_service(
    State(partners): State<Arc<Partners>>,
    Path(service): Path<ServiceName>,
    Json(settings): Json<ServiceSettings>,
) -> Response {
    info!(?service, ?settings, "service was told how to behave");
    match partners.book().set_service(service, settings) {
        Ok(()) => Json(settings).into_response(),
        Err(error) => unwritable(&error),
    }
}

/// How often a merchant was called and called back, booked or not.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct MerchantCalls {
    posts: u64,
    status_queries: u64,
    voids: u64,
    callbacks: u64,
    unauthorized: u64,
}

#[derive(Serialize)]
struct CallsView {
    merchants: BTreeMap<String, MerchantCalls>,
    services: BTreeMap<ServiceName, u64>,
}

async fn calls(State(partners): State<Arc<Partners>>) -> Json<CallsView> {
    let mut merchants: BTreeMap<String, MerchantCalls> = BTreeMap::new();
    for (merchant, redemption) in partners.book().redemptions() {
        let calls = merchants.entry(merchant.to_owned()).or_default();
        calls.posts += u64::from(redemption.posts);
        calls.status_queries += u64::from(redemption.status_queries);
        calls.voids += u64::from(redemption.voids);
        calls.callbacks += u64::from(redemption.callbacks);
    }
    let other = partners.calls();
    for (merchant, unauthorized) in &other.unauthorized {
        merchants.entry(merchant.clone()).or_default().unauthorized = *unauthorized;
    }
    let services = [
        ServiceName::Product,
        ServiceName::Search,
        ServiceName::Order,
    ]
    .map(|service| (service, other.services.get(&service).copied().unwrap_or(0)))
    .into();
    Json(CallsView {
        merchants,
        services,
    })
}

async fn reset(State(partners): State<Arc<Partners>>) -> Response {
    info!("the book, the modes and the counts were reset");
    *partners.calls() = Calls::default();
    match partners.book().reset() {
        Ok(()) => axum::http::StatusCode::NO_CONTENT.into_response(),
        Err(error) => unwritable(&error),
    }
}
