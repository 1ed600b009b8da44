//! What both kinds of index have in common.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use kv::Redis;
use store::ranking::{Changes, Earned, Position};

use crate::{
    Trouble,
    embedded::{self, Embedded},
    sorted_set::{self, SortedSet},
};

/// How an index stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    /// Which one it is: another one has another name.
    pub(crate) build: String,
    /// The rebuild that it was made for.
    pub(crate) rebuild_id: i64,
    /// How far it has followed the ledger.
    pub(crate) position: Position,
    /// It knows all that had been committed by then.
    pub(crate) as_of: Option<DateTime<Utc>>,
    /// How many customers are in it.
    pub(crate) customers: u64,
}

impl State {
    pub(crate) fn new(build: String, rebuild_id: i64, position: Position) -> Self {
        Self {
            build,
            rebuild_id,
            position,
            as_of: None,
            customers: 0,
        }
    }

    pub(crate) fn follow(&mut self, changes: &Changes) {
        self.position = changes.position.clone();
        self.as_of = changes.as_of.or(self.as_of);
    }
}

/// How far one is that is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) loaded: u64,
    /// About.
    pub(crate) expected: u64,
}

/// Customers who stand one after the other, as an index has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The index knows all that had been committed by then.
    pub(crate) as_of: Option<DateTime<Utc>>,
    /// The place of the first of them, from 0.
    pub(crate) first: u64,
    /// They, with their points as far as the index knows.
    pub(crate) customers: Vec<Earned>,
}

/// One of the two kinds.
pub(crate) enum Index {
    Embedded(Embedded),
    SortedSet(SortedSet),
}

impl Index {
    pub(crate) fn embedded() -> Self {
        Self::Embedded(Embedded::default())
    }

    pub(crate) fn in_redis(redis: Arc<Redis>) -> Self {
        Self::SortedSet(SortedSet::new(redis))
    }

    /// How it stands; nothing when it is not there, or not whole.
    pub(crate) async fn state(&self) -> Result<Option<State>, Trouble> {
        match self {
            Self::Embedded(index) => Ok(index.state()),
            Self::SortedSet(index) => index.state().await,
        }
    }

    /// How far one is that is being made beside it.
    pub(crate) async fn progress(&self) -> Result<Option<Progress>, Trouble> {
        match self {
            Self::Embedded(index) => Ok(index.progress()),
            Self::SortedSet(index) => index.progress().await,
        }
    }

    /// The first `count`; nothing when it is not there.
    pub(crate) async fn top(&self, count: usize) -> Result<Option<Found>, Trouble> {
        match self {
            Self::Embedded(index) => Ok(index.top(count)),
            Self::SortedSet(index) => index.top(count).await,
        }
    }

    /// A customer with up to so many neighbours on either side, nobody when the customer is not in
    /// it; nothing when it is not there.
    pub(crate) async fn around(
        &self,
        customer: &str,
        neighbours: usize,
    ) -> Result<Option<Found>, Trouble> {
        match self {
            Self::Embedded(index) => Ok(index.around(customer, neighbours)),
            Self::SortedSet(index) => index.around(customer, neighbours).await,
        }
    }

    /// Lets customers have at least these points: somebody has read them in the ledger.
    pub(crate) async fn raise(&self, earned: &[Earned]) -> Result<(), Trouble> {
        match self {
            Self::Embedded(index) => {
                index.raise(earned);
                Ok(())
            }
            Self::SortedSet(index) => index.raise(earned).await,
        }
    }

    /// Makes the changes that follow after `before`; another index that has come since then is left
    /// as it is.
    pub(crate) async fn apply(&self, before: &State, changes: &Changes) -> Result<(), Trouble> {
        match self {
            Self::Embedded(index) => {
                index.apply(before, changes);
                Ok(())
            }
            Self::SortedSet(index) => index.apply(before, changes).await,
        }
    }

    /// Begins to make another one beside it; nothing while somebody else is making one.
    pub(crate) async fn begin(
        &self,
        rebuild_id: i64,
        position: Position,
        expected: u64,
    ) -> Result<Option<Build<'_>>, Trouble> {
        Ok(match self {
            Self::Embedded(index) => {
                let build = index.begin(rebuild_id, position, expected);
                Some(Build::Embedded(Box::new(build)))
            }
            Self::SortedSet(index) => index
                .begin(rebuild_id, position, expected)
                .await?
                .map(Build::SortedSet),
        })
    }

    /// Points as it keeps them.
    pub(crate) fn kept(&self, points: i64) -> i64 {
        match self {
            Self::Embedded(_) => points,
            Self::SortedSet(_) => sorted_set::kept(points),
        }
    }
}

/// An index that is being made beside the one that is looked at.
pub(crate) enum Build<'a> {
    Embedded(Box<embedded::Build<'a>>),
    SortedSet(sorted_set::Build<'a>),
}

impl Build<'_> {
    /// Adds customers who are not in it.
    pub(crate) async fn add(&mut self, earned: &[Earned]) -> Result<(), Trouble> {
        match self {
            Self::Embedded(build) => {
                build.add(earned);
                Ok(())
            }
            Self::SortedSet(build) => build.add(earned).await,
        }
    }

    /// Everybody is in it: from now on changes follow.
    pub(crate) async fn arrange(&mut self) -> Result<(), Trouble> {
        match self {
            Self::Embedded(build) => build.arrange().await,
            Self::SortedSet(_) => Ok(()),
        }
    }

    /// How far it has followed the ledger.
    pub(crate) fn position(&self) -> &Position {
        match self {
            Self::Embedded(build) => build.position(),
            Self::SortedSet(build) => build.position(),
        }
    }

    /// Makes the changes that follow after its position.
    pub(crate) async fn apply(&mut self, changes: &Changes) -> Result<(), Trouble> {
        match self {
            Self::Embedded(build) => {
                build.apply(changes);
                Ok(())
            }
            Self::SortedSet(build) => build.apply(changes).await,
        }
    }

    /// Takes the place of the one before, for all who look at once.
    pub(crate) async fn finish(&mut self) -> Result<(), Trouble> {
        match self {
            Self::Embedded(build) => {
                build.finish();
                Ok(())
            }
            Self::SortedSet(build) => build.finish().await,
        }
    }

    /// It is not made any further: others may make one.
    pub(crate) async fn give_up(self) {
        match self {
            Self::Embedded(_) => {}
            Self::SortedSet(build) => build.give_up().await,
        }
    }
}
