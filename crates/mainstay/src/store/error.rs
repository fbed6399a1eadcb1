//! What can go wrong with a database, sorted by what the caller can do about it.

use super::constraint::{self, ConstraintKind};
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use std::fmt;
use std::time::Duration;

/// What went wrong, sorted by what the caller can do about it.
///
/// Neither `Display` nor `Debug` shows the database URL, a password or a row.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// No connection became free in time: the service is overloaded or its queries are slow. Answer 503.
    AcquireTimeout {
        /// How long the caller waited.
        waited: Duration,
    },
    /// The caller's own deadline passed. Answer 503.
    DeadlinePassed,
    /// The statement ran into the statement timeout and was stopped. Answer 503.
    StatementTimeout,
    /// The database cannot be used now: refused, reset, full, shutting down, read-only, or closed by us. Answer 503.
    Unavailable(Cause),
    /// The write would break a constraint. Whoever wrote the query knows what the name means.
    Constraint {
        /// What the constraint demands.
        kind: ConstraintKind,
        /// Its name, by the rule at [`ConstraintKind`]; may be empty for a foreign key on SQLite.
        name: String,
    },
    /// Lost against another transaction (serialization, deadlock, lock): the whole transaction may be tried again.
    Conflict(Cause),
    /// The value cannot be stored or computed: NUL in a text, not a number, out of range. Answer 400.
    Data(Cause),
    /// `fetch_one` found nothing.
    NoRow,
    /// A column is absent or holds another type than was asked for: a mistake in the program.
    Decode {
        /// The column.
        column: String,
        /// What was found and what was wanted.
        message: String,
    },
    /// The store was used in a way it does not allow: a mistake in the program.
    Misuse(&'static str),
    /// A setting is wrong.
    Configuration(String),
    /// Anything else the database said, such as a syntax error.
    Other(Cause),
}

/// SQLSTATE of a write in a transaction that may only read: the server was made read-only, or is what a failover left behind.
const READ_ONLY: &str = "25006";

/// IOERR_WRITE and IOERR_SHMSIZE: over a quota, or a limit on the size of files, SQLite says these where a full disk is FULL.
const UNWRITTEN: [u32; 2] = [778, 4874];

/// What the database or the network said, without the details that hold data of rows.
#[derive(Debug, Clone)]
pub struct Cause {
    /// SQLSTATE of PostgreSQL or result code of SQLite, when there is one.
    pub code: Option<String>,
    /// The primary message.
    pub message: String,
}

