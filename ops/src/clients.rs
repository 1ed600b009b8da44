//! `meed clients`: who gets tokens with a secret.

use anyhow::{Context, Result, bail, ensure};
use boot::password::{self, Hasher};
use clap::Subcommand;
use comfy_table::Table;
use domain::MerchantId;
use serde_json::{Value, json};
use store::{audit, clients, transaction};
use uuid::Uuid;

use crate::addresses;

/// What a client's tokens may allow.
const SCOPES: [&str; 4] = [
    "rewards.read",
    "rewards.write",
    "rewards.redeem",
    "callbacks.write",
];
/// The longest id, in characters.
const ID_MAX_CHARS: usize = 64;

/// What is done with clients.
#[derive(Subcommand)]
pub enum Command {
    /// Add a client and print its secret, which is not shown again
    Add {
        /// Its id: letters, digits and . _ -
        #[arg(long)]
        id: String,
        /// What its tokens may allow, separated by spaces, such as "rewards.read rewards.redeem"
        #[arg(long)]
        scope: String,
        /// A merchant that it may act for; may be given several times
        #[arg(
            long = "merchant",
            value_name = "ID",
            required_unless_present = "all_merchants"
        )]
        merchants: Vec<String>,
        /// It may act for every merchant
        #[arg(long, conflicts_with = "merchants")]
        all_merchants: bool,
    },
    /// List the clients
    List,
    /// Give a client no tokens any more; those it has run out within minutes
    Disable {
        /// Its id
        #[arg(long)]
        id: String,
    },
    /// Give a client another secret and print it; the old one does not count any more
    RotateSecret {
        /// Its id
        #[arg(long)]
        id: String,
    },
}

/// Does it.
///
/// # Errors
/// When the database cannot be asked, or what is asked for cannot be.
pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Add {
            id,
            scope,
            merchants,
            all_merchants,
        } => add(&id, &scope, (!all_merchants).then_some(merchants)).await,
        Command::List => list().await,
        Command::Disable { id } => disable(&id).await,
        Command::RotateSecret { id } => rotate(&id).await,
    }
}

async fn add(id: &str, scope: &str, merchants: Option<Vec<String>>) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    ensure!(
        (1..=ID_MAX_CHARS).contains(&id.len()) && id.chars().all(allowed),
        "an id has 1 to {ID_MAX_CHARS} characters: letters, digits and . _ -"
    );
    let mut scopes: Vec<String> = scope.split_whitespace().map(str::to_owned).collect();
    scopes.sort();
    scopes.dedup();
    ensure!(
        !scopes.is_empty(),
        "a client needs a scope: {}",
        SCOPES.join(", ")
    );
    if let Some(unknown) = scopes.iter().find(|name| !SCOPES.contains(&name.as_str())) {
        bail!("{unknown} is no scope: there are {}", SCOPES.join(", "));
    }
    for merchant in merchants.iter().flatten() {
        MerchantId::new(merchant).with_context(|| format!("{merchant:?} is no merchant"))?;
    }
    let secret = password::secret();
    let hash = hasher()?.hash(&secret)?;
    let pool = addresses::pool().await?;
    let mut tx = transaction::begin(&pool).await?;
    if !clients::add(&mut tx, id, &hash, &scopes, merchants.as_deref()).await? {
        bail!(
            "there is a client {id}: choose another id, or give it another secret with `meed clients rotate-secret`"
        );
    }
    let detail = json!({ "scopes": scopes, "merchants": merchants });
    record(&mut tx, "client.add", id, detail).await?;
    transaction::commit(tx, "client").await?;
    show(id, &secret);
    Ok(())
}

async fn list() -> Result<()> {
    let mut table = Table::new();
    table.set_header(["client", "scopes", "merchants", "secret since", "disabled"]);
    for client in clients::list(&addresses::pool().await?).await? {
        let merchants = client
            .merchants
            .map_or("all".to_owned(), |all| all.join(" "));
        let disabled = client.disabled_at.map(|at| at.to_rfc3339());
        table.add_row([
            client.client_id,
            client.scopes.join(" "),
            merchants,
            client.secret_changed_at.to_rfc3339(),
            disabled.unwrap_or_else(|| "no".to_owned()),
        ]);
    }
    println!("{table}");
    Ok(())
}

async fn disable(id: &str) -> Result<()> {
    let pool = addresses::pool().await?;
    let mut tx = transaction::begin(&pool).await?;
    ensure!(
        clients::disable(&mut tx, id).await?,
        "there is no client {id}"
    );
    record(&mut tx, "client.disable", id, json!({})).await?;
    transaction::commit(tx, "client").await?;
    println!("{id} gets no tokens any more.");
    Ok(())
}

async fn rotate(id: &str) -> Result<()> {
    let secret = password::secret();
    let hash = hasher()?.hash(&secret)?;
    let pool = addresses::pool().await?;
    let mut tx = transaction::begin(&pool).await?;
    let known = clients::rotate_secret(&mut tx, id, &hash).await?;
    ensure!(known, "there is no client {id}");
    record(&mut tx, "client.rotate-secret", id, json!({})).await?;
    transaction::commit(tx, "client").await?;
    show(id, &secret);
    Ok(())
}

fn show(id: &str, secret: &str) {
    eprintln!("The secret of {id}. It is not kept and will not be shown again:");
    println!("{secret}");
}

/// With the costs of the configuration file, or the usual ones where there is none.
pub fn hasher() -> Result<Hasher> {
    let settings = addresses::whole_settings().map(|settings| settings.auth.passwords);
    Hasher::new(&settings.unwrap_or_default())
}

/// Writes to the audit record, in the transaction of the change.
pub async fn record(
    tx: &mut store::Transaction,
    action: &str,
    subject: &str,
    detail: Value,
) -> Result<()> {
    let change = audit::Change {
        actor: &addresses::operator(),
        action,
        subject,
        request_id: &Uuid::new_v4().to_string(),
        address: None,
        detail,
    };
    Ok(audit::write(tx, &change).await?)
}
