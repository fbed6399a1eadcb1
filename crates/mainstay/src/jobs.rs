//! Work that outlives the request that caused it: a queue in the database, one table, any number of processes.
//!
//! A request writes a [`Job`] in the transaction of its cause ([`enqueue`]), so both stand or neither. A [`Jobs`] in each process claims what is due and
//! hands it to the handler of its kind. Promises:
//! - A job is claimed by one worker at a time, under a lease that is extended while the handler runs. When its process dies the lease ends and another takes
//!   over. A worker that lost its lease can change nothing any more: every step compares the claim ([`queue`]).
//! - A failure is tried again after a random wait that grows ([`backoff()`]), a bounded number of times; then the job is `dead`, and an operator decides.
//! - A handler that calls [`Running::begin`] before an effect that must not happen twice has it happen at most once: if the outcome is never known the job is
//!   `uncertain`, and again an operator decides.
//! - Of one event (`kind` and key) there is one job, also for [`DONE_KEPT`] after it is done.
//! - The table is bounded: [`OPEN_MAX`] jobs to do, [`FAILED_MAX`] failed ones, and those done are gone at once or after [`DONE_KEPT`].
//! - What a job holds is deleted when it is done; of a secret one also when it has failed. It is never logged and shown by no command.
//!
//! Processes compare each other's leases with their own clocks: clocks that differ by more than a lease make takeovers early, which costs a repetition and
//! never a second effect that was marked by `begin`.

mod backoff;
mod job;
mod operator;
pub mod queue;
mod runner;
mod work;

use std::time::Duration;

use crate::store::Migration;

pub use backoff::{Chance, backoff};
pub use job::{Enqueued, Job, PAYLOAD_BYTES_MAX, enqueue};
pub use operator::{Count, Listed, Retried, Standing, failed, retry, standing, sweep};
pub use runner::{Jobs, Kinds, Limits};
pub use work::{Failure, Running};

/// Jobs that wait or run. A mail server that takes ten letters a second needs an hour and a half for so many; whoever enqueues more is told to come later, and
/// counting them costs a few milliseconds at most.
pub const OPEN_MAX: i64 = 50_000;

/// Failed jobs that are kept for an operator; more than anybody reads, and about 10 MB.
pub const FAILED_MAX: i64 = 10_000;

/// How long a failed job is kept for an operator: a month has a weekend, a holiday and a release in it.
pub const FAILED_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long the payload of a secret job of unknown outcome is kept, so that an operator can try it again. A link in a mail lives no longer.
pub const SECRET_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a job that is done keeps its key. What tells an event twice (a client that tries again, a message delivered again) does so within days. A row takes
/// about 200 bytes: at one mail a second 120 MB.
pub const DONE_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The migration that makes the table. A service puts it into its list under a version of its own.
#[must_use]
pub const fn migration(version: i64) -> Migration {
    Migration { version, name: "jobs", postgres: include_str!("jobs/postgres.sql"), sqlite: include_str!("jobs/sqlite.sql") }
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It may be claimed from its time on.
    Waiting,
    /// Somebody has claimed it.
    Running,
    /// It was done; only its key is left.
    Done,
    /// It was given up.
    Dead,
    /// Its effect had begun and nobody knows whether it happened.
    Uncertain,
}

impl State {
    /// As in the database, in metrics and in the commands.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Uncertain => "uncertain",
        }
    }

    fn parse(text: &str) -> crate::Result<Self> {
        let all = [Self::Waiting, Self::Running, Self::Done, Self::Dead, Self::Uncertain];
        all.into_iter().find(|state| state.name() == text).ok_or_else(|| {
            let cause = format!("a job has the state `{text}`");
            crate::Error::new(&crate::error::codes::INTERNAL).caused_by(cause)
        })
    }
}
