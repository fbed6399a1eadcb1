//! The steps of a job's life as SQL. A step of a worker names its claim, and does nothing when the job has another one by now: the answer `false` means that
//! the job was lost and is somebody else's.
//!
//! [`super::Jobs`] takes these steps; they are public so that tests can take them in every order.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::{DONE_KEPT, FAILED_KEPT, State};
use crate::error::Result;
use crate::store::{Row, Session, placeholders, query};

/// Characters of a reason that are kept.
const REASON_CHARS_MAX: usize = 200;

/// A job in a worker's hands.
#[derive(Clone)]
pub struct Claimed {
    /// The job.
    pub id: Uuid,
    /// What it is.
    pub kind: String,
    /// What it holds; not for logs.
    pub payload: Value,
    /// The number of this try; the first is 1.
    pub attempt: i64,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// Is there one per event, whose key must stay?
    pub keyed: bool,
    token: Uuid,
}

impl fmt::Debug for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claimed").field("id", &self.id).field("kind", &self.kind).field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

/// When the next job of these kinds is due, if there is any. Reads one entry of an index.
///
/// # Errors
/// What the database can meet.
pub async fn next_due(session: &mut Session, kinds: &[&str]) -> Result<Option<Timestamp>> {
    let kinds_in = placeholders(1, kinds.len());
    let text = format!("SELECT due_at FROM jobs WHERE state IN ('waiting', 'running') AND kind IN ({kinds_in}) ORDER BY due_at LIMIT 1");
    let row = query(text).bind_all(kinds.iter().map(|kind| (*kind).into())).fetch_optional(session).await?;
    Ok(row.map(|row| row.get("due_at")).transpose()?)
}

/// Jobs whose worker is gone in the middle of an effect: their outcome is unknown. They keep their claim, so that a worker that was only slow can still say.
///
/// # Errors
/// What the database can meet.
pub async fn give_up_lost(session: &mut Session, now: Timestamp) -> Result<u64> {
    let text = "UPDATE jobs SET state = 'uncertain', finished_at = $1, due_at = $2, failure = 'the worker was lost after the effect had begun' \
                WHERE state IN ('waiting', 'running') AND begun AND due_at <= $1";
    Ok(query(text).bind(now).bind(later(now, FAILED_KEPT)).execute(session).await?)
}

/// Claims up to `count` jobs of these kinds that are due, or whose lease has ended, until the end of the lease.
///
/// # Errors
/// What the database can meet.
pub async fn claim(session: &mut Session, kinds: &[&str], now: Timestamp, lease: Duration, count: usize) -> Result<Vec<Claimed>> {
    // Locked rows are another worker's, who is just claiming them; SQLite has one writer at a time.
    let skip = session.dialect().sql("FOR UPDATE SKIP LOCKED", "");
    let kinds_in = placeholders(5, kinds.len());
    let text = format!(
        "WITH due AS MATERIALIZED (SELECT id FROM jobs WHERE state IN ('waiting', 'running') AND due_at <= $1 AND NOT begun AND kind IN ({kinds_in}) \
         ORDER BY due_at LIMIT $2 {skip}) \
         UPDATE jobs SET state = 'running', claim = $3, due_at = $4, attempts = attempts + 1 WHERE id IN (SELECT id FROM due) \
         RETURNING id, kind, payload, attempts, created_at, CASE WHEN unique_key IS NULL THEN 0 ELSE 1 END AS keyed"
    );
    let token = Uuid::new_v4();
    let rows = query(text)
        .bind(now)
        .bind(i64::try_from(count).unwrap_or(i64::MAX))
        .bind(token)
        .bind(later(now, lease))
        .bind_all(kinds.iter().map(|kind| (*kind).into()))
        .fetch_all(session)
        .await?;
    rows.iter().map(|row| claimed(row, token)).collect()
}

fn claimed(row: &Row, token: Uuid) -> Result<Claimed> {
    Ok(Claimed {
        id: row.get("id")?,
        kind: row.get("kind")?,
        payload: row.get::<Option<Value>>("payload")?.unwrap_or_default(),
        attempt: row.get("attempts")?,
        created_at: row.get("created_at")?,
        keyed: row.get::<i64>("keyed")? == 1,
        token,
    })
}

/// Extends the lease.
///
/// # Errors
/// What the database can meet.
pub async fn extend(session: &mut Session, job: &Claimed, until: Timestamp) -> Result<bool> {
    let text = "UPDATE jobs SET due_at = $3 WHERE id = $1 AND claim = $2 AND state = 'running'";
    Ok(query(text).bind(job.id).bind(job.token).bind(until).execute(session).await? == 1)
}

