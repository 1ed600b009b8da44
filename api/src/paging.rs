//! Pages of lists: how many, and from where on. Where a page ends is told as a cursor, which is
//! nothing to be read or made by clients; it names a place in the list, not a number of items, so
//! that what comes meanwhile moves nothing.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use form_urlencoded::Serializer;

use crate::error::ApiError;

/// The most items of a page.
pub const LIMIT_MAX: u32 = 100;
/// The items of a page when nothing is said.
pub const LIMIT_DEFAULT: u32 = 20;
/// The longest cursor that is looked at, in bytes: an id of 128 characters has up to 512 bytes, and
/// base64 makes four of three.
const CURSOR_MAX_BYTES: usize = 1024;

/// How many items a page has.
///
/// # Errors
/// [`ApiError::InvalidParameter`] for a number that is not within the limits.
pub fn limit(asked: Option<u32>) -> Result<u32, ApiError> {
    match asked.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT_MAX => Ok(limit),
        _ => Err(ApiError::InvalidParameter(format!(
            "limit is a number from 1 to {LIMIT_MAX}."
        ))),
    }
}

/// The cursor of a place in a list. `list` says in which.
pub fn cursor(list: &str, place: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{list}\n{place}"))
}

/// The place of a cursor in this list.
///
/// # Errors
/// [`ApiError::InvalidParameter`] for what is no cursor, or one of another list.
pub fn place<T>(
    list: &str,
    cursor: Option<&str>,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, ApiError> {
    let Some(cursor) = cursor else {
        return Ok(None);
    };
    let text = (cursor.len() <= CURSOR_MAX_BYTES)
        .then(|| BASE64_URL_SAFE_NO_PAD.decode(cursor).ok())
        .flatten()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    text.as_deref()
        .and_then(|text| text.split_once('\n'))
        .filter(|(of, _)| *of == list)
        .and_then(|(_, place)| read(place))
        .map(Some)
        .ok_or_else(|| {
            ApiError::InvalidParameter("cursor is not one that came with this list.".to_owned())
        })
}

/// The address of the next page.
pub fn next(path: &str, parameters: &[(&str, Option<&str>)], cursor: &str) -> String {
    let mut query = Serializer::new(String::new());
    for (name, value) in parameters {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.append_pair("cursor", cursor);
    format!("{path}?{}", query.finish())
}

/// A text as a part of a path.
pub fn path_segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            use std::fmt::Write;
            let _ = write!(segment, "%{byte:02X}");
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place_in_its_list_only() {
        let number = |text: &str| text.parse::<i64>().ok();
        let made = cursor("transactions/C1", "42");
        assert!(matches!(
            place("transactions/C1", Some(&made), number),
            Ok(Some(42))
        ));
        assert!(matches!(place("transactions/C1", None, number), Ok(None)));
        for wrong in [
            "",
            "!",
            &made[1..],
            &"A".repeat(600),
            &cursor("transactions/C1", "x"),
        ] {
            assert!(
                place("transactions/C1", Some(wrong), number).is_err(),
                "{wrong}"
            );
        }
        assert!(place("transactions/C2", Some(&made), number).is_err());
    }

    #[test]
    fn limits_are_bounded() {
        assert!(matches!(limit(None), Ok(LIMIT_DEFAULT)));
        assert!(matches!(limit(Some(100)), Ok(100)));
        assert!(limit(Some(0)).is_err() && limit(Some(101)).is_err());
    }

    #[test]
    fn the_next_page_is_an_address() {
        let parameters = [("actor", Some("http://x y")), ("action", None)];
        let next = next("/api/v1/audit", &parameters, "AA-_");
        assert_eq!(next, "/api/v1/audit?actor=http%3A%2F%2Fx+y&cursor=AA-_");
        assert_eq!(path_segment("a b/ü"), "a%20b%2F%C3%BC");
    }
}
