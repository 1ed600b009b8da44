//! From which pages a browser sends a request.

use axum::http::{HeaderMap, header};
use boot::Settings;

/// The origin that the browser says; an empty one for what cannot be read.
pub(crate) fn of(headers: &HeaderMap) -> Option<&str> {
    let origin = headers.get(header::ORIGIN)?;
    Some(origin.to_str().unwrap_or_default())
}

/// Whether it is that of the address under which this API is reached.
pub(crate) fn is_own(settings: &Settings, origin: &str) -> bool {
    reqwest::Url::parse(&settings.api.public_url)
        .is_ok_and(|url| url.origin().ascii_serialization() == origin)
}

/// Whether its pages may call this API, as the CORS headers say: its own, those of the host that
/// was asked, and those of the configuration.
pub(crate) fn may_call(settings: &Settings, origin: &str, headers: &HeaderMap) -> bool {
    let asked = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let of_host = origin.split_once("://").map(|(_, host)| host);
    let with_cookies = settings.auth.own.iter().flat_map(|own| &own.cookie_origins);
    is_own(settings, origin)
        || (asked.is_some() && asked == of_host)
        || settings
            .api
            .cors_origins
            .iter()
            .chain(with_cookies)
            .any(|one| one == origin)
}
