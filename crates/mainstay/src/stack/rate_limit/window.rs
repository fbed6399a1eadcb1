//! An exact sliding window per key, in bounded memory.
//!
//! Every admitted request is remembered until the window has passed over it, so no placement of the window ever holds more than `max`; a fixed window
//! lets through twice as many at its edge. Requests within one granule (1/128 of the window) are remembered together, as if all had come at the granule's
//! end: late, so the bound holds; a client gets its quota back at most that much later, and is told exactly when.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Granules in a window: at most this many entries (8 bytes each) per key, so at most 1 KiB.
const GRANULES: u32 = 128;
/// Locks, so that two cores seldom wait for each other.
const SHARDS: usize = 64;
/// Keys in a shard. 64 x 1,024 keys of at most 1 KiB are at most 68 MiB, under an attack from as many addresses; a calm service needs kilobytes.
const KEYS_PER_SHARD_MAX: usize = 1024;
/// When a shard is full of keys that are all in use, further keys share this many windows: the bound on memory and on every client holds, and strangers suffer together.
const OVERFLOW: usize = 16;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// May it pass?
    pub allowed: bool,
    /// How many more may pass now.
    pub remaining: u32,
    /// When the next part of the quota comes back; for a refused request: when one passes again.
    pub next: Duration,
}

/// Counts requests per key.
#[derive(Debug)]
pub struct Limiter<K> {
    max: u32,
    window_ns: u64,
    granule_ns: u64,
    epoch: Instant,
    hasher: RandomState,
    shards: Box<[Mutex<Shard<K>>]>,
}

#[derive(Debug)]
struct Shard<K> {
    windows: HashMap<K, Window>,
    overflow: [Window; OVERFLOW],
    swept_at: u32,
}

/// The admitted requests of one key: (end of granule, count), oldest first.
#[derive(Debug, Default, Clone)]
struct Window {
    admitted: VecDeque<(u32, u32)>,
    total: u32,
}

impl Window {
    fn forget_until(&mut self, granule: u32) {
        while let Some((_, count)) = self.admitted.pop_front_if(|(end, _)| *end <= granule) {
            self.total -= count;
        }
    }

    fn admit(&mut self, end: u32) {
        self.total += 1;
        match self.admitted.back_mut() {
            Some((last, count)) if *last == end => *count += 1,
            _ => self.admitted.push_back((end, 1)),
        }
    }
}

impl<K: Hash + Eq + Copy> Limiter<K> {
    /// At most `max` requests of a key in any span of `window`.
    pub fn new(max: u32, window: Duration) -> Self {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let granule_ns = nanos((window / GRANULES).max(Duration::from_micros(100)));
        let shard = || Mutex::new(Shard { windows: HashMap::new(), overflow: Default::default(), swept_at: 0 });
        Self {
            max,
            window_ns: nanos(window),
            granule_ns,
            epoch: Instant::now(),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| shard()).collect(),
        }
    }

    /// Counts a request of `key` at `now`, if it may pass. A refused request costs nothing, so a client that hammers is not locked out for ever.
    pub fn take(&self, key: K, now: Instant) -> Decision {
        // 64 bits of nanoseconds are 584 years.
        let since = u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        // u32 granules last as long as 33 million windows; a process that runs longer than that with the shortest window saturates and refuses nothing wrongly for one window.
        let granules = |ns: u64| u32::try_from(ns / self.granule_ns).unwrap_or(u32::MAX - 1);
        let passed = granules(since);
        // An entry's granule ends at `end x granule`; the window has passed over it when that is at least a window ago.
        let gone = since.checked_sub(self.window_ns).map_or(0, granules);
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash);
        let window = shard.window(key, hash, gone);
        window.forget_until(gone);
        let allowed = window.total < self.max;
        if allowed {
            window.admit(passed + 1);
        }
        let oldest = window.admitted.front().map_or(since, |(end, _)| self.granule_ns * u64::from(*end));
        let next = oldest.saturating_add(self.window_ns).saturating_sub(since);
        Decision { allowed, remaining: self.max - window.total, next: Duration::from_nanos(next) }
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard<K>> {
        // The remainder is below the number of shards. A panic while counting leaves counts that are still counts.
        self.shards[(hash % SHARDS as u64) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().windows.len()).sum()
    }
}

