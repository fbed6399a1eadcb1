//! The pool: a bounded number of connections, some kept warm, each checked before it is handed out.
//!
//! `deadpool` keeps the queue and the count. Around it: connections made ahead of need, closing of idle ones, the
//! check, and the figures.

use super::error::{Error, Failure};
use super::link::Link;
use super::read_only::{self, Writes};
use super::settings::{Postgres, SQLITE_BUSY_TIMEOUT, Target};
use deadpool::managed::{self, Object, PoolError, QueueMode, RecycleError, RecycleResult};
use futures_util::future::join_all;
use metrics::{counter, gauge};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::{timeout, timeout_at};

/// A connection that answered less than this ago is handed out unchecked: a check costs a round trip on every request,
/// and a read that meets a closed connection is sent again anyway.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// A check that takes longer has failed.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection not made by then never will be; the first repetition of a lost SYN comes after 1 s (RFC 6298 2.1).
/// A shorter acquire timeout bounds it further.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two attempts to open an SQLite file that another process is setting up.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Saying good-bye to the server may take this long.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What opens connections of one kind.
pub(super) enum Opener {
    Postgres(Box<Postgres>),
    Sqlite { path: PathBuf, writer: bool },
}

impl Opener {
    pub(super) fn reading(target: Target) -> Opener {
        match target {
            Target::Postgres(options) => Opener::Postgres(options),
            Target::Sqlite(path) => Opener::Sqlite { path, writer: false },
        }
    }

    pub(super) async fn open(&self) -> Result<Link, sqlx::Error> {
        match self {
            Opener::Postgres(postgres) => postgres.connect().await,
            Opener::Sqlite { path, writer } => Link::sqlite(path, *writer).await,
        }
    }
}

/// A connection as the pool keeps it. Dropping it closes it.
pub(super) struct Pooled {
    link: Option<Link>,
    opened_at: Instant,
    /// When the other side was last known to be alive.
    pub(super) alive_at: Instant,
    closing: &'static str,
    live: Arc<Live>,
}

impl Pooled {
    /// `None` only while it is being closed, which no owner sees.
    pub(super) fn link(&mut self) -> Option<&mut Link> {
        self.link.as_mut()
    }

    /// Closes without a word, because something may be running on it. Closing stops that on PostgreSQL within
    /// half a second, the interrupt at once on SQLite.
    pub(super) fn cut(mut self, reason: &'static str) {
        self.closing = reason;
        if let Some(link) = &self.link {
            link.stop_now();
        }
    }

    /// Closes in order; nothing may be running on it.
    pub(super) async fn retire(mut self, reason: &'static str) {
        self.closing = reason;
        if let Some(link) = self.link.take() {
            let _ = timeout(CLOSE_TIMEOUT, link.close()).await;
        }
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        counter!("mainstay_db_connections_closed_total", "reason" => self.closing).increment(1);
        self.live.count.fetch_sub(1, Ordering::AcqRel);
        self.live.gone.notify_waiters();
    }
}

/// How many connections exist, wherever they are.
#[derive(Default)]
struct Live {
    count: AtomicUsize,
    gone: Notify,
}

/// What `deadpool` asks for connections.
pub(super) struct Connector {
    /// The pool's name.
    name: &'static str,
    opener: Opener,
    connect_timeout: Duration,
    /// Made ahead of need and not yet handed out.
    warm: Mutex<Vec<Pooled>>,
    live: Arc<Live>,
    origin: Instant,
    /// A connection was found dead at this time (microseconds after `origin`): older proofs of life count no more.
    doubted_us: AtomicU64,
    pub(super) writes: Writes,
}

