//! Redis, which processes share what may be lost in. While it does not answer it is left alone for a
//! moment, and nothing fails for it that can do without.

pub mod measures;
pub mod testing;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use redis::{
    Client, ErrorKind, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::Instant;

/// How long it is left alone after it did not answer.
const LEFT_ALONE_FOR: Duration = Duration::from_secs(1);

/// A connection to Redis.
pub struct Redis {
    connection: ConnectionManager,
    answer_within: Duration,
    left_alone_until: Mutex<Option<Instant>>,
}

impl Redis {
    /// The Redis at this address, which may take so long to answer. Nobody connects yet.
    ///
    /// # Errors
    /// When the address cannot be read.
    pub fn at(url: &str, answer_within: Duration) -> anyhow::Result<Arc<Self>> {
        // The error may quote the address, which may hold a password.
        let client = Client::open(url)
            .ok()
            .context("redis.url (REDIS_URL) is not redis://[user:password@]host:port")?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(answer_within))
            .set_number_of_retries(1);
        Ok(Arc::new(Self {
            connection: client
                .get_connection_manager_lazy(config)
                .ok()
                .context("no connection to Redis can be made")?,
            answer_within,
            left_alone_until: Mutex::default(),
        }))
    }

    /// What it answers, or nothing when it does not answer in time.
    pub async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(ConnectionManager) -> Result<T, RedisError>,
    ) -> Option<T> {
        if self.alone().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let answer = tokio::time::timeout(self.answer_within, question(self.connection.clone()))
            .await
            .unwrap_or_else(|_| Err((ErrorKind::Io, "no answer in time").into()));
        match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                let until = Instant::now() + LEFT_ALONE_FOR;
                let before = self
                    .left_alone_until
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .replace(until);
                measures::redis_failed();
                if before.is_none_or(|before| before + LEFT_ALONE_FOR < Instant::now()) {
                    tracing::warn!(%error, "Redis does not answer; this process is on its own");
                }
                None
            }
        }
    }

    fn alone(&self) -> Option<Instant> {
        *self
            .left_alone_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
