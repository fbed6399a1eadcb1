//! A connection in somebody's hands: what runs on it, by when, and what happens when it is let go in the middle.

use super::database::Database;
use super::error::{Cause, Error, Failure};
use super::link::{Got, Link};
use super::pool::{Connector, Pooled};
use super::query::Query;
use super::{Dialect, value};
use deadpool::managed::Object;
use metrics::counter;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};
use tokio::time::timeout_at;

/// The server stops a statement by itself; only when it is silent do we stop waiting, this much later.
const SERVER_GRACE: Duration = Duration::from_millis(250);

/// A rollback in the background may take this long, then the connection is closed, which rolls back as well.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);

/// A statement of a migration may run this long: as long as it likes.
const UNBOUNDED: Duration = Duration::from_secs(24 * 60 * 60);

/// What of a statement's result is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    All,
    First,
    Count,
}

/// What a connection was acquired for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Read,
    Write,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Every statement stands for itself.
    Single,
    /// Inside a transaction.
    Open,
    /// Inside a transaction in which a statement failed: only a rollback is left.
    Failed,
}

enum Work<'a> {
    Query(&'a Query, Want),
    Script(&'a str),
}

/// Which limit ends a statement first.
#[derive(Clone, Copy)]
enum Limit {
    Deadline,
    Statement,
}

/// Where SQL runs: inside a [`Connection`] or a [`Transaction`]. Functions with SQL take `&mut Session`.
pub struct Session {
    /// `None` once the connection was lost or cut.
    object: Option<Object<Connector>>,
    database: Database,
    role: Role,
    deadline: Option<Instant>,
    state: State,
    /// Nothing has succeeded on this connection since it was acquired.
    fresh: bool,
    /// A statement was sent and its end not seen. Still set when dropped: the future was abandoned.
    running: bool,
    unbounded: bool,
    /// Whoever waits for news in this process is woken when this commits.
    news: bool,
}

impl Session {
    pub(super) async fn acquire(database: &Database, role: Role, deadline: Option<Instant>) -> Result<Session, Error> {
        let object = database.pool(role).acquire(deadline).await?;
        Ok(Session {
            object: Some(object),
            database: database.clone(),
            role,
            deadline,
            state: State::Single,
            fresh: true,
            running: false,
            unbounded: false,
            news: false,
        })
    }

    /// Which database this is.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.database.dialect()
    }

    /// The deadline the connection was acquired with; every statement ends by then.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Wakes whoever waits in [`Database::news`] once what was written here can be read: at the commit, or now outside of a transaction.
    pub fn tell_at_commit(&mut self) {
        match self.state {
            State::Single => self.database.tell(),
            State::Open | State::Failed => self.news = true,
        }
    }

    pub(super) async fn run(&mut self, query: &Query, want: Want) -> Result<Got, Error> {
        if self.role == Role::Read && want == Want::Count {
            return Err(Error::Misuse("this connection is for reading: write through `writer` or `begin`"));
        }
        value::check(&query.values)?;
        let retry = self.fresh && self.state == State::Single && query.only_reads();
        match self.attempt(Work::Query(query, want)).await {
            Err(failure) if failure.lost && retry => {
                // The server closed this connection while it lay in the pool. The pool checks the next one.
                self.object = Some(self.database.pool(self.role).acquire(self.deadline).await?);
                self.attempt(Work::Query(query, want)).await
            }
            other => other,
        }
        .map_err(|failure| failure.error)
    }

    /// Any number of statements without values, for migrations.
    pub(super) async fn script(&mut self, sql: &str) -> Result<(), Error> {
        self.attempt(Work::Script(sql)).await.map(drop).map_err(|failure| failure.error)
    }

    /// Statements from here on may take as long as they like (on PostgreSQL the server must be told as well).
    pub(super) fn lift_limits(&mut self) {
        self.unbounded = true;
    }

    async fn attempt(&mut self, work: Work<'_>) -> Result<Got, Failure> {
        if self.state == State::Failed {
            return Err(Error::Misuse("a statement of this transaction failed: only a rollback is left").into());
        }
        let (until, limit) = self.limit()?;
        self.attempt_until(work, until, limit).await
    }

    async fn attempt_until(&mut self, work: Work<'_>, until: Instant, limit: Limit) -> Result<Got, Failure> {
        let Some(link) = self.object.as_mut().and_then(|object| object.link()) else {
            return Err(Error::unavailable("the connection was lost earlier").into());
        };
        link.stop_at(until);
        // The server keeps the statement timeout itself but knows nothing of the deadline.
        let patience = match (limit, &*link) {
            (Limit::Deadline, Link::Postgres(_)) => until,
            _ => until + SERVER_GRACE,
        };
        self.running = true;
        let result = match work {
            Work::Query(query, want) => timeout_at(patience.into(), link.run(query, want)).await,
            Work::Script(sql) => timeout_at(patience.into(), async { link.script(sql).await.map(|()| Got::default()) }).await,
        };
        self.running = false;
        match result {
            Ok(Ok(got)) => {
                self.fresh = false;
                if let Some(object) = &mut self.object {
                    object.alive_at = Instant::now();
                }
                Ok(got)
            }
            Ok(Err(failure)) => Err(self.settle(failure, limit)),
            Err(_) => {
                self.cut("interrupted");
                Err(stopped(limit).into())
            }
        }
    }

    /// The end of the next statement, and what sets it.
    fn limit(&self) -> Result<(Instant, Limit), Error> {
        let now = Instant::now();
        if self.unbounded {
            return Ok((now + UNBOUNDED, Limit::Statement));
        }
        let own_end = now + self.database.statement_timeout();
        match self.deadline {
            Some(deadline) if deadline <= now => Err(Error::DeadlinePassed),
            Some(deadline) if deadline < own_end => Ok((deadline, Limit::Deadline)),
            _ => Ok((own_end, Limit::Statement)),
        }
    }

    fn settle(&mut self, mut failure: Failure, limit: Limit) -> Failure {
        if failure.interrupted {
            failure.error = stopped(limit);
        } else if matches!(failure.error, Error::StatementTimeout) {
            count_timeout();
        }
        if self.state == State::Open {
            self.state = State::Failed;
        }
        if failure.lost {
            self.database.pool(self.role).doubt();
            self.cut("lost");
        }
        failure
    }

    fn cut(&mut self, reason: &'static str) {
        if let Some(object) = self.object.take() {
            Object::take(object).cut(reason);
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("dialect", &self.dialect()).field("role", &self.role).field("state", &self.state).finish_non_exhaustive()
    }
}

fn count_timeout() {
    counter!("mainstay_db_statement_timeouts_total").increment(1);
}

fn stopped(limit: Limit) -> Error {
    match limit {
        Limit::Deadline => Error::DeadlinePassed,
        Limit::Statement => {
            count_timeout();
            Error::StatementTimeout
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(object) = self.object.take() else { return };
        if self.running {
            Object::take(object).cut("interrupted");
        } else if self.state != State::Single {
            roll_back_later(object);
        }
        // Otherwise dropping the object gives it back.
    }
}

/// Rolls back without making anybody wait, and gives the connection back if that works.
fn roll_back_later(object: Object<Connector>) {
    let mut guard = CutUnlessClean(Some(object));
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        let Some(link) = guard.0.as_mut().and_then(|object| object.link()) else { return };
        let until = Instant::now() + ROLLBACK_TIMEOUT;
        link.stop_at(until);
        if let Ok(Ok(())) = timeout_at(until.into(), link.script("ROLLBACK")).await {
            guard.clean();
        }
    });
}

