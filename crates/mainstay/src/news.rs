//! How every instance is told at once of what changed in the database, so that what it remembers may be believed.
//!
//! Each instance has a connection of its own for them, beside the pool, and two ways to hear on it. Either way triggers write the news in the transaction that
//! makes the change: they are there with the commit, never before it and never without it, no writer can forget them, and a change by hand is heard as well.
//!
//! *A channel* ([`News::follow`]) for what changes seldom and must be known at once: the trigger calls `pg_notify`. A text is `<subject> <transaction>`:
//! what changed, in the words of the [`Memory`], and the transaction as `pg_current_xact_id()` writes it. A heartbeat proves every quarter of a second that
//! the connection lives; without a proof for a second the memory is told to believe nothing for long (`Told`). Before the first belief one piece of news
//! goes around through the pool, because a pooler that shares connections between transactions accepts `LISTEN` and delivers nothing. What is left: a
//! connection that has gone silent without an error is believed for up to a second.
//!
//! *A log* ([`News::read`]) for what changes often: PostgreSQL lets transactions that notify commit only one after the other, so the trigger writes a row
//! instead, and the log is read every 40 ms: what this reading's snapshot sees and the one before did not. The order of commits does not matter, nor do
//! transactions that stay open. Each reading is good for 100 ms from its beginning, whatever becomes of the connection, so what is remembered is never
//! older than that.
//!
//! After a pause everything is forgotten before anything is believed: news went by.

mod beside;
mod follow;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::store::{Database, Dialect, Error, Session, query};

/// A proof is good for this long: three heartbeats may be late before anything is thought of it.
const PROOF: Duration = Duration::from_secs(1);
/// A reading is good for this long: what the product promises between a write and every other instance.
pub(crate) const LEASE: Duration = Duration::from_millis(100);

/// What an instance remembers of the database.
pub trait Memory: Send + Sync + 'static {
    /// This changed, and the database knows it already. What cannot be understood comes from a release that tells more: everything is safe to forget.
    fn hear(&self, subject: &str);

    /// Anything may have changed.
    fn forget_all(&self);

    /// Changes are told until then, from whichever process they come.
    fn told_until(&self, until: Instant);

    /// Nothing is told from now on.
    fn lost(&self, now: Instant) {
        self.told_until(now);
    }

    /// All changes are made by this process from now on.
    fn alone(&self);

    /// A reading of the log is about to be asked for: what is committed by now it will see.
    fn asking(&self) {}

    /// A reading of the log is here.
    fn read(&self, reading: &Reading<'_>) {
        match reading.changed {
            // What its snapshot sees and nobody was told of.
            _ if reading.first => self.forget_all(),
            Some(changed) => self.hear(changed),
            None => {}
        }
    }
}

/// A reading of a log of changes.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// Which server it was, with which history: numbers of transactions of another one say nothing. 0 if that is not known.
    pub server: u64,
    /// Every transaction before this one had ended when it was read (`pg_snapshot_xmin`).
    pub ended: u64,
    /// None from this one on had ended (`pg_snapshot_xmax`).
    pub begun: u64,
    /// The first one of its connection: changes went by before it.
    pub first: bool,
    /// What changed since the reading before, in the words of the [`Memory`].
    pub changed: Option<&'a str>,
    /// The newest transaction of those that changed it, if each is named.
    pub newest: Option<u64>,
}

/// Until when a memory is told of changes.
#[derive(Debug)]
pub(crate) struct Told {
    origin: Instant,
    /// Microseconds after `origin`; `u64::MAX` while all changes are made by this process.
    until_us: AtomicU64,
}

impl Told {
    /// All changes are made by this process.
    pub(crate) fn new(now: Instant) -> Self {
        Self { origin: now, until_us: AtomicU64::new(u64::MAX) }
    }

