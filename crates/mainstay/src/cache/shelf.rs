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
use http::{HeaderName, HeaderValue};
use tokio::sync::watch;

use super::generations::{Generations, Stamp, Subject};
use super::output::Output;
use super::position::Position;
use super::{Counts, Key, Policy};
use crate::context::Context;
use crate::error::Error;
use crate::news::LEASE;
use crate::stack::compress::Coding;

/// What a cache says of an answer (RFC 9211).
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What an answer takes beside its bytes: its place in the memory's own tables, measured at 300 to 400 bytes.
const BESIDE: usize = 400;

/// The answers.
pub(super) struct Shelf {
    generations: Arc<Generations>,
    kept: moka::sync::Cache<Key, Arc<Kept>>,
    /// One entry for each answer that a request makes now; the stack bounds the requests. One lock: it is taken for misses only.
    coming: Mutex<HashMap<Key, Coming>>,
    /// No answer is kept longer.
    pub(super) life_max: Duration,
    /// Nor is one given longer than this after the last moment at which it was known to be good, when nobody can be asked for a better one.
    stale_max: Duration,
    /// Microseconds after `origin`: until then the database is not asked, which could not be asked a moment ago. 0 if it could.
    away_until_us: AtomicU64,
    origin: Instant,
    /// Another one in each process.
    spread: RandomState,
    hits: AtomicU64,
    misses: AtomicU64,
    waits: AtomicU64,
    early: AtomicU64,
    stale: AtomicU64,
    shared: AtomicU64,
}

/// After the database could not be asked, this long passes before one request tries again, while the others get what is there. Half of the time in which
/// a database that is back is to be noticed.
const AWAY: Duration = Duration::from_millis(500);

/// An answer, or that there is none.
pub(super) struct Kept {
    pub(super) output: Option<Output>,
    stamp: Stamp,
    asked: Instant,
    until: Instant,
    /// How long it took to make.
    took: Duration,
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
    /// The answer, and the work of making the next one before this one ends.
    Early(Arc<Kept>, Making<'a>),
    /// One that may be old: nobody can be asked at the moment.
    Stale(Arc<Kept>),
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
    /// How far it will reach, and how far one of another instance must.
    pub(super) position: Option<Position>,
    pub(super) needed: Option<Position>,
    tell: watch::Sender<Option<Outcome>>,
}

impl Shelf {
    pub(super) fn new(bytes: u64, life_max: Duration, stale_max: Duration, generations: Arc<Generations>) -> Self {
        let weigh = |key: &Key, kept: &Arc<Kept>| {
            let bytes = BESIDE + key.bytes() + kept.output.as_ref().map_or(0, Output::bytes);
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        // After both times nobody is given it any more, whatever happens. Without this, lists that nobody asks for again would fill the memory before they gave way.
        let kept = moka::sync::Cache::builder().max_capacity(bytes).weigher(weigh).time_to_live(life_max + stale_max).build();
        let count = || AtomicU64::new(0);
        Self {
            generations,
            kept,
            coming: Mutex::default(),
            life_max,
            stale_max,
            away_until_us: count(),
            origin: Instant::now(),
            spread: RandomState::new(),
            hits: count(),
            misses: count(),
            waits: count(),
            early: count(),
            stale: count(),
            shared: count(),
        }
    }

    /// Bytes that it keeps at most.
    pub(super) fn capacity(&self) -> u64 {
        self.kept.policy().max_capacity().unwrap_or_default()
    }

    fn coming(&self) -> MutexGuard<'_, HashMap<Key, Coming>> {
        // Whole after a panic as well: what is put in or taken out is one call.
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stands(&self, kept: &Kept, now: Instant) -> bool {
        now < kept.until && self.generations.stands(kept.stamp, kept.asked, now)
    }

    fn kept(&self, key: &Key, now: Instant) -> Option<Arc<Kept>> {
        self.kept.get(key).filter(|kept| self.stands(kept, now))
    }

    /// The answer, a place to wait for it, or the work of making it.
    pub(super) fn find(&self, key: &Key, subject: Subject, now: Instant) -> Found<'_> {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match self.kept.get(key) {
            Some(kept) if self.stands(&kept, now) => {
                count(&self.hits);
                if !self.is_early(key, &kept, now) {
                    return Found::Kept(kept);
                }
                let mut coming = self.coming();
                if coming.contains_key(key) {
                    return Found::Kept(kept);
                }
                count(&self.early);
                return Found::Early(kept, self.begin(&mut coming, key, subject, now));
            }
            Some(kept) if self.is_away(now) && self.may_stand_in(&kept, now) => {
                count(&self.stale);
                return Found::Stale(kept);
            }
            _ => {}
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
        Found::Nothing(self.begin(&mut coming, key, subject, now))
    }

    fn begin(&self, coming: &mut HashMap<Key, Coming>, key: &Key, subject: Subject, now: Instant) -> Making<'_> {
        let (tell, outcome) = watch::channel(None);
        let stamp = self.generations.stamp(subject);
        let (position, needed) = (self.generations.position(now), self.generations.needed(subject, now));
        coming.insert(key.clone(), Coming { stamp, asked: now, outcome });
        Making { shelf: self, key: key.clone(), stamp, asked: now, position, needed, tell }
    }

