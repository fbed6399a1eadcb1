//! The tries of many keys in bounded memory.
//!
//! Promises: a key is never judged by fewer tries than it made. When there are more keys than there is place for, further ones share a log, and are judged by all that is in it.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use super::pace::{forget, is_within};

/// A full shard is swept by itself, so that nobody waits for a sweep of all keys.
const SHARDS: usize = 64;
/// Logs that further keys of a full shard share.
const SHARED: usize = 16;
/// A full shard is swept at most this often: some hundred keys take microseconds, but not for each of a million tries.
const SWEEP: Duration = Duration::from_millis(10);

/// When tries were made, and what else is to be known of each, in their order.
type Log<V> = VecDeque<(Duration, V)>;

pub(super) struct Book<K, V> {
    window: Duration,
    keys_per_shard_max: usize,
    hasher: RandomState,
    shards: Box<[Shard<K, V>]>,
}

struct Shard<K, V> {
    logs: HashMap<K, Log<V>>,
    shared: [VecDeque<(Duration, (K, V))>; SHARED],
    swept: Duration,
}

impl<K: Hash + Eq + Copy, V: Copy + PartialEq> Book<K, V> {
    /// A place for this many keys, each remembered for a window.
    pub(super) fn new(window: Duration, keys_max: usize) -> Self {
        let shard = || Shard { logs: HashMap::new(), shared: Default::default(), swept: Duration::ZERO };
        let keys_per_shard_max = keys_max.div_ceil(SHARDS);
        Self { window, keys_per_shard_max, hasher: RandomState::new(), shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    /// The tries by which a key is judged.
    pub(super) fn tries(&self, key: K) -> impl Iterator<Item = (Duration, V)> {
        let (shard, shared) = self.place(key);
        // The remainders are below the lengths.
        let shard = &self.shards[shard];
        let own = shard.logs.get(&key);
        let full = shard.logs.len() >= self.keys_per_shard_max;
        let others = shard.shared[shared].iter().filter(move |(_, (other, _))| own.is_none() && (full || *other == key));
        own.into_iter().flatten().copied().chain(others.map(|(at, (_, value))| (*at, *value)))
    }

    /// The tries of a key alone, whoever shares a log with it.
    pub(super) fn own_tries(&self, key: K) -> impl Iterator<Item = Duration> {
        let (shard, shared) = self.place(key);
        let shard = &self.shards[shard];
        let beside_others = shard.shared[shared].iter().filter(move |(_, (other, _))| *other == key);
        shard.logs.get(&key).into_iter().flatten().map(|(at, _)| *at).chain(beside_others.map(|(at, _)| *at))
    }

    /// Writes a try down.
    pub(super) fn add(&mut self, key: K, at: Duration, value: V) {
        let (shard, shared) = self.place(key);
        let shard = &mut self.shards[shard];
        if shard.logs.len() >= self.keys_per_shard_max && !shard.logs.contains_key(&key) && !shard.sweep(self.window, at, self.keys_per_shard_max) {
            forget(&mut shard.shared[shared], self.window, at, |(at, _)| *at);
            shard.shared[shared].push_back((at, (key, value)));
            return;
        }
        let log = shard.logs.entry(key).or_insert_with(|| own_of(&mut shard.shared[shared], key));
        forget(log, self.window, at, |(at, _)| *at);
        log.push_back((at, value));
    }

    /// Takes a try out again.
    pub(super) fn take_back(&mut self, key: K, at: Duration, value: V) {
        let (shard, shared) = self.place(key);
        let shard = &mut self.shards[shard];
        if let Some(log) = shard.logs.get_mut(&key) {
            // Equal ones are as good as each other.
            if let Some(index) = log.iter().rposition(|made| *made == (at, value)) {
                log.remove(index);
            }
            if log.is_empty() {
                shard.logs.remove(&key);
            }
        } else if let Some(index) = shard.shared[shared].iter().rposition(|made| *made == (at, (key, value))) {
            shard.shared[shared].remove(index);
        }
    }

    /// Which shard, and which of its shared logs.
    fn place(&self, key: K) -> (usize, usize) {
        let hash = self.hasher.hash_one(key);
        ((hash % SHARDS as u64) as usize, (hash >> 32) as usize % SHARED)
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        let of_shard =
            |shard: &Shard<K, V>| shard.logs.values().map(VecDeque::len).sum::<usize>() + shard.shared.iter().map(VecDeque::len).sum::<usize>();
        self.shards.iter().map(of_shard).sum()
    }
}

impl<K: Hash + Eq + Copy, V> Shard<K, V> {
    /// Forgets the keys whose windows have passed, now and then. Is there room?
    fn sweep(&mut self, window: Duration, now: Duration, keys_max: usize) -> bool {
        if now >= self.swept {
            self.swept = now.saturating_add(SWEEP);
            self.logs.retain(|_, log| log.back().is_some_and(|(at, _)| is_within(window, *at, now)));
        }
        self.logs.len() < keys_max
    }
}

/// What a key left in a shared log, moved out of it: from now on it is judged by its own.
fn own_of<K: Eq, V: Copy>(shared: &mut VecDeque<(Duration, (K, V))>, key: K) -> Log<V> {
    let own = shared.iter().filter(|(_, (other, _))| *other == key).map(|(at, (_, value))| (*at, *value)).collect();
    shared.retain(|(_, (other, _))| *other != key);
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn beyond_its_room_keys_share_and_are_judged_together_until_windows_pass() {
        let mut book = Book::new(10 * S, SHARDS);
        for key in 0..10_000u32 {
            book.add(key, S, ());
        }
        let own = book.shards.iter().map(|shard| shard.logs.len()).sum::<usize>();
        assert!(own <= SHARDS && book.entries() == 10_000, "{own}");
        let judged: Vec<usize> = (0..10_000).map(|key| book.tries(key).count()).collect();
        assert!(judged.iter().all(|count| *count >= 1) && judged.iter().filter(|count| **count == 1).count() <= SHARDS + SHARED);
        assert!((0..10_000).all(|key| book.own_tries(key).count() == 1), "what others did is not its own");
        assert_eq!(book.own_tries(88_888).count(), 0, "who did nothing has done nothing, however full it is");
        book.add(77_777, 12 * S, ());
        assert_eq!(book.tries(77_777).count(), 1, "the old ones made room");
    }

    proptest! {
        #[test]
        fn a_key_is_judged_by_all_that_it_did_and_what_was_taken_back_is_gone(
            steps in prop::collection::vec((0u8..200, 0u32..3, any::<bool>()), 0..300),
        ) {
            // Room for one key a shard, so that many share, move out of it and come back.
            let window = 20 * S;
            let mut book = Book::new(window, SHARDS);
            let (mut now, mut made) = (Duration::ZERO, Vec::new());
            for (key, passes_s, again) in steps {
                now += passes_s * S;
                book.add(key, now, 7u8);
                if again {
                    book.take_back(key, now, 7);
                } else {
                    made.push((key, now));
                }
                for other in [key, key / 2] {
                    let own = made.iter().filter(|(by, at)| *by == other && is_within(window, *at, now)).count();
                    let judged = book.tries(other).filter(|(at, _)| is_within(window, *at, now)).count();
                    prop_assert!(judged >= own, "{judged} of {own}");
                    prop_assert!(book.tries(other).map(|(at, _)| at).is_sorted());
                }
            }
        }
    }
}
