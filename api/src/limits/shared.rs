//! The buckets in Redis, which replicas share.

use std::{sync::Arc, time::Duration};

use boot::settings::ClassLimits;
use kv::Redis;
use redis::Script;
use sha2::{Digest, Sha256};

use super::{Class, Standing};

/// Takes one from a bucket. KEYS: the bucket. ARGV: how many it holds, and the microseconds until
/// another one is there. Answers with what is left, or with -1 and the microseconds until there is
/// one.
///
/// What is kept is when the bucket will be full (the generic cell rate algorithm), by the clock of
/// Redis, so that replicas need not agree on the time of day.
const TAKE: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local holds, refill = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = tonumber(redis.call('GET', KEYS[1]) or now)
full = math.min(math.max(full, now), now + holds * refill)
local after = full + refill
local over = after - now - holds * refill
if over > 0 then
  return {-1, math.ceil(over)}
end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
return {math.floor((holds * refill - (after - now)) / refill), 0}
";

/// The buckets in Redis.
pub(super) struct Shared {
    redis: Arc<Redis>,
    take: Script,
}

impl Shared {
    pub(super) fn new(redis: Arc<Redis>) -> Self {
        Self {
            redis,
            take: Script::new(TAKE),
        }
    }

    /// Takes one, unless Redis does not answer.
    pub(super) async fn take(
        &self,
        class: Class,
        settings: ClassLimits,
        client: &str,
    ) -> Option<Standing> {
        let mut take = self.take.key(key(class, client));
        take.arg(settings.capacity)
            .arg((1_000_000 / settings.refill_per_second.max(1)).max(1));
        let (left, wait): (i64, u64) = self
            .redis
            .ask(async |mut connection| take.invoke_async(&mut connection).await)
            .await?;
        Some(match u32::try_from(left) {
            Ok(remaining) => Standing {
                remaining,
                wait: None,
            },
            Err(_) => Standing {
                remaining: 0,
                wait: Some(Duration::from_micros(wait)),
            },
        })
    }
}

fn key(class: Class, client: &str) -> String {
    let client = hex::encode(Sha256::digest(client));
    format!("meed:limit:{}:{client}", class.as_str())
}
