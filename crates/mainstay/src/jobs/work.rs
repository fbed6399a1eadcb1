//! One job in the hands of its handler: the lease kept, panics and endless waits ended, the outcome written down.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::queue::{self, Claimed, later};
use super::runner::{Inner, Kind, Phase};
use super::{State, backoff};
use crate::error::Result;

/// Between two attempts to write an outcome down. The database is gone: there is no hurry, but a lease that ends.
const OUTCOME_AGAIN: Duration = Duration::from_secs(1);

/// Why a handler did not do its job. The reason is shown to operators and logged, so it holds nothing of the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    remedy: Remedy,
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    Again,
    Never,
    Unknown,
    Lost,
}

impl Failure {
    /// It did not happen, and may work later.
    pub fn again(reason: impl Into<String>) -> Self {
        Self { remedy: Remedy::Again, reason: reason.into() }
    }

    /// It did not happen and never will.
    pub fn never(reason: impl Into<String>) -> Self {
        Self { remedy: Remedy::Never, reason: reason.into() }
    }

    /// Nobody knows whether it happened.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self { remedy: Remedy::Unknown, reason: reason.into() }
    }

    fn lost() -> Self {
        Self { remedy: Remedy::Lost, reason: "the lease was lost".to_owned() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// A failure of the stack inside a handler passes; its code says enough, and its message may quote somebody.
impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        Self::again(error.code().name)
    }
}

/// A job as its handler sees it.
pub struct Running {
    claimed: Claimed,
    inner: Arc<Inner>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.claimed.fmt(f)
    }
}

impl Running {
    /// The id, the same for every try: what an effect can be recognised by.
    pub fn id(&self) -> Uuid {
        self.claimed.id
    }

    /// When it was enqueued.
    pub fn created_at(&self) -> Timestamp {
        self.claimed.created_at
    }

    /// The number of this try; the first is 1.
    pub fn attempt(&self) -> i64 {
        self.claimed.attempt
    }

    /// What it holds.
    ///
    /// # Errors
    /// [`Failure::never`] when it is not a `T`: the program that enqueued it was another one.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        // The message of serde quotes what it read.
        serde_json::from_value(self.claimed.payload.clone()).map_err(|_| Failure::never("the payload has another form than this version reads"))
    }

    /// Marks durably that an effect begins which must not happen twice. Call it right before, with everything prepared that can fail: when the worker is lost
    /// after this, the job becomes `uncertain` and is not tried again. A handler that comes back with [`Failure::again`] takes the mark away.
    ///
    /// # Errors
    /// When the lease was lost or the mark cannot be written: then the effect must not begin.
    pub async fn begin(&self) -> Result<(), Failure> {
        let inner = &self.inner;
        let mut session = inner.database.writer(None).await.map_err(crate::Error::from)?;
        let until = later(inner.clock.now(), inner.limits.lease);
        if queue::begin(&mut session, &self.claimed, until).await? { Ok(()) } else { Err(Failure::lost()) }
    }
}

