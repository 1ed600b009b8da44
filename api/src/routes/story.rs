//! What happened to a redemption, for those who work for the programme.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use boot::web_ui::WebUi;
use chrono::{DateTime, Utc};
use domain::{Points, RedeemRequestId, redemption::PartnerVerdict};
use serde::Serialize;
use store::story::{self, Kind, Step};
use utoipa::ToSchema;

use super::redeem::{RedemptionBody, may_see};
use crate::{
    App,
    auth::{AsStaff, Holder, Role},
    error::{ApiError, ProblemDocument, Thing},
    openapi::{AnyCall, told},
};

/// What happened to a redemption.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RedemptionStory, example = json!({
    "redemption": {
        "redeemRequestId": "R-1001", "customerId": "C-42", "status": "SUCCESS",
        "pointsDeducted": 250, "balanceAfter": 750,
        "merchantContext": { "merchantId": "M1", "orderId": "ORD-77" },
        "createdAt": "2026-03-14T12:00:00Z", "updatedAt": "2026-03-14T12:00:00.250Z"
    },
    "requestedPoints": 250,
    "partner": { "verdict": "CONFIRMED", "detail": "C-9001" },
    "cancelRequested": false,
    "holdExpiresAt": "2026-03-14T12:15:00Z",
    "steps": [
        { "at": "2026-03-14T12:00:00Z", "kind": "STATE",
          "what": "QUEUED: 250 points at M1 for its order ORD-77, asked for over HTTP" },
        { "at": "2026-03-14T12:00:00.004Z", "kind": "TRANSFER",
          "what": "REDEMPTION: 250 points from AVAILABLE to HELD (redeem R-1001, available 750, held 250)" },
        { "at": "2026-03-14T12:00:00.004Z", "kind": "STATE", "what": "RESERVED: the points are held" },
        { "at": "2026-03-14T12:00:00.006Z", "kind": "STATE", "what": "CONFIRMING: the merchant is asked" },
        { "at": "2026-03-14T12:00:00.250Z", "kind": "STATE", "what": "SUCCESS: 250 points deducted" }
    ],
    "workflow": {
        "id": "R-1001", "url": "https://temporal.example/namespaces/meed/workflows/R-1001"
    }
}))]
pub(super) struct StoryBody {
    /// Where it stands.
    redemption: RedemptionBody,
    /// The points asked for.
    #[schema(value_type = i64)]
    requested_points: Points,
    /// What the merchant has said.
    partner: PartnerBody,
    /// Whether somebody took it back.
    cancel_requested: bool,
    /// When the hold's time is up.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold_expires_at: Option<DateTime<Utc>>,
    /// What happened, oldest first.
    steps: Vec<StepBody>,
    /// The flow.
    workflow: WorkflowBody,
}

/// What a merchant has said.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PartnerWords)]
struct PartnerBody {
    /// CONFIRMED, REFUSED or VOIDED; absent before it has decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    verdict: Option<PartnerVerdict>,
    /// Its confirmation id or reason, as it gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// What it said after that could count, against what had happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    late_answer: Option<String>,
}

/// One thing that happened.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StoryStep)]
struct StepBody {
    /// When.
    at: DateTime<Utc>,
    /// What kind of thing.
    kind: StepKind,
    /// What, in words for people.
    what: String,
}

/// What kind of thing happened.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum StepKind {
    /// It reached a state.
    State,
    /// Points moved.
    Transfer,
    /// The merchant had its last word.
    Partner,
    /// The merchant called back, or the flow was told so.
    Callback,
    /// Other systems were told, or are to be.
    Message,
    /// Somebody asked for something.
    Request,
}

/// A flow.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WorkflowLink)]
struct WorkflowBody {
    /// Its id in Temporal.
    id: String,
    /// Its address in Temporal's Web UI, where the configuration says where that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl From<Step> for StepBody {
    fn from(step: Step) -> Self {
        Self {
            at: step.at,
            kind: match step.kind {
                Kind::State => StepKind::State,
                Kind::Transfer => StepKind::Transfer,
                Kind::Partner => StepKind::Partner,
                Kind::Callback => StepKind::Callback,
                Kind::Message => StepKind::Message,
                Kind::Request => StepKind::Request,
            },
            what: step.what,
        }
    }
}

/// Tells what happened to a redemption, with the flow that did it.
///
/// States with their times, transfers, what the merchant said, callbacks and published messages.
#[utoipa::path(
    get,
    path = "/api/v1/redeem/{redeemRequestId}/story",
    operation_id = "readRedemptionStory",
    tag = "redeem",
    security(("token" = ["staff"]), ("token" = ["admin"])),
    params(("redeemRequestId" = String, Path, description = "The client's id of it", example = "R-1001")),
    responses(
        (status = 200, description = "What happened", body = StoryBody),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "Not for this role: staff or admin", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingRole(Role::Staff)))),
        (status = 404, description = "There is none, or not for this token's merchants", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Redemption)))),
        AnyCall,
    )
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    staff: Holder<AsStaff>,
    Path(id): Path<String>,
) -> Result<Json<StoryBody>, ApiError> {
    let not_found = || ApiError::NotFound(Thing::Redemption);
    let id = RedeemRequestId::new(id).map_err(|_| not_found())?;
    let mut conn = app.pool.acquire().await.map_err(store::Error::from)?;
    let story = story::of_redemption(&mut conn, &id).await?;
    let story = story
        .filter(|story| may_see(&staff.identity, &story.redemption))
        .ok_or_else(not_found)?;
    let redemption = story.redemption;
    let workflow_id = workflows::id::redeem(&redemption.redeem_request_id);
    let web_ui = WebUi::of(&app.settings.temporal);
    Ok(Json(StoryBody {
        requested_points: redemption.points,
        partner: PartnerBody {
            verdict: redemption.verdict,
            detail: redemption.partner_detail.clone(),
            late_answer: story.late_answer,
        },
        cancel_requested: redemption.cancel_requested,
        hold_expires_at: redemption.hold_expires_at,
        redemption: redemption.into(),
        steps: story.steps.into_iter().map(StepBody::from).collect(),
        workflow: WorkflowBody {
            url: web_ui.map(|web_ui| web_ui.workflow(&workflow_id)),
            id: workflow_id,
        },
    }))
}
