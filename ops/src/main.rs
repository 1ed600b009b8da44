//! `meed`: one program for those who operate Meed.

mod addresses;
mod adjust;
mod clients;
mod codec;
mod config;
mod customer_key;
mod dlq;
mod find;
mod kafka;
mod keys;
mod migrate;
mod offsets;
mod ranking;
mod reconcile;
mod rules;
mod schedule;
mod smoke;
mod temporal;
mod token;
mod topics;
mod users;
mod verify;
mod versions;

use std::{net::SocketAddr, panic, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use domain::CustomerId;

/// Operates Meed. Addresses come from DATABASE_URL, KAFKA_BROKERS, TEMPORAL_ADDRESS and
/// TEMPORAL_NAMESPACE, or from the configuration file (MEED_CONFIG, ./meed.toml).
#[derive(Parser)]
#[command(name = "meed", version = boot::version(), arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring the database's schema up to date
    Migrate,
    /// Kafka's topics
    #[command(subcommand)]
    Topics(Topics),
    /// How far the intake has come in Kafka, for backups
    #[command(subcommand)]
    Offsets(Offsets),
    /// Temporal's namespace and search attributes
    #[command(subcommand)]
    Temporal(Temporal),
    /// What Temporal keeps encrypted
    #[command(subcommand)]
    Codec(CodecCommand),
    /// The configuration
    #[command(subcommand)]
    Config(Config),
    /// The rules
    #[command(subcommand)]
    Rules(Rules),
    /// Recompute what must be true of the ledger, and the hash chain over its transfers
    Verify {
        /// A head of the chain that was noted earlier: it must still be in the chain, or what was
        /// posted before it was rewritten. May be given several times
        #[arg(long = "expect-head", value_name = "ID:HASH")]
        expect_head: Vec<store::chain::Head>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Compare the books of Kafka, ledger, flows and merchants; repair what is safe, report the rest
    Reconcile(reconcile::Reconcile),
    /// Who has earned most: how the ranking is, and making it anew
    #[command(subcommand)]
    Ranking(ranking::Ranking),
    /// Post an adjusting transfer, once per id
    Adjust(adjust::Adjust),
    /// Check a deployed system from end to end, as a client would use it
    Smoke(smoke::Smoke),
    /// What happened to a customer, and the flows that did it
    Find {
        /// The customer's id
        customer: String,
        /// How many entries, newest first
        #[arg(long, default_value_t = 20)]
        limit: i64,
    },
    /// Messages that were refused: which, why, and sending them again
    #[command(subcommand)]
    Dlq(dlq::Dlq),
    /// Clients that get tokens with a secret
    #[command(subcommand)]
    Clients(clients::Command),
    /// The product's own users
    #[command(subcommand)]
    Users(users::Command),
    /// The keys that Meed signs tokens with
    #[command(subcommand)]
    Keys(Keys),
    /// A token for the dev profile, from the api (MEED_API_URL)
    Token {
        /// For whom it is: a client, or a customer
        #[arg(long)]
        sub: String,
        /// What it allows, separated by spaces, such as "rewards.read rewards.redeem"
        #[arg(long, default_value = "")]
        scope: String,
        /// A role: player, staff or admin
        #[arg(long)]
        role: Option<String>,
    },
    /// The hash that stands for a customer in Temporal's lists (MeedCustomer)
    CustomerKey {
        /// The customer's id
        customer: String,
    },
}

#[derive(Subcommand)]
enum Topics {
    /// Create what is missing and set right what differs from the declaration
    Apply {
        /// The declaration, when it is not the built-in one (deploy/kafka/topics.toml)
        #[arg(long)]
        file: Option<PathBuf>,
        /// Add partitions where there are too few. Keys then move to other partitions, so the order
        /// per customer is lost for what is under way
        #[arg(long)]
        grow_partitions: bool,
    },
}

#[derive(Subcommand)]
enum Offsets {
    /// Write the committed offsets of the intake's consumer group
    Save {
        /// Where to; standard output when it is left out
        file: Option<PathBuf>,
    },
    /// Set the group back to saved offsets, when no worker runs
    Restore {
        /// What `save` has written
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum Temporal {
    /// Create the namespace, the search attributes and the schedules, and wait
    /// until they can be used
    Apply {
        /// How long ended flows are kept, in hours
        #[arg(long, env = "MEED_TEMPORAL_RETENTION_HOURS", default_value_t = 72)]
        retention_hours: u64,
        /// How often the books are compared, in seconds, where that is not in the configuration file
        #[arg(long, env = "MEED_RECONCILE_EVERY_SECONDS")]
        reconcile_every_seconds: Option<u64>,
        /// How often the ranking is made anew, in seconds, where that is not in the configuration
        /// file
        #[arg(long, env = "MEED_RANKING_EVERY_SECONDS")]
        ranking_every_seconds: Option<u64>,
    },
    /// Have flows that stay with their version begin on this one from now on
    Promote {
        /// The build: its commit
        #[arg(long)]
        build_id: String,
    },
    /// The versions that flows stay with, and which of them still have some
    Versions,
}

#[derive(Subcommand)]
enum Keys {
    /// Write a new key to a new file
    Generate {
        /// The file
        #[arg(long)]
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum CodecCommand {
    /// Show it to the Web UI of those who may reach this
    Serve {
        /// Where to listen; everybody who reaches it reads everything
        #[arg(long, default_value = "127.0.0.1:8082")]
        listen: SocketAddr,
        /// The Web UI's address
        #[arg(long, env = "TEMPORAL_UI_URL")]
        origin: String,
    },
    /// Print a new key for MEED_PAYLOAD_KEYS
    Key {
        /// Its name, such as the year
        #[arg(long)]
        id: String,
    },
}

#[derive(Subcommand)]
enum Config {
    /// Read a configuration and the files it names; say what is in it, or everything that is wrong
    Check {
        /// The file, when it is not the one that MEED_CONFIG names
        file: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum Rules {
    /// Read a rule file; say what is in it, or what is wrong and where
    Check {
        /// The file
        file: PathBuf,
    },
}

/// How a program ends that the signal SIGPIPE ends, as shells say it.
const NOBODY_READS: i32 = 128 + 13;

/// Ends quietly when nobody reads any more what is printed, as in `meed dlq list | head`.
fn end_when_nobody_reads() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        // `println!` panics with this and leaves no other way to know.
        let nobody_reads = info.payload_as_str().is_some_and(|why| {
            why.starts_with("failed printing to stdout: ") && why.ends_with("(os error 32)")
        });
        if nobody_reads {
            std::process::exit(NOBODY_READS);
        }
        usual(info);
    }));
}

fn main() -> ExitCode {
    end_when_nobody_reads();
    let arguments = Arguments::parse();
    boot::process::run("meed", || run(arguments.command))
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Migrate => migrate::run(&addresses::database()?).await,
        Command::Topics(Topics::Apply {
            file,
            grow_partitions,
        }) => topics::apply(&addresses::kafka()?, file.as_deref(), grow_partitions).await,
        Command::Offsets(which) => {
            let (kafka, group) = (addresses::kafka()?, addresses::kafka_group()?);
            tokio::task::spawn_blocking(move || match which {
                Offsets::Save { file } => offsets::save(&kafka, &group, file.as_deref()),
                Offsets::Restore { file } => offsets::restore(&kafka, &group, &file),
            })
            .await?
        }
        Command::Temporal(Temporal::Apply {
            retention_hours,
            reconcile_every_seconds,
            ranking_every_seconds,
        }) => {
            let intervals = schedule::Intervals::of(reconcile_every_seconds, ranking_every_seconds);
            temporal::apply(&addresses::temporal()?, retention_hours, intervals).await
        }
        Command::Temporal(Temporal::Promote { build_id }) => {
            versions::promote(&addresses::temporal()?, &build_id).await
        }
        Command::Temporal(Temporal::Versions) => versions::list(&addresses::temporal()?).await,
        Command::Codec(CodecCommand::Serve { listen, origin }) => {
            codec::serve(listen, &origin).await
        }
        Command::Codec(CodecCommand::Key { id }) => {
            println!("{}", codec::new_key(&id));
            Ok(())
        }
        Command::Config(Config::Check { file }) => config::check(file.as_deref()),
        Command::Rules(Rules::Check { file }) => rules::check(&file),
        Command::Verify { expect_head, json } => {
            verify::run(&addresses::pool().await?, &expect_head, json).await
        }
        Command::Reconcile(how) => reconcile::run(how).await,
        Command::Ranking(command) => ranking::run(command).await,
        Command::Adjust(what) => adjust::run(&addresses::pool().await?, what).await,
        Command::Smoke(what) => smoke::run(what).await,
        Command::Find { customer, limit } => {
            let customer = CustomerId::new(customer)?;
            let key = customer_key::of(&customer).ok();
            let web_ui = addresses::web_ui();
            let pool = addresses::pool().await?;
            find::run(&pool, &customer, key.as_deref(), limit, web_ui.as_ref()).await
        }
        Command::Dlq(command) => dlq::run(command).await,
        Command::Clients(command) => clients::run(command).await,
        Command::Users(command) => users::run(command).await,
        Command::Keys(Keys::Generate { file }) => keys::generate(&file),
        Command::Token { sub, scope, role } => token::print(&sub, &scope, role.as_deref()).await,
        Command::CustomerKey { customer } => {
            println!("{}", customer_key::of(&CustomerId::new(customer)?)?);
            Ok(())
        }
    }
}
