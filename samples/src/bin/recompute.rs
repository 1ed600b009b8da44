//! Prints what the ledger must hold after a sample file: `recompute [FILE]`.

use std::path::PathBuf;

use clap::Parser;
use samples::{feed, recompute};

/// Recomputes a sample file without the engine and prints the result as JSON.
#[derive(Parser)]
struct Arguments {
    /// The sample file.
    #[arg(default_value = "samples/day.jsonl.gz")]
    file: PathBuf,
    /// Leaves out the lists of customers and redemptions.
    #[arg(long)]
    summary: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut expectation = recompute::recompute(&feed::read(&arguments.file)?);
    if arguments.summary {
        expectation.customers.clear();
        expectation.redemptions.clear();
    }
    println!("{}", serde_json::to_string_pretty(&expectation)?);
    Ok(())
}
