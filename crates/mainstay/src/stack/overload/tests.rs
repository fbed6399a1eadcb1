//! The places under any order of what may happen to them, and what the limit is made of.

use std::task::Waker;
use std::time::Duration;

use proptest::prelude::*;

use super::Micros;
use super::gate::{Arrival, Gate, Held, Look, Ticket, Wakers};
use super::limit::Limit;
use super::pace::Refusal;
use super::rank::Rank;

/// As long as what is worked on here takes.
const ALLOWANCE: Duration = Duration::from_millis(5);
const CORES: usize = 1;

#[derive(Debug, Clone)]
enum Act {
    Comes { kind: usize, signed_in: bool, dear: bool },
    Ends { which: usize, good: bool },
    Lends { which: usize },
    Returns { which: usize, surely: bool },
    Asks { which: usize },
    GivesUp { which: usize },
    Passes(Micros),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let which = 0usize..64;
    let act = prop_oneof![
        6 => (0usize..3, any::<bool>(), any::<bool>()).prop_map(|(kind, signed_in, dear)| Act::Comes { kind, signed_in, dear }),
        3 => (which.clone(), any::<bool>()).prop_map(|(which, good)| Act::Ends { which, good }),
        1 => which.clone().prop_map(|which| Act::Lends { which }),
        1 => (which.clone(), any::<bool>()).prop_map(|(which, surely)| Act::Returns { which, surely }),
        2 => which.clone().prop_map(|which| Act::Asks { which }),
        1 => which.prop_map(|which| Act::GivesUp { which }),
        2 => (0u64..400_000).prop_map(Act::Passes),
    ];
    prop::collection::vec(act, 0..400)
}

/// Those who came, by what they have.
#[derive(Default)]
struct Crowd {
    held: Vec<Held>,
    lent: Vec<(usize, Micros)>,
    waiting: Vec<Ticket>,
    overcommitted: bool,
    held_back: usize,
}

fn pick<T>(list: &mut Vec<T>, which: usize) -> Option<T> {
    (!list.is_empty()).then(|| list.swap_remove(which % list.len()))
}

impl Crowd {
    fn refused(&mut self, refusal: Refusal) {
        assert!((1..=30).contains(&refusal.after_s));
        self.held_back += usize::from(refusal.hold > 0);
    }

    fn act(&mut self, gate: &mut Gate, act: Act, now: &mut Micros) {
        let mut wakers = Wakers::new();
        match act {
            Act::Comes { kind, signed_in, dear } => {
                let rank = Rank::new(signed_in, dear);
                let arrival = gate.enter_freely(kind, *now).map_or_else(|| gate.arrive(kind, rank, Waker::noop(), *now, &mut wakers), Arrival::In);
                match arrival {
                    Arrival::In(held) => self.held.push(held),
                    Arrival::Waits(ticket) => self.waiting.push(ticket),
                    Arrival::Refused(refusal) => self.refused(refusal),
                }
            }
            Act::Ends { which, good } => {
                if let Some(held) = pick(&mut self.held, which) {
                    gate.leave(&held, good, *now, &mut wakers);
                }
            }
            Act::Lends { which } => {
                if let Some(held) = pick(&mut self.held, which) {
                    self.lent.push((held.kind(), gate.lend(&held, *now, &mut wakers)));
                }
            }
            Act::Returns { which, surely } => {
                if let Some((kind, spent)) = pick(&mut self.lent, which) {
                    self.overcommitted = true;
                    self.held.extend(gate.take_back(kind, spent, surely, *now));
                }
            }
            Act::Asks { which } => {
                if let Some(ticket) = pick(&mut self.waiting, which) {
                    match gate.ask(ticket, Waker::noop(), *now, &mut wakers) {
                        Look::In(held) => self.held.push(held),
                        Look::Waits => self.waiting.push(ticket),
                        Look::Refused(refusal) => self.refused(refusal),
                    }
                }
            }
            Act::GivesUp { which } => {
                if let Some(ticket) = pick(&mut self.waiting, which) {
                    gate.cancel(ticket, *now, &mut wakers);
                }
            }
            Act::Passes(micros) => {
                *now += micros;
                (0..std::mem::take(&mut self.held_back)).for_each(|_| gate.told());
            }
        }
    }
}

