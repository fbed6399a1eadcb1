//! An exact sliding window per key, in bounded memory.
//!
//! Every admitted request is remembered by its time until the window has passed over it, so no placement of the window ever holds more than `max`; a fixed
//! window lets through twice as many at its edge. Only when a key has very many are those of one granule (1/128 of the window) remembered together, as if all
//! had come with the last of them: late, so the bound holds; a client gets that part of its quota back at most a granule later, and is told exactly when.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Granules in a window.
const GRANULES: u64 = 128;
/// Entries of a key before those of one granule are put together, which leaves at most 130: 16 bytes each, so at most 4 KiB a key.
const ENTRIES_MAX: usize = 256;
/// Locks, so that two cores seldom wait for each other.
const SHARDS: usize = 64;
/// Keys in a shard. 64 x 512 keys of at most 4 KiB are at most 134 MB, under an attack from as many addresses with hundreds of admitted requests each;
/// with the limit of production, 100 a window, it is 52 MB, and a calm service needs kilobytes.
const KEYS_PER_SHARD_MAX: usize = 512;
/// When a shard is full of keys that are all in use, further keys share this many windows: the bound on memory and on every client holds, and strangers suffer together.
const OVERFLOW: usize = 16;

/// A full shard is swept at most this often, in nanoseconds: 512 keys take microseconds, but not for each of a million requests.
const SWEEP_NS: u64 = 10_000_000;

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
    windows: HashMap<Hashed<K>, Window, BuildHasherDefault<AsItIs>>,
    overflow: [Window; OVERFLOW],
    swept_at_ns: u64,
}

/// A key with its hash under the limiter's own secret, so that it is worked out once, for the shard and within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hashed<K> {
    hash: u64,
    key: K,
}

impl<K> Hash for Hashed<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Takes a hash for what it is.
#[derive(Debug, Default, Clone, Copy)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only whole hashes are written, and those as numbers");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The admitted requests of one key: (nanoseconds since the epoch, count), oldest first.
#[derive(Debug, Default, Clone)]
struct Window {
    admitted: VecDeque<(u64, u32)>,
    total: u32,
    /// Where all instances count together: until when they admit no more.
    refused_until_ns: u64,
}

impl Window {
    /// Lets go of what the window has passed over.
    fn forget_until(&mut self, passed_ns: u64) {
        while let Some((_, count)) = self.admitted.pop_front_if(|(at_ns, _)| *at_ns <= passed_ns) {
            self.total -= count;
        }
    }

    fn admit(&mut self, now_ns: u64, granule_ns: u64) {
        self.total += 1;
        match self.admitted.back_mut() {
            // Threads read the clock before they take the lock, so one may come a little late; it counts as the latest.
            Some((last_ns, count)) if *last_ns >= now_ns => *count += 1,
            _ => self.admitted.push_back((now_ns, 1)),
        }
        if self.admitted.len() > ENTRIES_MAX {
            self.put_together(granule_ns);
        }
    }

    fn put_together(&mut self, granule_ns: u64) {
        let mut fewer: VecDeque<(u64, u32)> = VecDeque::with_capacity(ENTRIES_MAX / 2);
        for (at_ns, count) in self.admitted.drain(..) {
            match fewer.back_mut() {
                Some((last_ns, together)) if *last_ns / granule_ns == at_ns / granule_ns => (*last_ns, *together) = (at_ns, *together + count),
                _ => fewer.push_back((at_ns, count)),
            }
        }
        self.admitted = fewer;
    }
}

impl<K: Hash + Eq + Copy> Limiter<K> {
    /// At most `max` requests of a key in any span of `window`.
    pub fn new(max: u32, window: Duration) -> Self {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let granule_ns = (nanos(window) / GRANULES).max(1);
        let shard = || Mutex::new(Shard { windows: HashMap::default(), overflow: Default::default(), swept_at_ns: 0 });
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
        self.take_of(self.max, key, now)
    }

