//! The workers of one process: they look for due jobs, at once when this process enqueued one and about every second for those of others, and run a bounded
//! number of them.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::operator::{self, Standing};
use super::queue;
use super::work::{Failure, Running, work};
use super::{Chance, State};
use crate::clock::Clock;
use crate::error::Result;
use crate::store::Database;

/// How often the table is looked at for jobs of other processes, on average. One read of an index: a thousand instances are a thousand cheap reads a second.
const POLL: Duration = Duration::from_secs(1);
/// After a failure of the database.
const POLL_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How often jobs are counted, and rows swept whose time is over.
const TEND_EVERY: Duration = Duration::from_secs(15);
/// Rows swept at a time: in 15 s more than can be enqueued for long.
const SWEEP_ROWS: u32 = 1000;
/// Looking must not hold the end of the process.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// What was cut gives its jobs back within this time, or their leases end by themselves.
const GIVE_BACK: Duration = Duration::from_secs(2);

type Handler = dyn Fn(Running) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync;

/// One kind of job and what does it.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) attempts_max: i64,
    pub(super) timeout: Duration,
    pub(super) handler: Box<Handler>,
}

/// The kinds of jobs that this process does. Others are left to processes that know them.
#[derive(Default)]
pub struct Kinds(BTreeMap<&'static str, Kind>);

impl Kinds {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Jobs of this kind are done by `handler`, tried at most `attempts_max` times, and each try ends after `timeout`.
    #[must_use]
    pub fn on<F>(mut self, name: &'static str, attempts_max: i64, timeout: Duration, handler: impl Fn(Running) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let handler: Box<Handler> = Box::new(move |running| Box::pin(handler(running)));
        self.0.insert(name, Kind { name, attempts_max, timeout, handler });
        self
    }

    pub(super) fn get(&self, name: &str) -> Option<&Kind> {
        self.0.get(name)
    }
}

impl fmt::Debug for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// How much a process does, and for how long it may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Jobs at once; 0 runs none.
    pub concurrency_max: usize,
    /// A job of a process that is silent for so long is another's.
    pub lease: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Resting,
    Working,
    Stopping,
    Cutting,
}

pub(super) struct Inner {
    pub(super) database: Database,
    pub(super) clock: Clock,
    pub(super) chance: Chance,
    pub(super) kinds: Kinds,
    pub(super) limits: Limits,
    pub(super) phase: watch::Sender<Phase>,
    running: AtomicUsize,
    ended: watch::Sender<bool>,
    standing: Mutex<Standing>,
}

/// The jobs of this process. Clones share it.
#[derive(Clone)]
pub struct Jobs(Arc<Inner>);

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("kinds", &self.0.kinds).field("running", &self.running()).finish_non_exhaustive()
    }
}

impl Jobs {
    /// Workers that do not run yet.
    pub fn new(database: Database, clock: Clock, chance: Chance, kinds: Kinds, limits: Limits) -> Self {
        Self(Arc::new(Inner {
            database,
            clock,
            chance,
            kinds,
            limits,
            phase: watch::Sender::new(Phase::Resting),
            running: AtomicUsize::new(0),
            ended: watch::Sender::new(true),
            standing: Mutex::default(),
        }))
    }

    /// Begins to look for jobs, once.
    pub fn start(&self) {
        let first = self.0.phase.send_if_modified(|phase| {
            let resting = *phase == Phase::Resting;
            if resting {
                *phase = Phase::Working;
            }
            resting
        });
        if first {
            self.0.ended.send_replace(false);
            tokio::spawn(run(self.0.clone()));
        }
    }

    /// Takes no more jobs and waits for those that run, at most `limit`; what is left is cut and given back. Was nothing cut?
    pub async fn stop(&self, limit: Duration) -> bool {
        self.0.phase.send_replace(Phase::Stopping);
        if self.ended(limit).await {
            return true;
        }
        // A look at a silent database may be all that is left: nobody misses it.
        let cut = self.running();
        self.0.phase.send_replace(Phase::Cutting);
        self.ended(GIVE_BACK).await;
        if cut > 0 {
            tracing::error!(jobs = cut, "jobs were cut and given back");
        }
        cut == 0
    }

    async fn ended(&self, limit: Duration) -> bool {
        let mut ended = self.0.ended.subscribe();
        tokio::time::timeout(limit, ended.wait_for(|ended| *ended)).await.is_ok()
    }

    /// Jobs that run here now.
    pub fn running(&self) -> usize {
        self.0.running.load(Ordering::Relaxed)
    }

