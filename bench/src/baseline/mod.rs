//! What Meed is measured beside: the engine's floor, the same saga written the ordinary way, the
//! same writes in a plain handler, and a bare handler that reads a balance. None of them knows
//! tokens, limits or idempotency keys.
//!
//! They are served by this program in a process of its own, so that what they use is counted apart
//! from what makes the load.

mod flows;

use std::sync::Arc;

use activities::{
    outcomes::Outcomes,
    partner::{Attempt, MerchantSettings, Partners, Said},
};
use anyhow::{Context as _, Result, bail};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt as _,
};
use boot::Settings;
use chrono::Utc;
use domain::{
    CustomerId, MerchantId,
    command::RedeemRequest,
    inbound::{self, UnknownFields},
    redemption::RedemptionState,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use stack::Service;
use store::{
    history,
    redemptions::{self, Accepted, Origin},
    transaction,
};
use tokio::net::TcpListener;
use workflows::options;

use crate::system::System;
use flows::Flows;

/// The variable that makes this program serve baselines at an address.
pub const VARIABLE: &str = "BENCH_BASELINE";
/// Its name among the processes.
const PROGRAM: &str = "baseline";

struct Baseline {
    settings: Arc<Settings>,
    pool: PgPool,
    partners: Partners,
    flows: Flows,
}

/// Starts this program a second time, as the baselines; their address.
///
/// # Errors
/// When it does not serve.
pub async fn start(system: &System) -> Result<String> {
    let listen = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let mut service = Service::new(PROGRAM, std::env::current_exe()?);
    service.env = vec![(VARIABLE.to_owned(), listen.to_string())];
    service.port = Some(listen.port());
    let url = format!("http://{listen}");
    service.ready_url = Some(format!("{url}/ready"));
    system.start_other(service).await?;
    Ok(url)
}

/// Serves them until it is told to stop.
///
/// # Errors
/// When something that they need cannot be had.
pub async fn serve(listen: &str) -> Result<()> {
    let settings = Arc::new(Settings::load()?);
    let pool = boot::database::pool(&settings.database, PROGRAM)?;
    let partners = partners(&settings)?;
    let client = boot::temporal::connect(&settings.temporal, PROGRAM).await?;
    let runtime = boot::temporal::runtime()?;
    let outcomes = Outcomes::default();
    let steps = activities::redeem::RedeemSteps {
        pool: pool.clone(),
        partners: partners.clone(),
        outcomes: outcomes.clone(),
    };
    let flows = Flows::new(client.clone(), outcomes);
    let mut floor = flows.floor_worker(&runtime, client.clone())?;
    let mut ordinary = flows::ordinary_worker(&runtime, client, steps)?;
    let baseline = Arc::new(Baseline {
        settings,
        pool,
        partners,
        flows,
    });
    let routes = Router::new()
        .route("/ready", get(|| async {}))
        .route("/floor", post(floor_of_the_engine))
        .route("/ordinary", post(ordinary_saga))
        .route("/plain", post(plain_handler))
        .route("/balance/{customer}", get(balance))
        .with_state(baseline);
    let listener = TcpListener::bind(listen).await?.tap_io(|stream| {
        // As the api has it.
        let _ = stream.set_nodelay(true);
    });
    let served = tokio::spawn(async { axum::serve(listener, routes).await });
    let worked = async { tokio::try_join!(floor.run(), ordinary.run()) };
    tokio::select! {
        ended = served => ended?.context("the server"),
        ended = worked => ended.map(drop).context("the workers"),
        _ = boot::shutdown::signal() => Ok(()),
    }
}

/// The merchants as the api has them.
fn partners(settings: &Settings) -> Result<Partners> {
    let merchants = settings.merchants.iter().map(|(id, merchant)| {
        let merchant = MerchantSettings {
            base_url: merchant.base_url.clone(),
            signing_key: merchant.signing_key.expose().to_owned(),
            max_concurrent: usize::try_from(merchant.max_concurrent).unwrap_or(usize::MAX),
            failure_threshold: merchant.failure_threshold,
        };
        (id.clone(), merchant)
    });
    let callback_base = &settings.api.public_url;
    Ok(Partners::new(
        merchants,
        callback_base,
        options::PARTNER_HTTP_TIMEOUT,
    )?)
}

/// Why something was not done; all that a client is told is that it was not.
struct Failed(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{:#}", self.0)).into_response()
    }
}

fn read(body: &[u8]) -> Result<RedeemRequest, Failed> {
    let request = inbound::read_redeem(body, Utc::now(), UnknownFields::Refuse);
    Ok(request.map_err(|refusal| anyhow::anyhow!("{}", refusal.reason))?)
}

fn told(state: RedemptionState) -> Json<Value> {
    Json(json!({ "status": state }))
}

/// (a) A flow of the same shape whose steps do nothing.
async fn floor_of_the_engine(
    State(baseline): State<Arc<Baseline>>,
    body: Bytes,
) -> Result<Json<Value>, Failed> {
    let request = read(&body)?;
    baseline.flows.floor(&baseline.settings, &request).await?;
    Ok(told(RedemptionState::Success))
}

/// (b) The same saga with every step an ordinary activity.
async fn ordinary_saga(
    State(baseline): State<Arc<Baseline>>,
    body: Bytes,
) -> Result<Json<Value>, Failed> {
    let request = read(&body)?;
    baseline.accept(&request).await?;
    let Baseline {
        settings,
        pool,
        flows,
        ..
    } = &*baseline;
    Ok(told(flows.ordinary(settings, pool, &request).await?))
}

/// (c) The same writes, one after the other, with nothing that would go on with them after a crash.
async fn plain_handler(
    State(baseline): State<Arc<Baseline>>,
    body: Bytes,
) -> Result<Json<Value>, Failed> {
    let request = read(&body)?;
    baseline.accept(&request).await?;
    Ok(told(baseline.redeem(&request).await?))
}

/// A balance, from the ledger.
async fn balance(
    State(baseline): State<Arc<Baseline>>,
    Path(customer): Path<String>,
) -> Result<Json<Value>, Failed> {
    let customer = CustomerId::new(customer)?;
    let pictures = history::pictures(&baseline.pool, &[&customer]).await?;
    let (_, picture) = pictures.first().context("there is no such customer")?;
    Ok(Json(json!({
        "customerId": customer,
        "totalPoints": picture.balance.available,
        "calculationTimestamp": Utc::now(),
    })))
}

impl Baseline {
    async fn accept(&self, request: &RedeemRequest) -> Result<()> {
        let mut tx = transaction::begin(&self.pool).await?;
        if !redemptions::could_be_accepted(&mut tx, request).await? {
            bail!("customer {} has too few points", request.customer_id);
        }
        let requests = std::slice::from_ref(request);
        let accepted = redemptions::accept(&mut tx, requests, Origin::Http).await?;
        if accepted != [Accepted::New] {
            bail!("{} has been used", request.redeem_request_id);
        }
        Ok(transaction::commit(tx, "accept").await?)
    }

    async fn redeem(&self, request: &RedeemRequest) -> Result<RedemptionState> {
        let (pool, id) = (&self.pool, &request.redeem_request_id);
        let hold = std::time::Duration::from_secs(self.settings.redeem.hold_ttl_seconds);
        let is_known = |merchant: &MerchantId| self.partners.knows(merchant);
        redemptions::reserve(pool, id, hold, is_known).await?;
        let row = redemptions::begin_confirm(pool, id).await?;
        let callback_id = row.callback_id.as_deref().context("nothing is reserved")?;
        let said = self.partners.confirm(
            &row.merchant_id,
            id,
            &row.order_id,
            row.points,
            callback_id,
            Attempt::Patient(None),
        );
        match said.await? {
            Said::Confirmed { confirmation_id } => {
                let confirmation_id = confirmation_id.as_deref();
                let row = redemptions::settle(pool, id, confirmation_id, false).await?;
                Ok(row.state)
            }
            other => bail!("the merchant said {other:?}"),
        }
    }
}
