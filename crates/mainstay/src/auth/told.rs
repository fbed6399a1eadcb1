//! How every instance is told at once when somebody's standing changes.
//!
//! PostgreSQL tells: triggers on the service's tables call `pg_notify` on [`CHANNEL`], so the news leave with the commit (never before it, never without
//! it), no writer can forget them, and a change made by hand in `psql` is heard as well. The text is `<account> <transaction>` or
//! `<account>/<session> <transaction>`, both ids as UUIDs and the transaction as `pg_current_xact_id()` writes it.
//!
//! Each instance listens on a connection of its own. A heartbeat proves every quarter of a second that the connection lives; without a proof for a second,
//! or without a connection, the memory of standings is believed for 250 ms and no longer. After a pause everything is forgotten before anything is
//! believed: news went by. Before the first belief one piece of news goes around through the pool, because a pooler that shares connections between
//! transactions accepts `LISTEN` and delivers nothing.
//!
//! Whoever makes a change waits until this instance has heard of it, and 50 ms more, 250 ms at most in all ([`super::Auth::commit`]). PostgreSQL signals all
//! listeners in one go, so the others hear it within their own network's delay of the same moment; and an instance that hears nothing believes nothing that
//! is older than the wait.
//! What is left: an instance whose connection has gone silent without an error, or whose listener is not run for lack of a processor, goes on for up to a
//! second.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout_at;
use uuid::Uuid;

use super::Change;
use super::standing::{KEPT_UNTOLD, Standings};
use crate::store::{Database, Dialect, Error, Listener, Session, query};

/// The channel of PostgreSQL on which changes of standing are told.
pub const CHANNEL: &str = "mainstay_standing";

/// Between two proofs of life.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// A proof is good for this long: three heartbeats may be late before anything is thought of it.
const PROOF: Duration = Duration::from_secs(1);
/// After this instance has heard, the others have this long to be run: with two of them in debug builds on two cores that five compilers shared, the other
/// refused 3 ms later in the median and 48 at most. A part of the wait for who hears nothing, not on top of it.
const SETTLED: Duration = Duration::from_millis(50);
/// Before the first attempt to connect again, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Whether this instance hears of changes that others make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    /// There is nobody else: all changes are made by this process.
    Alone,
    /// It hears them.
    Live,
    /// It does not: standings are asked for at the latest after 250 ms, until it hears again.
    Lost,
}

impl Hearing {
    /// In a word, for health answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Live => "live",
            Self::Lost => "lost",
        }
    }
}

/// The ear of one instance.
pub(super) struct Ear {
    shared: Arc<Shared>,
    task: OnceLock<AbortHandle>,
}

struct Shared {
    standings: Arc<Standings>,
    /// Who waits for the news of a transaction; one entry for each change in progress, taken out by its owner.
    waiting: Mutex<HashMap<i64, oneshot::Sender<()>>>,
    heard: AtomicU64,
    interruptions: AtomicU64,
    /// The outage was logged.
    lost: AtomicBool,
}

impl Drop for Ear {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Ear {
    pub(super) fn new(standings: Arc<Standings>) -> Self {
        let shared =
            Shared { standings, waiting: Mutex::default(), heard: AtomicU64::new(0), interruptions: AtomicU64::new(0), lost: AtomicBool::new(false) };
        Self { shared: Arc::new(shared), task: OnceLock::new() }
    }

    /// Begins to listen, once. On SQLite there is nobody to listen to.
    pub(super) fn listen(&self, database: &Database) {
        if database.dialect() == Dialect::Sqlite {
            return;
        }
        self.task.get_or_init(|| {
            self.shared.standings.told_until(Instant::now());
            tokio::spawn(run(self.shared.clone(), database.clone())).abort_handle()
        });
    }

    pub(super) fn hearing(&self) -> Hearing {
        match (self.task.get(), self.shared.standings.told(Instant::now())) {
            (None, _) => Hearing::Alone,
            (Some(_), true) => Hearing::Live,
            (Some(_), false) => Hearing::Lost,
        }
    }

    /// News heard, and times that the connection was lost, since the start.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.shared.heard.load(Ordering::Relaxed), self.shared.interruptions.load(Ordering::Relaxed))
    }

    /// Prepares to wait for the news of this transaction; before its commit, because they may be here before the commit's own answer.
    pub(super) async fn expect(&self, session: &mut Session) -> Result<Option<Expected>, Error> {
        if self.task.get().is_none() {
            return Ok(None);
        }
        let transaction = query("SELECT pg_current_xact_id()::text::bigint AS xact").fetch_one(session).await?.get("xact")?;
        let (tell, told) = oneshot::channel();
        self.shared.with_waiting(|waiting| waiting.insert(transaction, tell));
        Ok(Some(Expected { shared: self.shared.clone(), transaction, told }))
    }
}

/// News that will come after a commit.
pub(super) struct Expected {
    shared: Arc<Shared>,
    transaction: i64,
    told: oneshot::Receiver<()>,
}

impl Expected {
    /// Waits for them, as long as an instance that hears nothing believes what it knows.
    pub(super) async fn heard(mut self) {
        // A listener that is not there tells nobody, and then the wait itself is what makes the change effective.
        let _ = tokio::time::timeout(KEPT_UNTOLD - SETTLED, &mut self.told).await;
        tokio::time::sleep(SETTLED).await;
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.shared.with_waiting(|waiting| waiting.remove(&self.transaction));
    }
}

