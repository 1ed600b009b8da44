//! Promotions: staff make, list and assign them; players see their own and claim them.

pub(super) mod assign;
pub(super) mod claim;

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, SecondsFormat, Utc};
use domain::{
    Currency, Promotion, PromotionId, PromotionType, Refusal, RefusalClass,
    money::Amount,
    programme::BonusError,
    promotion::{Terms, TermsError},
};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use store::{
    audit,
    promotions::{self, Created, Filter},
};
use utoipa::{
    IntoParams, ToSchema,
    openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type},
};
use uuid::Uuid;

use crate::{
    App,
    auth::{AsStaff, Holder, Role},
    body::{self, JsonBody},
    error::{ApiError, ProblemDocument},
    idempotency::{self, Claim, Reply},
    openapi::{AnyBody, AnyCall, told},
    paging,
    parameters::{IdempotencyKey, Origin, Parameters, instant, instant_schema},
};

/// A promotion that staff want.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewPromotion, example = json!({
    "title": "Ten to begin the year", "description": "For everybody who plays in January",
    "type": "DEPOSIT_MATCH", "amount": "10.00", "startDate": "2026-01-01",
    "endDate": "2026-02-01T00:00:00Z"
}))]
pub(in crate::routes) struct NewPromotion {
    /// What players see first.
    #[schema(min_length = 1, max_length = 120)]
    title: String,
    /// What players can read.
    #[serde(default)]
    #[schema(max_length = 2000)]
    description: String,
    /// What kind of promotion it is. Of some types, such as `WELCOME_BONUS`, only one may be active
    /// at a time.
    #[serde(rename = "type")]
    #[schema(pattern = "^[A-Z][A-Z0-9_]{0,63}$")]
    kind: String,
    /// Its worth, an exact decimal above zero: the points it gives are this in the programme's
    /// currency, times the programme's points per unit, rounded down.
    #[schema(schema_with = amount_schema)]
    amount: Box<RawValue>,
    /// The currency of the amount, three capital letters; the programme's own when it is left out.
    #[schema(pattern = "^[A-Z]{3}$")]
    currency: Option<String>,
    /// From when it holds: an ISO date (UTC) or an RFC 3339 instant.
    #[schema(schema_with = instant_schema)]
    start_date: String,
    /// The first instant at which it does not hold any more.
    #[schema(schema_with = instant_schema)]
    end_date: String,
    /// Whether it can be assigned and claimed.
    #[serde(default = "active")]
    #[schema(default = true)]
    is_active: bool,
}

const fn active() -> bool {
    true
}

/// A decimal, as text or as a number.
fn amount_schema() -> Schema {
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(r"^[0-9]{1,18}(\.[0-9]{1,9})?$"));
    let number = ObjectBuilder::new()
        .schema_type(Type::Number)
        .exclusive_minimum(Some(0));
    Schema::OneOf(OneOfBuilder::new().item(text).item(number).build())
}

/// A promotion.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Promotion, example = json!({
    "id": "01926f3e-8f7a-7c1e-9d43-0a4c1f2b3d4e", "title": "Ten to begin the year",
    "description": "For everybody who plays in January", "type": "DEPOSIT_MATCH",
    "amount": "10", "startDate": "2026-01-01T00:00:00Z", "endDate": "2026-02-01T00:00:00Z",
    "isActive": true, "createdAt": "2025-12-20T09:00:00Z"
}))]
pub(in crate::routes) struct PromotionBody {
    /// Its id.
    id: String,
    /// What players see first.
    title: String,
    /// What players can read.
    description: String,
    /// What kind of promotion it is.
    #[serde(rename = "type")]
    kind: String,
    /// Its worth, an exact decimal.
    amount: String,
    /// The currency of the amount; without one it is the programme's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    /// From when it holds.
    start_date: DateTime<Utc>,
    /// The first instant at which it does not hold any more.
    end_date: DateTime<Utc>,
    /// Whether it can be assigned and claimed.
    is_active: bool,
    /// When it was made.
    created_at: DateTime<Utc>,
}

impl From<Promotion> for PromotionBody {
    fn from(promotion: Promotion) -> Self {
        let terms = promotion.terms;
        Self {
            id: promotion.promotion_id.into(),
            title: terms.title,
            description: terms.description,
            kind: terms.kind.into(),
            amount: terms.amount.to_string(),
            currency: terms.currency.map(|currency| currency.to_string()),
            start_date: terms.starts_at,
            end_date: terms.ends_at,
            is_active: terms.is_active,
            created_at: promotion.created_at,
        }
    }
}

