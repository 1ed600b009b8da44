//! The ranking in Redis, which every process looks at and one of them feeds.
//!
//! It is a sorted set with the customers as members and what they have earned as score, below zero,
//! so that the order of Redis is that of the ranking: by score, and with the same score by the
//! member's bytes. A score is a double, exact up to 2^53; of two customers who have both earned more
//! than that and differ by less than a rounding, the id decides. (Points that are shown come from
//! the ledger.)
//!
//! Beside it lies its state: which one it is, how far it has followed the ledger, up to when it is
//! complete, and how many are in it. Each script compares this number with what is there, so that
//! whatever was lost or added by somebody else is noticed at once: there is no ranking then, and it
//! is made anew. Set and state are always written together. Who writes says which ranking is meant,
//! and what follows on what: whoever was paused in between and goes on later changes nothing.
//!
//! Another one is made beside it under other names and then takes its place in one step.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use kv::Redis;
use redis::{RedisError, Script, ToRedisArgs, aio::ConnectionManager};
use store::ranking::{Changes, Earned, Position};
use uuid::Uuid;

use crate::{
    Trouble,
    index::{Found, Progress, State},
};

/// The ranking. The braces keep all of it in one place in a cluster.
const LIVE: &str = "meed:{ranking}";
/// Its state.
const LIVE_STATE: &str = "meed:{ranking}:state";
/// The one that is being made.
const NEXT: &str = "meed:{ranking}:next";
/// Its state.
const NEXT_STATE: &str = "meed:{ranking}:next-state";
/// The one before, until it is removed.
const BEFORE: &str = "meed:{ranking}:before";
/// Who is making one.
const MAKER: &str = "meed:{ranking}:maker";

/// How many customers are written at a time. Redis does one thing after the other, and whoever looks
/// meanwhile waits: in a set of millions a customer takes it about ten microseconds.
const AT_A_TIME: usize = 50;
/// Whoever makes one and is not heard of for so long does not make it any more.
const MAKER_GONE_AFTER: Duration = Duration::from_secs(10);

/// Whether a ranking is there and whole. KEYS: set, state.
const IS_WHOLE: &str = r"
local state = redis.call('HMGET', KEYS[2], 'build', 'size', 'as_of', 'position', 'rebuild')
local whole = state[1] and redis.call('ZCARD', KEYS[1]) == tonumber(state[2])
";

/// KEYS: set, state. Its state.
const STATE: &str = "if not whole then return false end return state";

/// KEYS: set, state. ARGV: how many. Up to when it is complete, and the first ones.
const TOP: &str = r"
if not whole then return false end
return {state[3], 0, redis.call('ZRANGE', KEYS[1], 0, ARGV[1] - 1, 'WITHSCORES')}
";

/// KEYS: set, state. ARGV: a customer, how many neighbours. Up to when it is complete, the place of
/// the first one, and they; nobody when the customer is not in it.
const AROUND: &str = r"
if not whole then return false end
local place = redis.call('ZRANK', KEYS[1], ARGV[1])
if not place then return {state[3], 0, {}} end
local first = math.max(place - ARGV[2], 0)
return {state[3], first, redis.call('ZRANGE', KEYS[1], first, place + ARGV[2], 'WITHSCORES')}
";

/// KEYS: set, state. ARGV: score, customer, and so on. Lower scores are kept.
const RAISE: &str = r"
if not whole then return false end
redis.call('ZADD', KEYS[1], 'LT', unpack(ARGV))
redis.call('HSET', KEYS[2], 'size', redis.call('ZCARD', KEYS[1]))
return 1
";

/// KEYS: set, state, maker. ARGV: which one, for how many milliseconds it is still being made, then
/// score, customer, and so on. Adds them if it is this one.
const ADD: &str = r"
if not whole or state[1] ~= ARGV[1] then return false end
redis.call('ZADD', KEYS[1], 'LT', unpack(ARGV, 3))
redis.call('HSET', KEYS[2], 'size', redis.call('ZCARD', KEYS[1]))
if ARGV[2] ~= '0' then redis.call('PEXPIRE', KEYS[3], ARGV[2]) end
return 1
";

/// KEYS: set, state. ARGV: which one, its position before and after, up to when it is complete.
const FOLLOW: &str = r"
if not whole or state[1] ~= ARGV[1] then return false end
if state[4] == ARGV[2] then
  redis.call('HSET', KEYS[2], 'position', ARGV[3])
  if ARGV[4] ~= '' then redis.call('HSET', KEYS[2], 'as_of', ARGV[4]) end
end
return 1
";