impl Shared {
    fn with_waiting<T>(&self, act: impl FnOnce(&mut HashMap<i64, oneshot::Sender<()>>) -> T) -> T {
        act(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn hear(&self, text: &str) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        match parse(text) {
            Some((change, transaction)) => {
                self.standings.forget(change);
                // Whoever has stopped waiting needs no answer.
                let waiting = transaction.and_then(|transaction| self.with_waiting(|waiting| waiting.remove(&transaction)));
                waiting.map(|waiting| waiting.send(()));
            }
            // From a release that tells more than this one understands: everything is safe to forget.
            None => self.standings.forget_all(),
        }
    }
}

fn parse(text: &str) -> Option<(Change, Option<i64>)> {
    let (who, transaction) = text.split_once(' ')?;
    let change = match who.split_once('/') {
        None => Change::Account(Uuid::try_parse(who).ok()?),
        Some((account, session)) => Change::Session { account: Uuid::try_parse(account).ok()?, session: Uuid::try_parse(session).ok()? },
    };
    Some((change, transaction.parse().ok()))
}

async fn run(shared: Arc<Shared>, database: Database) {
    let (first, most) = PAUSE;
    let mut pause = first;
    loop {
        let begun = Instant::now();
        let Err(error) = follow(&shared, &database).await;
        shared.standings.told_until(Instant::now());
        shared.interruptions.fetch_add(1, Ordering::Relaxed);
        // One line for an outage, however long.
        if !shared.lost.swap(true, Ordering::Relaxed) {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(error = %error, cause, "changes of standing are not heard; standings are asked for again after 250 ms until they are");
        }
        pause = if begun.elapsed() > most { first } else { (pause * 2).min(most) };
        // Instances that lost the same server do not come back in step.
        let jitter_us = Uuid::new_v4().as_u128() % (pause.as_micros() / 2).max(1);
        tokio::time::sleep(pause - Duration::from_micros(u64::try_from(jitter_us).unwrap_or(0))).await;
    }
}

async fn follow(shared: &Shared, database: &Database) -> Result<std::convert::Infallible, Error> {
    let mut listener = database.listen(CHANNEL).await?;
    prove(shared, database, &mut listener).await?;
    // News went by before the connection stood; answers to readers that began before that are not kept either.
    shared.standings.forget_all();
    loop {
        let asked = Instant::now();
        listener.ping(asked + PROOF).await?;
        while let Some(text) = listener.waiting() {
            shared.hear(&text);
        }
        shared.standings.told_until(asked + PROOF);
        if shared.lost.swap(false, Ordering::Relaxed) {
            tracing::info!("changes of standing are heard again");
        }
        while let Some(text) = listener.next(asked + HEARTBEAT).await? {
            shared.hear(&text);
        }
    }
}

/// Sends a piece of news through the pool and waits for it here.
async fn prove(shared: &Shared, database: &Database, listener: &mut Listener) -> Result<(), Error> {
    let until = Instant::now() + PROOF;
    // The nil account has no sessions: to all others it is news of nobody.
    let (nobody, nonce) = (Uuid::nil(), Uuid::new_v4());
    let sent = format!("{nobody}/{nonce} 0");
    let tell = async {
        let mut connection = database.writer(Some(until)).await?;
        query("SELECT pg_notify($1, $2)::text AS told").bind(CHANNEL).bind(sent.as_str()).fetch_one(&mut connection).await
    };
    timeout_at(until.into(), tell).await.map_err(|_| Error::DeadlinePassed)??;
    while let Some(text) = listener.next(until).await? {
        shared.hear(&text);
        if text == sent {
            return Ok(());
        }
    }
    Err(Error::Misuse("notifications of PostgreSQL do not arrive; is a pooler in between that shares connections between transactions?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_the_triggers_are_understood_and_no_other() {
        let (account, session) = (Uuid::new_v4(), Uuid::new_v4());
        assert_eq!(parse(&format!("{account} 17")), Some((Change::Account(account), Some(17))));
        assert_eq!(parse(&format!("{account}/{session} 17")), Some((Change::Session { account, session }, Some(17))));
        for other in ["", "x", "x 17", &format!("{account}"), &format!("{account}/x 17"), &format!("{account}/ 17")] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn news_that_cannot_be_understood_empty_the_memory() {
        let now = Instant::now();
        let standings = Arc::new(Standings::new(now));
        let ear = Ear::new(standings.clone());
        let account = Uuid::new_v4();
        standings.keep(account, account, None, &standings.ask(account, now));
        ear.shared.hear("something new");
        assert_eq!(standings.get(account, account, now), None);
    }

    #[tokio::test]
    async fn whoever_gives_up_waiting_leaves_nothing_behind() {
        let ear = Ear::new(Arc::new(Standings::new(Instant::now())));
        let (tell, told) = oneshot::channel();
        ear.shared.with_waiting(|waiting| waiting.insert(7, tell));
        drop(Expected { shared: ear.shared.clone(), transaction: 7, told });
        assert_eq!(ear.shared.with_waiting(|waiting| waiting.len()), 0);
    }
}
