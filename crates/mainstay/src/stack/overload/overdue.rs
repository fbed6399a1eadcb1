//! How many of the requests in flight are overdue: what is known of a database that has stopped answering, when nothing completes that could be measured.
//!
//! A wheel of counts: each request stands in the slot of the moment at which it will be overdue. Coming and going is one addition, whatever is in flight.

use super::Micros;

/// The grain of the wheel.
const SLOT_US: Micros = 32_000;
/// Longer than anything is looked ahead (10 s).
const SLOTS: usize = 512;

/// The wheel.
#[derive(Debug)]
pub(super) struct Overdue {
    slots: Box<[u32]>,
    /// Slots before this one have passed.
    now: u64,
    overdue: usize,
}

/// Where a request stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due(u64);

impl Overdue {
    pub(super) fn new() -> Self {
        Self { slots: vec![0; SLOTS].into(), now: 0, overdue: 0 }
    }

    fn slot(&mut self, at: u64) -> &mut u32 {
        // The remainder is less than the number of slots.
        #[allow(clippy::cast_possible_truncation)]
        &mut self.slots[(at % SLOTS as u64) as usize]
    }

    /// A request that is overdue at this time.
    pub(super) fn enter(&mut self, at: Micros, now: Micros) -> Due {
        // Nobody may have looked for longer than the wheel is round: the slot would be one that has passed.
        self.count(now);
        let due = (at / SLOT_US + 1).clamp(self.now, self.now + SLOTS as u64 - 1);
        *self.slot(due) += 1;
        Due(due)
    }

    /// It is no longer in flight.
    pub(super) fn leave(&mut self, due: Due) {
        if due.0 < self.now {
            self.overdue -= 1;
        } else {
            *self.slot(due.0) -= 1;
        }
    }

    /// How many are overdue by now.
    pub(super) fn count(&mut self, now: Micros) -> usize {
        let until = now / SLOT_US;
        // After a long silence one round has seen all.
        for at in self.now..until.min(self.now + SLOTS as u64) {
            self.overdue += std::mem::take(self.slot(at)) as usize;
        }
        self.now = self.now.max(until);
        self.overdue
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn after_a_silence_longer_than_the_wheel_nobody_is_overdue_who_has_just_come() {
        let mut wheel = Overdue::new();
        let now = SLOT_US * (SLOTS as u64 + 9);
        let dues: Vec<_> = (0..40).map(|_| wheel.enter(now + 100_000, now)).collect();
        assert_eq!(wheel.count(now), 0);
        assert_eq!(wheel.count(now + 200_000), 40);
        dues.into_iter().for_each(|due| wheel.leave(due));
        assert_eq!(wheel.count(now + 200_000), 0);
    }

    proptest! {
        #[test]
        fn whoever_is_overdue_is_counted_within_a_slot_and_nobody_twice(acts in prop::collection::vec((0u64..12_000_000, 0u64..500_000, any::<bool>()), 0..200)) {
            let (mut wheel, mut now, mut inside) = (Overdue::new(), 0, Vec::new());
            for (ahead, passes, leaves) in acts {
                inside.push((now + ahead, wheel.enter(now + ahead, now)));
                now += passes;
                if leaves {
                    wheel.leave(inside.remove(0).1);
                }
                let count = wheel.count(now);
                let late = |grain: Micros| inside.iter().filter(|(due, _)| due + grain < now).count();
                prop_assert!((late(2 * SLOT_US)..=late(0)).contains(&count), "{count} of {} to {}", late(2 * SLOT_US), late(0));
            }
            for (_, due) in inside {
                wheel.leave(due);
            }
            prop_assert_eq!(wheel.count(now + 60_000_000), 0);
        }
    }
}
