//! What the gate makes of loads and troubles, in simulated time, each with several seeds.
//!
//! `capacity` is what the servers do when they never rest. The measure of a good time is what the same service has at nine tenths of that without any limit.

use std::time::Duration;

use super::baseline;
use super::gate::Gate;
use super::rank::Rank;
use super::sim::{Kind, SECOND, Sim};
use crate::testing::Chance;

const FLOOR: usize = 4;
const CEILING: usize = 1024;
const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];
/// As long as a request takes here. That of the service is ten times as long, so that what the controller does shows less clearly.
const ALLOWANCE: Duration = Duration::from_millis(5);

fn kind(part: f64, needs: fn(&mut Chance) -> f64) -> Kind {
    Kind { part, rank: Rank::new(false, false), needs }
}

fn exponential() -> Vec<Kind> {
    vec![kind(1.0, |chance| chance.exponential(5_000.0))]
}

/// Nine fast requests for each slow one.
fn mixed() -> Vec<Kind> {
    vec![kind(0.9, |chance| chance.exponential(1_000.0)), kind(0.1, |chance| chance.exponential(100_000.0))]
}

/// One route that has half of its answers in memory.
fn bimodal() -> Vec<Kind> {
    vec![kind(1.0, |chance| if chance.fraction() < 0.5 { 50.0 } else { chance.exponential(50_000.0) })]
}

/// With the allowance of the service.
fn as_served(cores: usize, kinds: Vec<Kind>, seed: u64) -> Sim {
    Sim::new(Gate::new(FLOOR, CEILING, baseline::ALLOWANCE, cores), cores, kinds, seed)
}

fn adaptive(cores: usize, kinds: Vec<Kind>, seed: u64) -> Sim {
    Sim::new(Gate::new(FLOOR, CEILING, ALLOWANCE, cores), cores, kinds, seed)
}

/// The 99th percentile at nine tenths of the capacity, without a limit.
fn p99_of_full_service(cores: usize, kinds: Vec<Kind>, seed: u64) -> f64 {
    let mut sim = Sim::new(Gate::new(100_000, 100_000, ALLOWANCE, cores), cores, kinds, seed);
    sim.run(sim.capacity() * 0.9, 60.0);
    sim.p99_ms(0.0, 60.0)
}

#[track_caller]
fn at_least(what: &str, value: f64, least: f64) {
    assert!(value >= least, "{what}: {value:.3}, at least {least:.3}");
}

#[track_caller]
fn at_most(what: &str, value: f64, most: f64) {
    assert!(value <= most, "{what}: {value:.3}, at most {most:.3}");
}

/// Ten seconds of half a load, then this many times the capacity, then half a load again.
fn surge(cores: usize, kinds: fn() -> Vec<Kind>, times: f64, seed: u64) -> (Sim, f64) {
    let mut sim = adaptive(cores, kinds(), seed);
    let capacity = sim.capacity();
    sim.run(capacity * 0.5, 10.0);
    sim.run(capacity * times, 20.0);
    sim.run(capacity * 0.5, 10.0);
    (sim, capacity)
}

#[test]
fn a_surge_leaves_the_goodput_where_it_was_and_is_over_when_it_is_over() {
    for seed in SEEDS {
        let full = p99_of_full_service(4, exponential(), seed);
        for times in [5.0, 20.0] {
            let (sim, capacity) = surge(4, exponential, times, seed);
            at_least("its first second", sim.goodput(10.0, 11.0) / capacity, 0.85);
            at_least("then", sim.goodput(11.0, 30.0) / capacity, 0.95);
            at_most("p99 of the admitted, of that of a full service", sim.p99_ms(11.0, 30.0) / full, 2.0);
            at_most("refused within the second after", sim.refused_part(30.2, 31.0), 0.02);
            at_most("p99 then, of that of a full service", sim.p99_ms(30.5, 40.0) / full, 1.0);
        }
    }
}

