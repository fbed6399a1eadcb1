//! A job on its way in: what is to be done, when, how often at most, and in whose transaction.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::OPEN_MAX;
use crate::error::{Error, Result, codes};
use crate::store::{Session, query};

/// Bytes of a payload as JSON. What is larger belongs into a table of its own, and its id into the job.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a key: room for a word and three ids.
const KEY_BYTES_MAX: usize = 200;

/// Something to do.
#[derive(Clone)]
pub struct Job {
    kind: &'static str,
    payload: Value,
    run_at: Option<Timestamp>,
    unique_key: Option<String>,
    secret: bool,
}

/// What a job holds is nobody's business.
impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("kind", &self.kind).field("run_at", &self.run_at).field("secret", &self.secret).finish_non_exhaustive()
    }
}

impl Job {
    /// A job of this kind, to be done at once, for the handler of that kind to read.
    ///
    /// # Errors
    /// When the payload is no JSON or has more than [`PAYLOAD_BYTES_MAX`].
    pub fn new(kind: &'static str, payload: &impl Serialize) -> Result<Self> {
        let payload = serde_json::to_value(payload).map_err(|error| Error::new(&codes::INTERNAL).caused_by(error))?;
        let bytes = payload.to_string().len();
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(
                Error::new(&codes::INTERNAL).caused_by(format!("a job of kind {kind} would hold {bytes} bytes, more than {PAYLOAD_BYTES_MAX}"))
            );
        }
        Ok(Self { kind, payload, run_at: None, unique_key: None, secret: false })
    }

    /// Once per event: `key` names the event. Enqueueing it again does nothing.
    #[must_use]
    pub fn once(mut self, key: impl Into<String>) -> Self {
        self.unique_key = Some(key.into());
        self
    }

    /// Not before this time.
    #[must_use]
    pub fn at(mut self, time: Timestamp) -> Self {
        self.run_at = Some(time);
        self
    }

    /// The payload is a secret: it is deleted when the job fails for good as well, so it cannot be tried again then.
    #[must_use]
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }
}

/// What became of an [`enqueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// There is a new job.
    New(Uuid),
    /// The event has its job already.
    Already,
}

/// Writes a job, in the transaction of what caused it: it exists if that commits. A [`super::Jobs`] in this process looks at it right after the commit.
///
/// # Errors
/// [`codes::OVERLOADED`] when [`OPEN_MAX`] jobs wait already, and what the database can meet.
pub async fn enqueue(session: &mut Session, job: &Job, now: Timestamp) -> Result<Enqueued> {
    if job.unique_key.as_ref().is_some_and(|key| key.len() > KEY_BYTES_MAX) {
        return Err(Error::new(&codes::INTERNAL).caused_by(format!("the key of a job of kind {} has more than {KEY_BYTES_MAX} bytes", job.kind)));
    }
    let text = "SELECT CAST(count(*) AS bigint) AS open FROM (SELECT 1 AS one FROM jobs WHERE state IN ('waiting', 'running') LIMIT $1) AS open_jobs";
    let open: i64 = query(text).bind(OPEN_MAX).fetch_one(session).await?.get("open")?;
    if open >= OPEN_MAX {
        metrics::counter!("mainstay_jobs_refused_total", "kind" => job.kind).increment(1);
        return Err(Error::new(&codes::OVERLOADED).retry_after(std::time::Duration::from_secs(60)).caused_by("the queue of jobs is full"));
    }
    let id = Uuid::new_v4();
    let text = "INSERT INTO jobs (id, kind, unique_key, payload, secret, state, due_at, begun, attempts, created_at) \
                VALUES ($1, $2, $3, $4, $5, 'waiting', $6, $7, 0, $8) ON CONFLICT (kind, unique_key) DO NOTHING";
    let written = query(text)
        .bind(id)
        .bind(job.kind)
        .bind(job.unique_key.as_deref())
        .bind(&job.payload)
        .bind(job.secret)
        .bind(job.run_at.unwrap_or(now))
        .bind(false)
        .bind(now)
        .execute(session)
        .await?;
    session.tell_at_commit();
    Ok(if written == 1 { Enqueued::New(id) } else { Enqueued::Already })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_a_bound_and_does_not_print() {
        let job = Job::new("test", &"marked-secret").unwrap().once("key").secret();
        assert!(!format!("{job:?}").contains("marked"), "{job:?}");
        assert!(Job::new("test", &"x".repeat(PAYLOAD_BYTES_MAX - 2)).is_ok());
        let refused = Job::new("test", &"x".repeat(PAYLOAD_BYTES_MAX)).unwrap_err();
        assert_eq!(refused.code(), &codes::INTERNAL);
    }
}
