//! A pooler in transaction mode between us and PostgreSQL: it lends a connection of the server for one transaction and the next one may be another.
//!
//! So nothing may be left on a connection: no prepared statement (the driver's two messages for one statement would even meet two servers), no setting. Each
//! statement runs in a transaction of its own, and each transaction begins with one message that brings our limits with it. That message is what waits when
//! the pooler has no connection to lend, so it has the bound of a connection and not that of a statement.

use super::error::{Error, Failure};
use super::link::{Got, Link};
use super::query::Query;
use super::session::{Limit, ROLLBACK_TIMEOUT, Session, State, Want, Work};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

/// The message that begins a transaction with our limits in it.
pub(super) struct Beginning {
    /// With the server watching whether the pooler still wants the answer: it closes the server's connection when its client leaves in the middle.
    watched: String,
    /// Without, for servers that cannot watch.
    plain: String,
    watch: AtomicU8,
}

const UNTRIED: u8 = 0;
const CAN: u8 = 1;
const CANNOT: u8 = 2;

impl Beginning {
    pub(super) fn new(limits: &[(&str, u128)], watch: (&str, u64)) -> Beginning {
        let mut plain = "BEGIN".to_owned();
        for (name, value) in limits {
            // Writing to a String cannot fail.
            let _ = write!(plain, "; SET LOCAL {name} = {value}");
        }
        let watched = format!("{plain}; SET LOCAL {} = {}", watch.0, watch.1);
        Beginning { watched, plain, watch: AtomicU8::new(UNTRIED) }
    }

    /// Finds out on the first connection whether the server can watch. True when it was found now that it cannot.
    pub(super) async fn try_out(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        if self.watch.load(Ordering::Relaxed) != UNTRIED {
            return Ok(false);
        }
        let tried = sqlx::raw_sql(AssertSqlSafe(self.watched.as_str())).execute(&mut *connection).await;
        let cannot = tried.as_ref().is_err_and(cannot_watch);
        if !cannot {
            tried?;
        }
        sqlx::raw_sql("ROLLBACK").execute(connection).await?;
        self.watch.store(if cannot { CANNOT } else { CAN }, Ordering::Relaxed);
        Ok(cannot)
    }

    fn text(&self) -> &str {
        if self.watch.load(Ordering::Relaxed) == CANNOT { &self.plain } else { &self.watched }
    }
}

/// Does the server not know the setting, or not take it?
pub(super) fn cannot_watch(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if matches!(error.code().as_deref(), Some("42704" | "22023")))
}

impl Link {
    /// Runs a statement that stands for itself. Whoever waits for it bounds it.
    pub(super) async fn run_alone(&mut self, query: &Query, want: Want) -> Result<Got, Failure> {
        let Some(beginning) = self.beginning().map(Arc::clone) else { return self.run(query, want).await };
        self.script(beginning.text()).await?;
        let ran = self.run(query, want).await;
        self.script(if ran.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
        ran
    }
}

impl Session {
    /// Begins a transaction.
    pub(super) async fn begin(&mut self) -> Result<(), Failure> {
        match self.beginning() {
            Some(beginning) => self.borrow(&beginning).await?,
            None => {
                // SQLite: a transaction that begins as a read and then wants to write fails at once instead of waiting.
                let begin = self.dialect().sql("BEGIN", "BEGIN IMMEDIATE");
                self.attempt(Work::Script(begin)).await?;
            }
        }
        self.state = State::Open;
        Ok(())
    }

    /// Runs a statement that stands for itself in a transaction of its own.
    pub(super) async fn attempt_borrowing(&mut self, work: Work<'_>, beginning: &Beginning) -> Result<Got, Failure> {
        self.borrow(beginning).await?;
        self.state = State::Open;
        let reads = matches!(work, Work::Query(query, _) if query.only_reads());
        let mut got = match self.limit() {
            Ok((until, limit)) => self.attempt_until(work, until, limit).await,
            Err(passed) => Err(passed.into()),
        };
        // What was cut off has neither a connection nor a transaction any more.
        if self.is_connected() {
            // Whether a write stands is waited for as long as for a statement; nothing else is.
            let (end, limit) = match &got {
                Ok(_) if reads => ("COMMIT", self.limit()),
                Ok(_) => ("COMMIT", Ok((Instant::now() + self.database.statement_timeout(), Limit::Statement))),
                Err(_) => ("ROLLBACK", Ok((Instant::now() + ROLLBACK_TIMEOUT, Limit::Statement))),
            };
            let ended = match limit {
                Ok((until, limit)) => self.attempt_until(Work::Script(end), until, limit).await.map(drop),
                Err(passed) => {
                    self.cut("interrupted");
                    Err(passed.into())
                }
            };
            if let Err(failure) = ended
                && got.is_ok()
            {
                got = Err(failure);
            }
        }
        self.state = State::Single;
        got
    }

    /// Has the pooler lend a connection. Nothing was done when that fails, so a connection that had been closed meanwhile costs nobody anything.
    async fn borrow(&mut self, beginning: &Beginning) -> Result<(), Failure> {
        let begun = self.borrow_once(beginning).await;
        if self.is_fresh() && begun.as_ref().is_err_and(|failure| failure.lost) {
            self.acquire_anew().await?;
            return self.borrow_once(beginning).await;
        }
        begun
    }

    async fn borrow_once(&mut self, beginning: &Beginning) -> Result<(), Failure> {
        let now = Instant::now();
        let patience = self.patience();
        let (until, limit) = match self.deadline() {
            Some(deadline) if deadline <= now => return Err(Error::DeadlinePassed.into()),
            Some(deadline) if deadline < now + patience => (deadline, Limit::Deadline),
            _ => (now + patience, Limit::Acquire(patience)),
        };
        self.attempt_until(Work::Script(beginning.text()), until, limit).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_begins_with_every_limit_in_one_message() {
        let beginning = Beginning::new(&[("statement_timeout", 300), ("idle_in_transaction_session_timeout", 600)], ("watch", 5));
        let plain = "BEGIN; SET LOCAL statement_timeout = 300; SET LOCAL idle_in_transaction_session_timeout = 600";
        assert_eq!(beginning.text(), format!("{plain}; SET LOCAL watch = 5"));
        beginning.watch.store(CANNOT, Ordering::Relaxed);
        assert_eq!(beginning.text(), plain);
    }
}
