//! Recomputing the chain, in pieces: it takes no more memory for a long ledger than for a short.

use std::fmt;

use sqlx::{PgConnection, PgPool};

use super::{BEGINNING, COLUMNS, Head, Values, link};
use crate::{Error, transaction};

/// How many transfers are read at a time.
const AT_A_TIME: i64 = 2_000;
/// How many offenders are named.
const EXAMPLES: usize = 5;

/// How the ledger and the chain disagree about a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not what was sealed. Where its successor does not prove that the transfer itself is
    /// what changed, its hash may have, or what stood before it may be gone with its hash.
    Changed,
    /// Its hash was changed; the transfer follows from what is before it.
    HashChanged,
    /// It has a hash and is gone.
    Removed,
    /// It has no hash, though the chain is beyond it, and its successor does not follow from it.
    Inserted,
    /// The same, but its successor was sealed after it: only its hash is gone.
    HashRemoved,
    /// A head that was noted is not in the chain: the chain was made anew, or cut off.
    HeadReplaced,
}

impl Fault {
    /// Its name for programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "CHANGED",
            Self::HashChanged => "HASH_CHANGED",
            Self::Removed => "REMOVED",
            Self::Inserted => "INSERTED",
            Self::HashRemoved => "HASH_REMOVED",
            Self::HeadReplaced => "HEAD_REPLACED",
        }
    }
}

/// One transfer that was tampered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which transfer.
    pub transfer_id: i64,
    /// How.
    pub fault: Fault,
    /// What it says now, in words.
    pub now: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            transfer_id,
            fault,
            now,
        } = self;
        match fault {
            Fault::Changed => write!(
                f,
                "transfer {transfer_id} is not what was sealed; it says now: {now}"
            ),
            Fault::HashChanged => write!(
                f,
                "the hash of transfer {transfer_id} was changed; the transfer says: {now}"
            ),
            Fault::Removed => write!(f, "transfer {transfer_id} was removed; {now}"),
            Fault::Inserted => write!(
                f,
                "transfer {transfer_id} was put in later: it has no hash, and the chain is beyond \
                 it; it says: {now}"
            ),
            Fault::HashRemoved => write!(
                f,
                "the hash of transfer {transfer_id} was removed; the transfer says: {now}"
            ),
            Fault::HeadReplaced => write!(
                f,
                "the head noted at transfer {transfer_id} is not in the chain: {now}"
            ),
        }
    }
}

/// What became of the chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Its end.
    pub head: Option<Head>,
    /// How many transfers are sealed.
    pub sealed: u64,
    /// How many are not yet.
    pub unsealed: u64,
    /// How many were tampered with.
    pub violations: usize,
    /// The first few of them, by id.
    pub examples: Vec<Violation>,
}

impl Findings {
    fn add(&mut self, transfer_id: i64, fault: Fault, now: String) {
        self.violations += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(Violation {
                transfer_id,
                fault,
                now,
            });
        }
    }
}

/// Recomputes the chain on one snapshot, and looks for heads that were noted before.
///
/// # Errors
/// What the database reports.
pub async fn check(pool: &PgPool, noted: &[Head]) -> Result<Findings, Error> {
    let mut tx = transaction::begin(pool).await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .execute(&mut *tx)
        .await?;
    check_on(&mut tx, noted, &mut |_| {}).await
}

/// The same within a transaction; `progress` is told how many transfers have been looked at.
pub(crate) async fn check_on(
    conn: &mut PgConnection,
    noted: &[Head],
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Findings, Error> {
    let mut chain = Chain::default();
    let (front,): (Option<i64>,) = sqlx::query_as("SELECT max(transfer_id) FROM transfer_hashes")
        .fetch_one(&mut *conn)
        .await?;
    let mut from = front.map(|_| i64::MIN);
    while let (Some(first), Some(front)) = (from, front) {
        let last = piece(conn, first, front).await?;
        for row in read(conn, first, last).await? {
            chain.next(row);
        }
        progress(chain.looked_at);
        from = last.checked_add(1).filter(|next| *next <= front);
    }
    chain.settle();
    let mut findings = chain.findings;
    let (unsealed,): (i64,) = sqlx::query_as(
        "SELECT count(*) FROM transfers WHERE $1::bigint IS NULL OR transfer_id > $1",
    )
    .bind(front)
    .fetch_one(&mut *conn)
    .await?;
    findings.unsealed = u64::try_from(unsealed).unwrap_or_default();
    for head in noted {
        look_for(conn, head, &mut findings).await?;
    }
    findings
        .examples
        .sort_by_key(|violation| violation.transfer_id);
    Ok(findings)
}

/// Where a piece that begins at `first` ends, so that it holds a bounded number of rows, however
/// far apart the ids are.
async fn piece(conn: &mut PgConnection, first: i64, front: i64) -> Result<i64, Error> {
    let (last,): (i64,) = sqlx::query_as(
        "SELECT least(
             (SELECT transfer_id FROM transfers WHERE transfer_id BETWEEN $1 AND $2
              ORDER BY transfer_id OFFSET $3 LIMIT 1),
             (SELECT transfer_id FROM transfer_hashes WHERE transfer_id BETWEEN $1 AND $2
              ORDER BY transfer_id OFFSET $3 LIMIT 1),
             $2)",
    )
    .bind(first)
    .bind(front)
    .bind(AT_A_TIME - 1)
    .fetch_one(conn)
    .await?;
    Ok(last)
}