/// KEYS: next set, its state, maker. ARGV: which one, milliseconds, rebuild, position, how many are
/// expected. Begins it unless somebody else is making one.
const BEGIN: &str = r"
if not redis.call('SET', KEYS[3], ARGV[1], 'NX', 'PX', ARGV[2]) then return false end
redis.call('UNLINK', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[2], 'build', ARGV[1], 'rebuild', ARGV[3], 'position', ARGV[4],
  'expected', ARGV[5], 'size', 0)
return 1
";

/// KEYS: next set, its state, maker, set, state, the one before. ARGV: which one. It takes the place
/// of the one before, which is removed behind it.
const FINISH: &str = r"
if not whole or state[1] ~= ARGV[1] then return false end
if redis.call('EXISTS', KEYS[4]) == 1 then redis.call('RENAME', KEYS[4], KEYS[6]) end
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[4]) end
redis.call('RENAME', KEYS[2], KEYS[5])
redis.call('UNLINK', KEYS[6])
redis.call('DEL', KEYS[3])
return 1
";

/// KEYS: maker. ARGV: which one. Lets others make one.
const GIVE_UP: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
";

/// The ranking in Redis.
pub(crate) struct SortedSet {
    redis: Arc<Redis>,
    scripts: Scripts,
}

struct Scripts {
    state: Script,
    top: Script,
    around: Script,
    raise: Script,
    add: Script,
    follow: Script,
    begin: Script,
    finish: Script,
    give_up: Script,
}

/// Points as a score keeps them.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a score is a double"
)]
pub(crate) fn kept(points: i64) -> i64 {
    points as f64 as i64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "it was a whole number of 64 bits"
)]
fn points(score: f64) -> i64 {
    -score as i64
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn instant(milliseconds: &str) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(milliseconds.parse().ok()?)
}

fn written(position: &Position) -> String {
    serde_json::to_string(position).unwrap_or_default()
}

/// As arguments: score, customer, and so on.
fn members(earned: &[Earned]) -> Vec<(String, &str)> {
    let members = earned.iter();
    members
        .map(|earned| (format!("-{}", earned.points), earned.customer_id.as_str()))
        .collect()
}

type Line = (Option<String>, u64, Vec<(String, f64)>);

impl SortedSet {
    pub(crate) fn new(redis: Arc<Redis>) -> Self {
        let of = |code: &str| Script::new(&format!("{IS_WHOLE}{code}"));
        Self {
            redis,
            scripts: Scripts {
                state: of(STATE),
                top: of(TOP),
                around: of(AROUND),
                raise: of(RAISE),
                add: of(ADD),
                follow: of(FOLLOW),
                begin: Script::new(BEGIN),
                finish: of(FINISH),
                give_up: Script::new(GIVE_UP),
            },
        }
    }