/// Closes the connection when dropped before [`CutUnlessClean::clean`], for example with the runtime.
struct CutUnlessClean(Option<Object<Connector>>);

impl CutUnlessClean {
    fn clean(&mut self) {
        if let Some(mut object) = self.0.take() {
            object.alive_at = Instant::now();
        }
    }
}

impl Drop for CutUnlessClean {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            let pooled: Pooled = Object::take(object);
            pooled.cut("interrupted");
        }
    }
}

/// A connection on which every statement stands for itself. Dropping it gives it back.
#[derive(Debug)]
pub struct Connection(pub(super) Session);

impl Deref for Connection {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.0
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.0
    }
}

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
        // SQLite: a transaction that begins as a read and then wants to write fails at once instead of waiting.
        let begin = database.dialect().sql("BEGIN", "BEGIN IMMEDIATE");
        let mut session = Session::acquire(database, Role::Write, deadline).await?;
        let mut result = session.attempt(Work::Script(begin)).await;
        if result.as_ref().is_err_and(|failure| failure.lost) {
            // Nothing was done on the connection that the server had closed; the pool checks the next one.
            session = Session::acquire(database, Role::Write, deadline).await?;
            result = session.attempt(Work::Script(begin)).await;
        }
        result.map_err(|failure| failure.error)?;
        session.state = State::Open;
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
