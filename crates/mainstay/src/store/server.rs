//! Which server answers: what it is a copy of, how far back its history is its own, and whether our limits reach it.

use super::error::{Error, Failure};
use super::link::Link;
use super::pool::CONNECT_TIMEOUT;
use super::query::{Query, query};
use super::row::Row;
use super::session::Want;
use super::settings::Settings;
use tokio::time::timeout;

/// An SQL expression for PostgreSQL: the server and its timeline, as a text; null on a standby, whose timeline its primary decides.
///
/// A standby that was promoted has another one than its primary had. What was committed there and had not arrived is lost then, and the numbers of its
/// transactions are given again: what was read under one text says nothing about the other.
pub const SERVER: &str = "(SELECT CASE WHEN NOT pg_is_in_recovery() THEN system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) END \
    FROM pg_control_system())";

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

/// Looks at the first connection: do the limits of the settings hold there, and does a direct URL lead to the same database?
///
/// # Errors
/// [`Error::Configuration`] when it does not; any [`Error`] of a connection.
pub(super) async fn look(first: &mut Link, settings: &Settings) -> Result<bool, Error> {
    let Some(direct) = settings.direct()? else { return Ok(true) };
    if settings.direct_url.is_none() {
        let limit = ask(first, query("SELECT setting FROM pg_settings WHERE name = 'statement_timeout'").once()).await?;
        return Ok(limit.get::<String>("setting")? == settings.statement_timeout.as_millis().to_string());
    }
    let opened = timeout(CONNECT_TIMEOUT, direct.connect()).await.map_err(|_| silent())?;
    let mut past = opened.map_err(|error| Failure::from(error).error)?;
    let (one, other) = (ask(first, Identity::question()).await?, ask(&mut past, Identity::question()).await?);
    past.close().await;
    if Identity::read(&one)?.is_of(&Identity::read(&other)?) {
        return Ok(true);
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
