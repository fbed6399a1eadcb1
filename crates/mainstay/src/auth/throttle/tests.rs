//! What attackers and owners get of each other, over any interleaving.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

const S: Duration = Duration::from_secs(1);

fn client(number: u16) -> ClientKey {
    ClientKey::from(IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 0, 1)))
}

fn account(number: u8) -> AccountKey {
    AccountKey::of(&format!("account-{number}@example.com"))
}

struct Scene {
    throttle: Throttle,
    start: Instant,
}

impl Scene {
    fn new() -> Self {
        let start = Instant::now();
        Self { throttle: Throttle::new(ThrottleLimits::default(), start), start }
    }

    fn admit(&self, who: u8, from: u16, at: Duration) -> Result<Pass, Refusal> {
        self.throttle.admit_here(account(who), client(from), self.start + at)
    }

    fn sign_in(&self, who: u8, from: u16, at: Duration) {
        self.admit(who, from, at).unwrap().succeeded(self.start + at);
    }

    fn wait(&self, who: u8, from: u16, at: Duration) -> Duration {
        self.admit(who, from, at).map_or_else(
            |refusal| refusal.retry_after,
            |pass| {
                pass.unused();
                Duration::ZERO
            },
        )
    }
}

/// The most tries that any half-open span of an hour holds.
fn most_in_an_hour(times: &[Duration]) -> u32 {
    let within = |(i, first): (usize, &Duration)| times[i..].iter().take_while(|at| **at - *first < 3600 * S).count();
    times.iter().enumerate().map(within).max().unwrap_or(0) as u32
}

#[test]
fn the_caps_are_those_that_the_documentation_tells() {
    let limits = ThrottleLimits::default();
    let hour = limits.window;
    assert_eq!((limits.strangers_most(), limits.known.most_within(hour), limits.client.most_within(hour)), (29, 74, 114));
    assert_eq!(limits.account_most(), 29 + 8 * 74);
}

#[test]
fn of_64_tries_at_once_no_more_pass_than_of_64_in_turn() {
    let scene = Scene::new();
    let passes: Vec<_> = (0..64).filter_map(|_| scene.admit(1, 1, S).ok()).collect();
    assert_eq!(passes.len(), 5, "nothing has failed yet");
    passes.into_iter().for_each(Pass::failed);
    assert_eq!(scene.admit(1, 1, S).unwrap_err().retry_after, S);
    assert!(scene.admit(1, 1, 2 * S).is_ok());
    assert_eq!(scene.wait(1, 1, 2 * S), 2 * S, "a try that nothing was heard of counts");
}

#[test]
fn what_succeeds_or_was_none_does_not_count() {
    let scene = Scene::new();
    for _ in 0..100 {
        scene.sign_in(1, 1, S);
        scene.admit(2, 2, S).unwrap().unused();
    }
    assert_eq!((scene.wait(1, 1, S), scene.wait(2, 2, S)), (Duration::ZERO, Duration::ZERO));
    assert_eq!(scene.throttle.state().entries(), 0);
}

#[test]
fn an_owner_at_home_is_not_touched_by_an_attack_on_the_account() {
    let scene = Scene::new();
    scene.sign_in(1, 1, S);
    for number in 100..1000 {
        let _ = scene.admit(1, number, 2 * S).map(Pass::failed);
    }
    assert!(scene.wait(1, 2, 2 * S) > Duration::ZERO, "a stranger has to wait");
    for at in 3..23 {
        scene.sign_in(1, 1, at * S);
    }
    // Nor by guessing at other accounts from the same address.
    for who in 2..200 {
        let _ = scene.admit(who, 1, 30 * S).map(Pass::failed);
    }
    assert!(scene.wait(201, 1, 30 * S) > Duration::ZERO, "the address is a stranger everywhere else");
    scene.sign_in(1, 1, 31 * S);
}

#[test]
fn one_address_cannot_use_up_what_the_strangers_of_an_account_have() {
    let scene = Scene::new();
    for at in 0..3600 {
        let _ = scene.admit(1, 1, at * S).map(Pass::failed);
        // Somebody who comes for the first time never finds more than the account's own pause before him.
        assert!(scene.wait(1, 2, at * S) <= 300 * S);
    }
    assert!(scene.wait(1, 2, 3600 * S) < scene.wait(1, 1, 3600 * S));
}

#[test]
fn a_flood_of_single_guesses_ends_with_the_allowance_and_an_owner_at_home_does_not_notice() {
    let start = Instant::now();
    let limits = ThrottleLimits { strangers: Some(Allowance { per_second: 1, at_once: 20 }), ..ThrottleLimits::default() };
    let scene = Scene { throttle: Throttle::new(limits, start), start };
    scene.sign_in(0, 0, S);
    let guesses = |at| (1..=10).filter(|number| scene.admit(*number, 1000 + u16::from(*number), at).map(Pass::failed).is_ok()).count();
    assert_eq!((guesses(2 * S), guesses(2 * S), scene.wait(0, 0, 2 * S)), (10, 0, Duration::ZERO));
    // The owner elsewhere waits as told. A try that was none uses nothing up, but has waited.
    assert_eq!(scene.wait(0, 7, 2 * S), 2 * S);
    let at = 4 * S;
    assert_eq!(guesses(at), 10 - 5 + 2, "who has guessed and comes back leaves a quarter");
    scene.admit(0, 7, at).unwrap().unused();
    assert_eq!(scene.wait(0, 7, at), 2 * S, "one wait is for one try");
    scene.sign_in(0, 7, at + 2 * S);
    assert_eq!(scene.wait(0, 7, at + 2 * S), Duration::ZERO, "and is at home there");
}

