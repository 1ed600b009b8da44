//! The merchants and the Product, Product Search and Order services, simulated.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use simulator::{PartnersOptions, process, serve};
use tokio::net::TcpListener;

/// Plays the partners that Meed speaks to, behaving as it is told.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on.
    #[arg(long, env = "MEED_PARTNERS_LISTEN", default_value = "127.0.0.1:21002")]
    listen: SocketAddr,
    /// File that keeps the merchants' book over restarts (in memory when absent).
    #[arg(long, env = "MEED_PARTNERS_BOOK")]
    book: Option<PathBuf>,
    /// Signing key of a merchant, as MERCHANT=KEY; may be repeated. A merchant X
    /// that is not listed has the key dev-key-X.
    #[arg(long, value_parser = merchant_and_key)]
    signing_key: Vec<(String, String)>,
    /// Secret that signs the tokens for the Order Service (HS256).
    #[arg(
        long,
        env = "MEED_ORDER_SERVICE_SECRET",
        default_value = "dev-order-service-secret",
        hide_env_values = true
    )]
    order_service_secret: String,
}

fn merchant_and_key(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((merchant, key)) if !merchant.is_empty() && !key.is_empty() => {
            Ok((merchant.to_owned(), key.to_owned()))
        }
        _ => Err("expected MERCHANT=KEY".to_owned()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    process::log_json_lines();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meed-partners: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let options = PartnersOptions {
        book: arguments.book,
        signing_keys: arguments.signing_key.into_iter().collect(),
        order_service_secret: arguments.order_service_secret,
    };
    serve(listener, options, async {
        if let Err(error) = process::asked_to_end().await {
            tracing::error!(%error, "signals cannot be received");
        }
    })
    .await?;
    Ok(())
}
