//! The copies in Redis, which replicas share. Whoever puts one there learns of a newer one; while
//! Redis does not answer, it is left alone for a moment, and nothing here fails.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use boot::settings::{CacheSettings, Secret};
use domain::CustomerId;
use redis::{
    Client, ErrorKind, RedisError, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::Instant;

use super::Account;

/// How long it is left alone after it did not answer.
const LEFT_ALONE_FOR: Duration = Duration::from_secs(1);
/// What was read longer ago is not offered: meanwhile a newer copy may have come and gone.
const OFFERED_WITHIN: Duration = Duration::from_secs(2);
/// A newer copy that was kept longer ago than this yields to what is read now: the ledger was set
/// back, such as from a backup.
const SET_BACK_AFTER: Duration = Duration::from_secs(10);

/// Keeps a copy unless a newer one is there, which is returned with the milliseconds it has left.
/// KEYS: the place. ARGV: the account's version, the tier's, the copy, whether it has more than the
/// balance, the milliseconds it is to be kept, and after how many a newer one is not believed.
///
/// Copies are kept for a fixed time from when the ledger was asked, so what is left of it tells how
/// old they are, and replicas need not agree on the time of day.
const OFFER: &str = r"
local held = redis.call('HMGET', KEYS[1], 'account', 'tier', 'copy', 'kept')
if held[1] then
  local account, tier = tonumber(held[1]), tonumber(held[2])
  local mine, minetier = tonumber(ARGV[1]), tonumber(ARGV[2])
  if account > mine or (account == mine and tier > minetier) then
    local now = redis.call('TIME')
    if tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000) - tonumber(held[4])
        < tonumber(ARGV[6]) then
      return {held[3], redis.call('PTTL', KEYS[1])}
    end
  elseif account == mine and tier == minetier and ARGV[4] == '0' then
    redis.call('PEXPIRE', KEYS[1], ARGV[5], 'GT')
    return false
  end
end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'account', ARGV[1], 'tier', ARGV[2], 'copy', ARGV[3],
  'kept', tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return false
";

/// The copies in Redis.
pub(super) struct Shared {
    connection: ConnectionManager,
    keep: Duration,
    answer_within: Duration,
    offer: Script,
    left_alone_until: Mutex<Option<Instant>>,
}

impl Shared {
    /// Copies at this address. Nobody connects yet.
    ///
    /// # Errors
    /// When the address cannot be read.
    pub(super) fn new(url: &Secret, settings: &CacheSettings) -> anyhow::Result<Self> {
        // The error may quote the address, which may hold a password.
        let client = Client::open(url.expose())
            .ok()
            .context("cache.redis_url (REDIS_URL) is not redis://[user:password@]host:port")?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(settings.redis_answer_within()))
            .set_number_of_retries(1);
        Ok(Self {
            connection: client
                .get_connection_manager_lazy(config)
                .ok()
                .context("no connection to Redis can be made")?,
            keep: settings.keep(),
            answer_within: settings.redis_answer_within(),
            offer: Script::new(OFFER),
            left_alone_until: Mutex::default(),
        })
    }

    /// The shared copy, and when the ledger was asked for it at the latest.
    pub(super) async fn get(&self, customer: &CustomerId) -> Option<(Account, Instant)> {
        let asked = Instant::now();
        let mut connection = self.connection.clone();
        let (copy, left): (Option<Vec<u8>>, i64) = self
            .ask(async {
                redis::pipe()
                    .atomic()
                    .hget(key(customer), "copy")
                    .pttl(key(customer))
                    .query_async(&mut connection)
                    .await
            })
            .await?;
        self.read(&copy?, left, asked)
    }

    /// Shares what was read from the ledger at `seen`; the newer copy, if there is one.
    pub(super) async fn offer(
        &self,
        customer: &CustomerId,
        account: &Account,
        seen: Instant,
    ) -> Option<(Account, Instant)> {
        let asked = Instant::now();
        let age = seen.elapsed();
        if age > OFFERED_WITHIN {
            return None;
        }
        let copy = serde_json::to_vec(account).ok()?;
        let more = account.breakdown.is_some() || account.recent.is_some();
        let mut connection = self.connection.clone();
        let mut offer = self.offer.key(key(customer));
        offer
            .arg(account.version.account)
            .arg(account.version.tier)
            .arg(copy)
            .arg(u8::from(more))
            .arg(milliseconds(self.keep.saturating_sub(age)))
            .arg(milliseconds(SET_BACK_AFTER));
        let newer: Option<(Vec<u8>, i64)> = self
            .ask(async { offer.invoke_async(&mut connection).await })
            .await?;
        let (copy, left) = newer?;
        self.read(&copy, left, asked)
    }

    fn read(&self, copy: &[u8], left: i64, asked: Instant) -> Option<(Account, Instant)> {
        // One that another version of this program wrote is none.
        let account = serde_json::from_slice(copy).ok()?;
        let left = Duration::from_millis(u64::try_from(left).ok()?);
        let seen = asked.checked_sub(self.keep.saturating_sub(left))?;
        Some((account, seen))
    }

    async fn ask<T>(&self, question: impl Future<Output = Result<T, RedisError>>) -> Option<T> {
        if self.alone().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let answer = tokio::time::timeout(self.answer_within, question)
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
                metrics::counter!("meed_cache_failures_total").increment(1);
                if before.is_none_or(|before| before + LEFT_ALONE_FOR < Instant::now()) {
                    tracing::warn!(%error, "Redis does not answer; the ledger is asked instead");
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

fn key(customer: &CustomerId) -> String {
    format!("meed:account:{customer}")
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