impl Connector {
    pub(super) async fn connect(&self) -> Result<Pooled, Error> {
        let link = match timeout(self.connect_timeout, self.open()).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable("the database did not answer a new connection in time")),
        };
        let link = link.inspect_err(|_| counter!("mainstay_db_connect_failures_total", "pool" => self.name).increment(1))?;
        counter!("mainstay_db_connections_opened_total").increment(1);
        self.live.count.fetch_add(1, Ordering::AcqRel);
        let live = Arc::clone(&self.live);
        let now = Instant::now();
        Ok(Pooled { link: Some(link), opened_at: now, alive_at: now, closing: "closed", live })
    }

    async fn open(&self) -> Result<Link, Error> {
        loop {
            match self.opener.open().await.map_err(Failure::from) {
                Ok(link) => return Ok(link),
                // Making a new SQLite file one with a write-ahead log cannot wait for the lock by itself when ten
                // processes start at once.
                Err(Failure { error: Error::Conflict(_), .. }) => tokio::time::sleep(BUSY_PAUSE).await,
                // Whatever the server said (wrong password, no such database), there is no connection.
                Err(Failure { error: Error::Other(cause), .. }) => return Err(Error::Unavailable(cause)),
                Err(failure) => return Err(failure.error),
            }
        }
    }

    async fn check(&self, pooled: &mut Pooled) -> Result<(), Error> {
        if self.writes.outlive(pooled.opened_at) {
            pooled.closing = "read_only";
            return Err(Error::unavailable("the connection was made while the database took no writes"));
        }
        let doubted = self.origin + Duration::from_micros(self.doubted_us.load(Ordering::Relaxed));
        // Behind a pooler any question waits for a connection of the server, and one that has none to lend is not dead. The message that begins a transaction
        // waits for that as long as it should, and finds out what is dead.
        let begins = pooled.link.as_ref().is_some_and(|link| link.beginning().is_some());
        if (begins || pooled.alive_at.elapsed() < TRUSTED_FOR) && pooled.alive_at > doubted {
            return Ok(());
        }
        let answer = match pooled.link.as_mut() {
            Some(link) => timeout(CHECK_TIMEOUT, link.ping()).await,
            None => return Err(Error::unavailable("the connection is closed")),
        };
        if let Ok(Ok(())) = answer {
            pooled.alive_at = Instant::now();
            return Ok(());
        }
        pooled.closing = "check_failed";
        self.doubt();
        Err(Error::unavailable("the connection was closed by the other side"))
    }

    /// From now on every connection is checked before its next use.
    pub(super) fn doubt(&self) {
        let now_us = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.doubted_us.store(now_us, Ordering::Relaxed);
    }

    fn with_warm<T>(&self, act: impl FnOnce(&mut Vec<Pooled>) -> T) -> T {
        // A panic while the list is held leaves it whole: every change to it is one call.
        act(&mut self.warm.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl managed::Manager for Connector {
    type Type = Pooled;
    type Error = Error;

    async fn create(&self) -> Result<Pooled, Error> {
        while let Some(mut pooled) = self.with_warm(Vec::pop) {
            if self.check(&mut pooled).await.is_ok() {
                return Ok(pooled);
            }
        }
        self.connect().await
    }

    async fn recycle(&self, pooled: &mut Pooled, _: &managed::Metrics) -> RecycleResult<Error> {
        self.check(pooled).await.map_err(RecycleError::Backend)
    }
}

/// Figures of one pool.
pub(super) struct Limits {
    pub(super) max: usize,
    pub(super) min: usize,
    pub(super) idle_timeout: Duration,
    pub(super) acquire_timeout: Duration,
}

/// How full a pool is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections open.
    pub size: usize,
    /// Of these, not in use.
    pub idle: usize,
    /// Of these, in use.
    pub in_use: usize,
    /// Callers waiting for a connection.
    pub waiting: usize,
    /// Most connections that may be open.
    pub max: usize,
}

/// A pool of connections of one kind.
pub(super) struct Pool {
    name: &'static str,
    inner: managed::Pool<Connector>,
    limits: Limits,
    /// Somebody left without a connection since the pool was last tended.
    short: AtomicBool,
    acquired: metrics::Counter,
    timeouts: metrics::Counter,
    wait: metrics::Histogram,
}

impl Pool {
    pub(super) fn new(name: &'static str, opener: Opener, limits: Limits) -> Result<Pool, Error> {
        let connect_timeout = match opener {
            Opener::Postgres(_) => CONNECT_TIMEOUT.min(limits.acquire_timeout),
            // No network to be lost in, but a lock to wait for.
            Opener::Sqlite { .. } => SQLITE_BUSY_TIMEOUT.min(limits.acquire_timeout),
        };
        let connector = Connector {
            name,
            opener,
            connect_timeout,
            warm: Mutex::new(Vec::new()),
            live: Arc::new(Live::default()),
            origin: Instant::now(),
            doubted_us: AtomicU64::new(0),
            writes: Writes::new(Instant::now()),
        };
        // The connection used last is taken first, so that those beyond need grow idle and are closed.
        let inner = managed::Pool::builder(connector)
            .max_size(limits.max)
            .queue_mode(QueueMode::Lifo)
            .build()
            .map_err(|error| Error::Configuration(error.to_string()))?;
        Ok(Pool {
            name,
            inner,
            limits,
            short: AtomicBool::new(false),
            acquired: counter!("mainstay_db_acquired_total", "pool" => name),
            timeouts: counter!("mainstay_db_acquire_timeouts_total", "pool" => name),
            wait: metrics::histogram!("mainstay_db_acquire_seconds", "pool" => name),
        })
    }

    /// A checked connection, within the acquire timeout or by the deadline, whichever is nearer.
    pub(super) async fn acquire(&self, deadline: Option<Instant>) -> Result<Object<Connector>, Error> {
        let started = Instant::now();
        let own_end = started + self.limits.acquire_timeout;
        let end = deadline.map_or(own_end, |deadline| deadline.min(own_end));
        if end <= started {
            return Err(Error::DeadlinePassed);
        }
        let got = timeout_at(end.into(), self.inner.get()).await;
        let waited = started.elapsed();
        match got {
            Ok(Ok(object)) => {
                self.acquired.increment(1);
                self.wait.record(waited.as_secs_f64());
                Ok(object)
            }
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Ok(Err(PoolError::Closed)) => Err(Error::unavailable("the database was closed")),
            Ok(Err(_)) => Err(Error::unavailable("the pool gave no connection")),
            Err(_) => {
                self.timeouts.increment(1);
                self.short.store(true, Ordering::Relaxed);
                self.wait.record(waited.as_secs_f64());
                if end < own_end { Err(Error::DeadlinePassed) } else { Err(Error::AcquireTimeout { waited }) }
            }
        }
    }

    /// A pooler lent no connection in time.
    pub(super) fn count_timeout(&self) {
        self.timeouts.increment(1);
    }

    pub(super) fn doubt(&self) {
        self.inner.manager().doubt();
    }

    /// Whether its connections take writes. [`Pool::tend`] finds out when they do again.
    pub(super) fn writes(&self) -> &Writes {
        &self.inner.manager().writes
    }

    pub(super) fn stats(&self) -> Stats {
        let status = self.inner.status();
        let warm = self.inner.manager().with_warm(|warm| warm.len());
        Stats {
            size: status.size + warm,
            idle: status.available + warm,
            in_use: status.size - status.available.min(status.size),
            waiting: status.waiting,
            max: self.limits.max,
        }
    }

    pub(super) fn record_metrics(&self) {
        let stats = self.stats();
        let name = self.name;
        for (figure, value) in [
            ("mainstay_db_pool_size", stats.size),
            ("mainstay_db_pool_idle", stats.idle),
            ("mainstay_db_pool_in_use", stats.in_use),
            ("mainstay_db_pool_waiting", stats.waiting),
            ("mainstay_db_pool_max", stats.max),
        ] {
            // Pool sizes are far below 2^32.
            gauge!(figure, "pool" => name).set(f64::from(u32::try_from(value).unwrap_or(u32::MAX)));
        }
    }

    /// Closes what has been idle too long, then opens what is missing to the minimum, and one more if somebody left without: whoever has less time than a
    /// new connection takes would never get the pool to grow.
    pub(super) async fn tend(&self) {
        let writes = &self.inner.manager().writes;
        if writes.are_refused() && read_only::look(self.inner.manager()).await.is_ok_and(|taken| taken) {
            tracing::info!(pool = self.name, "the database takes writes again");
            let outlived = self.inner.retain(|pooled, _| !writes.outlive(pooled.opened_at)).removed;
            join_all(outlived.into_iter().map(|pooled| pooled.retire("read_only"))).await;
        }
        let size = self.stats().size;
        let wanted = if self.short.swap(false, Ordering::Relaxed) { (size + 1).min(self.limits.max) } else { 0 };
        let min = self.limits.min.max(wanted);
        let mut surplus = size.saturating_sub(min);
        let idle = self.inner.retain(|pooled, _| {
            let stays = surplus == 0 || pooled.alive_at.elapsed() < self.limits.idle_timeout;
            surplus -= usize::from(!stays);
            stays
        });
        join_all(idle.removed.into_iter().map(|pooled| pooled.retire("idle"))).await;
        while self.stats().size < min && !self.inner.is_closed() {
            let pooled = match self.inner.manager().connect().await {
                Ok(pooled) => pooled,
                Err(error) => {
                    tracing::debug!(pool = self.name, %error, "no connection ahead of need");
                    return;
                }
            };
            let (mut pooled, room) = (Some(pooled), self.stats().size < self.limits.max);
            // Under the lock: what is put there behind the back of `close` would be waited for to the end of its time.
            self.inner.manager().with_warm(|warm| warm.extend(pooled.take_if(|_| room && !self.inner.is_closed())));
            if let Some(surplus) = pooled {
                surplus.retire("surplus").await;
            }
        }
    }

    /// Hands out nothing more, closes what is idle, and waits until `until` for what is in use.
    pub(super) async fn close(&self, until: Instant) -> bool {
        let idle = self.inner.retain(|_, _| false).removed;
        self.inner.close();
        let warm = self.inner.manager().with_warm(std::mem::take);
        join_all(idle.into_iter().chain(warm).map(|pooled| pooled.retire("closed"))).await;
        let live = &self.inner.manager().live;
        loop {
            let gone = live.gone.notified();
            if live.count.load(Ordering::Acquire) == 0 {
                return true;
            }
            if timeout_at(until.into(), gone).await.is_err() {
                return live.count.load(Ordering::Acquire) == 0;
            }
        }
    }
}
