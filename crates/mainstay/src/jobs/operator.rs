//! What an operator sees and does: counts, the failed jobs, another try. And the sweeping, which bounds the table.
//!
//! Nothing here reads a payload.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::backoff::LONGEST;
use super::queue::later;
use super::{FAILED_KEPT, FAILED_MAX, SECRET_KEPT, State};
use crate::error::Result;
use crate::store::{Dialect, Session, query};

/// Jobs of one kind in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The kind.
    pub kind: String,
    /// The state; those done are not counted.
    pub state: State,
    /// How many.
    pub count: i64,
}

/// How the queue stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// By kind and state.
    pub counts: Vec<Count>,
    /// How long the oldest job that waits has been due; nothing when none is.
    pub oldest_due: Option<Duration>,
}

impl Standing {
    /// Jobs in this state, of every kind.
    #[must_use]
    pub fn count(&self, state: State) -> i64 {
        self.counts.iter().filter(|count| count.state == state).map(|count| count.count).sum()
    }
}

/// Counts the jobs that are to be done and those that failed. Reads [`super::OPEN_MAX`] and [`FAILED_MAX`] entries of indexes at most, more or less.
///
/// # Errors
/// What the database can meet.
pub async fn standing(session: &mut Session, now: Timestamp) -> Result<Standing> {
    let mut standing = Standing::default();
    for states in ["'waiting', 'running'", "'dead', 'uncertain'"] {
        let text = format!(
            "SELECT kind, state, CAST(count(*) AS bigint) AS n FROM jobs WHERE state IN ({states}) GROUP BY kind, state ORDER BY kind, state"
        );
        for row in query(text).fetch_all(session).await? {
            standing.counts.push(Count { kind: row.get("kind")?, state: State::parse(&row.get::<String>("state")?)?, count: row.get("n")? });
        }
    }
    let text = "SELECT min(due_at) AS oldest FROM jobs WHERE state IN ('waiting', 'running') AND state = 'waiting' AND due_at <= $1";
    let oldest: Option<Timestamp> = query(text).bind(now).fetch_one(session).await?.get("oldest")?;
    standing.oldest_due = oldest.and_then(|oldest| Duration::try_from(now.duration_since(oldest)).ok());
    Ok(standing)
}

/// A job as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: Uuid,
    /// What it is.
    pub kind: String,
    /// Dead or uncertain.
    pub state: State,
    /// How often it was tried.
    pub attempts: i64,
    /// Why it failed, the last time.
    pub failure: Option<String>,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// When it was given up.
    pub finished_at: Option<Timestamp>,
    /// Is what it holds still there, so that it can be tried again?
    pub whole: bool,
}

/// The failed jobs, those given up last first.
///
/// # Errors
/// What the database can meet.
pub async fn failed(session: &mut Session, count_max: u32) -> Result<Vec<Listed>> {
    // `due_at` is a fixed time after the failure, and in the index.
    let text = "SELECT id, kind, state, attempts, failure, created_at, finished_at, CASE WHEN payload IS NULL THEN 0 ELSE 1 END AS whole \
                FROM jobs WHERE state IN ('dead', 'uncertain') ORDER BY due_at DESC LIMIT $1";
    let rows = query(text).bind(count_max).fetch_all(session).await?;
    let listed = rows.iter().map(|row| {
        Ok(Listed {
            id: row.get("id")?,
            kind: row.get("kind")?,
            state: State::parse(&row.get::<String>("state")?)?,
            attempts: row.get("attempts")?,
            failure: row.get("failure")?,
            created_at: row.get("created_at")?,
            finished_at: row.get("finished_at")?,
            whole: row.get::<i64>("whole")? == 1,
        })
    });
    listed.collect()
}

/// What became of a [`retry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retried {
    /// It is due now, with all its tries before it.
    Yes,
    /// What it held was secret and is gone: its event must happen again.
    Emptied,
    /// It runs, or is done.
    NotNow(State),
    /// There is no such job.
    Unknown,
}

