//! Notifications of PostgreSQL, on a connection of their own: one that the pool lends and takes back would lose its subscription.
//!
//! Nothing is repeated for a listener that was away: one that fails is dropped, and whoever opens the next asks for what it missed. Every wait has an end.

use super::error::{Error, Failure};
use super::pool::CONNECT_TIMEOUT;
use super::settings::Postgres;
use ring::digest::{SHA256, digest};
use sqlx::postgres::{PgListener, PgNotification, PgPoolOptions};
use std::fmt;
use std::time::Instant;
use tokio::time::{timeout, timeout_at};

/// Hears what is told on its channels; see [`super::Database::listen`].
pub struct Listener(PgListener);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

impl Listener {
    pub(super) async fn connect(postgres: &Postgres, channels: &[&str]) -> Result<Listener, Error> {
        let subscribe = async {
            // The driver's listener wants a pool of its kind; this one has the one connection and makes no second one behind our back.
            let pool = PgPoolOptions::new().max_connections(1).test_before_acquire(false).idle_timeout(None).max_lifetime(None);
            let pool = pool.connect_with(postgres.plain()).await?;
            let mut listener = PgListener::connect_with(&pool).await?;
            // A new connection in place of a lost one would hide that news went by.
            listener.eager_reconnect(false);
            listener.listen_all(channels.iter().copied()).await?;
            Ok(Listener(listener))
        };
        let listener = timeout(CONNECT_TIMEOUT, subscribe).await.map_err(|_| silent())?;
        listener.map_err(|error: sqlx::Error| Failure::from(error).error)
    }

    /// The next notification, its channel and its text, or nothing by `until`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the connection is lost. The listener is of no use after that.
    pub async fn next(&mut self, until: Instant) -> Result<Option<(String, String)>, Error> {
        match timeout_at(until.into(), self.0.try_recv()).await {
            Err(_) => Ok(None),
            Ok(Ok(Some(notification))) => Ok(Some(told(&notification))),
            Ok(Ok(None)) => Err(Error::unavailable("the connection that listens was closed")),
            Ok(Err(error)) => Err(Failure::from(error).error),
        }
    }

    /// A notification that came in while something else was waited for.
    pub fn waiting(&mut self) -> Option<(String, String)> {
        self.0.next_buffered().map(|notification| told(&notification))
    }

    /// Which server this is, and which of its histories: a replica that takes over begins another one (a timeline). Numbers of transactions mean something
    /// within one of them only. 0 if it does not say.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is no answer by then. The listener is of no use after that.
    pub async fn server(&mut self, until: Instant) -> Result<u64, Error> {
        let text = "SELECT (SELECT system_identifier FROM pg_control_system())::text || ' ' || left(pg_walfile_name(pg_current_wal_lsn()), 8) \
            || ' ' || (SELECT oid FROM pg_database WHERE datname = current_database())::text";
        let read = sqlx::query_scalar(text).persistent(false).fetch_one(&mut self.0);
        let answer: Result<String, sqlx::Error> = timeout_at(until.into(), read).await.map_err(|_| silent())?;
        match answer {
            // 64 of the bits tell two servers of one operator apart. Never 0.
            Ok(text) => {
                let hash = digest(&SHA256, text.as_bytes());
                Ok(hash.as_ref().iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte)).max(1))
            }
            // A relative of PostgreSQL, or a service that keeps these functions to itself.
            Err(sqlx::Error::Database(error)) => {
                tracing::debug!(error = error.message(), "which server this is cannot be asked");
                Ok(0)
            }
            Err(error) => Err(Failure::from(error).error),
        }
    }

    /// Reads a log of changes with this statement: its parameter is the snapshot of the reading before, its row the snapshot of this one, what changed
    /// in between, and the newest transaction that did.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is no answer by then, and any [`Error`] that a read can meet. The listener is of no use after that.
    pub async fn read(&mut self, text: &'static str, since: Option<&str>, until: Instant) -> Result<(String, Option<String>, Option<i64>), Error> {
        // Planned for its snapshot each time: a plan for any snapshot reads the whole log.
        let read = sqlx::query_as(text).bind(since).persistent(false).fetch_one(&mut self.0);
        timeout_at(until.into(), read).await.map_err(|_| silent())?.map_err(|error| Failure::from(error).error)
    }

    /// Asks the other side for a sign of life; by then it must be here.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is none. The listener is of no use after that.
    pub async fn ping(&mut self, until: Instant) -> Result<(), Error> {
        let answer = timeout_at(until.into(), sqlx::raw_sql("SELECT 1").execute(&mut self.0)).await;
        answer.map_err(|_| silent())?.map(drop).map_err(|error| Failure::from(error).error)
    }
}

fn told(notification: &PgNotification) -> (String, String) {
    (notification.channel().to_owned(), notification.payload().to_owned())
}

fn silent() -> Error {
    Error::unavailable("the database is silent to the connection that listens")
}
