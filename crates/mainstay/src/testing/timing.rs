//! Do two things take the same time? A judgement that is fair on a noisy machine, because it assumes nothing of the noise.
//!
//! Times are taken in pairs, one of each right after the other, and in turns which one comes first: what slows the machine for a while slows both. Of each pair only the
//! ratio counts, and of the ratios their median, so an outlier is one of many whatever its size. The interval is that of the sign test (order statistics of the median, B. W. Brown and
//! M. Hollander, "Statistics", 1977): right for every distribution, in 999 of 1,000 cases. The judgement is one of equivalence: [`Verdict::Same`] says that the whole interval lies
//! within the tolerance, not only that no difference was found.

use std::fmt;
use std::time::Duration;

/// The chance on each side that the interval misses the median.
const MISS: f64 = 0.0005;

/// Times of two things, A and B, taken in pairs.
#[derive(Debug, Clone, Default)]
pub struct Pairs(Vec<(f64, f64)>);

/// What the pairs say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// Pairs.
    pub pairs: usize,
    /// The median of A's time over B's.
    pub ratio: f64,
    /// The lower end of its interval.
    pub low: f64,
    /// The upper end of its interval.
    pub high: f64,
    /// The chance that a time of A is longer than one of B, ties by halves (Mann and Whitney's U over all pairs): what somebody learns who measures once. A half is nothing.
    pub longer: f64,
}

/// A judgement about a tolerance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The difference is smaller.
    Same,
    /// The difference is larger.
    Different,
    /// Too few pairs for so much noise.
    Unclear,
}

impl Pairs {
    /// Adds a pair.
    pub fn push(&mut self, a: Duration, b: Duration) {
        // A clock that did not move would make a ratio of nothing.
        let seconds = |time: Duration| time.max(Duration::from_nanos(1)).as_secs_f64();
        self.0.push((seconds(a), seconds(b)));
    }

    /// How the times compare.
    #[must_use]
    pub fn compare(&self) -> Comparison {
        let mut ratios: Vec<f64> = self.0.iter().map(|(a, b)| a / b).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let pairs = ratios.len();
        let at = |rank: usize| ratios.get(rank).copied();
        let middle = |rank: usize| at(rank).unwrap_or(f64::NAN);
        let ratio = (middle(pairs.saturating_sub(1) / 2) + middle(pairs / 2)) / 2.0;
        let rank = rank_of_the_end(pairs);
        let low = rank.and_then(at).unwrap_or(0.0);
        let high = rank.and_then(|rank| at(pairs - 1 - rank)).unwrap_or(f64::INFINITY);
        Comparison { pairs, ratio, low, high, longer: self.longer() }
    }

    fn longer(&self) -> f64 {
        let others = || self.0.iter().map(|(_, b)| *b);
        let score = |a: f64| {
            others()
                .map(|b| {
                    if a > b {
                        1.0
                    } else if a < b {
                        0.0
                    } else {
                        0.5
                    }
                })
                .sum::<f64>()
        };
        self.0.iter().map(|(a, _)| score(*a)).sum::<f64>() / (self.0.len() * self.0.len()) as f64
    }
}

impl Comparison {
    /// Are the two within this part of each other (0.3: 30 %)?
    #[must_use]
    pub fn within(&self, tolerance: f64) -> Verdict {
        let (least, most) = (1.0 / (1.0 + tolerance), 1.0 + tolerance);
        if self.low > least && self.high < most {
            Verdict::Same
        } else if self.low > most || self.high < least {
            Verdict::Different
        } else {
            Verdict::Unclear
        }
    }

    /// The smallest difference that these pairs would have shown, as a part (0.05: 5 %).
    #[must_use]
    pub fn detectable(&self) -> f64 {
        (self.high / self.ratio).max(self.ratio / self.low) - 1.0
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pairs, ratio, low, high, longer } = self;
        write!(
            f,
            "{pairs} pairs: ratio {ratio:.3}, with 99.9 % certainty between {low:.3} and {high:.3}; differences from {:.1} % on would show; ",
            100.0 * self.detectable()
        )?;
        write!(f, "one measurement tells them apart with probability {:.3}", longer.max(1.0 - longer))
    }
}

