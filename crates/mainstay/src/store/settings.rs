//! How to reach the database and how much of it to use: figures, their defaults, and the reading of the URL.

use super::error::Error;
use super::link::Link;
use super::pooled::{self, Beginning};
use secrecy::{ExposeSecret, SecretString};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Statements kept prepared on each connection. A list with five optional filters and six orders has 192 shapes.
const PREPARED_STATEMENTS_MAX: usize = 256;

/// How often a PostgreSQL backend that is busy looks whether its client is still there. It bounds how long a query
/// outlives a request that was cut off, without opening a second connection to cancel it, which is the last thing an
/// overloaded server needs. The setting exists since PostgreSQL 14.
const CLIENT_CHECK_MS: u64 = 500;
const CLIENT_CHECK: &str = "client_connection_check_interval";

/// How long SQLite waits for a lock that another process holds.
pub(super) const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The write-ahead log is cut back to this after a checkpoint, so that one large import does not leave a large file.
const SQLITE_LOG_BYTES_MAX: i64 = 64 * 1024 * 1024;

/// How to reach the database and how much of it to use.
///
/// `Debug` never shows the URL, which may hold a password.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `postgres://user:password@host:port/database` or `sqlite:path/to/file.db`.
    pub url: SecretString,
    /// Most connections open at once, 20. On SQLite: one writer and at most four readers, see [`super::Database`].
    pub pool_max: usize,
    /// Connections kept open even when idle, 5.
    pub pool_min: usize,
    /// A connection unused for this long is closed, down to `pool_min`, 30 s.
    pub idle_timeout: Duration,
    /// Longest wait for a connection, 5 s.
    pub acquire_timeout: Duration,
    /// Longest run of one statement, 30 s; the server itself enforces it.
    pub statement_timeout: Duration,
    /// What `pg_stat_activity` shows for our connections, `mainstay`.
    pub application_name: String,
    /// URLs of streaming replicas of the PostgreSQL at `url`, each with a pool like the main one; none. At most [`super::REPLICAS_MAX`].
    pub replicas: Vec<SecretString>,
    /// A replica that may show something older than this is not read from, 2 s.
    pub replica_lag_max: Duration,
    /// None: the server itself answers at `url`. Else a pooler answers there (and at the replicas) that lends a connection of the server for one transaction
    /// at a time, and this URL leads past it to the same database, for what needs a session of its own: notifications, migrations, the watch over replicas.
    pub direct_url: Option<SecretString>,
}

impl Settings {
    /// The defaults above for the database at `url`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Settings {
        Settings {
            url: SecretString::from(url.into()),
            pool_max: 20,
            pool_min: 5,
            idle_timeout: Duration::from_secs(30),
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            application_name: "mainstay".to_owned(),
            replicas: Vec::new(),
            replica_lag_max: Duration::from_secs(2),
            direct_url: None,
        }
    }

    /// Reads the URL.
    ///
    /// # Errors
    /// [`Error::Configuration`], in words that do not repeat the URL.
    pub(super) fn target(&self) -> Result<Target, Error> {
        let url = self.url.expose_secret();
        if is_postgres(url) {
            return self.postgres(url, self.direct_url.is_some()).map(|options| Target::Postgres(Box::new(options)));
        }
        if self.direct_url.is_some() {
            return Err(Error::Configuration("SQLite has no pooler".to_owned()));
        }
        if let Some(rest) = url.strip_prefix("sqlite:") {
            return sqlite_path(rest.strip_prefix("//").unwrap_or(rest)).map(Target::Sqlite);
        }
        Err(Error::Configuration("the database URL must begin with postgres:// or sqlite:".to_owned()))
    }

    /// The database past the pooler for one user; nothing where no pooler stands.
    pub(super) fn past_pooler(&self) -> Option<Settings> {
        let url = self.direct_url.clone()?;
        Some(Settings { url, direct_url: None, pool_max: 1, pool_min: 0, replicas: Vec::new(), ..self.clone() })
    }

    /// How the primary is reached past whatever pooler there is; nothing on SQLite.
    ///
    /// # Errors
    /// [`Error::Configuration`], in words that do not repeat the URL.
    pub(super) fn direct(&self) -> Result<Option<Box<Postgres>>, Error> {
        match (&self.direct_url, self.target()?) {
            (_, Target::Sqlite(_)) => Ok(None),
            (None, Target::Postgres(options)) => Ok(Some(options)),
            (Some(url), Target::Postgres(_)) if is_postgres(url.expose_secret()) => {
                self.postgres(url.expose_secret(), false).map(|options| Some(Box::new(options)))
            }
            (Some(_), _) => Err(Error::Configuration("the direct URL of the database must begin with postgres://".to_owned())),
        }
    }

    /// Reads the URL of a replica.
    ///
    /// # Errors
    /// [`Error::Configuration`], in words that do not repeat the URL.
    pub(super) fn replica(&self, url: &SecretString) -> Result<Postgres, Error> {
        let url = url.expose_secret();
        if !is_postgres(url) {
            return Err(Error::Configuration("the URL of a replica must begin with postgres://".to_owned()));
        }
        self.postgres(url, self.direct_url.is_some())
    }

    fn postgres(&self, url: &str, pooled: bool) -> Result<Postgres, Error> {
        // The parser's own message may quote a piece of the URL, so it is not passed on.
        let options =
            PgConnectOptions::from_str(url).map_err(|_| Error::Configuration("the database URL is not a valid PostgreSQL URL".to_owned()))?;
        let statement_ms = self.statement_timeout.as_millis();
        let limits = [
            ("statement_timeout", statement_ms),
            // A transaction in which nothing happens for this long belongs to a process that hangs with locks held.
            ("idle_in_transaction_session_timeout", statement_ms * 2),
        ];
        let options = options.application_name(&self.application_name).disable_statement_logging();
        if pooled {
            // What a pooler takes of a session's parameters it keeps for whoever it thinks of next, and most it refuses: each transaction brings its own.
            let options = options.extra_float_digits(None).statement_cache_capacity(0);
            let beginning = Arc::new(Beginning::new(&limits, (CLIENT_CHECK, CLIENT_CHECK_MS)));
            return Ok(Postgres { watched: options.clone(), plain: options, unwatchable: AtomicBool::new(false), beginning: Some(beginning) });
        }
        let plain = options.statement_cache_capacity(PREPARED_STATEMENTS_MAX).options(limits);
        let watched = plain.clone().options([(CLIENT_CHECK, CLIENT_CHECK_MS)]);
        Ok(Postgres { watched, plain, unwatchable: AtomicBool::new(false), beginning: None })
    }
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// How one PostgreSQL connection is opened.
pub(super) struct Postgres {
    /// With the server watching whether we are still there.
    watched: PgConnectOptions,
    /// Without, for servers that cannot watch: before version 14, or on a system that does not report a closed socket.
    plain: PgConnectOptions,
    unwatchable: AtomicBool,
    /// How a transaction begins behind a pooler; nothing where the server itself answers.
    beginning: Option<Arc<Beginning>>,
}

