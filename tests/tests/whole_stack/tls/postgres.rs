//! The ledger's database over TLS, as `database.url` asks for it: against the real server, with a
//! certificate that counts and with one that does not.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    time::Instant,
};

use boot::settings::DatabaseSettings;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};
use tests::system::{PATIENCE, System, system_alone};

use super::{AUTHORITY, authorities, certificate};

/// Whose process this is.
fn owner(pid: i32) -> (u32, u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let id = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect("it is there");
        line.split_whitespace()
            .next()
            .expect("an id")
            .parse()
            .expect("a number")
    };
    (id("Uid:"), id("Gid:"))
}

async fn say(superuser: &PgPool, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(superuser)
        .await
        .expect("a superuser may");
}

async fn tls(system: &System, superuser: &PgPool, on: bool) {
    say(superuser, &format!("ALTER SYSTEM SET ssl = {on}")).await;
    say(superuser, "SELECT pg_reload_conf()").await;
    let wanted = if on { "on" } else { "off" };
    system
        .until("the server has read its configuration", async || {
            let shown: String = sqlx::query_scalar("SHOW ssl")
                .fetch_one(superuser)
                .await
                .expect("it answers");
            shown == wanted
        })
        .await;
}

async fn over_tls(url: &str, authority: PathBuf) -> anyhow::Result<bool> {
    let url = format!(
        "{url}?sslmode=verify-full&sslrootcert={}",
        authority.display()
    );
    let settings: DatabaseSettings = serde_json::from_value(json!({ "url": url }))?;
    let pool = boot::database::connect(&settings, "tls").await?;
    let encrypted: bool =
        sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            .fetch_one(&pool)
            .await?;
    pool.close().await;
    Ok(encrypted)
}

#[tokio::test]
async fn the_database_is_reached_over_tls_and_a_stranger_is_not_believed() {
    let system = system_alone().await;
    let stack = &system.components.stack;
    let dir = stack.data_dir().join("postgres-tls");
    authorities(&dir);
    certificate(&dir, "server", AUTHORITY);
    let (user, group) = owner(stack.pid("postgres").expect("it runs"));
    let key = dir.join("server.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("it is ours");
    for file in [&dir, &key, &dir.join("server.pem")] {
        chown(file, Some(user), Some(group)).expect("it may be given away");
    }
    let superuser = stack
        .superuser_url()
        .expect("PostgreSQL is the stack's own");
    let superuser = PgPool::connect(&superuser).await.expect("it answers");
    for (setting, file) in [
        ("ssl_cert_file", "server.pem"),
        ("ssl_key_file", "server.key"),
    ] {
        let path = dir.join(file);
        say(
            &superuser,
            &format!("ALTER SYSTEM SET {setting} = '{}'", path.display()),
        )
        .await;
    }
    tls(&system, &superuser, true).await;

    let url = &system.components.env["DATABASE_URL"];
    let began = Instant::now();
    let encrypted = loop {
        // A slow machine may not connect in the time that it is given.
        let encrypted = over_tls(url, dir.join("authority.pem")).await;
        if encrypted.is_ok() || began.elapsed() > PATIENCE {
            break encrypted;
        }
    };
    let stranger = over_tls(url, dir.join("stranger.pem")).await;
    // Whatever came of it: the other tests' connections are to be plain again.
    tls(&system, &superuser, false).await;
    assert!(encrypted.expect("it is reached"));
    let refused = format!("{:#}", stranger.expect_err("nobody vouches for it"));
    assert!(
        refused.to_lowercase().contains("certificate") || refused.contains("UnknownIssuer"),
        "{refused}"
    );
}