impl<K: Hash + Eq + Copy> Shard<K> {
    /// The window of a key. A full shard first forgets the keys whose windows have passed, once a granule at most.
    fn window(&mut self, key: K, hash: u64, gone: u32) -> &mut Window {
        if self.windows.len() >= KEYS_PER_SHARD_MAX && !self.windows.contains_key(&key) {
            if self.swept_at != gone {
                self.swept_at = gone;
                self.windows.retain(|_, window| window.admitted.back().is_some_and(|(end, _)| *end > gone));
            }
            if self.windows.len() >= KEYS_PER_SHARD_MAX {
                // The remainder is below the length.
                return &mut self.overflow[(hash >> 32) as usize % OVERFLOW];
            }
        }
        self.windows.entry(key).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: Duration = Duration::from_secs(5);

    #[test]
    fn exactly_the_limit_passes_and_waiting_as_told_is_enough() {
        let limiter = Limiter::new(50, WINDOW);
        let start = Instant::now();
        let decisions: Vec<_> = (0..120).map(|i| limiter.take(1u8, start + Duration::from_millis(i))).collect();
        assert_eq!(decisions.iter().filter(|decision| decision.allowed).count(), 50);
        let mut remaining: Vec<_> = decisions.iter().filter(|decision| decision.allowed).map(|decision| decision.remaining).collect();
        remaining.reverse();
        assert_eq!(remaining, (0..50).collect::<Vec<_>>());
        let refused = start + Duration::from_millis(119);
        let wait = decisions[119].next;
        assert!(wait <= WINDOW + WINDOW / GRANULES, "{wait:?}");
        assert!(!limiter.take(1, refused + wait - Duration::from_millis(1)).allowed);
        assert!(limiter.take(1, refused + wait).allowed);
        assert!(limiter.take(2, refused).allowed, "another key is not affected");
    }

    #[test]
    fn memory_is_bounded_and_so_is_what_strangers_beyond_the_bound_get() {
        let limiter = Limiter::new(2, WINDOW);
        let now = Instant::now();
        let keys = (SHARDS * KEYS_PER_SHARD_MAX * 2) as u32;
        for key in 0..keys {
            limiter.take(key, now);
        }
        assert!(limiter.keys() <= SHARDS * KEYS_PER_SHARD_MAX);
        let admitted: usize = (keys..keys * 2).filter(|key| limiter.take(*key, now).allowed).count();
        assert!(admitted <= SHARDS * OVERFLOW * 2, "{admitted}");
        assert!(limiter.take(keys * 3, now + WINDOW * 2).allowed, "keys whose window passed make room");
        assert!(limiter.keys() < SHARDS * KEYS_PER_SHARD_MAX);
    }

    proptest! {
        #[test]
        fn no_window_however_placed_holds_more_than_the_limit(gaps_ms in prop::collection::vec(0u64..400, 1..400), max in 1u32..20) {
            let limiter = Limiter::new(max, WINDOW);
            let mut now = Instant::now();
            let mut admitted = Vec::new();
            for gap in gaps_ms {
                now += Duration::from_millis(gap);
                let decision = limiter.take((), now);
                if decision.allowed {
                    admitted.push(now);
                } else {
                    prop_assert!(decision.next > Duration::ZERO && decision.remaining == 0);
                    // Not refused without cause: a window and one granule back there are `max` requests.
                    let recent = admitted.iter().filter(|at| now.duration_since(**at) < WINDOW + WINDOW / GRANULES).count();
                    prop_assert!(recent >= max as usize);
                }
            }
            for (i, first) in admitted.iter().enumerate() {
                let within = admitted[i..].iter().take_while(|at| at.duration_since(*first) < WINDOW).count();
                prop_assert!(within <= max as usize, "{within} of {max}");
            }
        }
    }
}
