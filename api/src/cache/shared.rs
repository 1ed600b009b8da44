//! The copies in Redis, which replicas share. Whoever puts one there learns of a newer one.

use std::{sync::Arc, time::Duration};

use domain::CustomerId;
use kv::Redis;
use redis::Script;
use tokio::time::Instant;

use super::Account;

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
    redis: Arc<Redis>,
    keep: Duration,
    offer: Script,
}

impl Shared {
    /// Copies that are kept for so long.
    pub(super) fn new(redis: Arc<Redis>, keep: Duration) -> Self {
        Self {
            redis,
            keep,
            offer: Script::new(OFFER),
        }
    }

    /// The shared copy, and when the ledger was asked for it at the latest.
    pub(super) async fn get(&self, customer: &CustomerId) -> Option<(Account, Instant)> {
        let asked = Instant::now();
        let (copy, left): (Option<Vec<u8>>, i64) = self
            .redis
            .ask(async |mut connection| {
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
            let shared = self.get(customer).await;
            return shared.filter(|(shared, _)| shared.version > account.version);
        }
        let copy = serde_json::to_vec(account).ok()?;
        let more = account.breakdown.is_some() || account.recent.is_some();
        let mut offer = self.offer.key(key(customer));
        offer
            .arg(account.version.account)
            .arg(account.version.tier)
            .arg(copy)
            .arg(u8::from(more))
            .arg(milliseconds(self.keep.saturating_sub(age)))
            .arg(milliseconds(SET_BACK_AFTER));
        let newer: Option<(Vec<u8>, i64)> = self
            .redis
            .ask(async |mut connection| offer.invoke_async(&mut connection).await)
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
}

fn key(customer: &CustomerId) -> String {
    format!("meed:account:{customer}")
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
