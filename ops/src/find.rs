//! `meed find CUSTOMER`: from a customer through the ledger to the flows.

use anyhow::{Context, Result, bail};
use comfy_table::Table;
use domain::CustomerId;
use store::{PgPool, ledger, story};

/// Prints the customer's balance and what happened last, each with the workflow that did it and
/// its address in the Web UI.
///
/// # Errors
/// When the database cannot be asked or the customer is unknown.
pub async fn run(
    pool: &PgPool,
    customer: &CustomerId,
    customer_key: Option<&str>,
    limit: i64,
    web_ui: Option<&str>,
    namespace: &str,
) -> Result<()> {
    let mut conn = pool
        .acquire()
        .await
        .context("the database could not be asked")?;
    let Some(balance) = ledger::balance(&mut conn, customer).await? else {
        bail!("customer {customer} has no account");
    };
    println!(
        "Customer {customer}: available {}, held {}, lifetime earned {}, tier {}, version {}",
        balance.available, balance.held, balance.lifetime_earned, balance.tier.0, balance.version
    );
    if let Some(key) = customer_key {
        println!("In the Web UI: MeedCustomer = \"{key}\"");
    }
    let mut table = Table::new();
    table.set_header(["when", "what", "workflow"]);
    for entry in story::of(pool, customer, limit).await? {
        let workflow = match web_ui {
            Some(base) => format!(
                "{}\n{base}/namespaces/{namespace}/workflows/{}",
                entry.workflow_id,
                entry.workflow_id.replace('/', "%2F")
            ),
            None => entry.workflow_id,
        };
        table.add_row([
            entry.at.format("%Y-%m-%d %H:%M:%S%.3f").to_string(),
            entry.what,
            workflow,
        ]);
    }
    println!("{table}");
    Ok(())
}
