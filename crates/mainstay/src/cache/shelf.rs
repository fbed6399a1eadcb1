//! Where answers are kept, and the answers that are being made now.
//!
//! All of it is synchronous: a request looks, and gets an answer, a place to wait, or the work. So the orders in which things may happen can be tried
//! one by one (`tests.rs`).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::response::Response;
use tokio::sync::watch;

use super::generations::{Generations, Stamp, Subject};
use super::output::Output;
use super::{Counts, Key, Policy};
use crate::error::Error;
use crate::stack::compress::Coding;

/// What an answer takes beside its bytes: its place in the memory's own tables, measured at 300 to 400 bytes.
const BESIDE: usize = 400;

/// The answers.
pub(super) struct Shelf {
    generations: Arc<Generations>,
    kept: moka::sync::Cache<Key, Arc<Kept>>,
    /// One entry for each answer that a request makes now; the stack bounds the requests. One lock: it is taken for misses only.
    coming: Mutex<HashMap<Key, Coming>>,
    /// No answer is kept longer.
    life_max: Duration,
    /// Another one in each process.
    spread: RandomState,
    hits: AtomicU64,
    misses: AtomicU64,
    waits: AtomicU64,
}

/// An answer, or that there is none.
pub(super) struct Kept {
    pub(super) output: Option<Output>,
    stamp: Stamp,
    asked: Instant,
    until: Instant,
}

/// An answer that is being made.
struct Coming {
    stamp: Stamp,
    asked: Instant,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// What became of the making.
#[derive(Clone)]
pub(super) enum Outcome {
    Made(Arc<Kept>),
    Failed(Arc<Error>),
}

/// What a request finds.
pub(super) enum Found<'a> {
    /// The answer.
    Kept(Arc<Kept>),
    /// Another request makes it. The wait ends without an outcome when that one leaves.
    Coming(watch::Receiver<Option<Outcome>>),
    /// It is for this one to make it.
    Nothing(Making<'a>),
}

/// The work of making an answer. When it is dropped, others may take it up.
pub(super) struct Making<'a> {
    shelf: &'a Shelf,
    key: Key,
    stamp: Stamp,
    asked: Instant,
    tell: watch::Sender<Option<Outcome>>,
}

impl Shelf {
    pub(super) fn new(bytes: u64, life_max: Duration, generations: Arc<Generations>) -> Self {
        let weigh = |key: &Key, kept: &Arc<Kept>| {
            let bytes = BESIDE + key.bytes() + kept.output.as_ref().map_or(0, Output::bytes);
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let kept = moka::sync::Cache::builder().max_capacity(bytes).weigher(weigh).build();
        let count = || AtomicU64::new(0);
        Self { generations, kept, coming: Mutex::default(), life_max, spread: RandomState::new(), hits: count(), misses: count(), waits: count() }
    }

    fn coming(&self) -> MutexGuard<'_, HashMap<Key, Coming>> {
        // Whole after a panic as well: what is put in or taken out is one call.
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self, key: &Key, now: Instant) -> Option<Arc<Kept>> {
        let kept = self.kept.get(key)?;
        (now < kept.until && self.generations.stands(kept.stamp, kept.asked, now)).then_some(kept)
    }

    /// The answer, a place to wait for it, or the work of making it.
    pub(super) fn find(&self, key: &Key, subject: Subject, now: Instant) -> Found<'_> {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        if let Some(kept) = self.kept(key, now) {
            count(&self.hits);
            return Found::Kept(kept);
        }
        let mut coming = self.coming();
        // Who made it put it there before it gave up its place among those that are coming: looked at in the other order it is never missed.
        if let Some(kept) = self.kept(key, now) {
            count(&self.hits);
            return Found::Kept(kept);
        }
        // One that was asked for before a change is for those who came before the change.
        if let Some(coming) = coming.get(key).filter(|coming| self.generations.stands(coming.stamp, coming.asked, now)) {
            count(&self.waits);
            return Found::Coming(coming.outcome.clone());
        }
        count(&self.misses);
        let (tell, outcome) = watch::channel(None);
        let stamp = self.generations.stamp(subject);
        coming.insert(key.clone(), Coming { stamp, asked: now, outcome });
        Found::Nothing(Making { shelf: self, key: key.clone(), stamp, asked: now, tell })
    }

    /// The answer for this request.
    pub(super) fn respond(&self, key: Key, kept: &Arc<Kept>, coding: Option<Coding>) -> Option<Response> {
        let output = kept.output.as_ref()?;
        if output.pack(coding) && self.kept.get(&key).is_some_and(|there| Arc::ptr_eq(&there, kept)) {
            // It weighs more now. Should a newer one take its place in between, that one is made once more: what is kept is looked at before it is given.
            self.kept.insert(key, kept.clone());
        }
        Some(output.respond(coding))
    }

    pub(super) fn counts(&self) -> Counts {
        self.kept.run_pending_tasks();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (entries, bytes) = (self.kept.entry_count(), self.kept.weighted_size());
        Counts { hits: read(&self.hits), misses: read(&self.misses), waits: read(&self.waits), entries, bytes }
    }
}

impl Making<'_> {
    /// Keeps what was made, if it still stands, and gives it to those who wait.
    pub(super) fn made(mut self, policy: &Policy, output: Option<Output>) -> (Key, Arc<Kept>) {
        let until = self.asked + self.shortened(policy.life(output.is_some(), self.shelf.life_max));
        let kept = Arc::new(Kept { output, stamp: self.stamp, asked: self.asked, until });
        if self.shelf.generations.is(self.stamp) {
            self.shelf.kept.insert(self.key.clone(), kept.clone());
        }
        self.end(Outcome::Made(kept.clone()));
        (self.key.clone(), kept)
    }

    /// Tells those who wait that it cannot be had: asking again one by one, they would wait one after the other.
    pub(super) fn failed(mut self, error: Error) {
        self.end(Outcome::Failed(Arc::new(error)));
    }

    fn end(&mut self, outcome: Outcome) {
        self.leave();
        self.tell.send_replace(Some(outcome));
    }

    fn leave(&self) {
        let mut coming = self.shelf.coming();
        // Not the place of one that has begun after a change.
        if coming.get(&self.key).is_some_and(|coming| coming.outcome.same_channel(&self.tell.subscribe())) {
            coming.remove(&self.key);
        }
    }

    /// By up to a fifth, so that answers made together do not have to be made again together, nor on all instances at once.
    fn shortened(&self, life: Duration) -> Duration {
        let part = self.shelf.spread.hash_one((&self.key, self.asked)) % 1024;
        life.saturating_sub(life / 5 * u32::try_from(part).unwrap_or(0) / 1024)
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
