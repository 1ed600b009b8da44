//! `chaos`: see the library.

use std::process::ExitCode;

use chaos::{options::Options, planted, run};
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.planted {
        Some(which) => planted::run_all(&options, which).await,
        None => run::run(&options).await.map(|report| report.holds),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::from(2)
        }
    }
}
