//! The life of the process: a validated start, serving, and an end in which nobody loses an answer.
//!
//! It begins here; `serving.rs` has what follows, `descriptors.rs` how many clients may come, and `succession.rs` how a new process takes over while this one serves.

mod descriptors;
mod serving;
mod signals;
mod succession;

use std::sync::Arc;
use std::time::Duration;

use mainstay::cache::Cache;
use mainstay::clock::Clock;
use mainstay::config::Pooler;
use mainstay::error::{Error, Result, codes};
use mainstay::handover::{Predecessor, Word};
use mainstay::redis::{Address, Redis};
use mainstay::store::{self, ConnectionLimits, Database, Dialect, Server};
use secrecy::SecretString;

use crate::app::{App, Stores};
use crate::first_start::{self, MadeUpAdmin};
use crate::products;
use crate::search::Search;
use crate::settings::Settings;

pub use descriptors::raise_descriptor_limit;
pub use serving::{Addresses, Origin, serve};
pub use signals::{Ask, Signals};

/// How a process ended, for its exit code (sysexits.h where it has one).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything was answered.
    Clean = 0,
    /// Something had to be cut.
    Cut = 1,
    /// The database is not there, or an address is taken.
    Unavailable = 69,
    /// The settings cannot be used.
    Misconfigured = 78,
}

/// A new database's sample is in the index in well under this; the first search should find it.
const SAMPLE_INDEXED: Duration = Duration::from_secs(15);

/// SQLite tells nobody of the writes of another process, a command of the command line say. The change log does, within a fifth of a second; this is the
/// net below it, and there a query is cheap.
const KEPT_UNTOLD: Duration = Duration::from_secs(5);

/// A service that is about to listen.
#[derive(Debug)]
pub struct Prepared {
    /// What the handlers share.
    pub app: App,
    /// The administrator that was made up.
    pub made_up_admin: Option<MadeUpAdmin>,
    /// Products of the sample that were loaded.
    pub sample: u64,
}

/// The database of the settings, open.
///
/// # Errors
/// When it does not answer, or has no room for as many connections as the instances may open.
pub async fn open_database(settings: &Settings) -> Result<Database> {
    open(settings, Vec::new()).await
}

/// As [`open_database`], with its replicas, which need not answer. It is for who serves: a command wants what is true now.
///
/// # Errors
/// Those of [`open_database`], and a replica that answers and has no room.
pub async fn open_with_replicas(settings: &Settings) -> Result<Database> {
    let database = open(settings, settings.stack.database_replica_urls.clone()).await?;
    for (address, limits) in database.replica_limits().await {
        match limits {
            Ok(limits) => check_room(settings, Server::Replica, limits)?,
            Err(error) => tracing::warn!(address, %error, "a replica does not answer; it is used when it does"),
        }
    }
    Ok(database)
}

async fn open(settings: &Settings, replicas: Vec<SecretString>) -> Result<Database> {
    let stack = &settings.stack;
    let unavailable = |error: store::Error| {
        let message = format!("The database cannot be used: {error}");
        Error::new(&codes::DATABASE_UNAVAILABLE).with_message(message).caused_by(error)
    };
    let database = Database::open(&store::Settings {
        url: stack.database_url.clone(),
        pool_max: stack.db_pool_max as usize,
        pool_min: stack.db_pool_min as usize,
        idle_timeout: stack.db_idle_timeout,
        acquire_timeout: stack.db_acquire_timeout,
        statement_timeout: stack.db_statement_timeout,
        application_name: "mainstay".to_owned(),
        replicas,
        replica_lag_max: stack.replica_lag_max,
        direct_url: stack.database_direct_url.clone(),
    })
    .await
    .map_err(unavailable)?;
    if !database.limits_hold() {
        tracing::warn!(
            "the database does not keep the limits of our connections: something in between drops them. A pooler in transaction mode needs \
             DATABASE_POOLER=transaction and DATABASE_DIRECT_URL; with any other, give the limits to the role"
        );
    }
    if let Some(limits) = database.connection_limits().await.map_err(unavailable)? {
        let server = if stack.database_replica_urls.is_empty() { Server::Alone } else { Server::Primary };
        check_room(settings, server, limits)?;
    }
    Ok(database)
}

fn check_room(settings: &Settings, server: Server, limits: ConnectionLimits) -> Result<()> {
    let stack = &settings.stack;
    // Behind a pooler its pool is what the server sees of ours, and that is the pooler's own arithmetic. What goes past it still counts.
    let pool_max = match stack.database_pooler {
        Pooler::None => stack.db_pool_max,
        Pooler::Transaction => 0,
    };
    let room = store::check_arithmetic(server, stack.instances.into(), pool_max.into(), limits);
    room.map_err(|sum| Error::new(&codes::DATABASE_UNAVAILABLE).with_message(sum.to_string()))
}

