//! Failed sign-ins slow down, per account and per address, and nobody can be locked out by them.
//!
//! # What it must do
//! Guesses against one account are capped however many addresses they come from, and guesses from one address however many accounts they are spread over. But a lock that
//! opens only when the guessing ends is a lock in the hands of whoever guesses. So a try is not judged by the account alone:
//!
//! - **From where the account is known.** An address (IPv6: a /64) from which somebody signed in to the account within the last thirty days has a pace of its own for that
//!   account, and nothing that happens elsewhere counts for it: no attack on the account, no guessing at other accounts from the same office. Ten tries are free, then the
//!   pause doubles up to a minute, which is the longest that an owner at home ever waits.
//! - **From anywhere else** three paces hold at once: of the account over all strangers (ten free, up to five minutes), of this address at this account (five free, up to ten
//!   minutes), so that one address cannot use up what the strangers of an account have, and of the address over all accounts (fifty free, up to a minute).
//!
//! - **From anywhere else, all together**, where that is bounded ([`ThrottleLimits::strangers`]): wrong tries within an allowance, whose last tokens are for who was told to come back and
//!   did. It is what an attack costs that makes one guess at each account, from each address ([`Allowance`]).
//!
//! A pace counts what was admitted within the last hour, so all of this has hard caps ([`Pace::most_within`]): 29 guesses an hour by strangers against an account, 74 by each
//! address where it is known, of which there are at most eight; 114 by an address against accounts where it is a stranger. A property test holds them over any interleaving.
//!
//! # What it cannot do
//! - An owner at a *new* address while strangers hammer the account competes with them for one try in five minutes. There is always the way by mail: a password that was reset
//!   by a link, or a session that is still alive, is as good a reason to know an address as a sign-in ([`Throttle::vouch`]).
//! - Bots that come back as told are honest newcomers in all that can be seen, until each of their addresses has guessed once within the hour. Meanwhile a newcomer may
//!   have to come back more than once.
//! - Who has accounts of his own can sign in to them from many addresses, each of which is then known to one of them and stands on that side of the room. Right tries are counted nowhere
//!   but by the limit of each address.
//! - IPv6 addresses are told apart by /64, so one network of /48 is 65,536 that have not guessed.
//! - An attacker *behind the same address* as the owner shares the owner's pace, and can tell that somebody at this address uses the account. Nothing that a password API
//!   is sent tells them apart.
//! - Memory is bounded: 32,768 accounts and 16,384 addresses that guessed within the hour, 65,536 accounts with the addresses where they are known; about 130 MB under an attack
//!   that fills all of it, kilobytes otherwise. Beyond the first two, others share paces, so the caps still hold; beyond the last, the one whose owner was away longest is known nowhere.
//!   A restart forgets everything.
//!
//! # How it counts
//! A try counts from the moment it is admitted, not from when it fails: of 64 at once no more pass than of 64 in turn. One that succeeds, or in which no password was looked
//! at, is taken back. One of which nothing is heard (a client that left) stays counted. Accounts are known by the hash of what was typed, so an account that does not
//! exist slows down as one that does. A try that is refused costs nothing, so waiting as told is enough.
//!
//! # One process, and many
//! The state is plain data with a few operations, all in `state.rs`, which take keys and times and nothing else. With a Redis ([`Throttle::together`]) the
//! same paces are counted there, for all instances in one step, and the state here only notes what was admitted: it is what judges while Redis does not
//! answer. Then each instance counts for itself, and the caps are per instance.

mod allowance;
mod book;
mod known;
mod pace;
mod state;
mod together;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};

use self::state::{State, Try};
use self::together::{Admitted, Together};
use crate::client::ClientKey;
use crate::error::{Error, codes};
use crate::redis::Redis;

pub use allowance::Allowance;
pub use pace::Pace;

/// The paces of all kinds of tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottleLimits {
    /// What a pace looks back on.
    pub window: Duration,
    /// Of an address where the account is known, at that account.
    pub known: Pace,
    /// Of all other addresses together, at one account.
    pub account: Pace,
    /// Of one of them, at one account.
    pub source: Pace,
    /// Of one address, at all accounts where it is a stranger.
    pub client: Pace,
    /// How long an address stays known after a sign-in.
    pub known_for: Duration,
    /// Of all strangers together, if there is an end to that: for tries that cost this instance something.
    pub strangers: Option<Allowance>,
}

impl Default for ThrottleLimits {
    fn default() -> Self {
        let pace = |free, longest_s| Pace { free, longest: Duration::from_secs(longest_s) };
        Self {
            window: Duration::from_secs(3600),
            // A person tries what he remembers, in two letter cases; NIST SP 800-63B-4, 3.2.2, wants an end before 100 in a row.
            known: pace(10, 60),
            account: pace(10, 300),
            source: pace(5, 600),
            // An office behind one address on its first morning.
            client: pace(50, 60),
            // As long as a session is usually remembered.
            known_for: Duration::from_secs(30 * 24 * 3600),
            strangers: None,
        }
    }
}

impl ThrottleLimits {
    /// The most guesses that strangers together have against one account in any window.
    pub fn strangers_most(&self) -> u32 {
        self.account.most_within(self.window)
    }

    /// The most guesses against one account in any window, from everywhere, as long as no more addresses than are kept for it become known within one.
    pub fn account_most(&self) -> u32 {
        self.strangers_most().saturating_add(self.known.most_within(self.window).saturating_mul(known::SOURCES_MAX as u32))
    }
}

