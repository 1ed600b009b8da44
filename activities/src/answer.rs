//! What others answer, read as far as it may go.

/// The body of an answer; of a longer one no more than the first bytes beyond `max_bytes`, so that it is
/// longer still.
///
/// # Errors
/// When the connection breaks or the time is up.
pub(crate) async fn body(
    mut response: reqwest::Response,
    max_bytes: usize,
) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() <= max_bytes {
        let Some(part) = response.chunk().await? else {
            break;
        };
        body.extend_from_slice(&part);
    }
    Ok(body)
}
