//! The database as a service sees it: open, acquire, begin, look, close.

use super::Dialect;
use super::error::Error;
use super::limits::{self, ConnectionLimits};
use super::listen::Listener;
use super::pool::{Limits, Opener, Pool};
use super::query::query;
use super::replica::{self, Fallback, ReplicaStanding, Replicas};
use super::server::{self, SERVER, Sight};
use super::session::{Connection, Role, Session};
use super::settings::{Postgres, Settings, Target, create_sqlite_file};
use super::transaction::Transaction;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

pub use super::pool::Stats;

/// Readers of SQLite. Each costs a thread, and for reads by key one alone is fastest: on two cores 104,000 a second
/// against 51,000 with four, because fewer threads wake each other. But one slow read would then hold up every other
/// one, so there are as many as slow reads may run before quick ones wait.
const SQLITE_READERS_MAX: usize = 4;

/// How often the pool closes what is idle and opens what is missing. Half of the recovery time promised.
const TEND_EVERY: Duration = Duration::from_millis(500);

/// A liveness question that takes longer is answered with no.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// An open database; clones share its pools.
///
/// PostgreSQL has one pool, and one for each of its read replicas. SQLite has a pool of readers, which cannot write, and one writer, because the file takes
/// one write at a time and waiting in our queue is fair where SQLite's own waiting is not.
#[derive(Clone)]
pub struct Database(Arc<Shared>);

struct Shared {
    dialect: Dialect,
    statement_timeout: Duration,
    acquire_timeout: Duration,
    reader: Arc<Pool>,
    /// The same pool as `reader` on PostgreSQL.
    writer: Arc<Pool>,
    replicas: Option<Replicas>,
    /// How a connection beside the pool is opened, to the server itself; none on SQLite.
    beside: Option<Box<Postgres>>,
    /// Of a database of its own past the pooler; none without a pooler.
    direct: Option<Settings>,
    sight: Sight,
    /// Which server is followed, as [`Database::server_expression`] says it.
    server: Mutex<Option<String>>,
    tending: AbortHandle,
    news: Notify,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tending.abort();
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("dialect", &self.0.dialect).field("stats", &self.stats()).finish()
    }
}

