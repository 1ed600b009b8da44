//! The description of the API: OpenAPI 3.1, generated from the handlers.

use utoipa::{
    Modify, OpenApi,
    openapi::{
        self,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};

use crate::error::ProblemDocument;

/// What is said of the API as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Meed",
        description = "Loyalty points: balances, redemptions, callbacks.\n\nErrors are problem \
            documents (RFC 9457) with a stable `code`. A POST that changes something needs an \
            `Idempotency-Key`: the same key and body replays the answer. In the dev profile, \
            `GET /dev/token?sub=me&scope=rewards.read%20rewards.redeem` gives a token."
    ),
    components(schemas(ProblemDocument)),
    modifiers(&Security),
    tags(
        (name = "redeem", description = "Redeeming points at merchants"),
        (name = "rewards", description = "Balances, histories, events"),
        (name = "loyalty", description = "A customer's own account"),
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
