//! Copies of accounts, which spare the ledger and are shown when it is out of reach. Nothing is
//! decided from them.
//!
//! A copy carries the account's version and is never replaced by an older one, so a replica that
//! has shown a version shows no older one afterwards. It is shown without asking the ledger for
//! `fresh_ms` after it was read there; those that are asked for are read again before that, many in
//! one statement, whoever has changed them, so that a copy lags behind a commit by no more than
//! that. A request that has seen a later state than the copy says so (`lapse`), and the next reader
//! asks the ledger.
//!
//! With Redis the copies are shared: every reader looks there first and what is read from the
//! ledger is put there, under the same rule, before it is shown. Then what one replica has shown,
//! no other one shows an older version of. While Redis is away, readers ask the ledger, and each
//! replica keeps the rule for itself.

mod local;
mod shared;

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, HeaderValue, header, request::Parts},
    response::{IntoResponseParts, ResponseParts},
};
use boot::settings::CacheSettings;
use chrono::{DateTime, Utc};
use domain::{CustomerId, Tier};
use kv::Redis;
use serde::{Deserialize, Serialize};
use store::{
    PgPool,
    history::{self, Picture, Transaction, Version, Wanted},
    ledger::BreakdownLine,
    pictures::Pictures,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::measures;
use local::{Held, Local, Slot};
use shared::Shared;

/// How often the ledger is asked again when a copy was replaced meanwhile by a newer one that has
/// not all that is wanted.
const TRIES: usize = 5;
/// How many accounts are read together: few enough that reading them holds up nobody who is shown one.
const AT_A_TIME: usize = 250;
/// How many of the newest changes a copy has.
pub const RECENT: u32 = 20;

/// A copy of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Which version of it.
    pub version: Version,
    /// Points that can be spent.
    pub available: i64,
    /// Points reserved.
    pub held: i64,
    /// The tier.
    pub tier: Tier,
    /// What the points were for, where somebody wanted to know.
    pub breakdown: Option<Vec<BreakdownLine>>,
    /// The newest changes, one more than [`RECENT`], where somebody wanted to know.
    pub recent: Option<Vec<Transaction>>,
}

impl From<Picture> for Account {
    fn from(picture: Picture) -> Self {
        Self {
            version: picture.version,
            available: picture.balance.available.get(),
            held: picture.balance.held.get(),
            tier: picture.balance.tier.0,
            breakdown: picture.breakdown,
            recent: picture.recent,
        }
    }
}

impl Account {
    /// Available and held points together.
    pub const fn current(&self) -> i64 {
        self.available.saturating_add(self.held)
    }

    fn has(&self, wanted: Wanted) -> bool {
        (!wanted.breakdown || self.breakdown.is_some())
            && (wanted.recent == 0 || self.recent.is_some())
    }
}

/// An account as it is shown.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The account.
    pub account: Arc<Account>,
    /// When the ledger was asked.
    pub as_of: DateTime<Utc>,
    /// Where it comes from.
    pub source: Source,
}

/// Where an answer comes from, for the header `Cache-Status` (RFC 9211).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A copy.
    Copy,
    /// The ledger: there was no fresh copy.
    Ledger,
    /// The ledger: the client wanted it so.
    LedgerOnRequest,
}

impl IntoResponseParts for Source {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        let status = HeaderValue::from_static(match self {
            Self::Copy => "meed; hit",
            Self::Ledger => "meed; fwd=miss",
            Self::LedgerOnRequest => "meed; fwd=request",
        });
        parts
            .headers_mut()
            .insert(HeaderName::from_static("cache-status"), status);
        Ok(parts)
    }
}

/// Whether the client wants the ledger asked: `Cache-Control: no-cache`.
#[derive(Debug, Clone, Copy)]
pub struct AskLedger(pub bool);

impl<S: Send + Sync> FromRequestParts<S> for AskLedger {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let mut directives = parts
            .headers
            .get_all(header::CACHE_CONTROL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        Ok(Self(directives.any(|directive| {
            let directive = directive.trim();
            ["no-cache", "no-store", "max-age=0"]
                .iter()
                .any(|known| directive.eq_ignore_ascii_case(known))
        })))
    }
}

/// The copies of one process.
pub struct Cache {
    pool: PgPool,
    pictures: Pictures,
    fresh: Duration,
    keep: Duration,
    local: Local,
    shared: Option<Shared>,
}

impl Cache {
    /// Copies of what is in this database, shared in Redis where there is one.
    pub fn new(settings: &CacheSettings, pool: PgPool, redis: Option<Arc<Redis>>) -> Self {
        Self {
            pictures: Pictures::of(&pool),
            pool,
            fresh: settings.fresh(),
            keep: settings.keep(),
            local: Local::new(settings.max_customers as usize),
            shared: redis.map(|redis| Shared::new(redis, settings.keep())),
        }
    }

