//! Read replicas: which of them may be read from now, and what is known of each.
//!
//! A replica is in use while a verdict of its watcher says so, and a verdict ends by itself: if nobody looks any more, nobody reads either. Whoever reads
//! never waits for a sick one: the choice costs two loads, a connection has a short bound, and what fails is asked of the primary.

use super::error::Error;
use super::lag::{History, Verdict};
use super::limits::{self, ConnectionLimits};
use super::link::Link;
use super::pool::{Limits, Opener, Pool, Stats};
use super::session::Want;
use super::settings::Settings;
use super::watch::{self, Primary};
use deadpool::managed::Object;
use futures_util::future::join_all;
use metrics::{counter, gauge};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch as channel;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// The labels of their pools in the metrics, which also say how many there may be. More readers than this want a balancer of their own.
const POOLS: [&str; 8] = ["replica_1", "replica_2", "replica_3", "replica_4", "replica_5", "replica_6", "replica_7", "replica_8"];

/// Most replicas that one service reads from.
pub const REPLICAS_MAX: usize = POOLS.len();

/// A connection to a replica comes within this, or the primary gives one. Ten times what a new one takes in a data centre, and less than a person notices.
pub(super) const ACQUIRE_MAX: Duration = Duration::from_millis(100);

/// A verdict holds for this long: the time to the next look, the time that look may take, and as much again for a busy machine.
const VERDICT_HOLDS: Duration = Duration::from_millis(1_500);

/// Why nothing is read from a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Out {
    /// It was not looked at yet, or the last look is too long ago.
    Unknown,
    /// It did not answer the last look in time, or could not be connected to.
    Silent,
    /// It replays nobody's log: a primary, or a copy that writes on its own.
    NoReplica,
    /// It is a copy of another database.
    Foreign,
    /// It has more than the primary: it follows another one.
    Ahead,
    /// What it shows may be older than is allowed.
    Lagging,
    /// Nobody knows how old that is: the primary was not seen since the start.
    PrimaryUnseen,
    /// It is well again; a few more looks, to be sure.
    Returning,
}

impl Out {
    /// The reason in a word or two, for logs, metrics and health answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Out::Unknown => "unknown",
            Out::Silent => "silent",
            Out::NoReplica => "no_replica",
            Out::Foreign => "another_database",
            Out::Ahead => "ahead_of_primary",
            Out::Lagging => "lagging",
            Out::PrimaryUnseen => "primary_unseen",
            Out::Returning => "returning",
        }
    }
}

/// What is known of a replica now.
#[derive(Debug, Clone)]
pub struct ReplicaStanding {
    /// Its place in the setting, from 1.
    pub number: usize,
    /// Host and port.
    pub address: String,
    /// Did it answer the last look?
    pub answers: bool,
    /// Why nothing is read from it; nothing if it is in use.
    pub out: Option<Out>,
    /// What it shows is at most this old, as of the last look; nothing if that is not known.
    pub lag: Option<Duration>,
    /// Reads that were begun on it.
    pub reads: u64,
    /// Its pool.
    pub pool: Stats,
}

/// One replica.
pub(super) struct Replica {
    pub(super) number: usize,
    pub(super) address: String,
    pub(super) pool: Pool,
    origin: Instant,
    /// Until when it may be read from, in microseconds after `origin`; 0 while it is left out.
    good_until_us: AtomicU64,
    answers: channel::Sender<bool>,
    verdict: Mutex<Verdict>,
    reads: AtomicU64,
}

impl Replica {
    fn in_use(&self) -> bool {
        let good_until_us = self.good_until_us.load(Ordering::Acquire);
        good_until_us > 0 && self.origin.elapsed() < Duration::from_micros(good_until_us)
    }

    /// Takes note of a verdict, and says whether it is another one than before.
    pub(super) fn hold(&self, verdict: Verdict) -> bool {
        let until = self.origin.elapsed() + VERDICT_HOLDS;
        let until_us = u64::try_from(until.as_micros()).unwrap_or(u64::MAX);
        self.good_until_us.store(if verdict.out.is_none() { until_us } else { 0 }, Ordering::Release);
        let answers = verdict.out != Some(Out::Silent);
        if self.answers.send_replace(answers) && !answers {
            // Of its connections nobody knows either.
            self.pool.doubt();
        }
        // A panic while it is held leaves it whole: it is one assignment.
        let before = std::mem::replace(&mut *self.verdict.lock().unwrap_or_else(PoisonError::into_inner), verdict);
        before.out != verdict.out
    }

    pub(super) fn answers(&self) -> bool {
        *self.answers.borrow()
    }

    /// Ends when the replica no longer answers: then a statement on it is waited for in vain.
    pub(super) async fn gone(&self) {
        // The sender lives as long as `self`.
        let _ = self.answers.subscribe().wait_for(|answers| !answers).await;
    }

    fn standing(&self) -> ReplicaStanding {
        let Verdict { out, lag } = *self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        ReplicaStanding {
            number: self.number,
            address: self.address.clone(),
            answers: self.answers(),
            out: out.or_else(|| (!self.in_use()).then_some(Out::Unknown)),
            lag,
            reads: self.reads.load(Ordering::Relaxed),
            pool: self.pool.stats(),
        }
    }

