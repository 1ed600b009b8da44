//! The ranking: who has earned most, and where a customer stands.
//!
//! Its order is by points ever earned, most first; customers with the same stand by their id, as
//! bytes. Whoever has not earned anything has no place in it.
//!
//! It is an index outside the database: in Redis, where all processes look at one, or in the memory
//! of each. Both are fed from committed transfers (`keep`). Points that are shown come from the
//! ledger, and what is read there goes into the index as well: an answer tells the places that
//! belong to its points.

mod embedded;
mod index;
mod keep;
mod ladder;
pub mod measures;
mod sorted_set;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use domain::CustomerId;
use kv::Redis;
use store::{
    PgPool,
    ranking::{self as ledger, Earned},
};
use tokio::time::Instant;

use index::{Found, Index};
pub use measures::Call;

/// How many customers above and below a customer are shown.
pub const NEIGHBOURS: usize = 2;
/// How often an answer is looked for again because the ledger has gone on meanwhile.
const TRIES: usize = 4;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ranking is being made, or lags too far behind.
    #[error("the ranking is not there yet, or not up to date")]
    NotReady,
    /// Redis does not answer.
    #[error("Redis does not answer")]
    Away,
    /// The ledger does not answer.
    #[error(transparent)]
    Ledger(#[from] store::Error),
}

/// What keeps an index from its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("Redis does not answer")]
    Away,
    #[error("it was cut off")]
    CutOff,
    #[error(transparent)]
    Ledger(#[from] store::Error),
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Away => Self::Away,
            Trouble::CutOff => Self::NotReady,
            Trouble::Ledger(error) => Self::Ledger(error),
        }
    }
}

/// How a ranking is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the index is called, for operators.
    pub name: String,
    /// How often the ledger is looked at.
    pub poll: Duration,
    /// A ranking that lags further behind is not shown.
    pub max_lag: Duration,
}

/// A customer's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The customer.
    pub customer_id: String,
    /// Points ever earned, as the ledger has them.
    pub points: i64,
    /// The rank, from 1.
    pub rank: u64,
}

/// The first customers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// They, in their order.
    pub customers: Vec<Place>,
    /// Everything that had been committed by then is in it.
    pub as_of: DateTime<Utc>,
}

/// Where a customer stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The customer's points ever earned, as the ledger has them.
    pub points: i64,
    /// The rank, from 1; nothing for somebody who has not earned anything yet.
    pub rank: Option<u64>,
    /// Who stands right above, in the order of the ranking.
    pub above: Vec<Place>,
    /// Who stands right below, in the order of the ranking.
    pub below: Vec<Place>,
    /// Everything that had been committed by then is in it.
    pub as_of: DateTime<Utc>,
}

/// The ranking.
pub struct Ranking {
    pool: PgPool,
    index: Index,
    options: Options,
}

impl Ranking {
    /// In this process, which has to keep it.
    pub fn embedded(pool: PgPool, options: Options) -> Self {
        Self {
            pool,
            index: Index::embedded(),
            options,
        }
    }

    /// In Redis, where some process has to keep it.
    pub fn in_redis(pool: PgPool, redis: Arc<Redis>, options: Options) -> Self {
        Self {
            pool,
            index: Index::in_redis(redis),
            options,
        }
    }

