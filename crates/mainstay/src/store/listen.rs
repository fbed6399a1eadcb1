//! Notifications of PostgreSQL, on a connection of their own: one that the pool lends and takes back would lose its subscription.
//!
//! Nothing is repeated for a listener that was away: one that fails is dropped, and whoever opens the next asks for what it missed. Every wait has an end.

use super::error::{Error, Failure};
use super::pool::CONNECT_TIMEOUT;
use super::settings::Postgres;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgListener, PgNotification, PgPoolOptions};
use std::fmt;
use std::time::Instant;
use tokio::time::{timeout, timeout_at};

/// Hears what is told on its channels; see [`super::Database::listen`].
pub struct Listener {
    listener: PgListener,
    /// Asks which server it is.
    server: String,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

impl Listener {
    pub(super) async fn connect(postgres: &Postgres, channels: &[&str], server: &str) -> Result<Listener, Error> {
        let server = format!("SELECT {server}, current_setting('transaction_read_only') = 'off'");
        let subscribe = async {
            // The driver's listener wants a pool of its kind; this one has the one connection and makes no second one behind our back.
            let pool = PgPoolOptions::new().max_connections(1).test_before_acquire(false).idle_timeout(None).max_lifetime(None);
            let pool = pool.connect_with(postgres.plain()).await?;
            let mut listener = PgListener::connect_with(&pool).await?;
            // A new connection in place of a lost one would hide that news went by.
            listener.eager_reconnect(false);
            listener.listen_all(channels.iter().copied()).await?;
            Ok(Listener { listener, server })
        };
        let listener = timeout(CONNECT_TIMEOUT, subscribe).await.map_err(|_| silent())?;
        listener.map_err(|error: sqlx::Error| Failure::from(error).error)
    }

    /// The next notification, its channel and its text, or nothing by `until`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the connection is lost. The listener is of no use after that.
    pub async fn next(&mut self, until: Instant) -> Result<Option<(String, String)>, Error> {
        match timeout_at(until.into(), self.listener.try_recv()).await {
            Err(_) => Ok(None),
            Ok(Ok(Some(notification))) => Ok(Some(told(&notification))),
            Ok(Ok(None)) => Err(Error::unavailable("the connection that listens was closed")),
            Ok(Err(error)) => Err(Failure::from(error).error),
        }
    }

    /// A notification that came in while something else was waited for.
    pub fn waiting(&mut self) -> Option<(String, String)> {
        self.listener.next_buffered().map(|notification| told(&notification))
    }

    /// Reads a log of changes with this statement: its parameter is the snapshot of the reading before, its row the snapshot of this one, what changed
    /// in between, and the newest transaction that did.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is no answer by then, and any [`Error`] that a read can meet. The listener is of no use after that.
    pub async fn read(&mut self, text: &'static str, since: Option<&str>, until: Instant) -> Result<(String, Option<String>, Option<i64>), Error> {
        // Planned for its snapshot each time: a plan for any snapshot reads the whole log.
        let read = sqlx::query_as(text).bind(since).persistent(false).fetch_one(&mut self.listener);
        timeout_at(until.into(), read).await.map_err(|_| silent())?.map_err(|error| Failure::from(error).error)
    }

    /// Asks the other side which server it is, as [`super::Database::server_expression`] says it, and whether it takes writes; by then the answer must be here.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is none. The listener is of no use after that.
    pub async fn server(&mut self, until: Instant) -> Result<(Option<String>, bool), Error> {
        let answer = sqlx::query_as(AssertSqlSafe(self.server.clone())).persistent(false).fetch_one(&mut self.listener);
        timeout_at(until.into(), answer).await.map_err(|_| silent())?.map_err(|error| Failure::from(error).error)
    }
}

fn told(notification: &PgNotification) -> (String, String) {
    (notification.channel().to_owned(), notification.payload().to_owned())
}

fn silent() -> Error {
    Error::unavailable("the database is silent to the connection that listens")
}
