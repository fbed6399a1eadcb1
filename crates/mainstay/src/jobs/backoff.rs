//! When a failed job is tried again: a wait that doubles, of which a random part is waited, so that jobs which failed together do not come back together.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

/// The first wait is at most this. A mail server that greylists lets in what comes again after a few minutes, and the third try is there.
const BASE: Duration = Duration::from_secs(20);
/// No wait is longer: what was repaired is used within the hour.
pub(super) const LONGEST: Duration = Duration::from_secs(60 * 60);
/// A wait of nothing would be no wait: whatever failed is still failing.
const SHORTEST: Duration = Duration::from_secs(1);

/// How long to wait after the try of this number (the first is 1); `chance` is from 0 to 1.
///
/// Full jitter (M. Brooker, "Exponential Backoff And Jitter", 2015): uniform between nothing and the whole wait, here from a second on.
#[must_use]
pub fn backoff(attempt: i64, chance: f64) -> Duration {
    // Beyond the thirtieth doubling the longest wait has been reached long ago.
    let doublings = u32::try_from(attempt.clamp(1, 30) - 1).unwrap_or(0);
    let whole = BASE.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST);
    whole.mul_f64(chance.clamp(0.0, 1.0)).max(SHORTEST)
}

/// Where waits get their randomness from: a number from 0 to 1.
#[derive(Clone)]
pub struct Chance(Arc<dyn Fn() -> f64 + Send + Sync>);

impl Chance {
    /// The system's randomness.
    #[must_use]
    pub fn system() -> Self {
        let random = SystemRandom::new();
        Self::from_fn(move || {
            let mut bytes = [0; 4];
            // Without randomness the middle: waits are spread by it, nothing is kept secret.
            random.fill(&mut bytes).map_or(0.5, |()| f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
        })
    }

    /// What `chance` says.
    pub fn from_fn(chance: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(chance))
    }

    /// The next number.
    #[must_use]
    pub fn next(&self) -> f64 {
        (self.0)()
    }
}

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chance")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wait_is_never_shorter_than_a_second_nor_longer_than_an_hour(attempt in any::<i64>(), chance in any::<f64>().prop_filter("a number", |chance| !chance.is_nan())) {
            let wait = backoff(attempt, chance);
            prop_assert!((SHORTEST..=LONGEST).contains(&wait), "{wait:?}");
        }

        #[test]
        fn the_longest_possible_wait_never_shrinks(attempt in 1_i64..100) {
            prop_assert!(backoff(attempt + 1, 1.0) >= backoff(attempt, 1.0));
        }
    }

    #[test]
    fn the_wait_doubles_until_it_is_an_hour() {
        let waits: Vec<_> = (1..=10).map(|attempt| backoff(attempt, 1.0).as_secs()).collect();
        assert_eq!(waits, [20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
        assert_eq!(backoff(3, 0.5).as_secs(), 40, "half of it by chance");
    }

    #[test]
    fn the_systems_chance_is_from_nothing_to_one() {
        let chance = Chance::system();
        let drawn: Vec<_> = (0..100).map(|_| chance.next()).collect();
        assert!(drawn.iter().all(|number| (0.0..=1.0).contains(number)));
        assert!(drawn.iter().any(|number| *number != drawn[0]));
    }
}
