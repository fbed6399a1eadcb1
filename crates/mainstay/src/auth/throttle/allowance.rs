//! What strangers may guess in all: a token bucket whose last tokens are kept for those who behave as people do.
//!
//! Promises: in any span of time no more wrong tries are admitted than it refills and holds ([`Allowance::most_within`]); who waits as told is let in before who did not, and who
//! guessed nothing yet before who did; so an attacker's address that waits as told can stand before somebody honest once in a window, and never when its owner does not wait.
//!
//! A newcomer takes a token while more than half of them are left. Beyond that he is told to come back in two seconds, and that he was told is remembered
//! (greylisting, RFC 6647). Who has come back takes one of the last half, but the last quarter is for who guessed nothing yet (trunk reservation, as telephone
//! networks call it). A right password gives its token back.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::AccountKey;
use crate::client::ClientKey;

/// How long a newcomer is sent away for: long for a program that has no memory of its tries, short for a person.
const COME_BACK: Duration = Duration::from_secs(2);
/// How long it counts that somebody was told. A person may look away.
const LISTED_FOR: Duration = Duration::from_secs(600);
/// Other instances hear a little later than the client that it was told, and it is not to wait for that.
const ON_THE_WAY: Duration = Duration::from_millis(250);
/// Who was told: 1 MiB. Who comes to another's place takes it, so of those who were told two seconds ago a flood of ten thousand a second leaves six in seven.
const PLACES: usize = 1 << 17;
/// What times are kept in.
const TICK_MS: u128 = 100;
/// Tokens are counted in millionths, so that a microsecond is a whole number of them.
const TOKEN: u64 = 1_000_000;

/// How many wrong tries by strangers, at all accounts and from all addresses together, cost this instance a password hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// For hours.
    pub per_second: u32,
    /// At once, after a while without any.
    pub at_once: u32,
}

impl Allowance {
    /// A fiftieth of these cores, of which a hash takes one for some 20 ms; and what a minute of it would be at once, which a morning on which everybody signs in
    /// anew does not use up.
    ///
    /// A try is charged the same whatever its hash cost, or the rest would tell who has an imported account.
    pub fn of_cores(cores: usize) -> Self {
        let per_second = u32::try_from(cores.max(1)).unwrap_or(u32::MAX);
        Self { per_second, at_once: per_second.saturating_mul(60) }
    }

    /// The most wrong tries by strangers in any span of this length.
    pub fn most_within(self, span: Duration) -> u64 {
        let refilled = span.as_micros().saturating_mul(self.per_second.into()) / u128::from(TOKEN);
        u64::try_from(refilled).unwrap_or(u64::MAX).saturating_add(self.at_once.into())
    }

    fn full(self) -> u64 {
        u64::from(self.at_once) * TOKEN
    }
}

/// The tokens that are left, and who was told to come back.
pub(super) struct Strangers {
    allowance: Allowance,
    /// In millionths.
    left: u64,
    at: Duration,
    told: Greylist,
}

impl Strangers {
    pub(super) fn new(allowance: Allowance) -> Self {
        Self { allowance, left: allowance.full(), at: Duration::ZERO, told: Greylist::new() }
    }

    /// Takes a token for a try, or says how long to wait. `guessed` tells whether this client guessed wrong elsewhere within the window.
    pub(super) fn take(&mut self, account: AccountKey, client: ClientKey, guessed: bool, now: Duration) -> Result<(), Duration> {
        self.refill(now);
        let place = self.told.place(account, client);
        let returned_needs = self.one_of_all_but(if guessed { self.allowance.full() / 4 } else { 0 });
        let newcomer_needs = self.one_of_all_but(self.allowance.full() / 2);
        let wait = match self.told.since(place, now) {
            Some(since) => COME_BACK.saturating_sub(now.saturating_sub(since)),
            None => COME_BACK,
        };
        let needs = if wait.is_zero() { returned_needs } else { newcomer_needs };
        if self.left >= needs {
            self.left -= TOKEN;
            self.told.strike(place);
            return Ok(());
        }
        self.told.note(place, now, now);
        Err(wait.max(self.time_until(returned_needs)))
    }

    /// Somebody else told this client so long ago to come back.
    pub(super) fn hear(&mut self, account: AccountKey, client: ClientKey, told: Duration, now: Duration) {
        let place = self.told.place(account, client);
        self.told.note(place, now.saturating_sub(told + ON_THE_WAY), now);
    }

