//! The samples of a while, and what they say together.

use super::Micros;
use super::baseline::as_f64;
use super::limit::TOLERANCE;

/// A window is closed with 16 samples or more, after 50 ms or more, and when the error of its mean is small against the tolerance; 256 samples or a second do in any
/// case.
const SAMPLES_MIN: u32 = 16;
const SAMPLES_ENOUGH: u32 = 256;
const WINDOW_MIN_US: Micros = 50_000;
const WINDOW_ENOUGH_US: Micros = 1_000_000;
const ERROR_SMALL: f64 = 0.15;
/// Six do where their mean is far above what is tolerated, by this many of its errors.
const SAMPLES_CLEAR: u32 = 6;
const CLEAR: f64 = 2.0;
/// A service with few requests closes it with four after two seconds.
const SAMPLES_FEW: u32 = 4;
const WINDOW_LONG_US: Micros = 2_000_000;
/// A reduction teaches something when there are fewer requests in flight by this factor.
pub(super) const FEWER: f64 = 0.7;
/// Of what a queue would give back (all of it: 1), this much has to come for the wait to have been one.
pub(super) const ELASTIC: f64 = 0.5;

/// What a window showed: the mean distance from the usual, its standard error, the mean number in flight, and the mean time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) distance: f64,
    /// The same, with single ones as far above as they are.
    pub(super) far: f64,
    pub(super) error: f64,
    pub(super) together: f64,
    pub(super) took_us: f64,
}

impl Seen {
    /// How much less time did fewer requests at once take, as a part of what it would be if they had waited for each other (in proportion, by Little's law; distances have
    /// this allowance in them)? `None`: they were not fewer.
    pub(super) fn elastic(self, before: Self, allowance_us: f64) -> Option<f64> {
        let left = self.together.max(1.0) / before.together;
        let queue = ((before.took_us + allowance_us) / (before.took_us * left + allowance_us)).ln();
        (left <= FEWER).then_some((before.far - self.far) / queue)
    }
}

/// The samples of a while.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) began: Micros,
    count: u32,
    sum: f64,
    pub(super) far: f64,
    squares: f64,
    together: f64,
    took: Micros,
    pub(super) peak: usize,
    /// Somebody waited or was refused.
    pub(super) wanted: bool,
}

impl Window {
    pub(super) fn beginning(began: Micros) -> Self {
        Self { began, ..Self::default() }
    }

    /// A sample: its distance from the usual, within bounds and `far`, its time, and how many were in flight when it ended.
    pub(super) fn add(&mut self, distance: f64, far: f64, took: Micros, in_flight: usize) {
        self.count += 1;
        self.sum += distance;
        self.far += far;
        self.squares += distance * distance;
        self.took += took;
        self.together += as_f64(in_flight as u64);
    }

    pub(super) fn mean_time(&self) -> Micros {
        self.took / u64::from(self.count.max(1))
    }

    /// What it showed so far.
    pub(super) fn seen(&self) -> Seen {
        let count = f64::from(self.count.max(1));
        let distance = self.sum / count;
        let variance = (self.squares / count - distance * distance).max(0.0);
        Seen {
            distance,
            far: self.far / count,
            error: (variance / count).sqrt(),
            together: self.together / count,
            took_us: as_f64(self.took) / count,
        }
    }

    /// Is it time to judge it? Early, if it is `urgent` and clear: an experiment is no hurry, and those that come back together waited in the same queue.
    pub(super) fn full(&self, now: Micros, urgent: bool) -> bool {
        let length = now.saturating_sub(self.began);
        if self.count < SAMPLES_MIN {
            let seen = self.seen();
            if urgent && self.count >= SAMPLES_CLEAR && length >= WINDOW_MIN_US && seen.distance - CLEAR * seen.error > TOLERANCE {
                return true;
            }
            return length >= WINDOW_LONG_US && self.count >= SAMPLES_FEW;
        }
        length >= WINDOW_MIN_US && (length >= WINDOW_ENOUGH_US || self.count >= SAMPLES_ENOUGH || self.seen().error <= ERROR_SMALL)
    }
}