/// Makes a job that failed, or waits for its next try, due now. For an uncertain one the operator takes the risk that its effect happens twice.
///
/// # Errors
/// What the database can meet.
pub async fn retry(session: &mut Session, id: Uuid, now: Timestamp) -> Result<Retried> {
    let text = "UPDATE jobs SET state = 'waiting', due_at = $2, attempts = 0, begun = $3, claim = NULL, finished_at = NULL \
                WHERE id = $1 AND state IN ('waiting', 'dead', 'uncertain') AND payload IS NOT NULL";
    if query(text).bind(id).bind(now).bind(false).execute(session).await? == 1 {
        session.tell_at_commit();
        return Ok(Retried::Yes);
    }
    let Some(row) = query("SELECT state FROM jobs WHERE id = $1").bind(id).fetch_optional(session).await? else { return Ok(Retried::Unknown) };
    Ok(match State::parse(&row.get::<String>("state")?)? {
        State::Dead | State::Uncertain => Retried::Emptied,
        state => Retried::NotNow(state),
    })
}

/// Deletes rows whose time is over, failed ones beyond [`FAILED_MAX`], and secrets of uncertain jobs after [`SECRET_KEPT`], and brings back what a clock that was ahead
/// has put too far away; at most `rows_max` of each, so that no statement is long. Returns how many rows were touched.
///
/// # Errors
/// What the database can meet.
pub async fn sweep(session: &mut Session, now: Timestamp, lease: Duration, rows_max: u32) -> Result<u64> {
    let over = [
        "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state = 'done' AND due_at <= $1 ORDER BY due_at LIMIT $2)",
        "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state IN ('dead', 'uncertain') AND due_at <= $1 ORDER BY due_at LIMIT $2)",
    ];
    let mut touched = 0;
    for text in over {
        touched += query(text).bind(now).bind(rows_max).execute(session).await?;
    }
    let text = "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state IN ('dead', 'uncertain') ORDER BY due_at DESC LIMIT $1 OFFSET $2)";
    touched += query(text).bind(rows_max).bind(FAILED_MAX).execute(session).await?;
    // They were given up SECRET_KEPT ago, so their rows go in the rest of FAILED_KEPT.
    let soon = later(now, FAILED_KEPT.saturating_sub(SECRET_KEPT));
    let text = "UPDATE jobs SET payload = NULL WHERE id IN (SELECT id FROM jobs WHERE state IN ('dead', 'uncertain') AND due_at <= $1 AND secret \
                AND payload IS NOT NULL ORDER BY due_at LIMIT $2)";
    touched += query(text).bind(soon).bind(rows_max).execute(session).await?;
    Ok(touched + bring_back(session, now, lease, rows_max).await?)
}

/// A clock that was a day ahead, and is right again, has left jobs that nobody would look at for a day. No worker holds a lease for longer than a lease, nobody waits for
/// another try longer than [`LONGEST`], and no job was made in the future: what says so is due as if it had been written now. Clocks that differ by less than a lease change nothing,
/// and where a database has its own, one that differs from it by more touches nothing: it may be this one that is wrong.
async fn bring_back(session: &mut Session, now: Timestamp, lease: Duration, rows_max: u32) -> Result<u64> {
    if session.dialect() == Dialect::Postgres {
        let theirs: Timestamp = query("SELECT now() AS now").fetch_one(session).await?.get("now")?;
        if theirs.duration_since(now).unsigned_abs() >= lease {
            return Ok(0);
        }
    }
    let soon = later(now, lease);
    let text = "UPDATE jobs SET due_at = $1 WHERE id IN (SELECT id FROM jobs WHERE state IN ('waiting', 'running') AND state = 'running' AND due_at > $2 \
                ORDER BY due_at DESC LIMIT $3) AND state = 'running' AND due_at > $2";
    let mut touched = query(text).bind(soon).bind(later(soon, lease)).bind(rows_max).execute(session).await?;
    let text = "UPDATE jobs SET due_at = $1 WHERE id IN (SELECT id FROM jobs WHERE state IN ('waiting', 'running') AND state = 'waiting' \
                AND (attempts > 0 OR failure IS NOT NULL) AND due_at > $2 ORDER BY due_at DESC LIMIT $3) AND state = 'waiting' AND due_at > $2";
    touched += query(text).bind(now).bind(later(soon, LONGEST)).bind(rows_max).execute(session).await?;
    let text = "UPDATE jobs SET due_at = $1, created_at = $1 WHERE id IN (SELECT id FROM jobs WHERE state IN ('waiting', 'running') \
                AND state = 'waiting' AND created_at > $2 AND due_at = created_at ORDER BY due_at DESC LIMIT $3) AND state = 'waiting' AND due_at = created_at";
    Ok(touched + query(text).bind(now).bind(soon).bind(rows_max).execute(session).await?)
}
