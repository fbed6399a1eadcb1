//! A pace: some tries are free, then the pause before the next one doubles from a second up to a longest one.
//!
//! Promises: in any window, however placed, there are never more than [`Pace::most_within`] of it; who waits as told passes.

use std::collections::VecDeque;
use std::time::Duration;

/// The pause before the first try that is not free; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(1);

/// How fast tries may follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Tries within the window without a pause.
    pub free: u32,
    /// The longest pause.
    pub longest: Duration,
}

impl Pace {
    /// The pause since the last try, before one that has `before` others in its window.
    fn pause(self, before: u32) -> Duration {
        match before.checked_sub(self.free) {
            None => Duration::ZERO,
            Some(further) => FIRST.saturating_mul(1u32.checked_shl(further).unwrap_or(u32::MAX)).min(self.longest),
        }
    }

    /// The most tries in any half-open span of this length, if that is what the pace looks back on: the try after `n` others of such a span sees at least
    /// those, so they stand at least the pauses before the first, second and so on apart, and the sum of these outgrows the span.
    pub fn most_within(self, window: Duration) -> u32 {
        if window.is_zero() {
            return 0;
        }
        let (mut tries, mut took) = (self.free.max(1), Duration::ZERO);
        loop {
            let pause = self.pause(tries);
            if pause >= self.longest {
                // From here on every pause is the same; without one there is no end.
                let left = window.saturating_sub(took).as_nanos().saturating_sub(1);
                let more = left.checked_div(self.longest.as_nanos()).unwrap_or(u128::MAX);
                return tries.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
            }
            took = took.saturating_add(pause);
            if took >= window {
                return tries;
            }
            tries = tries.saturating_add(1);
        }
    }

    /// How long the next try has to wait, if these were the ones before it, in their order.
    pub(super) fn wait(self, window: Duration, tries: impl Iterator<Item = Duration>, now: Duration) -> Duration {
        let (mut before, mut last) = (0u32, None);
        for at in tries.filter(|at| is_within(window, *at, now)) {
            before = before.saturating_add(1);
            last = Some(at);
        }
        last.map_or(Duration::ZERO, |last| last.saturating_add(self.pause(before)).saturating_sub(now))
    }
}

/// Does a window that ends at `now` still hold what was at `at`?
pub(super) fn is_within(window: Duration, at: Duration, now: Duration) -> bool {
    at.saturating_add(window) > now
}

/// Lets go of what the window has passed over.
pub(super) fn forget<T>(tries: &mut VecDeque<T>, window: Duration, now: Duration, at: impl Fn(&T) -> Duration) {
    while tries.pop_front_if(|first| !is_within(window, at(first), now)).is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn after_the_free_ones_the_pause_doubles_up_to_the_longest() {
        let pace = Pace { free: 3, longest: 10 * S };
        let pauses: Vec<u64> = (0..9).map(|before| pace.pause(before).as_secs()).collect();
        assert_eq!(pauses, [0, 0, 0, 1, 2, 4, 8, 10, 10]);
        assert_eq!((pace.pause(35), pace.pause(u32::MAX)), (10 * S, 10 * S));
    }

    #[test]
    fn the_most_is_what_the_pauses_leave_room_for() {
        let pace = Pace { free: 3, longest: 10 * S };
        // At 0, 0, 0, 1, 3, 7, 15, 25, 35 s; the next one would come at 45 s.
        assert_eq!((pace.most_within(35 * S), pace.most_within(36 * S), pace.most_within(45 * S), pace.most_within(46 * S)), (8, 9, 9, 10));
        assert_eq!(Pace { free: 0, longest: Duration::ZERO }.most_within(S), u32::MAX);
        assert_eq!(pace.most_within(Duration::ZERO), 0);
    }

    proptest! {
        #[test]
        fn however_fast_somebody_tries_no_window_holds_more_than_the_most(
            free in 0u32..6, longest_s in 1u32..20, window_s in 5u32..120, gaps_ms in prop::collection::vec(0u64..4000, 0..300),
        ) {
            let (pace, window) = (Pace { free, longest: longest_s * S }, window_s * S);
            let (mut now, mut admitted) = (Duration::ZERO, Vec::new());
            for gap in gaps_ms {
                now += Duration::from_millis(gap);
                let wait = pace.wait(window, admitted.iter().copied(), now);
                if wait.is_zero() {
                    admitted.push(now);
                } else {
                    prop_assert!(wait <= pace.longest);
                    prop_assert_eq!(pace.wait(window, admitted.iter().copied(), now + wait), Duration::ZERO, "waiting as told is enough");
                }
            }
            for (i, first) in admitted.iter().enumerate() {
                let within = admitted[i..].iter().take_while(|at| **at - *first < window).count();
                prop_assert!(within <= pace.most_within(window) as usize, "{within}");
            }
        }

        #[test]
        fn the_most_is_reached_by_somebody_who_waits_as_told(free in 0u32..6, longest_s in 1u32..20, window_s in 1u32..120) {
            let (pace, window) = (Pace { free, longest: longest_s * S }, window_s * S);
            let (mut now, mut admitted) = (Duration::ZERO, Vec::new());
            while now < window {
                let wait = pace.wait(window, admitted.iter().copied(), now);
                if wait.is_zero() {
                    admitted.push(now);
                }
                now += wait;
            }
            prop_assert_eq!(admitted.len(), pace.most_within(window) as usize);
        }
    }
}
