//! Which server answers: what it is a copy of, how far back its history is its own, and whether our limits reach it.

use super::error::{Error, Failure};
use super::link::Link;
use super::pool::CONNECT_TIMEOUT;
use super::query::{Query, query};
use super::row::Row;
use super::session::Want;
use super::settings::Settings;
use tokio::time::timeout;

/// See [`super::Database::server_expression`]. The timeline of a standby is its primary's to decide; one of the last checkpoint would still be the old one
/// for a while after a promotion.
pub(super) const SERVER: &str = "(SELECT CASE WHEN NOT pg_is_in_recovery() THEN system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) \
    || '/' || (SELECT oid FROM pg_database WHERE datname = current_database()) END FROM pg_control_system())";

/// Which database a server has: a copy has the same identifier as its original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    system: i64,
    database: String,
    /// As [`SERVER`].
    pub(super) server: Option<String>,
}

impl Identity {
    pub(super) fn question() -> Query {
        query(format!("SELECT system_identifier AS system, current_database()::text AS database, {SERVER} AS server FROM pg_control_system()")).once()
    }

    pub(super) fn read(row: &Row) -> Result<Identity, Error> {
        Ok(Identity { system: row.get("system")?, database: row.get("database")?, server: row.get("server")? })
    }

    /// Has the other one the same database, or a copy of it?
    pub(super) fn is_of(&self, other: &Identity) -> bool {
        self.system == other.system && self.database == other.database
    }
}

/// What a first connection tells of all that follow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    /// The limits of the settings hold there.
    pub(super) limits_hold: bool,
    /// The server says which one it is.
    pub(super) tells: bool,
}

/// Looks at the first connection, and whether a direct URL leads to the same database.
///
/// # Errors
/// [`Error::Configuration`] when it does not; any [`Error`] of a connection.
pub(super) async fn look(first: &mut Link, settings: &Settings) -> Result<Sight, Error> {
    let Some(direct) = settings.direct()? else { return Ok(Sight { limits_hold: true, tells: false }) };
    let tells = match ask(first, query(format!("SELECT {SERVER} AS server")).once()).await {
        Ok(_) => true,
        // Everybody may ask by default. Somebody took that away, or this is something that only speaks like PostgreSQL.
        Err(Error::Other(cause)) => {
            tracing::warn!(%cause, "this database does not say which server it is: after a failover restart every instance, with a new DATA_DIR/search");
            false
        }
        Err(error) => return Err(error),
    };
    if settings.direct_url.is_none() {
        let limit = ask(first, query("SELECT setting FROM pg_settings WHERE name = 'statement_timeout'").once()).await?;
        let limits_hold = limit.get::<String>("setting")? == settings.statement_timeout.as_millis().to_string();
        return Ok(Sight { limits_hold, tells });
    }
    let sight = Sight { limits_hold: true, tells };
    let opened = timeout(CONNECT_TIMEOUT, direct.connect()).await.map_err(|_| silent())?;
    let mut past = opened.map_err(|error| Failure::from(error).error)?;
    let same = if tells {
        let (one, other) = (ask(first, Identity::question()).await?, ask(&mut past, Identity::question()).await?);
        Identity::read(&one)?.is_of(&Identity::read(&other)?)
    } else {
        true
    };
    past.close().await;
    if same {
        return Ok(sight);
    }
    Err(Error::Configuration("the URL of the pooler and the direct URL lead to different databases".to_owned()))
}

async fn ask(link: &mut Link, question: Query) -> Result<Row, Error> {
    let answer = timeout(CONNECT_TIMEOUT, link.run_alone(&question, Want::First)).await.map_err(|_| silent())?;
    answer.map_err(|failure| failure.error)?.rows.into_iter().next().ok_or(Error::NoRow)
}

fn silent() -> Error {
    Error::unavailable("the database did not answer a first question in time")
}
