//! Answers that are read often, kept as the bytes that leave: a hit costs no query, no serialisation and no compression.
//!
//! A handler says beside its route what it keeps ([`Policy`]), by what name ([`Key`]), and which things it was made of ([`Subject`]). Only answers that are
//! the same for everybody may be kept: the bytes know no caller.
//!
//! Promises, whatever the order of things:
//! - An answer made before a change is never given to a request that came after the change was told here ([`Cache::forget`], or the news of another
//!   instance), not even when it was still being made when the news came.
//! - No request that comes 100 ms after another instance's commit gets an answer from before it, whatever becomes of the way to the database.
//! - Of requests for one answer that is not there, one makes it and the others wait for it. One that leaves, or panics, passes the work on to the next.
//! - The bytes kept, in all their codings, are bounded.
//!
//! What other instances change is read from a log in the database ([`News::read`]): `<kind>/<id>,<id>` for some things of a kind, `<kind>` for any number of
//! them. What is read to make an answer must be as new as the log: a replica that is behind would be kept behind.
//! Instances that [share](Cache::share) a Redis ask there before they make an answer (`tier.rs`, `position.rs`). What is read often is made anew before it
//! ends. When the database cannot be asked, what it said last is given for a while, and says so ([`Cache::new`]).

mod generations;
mod output;
mod position;
mod shelf;
pub(crate) mod tier;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::response::Response;
use http::StatusCode;
use uuid::Uuid;

use crate::context;
use crate::error::{Error, Result};
use crate::news::{Memory, News};
use crate::redis::Redis;
use crate::stack::{compress, overload};

use generations::Generations;
use shelf::{Found, Kept, Making, Outcome, Shelf};
use tier::{Asked, Tier};

pub use generations::{Kind, Subject};
pub use output::Output;

/// What a route keeps: declared beside it.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    name: &'static str,
    kept: Duration,
    absent: Duration,
}

impl Policy {
    /// Answers of this route, whose name nothing else has. They are kept as long as the cache keeps anything, and that something is not there for a
    /// tenth of it.
    pub const fn of(name: &'static str) -> Self {
        Self { name, kept: Duration::MAX, absent: Duration::MAX }
    }

    /// No answer is kept longer than this.
    #[must_use]
    pub const fn kept(self, most: Duration) -> Self {
        Self { kept: most, ..self }
    }

    /// That something is not there is kept no longer than this.
    #[must_use]
    pub const fn absent(self, most: Duration) -> Self {
        Self { absent: most, ..self }
    }

    fn life(&self, there: bool, most: Duration) -> Duration {
        // Who asks for what is not there is about to make it, or guesses.
        if there { self.kept.min(most) } else { self.absent.min(most / 10) }
    }
}

/// The name of an answer: its route, and what of the request it depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    route: &'static str,
    of: Of,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Of {
    Id(Uuid),
    Query(Box<str>),
}

impl Key {
    /// An answer for an id.
    pub const fn id(policy: &Policy, id: Uuid) -> Self {
        Self { route: policy.name, of: Of::Id(id) }
    }

    /// An answer for a query, as it came: another order of the same parameters is another answer.
    pub fn query(policy: &Policy, query: Option<&str>) -> Self {
        Self { route: policy.name, of: Of::Query(query.unwrap_or_default().into()) }
    }

    fn bytes(&self) -> usize {
        match &self.of {
            Of::Id(_) => 0,
            Of::Query(query) => query.len(),
        }
    }
}

/// The answers that this instance keeps. Clones share them.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    generations: Arc<Generations>,
    /// None if it is switched off.
    shelf: Option<Shelf>,
    /// What instances share.
    tier: OnceLock<Tier>,
}

/// Who has an answer that may be old waits for a better one as long as this. A database that takes longer is away.
const PATIENCE: Duration = Duration::from_millis(250);

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("on", &self.0.shelf.is_some()).finish()
    }
}

