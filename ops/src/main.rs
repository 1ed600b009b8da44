//! `meed`: one program for those who operate Meed.

mod addresses;
mod customer_key;
mod find;
mod migrate;
mod rules;
mod temporal;
mod token;
mod topics;
mod verify;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use domain::CustomerId;

/// Operates Meed. Addresses come from DATABASE_URL, KAFKA_BROKERS, TEMPORAL_ADDRESS and
/// TEMPORAL_NAMESPACE, or from the configuration file (MEED_CONFIG, ./meed.toml).
#[derive(Parser)]
#[command(name = "meed", version, arg_required_else_help = true)]
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
    /// Temporal's namespace and search attributes
    #[command(subcommand)]
    Temporal(Temporal),
    /// The rules
    #[command(subcommand)]
    Rules(Rules),
    /// Recompute what must be true of the ledger
    Verify,
    /// What happened to a customer, and the flows that did it
    Find {
        /// The customer's id
        customer: String,
        /// How many entries, newest first
        #[arg(long, default_value_t = 20)]
        limit: i64,
    },
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
enum Temporal {
    /// Create the namespace and the search attributes, and wait until they can be used
    Apply {
        /// How long ended flows are kept, in hours
        #[arg(long, env = "MEED_TEMPORAL_RETENTION_HOURS", default_value_t = 72)]
        retention_hours: u64,
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

fn main() -> ExitCode {
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
        Command::Temporal(Temporal::Apply { retention_hours }) => {
            temporal::apply(&addresses::temporal()?, retention_hours).await
        }
        Command::Rules(Rules::Check { file }) => rules::check(&file),
        Command::Verify => verify::run(&addresses::pool().await?).await,
        Command::Find { customer, limit } => {
            let customer = CustomerId::new(customer)?;
            let key = customer_key::of(&customer).ok();
            let web_ui = addresses::variable("TEMPORAL_UI_URL");
            let namespace = addresses::namespace();
            let pool = addresses::pool().await?;
            find::run(
                &pool,
                &customer,
                key.as_deref(),
                limit,
                web_ui.as_deref(),
                &namespace,
            )
            .await
        }
        Command::Token { sub, scope, role } => token::print(&sub, &scope, role.as_deref()).await,
        Command::CustomerKey { customer } => {
            println!("{}", customer_key::of(&CustomerId::new(customer)?)?);
            Ok(())
        }
    }
}
