//! A database asked behind the service's back, and databases that are made for a drill.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection, query_scalar, raw_sql};
use tokio::time::timeout;

/// The longest that a question may take; two million rows are made in less.
const PATIENCE: Duration = Duration::from_secs(300);

/// A number that a database gives, at a URL as the service has it.
///
/// # Errors
/// What the database says.
pub(crate) async fn number(url: &str, text: &str) -> Result<i64, String> {
    let asking = async {
        if url.starts_with("sqlite:") {
            let mut connection = SqliteConnection::connect(url).await?;
            let number = query_scalar(AssertSqlSafe(text)).fetch_one(&mut connection).await;
            connection.close().await?;
            number
        } else {
            let mut connection = PgConnection::connect(url).await?;
            let number = query_scalar(AssertSqlSafe(text)).fetch_one(&mut connection).await;
            connection.close().await?;
            number
        }
    };
    match timeout(PATIENCE, asking).await {
        Ok(number) => number.map_err(|error: sqlx::Error| format!("{text}: {error}")),
        Err(_) => Err(format!("{text}: no answer in {} s", PATIENCE.as_secs())),
    }
}

/// Statements, at a URL as the service has it.
///
/// # Errors
/// What the database says.
pub(crate) async fn execute(url: &str, text: &str) -> Result<(), String> {
    let asking = async {
        if url.starts_with("sqlite:") {
            let mut connection = SqliteConnection::connect(url).await?;
            let done = raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.map(|_| ());
            connection.close().await?;
            done
        } else {
            let mut connection = PgConnection::connect(url).await?;
            let done = raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.map(|_| ());
            connection.close().await?;
            done
        }
    };
    match timeout(PATIENCE, asking).await {
        Ok(done) => done.map_err(|error| format!("{text}: {error}")),
        Err(_) => Err(format!("{text}: no answer in {} s", PATIENCE.as_secs())),
    }
}

/// A database of a drill's own on a PostgreSQL.
#[derive(Debug)]
pub(crate) struct Database {
    server: String,
    /// Its name, which nothing else on this server has.
    pub(crate) name: String,
    /// Its URL.
    pub(crate) url: String,
}

impl Database {
    /// Makes it, empty.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn create(server: &str) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        let name = format!("drill_{}_{nanoseconds}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let url = named(server, &name)?;
        execute(server, &format!("CREATE DATABASE {name}")).await?;
        Ok(Self { server: server.to_owned(), name, url })
    }

    /// Removes it, whoever is connected.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn remove(self) -> Result<(), String> {
        execute(&self.server, &format!("DROP DATABASE {} WITH (FORCE)", self.name)).await
    }
}

/// The URL of another database on the same server.
fn named(server: &str, name: &str) -> Result<String, String> {
    let (scheme, rest) = server.split_once("://").ok_or("the URL must begin with postgres://")?;
    let (rest, options) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    let host = rest.split('/').next().unwrap_or(rest);
    Ok(format!("{scheme}://{host}/{name}{options}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_has_another_path_and_the_same_options() {
        for (server, wanted) in [
            ("postgres://u:p@127.0.0.1:5432/postgres", "postgres://u:p@127.0.0.1:5432/new"),
            ("postgres://u@h", "postgres://u@h/new"),
            ("postgres://h/a?sslmode=disable", "postgres://h/new?sslmode=disable"),
        ] {
            assert_eq!(named(server, "new").unwrap(), wanted);
        }
        assert!(named("h", "new").is_err());
    }
}