proptest! {
    #[test]
    fn no_place_is_lost_or_given_twice(floor in 0usize..12, ceiling in 0usize..24, acts in acts()) {
        let (mut gate, mut crowd, mut now) = (Gate::new(floor, ceiling, ALLOWANCE, CORES), Crowd::default(), 0);
        for act in acts {
            crowd.act(&mut gate, act, &mut now);
            let figures = gate.figures();
            prop_assert!((floor.max(1).min(ceiling)..=ceiling).contains(&figures.places));
            // Some have a place, or were sent away, and do not know it yet.
            prop_assert!(figures.in_flight >= crowd.held.len() && figures.in_flight <= crowd.held.len() + crowd.waiting.len());
            prop_assert!(figures.in_flight + figures.waiting <= crowd.held.len() + crowd.waiting.len());
            prop_assert!(crowd.overcommitted || figures.in_flight <= ceiling);
            prop_assert!(figures.waiting <= ceiling);
            prop_assert_eq!(figures.held_back, crowd.held_back);
        }
        for which in (0..crowd.waiting.len()).rev() {
            crowd.act(&mut gate, Act::GivesUp { which }, &mut now);
        }
        let figures = gate.figures();
        prop_assert_eq!((figures.in_flight, figures.waiting), (crowd.held.len(), 0));
        for which in (0..crowd.held.len()).rev() {
            crowd.act(&mut gate, Act::Ends { which, good: true }, &mut now);
        }
        prop_assert_eq!(gate.figures().in_flight, 0);
        prop_assert_eq!(gate.enter_freely(0, now).is_some(), ceiling > 0);
    }

    #[test]
    fn the_limit_stays_between_its_bounds(floor in 1usize..50, more in 0usize..200, samples in prop::collection::vec((0u64..20_000_000, any::<bool>(), prop_oneof![Just(1usize), 1usize..300], any::<bool>()), 0..600)) {
        let (ceiling, mut now) = (floor + more, 0);
        let mut limit = Limit::new(floor, ceiling, ALLOWANCE);
        for (took, good, in_flight, wanted) in samples {
            let due = limit.begin(took as usize % 3, now, in_flight);
            now += took / 20;
            if wanted {
                limit.wanted(now);
            }
            limit.sample(took as usize % 3, now.saturating_sub(took), now, good, in_flight == 1, in_flight);
            limit.leave(due);
            limit.look(now, in_flight);
            prop_assert!((floor..=ceiling).contains(&limit.places()));
        }
    }
}

/// A limit that knows requests of 10 ms, and has just closed a window.
fn learnt() -> (Limit, Micros) {
    let (mut limit, mut now) = (Limit::new(8, 1024, ALLOWANCE), 0);
    for _ in 0..500 {
        now += 2_000;
        answered(&mut limit, &mut now, 10_000, 64);
    }
    (limit, now)
}

fn answered(limit: &mut Limit, now: &mut Micros, took: Micros, in_flight: usize) {
    let due = limit.begin(0, now.saturating_sub(took), in_flight);
    limit.sample(0, now.saturating_sub(took), *now, true, false, in_flight);
    limit.leave(due);
    limit.look(*now, in_flight);
}

#[test]
fn one_outlier_changes_nothing() {
    let (mut limit, mut now) = learnt();
    let before = limit.places();
    for number in 0..200 {
        now += 2_000;
        answered(&mut limit, &mut now, if number % 20 == 0 { 5_000_000 } else { 10_000 }, 64);
        assert_eq!(limit.places(), before);
    }
}

