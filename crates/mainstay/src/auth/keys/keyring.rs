//! The keys of a folder in the order of their lives, and what each may do at a moment. Pure: nothing here reads a file or a clock.
//!
//! Keys begin one after another, and one that has been followed never signs again:
//!
//! ```text
//!            published         signs_from             the next one's signs_from          + life of a token + LAG
//! next       |-----------------|
//! signing                      |----------------------|
//! retiring                                            |----------------------------------|
//! retired                                                                                |---> its file may go
//! verifies   |---------------------------------------------------------------------------|
//! ```
//!
//! So a rotation needs no command at the moment at which it happens, and no message between instances: all of them compute it from the same files. A
//! key is verified from the moment that its file is there, long before its first signature. A command can give a key an end of its own, a little ahead;
//! then the next one steps in before its time. What a key may do depends on the files and the time alone; instances whose clocks or copies differ by
//! less than [`LAG`] do not refuse each other's tokens.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::Signature;

use super::file::{Half, KeyFile, Times};
use super::jwk::Jwk;
use super::signature::{Algorithm, SigningKey, VerifyingKey};

/// How long after its end a key may still have signed somewhere: an instance looks at the folder every 10 s, a copy of the folder and a clock are late.
pub(super) const LAG: Duration = Duration::from_secs(60);

/// Where a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Published and verified; it will sign.
    Next,
    /// New tokens are signed with it.
    Signing,
    /// It has signed tokens that have not expired.
    Retiring,
    /// Nothing that it signed is accepted.
    Retired,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Next => "next",
            Self::Signing => "signing",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
        })
    }
}

/// One key of the folder.
pub(in crate::auth) struct Key {
    pub(super) kid: String,
    /// The header of its tokens as they carry it, in base64url.
    pub(in crate::auth) header: String,
    pub(super) times: Times,
    pub(in crate::auth) verifying: VerifyingKey,
    signing: Option<SigningKey>,
    pub(super) algorithm: Algorithm,
    pub(super) jwk: Jwk,
    /// Tells this key from every other, whatever its name: the SHA-256 of its public half.
    pub(in crate::auth) thumbprint: String,
}

impl Key {
    /// The key of this name. Nothing when the file holds none that can be verified.
    pub(super) fn new(kid: &str, file: KeyFile) -> Option<Self> {
        let (verifying, signing) = match file.half {
            Half::Private(signing) => (signing.verifying()?, Some(signing)),
            Half::Public(verifying) => (verifying, None),
        };
        let jwk = Jwk::new(kid, &verifying)?;
        let algorithm = verifying.algorithm()?;
        let header = super::header::of_key(algorithm, kid);
        Some(Self { kid: kid.to_owned(), header, times: file.times, thumbprint: jwk.thumbprint(), verifying, signing, algorithm, jwk })
    }

    /// Was it ended before it began?
    fn never_begins(&self) -> bool {
        self.times.signs_until.is_some_and(|until| until <= self.times.signs_from)
    }

    /// Can it sign, as far as its own end goes?
    fn can_sign(&self, now: Timestamp) -> bool {
        self.signing.is_some() && self.times.signs_until.is_none_or(|until| now < until)
    }

    /// Signs.
    ///
    /// # Panics
    /// When the system has no randomness to give, or the private half is not there: [`Keyring::signer`] gives no such key.
    pub(in crate::auth) fn sign(&self, signing_input: &[u8], random: &SystemRandom) -> Signature {
        self.signing.as_ref().expect("a signer has its private half").sign(signing_input, random)
    }

    fn order(&self, other: &Self) -> Ordering {
        (self.times.signs_from, &self.kid).cmp(&(other.times.signs_from, &other.kid))
    }
}

struct Placed {
    key: Arc<Key>,
    /// When it stops to sign, if that is known.
    ends: Option<Timestamp>,
}

/// The keys of a folder.
#[derive(Default)]
pub(super) struct Keyring {
    /// In the order of their lives.
    placed: Vec<Placed>,
    by_header: HashMap<String, usize>,
}

