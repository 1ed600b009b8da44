//! Databases for tests: each test has its own, made from the migrations.

use sqlx::{Connection, PgConnection, PgPool, postgres::PgPoolOptions};

/// A database of a test's own.
pub struct TestDatabase {
    /// A pool on it.
    pub pool: PgPool,
    /// Its address.
    pub url: String,
}

/// Makes an empty database with the schema, on the server that `MEED_TEST_DATABASE_URL` names.
///
/// # Panics
/// When the variable is not set or the server does not answer: a test that cannot run has failed.
pub async fn database() -> TestDatabase {
    let server = std::env::var("MEED_TEST_DATABASE_URL")
        .expect("MEED_TEST_DATABASE_URL names a PostgreSQL server; `./dev test` sets it");
    database_on(&server).await
}

/// The same, on the server with this address.
///
/// # Panics
/// When the server does not answer.
pub async fn database_on(server: &str) -> TestDatabase {
    let name = format!("t_{}", uuid::Uuid::new_v4().simple());
    let mut admin = PgConnection::connect(server)
        .await
        .expect("the test server answers");
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut admin)
        .await
        .expect("a database can be made");
    let (base, _) = server
        .rsplit_once('/')
        .expect("the address names a database");
    let url = format!("{base}/{name}");
    let pool = PgPoolOptions::new()
        .max_connections(8)
        .connect(&url)
        .await
        .expect("it answers");
    crate::MIGRATIONS
        .run(&pool)
        .await
        .expect("the migrations apply");
    TestDatabase { pool, url }
}
