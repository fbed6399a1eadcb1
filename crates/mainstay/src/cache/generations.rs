//! What has changed, as counts: an answer is good while the counts of what it was made of stand still.
//!
//! Who makes an answer notes the stamp before it asks the database. A change raises the stamp after its commit. So an answer that may have been made of
//! the state before a change has a stamp that no longer stands, however late it comes: nothing has to be found and taken out, and nothing can be put in
//! behind a change's back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::position::{Position, Positions};
use crate::news::{LEASE, Memory, Reading, Told};

/// Without news an answer is believed for as long as a reading of the log is.
const KEPT_UNTOLD: Duration = LEASE;
/// Things share counts by their hash, 512 KiB of them. A change of one thing costs a needless query of another that is kept once in 65,536 times.
const COUNTS: usize = 1 << 16;

/// A kind of things, by the name that the triggers give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(u64);

impl Kind {
    /// The kind of this name.
    pub const fn new(name: &str) -> Self {
        // FNV-1a: a constant of the program, so nobody chooses what meets.
        let (bytes, mut hash, mut at) = (name.as_bytes(), 0xcbf2_9ce4_8422_2325_u64, 0);
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
            at += 1;
        }
        Self(hash)
    }
}

/// What an answer was made of, and what changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// One thing.
    One(Kind, Uuid),
    /// All things of a kind: an answer made of them changes with any of them.
    All(Kind),
}

/// A state of what an answer was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    subject: Subject,
    sum: u64,
}

/// The counts.
pub(super) struct Generations {
    told: Told,
    /// Rises when anything may have changed.
    everything: AtomicU64,
    counts: Box<[AtomicU64]>,
    positions: Positions,
    changes: AtomicU64,
}

/// Three counts that a kind or a thing has.
#[derive(Clone, Copy)]
enum Count {
    /// Rises with changes of this thing.
    One(Kind, Uuid),
    /// Rises when any thing of the kind changes.
    Any(Kind),
    /// Rises when every thing of the kind may have changed.
    Every(Kind),
}

impl Generations {
    pub(super) fn new(now: Instant) -> Self {
        let counts = std::iter::repeat_with(AtomicU64::default).take(COUNTS).collect();
        Self { told: Told::new(now), everything: AtomicU64::new(0), counts, positions: Positions::new(COUNTS), changes: AtomicU64::new(0) }
    }

    fn slot(count: Count) -> usize {
        let hash = match count {
            // The bits of a UUID of version 4 are random but for six.
            Count::One(Kind(kind), id) => kind ^ id.as_u64_pair().0.rotate_left(20) ^ id.as_u64_pair().1,
            Count::Any(Kind(kind)) => kind,
            Count::Every(Kind(kind)) => !kind,
        };
        // Fibonacci hashing: the upper bits of the product depend on all bits. Less than `COUNTS`, which is their number.
        (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % COUNTS
    }

    fn count(&self, count: Count) -> &AtomicU64 {
        &self.counts[Self::slot(count)]
    }

    /// The state now. Taken before the database is asked.
    pub(super) fn stamp(&self, subject: Subject) -> Stamp {
        let read = |count: &AtomicU64| count.load(Ordering::Acquire);
        // All of them only rise, so a sum stands still exactly as long as each of them does. One that rises while the sum is made belongs to a change
        // whose writer has not been answered yet: before it or after it, both are right.
        let of = match subject {
            Subject::One(kind, id) => read(self.count(Count::One(kind, id))).wrapping_add(read(self.count(Count::Every(kind)))),
            Subject::All(kind) => read(self.count(Count::Any(kind))),
        };
        Stamp { subject, sum: of.wrapping_add(read(&self.everything)) }
    }

    /// Has nothing changed since?
    pub(super) fn is(&self, stamp: Stamp) -> bool {
        self.stamp(stamp.subject) == stamp
    }

    /// May an answer to a question that was asked then, with this stamp, be given now?
    pub(super) fn stands(&self, stamp: Stamp, asked: Instant, now: Instant) -> bool {
        self.is(stamp) && (self.told.holds(now) || now.saturating_duration_since(asked) < KEPT_UNTOLD)
    }

    /// Until when changes are told, or were; nothing if all changes are made by this process.
    pub(super) fn told_until_when(&self) -> Option<Instant> {
        self.told.end()
    }

    /// This process changed this.
    pub(super) fn forget(&self, subject: Subject) {
        self.change(subject, |slot| self.positions.wrote(Some(slot)));
    }

    /// The counts that rise with a change, each after `note` was told of its slot.
    fn change(&self, subject: Subject, note: impl Fn(usize)) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        let rise = |count| {
            note(Self::slot(count));
            self.count(count).fetch_add(1, Ordering::AcqRel);
        };
        match subject {
            Subject::One(kind, id) => [Count::One(kind, id), Count::Any(kind)].into_iter().for_each(rise),
            Subject::All(kind) => [Count::Every(kind), Count::Any(kind)].into_iter().for_each(rise),
        }
    }