    /// The first `count` customers.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn top(&self, count: usize) -> Result<Top, Error> {
        let mut tries = 1..=TRIES;
        loop {
            let (found, as_of) = self.found(Call::Top, self.index.top(count)).await?;
            let exact = self.exact(&found, None).await?;
            if self.learn(&found, &exact).await? || tries.next().is_none() {
                return Ok(Top {
                    customers: places(&found, &exact),
                    as_of,
                });
            }
        }
    }

    /// Where a customer stands, with [`NEIGHBOURS`] on either side; nothing for somebody without an
    /// account.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn standing(&self, customer: &CustomerId) -> Result<Option<Standing>, Error> {
        let customer = customer.as_str();
        let mut tries = 1..=TRIES;
        loop {
            let around = self.index.around(customer, NEIGHBOURS);
            let (found, as_of) = self.found(Call::Standing, around).await?;
            let exact = self.exact(&found, Some(customer)).await?;
            let Some(own) = exact.get(customer).copied() else {
                return Ok(None);
            };
            if !self.learn(&found, &exact).await? && tries.next().is_some() {
                continue;
            }
            let mut above = places(&found, &exact);
            let at = above.iter().position(|place| place.customer_id == customer);
            let mut below = at.map_or_else(Vec::new, |at| above.split_off(at));
            let place = (!below.is_empty()).then(|| below.remove(0));
            if place.is_none() && own > 0 {
                // It has fallen out of the index again and again.
                return Err(Error::NotReady);
            }
            return Ok(Some(Standing {
                points: own,
                rank: place.map(|place| place.rank),
                above,
                below,
                as_of,
            }));
        }
    }

    /// What the index says, when it is there and up to date.
    async fn found(
        &self,
        call: Call,
        look: impl Future<Output = Result<Option<Found>, Trouble>>,
    ) -> Result<(Found, DateTime<Utc>), Error> {
        let started = Instant::now();
        let found = look.await;
        measures::looked(call, started.elapsed(), matches!(found, Ok(Some(_))));
        let found = found?.ok_or(Error::NotReady)?;
        let as_of = found.as_of.ok_or(Error::NotReady)?;
        let max_lag = TimeDelta::from_std(self.options.max_lag).unwrap_or(TimeDelta::MAX);
        if Utc::now() - as_of > max_lag {
            return Err(Error::NotReady);
        }
        Ok((found, as_of))
    }

    /// What the ledger says of those who were found, and of somebody else.
    async fn exact(
        &self,
        found: &Found,
        customer: Option<&str>,
    ) -> Result<HashMap<String, i64>, Error> {
        let mut asked: HashSet<&str> = found
            .customers
            .iter()
            .map(|earned| earned.customer_id.as_str())
            .collect();
        asked.extend(customer);
        let asked: Vec<String> = asked.into_iter().map(str::to_owned).collect();
        let earned = ledger::earned(&self.pool, &asked).await?;
        Ok(earned
            .into_iter()
            .map(|earned| (earned.customer_id, earned.points))
            .collect())
    }

    /// Lets the index know what the ledger says; whether it knew it before.
    async fn learn(&self, found: &Found, exact: &HashMap<String, i64>) -> Result<bool, Error> {
        let known: HashMap<&str, i64> = found
            .customers
            .iter()
            .map(|earned| (earned.customer_id.as_str(), earned.points))
            .collect();
        for (customer, points) in &known {
            // Points ever earned never fall.
            if exact
                .get(*customer)
                .is_none_or(|exact| self.index.kept(*exact) < *points)
            {
                measures::contradicted();
                tracing::debug!(customer_id = customer, points, "more than the ledger has");
            }
        }
        let newer: Vec<Earned> = exact
            .iter()
            .filter(|(customer, points)| {
                let known = known.get(customer.as_str()).copied().unwrap_or_default();
                self.index.kept(**points) > known
            })
            .map(|(customer_id, points)| Earned {
                customer_id: customer_id.clone(),
                points: *points,
            })
            .collect();
        if newer.is_empty() {
            return Ok(true);
        }
        self.index.raise(&newer).await?;
        Ok(false)
    }
}

/// The places of those who were found, with what the ledger says; those whom it does not know are
/// left out.
fn places(found: &Found, exact: &HashMap<String, i64>) -> Vec<Place> {
    let ranks = found.first + 1..;
    let places = ranks.zip(&found.customers).filter_map(|(rank, earned)| {
        Some(Place {
            customer_id: earned.customer_id.clone(),
            points: *exact.get(&earned.customer_id)?,
            rank,
        })
    });
    places.collect()
}