/// Marks that the effect begins: from here on a lost worker leaves the job uncertain, and nobody repeats it. Extends the lease as well.
///
/// # Errors
/// What the database can meet.
pub async fn begin(session: &mut Session, job: &Claimed, until: Timestamp) -> Result<bool> {
    let text = "UPDATE jobs SET begun = $4, due_at = $3 WHERE id = $1 AND claim = $2 AND state = 'running'";
    Ok(query(text).bind(job.id).bind(job.token).bind(until).bind(true).execute(session).await? == 1)
}

/// It is done. What it held goes; its key stays for [`DONE_KEPT`]. Also for a job that was given up as uncertain and turns out well.
///
/// # Errors
/// What the database can meet.
pub async fn done(session: &mut Session, job: &Claimed, now: Timestamp) -> Result<bool> {
    if !job.keyed {
        let text = "DELETE FROM jobs WHERE id = $1 AND claim = $2 AND state IN ('running', 'uncertain')";
        return Ok(query(text).bind(job.id).bind(job.token).execute(session).await? == 1);
    }
    let text = "UPDATE jobs SET state = 'done', payload = NULL, claim = NULL, failure = NULL, begun = $5, finished_at = $3, due_at = $4 \
                WHERE id = $1 AND claim = $2 AND state IN ('running', 'uncertain')";
    let kept = later(now, DONE_KEPT);
    Ok(query(text).bind(job.id).bind(job.token).bind(now).bind(kept).bind(false).execute(session).await? == 1)
}

/// It failed, its effect did not happen, and it may be claimed again at `due`.
///
/// # Errors
/// What the database can meet.
pub async fn again(session: &mut Session, job: &Claimed, due: Timestamp, reason: &str) -> Result<bool> {
    let text = "UPDATE jobs SET state = 'waiting', claim = NULL, begun = $5, due_at = $3, failure = $4, finished_at = NULL \
                WHERE id = $1 AND claim = $2 AND state IN ('running', 'uncertain')";
    Ok(query(text).bind(job.id).bind(job.token).bind(due).bind(short(reason)).bind(false).execute(session).await? == 1)
}

/// The worker stops in the middle. The job may be claimed again at `due`, without counting this try if `for_free`; if its effect had begun it is uncertain.
///
/// # Errors
/// What the database can meet.
pub async fn give_back(session: &mut Session, job: &Claimed, now: Timestamp, due: Timestamp, reason: &str, for_free: bool) -> Result<bool> {
    let free = i64::from(for_free);
    let text = "UPDATE jobs SET state = 'waiting', claim = NULL, due_at = $3, failure = $4, attempts = attempts - $5 \
                WHERE id = $1 AND claim = $2 AND state = 'running' AND NOT begun";
    if query(text).bind(job.id).bind(job.token).bind(due).bind(short(reason)).bind(free).execute(session).await? == 1 {
        return Ok(true);
    }
    let text = "UPDATE jobs SET state = 'uncertain', claim = NULL, due_at = $3, failure = $4, finished_at = $5 \
                WHERE id = $1 AND claim = $2 AND state = 'running' AND begun";
    let kept = later(now, FAILED_KEPT);
    Ok(query(text).bind(job.id).bind(job.token).bind(kept).bind(short(reason)).bind(now).execute(session).await? == 1)
}

/// It is given up: [`State::Dead`], or [`State::Uncertain`] when nobody knows whether it happened. A secret payload goes with a dead one.
///
/// # Errors
/// What the database can meet.
pub async fn bury(session: &mut Session, job: &Claimed, state: State, now: Timestamp, reason: &str) -> Result<bool> {
    let text = "UPDATE jobs SET state = $3, claim = NULL, failure = $6, finished_at = $4, due_at = $5, \
                payload = CASE WHEN secret AND $7 THEN NULL ELSE payload END \
                WHERE id = $1 AND claim = $2 AND state IN ('running', 'uncertain')";
    let kept = later(now, FAILED_KEPT);
    let dead = state == State::Dead;
    let steps = query(text).bind(job.id).bind(job.token).bind(state.name()).bind(now).bind(kept).bind(short(reason)).bind(dead);
    Ok(steps.execute(session).await? == 1)
}

/// A moment after another one; the last there is when there is none so late.
pub(super) fn later(now: Timestamp, wait: Duration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// What fits into the column and onto a line of a terminal.
fn short(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_line() {
        assert_eq!(short("a\r\nb\0c\u{1b}[31m"), "abc[31m");
        assert_eq!(short(&"é".repeat(500)).chars().count(), REASON_CHARS_MAX);
    }
}