    /// The same with another bound: a part of the quota, when others cannot be asked.
    pub fn take_of(&self, max: u32, key: K, now: Instant) -> Decision {
        let (passed_ns, now_ns) = self.span(now);
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash);
        let window = shard.window(Hashed { hash, key }, passed_ns);
        window.forget_until(passed_ns);
        let allowed = window.total < max;
        if allowed {
            window.admit(now_ns, self.granule_ns);
        }
        // Where more were admitted than this bound, so many more than the oldest have to leave.
        let mut more = if allowed { 0 } else { window.total - max };
        let frees = window.admitted.iter().find(|(_, count)| {
            let last = more < *count;
            more = more.saturating_sub(*count);
            last
        });
        let next = frees.map_or(now_ns, |(at_ns, _)| *at_ns).saturating_add(self.window_ns).saturating_sub(now_ns);
        Decision { allowed, remaining: max.saturating_sub(window.total), next: Duration::from_nanos(next) }
    }

    /// Where all instances count together: the refusal of a request of `key`, if they have said that they admit no more for now. Counts nothing.
    pub fn refused(&self, key: K, now: Instant) -> Option<Decision> {
        let (_, now_ns) = self.span(now);
        let hash = self.hasher.hash_one(key);
        let until_ns = self.shard(hash).windows.get(&Hashed { hash, key })?.refused_until_ns;
        (until_ns > now_ns).then(|| Decision { allowed: false, remaining: 0, next: Duration::from_nanos(until_ns - now_ns) })
    }

    /// Notes what all instances together decided about a request of `key` that came at `now`: what was admitted counts here too, for the time when they
    /// cannot be asked.
    pub fn note(&self, key: K, decision: &Decision, now: Instant) {
        let (passed_ns, now_ns) = self.span(now);
        let hash = self.hasher.hash_one(key);
        let hashed = Hashed { hash, key };
        let mut shard = self.shard(hash);
        let window = shard.window(hashed, passed_ns);
        window.forget_until(passed_ns);
        if decision.allowed {
            // Keys that share a window are not to fill it beyond what one of them may.
            if window.total < self.max {
                window.admit(now_ns, self.granule_ns);
            }
        } else if let Some(own) = shard.windows.get_mut(&hashed) {
            // Not in a window that keys share: the others were not refused.
            own.refused_until_ns = now_ns.saturating_add(u64::try_from(decision.next.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// The moment in nanoseconds: up to when the window has passed over requests, and now. 64 bits of them are 584 years. Counting begins a window after
    /// zero, so that the window's other end never lies before it.
    fn span(&self, now: Instant) -> (u64, u64) {
        let passed_ns = u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        (passed_ns, passed_ns.saturating_add(self.window_ns))
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard<K>> {
        // Bits that neither the map within looks at nor the overflow. The remainder is below the number of shards. A panic while counting leaves
        // counts that are still counts.
        self.shards[((hash >> 32) % SHARDS as u64) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().windows.len()).sum()
    }
}

impl<K: Hash + Eq + Copy> Shard<K> {
    /// The window of a key. A full shard first forgets the keys whose windows have passed, now and then.
    fn window(&mut self, key: Hashed<K>, passed_ns: u64) -> &mut Window {
        if self.windows.len() >= KEYS_PER_SHARD_MAX && !self.windows.contains_key(&key) {
            if passed_ns >= self.swept_at_ns {
                self.swept_at_ns = passed_ns + SWEEP_NS;
                self.windows.retain(|_, window| window.admitted.back().is_some_and(|(at_ns, _)| *at_ns > passed_ns));
            }
            if self.windows.len() >= KEYS_PER_SHARD_MAX {
                // The remainder is below the length.
                return &mut self.overflow[(key.hash >> 40) as usize % OVERFLOW];
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
    fn who_was_admitted_more_often_than_the_part_allows_is_told_when_enough_has_left() {
        let (limiter, begun) = (Limiter::new(10, WINDOW), Instant::now());
        let at = |ms| begun + Duration::from_millis(ms);
        for number in 0..10 {
            // As all instances together admitted them.
            limiter.note(1, &Decision { allowed: true, remaining: 9, next: WINDOW }, at(100 * number));
        }
        let refused = limiter.take_of(3, 1, at(1_000));
        // Eight have to leave: the last of them came at 700 ms.
        assert_eq!((refused.allowed, refused.next), (false, Duration::from_millis(4_700)));
        assert!(!limiter.take_of(3, 1, at(5_699)).allowed && limiter.take_of(3, 1, at(5_700)).allowed);
    }

    #[test]
    fn what_others_refused_is_refused_until_then_and_only_to_whom_it_was() {
        let (limiter, begun) = (Limiter::new(10, WINDOW), Instant::now());
        let at = |ms| begun + Duration::from_millis(ms);
        limiter.note(1, &Decision { allowed: false, remaining: 0, next: Duration::from_millis(300) }, begun);
        assert_eq!(limiter.refused(1, at(100)).map(|refused| refused.next), Some(Duration::from_millis(200)));
        assert!(limiter.refused(1, at(300)).is_none() && limiter.refused(2, at(100)).is_none());
    }

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
        assert!(wait <= WINDOW, "{wait:?}");
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
                    let recent = admitted.iter().filter(|at| now.duration_since(**at) < WINDOW + WINDOW / GRANULES as u32).count();
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