#[test]
fn a_limit_that_is_not_in_use_does_not_grow() {
    let (mut limit, mut now) = learnt();
    for _ in 0..2_000 {
        now += 2_000;
        answered(&mut limit, &mut now, 10_000, 64);
    }
    assert_eq!(limit.places(), 64, "nobody wanted more");
    for _ in 0..200 {
        now += 2_000;
        limit.wanted(now);
        answered(&mut limit, &mut now, 10_000, 64);
    }
    assert!(limit.places() > 64, "{}", limit.places());
}

#[test]
fn what_nobody_needs_is_taken_back_and_is_there_again_when_it_is_wanted() {
    let (mut limit, mut now) = learnt();
    let mut fewest = limit.places();
    for _ in 0..30_000 {
        now += 2_000;
        answered(&mut limit, &mut now, 10_000, 12);
        assert!(limit.places() <= fewest, "it grows while nobody wants more");
        fewest = limit.places();
    }
    assert_eq!((fewest, limit.places_in_sight()), (12, 64), "as many as there are, and the queue has room for a burst");
    let wanted_at = now;
    while limit.places() < 64 {
        now += 1_000;
        limit.wanted(now);
        let places = limit.places();
        answered(&mut limit, &mut now, 10_000, places);
        assert!(now - wanted_at < 300_000, "{}", limit.places());
    }
}

#[test]
fn who_is_alone_shows_the_usual_even_if_nobody_was_before() {
    let (mut limit, mut now) = learnt();
    for _ in 0..100 {
        now += 2_000;
        limit.sample(0, now - 1_000, now, true, true, 3);
    }
    let seconds = limit.baseline_s(0).unwrap();
    assert!((seconds - 0.001).abs() < 1e-4, "{seconds}");
}

#[test]
fn at_the_floor_more_are_let_in_to_see_whether_they_wait_for_each_other() {
    let (mut limit, mut now) = (Limit::new(4, 1024, ALLOWANCE), 0);
    for _ in 0..1_000 {
        now += 2_000;
        answered(&mut limit, &mut now, 10_000, 2);
    }
    let mut full_for_a_minute = |took: fn(u64) -> Micros| {
        let (mut most, until) = (0, now + 60_000_000);
        while now < until {
            let places = limit.places();
            most = most.max(places);
            let took = took(places as u64);
            now += took / places as u64;
            limit.wanted(now);
            answered(&mut limit, &mut now, took, places);
        }
        (limit.places(), most)
    };
    // One server for all.
    full_for_a_minute(|places| 10_000 * places);
    assert_eq!(full_for_a_minute(|places| 10_000 * places), (4, 8), "twice as many take twice as long");
    // As long as four took there, and one for each.
    assert!(full_for_a_minute(|_| 40_000).0 > 64);
}

#[test]
fn failures_are_never_fast() {
    let (mut limit, mut now) = learnt();
    let seconds = limit.baseline_s(0).unwrap();
    for _ in 0..2_000 {
        now += 2_000;
        limit.sample(0, now - 100, now, false, false, 20);
        limit.look(now, 20);
    }
    assert!((limit.baseline_s(0).unwrap() - seconds).abs() < 1e-9);
}

#[test]
fn waiting_for_the_client_is_no_part_of_how_long_it_took() {
    let (mut gate, mut wakers, mut now) = (Gate::new(8, 64, ALLOWANCE, CORES), Wakers::new(), 0);
    for _ in 0..40 {
        let held = gate.enter_freely(1, now).unwrap();
        now += 3_000;
        let spent = gate.lend(&held, now, &mut wakers);
        now += 9_000_000;
        let held = gate.take_back(1, spent, false, now).unwrap();
        now += 2_000;
        gate.leave(&held, true, now, &mut wakers);
    }
    let seconds = gate.limit.baseline_s(1).unwrap();
    assert!((seconds - 0.005).abs() < 1e-4, "{seconds}");
    assert_eq!(gate.limit.stalled_since(), None);
}

/// A gate with all of its places taken.
fn full() -> (Gate, Vec<Held>) {
    let mut gate = Gate::new(10, 10, ALLOWANCE, CORES);
    let held = (0..10).map(|_| {
        let arrival = gate.arrive(0, Rank::FIRST, Waker::noop(), 0, &mut Wakers::new());
        let Arrival::In(held) = arrival else { panic!("{arrival:?}") };
        held
    });
    let held = held.collect();
    (gate, held)
}

