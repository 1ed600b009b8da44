//! Who has earned most, and where a customer stands.

use std::sync::Arc;

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use domain::CustomerId;
use ranking::{Place, Standing};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    App,
    auth::{Caller, RewardsRead, Scope},
    error::{ApiError, ProblemDocument, Thing},
    openapi::{AnyCall, told},
    parameters::{Id, Parameters},
};

/// The most customers of one answer.
const TOP_MAX: u32 = 1_000;
/// The customers of an answer when nothing is said.
const TOP_DEFAULT: u32 = 10;

/// How many customers.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TopParameters {
    /// How many customers.
    #[serde(rename = "N")]
    #[param(minimum = 1, maximum = 1000, default = 10, example = 10)]
    n: Option<u32>,
}

/// Which customer.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct InfoParameters {
    /// The customer.
    #[param(value_type = Id, example = "C-42")]
    id: String,
}

/// The customers who have earned most.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "customers": [
        { "customerId": "C-7", "points": 4200, "rank": 1 },
        { "customerId": "C-42", "points": 1000, "rank": 2 }
    ],
    "asOf": "2026-03-14T12:00:00Z"
}))]
pub(super) struct TopCustomers {
    /// They: most points first, those with the same by their id.
    customers: Vec<RankedCustomer>,
    /// Everything that happened until then is in it.
    as_of: DateTime<Utc>,
}

/// A customer's place.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RankedCustomer {
    /// The customer.
    customer_id: String,
    /// Points ever earned, as they are now; spending takes nothing from them.
    points: i64,
    /// The place, from 1.
    rank: u64,
}

impl From<Place> for RankedCustomer {
    fn from(place: Place) -> Self {
        Self {
            customer_id: place.customer_id,
            points: place.points,
            rank: place.rank,
        }
    }
}

/// Where a customer stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "customerId": "C-42", "points": 1000, "rank": 4,
    "above": [
        { "customerId": "C-7", "points": 4200, "rank": 2 },
        { "customerId": "C-11", "points": 1000, "rank": 3 }
    ],
    "below": [{ "customerId": "C-9", "points": 950, "rank": 5 }],
    "asOf": "2026-03-14T12:00:00Z"
}))]
pub(super) struct CustomerInfo {
    /// The customer.
    customer_id: String,
    /// Points ever earned, as they are now; spending takes nothing from them.
    points: i64,
    /// The place, from 1; null for a customer who has not earned anything yet.
    #[schema(required)]
    rank: Option<u64>,
    /// The two right above, in the order of their ranks; fewer where there are not two.
    above: Vec<RankedCustomer>,
    /// The two right below, in the order of their ranks; fewer where there are not two.
    below: Vec<RankedCustomer>,
    /// Everything that happened until then is in the ranks.
    as_of: DateTime<Utc>,
}

/// Lists the customers who have earned most.
///
/// A player may ask too: a ranking is there to be seen.
#[utoipa::path(
    get,
    path = "/api/v1/top-customers",
    operation_id = "listTopCustomers",
    tag = "ranking",
    security(("token" = ["rewards.read"])),
    params(TopParameters),
    responses(
        (status = 200, description = "The first customers", body = TopCustomers),
        (status = 400, description = "A parameter cannot be used", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&n_out_of_range()))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "The token does not allow it", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingScope(Scope::RewardsRead)))),
        AnyCall,
        (status = 503, description = "RANKING_NOT_READY, or another problem for the moment", body = ProblemDocument, content_type = "application/problem+json", headers(("Retry-After" = u32, description = "After how many seconds to try again")), example = json!(told(&ApiError::RankingNotReady))),
    )
)]
pub(super) async fn top(
    State(app): State<Arc<App>>,
    _caller: Caller<RewardsRead>,
    Parameters(parameters): Parameters<TopParameters>,
) -> Result<Json<TopCustomers>, ApiError> {
    let count @ 1..=TOP_MAX = parameters.n.unwrap_or(TOP_DEFAULT) else {
        return Err(n_out_of_range());
    };
    let top = app.ranking.top(count as usize).await?;
    Ok(Json(TopCustomers {
        customers: top
            .customers
            .into_iter()
            .map(RankedCustomer::from)
            .collect(),
        as_of: top.as_of,
    }))
}