    /// How the queue stood when it was last counted, about every 15 seconds.
    pub fn standing(&self) -> Standing {
        self.0.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn run(inner: Arc<Inner>) {
    let mut phase = inner.phase.subscribe();
    let mut at_work = JoinSet::new();
    let mut tend_at = Instant::now();
    while *phase.borrow_and_update() == Phase::Working {
        let room = inner.limits.concurrency_max.saturating_sub(at_work.len());
        let wait = match look(&inner, room, &mut at_work).await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(error = %error, "the jobs could not be looked at; it will be tried again");
                POLL_AFTER_FAILURE
            }
        };
        if Instant::now() >= tend_at {
            if let Err(error) = tend(&inner).await {
                tracing::warn!(error = %error, "the jobs could not be counted and swept; it will be tried again");
            }
            tend_at = Instant::now() + TEND_EVERY;
        }
        inner.running.store(at_work.len(), Ordering::Relaxed);
        tokio::select! {
            // The sender lives in `inner`, so this is a change.
            _ = phase.changed() => {}
            () = inner.database.news(), if room > 0 => {}
            Some(_) = at_work.join_next(), if !at_work.is_empty() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    while at_work.join_next().await.is_some() {
        inner.running.store(at_work.len(), Ordering::Relaxed);
    }
    inner.running.store(0, Ordering::Relaxed);
    inner.ended.send_replace(true);
}

/// Claims what is due and lets it run. How long until the next look?
async fn look(inner: &Arc<Inner>, room: usize, at_work: &mut JoinSet<()>) -> Result<Duration> {
    // From half to one and a half of it, so that instances that started together do not look together.
    let poll = POLL.mul_f64(0.5 + inner.chance.next());
    let kinds: Vec<_> = inner.kinds.0.keys().copied().collect();
    if room == 0 || kinds.is_empty() {
        return Ok(poll);
    }
    let deadline = Some(Instant::now() + LOOK_TIMEOUT);
    let now = inner.clock.now();
    // Mostly nothing is due, and then nobody takes a lock for it.
    let next = queue::next_due(&mut *inner.database.acquire(deadline).await?, &kinds).await?;
    match next {
        None => return Ok(poll),
        Some(due) if due > now => return Ok(poll.min(Duration::try_from(due.duration_since(now)).unwrap_or(poll))),
        Some(_) => {}
    }
    let mut transaction = inner.database.begin(deadline).await?;
    let lost = queue::give_up_lost(&mut transaction, now).await?;
    let claimed = queue::claim(&mut transaction, &kinds, now, inner.limits.lease, room).await?;
    transaction.commit().await?;
    if lost > 0 {
        tracing::error!(jobs = lost, "workers were lost in the middle of an effect: its outcome is unknown, see `mainstay jobs list`");
        metrics::counter!("mainstay_jobs_lost_total").increment(lost);
    }
    // As many as asked for: there may be more.
    let wait = if claimed.len() == room { Duration::ZERO } else { poll };
    for job in claimed {
        if let Some(kind) = inner.kinds.get(&job.kind) {
            metrics::counter!("mainstay_jobs_claimed_total", "kind" => kind.name).increment(1);
        }
        at_work.spawn(work(inner.clone(), job));
    }
    Ok(wait)
}

/// Counts and sweeps.
async fn tend(inner: &Inner) -> Result<()> {
    let deadline = Some(Instant::now() + LOOK_TIMEOUT);
    let now = inner.clock.now();
    let standing = operator::standing(&mut *inner.database.acquire(deadline).await?, now).await?;
    record(&inner.kinds, &standing);
    *inner.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    operator::sweep(&mut *inner.database.writer(deadline).await?, now, inner.limits.lease, SWEEP_ROWS).await?;
    Ok(())
}

#[allow(clippy::cast_precision_loss)] // Exact up to 2^53 jobs.
fn record(kinds: &Kinds, standing: &Standing) {
    for kind in kinds.0.keys() {
        for state in [State::Waiting, State::Running, State::Dead, State::Uncertain] {
            let count: i64 = standing.counts.iter().filter(|count| count.kind == *kind && count.state == state).map(|count| count.count).sum();
            metrics::gauge!("mainstay_jobs", "kind" => *kind, "state" => state.name()).set(count as f64);
        }
    }
    metrics::gauge!("mainstay_jobs_oldest_due_seconds").set(standing.oldest_due.unwrap_or_default().as_secs_f64());
}
