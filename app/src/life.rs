//! The life of the process: a validated start, serving, and an end in which nobody loses an answer.
//!
//! On SIGTERM or SIGINT readiness fails while requests are still served (`DRAIN_DELAY`), then connections are told to close, requests in flight, writes
//! in progress and running jobs finish, pools close, and the exit code says whether anything had to be cut. A second signal ends at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::cache::Cache;
use mainstay::client::Networks;
use mainstay::clock::Clock;
use mainstay::error::{Error, Result, codes};
use mainstay::log::Sink;
use mainstay::metrics::Metrics;
use mainstay::redis::{Address, Redis};
use mainstay::serve::{self, Drain, Limits};
use mainstay::store::{self, ConnectionLimits, Database, Dialect, Server};
use secrecy::SecretString;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{App, Stores};
use crate::first_start::{self, MadeUpAdmin};
use crate::management;
use crate::products;
use crate::search::Search;
use crate::settings::Settings;
use crate::sweep;

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

/// Histograms grow until they are folded.
const UPKEEP: Duration = Duration::from_secs(5);
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
    })
    .await
    .map_err(unavailable)?;
    if let Some(limits) = database.connection_limits().await.map_err(unavailable)? {
        let server = if stack.database_replica_urls.is_empty() { Server::Alone } else { Server::Primary };
        check_room(settings, server, limits)?;
    }
    Ok(database)
}

fn check_room(settings: &Settings, server: Server, limits: ConnectionLimits) -> Result<()> {
    let stack = &settings.stack;
    let room = store::check_arithmetic(server, stack.instances.into(), stack.db_pool_max.into(), limits);
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
    if let Some(redis) = redis.clone() {
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

/// What was made up at the first start in development, to be shown once.
#[derive(Debug)]
pub struct MadeUp {
    /// The administrator.
    pub admin: Option<MadeUpAdmin>,
    /// Products of the sample.
    pub sample: u64,
}

/// Raises the limit on open files to what the system allows: each connection is one, and the usual 1,024 is a shell's.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(error = %error, "the limit on open files could not be raised");
    }
}

/// Where the service listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// For everybody.
    pub public: SocketAddr,
    /// For the operator.
    pub management: SocketAddr,
}

/// Serves until a signal comes, and drains. `started` is called once, when connections are accepted.
///
/// # Errors
/// When an address cannot be bound.
pub async fn serve(app: App, log: Sink, metrics: Metrics, started: impl FnOnce(Addresses)) -> Result<End> {
    let settings = app.settings.clone();
    let stack = &settings.stack;
    let taken = |address: SocketAddr| {
        move |error: std::io::Error| Error::new(&codes::INTERNAL).with_message(format!("Cannot listen on {address}: {error}")).caused_by(error)
    };
    let (public, management) = (SocketAddr::new(stack.host, stack.port), stack.management_addr);
    let listener = serve::bind(public).map_err(taken(public))?;
    let management_listener = serve::bind(management).map_err(taken(management))?;
    let addresses =
        Addresses { public: listener.local_addr().map_err(taken(public))?, management: management_listener.local_addr().map_err(taken(management))? };
    let mut signals = Signals::new().map_err(taken(public))?;
    let (drain, management_drain) = (Drain::new(), Drain::new());
    let trusted = Networks::new(stack.trusted_proxies.clone());
    let limits = Limits {
        connections_max: stack.connections_max,
        connections_per_address_max: stack.connections_per_address_max,
        header_timeout: stack.header_timeout,
        idle_timeout: stack.idle_timeout,
        // A connection earns its long idle time with its second request.
        idle_timeout_fresh: stack.idle_timeout.min(Duration::from_secs(30)),
        trusted: Arc::new(move |address| trusted.contain(address)),
        ..Limits::default()
    };
    tokio::spawn(serve::serve(
        management_listener,
        serve::Plain(management::router(app.clone(), metrics.clone(), log.clone())),
        Limits::default(),
        management_drain.clone(),
    ));
    let serving = tokio::spawn(serve::serve(listener, app.service(log, metrics.clone()), limits, drain.clone()));
    let upkeep = tokio::spawn(async move {
        let mut tick = tokio::time::interval(UPKEEP);
        loop {
            tick.tick().await;
            metrics.upkeep();
        }
    });
    app.jobs.start();
    let sweeping = tokio::spawn(sweep::keep_swept(app.clone()));
    app.health.ready();
    started(addresses);

    let name = signals.next().await;
    tracing::info!(signal = name, drain_delay_ms = stack.drain_delay.as_millis() as u64, "ending: readiness fails, requests are still served");
    app.health.draining();
    let end = tokio::select! {
        end = ending(&app, drain, serving) => end,
        name = signals.next() => {
            tracing::error!(signal = name, "second signal: ending at once");
            End::Cut
        }
    };
    upkeep.abort();
    sweeping.abort();
    management_drain.cut();
    Ok(end)
}

async fn ending(app: &App, drain: Drain, serving: tokio::task::JoinHandle<serve::Report>) -> End {
    let stack = &app.settings.stack;
    tokio::time::sleep(stack.drain_delay).await;
    let begun = Instant::now();
    drain.begin(stack.shutdown_timeout);
    let cut = match serving.await {
        Ok(report) => {
            tracing::info!(
                accepted = report.accepted,
                refused = report.refused,
                cut = report.cut,
                unfinished = report.unfinished,
                "connections drained"
            );
            report.cut
        }
        Err(error) => {
            tracing::error!(error = %error, "the accept loop failed");
            1
        }
    };
    let left = stack.shutdown_timeout.saturating_sub(begun.elapsed()).max(Duration::from_millis(100));
    let written = tokio::time::timeout(left, app.writes.drained()).await.is_ok();
    if !written {
        tracing::error!(writes = app.writes.in_progress(), "writes were cut");
    }
    // What requests have just enqueued was still being done meanwhile; the rest is another instance's, or the next start's.
    let left = stack.shutdown_timeout.saturating_sub(begun.elapsed()).max(Duration::from_millis(100));
    let done = app.jobs.stop(left).await;
    let closed = app.database.close(left).await;
    tracing::info!(took_ms = begun.elapsed().as_millis() as u64, "ended");
    if cut == 0 && written && done && closed { End::Clean } else { End::Cut }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