#[test]
fn an_owner_who_comes_by_mail_is_at_home_and_whoever_was_thrown_out_is_not() {
    let scene = Scene::new();
    for number in 100..200 {
        let _ = scene.admit(1, number, S).map(Pass::failed);
    }
    assert!(scene.wait(1, 1, S) > Duration::ZERO);
    scene.throttle.vouch(account(1), client(1), scene.start + S);
    assert_eq!(scene.wait(1, 1, S), Duration::ZERO);
    scene.throttle.vouch_alone(account(1), client(2), scene.start + S);
    assert!(scene.wait(1, 1, S) > Duration::ZERO);
    assert_eq!(scene.wait(1, 2, S), Duration::ZERO);
}

#[test]
fn a_refusal_is_a_429_that_says_when() {
    let error = Error::from(Refusal { retry_after: Duration::from_millis(1001) });
    assert_eq!((error.code().name, error.status().as_u16()), ("too_many_attempts", 429));
}

#[test]
fn an_attack_on_everything_from_everywhere_stays_within_its_memory_and_the_owners_at_home_do_not_notice() {
    let scene = Scene::new();
    scene.sign_in(1, 1, S);
    for number in 0..200_000u32 {
        let from = ClientKey::from(IpAddr::from(Ipv6Addr::from_bits(u128::from(number % 50_000) << 64)));
        let _ = scene.throttle.admit_here(AccountKey::of(&number.to_string()), from, scene.start + 2 * S).map(Pass::failed);
    }
    let entries = scene.throttle.state().entries();
    // Both books full with one try an account and four an address, and what their shared logs let in.
    assert!(entries < 32_768 + 4 * 16_384 + 2 * 64 * 16 * 60, "{entries}");
    scene.sign_in(1, 1, 3 * S);
}

/// A step of a scene: who, from where, milliseconds since the one before, and what becomes of it.
type Step = (u8, u16, u64, u8);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Pauses of all sizes, and mostly failures.
    let pause = prop_oneof![6 => Just(0u64), 3 => 0u64..2000, 1 => 0u64..600_000];
    prop::collection::vec((0u8..3, 0u16..40, pause, 0u8..12), 1..600)
}

proptest! {
    #[test]
    fn guesses_are_capped_per_account_and_per_address_whatever_the_interleaving(steps in steps()) {
        let scene = Scene::new();
        // The owners are at home at the first three addresses.
        (0..3).for_each(|who| scene.sign_in(who, u16::from(who), Duration::ZERO));
        let (mut now, mut open) = (S, Vec::new());
        let (mut by_strangers, mut at_home, mut by_client) = (HashMap::<u8, Vec<_>>::new(), HashMap::<u8, Vec<_>>::new(), HashMap::<u16, Vec<_>>::new());
        for (who, from, pause_ms, fate) in steps {
            now += Duration::from_millis(pause_ms);
            let home = u16::from(who) == from;
            match scene.admit(who, from, now) {
                Ok(pass) => match fate {
                    // Only owners know the password.
                    0 if home => pass.succeeded(scene.start + now),
                    1 => pass.unused(),
                    _ => {
                        if home {
                            at_home.entry(who).or_default().push(now);
                        } else {
                            by_strangers.entry(who).or_default().push(now);
                            by_client.entry(from).or_default().push(now);
                        }
                        if fate % 2 == 0 { pass.failed() } else { open.push(pass) }
                    }
                },
                Err(Refusal { retry_after }) => {
                    prop_assert!(retry_after > Duration::ZERO && retry_after <= 600 * S);
                    prop_assert!(!home || retry_after <= 60 * S, "the longest that an owner at home waits");
                    prop_assert_eq!(scene.wait(who, from, now), retry_after, "a refusal costs nothing");
                }
            }
        }
        let limits = ThrottleLimits::default();
        for times in by_strangers.values() {
            prop_assert!(most_in_an_hour(times) <= limits.strangers_most());
        }
        for times in at_home.values() {
            prop_assert!(most_in_an_hour(times) <= limits.known.most_within(limits.window));
        }
        for times in by_client.values() {
            prop_assert!(most_in_an_hour(times) <= limits.client.most_within(limits.window));
        }
    }

    #[test]
    fn who_waits_as_told_passes(steps in steps()) {
        let scene = Scene::new();
        (0..3).for_each(|who| scene.sign_in(who, u16::from(who), Duration::ZERO));
        let mut now = S;
        for (who, from, pause_ms, _) in steps {
            now += Duration::from_millis(pause_ms);
            if let Err(Refusal { retry_after }) = scene.admit(who, from, now).map(Pass::failed) {
                now += retry_after;
                prop_assert!(scene.admit(who, from, now).map(Pass::failed).is_ok());
            }
        }
    }
}