impl Cache {
    /// Keeps up to `bytes` of answers, none of them longer than `kept`; 0 bytes switch it off. Until it [follows](Self::follow) the news of others, all
    /// changes are those of this process.
    ///
    /// When the database cannot be asked, or takes longer than 250 ms while it tells no news, an answer is given that was good at most `stale` ago, if nothing is
    /// known to have changed since; with 0 none is.
    pub fn new(bytes: usize, kept: Duration, stale: Duration) -> Self {
        let generations = Arc::new(Generations::new(Instant::now()));
        let shelf = (bytes > 0).then(|| Shelf::new(bytes as u64, kept, stale, generations.clone()));
        Self(Arc::new(Inner { generations, shelf, tier: OnceLock::new() }))
    }

    /// Shares answers with the other instances of this build that share this Redis, from the time on that it [follows](Self::follow) their news. There are
    /// `instances` of them, and all of them together keep there what one may keep in memory.
    pub fn share(&self, redis: Redis, instances: u32) {
        if let Some(shelf) = &self.0.shelf {
            match Tier::new(redis, shelf.capacity() / u64::from(instances.max(1)), shelf.life_max) {
                Some(tier) => drop(self.0.tier.set(tier)),
                None => tracing::warn!("the program's own file cannot be read; its answers are not shared with other instances"),
            }
        }
    }

    /// Hears of what others change, from [`News::listen`] on; the statement `log` reads it ([`News::read`]).
    pub fn follow(&self, news: &News, log: &'static str) {
        if self.0.shelf.is_some() {
            news.read(log, self.0.generations.clone());
        }
    }

    /// The answer that is kept under `key`, or else the one that `make` makes, which is kept if nothing of `subject` has changed meanwhile. `None`: what was
    /// asked for is not there, and that is remembered as well.
    ///
    /// # Errors
    /// Those of `make`, for everybody who waited for it. They are not kept.
    pub async fn answer<F>(&self, policy: &Policy, key: Key, subject: Subject, make: impl FnOnce() -> F) -> Result<Option<Response>>
    where
        F: Future<Output = Result<Option<Output>>>,
    {
        let request = context::current();
        let request = request.as_deref();
        let coding = request.and_then(compress::wished);
        let Some(shelf) = &self.0.shelf else {
            overload::admitted().await?;
            return Ok(make().await?.map(|output| output.respond(coding, request)));
        };
        let given = |key: Key, kept: &Arc<Kept>| Ok(shelf.respond(key, kept, coding, request));
        let stale = |key: Key, kept: &Arc<Kept>| Ok(shelf.respond_stale(key, kept, coding, request, Instant::now()));
        loop {
            let now = Instant::now();
            let (making, instead) = match shelf.find(&key, subject, now) {
                Found::Kept(kept) => return given(key, &kept),
                Found::Stale(kept) => return stale(key, &kept),
                Found::Coming(mut coming) => {
                    overload::admitted().await?;
                    let outcome = coming.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
                    match outcome {
                        Some(Outcome::Made(kept)) => return given(key, &kept),
                        Some(Outcome::Failed(error)) => match shelf.stand_in(&key, Instant::now()).filter(|_| is_away(&error)) {
                            Some(kept) => return stale(key, &kept),
                            None => return Err(error.twin()),
                        },
                        // Who made it left: somebody else does, perhaps this one.
                        None => continue,
                    }
                }
                Found::Early(kept, making) => (making, Some((kept, true))),
                Found::Nothing(making) => (making, shelf.stand_in(&key, now).map(|kept| (kept, false))),
            };
            let good = matches!(instead, Some((_, true)));
            // Whoever is refused here leaves the work to the next, and takes what there is.
            if let Err(refused) = overload::admitted().await {
                return match instead {
                    Some((kept, true)) => given(key, &kept),
                    Some((kept, false)) => stale(key, &kept),
                    None => Err(refused),
                };
            }
            let making = self.make(shelf, policy, making, good, make());
            let Some((kept, _)) = instead else {
                let (key, kept) = making.await?;
                return given(key, &kept);
            };
            return match tokio::time::timeout(PATIENCE, making).await {
                Ok(Ok((key, kept))) => given(key, &kept),
                Ok(Err(error)) if !good && !is_away(&error) => Err(error),
                _ if good => given(key, &kept),
                _ => {
                    shelf.note_away(Instant::now());
                    stale(key, &kept)
                }
            };
        }
    }

