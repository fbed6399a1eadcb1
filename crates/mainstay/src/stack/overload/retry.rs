//! When it is worth to come again: what `Retry-After` says.

use super::Micros;

const SECOND_US: Micros = 1_000_000;
/// No longer than this: a machine that is well again in half a minute should not stand empty.
const MAX_S: u64 = 30;

/// Requests admitted and refused in the present second and in the one before.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    second: u64,
    admitted: [u64; 2],
    refused: [u64; 2],
    told: u64,
}

impl Pressure {
    fn turn(&mut self, now: Micros) {
        let second = now / SECOND_US;
        if second > self.second {
            let next = second == self.second + 1;
            for counts in [&mut self.admitted, &mut self.refused] {
                *counts = [0, if next { counts[0] } else { 0 }];
            }
            self.second = second;
        }
    }

    /// A request is worked on.
    pub(super) fn admitted(&mut self, now: Micros) {
        self.turn(now);
        self.admitted[0] += 1;
    }

    /// A request is not. Says after how many seconds to come again.
    ///
    /// Where `n` times as many are refused as admitted, those who were refused in one second fit into the next `n`, one part after the other. Where nothing
    /// comes back, what has lasted so long is as likely to last as long again (J. R. Gott, "Implications of the Copernican principle", Nature 363, 1993).
    /// From two seconds on, clients are spread over half as much again, by a sequence that leaves no gaps (the golden ratio's), so that
    /// those refused together do not come back together.
    pub(super) fn refused(&mut self, now: Micros, stalled_for: Option<Micros>) -> u64 {
        self.turn(now);
        self.refused[0] += 1;
        let [refused, admitted] = [&self.refused, &self.admitted].map(|counts| counts[0] + counts[1]);
        let surplus = refused / admitted.max(1);
        let base = stalled_for.map_or(surplus, |stalled| stalled / SECOND_US).clamp(1, MAX_S * 2 / 3);
        self.told = self.told.wrapping_add(1);
        // The upper half of a product modulo 2^64 is as evenly spread as the sequence.
        let spread = self.told.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        base + ((spread * (base / 2 + 1)) >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_enough_where_most_are_admitted() {
        let mut pressure = Pressure::default();
        (0..100).for_each(|_| pressure.admitted(0));
        assert_eq!([0; 50].map(|now| pressure.refused(now, None)), [1; 50]);
    }

    #[test]
    fn the_surplus_is_spread_over_the_seconds_that_it_fills() {
        let mut pressure = Pressure::default();
        pressure.admitted(5 * SECOND_US);
        let told: Vec<u64> = (0..2000).map(|_| pressure.refused(5 * SECOND_US, None)).collect();
        assert!(told.iter().all(|seconds| (1..=MAX_S).contains(seconds)));
        let last = &told[1000..];
        assert_eq!((last.iter().min(), last.iter().max()), (Some(&20), Some(&30)));
        for second in 20..=30 {
            let share = last.iter().filter(|told| **told == second).count();
            assert!((80..=100).contains(&share), "{second} s was told {share} times of 1,000");
        }
        assert_eq!(pressure.refused(60 * SECOND_US, None), 1, "that was long ago");
    }

    #[test]
    fn a_stall_is_expected_to_last_as_long_again() {
        for (lasted, told) in [(0, 1), (1, 1), (4, 4), (300, 20)] {
            let seconds = Pressure::default().refused(0, Some(lasted * SECOND_US));
            assert!((told..=told + told / 2).contains(&seconds), "{lasted} s: {seconds}");
        }
    }
}
