//! In whatever order transactions begin and commit, instances read the log, write, ask and put answers where all of them find them, nothing is believed
//! that is older than what the instance that asks was told.

use std::collections::{BTreeMap, BTreeSet};

use super::super::position::Position;
use super::*;
use crate::news::{LEASE, Reading};

/// Steps of a world with two instances over one database of two things, and one place for answers that they share.
#[derive(Debug, Clone)]
enum Step {
    /// A transaction begins; it is the next number's.
    Begin,
    /// One of those that run changes a thing, if nobody else has it.
    Change(usize, usize),
    /// One of those that run commits. By one of the instances, which forgets, or by another process.
    Commit(usize, Option<usize>),
    /// An instance's reading of the log begins, and is answered.
    Read(usize),
    /// It is heard.
    Hear(usize),
    /// Its connection was lost and is back.
    Return(usize),
    /// An instance begins to make an answer; reads the database for it; puts it where others find it.
    Ask(usize, usize),
    Look(usize),
    Put(usize),
    /// An instance asks for what others put there.
    Find(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (instance, thing, running) = (0..2usize, 0..3usize, 0..4usize);
    prop_oneof![
        3 => Just(Step::Begin),
        4 => (running.clone(), 0..2usize).prop_map(|(running, thing)| Step::Change(running, thing)),
        4 => (running, prop::option::of(0..2usize)).prop_map(|(running, by)| Step::Commit(running, by)),
        5 => instance.clone().prop_map(Step::Read),
        5 => instance.clone().prop_map(Step::Hear),
        1 => instance.clone().prop_map(Step::Return),
        4 => (instance.clone(), thing.clone()).prop_map(|(instance, thing)| Step::Ask(instance, thing)),
        4 => instance.clone().prop_map(Step::Look),
        4 => instance.clone().prop_map(Step::Put),
        6 => (instance, thing).prop_map(|(instance, thing)| Step::Find(instance, thing)),
    ]
}

/// How often each thing was changed. An answer for thing 2, the list, says how often any was.
type Versions = [u64; 2];

fn of(versions: &Versions, thing: usize) -> u64 {
    versions.get(thing).copied().unwrap_or_else(|| versions.iter().sum())
}

/// What a reading of the log saw.
#[derive(Clone)]
struct Seen {
    committed: BTreeSet<u64>,
    ended: u64,
    begun: u64,
    /// The log, a row for each thing: the transaction that wrote it last.
    log: BTreeMap<usize, u64>,
    versions: Versions,
}

struct Database {
    next: u64,
    /// Those that run, and what they changed.
    running: BTreeMap<u64, Vec<usize>>,
    seen: Seen,
}

impl Database {
    fn new() -> Self {
        let seen = Seen { committed: BTreeSet::new(), ended: 100, begun: 100, log: BTreeMap::new(), versions: [0; 2] };
        Self { next: 100, running: BTreeMap::new(), seen }
    }

    fn nth(&self, index: usize) -> Option<u64> {
        self.running.keys().nth(index).copied()
    }

    fn commit(&mut self, transaction: u64) -> Vec<usize> {
        let changed = self.running.remove(&transaction).unwrap_or_default();
        self.seen.committed.insert(transaction);
        for thing in &changed {
            self.seen.log.insert(*thing, transaction);
            self.seen.versions[*thing] += 1;
        }
        changed
    }

    fn snapshot(&self) -> Seen {
        let begun = self.next;
        Seen { ended: self.running.keys().next().copied().unwrap_or(begun), begun, ..self.seen.clone() }
    }
}

const IDS: [Uuid; 2] = [Uuid::from_u128(1), Uuid::from_u128(2)];

fn subject(thing: usize) -> Subject {
    IDS.get(thing).map_or(Subject::All(THINGS), |id| Subject::One(THINGS, *id))
}

struct Instance {
    generations: Generations,
    /// What it was told, or did.
    told: Versions,
    before: Option<Seen>,
    reading: Option<Seen>,
    /// The thing, how far it reaches, and what was read.
    making: Option<(usize, Option<Position>, Option<u64>)>,
}

impl Instance {
    fn tell(&mut self, versions: Versions) {
        self.told.iter_mut().zip(versions).for_each(|(told, version)| *told = version.max(*told));
    }

