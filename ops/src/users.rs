//! `meed users`: the first admin, who then registers others.

use std::io::{IsTerminal, Read};

use anyhow::{Context, Result, ensure};
use boot::password;
use clap::Subcommand;
use domain::{Username, user};
use serde_json::json;
use store::{
    transaction,
    users::{self, NewUser},
};
use uuid::Uuid;

use crate::{addresses, clients};

/// What is done with users.
#[derive(Subcommand)]
pub enum Command {
    /// Add an admin. Without --password-stdin a password is made and printed, once
    AddAdmin {
        /// The name to log in with: letters, digits and . _ @ + -
        #[arg(long)]
        username: String,
        /// Read the password from the standard input
        #[arg(long)]
        password_stdin: bool,
    },
}

/// Does it.
///
/// # Errors
/// When the database cannot be asked, or name or password cannot be.
pub async fn run(command: Command) -> Result<()> {
    let Command::AddAdmin {
        username,
        password_stdin,
    } = command;
    let username = Username::new(&username)?;
    let made = (!password_stdin).then(password::secret);
    let password = match &made {
        Some(made) => made.clone(),
        None => read()?,
    };
    user::check_password(&password, &username)?;
    let password_hash = clients::hasher()?.hash(&user::normalised(&password))?;
    let user_id = Uuid::new_v4();
    let new = NewUser {
        user_id,
        username: &username,
        password_hash: &password_hash,
        role: "admin",
    };
    let pool = addresses::pool().await?;
    let mut tx = transaction::begin(&pool).await?;
    ensure!(
        users::register(&mut tx, &new).await?,
        "another user has this name"
    );
    let detail = json!({ "role": "admin" });
    clients::record(&mut tx, "user.register", &user_id.to_string(), detail).await?;
    transaction::commit(tx, "user").await?;
    eprintln!("The admin has the id {user_id}.");
    if let Some(made) = made {
        eprintln!("The password. It is not kept and will not be shown again:");
        println!("{made}");
    }
    Ok(())
}

fn read() -> Result<String> {
    if std::io::stdin().is_terminal() {
        eprintln!("The password, then Enter and Ctrl-D:");
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("the password cannot be read")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