#[test]
fn nobody_is_refused_for_a_wait_that_nobody_minds() {
    for seed in SEEDS {
        let mut sim = as_served(4, exponential(), seed);
        let capacity = sim.capacity();
        sim.run(capacity * 0.9, 60.0);
        at_most("refused at nine tenths of the capacity", sim.refused_part(0.0, 60.0), 0.01);
        sim.run(capacity * 20.0, 20.0);
        at_least("goodput in a surge", sim.goodput(61.0, 80.0) / capacity, 0.95);
        at_most("p99 of the admitted, ms", sim.p99_ms(61.0, 80.0), 120.0);
        sim.run(capacity * 0.5, 10.0);
        at_most("refused within the second after", sim.refused_part(80.2, 81.0), 0.02);
    }
}

/// What `mainstay drill surge` does to a service of one core.
#[test]
fn a_surge_of_dear_requests_on_one_core_is_held_from_its_first_moment() {
    for seed in SEEDS {
        let kinds: [fn(&mut Chance) -> f64; 2] = [|_| 26_000.0, |chance| chance.exponential(26_000.0)];
        for (needs, least) in kinds.into_iter().zip([0.95, 0.9]) {
            let mut unlimited = Sim::new(Gate::new(100_000, 100_000, ALLOWANCE, 1), 1, vec![kind(1.0, needs)], seed);
            let capacity = unlimited.capacity();
            unlimited.run(capacity * 0.8, 60.0);
            let normal = unlimited.p99_ms(0.0, 60.0);
            let mut sim = as_served(1, vec![kind(1.0, needs)], seed);
            sim.refusal_needs = 30;
            // Four who ask without a pause are all that it knows: their queue is its usual, until somebody comes who is alone.
            sim.hammer(4, 12.0);
            sim.run(capacity * 0.8, 12.0);
            at_most("refused on a good day", sim.refused_part(12.0, 24.0), 0.01);
            sim.run(capacity * 20.0, 60.0);
            at_least("goodput in the surge", sim.goodput(24.0, 84.0) / capacity, least);
            at_most("p99 of its admitted, of that of a good day without a limit", sim.p99_ms(24.0, 84.0) / normal, 2.0);
            at_most("p99 from its third second on", sim.p99_ms(27.0, 84.0) / normal, 1.5);
            sim.run(capacity * 0.8, 6.0);
            at_most("refused a second after", sim.refused_part(85.0, 90.0), 0.01);
            sim.hammer(400, 12.0);
            at_least("goodput with clients that never pause", sim.goodput(90.0, 102.0) / capacity, least);
            at_most("p99 of theirs", sim.p99_ms(90.0, 102.0) / normal, 2.0);
        }
    }
}

#[test]
fn those_who_come_again_at_once_do_not_take_the_cores_from_those_who_are_served() {
    for seed in SEEDS {
        // Each of 4,000 is told every second, and that is a twelfth of a core.
        for (clients, least) in [(100, 0.95), (4_000, 0.85)] {
            let mut sim = as_served(1, vec![kind(1.0, |chance| chance.exponential(1_000.0))], seed);
            sim.refusal_needs = 20;
            let capacity = sim.capacity();
            sim.hammer(clients, 10.0);
            at_least(&format!("goodput with {clients}"), sim.goodput(4.0, 10.0) / capacity, least);
            at_most("p99 of the admitted, ms", sim.p99_ms(4.0, 10.0), 250.0);
        }
    }
}

#[test]
fn a_service_that_begins_under_a_surge_finds_its_limit_all_the_same() {
    for seed in SEEDS {
        let full = p99_of_full_service(4, exponential(), seed);
        let mut sim = adaptive(4, exponential(), seed);
        let capacity = sim.capacity();
        sim.run(capacity * 20.0, 15.0);
        at_least("goodput", sim.goodput(0.0, 15.0) / capacity, 0.95);
        at_most("p99 once it has learnt, of that of a full service", sim.p99_ms(5.0, 15.0) / full, 2.5);
    }
}