    /// Changes up to this moment are told.
    pub(crate) fn until(&self, until: Instant) {
        let after = until.saturating_duration_since(self.origin).as_micros();
        self.until_us.store(u64::try_from(after).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// When it ends or ended; nothing if all changes are made by this process.
    pub(crate) fn end(&self) -> Option<Instant> {
        let until_us = self.until_us.load(Ordering::Acquire);
        (until_us != u64::MAX).then(|| self.origin + Duration::from_micros(until_us))
    }

    /// Are changes told now?
    pub(crate) fn holds(&self, now: Instant) -> bool {
        let until_us = self.until_us.load(Ordering::Acquire);
        until_us == u64::MAX || now.saturating_duration_since(self.origin).as_micros() < u128::from(until_us)
    }
}

/// Whether this instance hears of changes that others make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    /// There is nobody else: all changes are made by this process.
    Alone,
    /// It hears them.
    Live,
    /// It does not: what it remembers is believed for a quarter of a second at most, until it hears again.
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

/// The news of one instance. It listens as long as one of the clones lives.
#[derive(Clone, Default)]
pub struct News(Arc<Ear>);

#[derive(Default)]
struct Ear {
    /// Until [`News::listen`].
    early: Mutex<Vec<Follower>>,
    /// Another process works on the same SQLite database.
    accompanied: AtomicBool,
    listening: OnceLock<(Arc<Shared>, AbortHandle)>,
}

impl Drop for Ear {
    fn drop(&mut self) {
        if let Some((_, task)) = self.listening.get() {
            task.abort();
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Channel(&'static str),
    /// The statement that reads it.
    Log(&'static str),
}

struct Follower {
    source: Source,
    memory: Arc<dyn Memory>,
    heard: AtomicU64,
}

struct Shared {
    followers: Vec<Follower>,
    told: Told,
    /// Who waits for the news of a transaction on a channel; one entry for each change in progress, taken out by its owner.
    waiting: Mutex<HashMap<(&'static str, i64), oneshot::Sender<()>>>,
    interruptions: AtomicU64,
    /// The outage was logged.
    lost: AtomicBool,
}

impl fmt::Debug for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("News").field(&self.hearing()).finish()
    }
}

impl News {
    /// Tells `memory` what is told on `channel`, from [`News::listen`] on. A memory that comes after that is told to believe nothing for long.
    pub fn follow(&self, channel: &'static str, memory: Arc<dyn Memory>) {
        self.add(Source::Channel(channel), memory);
    }

    /// Tells `memory` what is written in a log. The statement `text` reads it: its parameter is the snapshot of the reading before, as text, or null; its
    /// one row has the snapshot of this reading as text, the subject of what changed in between, or null, and the newest transaction that changed it, as a
    /// `bigint`, or null. As [`News::follow`] otherwise.
    pub fn read(&self, text: &'static str, memory: Arc<dyn Memory>) {
        self.add(Source::Log(text), memory);
    }

    fn add(&self, source: Source, memory: Arc<dyn Memory>) {
        if self.0.listening.get().is_some() {
            memory.told_until(Instant::now());
        }
        self.0.early.lock().unwrap_or_else(PoisonError::into_inner).push(Follower { source, memory, heard: AtomicU64::new(0) });
    }

    /// Begins to listen, once. It takes one connection beside the pool ([`crate::store::check_arithmetic`] counts it). On SQLite there is nobody to listen to.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn listen(&self, database: &Database) {
        if database.dialect() == Dialect::Sqlite {
            return;
        }
        self.0.listening.get_or_init(|| {
            let followers = std::mem::take(&mut *self.0.early.lock().unwrap_or_else(PoisonError::into_inner));
            let shared = Arc::new(Shared::new(followers));
            shared.lose();
            (shared.clone(), tokio::spawn(follow::run(shared, database.clone())).abort_handle())
        });
    }

    /// Does this instance hear of the changes that others make?
    pub fn hearing(&self) -> Hearing {
        match self.0.listening.get() {
            None => Hearing::Alone,
            Some((shared, _)) if shared.told.holds(Instant::now()) => Hearing::Live,
            Some(_) => Hearing::Lost,
        }
    }

    /// News heard on a channel since the start.
    pub fn heard(&self, channel: &'static str) -> u64 {
        let Some((shared, _)) = self.0.listening.get() else { return 0 };
        shared
            .followers
            .iter()
            .filter(|follower| follower.source == Source::Channel(channel))
            .map(|follower| follower.heard.load(Ordering::Relaxed))
            .sum()
    }

    /// Times that the connection was lost, since the start.
    pub fn interruptions(&self) -> u64 {
        self.0.listening.get().map_or(0, |(shared, _)| shared.interruptions.load(Ordering::Relaxed))
    }

    /// Prepares to wait for the news of this transaction; before its commit, because they may be here before the commit's own answer.
    pub(crate) async fn expect(&self, channel: &'static str, session: &mut Session) -> Result<Option<Expected>, Error> {
        let Some((shared, _)) = self.0.listening.get() else { return Ok(None) };
        let transaction = query("SELECT pg_current_xact_id()::text::bigint AS xact").fetch_one(session).await?.get("xact")?;
        Ok(Some(Expected::new(shared.clone(), (channel, transaction))))
    }
}

/// News that will come after a commit.
pub(crate) struct Expected {
    shared: Arc<Shared>,
    key: (&'static str, i64),
    told: oneshot::Receiver<()>,
}

impl Expected {
    fn new(shared: Arc<Shared>, key: (&'static str, i64)) -> Self {
        let (tell, told) = oneshot::channel();
        shared.with_waiting(|waiting| waiting.insert(key, tell));
        Self { shared, key, told }
    }

    /// Waits for them, `most` at most: a listener that is not there tells nobody.
    pub(crate) async fn heard(mut self, most: Duration) {
        let _ = tokio::time::timeout(most, &mut self.told).await;
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.shared.with_waiting(|waiting| waiting.remove(&self.key));
    }
}

impl Shared {
    fn new(followers: Vec<Follower>) -> Self {
        let (told, waiting) = (Told::new(Instant::now()), Mutex::default());
        Self { followers, told, waiting, interruptions: AtomicU64::new(0), lost: AtomicBool::new(false) }
    }

    fn with_waiting<T>(&self, act: impl FnOnce(&mut HashMap<(&'static str, i64), oneshot::Sender<()>>) -> T) -> T {
        act(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nobody is told from now on.
    fn lose(&self) {
        let now = Instant::now();
        self.told.until(now);
        self.followers.iter().for_each(|follower| follower.memory.lost(now));
    }

    fn channels(&self) -> impl Iterator<Item = (&'static str, &Follower)> {
        self.followers.iter().filter_map(|follower| if let Source::Channel(channel) = follower.source { Some((channel, follower)) } else { None })
    }

    /// The connection has shown that it lived at this moment.
    fn proven(&self, asked: Instant) {
        self.told.until(asked + PROOF);
        self.channels().for_each(|(_, follower)| follower.memory.told_until(asked + PROOF));
    }

    fn forget_all(&self) {
        self.followers.iter().for_each(|follower| follower.memory.forget_all());
    }

    fn hear(&self, channel: &str, text: &str) {
        for (name, follower) in self.channels().filter(|(name, _)| *name == channel) {
            follower.heard.fetch_add(1, Ordering::Relaxed);
            let Some((subject, transaction)) = text.rsplit_once(' ') else {
                follower.memory.forget_all();
                continue;
            };
            follower.memory.hear(subject);
            let transaction = transaction.parse().ok();
            let waiting = transaction.and_then(|transaction| self.with_waiting(|waiting| waiting.remove(&(name, transaction))));
            // Whoever has stopped waiting needs no answer.
            waiting.map(|waiting| waiting.send(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Memory for Heard {
        fn hear(&self, subject: &str) {
            self.0.lock().unwrap().push(subject.to_owned());
        }
        fn forget_all(&self) {
            self.0.lock().unwrap().push("everything".to_owned());
        }
        fn told_until(&self, _: Instant) {}
        fn alone(&self) {}
    }

    fn two() -> (Arc<Heard>, Arc<Heard>, Arc<Shared>) {
        let (one, other) = (Arc::<Heard>::default(), Arc::<Heard>::default());
        let follower = |channel, memory: &Arc<Heard>| Follower { source: Source::Channel(channel), memory: memory.clone(), heard: AtomicU64::new(0) };
        let shared = Arc::new(Shared::new(vec![follower("one", &one), follower("other", &other)]));
        (one, other, shared)
    }

    #[test]
    fn each_memory_hears_its_own_channel_and_forgets_what_it_cannot_read() {
        let (one, other, shared) = two();
        for (channel, text) in [("one", "a/b 17"), ("other", "c 17"), ("one", "nonsense"), ("one", "d x"), ("elsewhere", "e 17")] {
            shared.hear(channel, text);
        }
        assert_eq!(*one.0.lock().unwrap(), ["a/b", "everything", "d"]);
        assert_eq!(*other.0.lock().unwrap(), ["c"]);
    }

    #[tokio::test]
    async fn a_wait_ends_with_the_news_of_its_channel_and_its_transaction() {
        let (_, _, shared) = two();
        let mut expected = Expected::new(shared.clone(), ("one", 17));
        shared.hear("other", "a 17");
        shared.hear("one", "a 16");
        assert!(expected.told.try_recv().is_err(), "those were others");
        shared.hear("one", "a 17");
        expected.heard(Duration::from_secs(60)).await;
    }

    #[tokio::test]
    async fn whoever_gives_up_waiting_leaves_nothing_behind() {
        let (_, _, shared) = two();
        drop(Expected::new(shared.clone(), ("one", 7)));
        assert_eq!(shared.with_waiting(|waiting| waiting.len()), 0);
    }

    #[test]
    fn a_time_that_is_told_ends_and_begins_again() {
        let now = Instant::now();
        let told = Told::new(now);
        let after = |ms| told.holds(now + Duration::from_millis(ms));
        assert!(after(0) && after(1_000_000_000), "alone");
        told.until(now + PROOF);
        assert!(after(999) && !after(1_000));
        told.until(now);
        assert!(!after(0));
    }
}
