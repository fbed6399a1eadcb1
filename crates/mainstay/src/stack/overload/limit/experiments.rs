//! The experiments: fewer at once, or more, for a moment, to see whether requests wait for each other.

use super::super::Micros;
use super::super::baseline::{OVERDUE_MIN_US, as_f64};
use super::super::window::{ELASTIC, FEWER, Seen};
use super::{DOUBT, Limit, Mode, PROBE_SOON_US, TOLERANCE};

/// No reduction is to less than a quarter. A wrong one is undone in one step.
const FALL_MAX: f64 = 0.25;
/// At the floor fewer can't be tried, so more are, by this factor: after so many windows there, and then more and more rarely, because in a queue each of them waits twice as long.
const WINDOWS_AT_FLOOR: u32 = 2;
const RAISE: f64 = 2.0;
const RAISE_PAUSE_MAX_US: Micros = 30_000_000;
/// Requests that take longer are overdue before twice as many of them have come back, and a range that is too narrow has no room for twice as many: what they show is the usual then.
const RAISE_UNTIL_US: f64 = OVERDUE_MIN_US;
/// Limits in use are halved no more rarely.
const PROBE_PAUSE_MAX_US: Micros = 10_000_000;
/// A find is a mean this much below the baseline: more than the error of the mean.
const PROBE_FIND: f64 = 0.15;

/// A reduction that gave back less than this part of a queue has shown in one window that there was none. Between this and [`ELASTIC`] it takes two.
const NOTHING: f64 = 0.2;

impl Limit {
    pub(super) fn fall(&mut self, seen: Seen, now: Micros) {
        if self.current <= self.floor {
            return self.near_floor(seen, now);
        }
        self.mode = Mode::Falling { from: self.current, seen };
        // What is not used cannot be taken away. Those who are late may all have come before the window.
        let used = self.current.min(seen.together.max(as_f64(self.window.peak as u64)));
        self.set(used * (TOLERANCE - seen.distance).exp().max(FALL_MAX), now);
    }

    /// There can be no fewer that would show anything, and these take longer than usual.
    pub(super) fn near_floor(&mut self, seen: Seen, now: Micros) {
        self.at_floor += 1;
        if self.at_floor < WINDOWS_AT_FLOOR || now < self.raise_at {
            return self.turn(now);
        }
        self.at_floor = 0;
        if seen.took_us >= RAISE_UNTIL_US || self.floor > self.ceiling * FEWER {
            self.baselines.move_to(seen.far);
            return self.turn(now);
        }
        self.mode = Mode::Raised { from: self.current, seen };
        self.set(self.current * RAISE, now);
    }

    pub(super) fn fallen(&mut self, from: f64, before: Seen, seen: Seen, now: Micros) {
        let share = seen.elastic(before, self.baselines.allowance_us());
        if share.is_some_and(|share| share < ELASTIC) && seen.distance > TOLERANCE * DOUBT {
            let surely = share.is_some_and(|share| share < NOTHING);
            if !surely && !std::mem::replace(&mut self.found_none, true) {
                return self.look_again(now);
            }
            self.baselines.move_to(seen.far);
            self.found();
            return self.set(from, now);
        }
        self.found_none = false;
        if seen.distance - seen.error <= TOLERANCE {
            self.found();
            self.known = self.current;
            return self.turn(now);
        }
        let worst = if share.is_none() && self.current > self.floor { before } else { seen };
        self.fall(worst, now);
    }

    /// An experiment is over, and times are as usual.
    fn found(&mut self) {
        self.mode = Mode::Steady;
        (self.suspected, self.at_floor) = (false, 0);
    }

    /// Do twice as many take as long? Then these did not wait for each other.
    pub(super) fn raised(&mut self, from: f64, before: Seen, seen: Seen, now: Micros) {
        let elastic = before.elastic(seen, self.baselines.allowance_us()).map(|share| share >= ELASTIC);
        if elastic == Some(false) && !std::mem::replace(&mut self.found_none, true) {
            return self.look_again(now);
        }
        self.mode = Mode::Steady;
        match elastic {
            Some(false) => {
                self.baselines.move_to(seen.far);
                self.found();
                self.raise_pause = PROBE_SOON_US;
                self.turn(now);
            }
            Some(true) => {
                self.raise_pause = (self.raise_pause * 2).min(RAISE_PAUSE_MAX_US);
                self.known = from;
                self.set(from, now);
            }
            // There were no more to be let in.
            None => self.set(from, now),
        }
        self.raise_at = now + self.raise_pause;
    }

    pub(super) fn probed(&mut self, from: f64, before: Seen, seen: Seen, now: Micros) {
        let share = seen.elastic(before, self.baselines.allowance_us());
        if seen.distance > TOLERANCE * DOUBT && share.is_some_and(|share| share < ELASTIC) {
            if !std::mem::replace(&mut self.found_none, true) {
                return self.look_again(now);
            }
            self.baselines.move_to(seen.far);
        }
        self.mode = Mode::Steady;
        if seen.distance + seen.error < -PROBE_FIND {
            self.baselines.move_to(seen.far);
            self.probe_pause = PROBE_SOON_US;
            self.known = self.current;
            self.turn(now);
        } else {
            self.probe_pause = (self.probe_pause * 2).min(PROBE_PAUSE_MAX_US);
            self.set(from, now);
        }
        self.probe_at = now + self.probe_pause;
    }
}