    async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(ConnectionManager) -> Result<T, RedisError>,
    ) -> Result<T, Trouble> {
        self.redis.ask(question).await.ok_or(Trouble::Away)
    }

    /// Whether the script did what it is for: the ranking is there and is the one that was meant.
    async fn run(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: impl ToRedisArgs,
    ) -> Result<bool, Trouble> {
        let mut call = script.prepare_invoke();
        for key in keys {
            call.key(*key);
        }
        call.arg(arguments);
        let done: Option<i64> = self
            .ask(async |mut connection| call.invoke_async(&mut connection).await)
            .await?;
        Ok(done.is_some())
    }

    async fn look(
        &self,
        script: &Script,
        arguments: impl ToRedisArgs,
    ) -> Result<Option<Found>, Trouble> {
        let mut call = script.key(LIVE);
        call.key(LIVE_STATE).arg(arguments);
        let line: Option<Line> = self
            .ask(async |mut connection| call.invoke_async(&mut connection).await)
            .await?;
        Ok(line.map(|(as_of, first, members)| Found {
            as_of: as_of.as_deref().and_then(instant),
            first,
            customers: members
                .into_iter()
                .map(|(customer_id, score)| Earned {
                    customer_id,
                    points: points(score),
                })
                .collect(),
        }))
    }

    pub(crate) async fn top(&self, count: usize) -> Result<Option<Found>, Trouble> {
        self.look(&self.scripts.top, count).await
    }

    pub(crate) async fn around(
        &self,
        customer: &str,
        neighbours: usize,
    ) -> Result<Option<Found>, Trouble> {
        self.look(&self.scripts.around, (customer, neighbours))
            .await
    }

    pub(crate) async fn state(&self) -> Result<Option<State>, Trouble> {
        type Fields = (String, u64, Option<String>, String, i64);
        let mut call = self.scripts.state.key(LIVE);
        call.key(LIVE_STATE);
        let fields: Option<Fields> = self
            .ask(async |mut connection| call.invoke_async(&mut connection).await)
            .await?;
        // One that another version of this program wrote, and that cannot be read, is none.
        Ok(
            fields.and_then(|(build, customers, as_of, position, rebuild_id)| {
                Some(State {
                    build,
                    rebuild_id,
                    position: serde_json::from_str(&position).ok()?,
                    as_of: as_of.as_deref().and_then(instant),
                    customers,
                })
            }),
        )
    }

    pub(crate) async fn progress(&self) -> Result<Option<Progress>, Trouble> {
        let (maker, loaded, expected): (Option<String>, Option<u64>, Option<u64>) = self
            .ask(async |mut connection| {
                redis::pipe()
                    .get(MAKER)
                    .hget(NEXT_STATE, "size")
                    .hget(NEXT_STATE, "expected")
                    .query_async(&mut connection)
                    .await
            })
            .await?;
        Ok(maker
            .and(loaded.zip(expected))
            .map(|(loaded, expected)| Progress { loaded, expected }))
    }

    pub(crate) async fn raise(&self, earned: &[Earned]) -> Result<(), Trouble> {
        for some in earned.chunks(AT_A_TIME) {
            let keys = [LIVE, LIVE_STATE];
            self.run(&self.scripts.raise, &keys, members(some)).await?;
        }
        Ok(())
    }

    pub(crate) async fn apply(&self, before: &State, changes: &Changes) -> Result<(), Trouble> {
        let keys = [LIVE, LIVE_STATE, MAKER];
        self.follow(&keys, &before.build, &before.position, changes, 0)
            .await
            // Another one has come meanwhile, or it was lost: the next turn finds out.
            .map(drop)
    }

    /// Writes changes to a ranking, and then how far it has come by that; whether it was there.
    async fn follow(
        &self,
        keys: &[&str],
        build: &str,
        before: &Position,
        changes: &Changes,
        made_for_milliseconds: u64,
    ) -> Result<bool, Trouble> {
        for some in changes.earned.chunks(AT_A_TIME) {
            let arguments = (build, made_for_milliseconds, members(some));
            if !self.run(&self.scripts.add, keys, arguments).await? {
                return Ok(false);
            }
        }
        let as_of = changes
            .as_of
            .map(|as_of| as_of.timestamp_millis().to_string());
        let positions = (written(before), written(&changes.position));
        let arguments = (build, positions, as_of.unwrap_or_default());
        self.run(&self.scripts.follow, keys, arguments).await
    }

    pub(crate) async fn begin(
        &self,
        rebuild_id: i64,
        position: Position,
        expected: u64,
    ) -> Result<Option<Build<'_>>, Trouble> {
        let name = Uuid::new_v4().to_string();
        let lease = milliseconds(MAKER_GONE_AFTER);
        let arguments = (&name, lease, rebuild_id, written(&position), expected);
        let keys = [NEXT, NEXT_STATE, MAKER];
        let begun = self.run(&self.scripts.begin, &keys, arguments).await?;
        Ok(begun.then_some(Build {
            index: self,
            name,
            position,
        }))
    }
}

/// One that is being made beside the one that is looked at.
pub(crate) struct Build<'a> {
    index: &'a SortedSet,
    name: String,
    position: Position,
}

impl Build<'_> {
    const KEYS: [&'static str; 3] = [NEXT, NEXT_STATE, MAKER];

    pub(crate) fn position(&self) -> &Position {
        &self.position
    }

    pub(crate) async fn add(&mut self, earned: &[Earned]) -> Result<(), Trouble> {
        let add = &self.index.scripts.add;
        for some in earned.chunks(AT_A_TIME) {
            let arguments = (&self.name, milliseconds(MAKER_GONE_AFTER), members(some));
            if !self.index.run(add, &Self::KEYS, arguments).await? {
                return Err(Trouble::CutOff);
            }
        }
        Ok(())
    }

    pub(crate) async fn apply(&mut self, changes: &Changes) -> Result<(), Trouble> {
        let lease = milliseconds(MAKER_GONE_AFTER);
        let followed = self
            .index
            .follow(&Self::KEYS, &self.name, &self.position, changes, lease)
            .await?;
        if !followed {
            return Err(Trouble::CutOff);
        }
        self.position = changes.position.clone();
        Ok(())
    }

    pub(crate) async fn finish(&mut self) -> Result<(), Trouble> {
        let keys = [NEXT, NEXT_STATE, MAKER, LIVE, LIVE_STATE, BEFORE];
        let finish = &self.index.scripts.finish;
        if self.index.run(finish, &keys, &self.name).await? {
            Ok(())
        } else {
            Err(Trouble::CutOff)
        }
    }

    /// Lets others make one, when this one is given up.
    pub(crate) async fn give_up(self) {
        let give_up = &self.index.scripts.give_up;
        // It is found out after a while anyway.
        let _ = self.index.run(give_up, &[MAKER], &self.name).await;
    }
}
