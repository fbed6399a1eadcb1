//! Statements that stand or fall together.

use super::database::Database;
use super::error::{Cause, Error, Failure};
use super::session::{Limit, ROLLBACK_TIMEOUT, Role, Session, State, UNBOUNDED, Work};
use std::ops::{Deref, DerefMut};
use std::time::Instant;

/// A transaction. Dropping it without [`Transaction::commit`] rolls it back.
///
/// A statement that fails dooms it, on both databases (PostgreSQL knows no other way without savepoints): what is
/// left is to drop it. For "insert unless it is there" write `ON CONFLICT DO NOTHING` and look at the count.
#[must_use = "a transaction that is dropped is rolled back"]
#[derive(Debug)]
pub struct Transaction(Session);

impl Deref for Transaction {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.0
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.0
    }
}

impl Transaction {
    pub(super) async fn begin(database: &Database, deadline: Option<Instant>) -> Result<Transaction, Error> {
        let mut session = Session::acquire(database, Role::Write, deadline).await?;
        let mut result = session.begin().await;
        if result.as_ref().is_err_and(|failure| failure.lost) {
            // Nothing was done on the connection that the server had closed; the pool checks the next one.
            session = Session::acquire(database, Role::Write, deadline).await?;
            result = session.begin().await;
        }
        result.map_err(|failure| failure.error)?;
        Ok(Transaction(session))
    }

    /// Makes everything stand.
    ///
    /// Once the commit is on its way the deadline cuts it no more, only the statement timeout does. When it fails
    /// with [`Error::Unavailable`] or [`Error::StatementTimeout`], or when its future is dropped, nobody can know
    /// whether the server did it.
    ///
    /// # Errors
    /// [`Error::DeadlinePassed`] (nothing was committed), [`Error::Constraint`] of a deferred constraint,
    /// [`Error::Conflict`], [`Error::Unavailable`], and [`Error::Misuse`] when a statement had failed before.
    pub async fn commit(mut self) -> Result<(), Error> {
        if self.0.state == State::Failed {
            return Err(Error::Misuse("a statement of this transaction failed, so it was rolled back"));
        }
        self.0.limit()?;
        let until = Instant::now() + if self.0.unbounded { UNBOUNDED } else { self.0.database.statement_timeout() };
        match self.0.attempt_until(Work::Script("COMMIT"), until, Limit::Statement).await {
            Ok(_) => {
                self.0.state = State::Single;
                if self.0.news {
                    self.0.database.tell();
                }
                Ok(())
            }
            Err(failure) => Err(failure.error),
        }
    }

    /// Undoes everything and waits until that is done.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the connection broke, which undoes everything as well.
    pub async fn rollback(mut self) -> Result<(), Error> {
        let until = Instant::now() + ROLLBACK_TIMEOUT;
        let result = self.0.attempt_until(Work::Script("ROLLBACK"), until, Limit::Statement).await;
        match result {
            Ok(_) => {
                self.0.state = State::Single;
                Ok(())
            }
            // SQLite rolls back by itself when it interrupts a write.
            Err(Failure { error: Error::Other(Cause { message, .. }), .. }) if message.contains("no transaction is active") => {
                self.0.state = State::Single;
                Ok(())
            }
            Err(failure) => Err(failure.error),
        }
    }
}