/// The same without a version in the address.
#[utoipa::path(
    get,
    path = "/top-customers",
    operation_id = "listTopCustomersUnversioned",
    tag = "ranking",
    security(("token" = ["rewards.read"])),
    params(TopParameters),
    responses(
        (status = 200, description = "The first customers", body = TopCustomers),
        (status = 400, description = "A parameter cannot be used", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&n_out_of_range()))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "The token does not allow it", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingScope(Scope::RewardsRead)))),
        AnyCall,
        (status = 503, description = "RANKING_NOT_READY, or another problem for the moment", body = ProblemDocument, content_type = "application/problem+json", headers(("Retry-After" = u32, description = "After how many seconds to try again")), example = json!(told(&ApiError::RankingNotReady))),
    )
)]
pub(super) async fn top_unversioned(
    app: State<Arc<App>>,
    caller: Caller<RewardsRead>,
    parameters: Parameters<TopParameters>,
) -> Result<Json<TopCustomers>, ApiError> {
    top(app, caller, parameters).await
}

/// Shows where a customer stands, with two neighbours on either side.
///
/// A player may ask for their own place alone.
#[utoipa::path(
    get,
    path = "/api/v1/customer-info",
    operation_id = "readCustomerInfo",
    tag = "ranking",
    security(("token" = ["rewards.read"])),
    params(InfoParameters),
    responses(
        (status = 200, description = "The place", body = CustomerInfo),
        (status = 400, description = "A parameter cannot be used", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidParameter("A parameter is not known.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "The token does not allow it", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingScope(Scope::RewardsRead)))),
        (status = 404, description = "There is no such customer", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Customer)))),
        AnyCall,
        (status = 503, description = "RANKING_NOT_READY, or another problem for the moment", body = ProblemDocument, content_type = "application/problem+json", headers(("Retry-After" = u32, description = "After how many seconds to try again")), example = json!(told(&ApiError::RankingNotReady))),
    )
)]
pub(super) async fn info(
    State(app): State<Arc<App>>,
    caller: Caller<RewardsRead>,
    Parameters(parameters): Parameters<InfoParameters>,
) -> Result<Json<CustomerInfo>, ApiError> {
    let not_found = || ApiError::NotFound(Thing::Customer);
    let customer = CustomerId::new(parameters.id).map_err(|_| not_found())?;
    if !caller.identity.reaches_customer(&customer) {
        return Err(ApiError::CustomerNotAllowed);
    }
    let standing = app.ranking.standing(&customer).await?;
    let Standing {
        points,
        rank,
        above,
        below,
        as_of,
    } = standing.ok_or_else(not_found)?;
    let places = |places: Vec<Place>| places.into_iter().map(RankedCustomer::from).collect();
    Ok(Json(CustomerInfo {
        customer_id: customer.to_string(),
        points,
        rank,
        above: places(above),
        below: places(below),
        as_of,
    }))
}

/// The same without a version in the address.
#[utoipa::path(
    get,
    path = "/customer-info",
    operation_id = "readCustomerInfoUnversioned",
    tag = "ranking",
    security(("token" = ["rewards.read"])),
    params(InfoParameters),
    responses(
        (status = 200, description = "The place", body = CustomerInfo),
        (status = 400, description = "A parameter cannot be used", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidParameter("A parameter is not known.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "The token does not allow it", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingScope(Scope::RewardsRead)))),
        (status = 404, description = "There is no such customer", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Customer)))),
        AnyCall,
        (status = 503, description = "RANKING_NOT_READY, or another problem for the moment", body = ProblemDocument, content_type = "application/problem+json", headers(("Retry-After" = u32, description = "After how many seconds to try again")), example = json!(told(&ApiError::RankingNotReady))),
    )
)]
pub(super) async fn info_unversioned(
    app: State<Arc<App>>,
    caller: Caller<RewardsRead>,
    parameters: Parameters<InfoParameters>,
) -> Result<Json<CustomerInfo>, ApiError> {
    info(app, caller, parameters).await
}

fn n_out_of_range() -> ApiError {
    ApiError::InvalidParameter(format!("N is a number from 1 to {TOP_MAX}."))
}