impl NewPromotion {
    /// The terms, once they make sense.
    fn terms(self) -> Result<Terms, ApiError> {
        let refused = |class, reason: String| ApiError::Refused(Refusal::new(class, reason));
        let kind = PromotionType::new(self.kind)
            .map_err(|error| ApiError::InvalidBody(format!("{error}.")))?;
        let amount = exact(&self.amount)
            .ok_or_else(|| "it is neither text nor a number".to_owned())
            .and_then(|text| Amount::parse(&text).map_err(|error| error.to_string()))
            .map_err(|why| refused(RefusalClass::InvalidAmount, format!("amount: {why}")))?;
        let currency = self.currency.map(|code| {
            Currency::parse(&code).ok_or_else(|| {
                let why = "currency is not three capital letters".to_owned();
                refused(RefusalClass::UnknownCurrency, why)
            })
        });
        let moment = |name, text: &str| {
            instant(name, text)
                .map_err(|error| refused(RefusalClass::InvalidTimestamp, error.to_string()))
        };
        let terms = Terms {
            kind,
            title: self.title,
            description: self.description,
            amount,
            currency: currency.transpose()?,
            starts_at: moment("startDate", &self.start_date)?,
            ends_at: moment("endDate", &self.end_date)?,
            is_active: self.is_active,
        };
        terms.checked().map_err(|error| match error {
            TermsError::Amount => refused(RefusalClass::InvalidAmount, error.to_string()),
            TermsError::Period => refused(RefusalClass::InvalidTimestamp, error.to_string()),
            TermsError::Title | TermsError::Description => {
                ApiError::InvalidBody(format!("{error}."))
            }
        })
    }
}

/// What is written as a number or in quotes, digit by digit.
fn exact(amount: &RawValue) -> Option<String> {
    let written = amount.get();
    if written.starts_with('"') {
        serde_json::from_str(written).ok()
    } else {
        Some(written.to_owned())
    }
}

/// Makes a promotion.
#[utoipa::path(
    post,
    path = "/api/v1/promotions",
    operation_id = "createPromotion",
    tag = "promotions",
    security(("token" = ["staff"]), ("token" = ["admin"])),
    params(("Idempotency-Key" = String, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
        description = "The client's own key for this request", example = "7f1c1b52-8")),
    request_body(content = NewPromotion, content_type = "application/json"),
    responses(
        (status = 201, description = "Made", body = PromotionBody),
        (status = 400, description = "The promotion makes no sense, or would give no points", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidBody("The body is not JSON.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "Not for this role: staff or admin", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingRole(Role::Staff)))),
        (status = 409, description = "PROMOTION_OVERLAPS or REQUEST_IN_PROGRESS", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::PromotionOverlaps("01926f3e-8f7a-7c1e-9d43-0a4c1f2b3d4e".to_owned())))),
        AnyBody,
        (status = 415, description = "The body is not JSON", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::UnsupportedMediaType))),
        (status = 422, description = "The Idempotency-Key was used for another request", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyReused))),
        AnyCall,
    )
)]
pub(in crate::routes) async fn create(
    State(app): State<Arc<App>>,
    staff: Holder<AsStaff>,
    origin: Origin,
    key: IdempotencyKey,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let terms = body::read::<NewPromotion>(&body)?.terms()?;
    let identity = staff.identity;
    let keyed = idempotency::Request::new(&identity, "POST /api/v1/promotions", key, "", &body);
    let (mut tx, _turn) = match idempotency::claim(&app, &keyed).await? {
        Claim::Do(tx, turn) => (tx, turn),
        Claim::Answered(reply) => return Ok(reply),
    };
    // By the rules in force: they may be others than when the same request was answered.
    worth(&app, &terms)?;
    let promotion_id = PromotionId::new(Uuid::now_v7().to_string())
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    let is_exclusive = app
        .settings
        .promotions
        .exclusive_types
        .contains(&terms.kind);
    let created = promotions::create(&mut tx, &promotion_id, &terms, is_exclusive).await?;
    let reply = match created {
        Created::Overlaps(other) => Reply::problem(&ApiError::PromotionOverlaps(other.into())),
        Created::New => {
            let change = audit::Change {
                actor: &identity.client(),
                action: "promotion.create",
                subject: promotion_id.as_str(),
                request_id: &origin.request_id,
                address: origin.address.as_deref(),
                detail: json!({
                    "type": terms.kind, "amount": terms.amount.to_string(),
                    "currency": terms.currency.map(|currency| currency.to_string()),
                    "startDate": terms.starts_at, "endDate": terms.ends_at,
                    "isActive": terms.is_active,
                }),
            };
            audit::write(&mut tx, &change).await?;
            let made = promotions::find(&mut tx, &promotion_id).await?;
            let made = made.ok_or_else(|| ApiError::Internal("it has vanished".to_owned()))?;
            Reply::new(StatusCode::CREATED, &PromotionBody::from(made), None)
        }
    };
    idempotency::finish_in(tx, &keyed, &reply).await?;
    Ok(reply)
}

