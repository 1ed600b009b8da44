//! The audit record, for those who work for the programme.

use std::sync::Arc;

use axum::{Json, extract::State};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use store::audit::{self, Filter};
use utoipa::{IntoParams, ToSchema};

use crate::{
    App,
    auth::{AsStaff, Holder, Role},
    error::{ApiError, ProblemDocument},
    openapi::{AnyCall, told},
    paging,
    parameters::{Parameters, instant, instant_schema},
};

/// The longest text that is looked for, in characters; no actor or subject is longer.
const TEXT_MAX_CHARS: usize = 512;

/// Which records.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditParameters {
    /// By whom: the issuer and the subject of a token, or `merchant` and its id.
    #[param(
        max_length = 512,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$",
        example = "http://127.0.0.1:21000 partner"
    )]
    actor: Option<String>,
    /// What was done.
    #[param(
        max_length = 512,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$",
        example = "redeem.request"
    )]
    action: Option<String>,
    /// To what: the id of the thing.
    #[param(
        max_length = 512,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$",
        example = "R-1001"
    )]
    subject: Option<String>,
    /// The first instant that counts: an ISO date (UTC) or an RFC 3339 instant.
    #[param(schema_with = instant_schema, example = "2026-03-14")]
    from: Option<String>,
    /// The first instant that does not count any more.
    #[param(schema_with = instant_schema, example = "2026-03-15")]
    to: Option<String>,
    /// How many records.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// Where the page begins: the cursor in `next` of the page before. The newest page without one.
    #[param(max_length = 1024)]
    cursor: Option<String>,
}

/// A part of the audit record, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "records": [{
        "auditId": "77", "at": "2026-03-14T12:00:00Z", "actor": "http://127.0.0.1:21000 partner",
        "action": "redeem.request", "subject": "R-1001",
        "requestId": "01926f3e-8f7a-7c1e-9d43-0a4c1f2b3d4e", "address": "192.0.2.7",
        "detail": { "customerId": "C-42", "merchantId": "M1", "orderId": "ORD-77", "points": 250 }
    }],
    "next": "/api/v1/audit?action=redeem.request&limit=1&cursor=YXVkaXQ"
}))]
pub(super) struct AuditPage {
    /// The records.
    records: Vec<AuditRecord>,
    /// Where the next page is; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// One change.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditRecord {
    /// The record's id.
    audit_id: String,
    /// When.
    at: DateTime<Utc>,
    /// Who.
    actor: String,
    /// What was done.
    action: String,
    /// To what.
    subject: String,
    /// In which request.
    request_id: String,
    /// From which address.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// What else there is to know.
    detail: serde_json::Value,
}

/// Lists who changed what, when and from where, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/audit",
    operation_id = "listAudit",
    tag = "audit",
    security(("token" = ["staff"]), ("token" = ["admin"])),
    params(AuditParameters),
    responses(
        (status = 200, description = "A page of the record", body = AuditPage),
        (status = 400, description = "A parameter cannot be used", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidParameter("A parameter is not known.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "Not for this role: staff or admin", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingRole(Role::Staff)))),
        AnyCall,
    )
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _staff: Holder<AsStaff>,
    Parameters(parameters): Parameters<AuditParameters>,
) -> Result<Json<AuditPage>, ApiError> {
    let wrong = |text: &str| Err(ApiError::InvalidParameter(text.to_owned()));
    for (name, text) in [
        ("actor", &parameters.actor),
        ("action", &parameters.action),
        ("subject", &parameters.subject),
    ] {
        let cannot_be = |text: &String| {
            text.chars().count() > TEXT_MAX_CHARS || text.chars().any(char::is_control)
        };
        if text.as_ref().is_some_and(cannot_be) {
            return wrong(&format!("{name} is too long or has control characters."));
        }
    }
    let read =
        |name, text: &Option<String>| text.as_deref().map(|text| instant(name, text)).transpose();
    let (from, to) = (read("from", &parameters.from)?, read("to", &parameters.to)?);
    if matches!((from, to), (Some(from), Some(to)) if from >= to) {
        return wrong("from must be before to.");
    }
    let limit = paging::limit(parameters.limit)?;
    let before = paging::place("audit", parameters.cursor.as_deref(), place)?;
    let filter = Filter {
        actor: parameters.actor.as_deref(),
        action: parameters.action.as_deref(),
        subject: parameters.subject.as_deref(),
        from,
        to,
    };
    let mut conn = app.pool.acquire().await.map_err(store::Error::from)?;
    let mut page = audit::page(&mut conn, filter, before, i64::from(limit) + 1).await?;
    let has_more = page.len() > limit as usize;
    page.truncate(limit as usize);
    let next = page.last().filter(|_| has_more).map(|last| {
        let at = last.at.to_rfc3339_opts(SecondsFormat::Micros, true);
        let cursor = paging::cursor("audit", &format!("{at} {}", last.audit_id));
        let kept = [
            ("actor", parameters.actor.as_deref()),
            ("action", parameters.action.as_deref()),
            ("subject", parameters.subject.as_deref()),
            ("from", parameters.from.as_deref()),
            ("to", parameters.to.as_deref()),
            ("limit", Some(&*limit.to_string())),
        ];
        paging::next("/api/v1/audit", &kept, &cursor)
    });
    let records = page.into_iter().map(|record| AuditRecord {
        audit_id: record.audit_id.to_string(),
        at: record.at,
        actor: record.actor,
        action: record.action,
        subject: record.subject,
        request_id: record.request_id,
        address: record.address,
        detail: record.detail,
    });
    Ok(Json(AuditPage {
        records: records.collect(),
        next,
    }))
}

fn place(text: &str) -> Option<(DateTime<Utc>, i64)> {
    let (at, id) = text.split_once(' ')?;
    Some((instant("cursor", at).ok()?, id.parse().ok()?))
}