/// A transfer, its hash, or both.
#[derive(sqlx::FromRow)]
struct Row {
    transfer_id: i64,
    transfer: Option<Values>,
    hash: Option<Vec<u8>>,
    sealed_at: Option<String>,
}

async fn read(conn: &mut PgConnection, first: i64, last: i64) -> Result<Vec<Row>, Error> {
    Ok(sqlx::query_as(concat!(
        "SELECT transfer_id, CASE WHEN t.posted_at IS NOT NULL THEN ",
        super::values!(),
        " END AS transfer, hash, sealed_at::text AS sealed_at
         FROM (SELECT * FROM transfers WHERE transfer_id BETWEEN $1 AND $2) t
         FULL JOIN (SELECT * FROM transfer_hashes WHERE transfer_id BETWEEN $1 AND $2) h
              USING (transfer_id)
         ORDER BY transfer_id"
    ))
    .bind(first)
    .bind(last)
    .fetch_all(conn)
    .await?)
}

/// A transfer that does not agree with its hash, or has none.
struct Doubtful {
    transfer_id: i64,
    /// The hash that it should have.
    computed: [u8; 32],
    now: String,
    /// What happened when its successor was not sealed after that hash.
    transfer_at_fault: Fault,
    /// What happened when it was.
    hash_at_fault: Fault,
}

/// The chain as far as it has been read. Each hash is computed from the one that is stored before
/// it, so that one fault is one violation and not all that follow.
struct Chain {
    findings: Findings,
    previous: Vec<u8>,
    doubtful: Option<Doubtful>,
    looked_at: u64,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            findings: Findings::default(),
            previous: BEGINNING.to_vec(),
            doubtful: None,
            looked_at: 0,
        }
    }
}

impl Chain {
    fn next(&mut self, row: Row) {
        self.looked_at += 1;
        let id = row.transfer_id;
        match (row.transfer, row.hash) {
            (Some(values), Some(stored)) => {
                let computed = link(&self.previous, &values);
                if computed[..] == stored[..] {
                    self.settle();
                } else if let Some(before) = self
                    .doubtful
                    .take_if(|before| link(&before.computed, &values)[..] == stored[..])
                {
                    // This one was sealed after the hash that the one before should have.
                    self.findings
                        .add(before.transfer_id, before.hash_at_fault, before.now);
                } else {
                    self.settle();
                    self.doubtful = Some(Doubtful {
                        transfer_id: id,
                        computed,
                        now: describe(&values),
                        transfer_at_fault: Fault::Changed,
                        hash_at_fault: Fault::HashChanged,
                    });
                }
                self.sealed(id, stored);
            }
            (Some(values), None) => {
                self.settle();
                self.doubtful = Some(Doubtful {
                    transfer_id: id,
                    computed: link(&self.previous, &values),
                    now: describe(&values),
                    transfer_at_fault: Fault::Inserted,
                    hash_at_fault: Fault::HashRemoved,
                });
            }
            (None, Some(stored)) => {
                self.settle();
                let at = row.sealed_at.unwrap_or_default();
                self.findings
                    .add(id, Fault::Removed, format!("it was sealed at {at}"));
                self.sealed(id, stored);
            }
            (None, None) => {}
        }
    }

    fn sealed(&mut self, transfer_id: i64, stored: Vec<u8>) {
        self.findings.sealed += 1;
        // A hash of another length is named as changed; it is no head that could be found again.
        self.findings.head = stored
            .as_slice()
            .try_into()
            .ok()
            .map(|hash| Head { transfer_id, hash });
        self.previous = stored;
    }

    /// Nothing speaks for the transfer that is in doubt.
    fn settle(&mut self) {
        if let Some(doubtful) = self.doubtful.take() {
            self.findings.add(
                doubtful.transfer_id,
                doubtful.transfer_at_fault,
                doubtful.now,
            );
        }
    }
}

async fn look_for(
    conn: &mut PgConnection,
    head: &Head,
    findings: &mut Findings,
) -> Result<(), Error> {
    let hash: Option<(Vec<u8>,)> =
        sqlx::query_as("SELECT hash FROM transfer_hashes WHERE transfer_id = $1")
            .bind(head.transfer_id)
            .fetch_optional(conn)
            .await?;
    let now = match hash {
        Some((hash,)) if hash == head.hash => return Ok(()),
        Some((hash,)) => format!("noted was {}, it is {} now", head.hex(), hex::encode(hash)),
        None => "the chain has no such transfer".to_owned(),
    };
    // The first of what is named, since it says most.
    findings.violations += 1;
    findings.examples.truncate(EXAMPLES - 1);
    findings.examples.push(Violation {
        transfer_id: head.transfer_id,
        fault: Fault::HeadReplaced,
        now,
    });
    Ok(())
}

/// What a transfer says, in words.
fn describe(values: &Values) -> String {
    let value = |name: &str| {
        COLUMNS
            .iter()
            .position(|column| *column == name)
            .and_then(|at| values.get(at)?.as_deref())
            .unwrap_or("nothing")
    };
    format!(
        "{} points of customer {} from {} to {} for {} ({} {}, {}), version {}",
        value("amount"),
        value("customer_id"),
        value("debit_account"),
        value("credit_account"),
        value("reason"),
        value("source"),
        value("source_event_id"),
        value("leg"),
        value("customer_version"),
    )
}
