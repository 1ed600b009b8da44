//! Writes the sample day: `generate [--seed N] [--out FILE]`.

use std::path::PathBuf;

use clap::Parser;
use samples::{feed, generate};

/// Writes the sample day; the same seed gives the same bytes.
#[derive(Parser)]
struct Arguments {
    /// What the day is drawn from.
    #[arg(long, default_value_t = generate::SEED)]
    seed: u64,
    /// Where to write it.
    #[arg(long, default_value = "samples/day.jsonl.gz")]
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let deliveries = generate::day(arguments.seed);
    feed::write(&arguments.out, &deliveries)?;
    println!(
        "{} deliveries written to {}",
        deliveries.len(),
        arguments.out.display()
    );
    Ok(())
}
