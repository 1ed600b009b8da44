//! The description of the API: OpenAPI 3.1, generated from the handlers.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use utoipa::{
    IntoResponses, Modify, OpenApi,
    openapi::{
        self, Ref, RefOr,
        content::ContentBuilder,
        header::{Header, HeaderBuilder},
        response::{Response, ResponseBuilder},
        schema::{Object, ObjectBuilder, Type},
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};

use crate::{
    body::BODY_MAX_BYTES,
    error::{ApiError, PROBLEM_JSON, ProblemDocument},
};

/// The request of the examples.
const EXAMPLE_REQUEST: &str = "01926f3e-8f7a-7c1e-9d43-0a4c1f2b3d4e";
const EXAMPLE_PATH: &str = "/api/v1/redeem";

/// What is said of the API as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Meed",
        description = "Loyalty points: balances, redemptions, callbacks.\n\nErrors are problem \
            documents (RFC 9457) with a stable `code`. A POST that changes something needs an \
            `Idempotency-Key`: the same key and body replays the answer. A client that asks too \
            often is told to wait (429); the headers `RateLimit-Policy` and `RateLimit` say how \
            much there is and what is left. In the dev profile, \
            `GET /dev/token?sub=me&scope=rewards.read%20rewards.redeem` gives a token."
    ),
    components(schemas(ProblemDocument)),
    modifiers(&Security),
    tags(
        (name = "redeem", description = "Redeeming points at merchants"),
        (name = "rewards", description = "Balances, histories, events"),
        (name = "loyalty", description = "A customer's own account"),
        (name = "promotions", description = "Promotions: made, assigned, claimed"),
        (name = "notifications", description = "What players are told, in lists and as it happens"),
        (name = "ranking", description = "Who has earned most"),
        (name = "callbacks", description = "Late answers"),
        (name = "tokens", description = "Tokens for clients"),
        (name = "users", description = "The product's own users: registering, logging in, sessions"),
        (name = "audit", description = "Who changed what"),
        (name = "operations", description = "Health, metrics, keys")
    )
)]
pub(crate) struct Document;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let mut bearer = Http::new(HttpAuthScheme::Bearer);
        bearer.bearer_format = Some("JWT".to_owned());
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        let basic = Http::new(HttpAuthScheme::Basic);
        components.add_security_scheme("clientSecret", SecurityScheme::Http(basic));
        let signature = ApiKeyValue::with_description(
            "Meed-Signature",
            "`v1=` and the lower-case hexadecimal HMAC-SHA256 of `<Meed-Timestamp>.<body>` under \
             the merchant's key; `Meed-Timestamp` is the Unix time in seconds",
        );
        components.add_security_scheme(
            "merchantSignature",
            SecurityScheme::ApiKey(ApiKey::Header(signature)),
        );
    }
}

/// What every call may answer besides, whatever it is for.
#[derive(Debug)]
pub(crate) struct AnyCall;

impl IntoResponses for AnyCall {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let text = |description: &str| header(Type::String, description);
        let retry_after = || header(Type::Integer, "After how many seconds to try again");
        let limited = problem(
            "RATE_LIMITED: the client has asked too often; TOO_MANY_ATTEMPTS: something was guessed \
             at too often",
            &ApiError::RateLimited(Duration::ZERO),
        )
        .header("Retry-After", retry_after())
        .header("RateLimit-Policy", text("How many requests there are, and in how many seconds"))
        .header("RateLimit", text("How many are left, and after how many seconds there are all"));
        let away = problem(
            "UNAVAILABLE: what this needs is out of reach; OVERLOADED: too much is under way; \
             TIMED_OUT: it took too long; TOKEN_KEYS_UNAVAILABLE: tokens cannot be checked now",
            &ApiError::Overloaded,
        )
        .header("Retry-After", retry_after());
        let fault = problem(
            "A fault of this program",
            &ApiError::Internal(String::new()),
        );
        described([("429", limited), ("500", fault), ("503", away)])
    }
}

/// What a call with a body may answer besides.
#[derive(Debug)]
pub(crate) struct AnyBody;

impl IntoResponses for AnyBody {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let slow = problem("The body did not come in time", &ApiError::BodyTooSlow);
        let large = problem(
            "The body is too large",
            &ApiError::BodyTooLarge(BODY_MAX_BYTES),
        );
        described([("408", slow), ("413", large)])
    }
}

fn described<const N: usize>(
    responses: [(&str, ResponseBuilder); N],
) -> BTreeMap<String, RefOr<Response>> {
    responses
        .into_iter()
        .map(|(status, response)| (status.to_owned(), RefOr::T(response.build())))
        .collect()
}

/// The example of a problem: as it is told.
pub(crate) fn told(problem: &ApiError) -> Value {
    problem.problem().document(EXAMPLE_REQUEST, EXAMPLE_PATH)
}

fn problem(description: &str, example: &ApiError) -> ResponseBuilder {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("ProblemDocument")))
        .example(Some(told(example)))
        .build();
    ResponseBuilder::new()
        .description(description)
        .content(PROBLEM_JSON, content)
}

fn header(kind: Type, description: &str) -> Header {
    let schema: Object = ObjectBuilder::new().schema_type(kind).build();
    HeaderBuilder::new()
        .schema(Some(schema))
        .description(Some(description))
        .build()
}
