//! The tasks that look after replicas: one asks the primary where its log ends, one for each replica asks how far that has come.
//!
//! Each has a connection of its own beside the pools, because a look must not wait behind requests, nor be mistaken by a full pool. Every wait has an end.

use super::error::Error;
use super::lag::{History, Judge, Look, SAMPLE_EVERY};
use super::link::Link;
use super::pool::{CONNECT_TIMEOUT, Opener};
use super::query::{Query, query};
use super::replica::{Out, Replica};
use super::row::Row;
use super::server::Identity;
use super::session::Want;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// How often a replica is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A look that takes longer has failed: such a question takes a millisecond, and whoever reads meanwhile waits as long.
pub(super) const LOOK_TIMEOUT: Duration = Duration::from_millis(500);

/// The primary is not seen any more when it was silent for so long; a replica that has all it was last seen to have stays in use.
const SEEN_FOR: Duration = Duration::from_secs(2);

/// How often a replica's pool closes what is idle and opens what is missing.
const TEND_EVERY: Duration = Duration::from_millis(500);

/// What is known of the primary.
pub(super) struct Primary(Mutex<Known>);

struct Known {
    history: History,
    identity: Option<Identity>,
}

impl Primary {
    pub(super) fn new(history: History) -> Primary {
        Primary(Mutex::new(Known { history, identity: None }))
    }

    /// Was it seen lately?
    pub(super) fn answers(&self) -> bool {
        self.known().history.seen().is_some_and(|seen| seen.elapsed() < SEEN_FOR)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // A panic while it is held leaves it whole: every change to it is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meet(&self, identity: Identity) {
        let mut known = self.known();
        if known.identity.as_ref().is_some_and(|before| *before != identity) {
            // Another timeline as well: where the log of the server before ended says nothing of this one's, which gives the same places to other commits.
            known.history.forget();
        }
        known.identity = Some(identity);
    }
}

/// A connection for looks, made again when it is lost.
struct Lookout {
    opener: Opener,
    link: Option<Link>,
}

impl Lookout {
    fn new(opener: Opener) -> Lookout {
        Lookout { opener, link: None }
    }

    /// The identity of the server, when the connection is a new one.
    async fn connect(&mut self) -> Result<Option<Identity>, Error> {
        if self.link.is_some() {
            return Ok(None);
        }
        let link = timeout(CONNECT_TIMEOUT, self.opener.open()).await.map_err(|_| silent())?;
        self.link = Some(link.map_err(|error| super::error::Failure::from(error).error)?);
        Identity::read(&self.ask(&Identity::question()).await?).map(Some)
    }

    async fn ask(&mut self, question: &Query) -> Result<Row, Error> {
        // Put back only after an answer: what comes next on a connection that was given up is anybody's guess.
        let mut link = self.link.take().ok_or_else(silent)?;
        let got = timeout(LOOK_TIMEOUT, link.run_alone(question, Want::First)).await.map_err(|_| silent())?.map_err(|failure| failure.error)?;
        self.link = Some(link);
        got.rows.into_iter().next().ok_or(Error::NoRow)
    }
}

fn silent() -> Error {
    Error::unavailable("no answer in time")
}

/// Asks the primary where its log ends, until it is aborted.
pub(super) async fn primary(opener: Opener, primary: Arc<Primary>) {
    let mut lookout = Lookout::new(opener);
    loop {
        if let Err(error) = sample(&mut lookout, &primary).await {
            tracing::debug!(%error, "the primary does not say where its log ends");
        }
        sleep(SAMPLE_EVERY).await;
    }
}

async fn sample(lookout: &mut Lookout, primary: &Primary) -> Result<(), Error> {
    if let Some(identity) = lookout.connect().await? {
        primary.meet(identity);
    }
    // Before the question: what was committed by then lies before the end that is told. What is flushed, because nothing else leaves for a replica.
    let asked = Instant::now();
    let row = lookout.ask(&query("SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint AS flushed")).await?;
    primary.known().history.note(asked, row.get("flushed")?);
    Ok(())
}

/// Looks at a replica, until it is aborted.
pub(super) async fn replica(opener: Opener, replica: Arc<Replica>, primary: Arc<Primary>, lag_max: Duration) {
    let mut lookout = Lookout::new(opener);
    let mut identity = None;
    let mut judge = Judge::new(lag_max);
    loop {
        let look = look(&mut lookout, &mut identity).await;
        let verdict = {
            let known = primary.known();
            let foreign = matches!((&identity, &known.identity), (Some(replica), Some(primary)) if !replica.is_of(primary));
            let look = match &look {
                Ok(_) if foreign => Err(Out::Foreign),
                Ok(look) => Ok(*look),
                Err(_) => Err(Out::Silent),
            };
            judge.judge(look, &known.history, Instant::now())
        };
        let lag_ms = verdict.lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX));
        if replica.hold(verdict) {
            let (number, address) = (replica.number, &replica.address);
            match verdict.out {
                None => tracing::info!(replica = number, address, lag_ms, "a replica is read from"),
                Some(Out::Returning) => {}
                Some(out) => {
                    let error = look.err().map(|error| error.to_string());
                    tracing::warn!(
                        replica = number,
                        address,
                        reason = out.as_str(),
                        lag_ms,
                        error,
                        "a replica is left out; the primary answers for it"
                    );
                }
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn look(lookout: &mut Lookout, identity: &mut Option<Identity>) -> Result<Look, Error> {
    if let Some(found) = lookout.connect().await? {
        *identity = Some(found);
    }
    let text = "SELECT pg_is_in_recovery() AS recovering, coalesce(pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0'), 0)::bigint AS replayed";
    let row = lookout.ask(&query(text)).await?;
    Ok(Look { recovering: row.get("recovering")?, replayed: row.get("replayed")? })
}

/// Keeps a replica's pool in order while it answers, until it is aborted. To a silent one nothing would come of it.
pub(super) async fn tend(replica: Arc<Replica>) {
    loop {
        if replica.answers() {
            replica.pool.tend().await;
        }
        sleep(TEND_EVERY).await;
    }
}