/// Refuses a promotion that nobody could claim by the rules as they are.
fn worth(app: &App, terms: &Terms) -> Result<(), ApiError> {
    let programme = app.programme.current();
    let Err(error) = programme.bonus(terms.amount, terms.currency) else {
        return Ok(());
    };
    let class = match error {
        BonusError::UnknownCurrency(_) => RefusalClass::UnknownCurrency,
        BonusError::NoPoints | BonusError::TooManyPoints => RefusalClass::InvalidAmount,
    };
    let reason = format!("amount: {error}");
    Err(ApiError::Refused(Refusal::new(class, reason)))
}

/// Which promotions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::routes) struct PromotionParameters {
    /// Of this type.
    #[serde(rename = "type")]
    #[param(pattern = "^[A-Z][A-Z0-9_]{0,63}$", example = "WELCOME_BONUS")]
    kind: Option<String>,
    /// Active, or not.
    active: Option<bool>,
    /// Whose period holds this instant: an ISO date (UTC) or an RFC 3339 instant.
    #[param(schema_with = instant_schema, example = "2026-01-15")]
    at: Option<String>,
    /// How many promotions.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// Where the page begins: the cursor in `next` of the page before. The newest page without one.
    #[param(max_length = 1024)]
    cursor: Option<String>,
}

/// A part of the promotions, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "promotions": [{
        "id": "01926f3e-8f7a-7c1e-9d43-0a4c1f2b3d4e", "title": "Ten to begin the year",
        "description": "For everybody who plays in January", "type": "DEPOSIT_MATCH",
        "amount": "10", "startDate": "2026-01-01T00:00:00Z", "endDate": "2026-02-01T00:00:00Z",
        "isActive": true, "createdAt": "2025-12-20T09:00:00Z"
    }],
    "next": "/api/v1/promotions?active=true&limit=1&cursor=cHJvbW90aW9ucw"
}))]
pub(in crate::routes) struct PromotionPage {
    /// The promotions.
    promotions: Vec<PromotionBody>,
    /// Where the next page is; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Lists promotions, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/promotions",
    operation_id = "listPromotions",
    tag = "promotions",
    security(("token" = ["staff"]), ("token" = ["admin"])),
    params(PromotionParameters),
    responses(
        (status = 200, description = "A page of them", body = PromotionPage),
        (status = 400, description = "A parameter cannot be used", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidParameter("A parameter is not known.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "Not for this role: staff or admin", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingRole(Role::Staff)))),
        AnyCall,
    )
)]
pub(in crate::routes) async fn list(
    State(app): State<Arc<App>>,
    _staff: Holder<AsStaff>,
    Parameters(parameters): Parameters<PromotionParameters>,
) -> Result<Json<PromotionPage>, ApiError> {
    let wrong = |error: &dyn std::fmt::Display| ApiError::InvalidParameter(format!("{error}."));
    let kind = parameters.kind.as_deref().map(PromotionType::new);
    let kind = kind.transpose().map_err(|error| wrong(&error))?;
    let at = parameters.at.as_deref().map(|text| instant("at", text));
    let limit = paging::limit(parameters.limit)?;
    let before = paging::place("promotions", parameters.cursor.as_deref(), place)?;
    let filter = Filter {
        kind: kind.as_ref(),
        is_active: parameters.active,
        at: at.transpose()?,
    };
    let before = before.as_ref().map(|(at, id)| (*at, id.as_str()));
    let mut conn = app.pool.acquire().await.map_err(store::Error::from)?;
    let mut page = promotions::page(&mut conn, filter, before, i64::from(limit) + 1).await?;
    let has_more = page.len() > limit as usize;
    page.truncate(limit as usize);
    let next = page.last().filter(|_| has_more).map(|last| {
        let cursor = cursor("promotions", last.created_at, &last.promotion_id);
        let active = parameters.active.map(|active| active.to_string());
        let kept = [
            ("type", parameters.kind.as_deref()),
            ("active", active.as_deref()),
            ("at", parameters.at.as_deref()),
            ("limit", Some(&*limit.to_string())),
        ];
        paging::next("/api/v1/promotions", &kept, &cursor)
    });
    Ok(Json(PromotionPage {
        promotions: page.into_iter().map(PromotionBody::from).collect(),
        next,
    }))
}

/// The cursor of a promotion in a list that is ordered by an instant.
fn cursor(list: &str, at: DateTime<Utc>, promotion_id: &PromotionId) -> String {
    let at = at.to_rfc3339_opts(SecondsFormat::Micros, true);
    paging::cursor(list, &format!("{at} {promotion_id}"))
}

fn place(text: &str) -> Option<(DateTime<Utc>, String)> {
    let (at, id) = text.split_once(' ')?;
    let id = PromotionId::new(id).ok()?;
    Some((instant("cursor", at).ok()?, id.into()))
}