    /// Anything may have changed.
    fn change_all(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.everything.fetch_add(1, Ordering::AcqRel);
    }

    /// What the words of the log name; nothing if they name what this release does not know.
    fn named(subject: &str) -> Option<Vec<Subject>> {
        let Some((kind, ids)) = subject.split_once('/') else { return Some(vec![Subject::All(Kind::new(subject))]) };
        ids.split(',').map(|id| Some(Subject::One(Kind::new(kind), Uuid::try_parse(id).ok()?))).collect()
    }

    /// How far an answer reaches that is asked for from now on, for other instances. Nothing while changes are not told.
    pub(super) fn position(&self, now: Instant) -> Option<Position> {
        self.positions.now().filter(|_| self.told.holds(now))
    }

    /// How far an answer of another instance must reach to be believed here. Nothing if none is.
    pub(super) fn needed(&self, subject: Subject, now: Instant) -> Option<Position> {
        let slots = match subject {
            Subject::One(kind, id) => [Count::One(kind, id), Count::Every(kind)],
            Subject::All(kind) => [Count::Any(kind); 2],
        };
        self.positions.needed(&slots.map(Self::slot)).filter(|_| self.told.holds(now))
    }

    /// Changes so far.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }
}

impl Memory for Generations {
    fn hear(&self, subject: &str) {
        match Self::named(subject) {
            Some(subjects) => subjects.into_iter().for_each(|subject| self.forget(subject)),
            None => self.forget_all(),
        }
    }

    fn forget_all(&self) {
        self.positions.wrote(None);
        self.change_all();
    }

    fn asking(&self) {
        self.positions.asking();
    }

    fn read(&self, reading: &Reading<'_>) {
        let Reading { server, ended, begun, first, changed, newest } = *reading;
        let subjects = changed.map(Self::named);
        // Of many things it is not said which transaction was the newest: none that this reading saw is newer than all that had begun.
        let before = newest.map_or(begun, |newest| newest + 1);
        let mut missed = first;
        match subjects {
            _ if first => {}
            None => {}
            Some(None) => missed = true,
            Some(Some(subjects)) => subjects.into_iter().for_each(|subject| {
                let before = if matches!(subject, Subject::All(_)) { begun } else { before };
                self.change(subject, |slot| self.positions.heard(Some(slot), before));
            }),
        }
        self.positions.read(Position { server, before: ended }, missed.then_some(begun));
        if missed {
            self.change_all();
        }
    }

    fn told_until(&self, until: Instant) {
        self.told.until(until);
    }

    fn alone(&self) {
        self.told.alone();
    }

    fn lost(&self, now: Instant) {
        // When it was told for the last time is remembered: it says how old an answer may be.
        if self.told.holds(now) {
            self.told.until(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Kind = Kind::new("a");
    const B: Kind = Kind::new("b");

    #[test]
    fn a_change_moves_the_stamps_of_what_it_touches_and_no_others() {
        let generations = Generations::new(Instant::now());
        let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
        let subjects = [Subject::One(A, one), Subject::One(A, other), Subject::All(A), Subject::One(B, one), Subject::All(B)];
        let moved = |change: &dyn Fn()| {
            let before = subjects.map(|subject| generations.stamp(subject));
            change();
            before.map(|stamp| !generations.is(stamp))
        };
        assert_eq!(moved(&|| generations.hear(&format!("a/{one}"))), [true, false, true, false, false]);
        assert_eq!(moved(&|| generations.hear(&format!("a/{one},{other}"))), [true, true, true, false, false]);
        assert_eq!(moved(&|| generations.hear("a")), [true, true, true, false, false]);
        assert_eq!(moved(&|| generations.hear("c")), [false; 5]);
        for unknown in ["a/", "a/x", &format!("a/{one},x")] {
            assert_eq!(moved(&|| generations.hear(unknown)), [true; 5], "{unknown}");
        }
        assert_eq!(moved(&|| generations.forget_all()), [true; 5]);
    }

    #[test]
    fn without_news_an_answer_stands_for_a_tenth_of_a_second() {
        let now = Instant::now();
        let generations = Generations::new(now);
        let stamp = generations.stamp(Subject::All(A));
        let after = |ms| generations.stands(stamp, now, now + Duration::from_millis(ms));
        assert!(after(1_000_000));
        generations.told_until(now + Duration::from_secs(1));
        assert!(after(999) && !after(1_000), "the news ended");
        generations.told_until(now);
        assert!(after(99) && !after(100));
    }
}
