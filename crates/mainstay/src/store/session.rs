//! A connection in somebody's hands: what runs on it, by when, and what happens when it is let go in the middle.

use super::database::Database;
use super::error::{Error, Failure};
use super::link::{Got, Link};
use super::pool::{Connector, Pool, Pooled};
use super::pooled::Beginning;
use super::query::Query;
use super::replica::{self, Fallback, Replica};
use super::{Dialect, value};
use deadpool::managed::Object;
use metrics::counter;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout_at;

/// The server stops a statement by itself; only when it is silent do we stop waiting, this much later.
const SERVER_GRACE: Duration = Duration::from_millis(250);

/// A rollback in the background may take this long, then the connection is closed, which rolls back as well.
pub(super) const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);

/// A statement of a migration may run this long: as long as it likes.
pub(super) const UNBOUNDED: Duration = Duration::from_secs(24 * 60 * 60);

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
pub(super) enum State {
    /// Every statement stands for itself.
    Single,
    /// Inside a transaction.
    Open,
    /// Inside a transaction in which a statement failed: only a rollback is left.
    Failed,
}

pub(super) enum Work<'a> {
    Query(&'a Query, Want),
    Script(&'a str),
}

/// Which limit ends a statement first.
#[derive(Clone, Copy)]
pub(super) enum Limit {
    Deadline,
    Statement,
    /// A pooler has so much time to lend a connection.
    Acquire(Duration),
}

/// Where SQL runs: inside a [`Connection`] or a [`Transaction`](super::Transaction). Functions with SQL take `&mut Session`.
pub struct Session {
    /// `None` once the connection was lost or cut.
    object: Option<Object<Connector>>,
    pub(super) database: Database,
    role: Role,
    /// Whose connection it is; nothing for the primary's.
    replica: Option<Arc<Replica>>,
    deadline: Option<Instant>,
    pub(super) state: State,
    /// Nothing has succeeded on this connection since it was acquired.
    fresh: bool,
    /// A statement was sent and its end not seen. Still set when dropped: the future was abandoned.
    running: bool,
    pub(super) unbounded: bool,
    /// Whoever waits for news in this process is woken when this commits.
    pub(super) news: bool,
}

impl Session {
    pub(super) async fn acquire(database: &Database, role: Role, deadline: Option<Instant>) -> Result<Session, Error> {
        let object = database.pool(role).acquire(deadline).await?;
        Ok(Session::on(object, database, role, deadline))
    }

    /// A connection of a replica, if it has one to give at once.
    pub(super) async fn on_replica(database: &Database, replica: &Arc<Replica>, deadline: Option<Instant>) -> Result<Session, Error> {
        let bound = Instant::now() + replica::ACQUIRE_MAX;
        let object = replica.pool.acquire(Some(deadline.map_or(bound, |deadline| deadline.min(bound)))).await?;
        let mut session = Session::on(object, database, Role::Read, deadline);
        session.replica = Some(Arc::clone(replica));
        Ok(session)
    }

    fn on(object: Object<Connector>, database: &Database, role: Role, deadline: Option<Instant>) -> Session {
        Session {
            object: Some(object),
            database: database.clone(),
            role,
            replica: None,
            deadline,
            state: State::Single,
            fresh: true,
            running: false,
            unbounded: false,
            news: false,
        }
    }

    fn pool(&self) -> &Pool {
        match &self.replica {
            Some(replica) => &replica.pool,
            None => self.database.pool(self.role),
        }
    }

    /// Goes on with a connection that nobody has used for this session.
    pub(super) async fn acquire_anew(&mut self) -> Result<(), Error> {
        // Before the wait: what was lent must be back when others wait for it.
        self.object = None;
        self.object = Some(self.pool().acquire(self.deadline).await?);
        self.fresh = true;
        Ok(())
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
        let alone = self.state == State::Single && query.only_reads();
        let mut retry = self.fresh && alone;
        loop {
            match self.attempt(Work::Query(query, want)).await {
                Ok(got) => return Ok(got),
                Err(failure) if alone && self.replica.is_some() && replica::primary_may(&failure.error) => {
                    tracing::debug!(error = %failure.error, "a replica could not answer; the primary is asked");
                    replica::fell_back(Fallback::Failed);
                    self.replica = None;
                    self.acquire_anew().await?;
                    retry = true;
                }
                Err(failure) if failure.lost && retry => {
                    // The server closed this connection while it lay in the pool. The pool checks the next one.
                    self.acquire_anew().await?;
                    retry = false;
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }

    /// Any number of statements without values, for migrations.
    pub(super) async fn script(&mut self, sql: &str) -> Result<(), Error> {
        self.attempt(Work::Script(sql)).await.map(drop).map_err(|failure| failure.error)
    }

    /// Statements from here on may take as long as they like (on PostgreSQL the server must be told as well).
    pub(super) fn lift_limits(&mut self) {
        self.unbounded = true;
    }

    pub(super) async fn attempt(&mut self, work: Work<'_>) -> Result<Got, Failure> {
        if self.state == State::Failed {
            return Err(Error::Misuse("a statement of this transaction failed: only a rollback is left").into());
        }
        if self.state == State::Single
            && let Some(beginning) = self.beginning()
        {
            return self.attempt_borrowing(work, &beginning).await;
        }
        let (until, limit) = self.limit()?;
        self.attempt_until(work, until, limit).await
    }

    /// Behind a pooler: how a transaction begins.
    pub(super) fn beginning(&mut self) -> Option<Arc<Beginning>> {
        self.object.as_mut()?.link()?.beginning().map(Arc::clone)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.object.is_some()
    }

    /// Has nothing succeeded on this connection since it was acquired?
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// How long this one waits for a pooler to lend it a connection: for that of a replica no longer than for one of our own.
    pub(super) fn patience(&self) -> Duration {
        if self.replica.is_some() { replica::ACQUIRE_MAX } else { self.database.acquire_timeout() }
    }

    pub(super) async fn attempt_until(&mut self, work: Work<'_>, until: Instant, limit: Limit) -> Result<Got, Failure> {
        if self.running {
            // Whoever waited for the last one went away in the middle of it: nobody knows what this connection is in.
            self.cut("interrupted");
        }
        let Some(link) = self.object.as_mut().and_then(|object| object.link()) else {
            return Err(Error::unavailable("the connection was lost earlier").into());
        };
        link.stop_at(until);
        // The server keeps the statement timeout itself but knows nothing of the deadline.
        let patience = match (limit, &*link) {
            (Limit::Deadline | Limit::Acquire(_), Link::Postgres { .. }) => until,
            _ => until + SERVER_GRACE,
        };
        self.running = true;
        let worked = async {
            match work {
                Work::Query(query, want) => link.run(query, want).await,
                Work::Script(sql) => link.script(sql).await.map(|()| Got::default()),
            }
        };
        let result = match &self.replica {
            None => timeout_at(patience.into(), worked).await,
            Some(replica) => {
                // A replica that went silent is found out by its watcher, long before the statement's time is over.
                let worked = async {
                    tokio::select! {
                        biased;
                        result = worked => result,
                        () = replica.gone() => Err(Failure::lost(Error::unavailable("the replica does not answer"))),
                    }
                };
                timeout_at(patience.into(), worked).await
            }
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
                if matches!(limit, Limit::Acquire(_)) {
                    self.pool().count_timeout();
                }
                self.cut("interrupted");
                Err(stopped(limit).into())
            }
        }
    }

    /// The end of the next statement, and what sets it.
    pub(super) fn limit(&self) -> Result<(Instant, Limit), Error> {
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
        if failure.takes_no_writes && self.replica.is_none() && self.role == Role::Write {
            self.pool().writes().refuse();
        }
        if failure.lost {
            self.pool().doubt();
            self.cut("lost");
        }
        failure
    }

    pub(super) fn cut(&mut self, reason: &'static str) {
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
        Limit::Acquire(waited) => Error::AcquireTimeout { waited },
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
