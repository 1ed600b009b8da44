//! What can go wrong with the database, sorted by what can be done about it.

use std::sync::Arc;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database could not be asked, or asked again it may answer: connections, resources,
    /// deadlocks, serialisation, time-outs, a server that takes no writes or knows nobody.
    #[error("the database is out of reach or overloaded: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// The database refused the data (SQLSTATE class 22 or 23): trying again gives the same.
    #[error("the database refused the data: {0}")]
    Data(#[source] sqlx::Error),
    /// Two transactions met; the one that lost may simply be repeated.
    #[error("another transaction came first")]
    Raced,
    /// What was asked for does not exist.
    #[error("{what} {id} does not exist")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// By which id.
        id: String,
    },
    /// The database holds what it never should. Somebody has to look.
    #[error("inconsistent: {0}")]
    Inconsistent(String),
    /// Anything else the database reports: a fault of this program.
    #[error("the database reports: {0}")]
    Other(#[source] sqlx::Error),
    /// What happened to many who asked together.
    #[error(transparent)]
    Together(#[from] Arc<Self>),
}

impl Error {
    pub(crate) fn not_found(what: &'static str, id: impl Into<String>) -> Self {
        Self::NotFound {
            what,
            id: id.into(),
        }
    }

    /// Whether trying the same again can help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Together(error) => error.is_retryable(),
            error => matches!(error, Self::Unavailable(_) | Self::Raced),
        }
    }

    /// Whether the schema or a permission is at fault (SQLSTATE class 42): no data would do.
    pub fn is_schema_fault(&self) -> bool {
        let Self::Other(sqlx::Error::Database(error)) = self else {
            return false;
        };
        error.code().is_some_and(|code| code.starts_with("42"))
    }

    /// Whether the data itself is at fault.
    pub const fn is_data(&self) -> bool {
        matches!(self, Self::Data(_))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default().into_owned();
                match code.get(..2) {
                    Some("22" | "23") => Self::Data(error),
                    // Connections, rollbacks, resources, operator intervention, system errors; and a
                    // server that does not take writes (a replica that was not promoted, a full disk),
                    // does not know who this is any more, or has no such database: nothing of it is the
                    // data's fault, and all of it ends.
                    Some("08" | "25" | "28" | "3D" | "40" | "53" | "55" | "57" | "58") => {
                        Self::Unavailable(error)
                    }
                    _ => Self::Other(error),
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            _ => Self::Other(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, PgConnection};

    use super::*;

    /// An outage must never look as if a message was at fault: that would be refused for good.
    #[tokio::test]
    async fn a_server_that_takes_no_writes_or_nobody_is_out_of_reach() {
        let database = crate::testing::database().await;
        let mut conn = database.pool.acquire().await.expect("a connection");
        sqlx::query("SET default_transaction_read_only = on")
            .execute(&mut *conn)
            .await
            .expect("set");
        let write = "INSERT INTO customers (customer_id) VALUES ('C')";
        let read_only = sqlx::query(write).execute(&mut *conn).await;
        let read_only = Error::from(read_only.expect_err("it takes no writes"));
        let nowhere = format!("{}_that_is_not_there", database.url);
        let nowhere = PgConnection::connect(&nowhere).await.map(drop);
        let nowhere = Error::from(nowhere.expect_err("there is no such database"));
        for error in [read_only, nowhere] {
            assert!(error.is_retryable(), "{error}");
        }
    }
}