/// The Redis of the settings, if there is one. That it does not answer stops no start: each instance counts by itself until it does.
async fn open_redis(settings: &Settings) -> Result<Option<Redis>> {
    let Some(url) = &settings.stack.redis_url else { return Ok(None) };
    // The settings were checked, so this is the same check again.
    let wrong = |unusable| Error::new(&codes::INTERNAL).with_message(format!("{unusable}"));
    let address = Address::new(url, &settings.stack.redis_tls).map_err(wrong)?;
    Ok(Some(Redis::open(address, &settings.stack.redis_prefix, settings.stack.redis_timeout).await))
}

/// Everything before the first connection: the database and its schema, the keys, the search, the first administrator, the sample.
///
/// # Errors
/// When one of them cannot be had.
pub async fn prepare(settings: Settings, clock: Clock) -> Result<Prepared> {
    let settings = Arc::new(settings);
    let database = open_with_replicas(&settings).await?;
    first_start::migrate(&database).await?;
    let keys = first_start::keys(&settings)?;
    keys.watch();
    if settings.stack.production() && settings.smtp_url.is_none() {
        tracing::warn!(folder = %settings.mail_dir.display(), "no SMTP_URL is set: mails go into a folder and reach nobody");
    }
    if settings.stack.instances > 1 && settings.stack.redis_url.is_none() {
        tracing::warn!(
            instances = settings.stack.instances,
            "INSTANCES is more than one and no REDIS_URL is set: each instance counts limits by itself"
        );
    }
    let kept = match database.dialect() {
        Dialect::Postgres => settings.stack.cache_max_age,
        Dialect::Sqlite => settings.stack.cache_max_age.min(KEPT_UNTOLD),
    };
    let cache = Cache::new(settings.stack.cache_size.0, kept, settings.stack.cache_stale_max);
    let search = Search::open(&settings.stack.data_dir.join("search"), database.clone(), cache.clone()).await?;
    let redis = open_redis(&settings).await?;
    // On SQLite there are no news by which an answer of another instance could be judged.
    if let Some(redis) = redis.clone().filter(|_| database.dialect() == Dialect::Postgres) {
        cache.share(redis, settings.stack.instances);
    }
    let app = App::new(
        settings.clone(),
        Stores { database: database.clone(), redis, cache, search },
        keys,
        first_start::sealer(&settings)?,
        clock.clone(),
    )?;
    first_start::check_second_factors(&app).await?;
    let mut sample = 0;
    if settings.sample && !products::sql::any_ever(&mut *database.acquire(None).await?).await? {
        sample = first_start::sample(&database, &clock).await?.created;
        let _ = tokio::time::timeout(SAMPLE_INDEXED, app.search.caught_up()).await;
    }
    let made_up_admin = first_start::administrator(&app).await?;
    Ok(Prepared { app, made_up_admin, sample })
}

/// As [`prepare`], for a process that somebody may call off meanwhile: by a signal, or as its predecessor. Nothing if somebody did.
///
/// Who takes over does not begin before its search index is level with the database, so that nobody finds less than before.
///
/// # Errors
/// Those of [`prepare`].
pub async fn prepare_unless_called_off(
    settings: Settings,
    clock: Clock,
    predecessor: Option<&Predecessor>,
    signals: &mut Signals,
) -> Result<Option<Prepared>> {
    let patience = settings.stack.handover_timeout / 2;
    let preparing = async {
        let prepared = prepare(settings, clock).await?;
        if predecessor.is_some() && tokio::time::timeout(patience, prepared.app.search.level()).await.is_err() {
            tracing::warn!("the search index is not level with the database yet; until it is, some products are not found");
        }
        Ok(Some(prepared))
    };
    tokio::select! {
        prepared = preparing => prepared,
        () = called_off(predecessor, signals) => Ok(None),
    }
}

async fn called_off(predecessor: Option<&Predecessor>, signals: &mut Signals) {
    let by_predecessor = async {
        if let Some(predecessor) = predecessor {
            while let word = predecessor.word().await
                && !matches!(word, Word::End)
            {
                if matches!(word, Word::Gone) {
                    return std::future::pending().await;
                }
            }
            tracing::info!("called off before it served: the process before was asked to end");
        } else {
            std::future::pending().await
        }
    };
    let by_signal = async {
        loop {
            match signals.next().await {
                Ask::End(signal) => return tracing::info!(signal, "called off before it served"),
                Ask::HandOver(signal) => tracing::warn!(signal, "ignored: this process does not serve yet"),
            }
        }
    };
    tokio::select! {
        () = by_predecessor => {}
        () = by_signal => {}
    }
}

/// What was made up at the first start in development, to be shown once.
#[derive(Debug)]
pub struct MadeUp {
    /// The administrator.
    pub admin: Option<MadeUpAdmin>,
    /// Products of the sample.
    pub sample: u64,
}
