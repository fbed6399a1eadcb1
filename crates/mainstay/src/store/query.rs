//! A statement and its values.

use super::error::Error;
use super::row::Row;
use super::session::{Session, Want};
use super::value::Value;
use std::borrow::Cow;
use std::fmt::Write as _;

/// A statement with `$1`, `$2`, ... for its values; made by [`query`].
#[derive(Debug, Clone)]
#[must_use = "a query does nothing until it is fetched or executed"]
pub struct Query {
    pub(super) sql: Cow<'static, str>,
    pub(super) values: Vec<Value>,
    pub(super) keep: bool,
}

/// Begins a statement. The text is the same for both databases: `$1`, `$2`, ... stand for the values in the order in
/// which they are bound. It stays prepared on the connection it ran on.
///
/// Never build the text from input: only values are safe.
pub fn query(sql: impl Into<Cow<'static, str>>) -> Query {
    Query { sql: sql.into(), values: Vec::new(), keep: true }
}

/// `$first, $first+1, ...`, `count` of them, for `IN (...)` and `VALUES (...)`.
///
/// SQLite takes at most 32,766 values in a statement, PostgreSQL 65,535.
#[must_use]
pub fn placeholders(first: usize, count: usize) -> String {
    let mut text = String::with_capacity(count * 5);
    for number in first..first + count {
        if number > first {
            text.push_str(", ");
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "${number}");
    }
    text
}

impl Query {
    /// Binds the next placeholder.
    pub fn bind(mut self, value: impl Into<Value>) -> Query {
        self.values.push(value.into());
        self
    }

    /// Binds the next placeholders.
    pub fn bind_all(mut self, values: impl IntoIterator<Item = Value>) -> Query {
        self.values.extend(values);
        self
    }

    /// Does not keep the statement prepared: for text that comes in many shapes, which would push out the others.
    pub fn once(mut self) -> Query {
        self.keep = false;
        self
    }

    /// All rows. Bound the query with `LIMIT`: there is no other bound on the memory it takes.
    ///
    /// # Errors
    /// Any [`Error`] but `NoRow`.
    pub async fn fetch_all(self, session: &mut Session) -> Result<Vec<Row>, Error> {
        session.run(&self, Want::All).await.map(|got| got.rows)
    }

    /// The first row, if there is one.
    ///
    /// # Errors
    /// Any [`Error`] but `NoRow`.
    pub async fn fetch_optional(self, session: &mut Session) -> Result<Option<Row>, Error> {
        session.run(&self, Want::First).await.map(|got| got.rows.into_iter().next())
    }

    /// The first row.
    ///
    /// # Errors
    /// [`Error::NoRow`] when there is none, or any other [`Error`].
    pub async fn fetch_one(self, session: &mut Session) -> Result<Row, Error> {
        self.fetch_optional(session).await?.ok_or(Error::NoRow)
    }

    /// Runs a statement that changes something; the number of rows it touched.
    ///
    /// # Errors
    /// [`Error::Misuse`] on a connection from [`super::Database::acquire`], which is for reading; else any [`Error`].
    pub async fn execute(self, session: &mut Session) -> Result<u64, Error> {
        session.run(&self, Want::Count).await.map(|got| got.count)
    }

    /// A read may be sent again on another connection when the first one turns out to be dead.
    pub(super) fn only_reads(&self) -> bool {
        self.sql.trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("SELECT"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_count_on_from_the_first() {
        assert_eq!(placeholders(3, 3), "$3, $4, $5");
        assert_eq!(placeholders(1, 0), "");
    }

    #[test]
    fn only_a_select_counts_as_a_read() {
        assert!(query("  select 1").only_reads());
        assert!(!query("INSERT INTO t VALUES (1)").only_reads());
        assert!(!query("WITH x AS (INSERT INTO t VALUES (1) RETURNING 1) SELECT 1").only_reads());
        assert!(!query("é").only_reads());
    }
}