impl Postgres {
    /// Host and port, for people.
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.plain.get_host(), self.plain.get_port())
    }

    /// For a connection on which nothing runs that would have to be watched.
    pub(super) fn plain(&self) -> PgConnectOptions {
        self.plain.clone()
    }

    pub(super) async fn connect(&self) -> Result<Link, sqlx::Error> {
        if let Some(beginning) = &self.beginning {
            let mut connection = self.plain.connect().await?;
            if beginning.try_out(&mut connection).await? {
                self.say_unwatchable();
            }
            return Ok(Link::Postgres { connection, beginning: Some(Arc::clone(beginning)) });
        }
        self.connect_to_server().await.map(|connection| Link::Postgres { connection, beginning: None })
    }

    async fn connect_to_server(&self) -> Result<PgConnection, sqlx::Error> {
        if self.unwatchable.load(Ordering::Relaxed) {
            return self.plain.connect().await;
        }
        match self.watched.connect().await {
            Err(error) if pooled::cannot_watch(&error) => {
                self.say_unwatchable();
                self.plain.connect().await
            }
            result => result,
        }
    }

    fn say_unwatchable(&self) {
        if !self.unwatchable.swap(true, Ordering::Relaxed) {
            tracing::warn!("this PostgreSQL cannot see that a client has gone: abandoned queries run on until the statement timeout");
        }
    }
}

/// What the URL names.
pub(super) enum Target {
    Postgres(Box<Postgres>),
    Sqlite(PathBuf),
}

fn sqlite_path(text: &str) -> Result<PathBuf, Error> {
    let refuse = |message: &str| Err(Error::Configuration(message.to_owned()));
    if text.contains(":memory:") || text.contains("mode=memory") {
        return refuse("an SQLite database in memory would be another database on every connection: name a file");
    }
    if text.contains('?') {
        return refuse("parameters after ? are not taken in an SQLite URL");
    }
    if text.is_empty() || text.ends_with('/') {
        return refuse("the SQLite URL names no file: write sqlite:path/to/file.db");
    }
    Ok(PathBuf::from(text))
}

/// How one SQLite connection is opened; a reader cannot write, whatever it is asked.
pub(super) fn sqlite_options(path: &Path, writer: bool) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(SQLITE_BUSY_TIMEOUT)
        .synchronous(SqliteSynchronous::Normal)
        .statement_cache_capacity(PREPARED_STATEMENTS_MAX)
        .pragma("temp_store", "memory")
        .disable_statement_logging();
    if writer {
        options.journal_mode(SqliteJournalMode::Wal).pragma("journal_size_limit", SQLITE_LOG_BYTES_MAX.to_string())
    } else {
        options.pragma("query_only", "ON")
    }
}

/// Creates the directory and the file when they are absent, readable by nobody else: the file holds password hashes.
///
/// # Errors
/// [`Error::Configuration`] with the path and the reason.
pub(super) fn create_sqlite_file(path: &Path) -> Result<(), Error> {
    let explain = |what: &Path, error: std::io::Error| Error::Configuration(format!("the SQLite database {}: {error}", what.display()));
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(directory).map_err(|error| explain(directory, error))?;
    }
    let mut file = std::fs::OpenOptions::new();
    file.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    file.open(path).map(drop).map_err(|error| explain(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        match Settings::new(url).target() {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{url} was taken"),
        }
    }

    #[test]
    fn urls_that_cannot_work_are_refused_in_words_without_the_url() {
        for url in ["mysql://me:hunter2@host/db", "postgres://me:hunter2@host:99999/db", "sqlite::memory:", "sqlite:"] {
            let message = refused(url);
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn both_spellings_of_an_sqlite_url_name_the_same_file() {
        for url in ["sqlite:data/x.db", "sqlite://data/x.db"] {
            match Settings::new(url).target() {
                Ok(Target::Sqlite(path)) => assert_eq!(path, Path::new("data/x.db")),
                _ => panic!("{url} was not understood"),
            }
        }
    }

    #[test]
    fn debug_output_hides_the_url() {
        assert!(!format!("{:?}", Settings::new("postgres://me:hunter2@host/db")).contains("hunter2"));
    }
}