/// How the handling of a job ended.
enum Ended {
    Done,
    Failed(Failure),
    /// Stopped in the middle, where only the database knows whether the effect had begun.
    Interrupted(&'static str),
    /// The process ends: not the job's fault.
    Cut,
}

/// Handles one claimed job and writes down what became of it.
pub(super) async fn work(inner: Arc<Inner>, claimed: Claimed) {
    let Some(kind) = inner.kinds.get(&claimed.kind) else { return };
    let started = Instant::now();
    let ended = if claimed.attempt > kind.attempts_max {
        // Nobody wrote down a failure, so the process died each time, perhaps of this very job.
        Ended::Failed(Failure::never("the worker was lost at every try"))
    } else {
        handle(&inner, &claimed, kind).await
    };
    metrics::histogram!("mainstay_jobs_seconds", "kind" => kind.name).record(started.elapsed().as_secs_f64());
    let outcome = write_down(&inner, &claimed, kind, &ended).await;
    metrics::counter!("mainstay_jobs_finished_total", "kind" => kind.name, "outcome" => outcome).increment(1);
    let (id, attempt) = (claimed.id, claimed.attempt);
    match (&ended, outcome) {
        (_, "done") => tracing::debug!(job = %id, kind = kind.name, attempt, "job done"),
        (Ended::Failed(failure), "dead" | "uncertain") => {
            tracing::error!(job = %id, kind = kind.name, attempt, outcome, reason = failure.reason, "job given up: `mainstay jobs list`");
        }
        (Ended::Failed(failure), _) => tracing::warn!(job = %id, kind = kind.name, attempt, outcome, reason = failure.reason, "job failed"),
        (Ended::Interrupted(reason), _) => tracing::error!(job = %id, kind = kind.name, attempt, outcome, reason, "job interrupted"),
        (Ended::Cut | Ended::Done, _) => tracing::warn!(job = %id, kind = kind.name, attempt, outcome, "job not finished"),
    }
}

async fn handle(inner: &Arc<Inner>, claimed: &Claimed, kind: &Kind) -> Ended {
    let running = Running { claimed: claimed.clone(), inner: inner.clone() };
    // A handler may panic at once or when it is polled.
    let handler = AssertUnwindSafe(async { (kind.handler)(running).await }).catch_unwind();
    let mut phase = inner.phase.subscribe();
    tokio::select! {
        outcome = handler => match outcome {
            Ok(Ok(())) => Ended::Done,
            Ok(Err(failure)) => Ended::Failed(failure),
            Err(_) => Ended::Interrupted("the handler panicked"),
        },
        () = lease_lost(inner, claimed) => Ended::Failed(Failure::lost()),
        () = tokio::time::sleep(kind.timeout) => Ended::Interrupted("the handler took too long"),
        // The sender lives in `inner`, so the wait cannot end by its loss.
        _ = phase.wait_for(|phase| *phase == Phase::Cutting) => Ended::Cut,
    }
}

/// Extends the lease three times in its length, and returns when it is lost, or must be taken for lost because the database does not answer.
async fn lease_lost(inner: &Inner, claimed: &Claimed) {
    let lease = inner.limits.lease;
    let mut held_since = Instant::now();
    loop {
        tokio::time::sleep(lease / 3).await;
        let asked = Instant::now();
        match extend(inner, claimed, held_since + lease).await {
            Ok(true) => held_since = asked,
            Ok(false) => return,
            Err(error) if held_since.elapsed() < lease => {
                tracing::warn!(job = %claimed.id, error = %error, "the lease of a job could not be extended")
            }
            Err(_) => return,
        }
    }
}

async fn extend(inner: &Inner, claimed: &Claimed, by: Instant) -> Result<bool> {
    let mut session = inner.database.writer(Some(by)).await?;
    queue::extend(&mut session, claimed, later(inner.clock.now(), inner.limits.lease)).await
}

/// Writes the outcome down, again and again while the lease may last: an outcome that is lost makes a job that was done uncertain, or done twice.
async fn write_down(inner: &Inner, claimed: &Claimed, kind: &Kind, ended: &Ended) -> &'static str {
    let begun = Instant::now();
    loop {
        match outcome(inner, claimed, kind, ended).await {
            Ok((true, outcome)) => return outcome,
            Ok((false, _)) => return "lost",
            Err(error) => {
                tracing::warn!(job = %claimed.id, error = %error, "the outcome of a job could not be written down");
                if begun.elapsed() >= inner.limits.lease {
                    return "lost";
                }
                tokio::time::sleep(OUTCOME_AGAIN.min(inner.limits.lease / 10)).await;
            }
        }
    }
}

async fn outcome(inner: &Inner, claimed: &Claimed, kind: &Kind, ended: &Ended) -> Result<(bool, &'static str)> {
    let now = inner.clock.now();
    let next = later(now, backoff(claimed.attempt, inner.chance.next()));
    let last = claimed.attempt >= kind.attempts_max;
    let mut session = inner.database.writer(None).await?;
    let session = &mut *session;
    Ok(match ended {
        Ended::Done => (queue::done(session, claimed, now).await?, "done"),
        Ended::Cut => (queue::give_back(session, claimed, now, now, "the process ended", true).await?, "given_back"),
        Ended::Interrupted(reason) => (queue::give_back(session, claimed, now, next, reason, false).await?, "interrupted"),
        Ended::Failed(Failure { remedy, reason }) => match remedy {
            Remedy::Lost => (false, "lost"),
            Remedy::Unknown => (queue::bury(session, claimed, State::Uncertain, now, reason).await?, "uncertain"),
            Remedy::Again if !last => (queue::again(session, claimed, next, reason).await?, "again"),
            Remedy::Again | Remedy::Never => (queue::bury(session, claimed, State::Dead, now, reason).await?, "dead"),
        },
    })
}
