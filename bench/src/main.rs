//! `./dev bench [award|redeem|read|ranking|sockets|all|growth|scale]`: measures Meed on the real
//! stack, each figure beside a baseline of the same run, and says which goals are reached.
//!
//! `bench/run` builds what is measured as it is deployed, with `cargo build --release`, and this
//! program with it.

mod accounts;
mod award;
mod baseline;
mod growth;
mod load;
mod options;
mod ranking;
mod read;
mod redeem;
mod report;
mod sampling;
mod scale;
mod sockets;
mod system;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::options::{Options, What};
use crate::report::Report;

#[tokio::main]
async fn main() -> ExitCode {
    if let Ok(listen) = std::env::var(baseline::VARIABLE) {
        boot::process::install_crypto();
        return match baseline::serve(&listen).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let options = Options::parse();
    boot::process::install_crypto();
    // What is late may add up to many connections.
    if let Err(error) = boot::descriptors::raise() {
        eprintln!("error: {error:#}");
        return ExitCode::from(2);
    }
    let mut holds = true;
    for what in options.what.parts() {
        match measure(what, &options).await {
            Ok(report) => {
                println!("\n{report}");
                holds &= report.explained();
                if let Err(error) = report.write() {
                    eprintln!("error: {error:#}");
                    return ExitCode::from(2);
                }
            }
            Err(error) => {
                eprintln!("\nerror: {}: {error:#}", what.name());
                return ExitCode::from(2);
            }
        }
    }
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn measure(what: What, options: &Options) -> Result<Report> {
    match what {
        What::Award => award::measure(options).await,
        What::Redeem => redeem::measure(options).await,
        What::Read => read::measure(options).await,
        What::Ranking => ranking::measure(options).await,
        What::Sockets => sockets::measure(options).await,
        What::Growth => growth::measure(options).await,
        What::Scale => scale::measure(options).await,
        What::All => anyhow::bail!("all is measured part by part"),
    }
}