    /// The try was none.
    pub(super) fn give_back(&mut self) {
        self.left = (self.left + TOKEN).min(self.allowance.full());
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at);
        let refilled = passed.as_micros().saturating_mul(self.allowance.per_second.into());
        self.left = self.left.saturating_add(u64::try_from(refilled).unwrap_or(u64::MAX)).min(self.allowance.full());
        // What is less than a microsecond comes with the next one.
        self.at += Duration::from_micros(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX));
    }

    /// What has to be left for one, if so much is kept for others. Where there is only one it is for anybody.
    fn one_of_all_but(&self, kept: u64) -> u64 {
        (kept + TOKEN).min(self.allowance.full()).max(TOKEN)
    }

    fn time_until(&self, needed: u64) -> Duration {
        let missing = needed.saturating_sub(self.left);
        if missing == 0 {
            return Duration::ZERO;
        }
        // Without a refill it never comes, and until it is forgotten that somebody was told is as good as never.
        missing.checked_div(self.allowance.per_second.into()).map_or(LISTED_FOR, |us| Duration::from_micros(us + 1))
    }
}

/// Who was told to come back, and when first: one place for each in a table of a fixed size, which the next one who comes to it takes over.
struct Greylist {
    hasher: RandomState,
    /// Who, in the upper half, and the tick after the one in which it was, in the lower half. Zero is nobody.
    places: Box<[u64]>,
}

/// Where somebody stands in the list, and as whom.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    name: u32,
}

impl Greylist {
    fn new() -> Self {
        Self { hasher: RandomState::new(), places: vec![0; PLACES].into() }
    }

    /// The hash has a secret, so nobody can choose to take another's place.
    fn place(&self, account: AccountKey, client: ClientKey) -> Place {
        let hash = self.hasher.hash_one((account, client));
        Place { index: hash as usize % PLACES, name: (hash >> 32) as u32 }
    }

    /// When somebody was first told, if that is not long ago.
    fn since(&self, place: Place, now: Duration) -> Option<Duration> {
        let kept = self.places[place.index];
        let ticks = (kept as u32).checked_sub(1)?;
        let since = Duration::from_millis(u64::from(ticks) * TICK_MS as u64);
        ((kept >> 32) as u32 == place.name && now.saturating_sub(since) < LISTED_FOR).then_some(since)
    }

    /// Notes that somebody was told, unless it is known.
    fn note(&mut self, place: Place, at: Duration, now: Duration) {
        if self.since(place, now).is_none() {
            // Thirteen years of ticks: for whoever comes later it is always long ago.
            let ticks = u32::try_from(at.as_millis() / TICK_MS + 1).unwrap_or(0);
            self.places[place.index] = u64::from(place.name) << 32 | u64::from(ticks);
        }
    }

