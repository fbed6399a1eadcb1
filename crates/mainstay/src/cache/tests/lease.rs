//! What another instance writes ends within 100 ms of its commit, whatever becomes of the readings of the log.

use super::*;
use crate::news::LEASE;

/// Steps of one instance, of a database that others change, and of time.
#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    /// Others commit.
    Change,
    /// Asks and, if there is nothing, makes it at once.
    Make,
    Ask(usize),
    Read(usize),
    Answer(usize),
    /// A reading of the log begins, if none is under way; the database answers it; the answer arrives, or the connection is lost.
    Begin,
    See,
    Arrive,
    Lose,
}

fn step() -> impl Strategy<Value = Step> {
    let reader = 0..3usize;
    prop_oneof![
        12 => (5..60u64).prop_map(Step::Pass),
        3 => Just(Step::Change),
        12 => Just(Step::Make),
        2 => reader.clone().prop_map(Step::Ask),
        2 => reader.clone().prop_map(Step::Read),
        2 => reader.prop_map(Step::Answer),
        8 => Just(Step::Begin),
        8 => Just(Step::See),
        8 => Just(Step::Arrive),
        1 => Just(Step::Lose),
    ]
}

/// A reading of the log under way: when it began, and the version it saw.
struct Reading {
    asked: Instant,
    saw: Option<u64>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn a_request_that_comes_100_ms_after_a_commit_never_gets_what_was_before_it(steps in prop::collection::vec(step(), 40..160)) {
        let (generations, shelf) = shelf(1 << 20);
        let (id, begin) = (Uuid::from_u128(1), Instant::now());
        let (key, subject) = (Key::id(&SHOWN, id), Subject::One(THINGS, id));
        let mut now = begin;
        generations.told_until(now);
        // When each version was committed; the first one always was.
        let mut commits = vec![begin];
        // The version of the reading before, if there was one on this connection.
        let (mut before, mut reading): (Option<u64>, Option<Reading>) = (None, None);
        let mut readers: [Option<(Making<'_>, Option<u64>)>; 3] = [const { None }; 3];
        for step in steps {
            let version = commits.len() as u64 - 1;
            match step {
                Step::Pass(ms) => now += Duration::from_millis(ms),
                Step::Change => commits.push(now),
                Step::Ask(_) | Step::Make => match (shelf.find(&key, subject, now), step) {
                    (Found::Kept(kept), _) => {
                        let floor = commits.iter().rposition(|at| *at + LEASE <= now).unwrap_or(0) as u64;
                        prop_assert!(said(&kept) >= floor, "{} at {:?}", said(&kept), now - begin);
                    }
                    (Found::Nothing(making), Step::Ask(reader)) => readers[reader] = Some((making, None)),
                    (Found::Nothing(making), _) => drop(making.made(&SHOWN, Some(text(&version.to_string())), Duration::ZERO)),
                    (Found::Coming(_), _) => {}
                    (Found::Early(..) | Found::Stale(_), _) => unreachable!("neither is asked for here"),
                },
                Step::Read(reader) => {
                    if let Some((_, read)) = &mut readers[reader] {
                        *read = Some(version);
                    }
                }
                Step::Answer(reader) => match readers[reader].take() {
                    Some((making, Some(read))) => drop(making.made(&SHOWN, Some(text(&read.to_string())), Duration::ZERO)),
                    unread => readers[reader] = unread,
                },
                Step::Begin if reading.is_none() => reading = Some(Reading { asked: now, saw: None }),
                Step::Begin => {}
                Step::See => {
                    if let Some(reading) = &mut reading {
                        reading.saw.get_or_insert(version);
                    }
                }
                // As `Log::read` in news.rs.
                Step::Arrive => match reading.take() {
                    Some(Reading { asked, saw: Some(saw) }) => {
                        match before.replace(saw) {
                            None => generations.forget_all(),
                            Some(before) if before < saw => generations.hear(&format!("things/{id}")),
                            Some(_) => {}
                        }
                        generations.told_until(asked + LEASE);
                    }
                    unread => reading = unread,
                },
                Step::Lose => {
                    (before, reading) = (None, None);
                    generations.told_until(now);
                }
            }
        }
    }
}