    /// As `Log::read` in `news/follow.rs`, and the statement that reads the log of products.
    fn hear(&mut self, now: Instant) {
        let Some(seen) = self.reading.take() else { return };
        let changed: Vec<(usize, u64)> = match &self.before {
            Some(before) => seen.log.iter().filter(|(_, by)| !before.committed.contains(by)).map(|(thing, by)| (*thing, *by)).collect(),
            None => Vec::new(),
        };
        let words = format!("things/{}", changed.iter().map(|(thing, _)| IDS[*thing].to_string()).collect::<Vec<_>>().join(","));
        self.generations.read(&Reading {
            server: 7,
            ended: seen.ended,
            begun: seen.begun,
            first: self.before.is_none(),
            changed: (!changed.is_empty()).then_some(words.as_str()),
            newest: changed.iter().map(|(_, by)| *by).max(),
        });
        self.generations.told_until(now + LEASE);
        self.tell(seen.versions);
        self.before = Some(seen);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn nothing_that_another_instance_made_is_believed_that_is_older_than_what_this_one_was_told(steps in prop::collection::vec(step(), 20..150)) {
        let now = Instant::now();
        let instance = || Instance { generations: Generations::new(now), told: [0; 2], before: None, reading: None, making: None };
        let (mut instances, mut database) = ([instance(), instance()], Database::new());
        // By the thing: how far it reaches, and what it says.
        let mut place: BTreeMap<usize, (Position, u64)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Begin => {
                    database.running.insert(database.next, Vec::new());
                    database.next += 1;
                }
                Step::Change(running, thing) => {
                    let held = database.running.values().any(|changed| changed.contains(&thing));
                    if let Some(transaction) = database.nth(running).filter(|_| !held) {
                        database.running.entry(transaction).or_default().push(thing);
                    }
                }
                Step::Commit(running, by) => {
                    let Some(transaction) = database.nth(running) else { continue };
                    let changed = database.commit(transaction);
                    if let Some(instance) = by.map(|by| &mut instances[by]) {
                        changed.iter().for_each(|thing| instance.generations.forget(subject(*thing)));
                        let mut done = [0; 2];
                        changed.iter().for_each(|thing| done[*thing] = database.seen.versions[*thing]);
                        instance.tell(done);
                    }
                }
                Step::Read(instance) => {
                    instances[instance].generations.asking();
                    instances[instance].reading = Some(database.snapshot());
                }
                Step::Hear(instance) => instances[instance].hear(now),
                Step::Return(instance) => {
                    instances[instance].before = None;
                    instances[instance].reading = None;
                    instances[instance].generations.lost(now);
                }
                Step::Ask(instance, thing) => {
                    let position = instances[instance].generations.position(now);
                    instances[instance].making = Some((thing, position, None));
                }
                Step::Look(instance) => {
                    if let Some((thing, _, read)) = &mut instances[instance].making {
                        *read = Some(of(&database.seen.versions, *thing));
                    }
                }
                // As `put.lua`.
                Step::Put(instance) => {
                    let made = instances[instance].making.take();
                    if let Some((thing, Some(position), Some(read))) = made {
                        let there = place.get(&thing).map_or(0, |(there, _)| there.before);
                        if there <= position.before {
                            place.insert(thing, (position, read));
                        }
                    }
                }
                // As `ask.lua`.
                Step::Find(instance, thing) => {
                    let Some(needed) = instances[instance].generations.needed(subject(thing), now) else { continue };
                    if let Some((position, says)) = place.get(&thing).filter(|(there, _)| there.server == needed.server && there.before >= needed.before) {
                        let told = of(&instances[instance].told, thing);
                        prop_assert!(*says >= told, "{says} of {thing} after {told}: reaches {position:?}, needed {needed:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_answer_is_believed_when_it_reaches_the_newest_change_and_not_while_our_own_is_untold() {
    let now = Instant::now();
    let generations = Generations::new(now);
    let [one, other] = [0, 1].map(subject);
    assert_eq!((generations.position(now), generations.needed(one, now)), (None, None), "no server was heard");
    let read = |server, (ended, begun), first, changed: Option<&str>, newest| {
        generations.asking();
        generations.read(&Reading { server, ended, begun, first, changed, newest });
        generations.told_until(now + LEASE);
    };
    let needs = |subject| generations.needed(subject, now).map(|needed| needed.before);
    read(7, (10, 12), true, None, None);
    assert_eq!(generations.position(now), Some(Position { server: 7, before: 10 }));
    assert_eq!((needs(one), needs(subject(2))), (Some(12), Some(12)), "anything may have changed before");
    read(7, (20, 20), false, Some(&format!("things/{}", IDS[0])), Some(15));
    assert_eq!((needs(one), needs(other), needs(subject(2))), (Some(16), Some(12), Some(16)));
    generations.forget(one);
    assert_eq!((needs(one), needs(other), needs(subject(2))), (None, Some(12), None));
    read(7, (21, 21), false, Some(&format!("things/{}", IDS[0])), Some(20));
    assert_eq!((needs(one), needs(other)), (Some(21), Some(12)));
    read(7, (30, 33), false, Some("things"), Some(31));
    assert_eq!((needs(one), needs(other)), (Some(33), Some(33)), "which of many was the newest is not told");
    assert_eq!(generations.needed(one, now + LEASE), None, "nothing is told anymore");
    assert_eq!(generations.position(now + LEASE), None);
    read(8, (5, 5), true, None, None);
    assert_eq!((needs(one), generations.position(now)), (Some(5), Some(Position { server: 8, before: 5 })), "numbers of another history");
}