    /// What the server allows. One question on a connection that may also be the first.
    async fn limits(&self) -> Result<ConnectionLimits, Error> {
        let mut object = self.pool.acquire(None).await?;
        let link: &mut Link = object.link().ok_or(Error::NoRow)?;
        let question = limits::question();
        let answer = timeout(watch::LOOK_TIMEOUT, link.run_alone(&question, Want::First)).await;
        if !matches!(answer, Ok(Ok(_))) {
            // What comes next on it is anybody's guess.
            Object::take(object).cut("interrupted");
        }
        let got = answer.map_err(|_| Error::unavailable("the replica does not answer"))?.map_err(|failure| failure.error)?;
        limits::read(got.rows.first().ok_or(Error::NoRow)?)
    }
}

/// Why the primary was asked in a replica's place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fallback {
    NoneInUse,
    NoConnection,
    Failed,
}

/// All replicas of a database, and the tasks that watch them.
pub(super) struct Replicas {
    list: Vec<Arc<Replica>>,
    primary: Arc<Primary>,
    turn: AtomicUsize,
    tasks: Vec<AbortHandle>,
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Replicas {
    /// Begins to watch the replicas of the settings. None of them has to answer.
    pub(super) fn open(settings: &Settings, limits: impl Fn() -> Limits) -> Result<Option<Replicas>, Error> {
        if settings.replicas.is_empty() {
            return Ok(None);
        }
        let Some(primary) = settings.direct()? else {
            return Err(Error::Configuration("SQLite has no replicas".to_owned()));
        };
        if settings.replicas.len() > REPLICAS_MAX {
            return Err(Error::Configuration(format!("there may be {REPLICAS_MAX} replicas at most")));
        }
        let mut list = Vec::new();
        let mut watched = Vec::new();
        for (number, (name, url)) in (1..).zip(POOLS.into_iter().zip(&settings.replicas)) {
            let (reading, looking) = (settings.replica(url)?, settings.replica(url)?);
            list.push(Arc::new(Replica {
                number,
                address: reading.address(),
                pool: Pool::new(name, Opener::Postgres(Box::new(reading)), limits())?,
                origin: Instant::now(),
                good_until_us: AtomicU64::new(0),
                answers: channel::Sender::new(false),
                verdict: Mutex::new(Verdict { out: Some(Out::Unknown), lag: None }),
                reads: AtomicU64::new(0),
            }));
            watched.push(Opener::Postgres(Box::new(looking)));
        }
        let seen = Arc::new(Primary::new(History::new(settings.replica_lag_max)));
        let mut tasks = vec![tokio::spawn(watch::primary(Opener::Postgres(primary), Arc::clone(&seen))).abort_handle()];
        for (replica, opener) in list.iter().zip(watched) {
            tasks.push(tokio::spawn(watch::replica(opener, Arc::clone(replica), Arc::clone(&seen), settings.replica_lag_max)).abort_handle());
            tasks.push(tokio::spawn(watch::tend(Arc::clone(replica))).abort_handle());
        }
        Ok(Some(Replicas { list, primary: seen, turn: AtomicUsize::new(0), tasks }))
    }

    /// One that is in use, each in its turn.
    pub(super) fn pick(&self) -> Option<&Arc<Replica>> {
        let in_use = || self.list.iter().filter(|replica| replica.in_use());
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(in_use().count())?;
        let replica = in_use().nth(turn)?;
        replica.reads.fetch_add(1, Ordering::Relaxed);
        Some(replica)
    }

    pub(super) fn standings(&self) -> Vec<ReplicaStanding> {
        self.list.iter().map(|replica| replica.standing()).collect()
    }

    /// What each server allows, by its address; all are asked at once.
    pub(super) async fn limits(&self) -> Vec<(String, Result<ConnectionLimits, Error>)> {
        join_all(self.list.iter().map(async |replica| (replica.address.clone(), replica.limits().await))).await
    }

    pub(super) fn record_metrics(&self) {
        for standing in self.standings() {
            let replica = POOLS.get(standing.number - 1).copied().unwrap_or_default();
            let flag = |truth: bool| f64::from(u8::from(truth));
            gauge!("mainstay_replica_in_use", "replica" => replica).set(flag(standing.out.is_none()));
            gauge!("mainstay_replica_answers", "replica" => replica).set(flag(standing.answers));
            gauge!("mainstay_replica_lag_seconds", "replica" => replica).set(standing.lag.map_or(f64::NAN, |lag| lag.as_secs_f64()));
            counter!("mainstay_replica_reads_total", "replica" => replica).absolute(standing.reads);
        }
        gauge!("mainstay_replica_primary_seen").set(f64::from(u8::from(self.primary.answers())));
        self.list.iter().for_each(|replica| replica.pool.record_metrics());
    }

    /// Looks no more.
    pub(super) fn stop(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }

    pub(super) async fn close(&self, until: Instant) -> bool {
        self.stop();
        join_all(self.list.iter().map(|replica| replica.pool.close(until))).await.into_iter().all(|closed| closed)
    }
}

/// Counts a read that the primary answered in a replica's place.
pub(super) fn fell_back(why: Fallback) {
    let reason = match why {
        Fallback::NoneInUse => "none_in_use",
        Fallback::NoConnection => "no_connection",
        Fallback::Failed => "failed",
    };
    counter!("mainstay_replica_fallbacks_total", "reason" => reason).increment(1);
}

/// Whether the primary may do what a replica could not: it is there, has what the replica lacks (the last migration, for one), and cancels no read because
/// of what it replays. What takes too long takes as long there, and a value that cannot be read stays so.
pub(super) fn primary_may(error: &Error) -> bool {
    !matches!(error, Error::StatementTimeout | Error::DeadlinePassed | Error::Data(_) | Error::Misuse(_))
}