/// An account as a stranger names it: by a hash of the folded address, whether it exists or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountKey([u8; 16]);

impl AccountKey {
    /// The key of a folded address. Half of SHA-256: nobody finds two addresses with one key. Whoever has a key can only try addresses, as with any hash
    /// without a secret: a name in Redis is no place to hide an address.
    pub fn of(folded: &str) -> Self {
        let mut key = [0; 16];
        for (byte, hashed) in key.iter_mut().zip(digest(&SHA256, folded.as_bytes()).as_ref()) {
            *byte = *hashed;
        }
        Self(key)
    }
}

/// As a name of what is kept of it, where other instances see it.
impl fmt::Display for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountKey(..)")
    }
}

/// Admits tries to sign in. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Throttle(Arc<Inner>);

struct Inner {
    limits: ThrottleLimits,
    epoch: Instant,
    together: Option<Together>,
    // One lock: a try holds it for about a microsecond, and behind it waits a password hash of 20,000.
    state: Mutex<State>,
}

/// Too many tries; one passes after this time, unless others were faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// How long to wait.
    pub retry_after: Duration,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(&codes::TOO_MANY_ATTEMPTS).retry_after(refusal.retry_after)
    }
}

/// A try that was admitted and counts already. Dropped without a word it counts as failed.
#[must_use]
pub struct Pass {
    throttle: Throttle,
    made: Try,
    /// By all instances together.
    admitted: Option<Admitted>,
}

impl Throttle {
    /// With these paces; nothing was tried before `now`.
    pub fn new(limits: ThrottleLimits, now: Instant) -> Self {
        Self(Arc::new(Inner { limits, epoch: now, together: None, state: Mutex::new(State::new(limits)) }))
    }

    /// Counted together with the other instances, if there are any, under this name.
    #[must_use]
    pub fn together(self, name: &'static str, redis: Option<Redis>) -> Self {
        let Inner { limits, epoch, .. } = *self.0;
        let together = redis.map(|redis| Together::new(redis, name, limits));
        Self(Arc::new(Inner { limits, epoch, together, state: Mutex::new(State::new(limits)) }))
    }

    /// May this client try a password of this account? Asked before any password is hashed.
    ///
    /// # Errors
    /// A [`Refusal`], which is a 429 with a true `Retry-After`.
    pub async fn admit(&self, account: AccountKey, client: ClientKey, now: Instant) -> Result<Pass, Refusal> {
        if let Some(together) = &self.0.together
            && let Ok(admitted) = together.admit(account, client).await
        {
            let admitted = admitted.map_err(|retry_after| Refusal { retry_after })?;
            return match self.note(account, client, &admitted, now) {
                Ok(made) => Ok(Pass { throttle: self.clone(), made, admitted: Some(admitted) }),
                Err(retry_after) => {
                    together.send_away(account, client, admitted);
                    Err(Refusal { retry_after })
                }
            };
        }
        self.admit_here(account, client, now)
    }

    fn note(&self, account: AccountKey, client: ClientKey, admitted: &Admitted, now: Instant) -> Result<Try, Duration> {
        let at = self.since(now);
        let mut state = self.state();
        if admitted.known {
            state.vouch(account, client, at);
        }
        state.note(account, client, admitted.told, at)
    }

    /// The same, by what this instance knows.
    ///
    /// # Errors
    /// As [`Throttle::admit`].
    pub fn admit_here(&self, account: AccountKey, client: ClientKey, now: Instant) -> Result<Pass, Refusal> {
        let made = self.state().admit(account, client, self.since(now)).map_err(|retry_after| Refusal { retry_after })?;
        Ok(Pass { throttle: self.clone(), made, admitted: None })
    }

    /// From now on the account is known at this address: somebody proved otherwise than by a password that it is his, by a link that was mailed or a session.
    pub fn vouch(&self, account: AccountKey, client: ClientKey, now: Instant) {
        self.state().vouch(account, client, self.since(now));
        if let Some(together) = &self.0.together {
            together.vouch(account, client, None);
        }
    }

    /// From now on the account is known at this address and nowhere else: its owner took it back from somebody who may have signed in to it elsewhere.
    pub fn vouch_alone(&self, account: AccountKey, client: ClientKey, now: Instant) {
        let at = self.since(now);
        let mut state = self.state();
        state.forget(account);
        state.vouch(account, client, at);
        drop(state);
        if let Some(together) = &self.0.together {
            together.vouch_alone(account, client);
        }
    }

    fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.0.epoch)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while counting leaves counts that are still counts.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Throttle")
    }
}

impl Pass {
    /// Does it come from an address where the account is known?
    pub fn is_known(&self) -> bool {
        self.made.known
    }

    /// The password was wrong: the try stays counted.
    pub fn failed(self) {}

    /// The password was right: the try was none that counts, and the account is known at this address from now on.
    pub fn succeeded(self, now: Instant) {
        let at = self.throttle.since(now);
        let mut state = self.throttle.state();
        state.take_back(&self.made);
        state.vouch(self.made.account, self.made.client, at);
        if let Some(together) = &self.throttle.0.together {
            together.vouch(self.made.account, self.made.client, self.admitted);
        }
    }

    /// No password was looked at, the service was too busy or failed: the try was none.
    pub fn unused(self) {
        self.throttle.state().take_back(&self.made);
        if let (Some(together), Some(admitted)) = (&self.throttle.0.together, self.admitted) {
            together.take_back(self.made.account, self.made.client, admitted);
        }
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pass")
    }
}

#[cfg(test)]
mod tests;