/// The rank, from 0, of the lower end of the interval among so many sorted values: the largest with `P(X <= rank) <= MISS` for X of Binomial(count, 1/2). None when
/// even the smallest value is no end.
fn rank_of_the_end(count: usize) -> Option<usize> {
    // In logarithms: a half to the thousandth is next to nothing.
    let mut log_probability = -(count as f64) * std::f64::consts::LN_2;
    let (mut below, mut rank) = (0.0, None);
    for k in 0..count {
        below += log_probability.exp();
        if below > MISS {
            break;
        }
        rank = Some(k);
        log_probability += ((count - k) as f64 / (k + 1) as f64).ln();
    }
    rank
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Times of 20 ms each, with noise as machines make it: a few per cent mostly, and now and then the double or tenfold.
    fn noisy(unit_ms: f64) -> impl Strategy<Value = Duration> {
        let noise = prop_oneof![20 => 1.0f64..1.2, 2 => 1.5f64..2.5, 1 => 5.0f64..15.0];
        noise.prop_map(move |noise| Duration::from_secs_f64(unit_ms / 1000.0 * noise))
    }

    fn pairs(a_ms: f64, b_ms: f64, count: usize) -> impl Strategy<Value = Pairs> {
        prop::collection::vec((noisy(a_ms), noisy(b_ms)), count).prop_map(|times| {
            let mut pairs = Pairs::default();
            times.into_iter().for_each(|(a, b)| pairs.push(a, b));
            pairs
        })
    }

    #[test]
    fn the_ends_are_those_of_the_tables_of_the_sign_test() {
        // P(X <= 0) of eleven is 2^-11 = 0.00049; of ten it is 0.00098.
        assert_eq!((rank_of_the_end(0), rank_of_the_end(10), rank_of_the_end(11)), (None, None, Some(0)));
        // The usual approximation: n / 2 - 3.29 * sqrt(n) / 2.
        for count in [60usize, 1000, 4000] {
            let about = count as f64 / 2.0 - 3.29 * (count as f64).sqrt() / 2.0;
            assert!((rank_of_the_end(count).unwrap() as f64 - about).abs() < 2.0, "{count}");
        }
    }

    #[test]
    fn too_few_pairs_say_nothing() {
        let mut pairs = Pairs::default();
        assert_eq!(pairs.compare().within(0.3), Verdict::Unclear);
        (0..10).for_each(|_| pairs.push(Duration::from_millis(20), Duration::from_millis(1)));
        assert_eq!(pairs.compare().within(0.3), Verdict::Unclear);
        pairs.push(Duration::from_millis(20), Duration::ZERO);
        assert_eq!(pairs.compare().within(0.3), Verdict::Different);
    }

    #[test]
    fn what_is_told_can_be_read() {
        let mut pairs = Pairs::default();
        (0..20).for_each(|_| pairs.push(Duration::from_millis(22), Duration::from_millis(20)));
        let told = pairs.compare().to_string();
        assert!(told.starts_with("20 pairs: ratio 1.100, with 99.9 % certainty between 1.100 and 1.100; differences from 0.0 % on"), "{told}");
        assert!(told.ends_with("probability 1.000"), "{told}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_same_is_never_called_different_and_with_enough_pairs_it_is_called_the_same(few in pairs(20.0, 20.0, 40), many in pairs(20.0, 20.0, 400)) {
            prop_assert_ne!(few.compare().within(0.3), Verdict::Different);
            let many = many.compare();
            prop_assert_eq!(many.within(0.3), Verdict::Same, "{}", many);
            prop_assert!((many.longer - 0.5).abs() < 0.15 && many.detectable() < 0.1, "{}", many);
        }

        #[test]
        fn twice_as_long_is_never_called_the_same(few in pairs(40.0, 20.0, 40), turned in pairs(20.0, 40.0, 400)) {
            prop_assert_ne!(few.compare().within(0.3), Verdict::Same);
            prop_assert_eq!(turned.compare().within(0.3), Verdict::Different);
        }
    }
}
