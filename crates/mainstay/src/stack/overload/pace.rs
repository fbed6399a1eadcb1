//! How fast refusals are told. A few cost nothing; to those who come again as soon as they are refused, without a limit, a service would do nothing else.
//!
//! A refusal is cheap, some 20 µs of a core, but not free: clients that hammer send 50,000 a second on one, which is all of it. So many as are next to
//! nothing are told at once, and what comes beyond is kept back until its turn: a connection that waits does not ask. It is a bucket of tokens (ITU-T
//! I.371, the generic cell rate algorithm), in which who finds none takes one of those to come.
//!
//! Pure: the time is an argument.

use super::Micros;

/// Told at once, a second and for each core: 2 % of it, and more than people who come again when they were asked to.
const PER_CORE_A_SECOND: usize = 1_000;
/// What was not used is there for a burst, this long.
const BURST_US: Micros = 1_000_000;
/// Nothing is kept back longer: the least that `Retry-After` can say is as long, so whoever heeds it would not have been here again.
const HOLD_MAX_US: Micros = 1_000_000;
/// Those whose turn comes within so long of each other are told together: to wake a core that is at work for each of them costs more than the refusals.
const TOGETHER_US: Micros = 10_000;
/// So many are kept back at a time, a few KiB each; one more is told at once. Fewer than half of the connections, which those with a place need as well.
const HELD_MAX: usize = 4_096;

/// What a refused request is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    /// To come again in so many seconds.
    pub(super) after_s: u64,
    /// And that in so long. Not zero: whoever has it gives it back ([`Pace::told`]) when it is told, or when nobody is there any more.
    pub(super) hold: Micros,
}

/// When the next refusal is told.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Micros,
    /// The turn of the next one, were there no bursts.
    next: Micros,
    held: usize,
}

impl Pace {
    /// For a machine of so many cores.
    pub(super) fn new(cores: usize) -> Self {
        let a_second = cores.saturating_mul(PER_CORE_A_SECOND).max(1) as Micros;
        Self { interval: (1_000_000 / a_second).max(1), next: 0, held: 0 }
    }

    /// A request is refused: how long that is kept back.
    pub(super) fn refuse(&mut self, now: Micros) -> Micros {
        let turn = self.next.max(now);
        let hold = (turn - now).saturating_sub(BURST_US).min(HOLD_MAX_US - TOGETHER_US);
        self.next = (turn + self.interval).min(now + BURST_US + HOLD_MAX_US);
        if hold == 0 || self.held >= HELD_MAX {
            return 0;
        }
        self.held += 1;
        (now + hold).next_multiple_of(TOGETHER_US) - now
    }

    /// One that was kept back is told now.
    pub(super) fn told(&mut self) {
        self.held -= 1;
    }

    /// Those kept back.
    pub(super) fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Micros = 1_000_000;

    #[test]
    fn those_who_come_when_they_were_asked_to_are_told_at_once() {
        let mut pace = Pace::new(2);
        assert!((0..20_000).all(|number| pace.refuse(number * 500) == 0), "2,000 a second");
        assert!((0..2_000).all(|_| pace.refuse(20 * SECOND) == 0), "and as many in a burst");
    }

    #[test]
    fn those_who_hammer_are_told_no_more_than_the_pace() {
        let (mut pace, mut told) = (Pace::new(1), 0);
        // Each of 400 asks again when it is told.
        let mut due = [0; 400];
        for now in (0..10 * SECOND).step_by(100) {
            for at in &mut due {
                if *at <= now {
                    let hold = pace.refuse(now);
                    *at = now + hold.max(1);
                    told += 1;
                    if hold > 0 {
                        pace.told();
                    }
                }
            }
        }
        assert!((10_000..=11_500).contains(&told), "{told} in ten seconds, with a burst of one");
    }

    #[test]
    fn nobody_is_kept_back_who_would_be_one_too_many() {
        let mut pace = Pace::new(1);
        let held = (0..20_000).filter(|_| pace.refuse(0) > 0).count();
        assert_eq!((held, pace.held()), (HELD_MAX, HELD_MAX));
        pace.told();
        assert!(pace.refuse(0) > 0, "one has gone");
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_a_second_and_all_is_well_soon_after(gaps in prop::collection::vec(0u64..5_000, 0..5_000), cores in 0usize..200) {
            let (mut pace, mut now) = (Pace::new(cores), 0);
            for gap in gaps {
                now += gap;
                prop_assert!(pace.refuse(now) <= HOLD_MAX_US);
            }
            now += BURST_US + HOLD_MAX_US;
            prop_assert_eq!(pace.refuse(now), 0);
        }
    }
}
