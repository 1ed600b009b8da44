//! `meed verify`: recomputes what must be true of the ledger.

use anyhow::{Context, Result, bail};
use comfy_table::Table;
use store::PgPool;

/// Checks every property of the ledger and prints what holds.
///
/// # Errors
/// When the database cannot be asked, or a property does not hold.
pub async fn run(pool: &PgPool) -> Result<()> {
    let checks = store::verify::verify(pool)
        .await
        .context("the ledger could not be read")?;
    let mut table = Table::new();
    table.set_header(["property", "holds", "who breaks it"]);
    for check in &checks {
        let holds = if check.violations == 0 {
            "yes".to_owned()
        } else {
            format!("NO, {} times", check.violations)
        };
        table.add_row([
            check.property,
            holds.as_str(),
            check.examples.join("\n").as_str(),
        ]);
    }
    println!("{table}");
    let broken = checks.iter().filter(|check| check.violations > 0).count();
    if broken > 0 {
        bail!("{broken} of {} properties do not hold", checks.len());
    }
    println!("All {} properties hold.", checks.len());
    Ok(())
}