#[test]
fn a_load_that_rises_slowly_is_no_reason_to_take_a_queue_for_the_usual() {
    for seed in SEEDS {
        let full = p99_of_full_service(4, exponential(), seed);
        let mut sim = adaptive(4, exponential(), seed);
        let capacity = sim.capacity();
        for step in 1..=30 {
            sim.run(capacity * f64::from(step) / 10.0, 2.0);
        }
        sim.run(capacity * 3.0, 120.0);
        at_least("goodput", sim.goodput(60.0, 180.0) / capacity, 0.95);
        at_most("p99 after two minutes, of that of a full service", sim.p99_ms(150.0, 180.0) / full, 2.0);
        at_most("the limit by then", sim.limits(150.0, 180.0).1 as f64, 64.0);
    }
}

#[test]
fn nothing_is_refused_at_half_a_load_and_little_at_nine_tenths() {
    for seed in SEEDS {
        let mut sim = adaptive(4, exponential(), seed);
        let capacity = sim.capacity();
        sim.run(capacity * 0.5, 30.0);
        sim.run(capacity * 0.9, 30.0);
        at_most("refused at half", sim.refused_part(0.0, 30.0), 0.0);
        at_most("refused at nine tenths", sim.refused_part(30.0, 60.0), 0.03);
    }
}

#[test]
fn a_stall_brings_the_limit_down_without_a_single_sample_and_leaves_nothing_behind() {
    for seed in SEEDS {
        let full = p99_of_full_service(4, exponential(), seed);
        let mut sim = adaptive(4, exponential(), seed);
        let load = sim.capacity() * 0.7;
        sim.run(load, 10.0);
        sim.stalls.push((10 * SECOND, 20 * SECOND));
        sim.run(load, 20.0);
        assert_eq!(sim.limits(11.5, 19.9), (FLOOR, FLOOR), "a second and a half into the stall");
        at_least("the second after", sim.goodput(20.0, 21.0) / load, 0.9);
        at_least("from then on", sim.goodput(21.0, 30.0) / load, 0.95);
        at_most("p99 then, of that of a full service", sim.p99_ms(21.0, 30.0) / full, 1.0);
    }
}

#[test]
fn a_database_that_is_slower_and_takes_as_many_is_the_new_usual_within_a_second() {
    let mut first = 0.0;
    for seed in SEEDS {
        let mut sim = adaptive(50, exponential(), seed);
        sim.run(500.0, 10.0);
        sim.slower = 10.0;
        sim.run(500.0, 20.0);
        at_least("its first second", sim.goodput(10.0, 11.0), 80.0);
        first += sim.goodput(10.0, 11.0);
        at_least("the rest", sim.goodput(11.5, 30.0), 430.0);
        sim.slower = 1.0;
        sim.run(500.0, 10.0);
        at_least("and back", sim.goodput(30.5, 40.0), 475.0);
    }
    at_least("its first second, in the mean", first / SEEDS.len() as f64, 150.0);
}

/// Where two were needed at once, ten or twenty are.
#[test]
fn a_quiet_service_whose_database_becomes_slower_refuses_few_or_none() {
    for seed in SEEDS {
        for (rate, slower, most) in [(100.0, 10.0, 0.0), (200.0, 10.0, 0.02), (200.0, 20.0, 0.25)] {
            let dear = Kind { part: 1.0, rank: Rank::LAST, needs: |chance| chance.exponential(5_000.0) };
            let mut sim = as_served(100, vec![dear], seed);
            sim.run(rate, 30.0);
            sim.slower = slower;
            sim.run(rate, 10.0);
            at_most(&format!("refused in ten seconds, {rate} a second and {slower} times slower"), sim.refused_part(30.0, 40.0), most);
        }
    }
}

#[test]
fn what_takes_seconds_is_slow_and_not_stalled() {
    let mut later = 0.0;
    for seed in SEEDS {
        // From 5 ms to 3 s, and a hundred at once as before: sixty are needed. At the floor a sample comes every 0.75 s, so chance has a say in how soon.
        let mut sim = as_served(100, exponential(), seed);
        sim.run(20.0, 10.0);
        sim.slower = 600.0;
        sim.run(20.0, 90.0);
        later += sim.goodput(70.0, 100.0) / 20.0;
        // Nothing else was ever known.
        let mut sim = as_served(100, exponential(), seed);
        sim.slower = 600.0;
        sim.run(20.0, 80.0);
        at_least("served by one that has just begun", sim.goodput(50.0, 80.0) / 20.0, 0.85);
    }
    at_least("served of those who come a minute later, in the mean", later / SEEDS.len() as f64, 0.7);
}