    /// Who was let in has used up that he waited.
    fn strike(&mut self, place: Place) {
        if (self.places[place.index] >> 32) as u32 == place.name {
            self.places[place.index] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    const S: Duration = Duration::from_secs(1);
    const ALLOWED: Allowance = Allowance { per_second: 2, at_once: 40 };

    fn account(number: u32) -> AccountKey {
        AccountKey::of(&number.to_string())
    }

    fn client(number: u32) -> ClientKey {
        ClientKey::from(IpAddr::from(number.to_be_bytes()))
    }

    /// Newcomers, as many as are let in.
    fn flood(strangers: &mut Strangers, now: Duration) -> u32 {
        let newcomer = |number: &u32| account(number + 1_000_000 + now.as_secs() as u32 * 1000);
        (0..1000).filter(|number| strangers.take(newcomer(number), client(*number), false, now).is_ok()).count() as u32
    }

    fn flooded() -> Strangers {
        let mut strangers = Strangers::new(ALLOWED);
        assert_eq!(flood(&mut strangers, S), 20, "half of them");
        strangers
    }

    #[test]
    fn a_newcomer_in_a_flood_is_let_in_when_he_comes_back_as_told() {
        let mut strangers = flooded();
        let honest = |strangers: &mut Strangers, at| strangers.take(account(1), client(1), false, at);
        assert_eq!(honest(&mut strangers, S), Err(2 * S));
        for at in [2 * S, 3 * S] {
            assert_eq!(flood(&mut strangers, at), 2, "what came meanwhile");
        }
        assert_eq!(honest(&mut strangers, 3 * S - S / 2), Err(S / 2), "who is too early waits no longer for that");
        assert_eq!(honest(&mut strangers, 3 * S), Ok(()));
        assert_eq!(honest(&mut strangers, 3 * S), Err(2 * S), "and has waited for one try");
    }

    #[test]
    fn who_guessed_already_and_comes_back_leaves_the_last_quarter_to_others() {
        let mut strangers = flooded();
        let guesses =
            |strangers: &mut Strangers, at| (0..1000).filter(|number| strangers.take(account(*number), client(*number), true, at).is_ok()).count();
        assert_eq!(guesses(&mut strangers, S), 0);
        assert_eq!(guesses(&mut strangers, 3 * S), 10 + 2 * 2);
        assert!(strangers.take(account(5000), client(5000), false, 3 * S).is_err());
        assert_eq!(guesses(&mut strangers, 5 * S), 2 * 2);
        assert!(strangers.take(account(5000), client(5000), false, 5 * S).is_ok());
    }

    #[test]
    fn right_passwords_use_nothing_up() {
        let mut strangers = Strangers::new(ALLOWED);
        for number in 0..10_000 {
            assert!(strangers.take(account(number), client(number), false, S).is_ok());
            strangers.give_back();
        }
    }

    #[test]
    fn that_somebody_was_told_is_forgotten_in_the_end_and_has_no_place_of_its_own() {
        let mut strangers = flooded();
        assert!(strangers.take(account(5000), client(5000), false, S).is_err());
        let place = strangers.told.place(account(5000), client(5000));
        assert_eq!(strangers.told.since(place, LISTED_FOR), Some(S));
        assert_eq!(strangers.told.since(place, LISTED_FOR + S), None);
        let other = Place { name: place.name.wrapping_add(1), ..place };
        assert_eq!(strangers.told.since(other, 2 * S), None);
        strangers.told.note(other, 2 * S, 2 * S);
        assert_eq!((strangers.told.since(other, 2 * S), strangers.told.since(place, 2 * S)), (Some(2 * S), None));
    }

    #[test]
    fn who_was_told_elsewhere_has_waited_since_then() {
        let mut strangers = flooded();
        assert_eq!(flood(&mut strangers, 4 * S), 6);
        strangers.hear(account(1), client(1), S, 4 * S);
        strangers.hear(account(1), client(1), Duration::ZERO, 4 * S);
        let wait = strangers.take(account(1), client(1), false, 4 * S).unwrap_err();
        assert!(wait < S && wait > S / 2, "{wait:?}");
        strangers.hear(account(2), client(2), 2 * S - S / 10, 4 * S);
        assert_eq!(strangers.take(account(2), client(2), false, 4 * S), Ok(()));
    }

    #[test]
    fn without_a_refill_a_wait_is_still_one() {
        let mut strangers = Strangers::new(Allowance { per_second: 0, at_once: 0 });
        for at in [S, 3 * S, 1_000_000_000 * S] {
            let wait = strangers.take(account(1), client(1), false, at).unwrap_err();
            assert!((COME_BACK..=LISTED_FOR).contains(&wait), "{wait:?}");
        }
    }

    #[test]
    fn an_honest_newcomer_waits_for_each_address_of_an_attacker_once_at_most() {
        // Bots that do all that an honest client would: each comes back when it was told to, with a guess at an account of its own.
        let (bots, beat) = (200, Duration::from_millis(50));
        let mut strangers = flooded();
        let mut due = vec![S; bots as usize];
        let mut guessed = vec![false; bots as usize];
        let (mut now, mut honest_due, begun) = (S, 4 * S, 4 * S);
        loop {
            now += beat;
            for bot in 0..bots {
                let at = bot as usize;
                if due[at] <= now {
                    match strangers.take(account(bot), client(bot), guessed[at], now) {
                        Ok(()) => guessed[at] = true,
                        Err(wait) => due[at] = now + wait,
                    }
                }
            }
            if honest_due <= now {
                match strangers.take(account(5000), client(5000), false, now) {
                    Ok(()) => break,
                    Err(wait) => honest_due = now + wait,
                }
            }
            assert!(now < begun + S * (bots / ALLOWED.per_second) + 2 * COME_BACK, "all of them have guessed");
        }
        assert!(guessed.iter().any(|guessed| *guessed));
    }

    proptest! {
        #[test]
        fn no_span_holds_more_wrong_tries_than_are_allowed_and_who_waits_as_told_gets_in_alone(
            per_second in 0u32..5, at_once in 1u32..50, steps in prop::collection::vec((0u32..60, any::<bool>(), 0u64..1500, 0u8..4), 1..400),
        ) {
            let allowance = Allowance { per_second, at_once };
            let mut strangers = Strangers::new(allowance);
            let (mut now, mut wrong) = (S, Vec::new());
            for (who, guessed, pause_ms, fate) in steps {
                now += Duration::from_millis(pause_ms);
                match strangers.take(account(who), client(who), guessed, now) {
                    Ok(()) if fate == 0 => strangers.give_back(),
                    Ok(()) => wrong.push(now),
                    Err(wait) => {
                        prop_assert!(wait > Duration::ZERO);
                        prop_assert!(strangers.left < TOKEN + allowance.full() / 2, "nobody is sent away while half of them are left");
                        if fate == 1 && per_second > 0 {
                            // Nobody else comes meanwhile. Who was too early is told of the tokens that he needs then.
                            now += wait;
                            let come = strangers.take(account(who), client(who), guessed, now);
                            prop_assert!(come.is_ok(), "{come:?}");
                            wrong.push(now);
                        }
                    }
                }
                prop_assert!(strangers.left <= allowance.full());
            }
            for (i, first) in wrong.iter().enumerate() {
                for (j, last) in wrong.iter().enumerate().skip(i) {
                    prop_assert!((j - i + 1) as u64 <= allowance.most_within(*last - *first));
                }
            }
        }
    }
}
