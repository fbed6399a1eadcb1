//! The database: one SQL text and one row type over PostgreSQL and SQLite.
//!
//! It knows no table. A service writes its SQL in plain functions that take a [`Session`], and composes them in a
//! [`Transaction`] or runs them on a [`Connection`]:
//!
//! ```no_run
//! use mainstay::store::{Database, Error, Session, Settings, query};
//!
//! async fn rename(session: &mut Session, id: i64, name: &str) -> Result<bool, Error> {
//!     let changed = query("UPDATE things SET name = $2 WHERE id = $1").bind(id).bind(name).execute(session).await?;
//!     Ok(changed == 1)
//! }
//!
//! # async fn example() -> Result<(), Error> {
//! let database = Database::open(&Settings::new("sqlite:data/things.db")).await?;
//! let mut transaction = database.begin(None).await?;
//! rename(&mut transaction, 1, "kettle").await?;
//! transaction.commit().await?;
//! # Ok(()) }
//! ```
//!
//! Promises:
//! - No wait without a bound: a connection comes within the acquire timeout or the caller's deadline, whichever is
//!   nearer, and so does every statement within the statement timeout or that deadline.
//! - A connection whose state is unknown (its statement was cut off, its future dropped, its socket broken) never
//!   goes back to the pool, and what it was running on the server stops within a second.
//! - Only what is acquired by [`Database::acquire_tolerant`] may come from a read replica, and nobody waits there for one that is not well.
//! - A transaction that is dropped without [`Transaction::commit`] is rolled back.
//! - No error and no `Debug` output contains the database URL, a password, or the row detail that PostgreSQL adds to
//!   constraint errors.
//! - Constraint errors carry the same kind and name on both databases, by the rule at [`ConstraintKind`].

mod constraint;
mod database;
mod error;
mod lag;
mod limits;
mod link;
mod listen;
mod migrate;
mod pool;
mod pooled;
mod query;
mod read_only;
mod replica;
mod row;
mod server;
mod session;
mod settings;
mod transaction;
mod value;
mod watch;

pub use constraint::ConstraintKind;
pub use database::{Database, Stats};
pub use error::{Cause, Error};
pub use limits::{Arithmetic, ConnectionLimits, Server, check_arithmetic};
pub use listen::Listener;
pub use migrate::{Applied, MigrateError, Migration, MigrationState, MigrationStatus, Migrations, migrate, migration_status};
pub use query::{Query, placeholders, query};
pub use replica::{Out, REPLICAS_MAX, ReplicaStanding};
pub use row::{Column, Row};
pub use session::{Connection, Session};
pub use settings::Settings;
pub use transaction::Transaction;
pub use value::{Bindable, Kind, Value};

/// Which database answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL 14 or newer.
    Postgres,
    /// The bundled SQLite, in a file of its own.
    Sqlite,
}

impl Dialect {
    /// Picks the text for this database, for the few statements that cannot be the same on both.
    #[must_use]
    pub fn sql(self, postgres: &'static str, sqlite: &'static str) -> &'static str {
        match self {
            Dialect::Postgres => postgres,
            Dialect::Sqlite => sqlite,
        }
    }

    /// `postgresql` or `sqlite`, for logs and health answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.sql("postgresql", "sqlite")
    }
}
