//! The routes, each under its description.

mod audit;
mod auth;
mod callbacks;
mod dev;
mod events;
mod health;
mod loyalty;
mod notifications;
mod oauth;
pub(crate) mod page;
mod partner_callbacks;
mod promotions;
mod query;
mod ranking;
mod redeem;
mod rewards;
mod story;
mod transactions;
mod users;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
};
use boot::Settings;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowCredentials, CorsLayer},
    set_header::SetResponseHeaderLayer,
    timeout::TimeoutLayer,
};
use utoipa::{OpenApi, openapi};
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::{
    App,
    error::{ApiError, Thing},
    limits::limit,
    observe::{REQUEST_ID, observe},
    openapi::Document,
};

/// How long a request may take, beside what its client wants to wait: longer than a lock is waited
/// for. A database that hangs is not noticed otherwise.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// For two years, as browsers' own lists want it.
const STAY_WITH_TLS: HeaderValue = HeaderValue::from_static("max-age=63072000");
/// How long a browser may keep that a page may call.
const PREFLIGHT_KEPT_FOR: Duration = Duration::from_secs(600);

/// All routes with their descriptions; those of the dev profile only when they are asked for.
fn described(dev: bool) -> (Router<Arc<App>>, openapi::OpenApi) {
    let routes = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(redeem::redeem))
        .routes(routes!(redeem::cancel))
        .routes(routes!(story::read))
        .routes(routes!(rewards::read))
        .routes(routes!(query::query))
        .routes(routes!(events::send))
        .routes(routes!(loyalty::read, loyalty::spend))
        .routes(routes!(
            loyalty::read_unversioned,
            loyalty::spend_unversioned
        ))
        .routes(routes!(transactions::list))
        .routes(routes!(notifications::list))
        .routes(routes!(notifications::read))
        .routes(routes!(notifications::read_all))
        .routes(routes!(notifications::watch))
        .routes(routes!(ranking::top))
        .routes(routes!(ranking::top_unversioned))
        .routes(routes!(ranking::info))
        .routes(routes!(ranking::info_unversioned))
        .routes(routes!(audit::list))
        .routes(routes!(callbacks::success))
        .routes(routes!(callbacks::failure))
        .routes(routes!(partner_callbacks::answer))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(dev::jwks))
        .routes(routes!(oauth::metadata))
        .routes(routes!(oauth::token))
        .routes(routes!(auth::register))
        .routes(routes!(auth::register_staff))
        .routes(routes!(auth::login))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::logout))
        .routes(routes!(users::deactivate))
        .routes(routes!(promotions::list, promotions::create))
        .routes(routes!(promotions::claim::list))
        .routes(routes!(promotions::claim::claim))
        .routes(routes!(promotions::assign::assign))
        .routes(routes!(promotions::assign::read))
        .routes(routes!(promotions::assign::cancel));
    let routes = if dev {
        routes.routes(routes!(dev::get_token, dev::post_token))
    } else {
        routes
    };
    routes
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            ANSWER_WITHIN,
        ))
        // It has a limit of its own, by how long its client wants to wait.
        .routes(routes!(redeem::read))
        .split_for_parts()
}

/// The description of the API, without what only the dev profile has.
pub fn document() -> openapi::OpenApi {
    described(false).1
}

/// The whole API.
pub fn router(app: Arc<App>) -> Router {
    let (routes, document) = described(app.dev_issuer.is_some());
    let documentation = SwaggerUi::new("/docs")
        .url("/openapi.json", document)
        .config(
            Config::default()
                .persist_authorization(true)
                .try_it_out_enabled(true),
        );
    let routes = routes
        .merge(documentation)
        .merge(page::routes())
        .fallback(async || ApiError::NotFound(Thing::Route))
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), limit));
    let routes = match cors(&app.settings) {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    // Browsers that have reached it over TLS once are to stay there.
    let stay_with_tls = app
        .settings
        .api
        .public_url
        .starts_with("https://")
        .then_some(STAY_WITH_TLS);
    routes
        .layer(SetResponseHeaderLayer::if_not_present(
            header::STRICT_TRANSPORT_SECURITY,
            move |_: &Response| stay_with_tls.clone(),
        ))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(observe))
        .with_state(app)
}

/// Lets pages of the configured origins call from a browser; with cookies those that may use the
/// refresh cookie.
fn cors(settings: &Settings) -> Option<CorsLayer> {
    let with_cookies: Vec<HeaderValue> = settings
        .auth
        .own
        .iter()
        .flat_map(|own| &own.cookie_origins)
        .filter_map(|origin| origin.parse().ok())
        .collect();
    let origins: Vec<HeaderValue> = settings
        .api
        .cors_origins
        .iter()
        .filter_map(|origin| origin.parse().ok())
        .chain(with_cookies.iter().cloned())
        .collect();
    if origins.is_empty() {
        return None;
    }
    let name = HeaderName::from_static;
    Some(
        CorsLayer::new()
            .allow_origin(origins)
            .allow_credentials(AllowCredentials::predicate(move |origin, _| {
                with_cookies.contains(origin)
            }))
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                name("idempotency-key"),
                REQUEST_ID,
            ])
            .expose_headers([
                header::LOCATION,
                header::RETRY_AFTER,
                header::WWW_AUTHENTICATE,
                name("idempotent-replayed"),
                name("ratelimit"),
                name("ratelimit-policy"),
                REQUEST_ID,
            ])
            .max_age(PREFLIGHT_KEPT_FOR),
    )
}

/// Runs to its end even when the client hangs up.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    use tracing::Instrument;
    tokio::spawn(work.in_current_span())
        .await
        .unwrap_or_else(|error| Err(ApiError::Internal(error.to_string())))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the layer hands the panic over"
)]
fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic");
    ApiError::Internal(said.to_owned()).into_response()
}
