//! `meed find CUSTOMER`: from a customer through the ledger to the flows.

use anyhow::{Context, Result};
use boot::web_ui::WebUi;
use comfy_table::Table;
use domain::CustomerId;
use store::{PgPool, ledger, story};

/// Prints the customer's balance and what happened last, each with the workflow that did it and
/// its address in the Web UI.
///
/// # Errors
/// When the database cannot be asked.
pub async fn run(
    pool: &PgPool,
    customer: &CustomerId,
    customer_key: Option<&str>,
    limit: i64,
    web_ui: Option<&WebUi>,
) -> Result<()> {
    let mut conn = pool
        .acquire()
        .await
        .context("the database could not be asked")?;
    match ledger::balance(&mut conn, customer).await? {
        Some(balance) => println!(
            "Customer {customer}: available {}, held {}, lifetime earned {}, tier {}, version {}",
            balance.available,
            balance.held,
            balance.lifetime_earned,
            balance.tier.0,
            balance.version
        ),
        None => println!("Customer {customer} has no account"),
    }
    if let Some(key) = customer_key {
        println!("In the Web UI: MeedCustomer = \"{key}\"");
    }
    let mut table = Table::new();
    table.set_header(["when", "what", "workflow"]);
    for entry in story::of(pool, customer, limit).await? {
        let workflow = match web_ui {
            _ if entry.workflow_id.is_empty() => "-".to_owned(),
            Some(web_ui) => {
                let address = web_ui.workflow(&entry.workflow_id);
                format!("{}\n{address}", entry.workflow_id)
            }
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
