//! Where accounts are known: the addresses from which somebody signed in not long ago.
//!
//! Promises: bounded memory; nobody puts an account out of it but by signing in to as many others.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use super::AccountKey;
use super::pace::is_within;
use crate::client::ClientKey;

/// Addresses kept for an account, the latest ones: a home, an office, and a telephone that changes its own.
pub(super) const SOURCES_MAX: usize = 8;
/// What is looked through when one has to go.
const SHARDS: usize = 64;
/// 65,536 accounts in all, of at most eight addresses with 32 bytes each: 17 MB, and 4 where one is the rule.
const ACCOUNTS_PER_SHARD_MAX: usize = 1024;

/// The addresses of one account, each with the time of its last sign-in, the latest last.
type Sources = Vec<(ClientKey, Duration)>;

pub(super) struct Known {
    known_for: Duration,
    hasher: RandomState,
    shards: Box<[HashMap<AccountKey, Sources>]>,
}

impl Known {
    pub(super) fn new(known_for: Duration) -> Self {
        Self { known_for, hasher: RandomState::new(), shards: (0..SHARDS).map(|_| HashMap::new()).collect() }
    }

    /// Is the account known at this address?
    pub(super) fn holds(&self, account: AccountKey, client: ClientKey, now: Duration) -> bool {
        // The remainder is below the length.
        let sources = self.shards[self.shard(account)].get(&account);
        sources.is_some_and(|sources| sources.iter().any(|(known, at)| *known == client && is_within(self.known_for, *at, now)))
    }

    pub(super) fn add(&mut self, account: AccountKey, client: ClientKey, now: Duration) {
        let shard = self.shard(account);
        let shard = &mut self.shards[shard];
        if shard.len() >= ACCOUNTS_PER_SHARD_MAX && !shard.contains_key(&account) {
            let latest = |sources: &Sources| sources.last().map_or(Duration::ZERO, |(_, at)| *at);
            let oldest = shard.iter().min_by_key(|(_, sources)| latest(sources)).map(|(account, _)| *account);
            oldest.and_then(|oldest| shard.remove(&oldest));
        }
        let sources = shard.entry(account).or_default();
        sources.retain(|(known, at)| *known != client && is_within(self.known_for, *at, now));
        if sources.len() >= SOURCES_MAX {
            sources.remove(0);
        }
        sources.push((client, now));
    }

    pub(super) fn remove(&mut self, account: AccountKey) {
        let shard = self.shard(account);
        self.shards[shard].remove(&account);
    }

    fn shard(&self, account: AccountKey) -> usize {
        (self.hasher.hash_one(account) % SHARDS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    const S: Duration = Duration::from_secs(1);

    fn client(number: u8) -> ClientKey {
        ClientKey::from(IpAddr::from([203, 0, 113, number]))
    }

    #[test]
    fn the_latest_addresses_are_kept_and_each_for_its_time() {
        let mut known = Known::new(100 * S);
        let (ada, bob) = (AccountKey::of("ada@example.com"), AccountKey::of("bob@example.com"));
        for number in 0..9 {
            known.add(ada, client(number), u32::from(number) * S);
        }
        known.add(ada, client(1), 20 * S);
        known.add(ada, client(9), 21 * S);
        let held: Vec<u8> = (0..10).filter(|number| known.holds(ada, client(*number), 22 * S)).collect();
        assert_eq!(held, [1, 3, 4, 5, 6, 7, 8, 9]);
        assert!(!known.holds(bob, client(1), 22 * S));
        assert!(known.holds(ada, client(1), 119 * S) && !known.holds(ada, client(1), 120 * S));
        known.remove(ada);
        assert!(!known.holds(ada, client(9), 22 * S));
    }

    #[test]
    fn of_too_many_accounts_the_one_that_was_away_longest_goes() {
        let mut known = Known::new(100_000 * S);
        let key = |number: u32| AccountKey::of(&number.to_string());
        let many = (SHARDS * ACCOUNTS_PER_SHARD_MAX + 5000) as u32;
        for number in 0..many {
            known.add(key(number), client(1), Duration::from_millis(number.into()));
        }
        assert!(known.shards.iter().map(HashMap::len).sum::<usize>() <= SHARDS * ACCOUNTS_PER_SHARD_MAX);
        assert!(known.holds(key(many - 1), client(1), 100 * S) && !known.holds(key(0), client(1), 100 * S));
    }
}