    /// An account, with what is wanted of it; nothing for a customer without one. `ask_ledger` is
    /// whether a copy will not do.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn read(
        &self,
        customer: &CustomerId,
        wanted: Wanted,
        ask_ledger: bool,
    ) -> Result<Option<Shown>, store::Error> {
        let arrived = Instant::now();
        let slot = self.local.slot(customer);
        if !ask_ledger
            && self.look_elsewhere(customer, &slot).await
            && let Some(held) = slot.fresh(self.fresh).filter(|h| h.account.has(wanted))
        {
            self.local.asked_for(customer, &slot);
            return Ok(Some(held.shown(Source::Copy)));
        }
        let source = if ask_ledger {
            Source::LedgerOnRequest
        } else {
            Source::Ledger
        };
        // One question at a time for each customer; those who come meanwhile take its answer if it
        // was asked after they came.
        let _turn = slot.asking.lock().await;
        if let Some(held) = slot
            .held()
            .filter(|h| h.seen > arrived && h.account.has(wanted))
        {
            return Ok(Some(held.shown(source)));
        }
        for _ in 0..TRIES {
            let seen = Instant::now();
            let wanted = Wanted {
                // One more than is shown, to know whether there are more.
                recent: wanted.recent.min(1) * (RECENT + 1),
                ..wanted
            };
            let picture = if wanted == Wanted::default() {
                self.pictures.read(customer).await?
            } else {
                history::picture(&self.pool, customer, wanted).await?
            };
            let Some(picture) = picture else {
                return Ok(None);
            };
            let held = self.offer(customer, &slot, picture.into(), seen).await;
            if held.account.has(wanted) {
                return Ok(Some(held.shown(source)));
            }
        }
        Err(store::Error::Raced)
    }

    /// The last copy that is kept, however old it is.
    pub async fn last(&self, customer: &CustomerId) -> Option<Shown> {
        let slot = self.local.slot(customer);
        self.look_elsewhere(customer, &slot).await;
        slot.held()
            .filter(|held| held.seen.elapsed() <= self.keep)
            .map(|held| held.shown(Source::Copy))
    }

    /// Says that somebody was shown something later than what is kept of the customer: the next
    /// reader in this process asks the ledger.
    pub fn lapse(&self, customer: &CustomerId) {
        self.local.slot(customer).lapse();
    }

    /// Takes over what other replicas share. Whether copies may be shown at all: without Redis
    /// always, with Redis only when it has one.
    async fn look_elsewhere(&self, customer: &CustomerId, slot: &Slot) -> bool {
        let Some(shared) = &self.shared else {
            return true;
        };
        match shared.get(customer).await {
            Some((account, seen)) => {
                slot.offer(Arc::new(account), seen);
                true
            }
            None => false,
        }
    }

    /// Shares what was read from the ledger at `seen`, and keeps it. What is kept then, which may
    /// be newer. In this order: what is kept here is shown here, and nobody is to be shown what other
    /// replicas do not find yet.
    async fn offer(
        &self,
        customer: &CustomerId,
        slot: &Slot,
        account: Account,
        seen: Instant,
    ) -> Held {
        let account = slot.completed(account);
        let newer = match &self.shared {
            Some(shared) => shared.offer(customer, &account, seen).await,
            None => None,
        };
        let (account, seen) = newer.unwrap_or((account, seen));
        slot.offer(Arc::new(account), seen)
    }

    /// Reads those copies again that somebody has asked for since the last time.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn look(&self) -> Result<(), store::Error> {
        let asked = self.local.take_asked();
        for part in asked.chunks(AT_A_TIME) {
            let ids: Vec<&CustomerId> = part.iter().map(|(id, _)| id).collect();
            let slots: HashMap<&CustomerId, &Slot> =
                part.iter().map(|(id, slot)| (id, &**slot)).collect();
            let seen = Instant::now();
            let pictures = history::pictures(&self.pool, &ids).await?;
            let offers = pictures.into_iter().filter_map(|(id, picture)| {
                let slot = *slots.get(&id)?;
                Some(async move { self.offer(&id, slot, picture.into(), seen).await })
            });
            futures::future::join_all(offers).await;
        }
        Ok(())
    }

    /// Looks twice for each time that a copy is fresh, until told to stop.
    pub async fn keep_fresh(&self, stop: &CancellationToken) {
        if self.fresh.is_zero() {
            return;
        }
        let every = (self.fresh / 2).max(Duration::from_millis(1));
        let again = async {
            loop {
                tokio::time::sleep(every).await;
                if let Err(error) = self.look().await {
                    // Copies are no longer fresh then, and readers find out for themselves.
                    tracing::debug!(%error, "copies of accounts were not read again");
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = again => {}
        }
    }
}

impl Held {
    fn shown(self, source: Source) -> Shown {
        let outcome = match source {
            Source::Copy => "hit",
            Source::Ledger => "miss",
            Source::LedgerOnRequest => "bypass",
        };
        measures::account_shown(outcome);
        let age = chrono::Duration::from_std(self.seen.elapsed()).unwrap_or_default();
        Shown {
            account: self.account,
            as_of: Utc::now() - age,
            source,
        }
    }
}
