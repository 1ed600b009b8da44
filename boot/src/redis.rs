//! The connection to Redis, which what replicas share is in.

use std::{sync::Arc, time::Duration};

use kv::Redis;

use crate::settings::RedisSettings;

/// How long whoever works in the background waits for Redis.
const BACKGROUND_WITHIN: Duration = Duration::from_secs(5);

/// The Redis of the configuration, if it has one, for whoever is waited for.
///
/// # Errors
/// When its address cannot be read.
pub fn connect(settings: &RedisSettings) -> anyhow::Result<Option<Arc<Redis>>> {
    at(settings, settings.answer_within())
}

/// The same, for whoever works in the background.
///
/// # Errors
/// When its address cannot be read.
pub fn connect_patiently(settings: &RedisSettings) -> anyhow::Result<Option<Arc<Redis>>> {
    at(settings, settings.answer_within().max(BACKGROUND_WITHIN))
}

fn at(settings: &RedisSettings, within: Duration) -> anyhow::Result<Option<Arc<Redis>>> {
    let url = settings.url.as_ref();
    url.map(|url| Redis::at(url.expose(), within)).transpose()
}