    /// Is it time to make the next one? Before an answer ends, one of those who ask for it makes the next, while the others still get this one: the more of
    /// them ask and the longer it takes to make, the earlier (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention, VLDB 2015).
    fn is_early(&self, key: &Key, kept: &Kept, now: Instant) -> bool {
        // Beyond this no chance is left: it is smaller than e to the power of -37.
        let left = kept.until.saturating_duration_since(now);
        if left >= kept.took * 37 {
            return false;
        }
        // From 0, which it never is, to 1, in 2^53 steps.
        #[allow(clippy::cast_precision_loss)]
        let chance = ((self.spread.hash_one((key, now)) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        left < kept.took.mul_f64(-chance.ln())
    }

    /// What may be given in place of an answer that cannot be made.
    pub(super) fn stand_in(&self, key: &Key, now: Instant) -> Option<Arc<Kept>> {
        self.kept.get(key).filter(|kept| self.may_stand_in(kept, now))
    }

    fn may_stand_in(&self, kept: &Kept, now: Instant) -> bool {
        now < self.good_until(kept) + self.stale_max && self.generations.is(kept.stamp)
    }

    /// The last moment at which it was known to be good.
    fn good_until(&self, kept: &Kept) -> Instant {
        self.generations.told_until_when().map_or(kept.until, |told| told.clamp(kept.asked, kept.until))
    }

    fn since_origin_us(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_micros()).unwrap_or(u64::MAX)
    }

    /// The database could not be asked.
    pub(super) fn note_away(&self, now: Instant) {
        self.away_until_us.store(self.since_origin_us(now + AWAY), Ordering::Relaxed);
    }

    /// It could.
    pub(super) fn note_there(&self) {
        // Read first: what nobody writes to stays in every core's cache.
        if self.away_until_us.load(Ordering::Relaxed) != 0 {
            self.away_until_us.store(0, Ordering::Relaxed);
        }
    }

    /// Is it of no use to ask the database? One in each while is told that it is, to try.
    fn is_away(&self, now: Instant) -> bool {
        let until_us = self.away_until_us.load(Ordering::Relaxed);
        if until_us == 0 || self.since_origin_us(now) < until_us {
            return until_us != 0;
        }
        let next_us = self.since_origin_us(now + AWAY);
        self.away_until_us.compare_exchange(until_us, next_us, Ordering::Relaxed, Ordering::Relaxed).is_err()
    }

    /// How long an answer of this route is kept at most.
    pub(super) fn life(&self, policy: &Policy) -> Duration {
        policy.life(true, self.life_max)
    }

    /// The answer for this request, from an answer that may be old: it says so, with the seconds since it was good (RFC 9211, 2.3).
    pub(super) fn respond_stale(
        &self,
        key: Key,
        kept: &Arc<Kept>,
        coding: Option<Coding>,
        request: Option<&Context>,
        now: Instant,
    ) -> Option<Response> {
        let mut response = self.respond(key, kept, coding, request)?;
        let old = now.saturating_duration_since(self.good_until(kept)).as_secs();
        // Words and digits: always a value of a field.
        if let Ok(says) = HeaderValue::try_from(format!("mainstay; hit; ttl=-{old}; detail=unavailable")) {
            response.headers_mut().insert(CACHE_STATUS, says);
        }
        Some(response)
    }

    /// The answer for this request.
    pub(super) fn respond(&self, key: Key, kept: &Arc<Kept>, coding: Option<Coding>, request: Option<&Context>) -> Option<Response> {
        let output = kept.output.as_ref()?;
        if output.pack(coding) && self.kept.get(&key).is_some_and(|there| Arc::ptr_eq(&there, kept)) {
            // It weighs more now. Should a newer one take its place in between, that one is made once more: what is kept is looked at before it is given.
            self.kept.insert(key, kept.clone());
        }
        Some(output.respond(coding, request))
    }

    pub(super) fn counts(&self) -> Counts {
        self.kept.run_pending_tasks();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (entries, bytes) = (self.kept.entry_count(), self.kept.weighted_size());
        Counts {
            hits: read(&self.hits),
            misses: read(&self.misses),
            waits: read(&self.waits),
            early: read(&self.early),
            stale: read(&self.stale),
            shared: read(&self.shared),
            entries,
            bytes,
        }
    }
}

impl Kept {
    /// How long it is still good for.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }
}

impl Making<'_> {
    /// Keeps what was made in this time, if it still stands, and gives it to those who wait.
    pub(super) fn made(self, policy: &Policy, output: Option<Output>, took: Duration) -> (Key, Arc<Kept>) {
        let until = self.asked + self.shortened(policy.life(output.is_some(), self.shelf.life_max));
        let kept = Kept { output, stamp: self.stamp, asked: self.asked, until, took };
        self.keep(kept)
    }

    /// The same for what another instance made, which is good for so long. It is believed while changes are told, and no moment without.
    pub(super) fn found(self, output: Option<Output>, took: Duration, left: Duration) -> (Key, Arc<Kept>) {
        self.shelf.shared.fetch_add(1, Ordering::Relaxed);
        let until = self.asked + self.shortened(left.min(self.shelf.life_max));
        let asked = self.asked.checked_sub(LEASE).unwrap_or(self.asked);
        let kept = Kept { output, stamp: self.stamp, asked, until, took };
        self.keep(kept)
    }

    fn keep(mut self, kept: Kept) -> (Key, Arc<Kept>) {
        let kept = Arc::new(kept);
        if self.shelf.generations.is(self.stamp) {
            self.shelf.kept.insert(self.key.clone(), kept.clone());
        }
        self.end(Outcome::Made(kept.clone()));
        (self.key.clone(), kept)
    }

    /// The name of what is made.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// How far the answer reaches that is made, if nothing has changed since.
    pub(super) fn reaches(&self, now: Instant) -> Option<Position> {
        self.position.filter(|_| self.shelf.generations.stands(self.stamp, self.asked, now))
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