impl Database {
    /// Opens the database: connects once, so that a wrong setting shows now, and keeps connections warm from then on.
    /// Creates the file of SQLite (and its directory, for the owner only) when there is none.
    ///
    /// Install the recorder of metrics before.
    ///
    /// # Errors
    /// [`Error::Configuration`] for a URL or a file that cannot work, [`Error::Unavailable`] when nobody answers.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub async fn open(settings: &Settings) -> Result<Database, Error> {
        let target = settings.target()?;
        let limits = |max: usize, min: usize| Limits {
            max: max.max(1),
            min: min.min(max.max(1)),
            idle_timeout: settings.idle_timeout,
            acquire_timeout: settings.acquire_timeout,
        };
        let pool_limits = || limits(settings.pool_max, settings.pool_min);
        let (dialect, reader, writer) = match target {
            Target::Postgres(_) => {
                let pool = Arc::new(Pool::new("main", Opener::reading(target), pool_limits())?);
                (Dialect::Postgres, Arc::clone(&pool), pool)
            }
            Target::Sqlite(ref path) => {
                create_sqlite_file(path)?;
                let writer = Opener::Sqlite { path: path.clone(), writer: true };
                let writer = Arc::new(Pool::new("writer", writer, limits(1, 1))?);
                // The writer comes first: it makes the file what readers expect.
                drop(writer.acquire(None).await?);
                let limits = limits(settings.pool_max.min(SQLITE_READERS_MAX), settings.pool_min);
                (Dialect::Sqlite, Arc::new(Pool::new("reader", Opener::reading(target), limits)?), writer)
            }
        };
        let mut first = reader.acquire(None).await?;
        let link = first.link().ok_or_else(|| Error::unavailable("the connection was closed"))?;
        let sight = server::look(link, settings).await?;
        drop(first);
        let replicas = Replicas::open(settings, pool_limits)?;
        let tending = tokio::spawn(tend(Arc::clone(&reader), Arc::clone(&writer))).abort_handle();
        let statement_timeout = settings.statement_timeout;
        let database = Database(Arc::new(Shared {
            dialect,
            statement_timeout,
            acquire_timeout: settings.acquire_timeout,
            reader,
            writer,
            replicas,
            beside: settings.direct()?,
            direct: settings.past_pooler(),
            sight,
            server: Mutex::new(None),
            tending,
            news: Notify::new(),
        }));
        Ok(database)
    }

    /// Which database this is.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.0.dialect
    }

    /// A connection to read on, each statement for itself. The first read is sent again on another connection when
    /// the server had closed this one.
    ///
    /// # Errors
    /// [`Error::AcquireTimeout`], [`Error::DeadlinePassed`], [`Error::Unavailable`].
    pub async fn acquire(&self, deadline: Option<Instant>) -> Result<Connection, Error> {
        Session::acquire(self, Role::Read, deadline).await.map(Connection)
    }

    /// As [`Database::acquire`], for a read that may show what was true a little earlier: at most [`Settings::replica_lag_max`] earlier, and the 1.5 s that
    /// it takes to notice. It is a replica's if one is in use and has a connection within 100 ms, else the primary's. A statement that the replica cannot
    /// answer is asked of the primary, and one that a replica leaves without an answer within a second.
    ///
    /// Two such reads in a row may come from two servers, and the second may show something older than the first.
    ///
    /// # Errors
    /// Those of [`Database::acquire`].
    pub async fn acquire_tolerant(&self, deadline: Option<Instant>) -> Result<Connection, Error> {
        let Some(replicas) = &self.0.replicas else { return self.acquire(deadline).await };
        let fallback = match replicas.pick() {
            None => Fallback::NoneInUse,
            Some(replica) => match Session::on_replica(self, replica, deadline).await {
                Ok(session) => return Ok(Connection(session)),
                Err(_) => Fallback::NoConnection,
            },
        };
        replica::fell_back(fallback);
        self.acquire(deadline).await
    }

    /// A connection for writes that are one statement each, without the two round trips of a transaction.
    ///
    /// # Errors
    /// [`Error::AcquireTimeout`], [`Error::DeadlinePassed`], [`Error::Unavailable`].
    pub async fn writer(&self, deadline: Option<Instant>) -> Result<Connection, Error> {
        Session::acquire(self, Role::Write, deadline).await.map(Connection)
    }

    /// Begins a transaction. On SQLite it holds the write lock from the start (`BEGIN IMMEDIATE`).
    ///
    /// # Errors
    /// [`Error::AcquireTimeout`], [`Error::DeadlinePassed`], [`Error::Unavailable`]; on SQLite [`Error::Conflict`]
    /// when another process holds the lock for five seconds.
    pub async fn begin(&self, deadline: Option<Instant>) -> Result<Transaction, Error> {
        Transaction::begin(self, deadline).await
    }

    /// Asks the database for a sign of life, within a second. A pool with no connection to spare gives none either.
    ///
    /// # Errors
    /// Any [`Error`] that a connection or `SELECT 1` can meet.
    pub async fn ping(&self) -> Result<(), Error> {
        let deadline = Instant::now() + PING_TIMEOUT;
        let mut connection = self.acquire(Some(deadline)).await?;
        query("SELECT 1").fetch_one(&mut connection).await.map(drop)
    }

    /// Listens to notifications on channels of PostgreSQL, on one connection of its own beside the pool.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when none can be had within two seconds, [`Error::Misuse`] on SQLite, which has no channels.
    pub async fn listen(&self, channels: &[&str]) -> Result<Listener, Error> {
        match &self.0.beside {
            Some(options) => {
                let mut listener = Listener::connect(options, channels, self.server_expression()).await?;
                self.meet(listener.server(Instant::now() + PING_TIMEOUT).await?.0);
                Ok(listener)
            }
            None => Err(Error::Misuse("SQLite has no notifications")),
        }
    }

    /// How full the pools are; readers and writer together on SQLite.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (reader, writer) = (self.0.reader.stats(), self.0.writer.stats());
        if self.0.dialect == Dialect::Postgres {
            return reader;
        }
        Stats {
            size: reader.size + writer.size,
            idle: reader.idle + writer.idle,
            in_use: reader.in_use + writer.in_use,
            waiting: reader.waiting + writer.waiting,
            max: reader.max + writer.max,
        }
    }

    /// What is known of each replica, in the order of the setting.
    #[must_use]
    pub fn replicas(&self) -> Vec<ReplicaStanding> {
        self.0.replicas.as_ref().map(Replicas::standings).unwrap_or_default()
    }

    /// What the server of each replica allows, by its address, for [`super::check_arithmetic`]. One that does not answer holds nobody up for longer than a
    /// connection may take.
    pub async fn replica_limits(&self) -> Vec<(String, Result<ConnectionLimits, Error>)> {
        match &self.0.replicas {
            Some(replicas) => replicas.limits().await,
            None => Vec::new(),
        }
    }

    /// Sets the metrics `mainstay_db_takes_writes`, `mainstay_db_pool_*` and `mainstay_replica_*`; call it when the metrics are read.
    pub fn record_metrics(&self) {
        metrics::gauge!("mainstay_db_takes_writes").set(f64::from(u8::from(self.takes_writes())));
        self.0.reader.record_metrics();
        if self.0.dialect == Dialect::Sqlite {
            self.0.writer.record_metrics();
        }
        if let Some(replicas) = &self.0.replicas {
            replicas.record_metrics();
        }
    }

    /// Hands out no more connections, closes the idle ones, and waits for those in use, at most `drain`.
    ///
    /// Returns whether all were closed.
    pub async fn close(&self, drain: Duration) -> bool {
        let until = Instant::now() + drain;
        self.0.tending.abort();
        let replicas = async {
            match &self.0.replicas {
                Some(replicas) => replicas.close(until).await,
                None => true,
            }
        };
        let (reader, writer, replicas) = tokio::join!(self.0.reader.close(until), self.0.writer.close(until), replicas);
        reader && writer && replicas
    }

    /// What the server allows, for [`super::check_arithmetic`]; `None` on SQLite, which has no such limit.
    ///
    /// # Errors
    /// Any [`Error`] that a connection or a read can meet.
    pub async fn connection_limits(&self) -> Result<Option<ConnectionLimits>, Error> {
        if self.0.dialect == Dialect::Sqlite {
            return Ok(None);
        }
        let mut connection = self.acquire(None).await?;
        limits::read(&limits::question().fetch_one(&mut connection).await?).map(Some)
    }

    /// Waits until a commit of this process has something to tell ([`Session::tell_at_commit`]). For one listener: a call that comes while nobody listens is
    /// kept for the next one, and several become one. What other processes commit tells nothing here: look from time to time as well.
    pub async fn news(&self) {
        self.0.news.notified().await;
    }

    pub(super) fn tell(&self) {
        self.0.news.notify_one();
    }

    pub(super) fn pool(&self, role: Role) -> &Pool {
        match role {
            Role::Read => &self.0.reader,
            Role::Write => &self.0.writer,
        }
    }

    /// An SQL expression for which server answers, on which timeline and with which database, as a text: null on a standby, on SQLite, and where nobody may ask.
    ///
    /// A standby that was promoted has another timeline than its primary had. What was committed there and had not arrived is lost then, and the numbers of its
    /// transactions are given again: what was read under one text says nothing about the other.
    #[must_use]
    pub fn server_expression(&self) -> &'static str {
        if self.0.sight.tells { SERVER } else { "CAST(NULL AS text)" }
    }

    /// Do the limits that each connection was made with hold on the server? They do not if somebody in between dropped them: a pooler that nobody declared.
    #[must_use]
    pub fn limits_hold(&self) -> bool {
        self.0.sight.limits_hold
    }

    /// Are writes taken, as far as is known? False from the write on that a read-only database or a full disk of SQLite has refused, until one would be taken
    /// again, which is tried twice a second. (What a PostgreSQL with a full disk still has room for is its own affair.)
    #[must_use]
    pub fn takes_writes(&self) -> bool {
        !self.0.writer.writes().are_refused()
    }

    /// Counts how often what answers became another server, or one that takes writes again: whoever has a connection beside the pool opens it anew then.
    pub(crate) fn turns(&self) -> u64 {
        self.0.writer.writes().turns()
    }

    /// A connection beside the pool found that the server takes no writes. Those of the pool are tried until one does.
    pub(crate) fn refuse_writes(&self) {
        self.0.writer.writes().refuse();
    }

    /// A new connection led to this server. If that is another one than before, those that were made before are used no more: they lead to one that was left
    /// behind, and it may live.
    pub(super) fn meet(&self, server: Option<String>) {
        // A standby belongs to nobody yet.
        let Some(server) = server else { return };
        let before = self.0.server.lock().unwrap_or_else(PoisonError::into_inner).replace(server.clone());
        if before.as_ref().is_some_and(|before| *before != server) {
            tracing::warn!(before, server, "the database is another server now, or a standby that was promoted; nothing from before is believed");
            self.0.writer.writes().take_again();
        }
    }

    /// The database past the pooler, for work that is too long for one; nothing where no pooler stands.
    pub(super) async fn past_pooler(&self) -> Result<Option<Database>, Error> {
        match &self.0.direct {
            Some(settings) => Box::pin(Database::open(settings)).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn acquire_timeout(&self) -> Duration {
        self.0.acquire_timeout
    }

    pub(super) fn statement_timeout(&self) -> Duration {
        self.0.statement_timeout
    }
}

/// Runs until the last handle to the database is gone.
async fn tend(reader: Arc<Pool>, writer: Arc<Pool>) {
    let one_pool = Arc::ptr_eq(&reader, &writer);
    loop {
        reader.tend().await;
        if !one_pool {
            writer.tend().await;
        }
        tokio::time::sleep(TEND_EVERY).await;
    }
}
