//! In whatever order requests ask, read and answer, instances write and news come, nothing is given that was told to be old.

use std::collections::VecDeque;

use super::*;

/// Steps of a world with two instances over one database of three things. A reader asks, reads the database, and answers, each when it pleases; news come
/// late, in their order.
#[derive(Debug, Clone)]
enum Step {
    /// For thing 3 read: for all of them.
    Ask(usize, usize),
    Read(usize),
    Answer(usize),
    Leave(usize),
    /// By an instance, which forgets before it answers.
    Write(usize, usize),
    /// By hand: nobody forgets before the news.
    Change(usize),
    Tell(usize),
    /// Its connection was lost and is back.
    Return(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (reader, instance, thing) = (0..8usize, 0..2usize, 0..3usize);
    prop_oneof![
        4 => (reader.clone(), 0..4usize).prop_map(|(reader, thing)| Step::Ask(reader, thing)),
        3 => reader.clone().prop_map(Step::Read),
        3 => reader.clone().prop_map(Step::Answer),
        1 => reader.prop_map(Step::Leave),
        2 => (instance.clone(), thing.clone()).prop_map(|(instance, thing)| Step::Write(instance, thing)),
        1 => thing.prop_map(Step::Change),
        3 => instance.clone().prop_map(Step::Tell),
        1 => instance.prop_map(Step::Return),
    ]
}

enum Reader<'a> {
    Idle,
    Making { making: Making<'a>, thing: usize, read: Option<u64>, floor: u64 },
    Waiting { coming: watch::Receiver<Option<Outcome>>, floor: u64 },
}

/// Versions of the things. An answer for thing 3 says how many changes there were in all.
#[derive(Clone, Copy, Default)]
struct Versions([u64; 3]);

impl Versions {
    fn of(&self, thing: usize) -> u64 {
        self.0.get(thing).copied().unwrap_or_else(|| self.0.iter().sum())
    }
}

/// The database, what each instance was told of it, and what is on its way there: the thing and its version.
#[derive(Default)]
struct World {
    database: Versions,
    told: [Versions; 2],
    news: [VecDeque<(usize, u64)>; 2],
}

impl World {
    fn change(&mut self, thing: usize) -> u64 {
        self.database.0[thing] += 1;
        let version = self.database.0[thing];
        self.news.iter_mut().for_each(|news| news.push_back((thing, version)));
        version
    }

    fn hear(&mut self, generations: &Generations, instance: usize, thing: usize, version: u64) {
        self.told[instance].0[thing] = self.told[instance].0[thing].max(version);
        generations.hear(&format!("things/{}", IDS[thing]));
    }

    /// What of a step is not a reader's.
    fn turn(&mut self, instances: &[(Arc<Generations>, Shelf); 2], step: &Step) {
        match *step {
            Step::Write(instance, thing) => {
                let version = self.change(thing);
                self.hear(&instances[instance].0, instance, thing, version);
            }
            Step::Change(thing) => drop(self.change(thing)),
            Step::Tell(instance) => {
                if let Some((thing, version)) = self.news[instance].pop_front() {
                    self.hear(&instances[instance].0, instance, thing, version);
                }
            }
            Step::Return(instance) => {
                self.news[instance].clear();
                self.told[instance] = self.database;
                instances[instance].0.forget_all();
            }
            Step::Ask(..) | Step::Read(_) | Step::Answer(_) | Step::Leave(_) => {}
        }
    }
}

const IDS: [Uuid; 3] = [Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3)];

/// Half of the readers ask each instance.
fn place(reader: usize) -> usize {
    reader % 2
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn whatever_the_order_nothing_is_given_that_was_told_to_be_old_before_it_was_asked_for(steps in prop::collection::vec(step(), 0..80)) {
        let instances = [shelf(1 << 20), shelf(1 << 20)];
        let now = Instant::now();
        let mut world = World::default();
        let mut readers: [Reader<'_>; 8] = std::array::from_fn(|_| Reader::Idle);
        for step in steps {
            match step {
                Step::Ask(reader, thing) => {
                    let floor = world.told[place(reader)].of(thing);
                    let (key, subject) = match IDS.get(thing) {
                        Some(id) => (Key::id(&SHOWN, *id), Subject::One(THINGS, *id)),
                        None => (Key::query(&LISTED, None), Subject::All(THINGS)),
                    };
                    readers[reader] = match instances[place(reader)].1.find(&key, subject, now) {
                        Found::Kept(kept) => {
                            prop_assert!(said(&kept) >= floor, "kept {} after {floor}", said(&kept));
                            Reader::Idle
                        }
                        Found::Coming(coming) => Reader::Waiting { coming, floor },
                        Found::Early(..) | Found::Stale(_) => unreachable!("neither is asked for here"),
                        Found::Nothing(making) => Reader::Making { making, thing, read: None, floor },
                    };
                }
                Step::Read(reader) => {
                    if let Reader::Making { thing, read, .. } = &mut readers[reader] {
                        *read = Some(world.database.of(*thing));
                    }
                }
                Step::Answer(reader) => {
                    if let Reader::Making { read: Some(read), floor, .. } = &readers[reader] {
                        prop_assert!(read >= floor);
                        let (read, making) = (*read, std::mem::replace(&mut readers[reader], Reader::Idle));
                        if let Reader::Making { making, .. } = making {
                            making.made(&SHOWN, Some(text(&read.to_string())), Duration::ZERO);
                        }
                    }
                }
                Step::Leave(reader) => readers[reader] = Reader::Idle,
                other => world.turn(&instances, &other),
            }
            for reader in &mut readers {
                let Reader::Waiting { coming, floor } = reader else { continue };
                let outcome = coming.borrow().clone();
                match outcome {
                    Some(Outcome::Made(kept)) => prop_assert!(said(&kept) >= *floor, "waited for {} after {floor}", said(&kept)),
                    None if coming.has_changed().is_ok() => continue,
                    _ => {}
                }
                *reader = Reader::Idle;
            }
        }
        drop(readers);
        // Nothing that was begun is left over, and everybody can be answered.
        for (_, shelf) in &instances {
            for id in IDS {
                prop_assert!(!matches!(shelf.find(&Key::id(&SHOWN, id), Subject::One(THINGS, id), now), Found::Coming(_)));
            }
        }
    }
}