impl Keyring {
    pub(super) fn new(mut keys: Vec<Arc<Key>>) -> Self {
        keys.sort_by(|one, other| one.order(other));
        let mut placed: Vec<Placed> = Vec::with_capacity(keys.len());
        let mut follower = None;
        for key in keys.into_iter().rev() {
            let ends = [key.times.signs_until, follower].into_iter().flatten().min();
            if !key.never_begins() {
                follower = Some(key.times.signs_from);
            }
            placed.push(Placed { key, ends });
        }
        placed.reverse();
        let by_header = placed.iter().enumerate().map(|(index, placed)| (placed.key.header.clone(), index)).collect();
        Self { placed, by_header }
    }

    /// Will there always be a key to sign with? The last one to begin has no end.
    pub(super) fn is_usable(&self) -> bool {
        self.placed
            .iter()
            .rfind(|placed| !placed.key.never_begins())
            .is_some_and(|last| last.key.signing.is_some() && last.key.times.signs_until.is_none())
    }

    /// The key that signs now: the last one that has begun. If that was ended by command, the one that follows it steps in before its time, and if none
    /// has begun, the first: somebody has to. A usable keyring always has one.
    pub(super) fn signer(&self, now: Timestamp) -> Option<&Arc<Key>> {
        self.signer_index(now).and_then(|index| self.placed.get(index)).map(|placed| &placed.key)
    }

    /// Has the first key begun?
    pub(super) fn has_begun(&self, now: Timestamp) -> bool {
        self.placed.iter().any(|placed| !placed.key.never_begins() && placed.key.times.signs_from <= now)
    }

    fn signer_index(&self, now: Timestamp) -> Option<usize> {
        let counted = || self.placed.iter().enumerate().filter(|(_, placed)| !placed.key.never_begins());
        let begun = counted().rfind(|(_, placed)| placed.key.times.signs_from <= now).map_or(0, |(index, _)| index);
        counted().skip_while(|(index, _)| *index < begun).find(|(_, placed)| placed.key.can_sign(now)).map(|(index, _)| index)
    }

    /// The key whose tokens carry this header, if it is ours and verifies now.
    pub(super) fn find(&self, header: &str, now: Timestamp, expiry: Duration) -> Found<'_> {
        match self.by_header.get(header).and_then(|index| self.placed.get(*index)) {
            None => Found::Nothing,
            Some(placed) if placed.verifies(now, expiry) => Found::Key(&placed.key),
            Some(_) => Found::Retired,
        }
    }

    /// Each key and where it is in its life, in the order of their lives.
    pub(super) fn lives(&self, now: Timestamp, expiry: Duration) -> impl Iterator<Item = Life<'_>> {
        let signer = self.signer_index(now);
        self.placed.iter().enumerate().map(move |(index, placed)| {
            let state = if !placed.verifies(now, expiry) {
                State::Retired
            } else if signer == Some(index) {
                State::Signing
            } else if placed.ends.is_some_and(|ends| ends <= now) {
                State::Retiring
            } else {
                State::Next
            };
            Life { key: &placed.key, state, ends: placed.ends, verifies_until: placed.verifies_until(expiry) }
        })
    }

    pub(super) fn get(&self, kid: &str) -> Option<&Arc<Key>> {
        self.placed.iter().map(|placed| &placed.key).find(|key| key.kid == kid)
    }

    pub(super) fn kids(&self) -> impl Iterator<Item = &str> {
        self.placed.iter().map(|placed| placed.key.kid.as_str())
    }
}

/// A key at a moment.
pub(super) struct Life<'a> {
    pub(super) key: &'a Arc<Key>,
    pub(super) state: State,
    /// When it stops to sign, if that is known.
    pub(super) ends: Option<Timestamp>,
    /// When it stops to verify, if that is known.
    pub(super) verifies_until: Option<Timestamp>,
}

impl Life<'_> {
    /// Can the private half be thrown away: does nobody sign with it any more, however late?
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.key.signing.is_some() && self.ends.and_then(|ends| ends.checked_add(LAG).ok()).is_some_and(|over| over <= now)
    }
}

/// The answer of [`Keyring::find`].
pub(super) enum Found<'a> {
    Key(&'a Arc<Key>),
    Retired,
    Nothing,
}