#[test]
fn a_database_that_is_slower_and_therefore_full_does_what_it_can() {
    for seed in SEEDS {
        let full = p99_of_full_service(4, exponential(), seed);
        let mut sim = adaptive(4, exponential(), seed);
        let load = sim.capacity() * 0.7;
        sim.run(load, 10.0);
        sim.slower = 20.0;
        let capacity = sim.capacity();
        sim.run(load, 20.0);
        at_least("goodput", sim.goodput(11.0, 30.0) / capacity, 0.8);
        at_most("p99 of the admitted, of that of a full service so slow", sim.p99_ms(11.0, 30.0) / (20.0 * full), 2.0);
        sim.slower = 1.0;
        sim.run(load, 10.0);
        at_least("the second after", sim.goodput(30.0, 31.0) / load, 0.5);
        at_least("from then on", sim.goodput(31.0, 40.0) / load, 0.95);
    }
}

#[test]
fn a_capacity_that_halves_and_doubles_is_used_within_a_second() {
    for seed in SEEDS {
        let mut sim = adaptive(4, exponential(), seed);
        let capacity = sim.capacity();
        sim.run(capacity * 0.5, 10.0);
        sim.cores_from(20 * SECOND, 2);
        sim.cores_from(30 * SECOND, 4);
        sim.run(capacity * 5.0, 30.0);
        at_least("half of it", sim.goodput(21.0, 30.0) / capacity, 0.95 / 2.0);
        at_least("the second after it doubled", sim.goodput(30.0, 31.0) / capacity, 0.9);
        at_least("all of it", sim.goodput(31.0, 40.0) / capacity, 0.94);
    }
}

#[test]
fn slow_routes_and_two_faces_of_one_route_are_not_taken_for_congestion() {
    let mut goodput = 0.0;
    for seed in SEEDS {
        for kinds in [mixed, bimodal] {
            let full = p99_of_full_service(4, kinds(), seed);
            // A hundred servers for the work of fifty: nothing waits, whatever the times.
            let mut sim = adaptive(100, kinds(), seed);
            sim.run(sim.capacity() / 2.0, 20.0);
            at_most("refused at half a load", sim.refused_part(0.0, 20.0), 0.01);
            let (sim, capacity) = surge(4, kinds, 20.0, seed);
            // Slow ones are a tenth and do nearly all of the work: what is done in 19 s scatters by itself.
            at_least("goodput", sim.goodput(11.0, 30.0) / capacity, 0.8);
            goodput += sim.goodput(11.0, 30.0) / capacity;
            at_most("p99 of the admitted, of that of a full service", sim.p99_ms(11.0, 30.0) / full, 2.0);
        }
    }
    at_least("goodput in the mean", goodput / (2 * SEEDS.len()) as f64, 0.93);
}

#[test]
fn who_is_signed_in_is_served_and_strangers_are_not_shut_out() {
    let needs = |chance: &mut Chance| chance.exponential(5_000.0);
    for seed in SEEDS {
        let of = |signed_in, dear| Kind { part: 0.25, rank: Rank::new(signed_in, dear), needs };
        let part = |sim: &Sim, number: usize| {
            let of_kind = |outcome: &&super::sim::Outcome| outcome.kind == number;
            let all = sim.of(12.0, 20.0).filter(of_kind).count();
            sim.of(12.0, 20.0).filter(of_kind).filter(|outcome| outcome.served).count() as f64 / all as f64
        };
        let mut sim = adaptive(4, vec![of(true, false), of(true, true), of(false, false), of(false, true)], seed);
        let capacity = sim.capacity();
        sim.run(capacity * 0.5, 10.0);
        // Each class alone has three quarters of the capacity.
        sim.run(capacity * 3.0, 10.0);
        at_least("signed in and cheap", part(&sim, 0), 0.85);
        at_most("strangers", part(&sim, 3), 0.1);
        at_least("strangers", part(&sim, 3), 0.005);
    }
}