impl Cause {
    pub(super) fn new(message: impl Into<String>) -> Cause {
        Cause { code: None, message: message.into() }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{} ({code})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Cause {}

impl Error {
    /// Kind and name of the constraint, if that is what went wrong.
    #[must_use]
    pub fn constraint(&self) -> Option<(ConstraintKind, &str)> {
        match self {
            Error::Constraint { kind, name } => Some((*kind, name)),
            _ => None,
        }
    }

    /// Whether a value is there already, by the name of the constraint that says so.
    #[must_use]
    pub fn is_unique(&self, name: &str) -> bool {
        self.constraint() == Some((ConstraintKind::Unique, name))
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Error {
        Error::Unavailable(Cause::new(message))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::AcquireTimeout { waited } => {
                write!(f, "no database connection became free within {} ms", waited.as_millis())
            }
            Error::DeadlinePassed => f.write_str("the deadline passed before the database answered"),
            Error::StatementTimeout => f.write_str("the statement ran into its time limit and was stopped"),
            Error::Unavailable(_) => f.write_str("the database is not available"),
            Error::Constraint { kind, name } => write!(f, "{kind:?} constraint \"{name}\" refuses the write"),
            Error::Conflict(_) => f.write_str("the transaction lost against another one"),
            Error::Data(_) => f.write_str("the database cannot store this value"),
            Error::NoRow => f.write_str("the query found no row"),
            Error::Decode { column, message } => write!(f, "column \"{column}\": {message}"),
            Error::Misuse(message) => f.write_str(message),
            Error::Configuration(message) => f.write_str(message),
            Error::Other(_) => f.write_str("the database refused the statement"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Unavailable(cause) | Error::Conflict(cause) | Error::Data(cause) | Error::Other(cause) => Some(cause),
            _ => None,
        }
    }
}

/// An error together with what it says about the connection it came from.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// The connection cannot be used again.
    pub(super) lost: bool,
    /// SQLite stopped because we asked it to; the caller knows which limit it was.
    pub(super) interrupted: bool,
    /// The database takes no writes: it is read-only, or the disk of SQLite has no room. A PostgreSQL whose disk is full refuses what it has no room for and
    /// takes the rest, and only its operator knows when that is over.
    pub(super) takes_no_writes: bool,
}

impl Failure {
    /// The connection is of no use any more.
    pub(super) fn lost(error: Error) -> Failure {
        Failure { error, lost: true, interrupted: false, takes_no_writes: false }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, lost: false, interrupted: false, takes_no_writes: false }
    }
}

fn lost(cause: Cause) -> Failure {
    Failure::lost(Error::Unavailable(cause))
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Failure {
        match error {
            sqlx::Error::Database(database) => {
                if let Some(postgres) = database.try_downcast_ref::<PgDatabaseError>() {
                    from_postgres(postgres)
                } else {
                    from_sqlite(database.code().and_then(|code| code.parse().ok()).unwrap_or(1), database.message())
                }
            }
            sqlx::Error::RowNotFound => Error::NoRow.into(),
            sqlx::Error::Encode(error) => Error::Data(Cause::new(error.to_string())).into(),
            // Broken sockets and broken protocol alike: what comes next on this connection is anybody's guess.
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => lost(Cause::new(error.to_string())),
            other => Error::Other(Cause::new(other.to_string())).into(),
        }
    }
}

/// By SQLSTATE (PostgreSQL documentation, appendix A).
fn from_postgres(error: &PgDatabaseError) -> Failure {
    if let Some((kind, name)) = constraint::from_postgres(error) {
        return Error::Constraint { kind, name }.into();
    }
    let cause = Cause { code: Some(error.code().to_owned()), message: error.message().to_owned() };
    if cause.message.starts_with("unsupported startup parameter") {
        // PgBouncer's words; PostgreSQL says "unrecognized configuration parameter".
        return Error::Configuration(format!(
            "a pooler answers in place of PostgreSQL ({}). In transaction mode it needs DATABASE_POOLER=transaction and DATABASE_DIRECT_URL; in session mode \
             let it pass: ignore_startup_parameters = extra_float_digits, options",
            cause.message
        ))
        .into();
    }
    if matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic) {
        return lost(cause);
    }
    match error.code() {
        "57014" => Error::StatementTimeout.into(),
        // Serialization failure, deadlock, lock not available.
        "40001" | "40P01" | "55P03" => Error::Conflict(cause).into(),
        // Read-only: the connection is as good for reads as it was. The pool finds out when that is over.
        READ_ONLY => Failure { takes_no_writes: true, ..Error::Unavailable(cause).into() },
        // A plan made before a migration, or dropped behind our back: a new connection makes its own.
        "26000" => lost(cause),
        "0A000" if cause.message.contains("cached plan") => lost(cause),
        // Disk full, out of memory, too many locks: not this connection's fault.
        code if code.starts_with("53") => Error::Unavailable(cause).into(),
        code if code.starts_with("08") || code.starts_with("57P") => lost(cause),
        code if code.starts_with("22") => Error::Data(cause).into(),
        _ => Error::Other(cause).into(),
    }
}

/// By result code (sqlite.org/rescode.html); the low byte is the primary code.
fn from_sqlite(code: u32, message: &str) -> Failure {
    if let Some((kind, name)) = constraint::from_sqlite(code, message) {
        return Error::Constraint { kind, name }.into();
    }
    let cause = Cause { code: Some(code.to_string()), message: message.to_owned() };
    match code & 0xff {
        // BUSY, LOCKED.
        5 | 6 => Error::Conflict(cause).into(),
        // INTERRUPT.
        9 => Failure { interrupted: true, ..Error::StatementTimeout.into() },
        // IOERR, CORRUPT, CANTOPEN, NOTADB: open the file again before trusting it.
        10 | 11 | 14 | 26 => Failure { takes_no_writes: UNWRITTEN.contains(&code), ..lost(cause) },
        // READONLY, FULL.
        8 | 13 => Failure { takes_no_writes: true, ..Error::Unavailable(cause).into() },
        // NOMEM.
        7 => Error::Unavailable(cause).into(),
        // TOOBIG, MISMATCH, RANGE.
        18 | 20 | 25 => Error::Data(cause).into(),
        _ => Error::Other(cause).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_is_unavailable_and_takes_no_writes_and_other_failures_say_nothing_about_writes() {
        for (code, takes_no_writes, is_lost) in [
            (13, true, false),
            (8, true, false),
            (1032, true, false),
            (778, true, true),
            (4874, true, true),
            (266, false, true),
            (11, false, true),
            (7, false, false),
        ] {
            let failure = from_sqlite(code, "said");
            assert!(matches!(failure.error, Error::Unavailable(_)), "{code}");
            assert_eq!((failure.takes_no_writes, failure.lost), (takes_no_writes, is_lost), "{code}");
        }
    }
}