impl Placed {
    fn verifies_until(&self, expiry: Duration) -> Option<Timestamp> {
        // Past the end of time means never.
        let last_token = self.ends.map(|ends| ends.checked_add(expiry).and_then(|end| end.checked_add(LAG)).unwrap_or(Timestamp::MAX));
        [last_token, self.key.times.verifies_until].into_iter().flatten().min()
    }

    fn verifies(&self, now: Timestamp, expiry: Duration) -> bool {
        self.verifies_until(expiry).is_none_or(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRY: Duration = Duration::from_secs(900);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn key(kid: &str, from: i64, until: Option<i64>, verifies: Option<i64>) -> Arc<Key> {
        let times = Times { signs_from: at(from), signs_until: until.map(at), verifies_until: verifies.map(at) };
        let half = SigningKey::from_pkcs8(&SigningKey::generate(Algorithm::EdDsa, &SystemRandom::new()).unwrap()).unwrap();
        Arc::new(Key::new(kid, KeyFile { times, half: Half::Private(half) }).unwrap())
    }

    fn states(keyring: &Keyring, now: i64) -> Vec<(String, State)> {
        keyring.lives(at(now), EXPIRY).map(|life| (life.key.kid.clone(), life.state)).collect()
    }

    fn named(pairs: &[(&str, State)]) -> Vec<(String, State)> {
        pairs.iter().map(|(kid, state)| ((*kid).to_owned(), *state)).collect()
    }

    #[test]
    fn keys_follow_each_other_by_the_clock_alone() {
        let keyring = Keyring::new(vec![key("b", 1000, None, None), key("a", 0, None, None)]);
        assert!(keyring.is_usable());
        for (now, expected) in [
            (0, [("a", State::Signing), ("b", State::Next)]),
            (999, [("a", State::Signing), ("b", State::Next)]),
            (1000, [("a", State::Retiring), ("b", State::Signing)]),
            (1000 + 900 + 59, [("a", State::Retiring), ("b", State::Signing)]),
            (1000 + 900 + 60, [("a", State::Retired), ("b", State::Signing)]),
        ] {
            assert_eq!(states(&keyring, now), named(&expected), "at {now}");
        }
    }

    #[test]
    fn a_key_that_is_ended_by_command_is_followed_before_its_followers_time_and_never_by_an_older_one() {
        let keyring = Keyring::new(vec![key("a", 0, None, None), key("b", 100, Some(150), None), key("c", 1000, None, None)]);
        assert!(keyring.is_usable());
        assert_eq!(states(&keyring, 150), named(&[("a", State::Retiring), ("b", State::Retiring), ("c", State::Signing)]));
        // Until then it signs, if its private half is there.
        assert_eq!(states(&keyring, 149), named(&[("a", State::Retiring), ("b", State::Signing), ("c", State::Next)]));
        // Its tokens are refused at once if that was said too.
        let keyring = Keyring::new(vec![key("b", 100, Some(150), Some(150)), key("c", 1000, None, None)]);
        assert_eq!(states(&keyring, 150), named(&[("b", State::Retired), ("c", State::Signing)]));
    }

    #[test]
    fn a_key_that_is_ended_before_it_began_follows_nobody() {
        let keyring = Keyring::new(vec![key("a", 0, None, None), key("b", 1000, Some(500), None)]);
        assert!(keyring.is_usable());
        assert_eq!(states(&keyring, 1200), named(&[("a", State::Signing), ("b", State::Retiring)]));
        assert_eq!(states(&keyring, 5000), named(&[("a", State::Signing), ("b", State::Retired)]));
    }

    #[test]
    fn keys_without_a_last_one_that_signs_are_not_usable() {
        assert!(!Keyring::new(Vec::new()).is_usable());
        assert!(!Keyring::new(vec![key("a", 0, None, None), key("b", 100, Some(150), None)]).is_usable());
        assert!(!Keyring::new(vec![key("a", 100, Some(50), None)]).is_usable());
    }

    #[test]
    fn somebody_signs_even_if_the_clock_says_that_nobody_has_begun() {
        let keyring = Keyring::new(vec![key("a", 1000, None, None), key("b", 2000, None, None)]);
        assert_eq!(keyring.signer(at(0)).map(|key| key.kid.as_str()), Some("a"));
        assert!(Keyring::default().signer(at(0)).is_none());
    }
}
