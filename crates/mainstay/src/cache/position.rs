//! How far into the changes of the database an answer reaches that another instance made, and how far one must reach to be believed here.
//!
//! An instance that makes an answer for others writes beside it how far the database was known to it before it asked: the oldest transaction that was
//! still running in the snapshot of its last reading of the log (`pg_snapshot_xmin`). Everything older had ended by then, so the answer holds it. An
//! instance that finds the answer knows for each thing the newest transaction that it was told of, and believes the answer if that is older than what
//! the answer holds. Neither clocks nor the order of messages come into it, only the database's own numbers.
//!
//! What this process wrote itself is known before the log tells its transaction. Until a reading that began later is here, nothing that others made of it
//! is believed.

use std::sync::atomic::{AtomicU64, Ordering};

/// How far the database is known, and which database that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// The server and its history: numbers of transactions of another one say nothing.
    pub(super) server: u64,
    /// Every transaction before this one has ended.
    pub(super) before: u64,
}

/// What this instance was told of one slot of things.
#[derive(Default)]
struct Slot {
    /// An answer must hold everything before this transaction.
    heard: AtomicU64,
    /// The number of the last write of our own that may not have been told yet.
    own: AtomicU64,
}

/// What this instance was told, by slots.
pub(super) struct Positions {
    slots: Box<[Slot]>,
    /// As the slots, for everything.
    all: Slot,
    /// Writes of our own so far.
    own: AtomicU64,
    /// Of those, the ones that were there when the reading under way began, and when the last whole one did.
    asked: AtomicU64,
    told: AtomicU64,
    server: AtomicU64,
    before: AtomicU64,
}

impl Positions {
    pub(super) fn new(slots: usize) -> Self {
        let slots = std::iter::repeat_with(Slot::default).take(slots).collect();
        let zero = || AtomicU64::new(0);
        Self { slots, all: Slot::default(), own: zero(), asked: zero(), told: zero(), server: zero(), before: zero() }
    }

    fn slot(&self, slot: Option<usize>) -> &Slot {
        slot.map_or(&self.all, |slot| &self.slots[slot])
    }

    /// This process wrote something there; nothing for everywhere. Called before the counts rise, so that who sees the count sees this.
    pub(super) fn wrote(&self, slot: Option<usize>) {
        let number = self.own.fetch_add(1, Ordering::AcqRel) + 1;
        self.slot(slot).own.fetch_max(number, Ordering::AcqRel);
    }

    /// A transaction before this one changed something there. Called before the counts rise.
    pub(super) fn heard(&self, slot: Option<usize>, before: u64) {
        self.slot(slot).heard.fetch_max(before, Ordering::AcqRel);
    }

    /// A reading of the log begins.
    pub(super) fn asking(&self) {
        self.asked.store(self.own.load(Ordering::Acquire), Ordering::Release);
    }

    /// The reading is here, and all of it was heard. It may be the first of a connection: then anything before `missed` may have changed.
    pub(super) fn read(&self, position: Position, missed: Option<u64>) {
        if self.server.load(Ordering::Acquire) != position.server {
            // Numbers of another history cannot be compared. Meanwhile there is no position.
            self.server.store(0, Ordering::Release);
            self.slots.iter().chain([&self.all]).for_each(|slot| slot.heard.store(0, Ordering::Release));
        }
        if let Some(missed) = missed {
            self.heard(None, missed);
        }
        self.before.store(position.before, Ordering::Release);
        self.server.store(position.server, Ordering::Release);
        self.told.store(self.asked.load(Ordering::Acquire), Ordering::Release);
    }

    /// How far an answer reaches that is asked for from now on. Nothing if no server was heard.
    pub(super) fn now(&self) -> Option<Position> {
        let position = Position { server: self.server.load(Ordering::Acquire), before: self.before.load(Ordering::Acquire) };
        (position.server != 0).then_some(position)
    }

    /// How far an answer made of these slots must reach to be believed. Nothing if none can be, because of a write of our own.
    pub(super) fn needed(&self, slots: &[usize]) -> Option<Position> {
        let told = self.told.load(Ordering::Acquire);
        let slots = slots.iter().map(|slot| &self.slots[*slot]).chain([&self.all]);
        let mut before = 0;
        for slot in slots {
            if slot.own.load(Ordering::Acquire) > told {
                return None;
            }
            before = before.max(slot.heard.load(Ordering::Acquire));
        }
        Some(Position { server: self.now()?.server, before })
    }
}