    /// Makes an answer, or takes the one that another instance made.
    async fn make(
        &self,
        shelf: &Shelf,
        policy: &Policy,
        making: Making<'_>,
        early: bool,
        made: impl Future<Output = Result<Option<Output>>>,
    ) -> Result<(Key, Arc<Kept>)> {
        let tier = self.0.tier.get().zip(making.needed);
        let mut turn = None;
        if let Some((tier, needed)) = tier {
            let mut waits = tier::WAITS.iter();
            // One that is to be made before it ends is not the other instances' of the same age: the ends of those differ by a fifth.
            let least = if early { shelf.life(policy) / 4 } else { Duration::ZERO };
            loop {
                match tier.ask(making.key(), needed, least).await {
                    Some(Asked::There(shared)) => return Ok(making.found(shared.output, shared.took, shared.left)),
                    Some(Asked::Coming) => {}
                    Some(Asked::Make(ours)) => {
                        turn = Some(ours);
                        break;
                    }
                    None => break,
                }
                let Some(wait) = waits.next() else { break };
                tokio::time::sleep(*wait).await;
            }
        }
        let begun = Instant::now();
        match made.await {
            Ok(output) => {
                shelf.note_there();
                let now = Instant::now();
                let (took, reaches) = (now - begun, making.reaches(now));
                let (key, kept) = making.made(policy, output, took);
                if let (Some((tier, _)), Some(position)) = (tier, reaches) {
                    tier.put(&key, position, kept.output.as_ref(), took, kept.left(now), turn);
                }
                Ok((key, kept))
            }
            Err(error) => {
                if is_away(&error) {
                    shelf.note_away(Instant::now());
                }
                making.failed(error.twin());
                Err(error)
            }
        }
    }

    /// This changed, and the database knows it already: no answer made before is given to a request that comes now. For the writer, after its commit and
    /// before its own answer, also when the commit failed: nobody may know whether it did.
    pub fn forget(&self, subject: Subject) {
        self.0.generations.forget(subject);
    }

    /// Forgets everything.
    pub fn forget_all(&self) {
        self.0.generations.forget_all();
    }

    /// Times that an answer was there, had to be made, and was waited for because another request made it.
    pub fn counts(&self) -> Counts {
        self.0.shelf.as_ref().map(Shelf::counts).unwrap_or_default()
    }

    /// Sets the metrics `mainstay_cache_*`; call it when the metrics are read.
    pub fn record_metrics(&self) {
        let counts = self.counts();
        metrics::counter!("mainstay_cache_hits_total").absolute(counts.hits);
        metrics::counter!("mainstay_cache_misses_total").absolute(counts.misses);
        metrics::counter!("mainstay_cache_waits_total").absolute(counts.waits);
        metrics::counter!("mainstay_cache_early_total").absolute(counts.early);
        metrics::counter!("mainstay_cache_stale_total").absolute(counts.stale);
        metrics::counter!("mainstay_cache_shared_total").absolute(counts.shared);
        metrics::counter!("mainstay_cache_invalidations_total").absolute(self.0.generations.changes());
        #[allow(clippy::cast_precision_loss)] // Exact up to 2^53 bytes.
        {
            metrics::gauge!("mainstay_cache_entries").set(counts.entries as f64);
            metrics::gauge!("mainstay_cache_bytes").set(counts.bytes as f64);
        }
    }
}

/// Could the database not be asked, or not in time?
fn is_away(error: &Error) -> bool {
    matches!(error.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// What the cache has done, and what it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answers that were there.
    pub hits: u64,
    /// Answers that had to be made.
    pub misses: u64,
    /// Requests that waited for another one's.
    pub waits: u64,
    /// Of the answers that were there, those that were made anew before they ended.
    pub early: u64,
    /// Answers that were given although they may have been old.
    pub stale: u64,
    /// Of the answers that had to be made, those that another instance had made.
    pub shared: u64,
    /// Answers kept now.
    pub entries: u64,
    /// Their bytes, with what it takes to keep them.
    pub bytes: u64,
}

#[cfg(test)]
mod tests;
