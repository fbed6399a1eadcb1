//! Migrations: forward only, each in a transaction, safe when ten instances start at once.
//!
//! Before each migration an instance takes a lock that belongs to the transaction (an advisory lock on PostgreSQL,
//! which also works through a pooler; `BEGIN IMMEDIATE` on SQLite) and looks again what has been applied. The
//! previous release keeps running meanwhile: a migration that cannot get its table within [`LOCK_TIMEOUT_MS`] steps
//! back instead of making everybody queue behind it, and tries again.

use super::Dialect;
use super::database::Database;
use super::error::Error;
use super::pool::CLOSE_TIMEOUT;
use super::query::query;
use super::session::Session;
use super::transaction::Transaction;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The key of the advisory lock: the letters "mainstay" as a number, so that nobody else's lock is meant.
const LOCK_KEY: i64 = i64::from_be_bytes(*b"mainstay");

/// How long a statement of a migration may wait for a lock on a table; every query on that table waits behind it.
const LOCK_TIMEOUT_MS: u32 = 3_000;

/// Attempts against locks held by others, one second apart: two minutes in all with the lock timeout.
const ATTEMPTS_MAX: u32 = 30;

/// One step of the schema, with a text for each database. The text holds any number of statements, but no `BEGIN` or
/// `COMMIT` of its own.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Its place in the order, ascending.
    pub version: i64,
    /// What it is for.
    pub name: &'static str,
    /// The text for PostgreSQL.
    pub postgres: &'static str,
    /// The text for SQLite.
    pub sqlite: &'static str,
}

/// All steps in ascending order.
#[derive(Debug, Clone, Copy)]
pub struct Migrations(pub &'static [Migration]);

/// What [`migrate`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Versions applied by this call.
    pub versions: Vec<i64>,
    /// Versions that a newer release had applied; this release goes on with them.
    pub newer: Vec<i64>,
}

/// Where one migration stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its place in the order.
    pub version: i64,
    /// What it is for.
    pub name: String,
    /// Applied or not.
    pub state: MigrationState,
}

/// Whether a migration was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationState {
    /// At this time.
    Applied(jiff::Timestamp),
    /// Not yet.
    Pending,
    /// Its text is another one than the text that was applied.
    Changed,
    /// Applied, but unknown to this release.
    Newer,
}

/// Why the schema cannot be brought up to date.
#[derive(Debug)]
#[non_exhaustive]
pub enum MigrateError {
    /// The database failed, in this migration if one is named.
    Database {
        /// The migration, as `version name`.
        migration: Option<String>,
        /// What went wrong.
        error: Error,
    },
    /// The text of an applied migration was changed afterwards. Undo the change and write a new migration.
    Changed {
        /// The version.
        version: i64,
        /// Its name.
        name: String,
    },
    /// A migration with this version was applied that this release does not have, though it has later ones.
    Unknown {
        /// The version.
        version: i64,
        /// Its name.
        name: String,
    },
    /// A migration is missing below one that was applied. Give it a version above all others.
    OutOfOrder {
        /// The version that is missing.
        version: i64,
        /// The version that was applied.
        applied: i64,
    },
    /// The list is not in ascending order, or a version is there twice.
    Unsorted {
        /// The first version that is not above the one before.
        version: i64,
    },
}

impl fmt::Display for MigrateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MigrateError::Database { migration: Some(migration), .. } => write!(f, "migration {migration} failed"),
            MigrateError::Database { migration: None, .. } => f.write_str("the migrations could not be read"),
            MigrateError::Changed { version, name } => {
                write!(f, "migration {version} {name} was changed after it was applied: undo the change and write a new one")
            }
            MigrateError::Unknown { version, name } => {
                write!(f, "migration {version} {name} was applied, but this release does not know it")
            }
            MigrateError::OutOfOrder { version, applied } => {
                write!(f, "migration {version} is not applied, but {applied} is: give it a version above all others")
            }
            MigrateError::Unsorted { version } => {
                write!(f, "migration {version} does not come after the one before it in the list")
            }
        }
    }
}

impl std::error::Error for MigrateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MigrateError::Database { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for MigrateError {
    fn from(error: Error) -> MigrateError {
        MigrateError::Database { migration: None, error }
    }
}

struct Record {
    name: String,
    checksum: String,
    applied_at: jiff::Timestamp,
}

impl Migration {
    fn script(&self, dialect: Dialect) -> &'static str {
        dialect.sql(self.postgres, self.sqlite)
    }

