//! `meed dlq`: the dead letters on Kafka, what is in them, and sending them again.

mod letter;
mod list;
mod progress;
mod reader;
mod replay;
mod select;
mod show;
mod text;

use clap::{Args, Subcommand};
use store::PgPool;

use crate::addresses;
use select::{Choice, Filter, Place};

/// What to do with the dead letters.
#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// Which dead letters there are, newest first, and how many of each reason
    List(List),
    /// Everything about one dead letter, and what replaying it would do
    Show(Show),
    /// Send dead letters back to the topics they came from, as they were
    Replay(Replay),
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    filter: Filter,
    /// How many to show at most; the counts are of all that match
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Which one: PARTITION-OFFSET, as `list` shows it
    id: Place,
    /// As JSON
    #[arg(long, conflicts_with = "body")]
    json: bool,
    /// Nothing but the bytes of its body
    #[arg(long)]
    body: bool,
}

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct Replay {
    #[command(flatten)]
    choice: Choice,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Also those that were replayed before; letters that are named are sent in any case
    #[arg(long)]
    again: bool,
    /// Also those that this program can tell would be refused again
    #[arg(long)]
    anyway: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Does it.
///
/// # Errors
/// When Kafka or, for a replay, the database cannot be asked; when a letter that is named does not
/// exist or cannot be replayed; when Kafka does not take one.
pub async fn run(command: Dlq) -> anyhow::Result<()> {
    let kafka = addresses::kafka()?;
    let reader = reader::Reader::open(&kafka)?;
    match command {
        Dlq::List(list) => {
            let pool = pool_if_any().await;
            list::run(&reader, pool.as_ref(), &list.filter, list.limit, list.json).await
        }
        Dlq::Show(show) if show.body => show::body(&reader, show.id),
        Dlq::Show(show) => {
            let pool = pool_if_any().await;
            show::run(&reader, pool.as_ref(), show.id, show.json).await
        }
        Dlq::Replay(replay) => {
            let pool = addresses::pool().await?;
            replay::run(&reader, &pool, &kafka, &replay).await
        }
    }
}

/// The database, if it answers: without it the letters can be read all the same.
async fn pool_if_any() -> Option<PgPool> {
    addresses::pool()
        .await
        .inspect_err(|error| {
            eprintln!("meed: what was replayed is not known, {error:#}");
        })
        .ok()
}
