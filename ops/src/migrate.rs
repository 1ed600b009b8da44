//! `meed migrate`: the database's schema.

use anyhow::{Context, Result};
use boot::settings::DatabaseSettings;

/// Applies the migrations that have not been applied.
///
/// # Errors
/// When the database cannot be reached, or holds a schema that this program does not know.
pub async fn run(settings: &DatabaseSettings) -> Result<()> {
    let pool = boot::database::connect(settings, "meed").await?;
    store::MIGRATIONS
        .run(&pool)
        .await
        .context("the schema could not be brought up to date")?;
    let last = store::MIGRATIONS.iter().last();
    let last = last.map_or_else(String::new, |migration| {
        format!(
            ", the last is {} ({})",
            migration.version, migration.description
        )
    });
    println!(
        "The schema is up to date: {} migrations{last}.",
        store::MIGRATIONS.iter().count()
    );
    pool.close().await;
    Ok(())
}