    /// SHA-256 of the text for this database, in hexadecimal.
    fn checksum(&self, dialect: Dialect) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, self.script(dialect).as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Brings the schema up to date. Any number of instances may call it at the same time.
///
/// # Errors
/// [`MigrateError`]; whatever was applied before the error stays.
pub async fn migrate(database: &Database, migrations: &Migrations) -> Result<Applied, MigrateError> {
    // A pooler has limits of its own, on transactions that take long above all.
    let Some(direct) = database.past_pooler().await? else { return migrate_on(database, migrations).await };
    let applied = migrate_on(&direct, migrations).await;
    direct.close(CLOSE_TIMEOUT).await;
    applied
}

async fn migrate_on(database: &Database, migrations: &Migrations) -> Result<Applied, MigrateError> {
    let mut applied = Applied::default();
    let mut attempts = 0;
    loop {
        // Most starts find nothing to do; they need no lock.
        let records = recorded(&mut *database.acquire(None).await?).await?;
        applied.newer = verify(migrations, &records, database.dialect())?;
        let Some(next) = migrations.0.iter().find(|migration| !records.contains_key(&migration.version)) else {
            break;
        };
        match apply_next(database, migrations).await {
            Ok(Some(version)) => {
                attempts = 0;
                applied.versions.push(version);
            }
            Ok(None) => attempts = 0,
            Err(MigrateError::Database { error: Error::Conflict(cause), .. }) if attempts < ATTEMPTS_MAX => {
                attempts += 1;
                tracing::info!(version = next.version, %cause, "the migration waits for a lock and tries again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error),
        }
    }
    for version in &applied.newer {
        tracing::warn!(version, "the database has a migration of a newer release");
    }
    Ok(applied)
}

/// Where every migration stands; changes nothing.
///
/// # Errors
/// [`MigrateError::Database`] and [`MigrateError::Unsorted`].
pub async fn migration_status(database: &Database, migrations: &Migrations) -> Result<Vec<MigrationStatus>, MigrateError> {
    check_order(migrations)?;
    let mut records = recorded(&mut *database.acquire(None).await?).await?;
    let mut list = Vec::new();
    for migration in migrations.0 {
        let state = match records.remove(&migration.version) {
            None => MigrationState::Pending,
            Some(record) if record.checksum != migration.checksum(database.dialect()) => MigrationState::Changed,
            Some(record) => MigrationState::Applied(record.applied_at),
        };
        list.push(MigrationStatus { version: migration.version, name: migration.name.to_owned(), state });
    }
    list.extend(records.into_iter().map(|(version, record)| MigrationStatus { version, name: record.name, state: MigrationState::Newer }));
    list.sort_by_key(|status| status.version);
    Ok(list)
}

fn check_order(migrations: &Migrations) -> Result<(), MigrateError> {
    let mut last = i64::MIN;
    for migration in migrations.0 {
        if migration.version <= last {
            return Err(MigrateError::Unsorted { version: migration.version });
        }
        last = migration.version;
    }
    Ok(())
}

/// Compares what we have with what was applied; gives the versions of a newer release.
fn verify(migrations: &Migrations, records: &BTreeMap<i64, Record>, dialect: Dialect) -> Result<Vec<i64>, MigrateError> {
    check_order(migrations)?;
    let last_known = migrations.0.last().map_or(i64::MIN, |migration| migration.version);
    let mut newer = Vec::new();
    for (&version, record) in records {
        let name = || record.name.clone();
        match migrations.0.iter().find(|migration| migration.version == version) {
            Some(migration) if migration.checksum(dialect) != record.checksum => {
                return Err(MigrateError::Changed { version, name: name() });
            }
            Some(_) => {}
            None if version > last_known => newer.push(version),
            None => return Err(MigrateError::Unknown { version, name: name() }),
        }
    }
    let pending = migrations.0.iter().find(|migration| !records.contains_key(&migration.version));
    if let (Some(pending), Some((&applied, _))) = (pending, records.last_key_value())
        && pending.version < applied
    {
        return Err(MigrateError::OutOfOrder { version: pending.version, applied });
    }
    Ok(newer)
}

/// What the table says; nothing when there is no table yet.
async fn recorded(session: &mut Session) -> Result<BTreeMap<i64, Record>, Error> {
    let there = session.dialect().sql(
        "SELECT to_regclass('schema_migrations') IS NOT NULL AS there",
        "SELECT count(*) AS there FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations'",
    );
    if !query(there).once().fetch_one(session).await?.get::<bool>("there")? {
        return Ok(BTreeMap::new());
    }
    let rows = query("SELECT version, name, checksum, applied_at FROM schema_migrations ORDER BY version").once().fetch_all(session).await?;
    rows.iter()
        .map(|row| {
            let record = Record { name: row.get("name")?, checksum: row.get("checksum")?, applied_at: row.get("applied_at")? };
            Ok((row.get("version")?, record))
        })
        .collect()
}

/// Applies the first migration that is missing, if one still is once the lock is ours.
async fn apply_next(database: &Database, migrations: &Migrations) -> Result<Option<i64>, MigrateError> {
    let dialect = database.dialect();
    let mut transaction = database.begin(None).await?;
    lock(&mut transaction).await?;
    let records = recorded(&mut transaction).await?;
    verify(migrations, &records, dialect)?;
    let Some(next) = migrations.0.iter().find(|migration| !records.contains_key(&migration.version)) else {
        return Ok(None);
    };
    let failed = |error| MigrateError::Database { migration: Some(format!("{} {}", next.version, next.name)), error };
    tracing::info!(version = next.version, name = next.name, "applying the migration");
    transaction.script(next.script(dialect)).await.map_err(failed)?;
    query("INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4)")
        .bind(next.version)
        .bind(next.name)
        .bind(next.checksum(dialect))
        .bind(jiff::Timestamp::now())
        .once()
        .execute(&mut transaction)
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(Some(next.version))
}

/// Waits for its turn, without a limit: another instance may be building a large index.
async fn lock(transaction: &mut Transaction) -> Result<(), Error> {
    transaction.lift_limits();
    if transaction.dialect() == Dialect::Postgres {
        transaction
            .script(&format!(
                "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; \
                 SELECT pg_advisory_xact_lock({LOCK_KEY}); SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"
            ))
            .await?;
    }
    let table = transaction.dialect().sql(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
                 version bigint PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL)",
        "CREATE TABLE IF NOT EXISTS schema_migrations (
                 version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL)",
    );
    transaction.script(table).await
}
