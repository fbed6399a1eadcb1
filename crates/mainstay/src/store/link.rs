//! One open connection of either driver, and how to make SQLite stop.

use super::error::Failure;
use super::pooled::Beginning;
use super::query::Query;
use super::row::{Inner, Row};
use super::session::Want;
use super::settings::sqlite_options;
use super::value;
use sqlx::postgres::{PgConnection, Postgres};
use sqlx::sqlite::{Sqlite, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// After so many instructions of its virtual machine SQLite asks whether to go on: about 50 us of work, against about
/// 30 ns for the question.
const STEPS_BETWEEN_QUESTIONS: i32 = 4_000;

/// The end of a statement on SQLite, which runs in this process and so must be told from within.
pub(super) struct Interrupt {
    origin: Instant,
    /// Microseconds after `origin`; 0 stops at once, `u64::MAX` never.
    until_us: AtomicU64,
}

impl Interrupt {
    fn new() -> Interrupt {
        Interrupt { origin: Instant::now(), until_us: AtomicU64::new(u64::MAX) }
    }

    fn may_go_on(&self) -> bool {
        let until_us = self.until_us.load(Ordering::Relaxed);
        until_us == u64::MAX || self.origin.elapsed() < Duration::from_micros(until_us)
    }

    fn set(&self, until: Instant) {
        let after = until.saturating_duration_since(self.origin).as_micros();
        self.until_us.store(u64::try_from(after).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn stop(&self) {
        self.until_us.store(0, Ordering::Relaxed);
    }
}

/// One open connection.
pub(super) enum Link {
    Postgres {
        connection: PgConnection,
        /// With a pooler in between: how each transaction begins.
        beginning: Option<Arc<Beginning>>,
    },
    Sqlite {
        connection: SqliteConnection,
        interrupt: Arc<Interrupt>,
    },
}

/// What a statement gave.
#[derive(Default)]
pub(super) struct Got {
    pub(super) rows: Vec<Row>,
    pub(super) count: u64,
}

impl Link {
    pub(super) async fn sqlite(path: &Path, writer: bool) -> Result<Link, sqlx::Error> {
        let mut connection = sqlite_options(path, writer).connect().await?;
        let interrupt = Arc::new(Interrupt::new());
        let asked = Arc::clone(&interrupt);
        connection.lock_handle().await?.set_progress_handler(STEPS_BETWEEN_QUESTIONS, move || asked.may_go_on());
        Ok(Link::Sqlite { connection, interrupt })
    }

    /// The statement that runs next stops at `until`. PostgreSQL's server has its own limit, so this is for SQLite.
    pub(super) fn stop_at(&self, until: Instant) {
        if let Link::Sqlite { interrupt, .. } = self {
            interrupt.set(until);
        }
    }

    /// What runs now stops. PostgreSQL stops when it sees that the connection is closed.
    pub(super) fn stop_now(&self) {
        if let Link::Sqlite { interrupt, .. } = self {
            interrupt.stop();
        }
    }

    /// How a transaction begins here; nothing where none is needed for a single statement.
    pub(super) fn beginning(&self) -> Option<&Arc<Beginning>> {
        match self {
            Link::Postgres { beginning, .. } => beginning.as_ref(),
            Link::Sqlite { .. } => None,
        }
    }

    /// Runs a statement. Behind a pooler it needs a transaction around it: [`Link::run_alone`].
    pub(super) async fn run(&mut self, query: &Query, want: Want) -> Result<Got, Failure> {
        let Query { sql, values, keep } = query;
        let text = AssertSqlSafe(sql.clone());
        let got = match self {
            Link::Postgres { connection, beginning } => {
                let arguments = value::postgres_arguments(values)?;
                // Behind a pooler a name would be kept by one server's connection and looked for on the next.
                let query = sqlx::query_with::<Postgres, _>(text, arguments).persistent(*keep && beginning.is_none());
                let row = |row| Row(Inner::Postgres(row));
                match want {
                    Want::All => rows(query.fetch_all(connection).await?.into_iter().map(row)),
                    Want::First => rows(query.fetch_optional(connection).await?.into_iter().map(row)),
                    Want::Count => count(query.execute(connection).await?.rows_affected()),
                }
            }
            Link::Sqlite { connection, .. } => {
                let arguments = value::sqlite_arguments(values)?;
                let query = sqlx::query_with::<Sqlite, _>(text, arguments).persistent(*keep);
                let row = |row| Row(Inner::Sqlite(row));
                match want {
                    Want::All => rows(query.fetch_all(connection).await?.into_iter().map(row)),
                    Want::First => rows(query.fetch_optional(connection).await?.into_iter().map(row)),
                    Want::Count => count(query.execute(connection).await?.rows_affected()),
                }
            }
        };
        Ok(got)
    }

    /// Runs a text of any number of statements, without values.
    pub(super) async fn script(&mut self, sql: &str) -> Result<(), Failure> {
        let script = sqlx::raw_sql(AssertSqlSafe(sql));
        match self {
            Link::Postgres { connection, .. } => script.execute(connection).await.map(drop)?,
            Link::Sqlite { connection, .. } => script.execute(connection).await.map(drop)?,
        }
        Ok(())
    }

    /// The cheapest question there is: is the other side alive?
    pub(super) async fn ping(&mut self) -> Result<(), Failure> {
        match self {
            Link::Postgres { connection, .. } => connection.ping().await?,
            Link::Sqlite { connection, .. } => connection.ping().await?,
        }
        Ok(())
    }

    /// Would a write on this connection be taken? A whole PostgreSQL can be read-only. SQLite has no room where it cannot write a page: a number that is for
    /// its users, and that we do not use, is written as it is.
    ///
    /// # Errors
    /// What the database says; SQLite says so that it takes none.
    pub(super) async fn takes_writes(&mut self) -> Result<bool, Failure> {
        match self {
            Link::Postgres { connection, .. } => {
                // In one message, so that it needs no transaction behind a pooler.
                let row = sqlx::raw_sql("SELECT current_setting('transaction_read_only')").fetch_one(connection).await?;
                Ok(row.try_get::<String, _>(0)? == "off")
            }
            Link::Sqlite { connection, .. } => {
                let row = sqlx::raw_sql("PRAGMA user_version").fetch_one(&mut *connection).await?;
                let version: i64 = row.try_get(0)?;
                sqlx::raw_sql(AssertSqlSafe(format!("PRAGMA user_version = {version}"))).execute(connection).await?;
                Ok(true)
            }
        }
    }

    /// Says good-bye. Only for a connection on which nothing runs.
    pub(super) async fn close(self) {
        // A connection that cannot even be closed in order is closed all the same.
        let _ = match self {
            Link::Postgres { connection, .. } => connection.close().await,
            Link::Sqlite { connection, .. } => connection.close().await,
        };
    }
}

fn rows(rows: impl Iterator<Item = Row>) -> Got {
    Got { rows: rows.collect(), count: 0 }
}

fn count(count: u64) -> Got {
    Got { rows: Vec::new(), count }
}