fn waits(gate: &mut Gate, rank: Rank, now: Micros) -> Ticket {
    let arrival = gate.arrive(0, rank, Waker::noop(), now, &mut Wakers::new());
    let Arrival::Waits(ticket) = arrival else { panic!("{arrival:?}") };
    ticket
}

fn is_in(gate: &mut Gate, ticket: Ticket, now: Micros) -> bool {
    matches!(gate.ask(ticket, Waker::noop(), now, &mut Wakers::new()), Look::In(_))
}

#[test]
fn a_burst_is_served_in_its_order_and_the_first_class_before_all_others() {
    let (mut gate, mut held) = full();
    let numbers = [Rank::LAST, Rank::FIRST, Rank::FIRST].map(|rank| waits(&mut gate, rank, 1_000));
    gate.leave(&held.pop().unwrap(), true, 2_000, &mut Wakers::new());
    assert_eq!(numbers.map(|number| is_in(&mut gate, number, 2_000)), [false, true, false]);
}

#[test]
fn in_a_crowd_the_newest_is_first_and_the_oldest_is_sent_away_soon() {
    let (mut gate, mut held) = full();
    let patient = waits(&mut gate, Rank::FIRST, 0);
    assert!(matches!(gate.ask(patient, Waker::noop(), 499_000, &mut Wakers::new()), Look::Waits), "there is room for all");
    for _ in 1..10 {
        waits(&mut gate, Rank::FIRST, 490_000);
    }
    let arrival = gate.arrive(0, Rank::FIRST, Waker::noop(), 491_000, &mut Wakers::new());
    assert!(matches!(arrival, Arrival::Refused(_)), "there is not, any more: {arrival:?}");
    gate.arrive(0, Rank::FIRST, Waker::noop(), 512_000, &mut Wakers::new());
    let old = waits(&mut gate, Rank::FIRST, 601_000);
    let (newer, newest) = (waits(&mut gate, Rank::FIRST, 619_000), waits(&mut gate, Rank::FIRST, 620_000));
    let mut wakers = Wakers::new();
    gate.leave(&held.pop().unwrap(), true, 621_000, &mut wakers);
    assert!(is_in(&mut gate, newest, 621_000));
    assert!(matches!(gate.ask(old, Waker::noop(), 621_000, &mut wakers), Look::Refused(_)));
    assert!(matches!(gate.ask(newer, Waker::noop(), 621_000, &mut wakers), Look::Waits));
}

#[test]
fn who_leaves_while_he_waits_leaves_no_gap_even_if_his_place_was_given_already() {
    let (mut gate, mut held) = full();
    let (first, second) = (waits(&mut gate, Rank::FIRST, 0), waits(&mut gate, Rank::FIRST, 0));
    let mut wakers = Wakers::new();
    gate.leave(&held.pop().unwrap(), true, 1_000, &mut wakers);
    assert_eq!(wakers.len(), 1, "the first is told");
    gate.cancel(first, 2_000, &mut wakers);
    assert!(is_in(&mut gate, second, 3_000), "his place goes on");
    let figures = gate.figures();
    assert_eq!((figures.in_flight, figures.waiting), (10, 0));
}

#[test]
fn a_stranger_finds_no_place_in_what_is_kept_for_people_until_it_is_his_turn() {
    let mut gate = Gate::new(10, 10, ALLOWANCE, CORES);
    let mut wakers = Wakers::new();
    let mut admitted = 0;
    while let Arrival::In(_) = gate.arrive(0, Rank::LAST, Waker::noop(), 0, &mut wakers) {
        admitted += 1;
    }
    assert_eq!(admitted, 6);
    assert!(matches!(gate.arrive(0, Rank::FIRST, Waker::noop(), 0, &mut wakers), Arrival::In(_)), "one ahead of him does");
}
