//! How many requests may be worked on at once: learnt from how long they take, compared with what requests of their kind take when nobody is in the way.
//!
//! A limiter by gradient: where times are above the usual of their kind by more than a tolerance, the limit falls in proportion; where they are not and
//! the limit is in use, it rises (L. Brakmo, L. Peterson, "TCP Vegas", IEEE JSAC 13(8), 1995; Netflix concurrency-limits, `Gradient2Limit`; Uber,
//! "Cinnamon", 2023; B. Beyer et al., "Site Reliability Engineering", 2016, chapter 21). Five things are done differently, because each is how such limiters fail:
//!
//! - **The baseline is per kind of request** ([`super::baseline`]), so a slow route is not taken for congestion, whatever the mix.
//! - **Every reduction is an experiment.** If fewer requests at once are not faster ones, what they wait for is not each other (a database that has become slower,
//!   answers that are no longer kept): then that is the new usual, and the limit comes back. Little's law says which: in a queue half as many take half the time.
//! - **The baseline does not follow the load.** It is what those take who found nobody there, and else moves only while the limit is hardly in use; while it is, the limit
//!   is halved for a moment now and then (as BBR drains its pipe: N. Cardwell et al., "BBR", CACM 60(2), 2017), which shows a baseline that was a queue itself.
//! - **What nobody needs is taken back**, and comes back by doubling. A limit that is as high as in the morning lets a surge at noon fill it before there is a single
//!   sample.
//! - **Nothing completing is a measurement too.** When most of what is in flight is overdue, the limit falls without any sample.
//!
//! Pure: the time is an argument, in microseconds from any beginning.

mod experiments;

use std::time::Duration;

use super::Micros;
use super::baseline::{Baselines, FAR_ABOVE, as_f64};
use super::overdue::{Due, Overdue};
use super::window::{FEWER, Seen, Window};

/// Times may be twice the usual (with [an allowance](super::baseline) on both): the queue is then as long as the work, so that whoever becomes free finds someone
/// waiting, also where times scatter. Less would refuse requests at nine tenths of the capacity, when nothing but chance has made them meet.
pub(super) const TOLERANCE: f64 = std::f64::consts::LN_2;

/// Where a process begins to learn. More than any burst of a quiet service; the first windows take it to what is right.
const BEGIN_WITH: f64 = 64.0;

/// What nobody needs is taken back, down to as many as were there at once lately, and not below this: a page of a browser opens six at once, and the least class may fill 60 % of it. The queue has room for more.
const REST: f64 = 12.0;
/// How long lately is: the most that were there at once are forgotten with this time constant.
const LATELY_US: f64 = 10_000_000.0;

/// After a change a window begins so many usual times later: those that take long would not be among the first to come back, and the rest would look fast. A second at most.
const SETTLE_TIMES: Micros = 4;
const SETTLE_MAX_US: Micros = 1_000_000;
/// What is older than this says nothing of the present.
const WINDOW_MAX_US: Micros = 10_000_000;

/// In a calm window the limit is at most half in use, and times are near the usual: what is far from it wants an experiment. Baselines then come nearer with this time
/// constant, slower than a gust and faster than a day.
const CALM: f64 = 0.5;
const CALM_US: f64 = 10_000_000.0;

/// Between two moments at half the limit, while it is in use: soon after a beginning or a find, then rarer. At 10 s they cost nothing that is measured.
const PROBE_SOON_US: Micros = 500_000;
/// The usual is doubted when times have gone this part of the way to the tolerance.
const DOUBT: f64 = 0.4;

/// Fewer overdue requests than this are no stall: one slow import on a quiet night is none.
const STALL_MIN: usize = 4;
/// Where more than an eighth of what is in flight comes back in so many steps, requests are late and not stuck: that is congestion, and has samples. As long as it takes
/// to be overdue.
const STALL_FLOW: usize = 8;
const STALL_STEPS: usize = 5;
/// Between two steps, each of which halves a stalled limit: from 1024 to 8 in 0.7 s.
const STALL_STEP_US: Micros = 100_000;
const HALF: f64 = 0.5;

/// The limit and what it has learnt.
#[derive(Debug)]
pub(super) struct Limit {
    floor: f64,
    ceiling: f64,
    current: f64,
    /// What was good until something happened: up to there it doubles.
    known: f64,
    /// The most that were there at once lately.
    needed: f64,
    /// Somebody found no place in the window before.
    in_use: bool,
    baselines: Baselines,
    overdue: Overdue,
    window: Window,
    mode: Mode,
    /// Requests begun before say nothing of the limit as it is now.
    fresh_from: Micros,
    /// The mean time of requests when it was last as usual, of all kinds together.
    usual: Micros,
    /// The window before was one of congestion.
    suspected: bool,
    /// The window before said that fewer take as long. Chance says so once, rarely twice.
    found_none: bool,
    at_floor: u32,
    probe_at: Micros,
    probe_pause: Micros,
    /// The same for twice the floor.
    raise_at: Micros,
    raise_pause: Micros,
    stalled_since: Option<Micros>,
    step_at: Micros,
    /// Those that came back, in this step and those before.
    came_back: [usize; STALL_STEPS],
    inflation: f64,
}

#[derive(Debug, Clone, Copy)]
enum Mode {
    Steady,
    /// It was lowered: from what, and what was seen there.
    Falling {
        from: f64,
        seen: Seen,
    },
    /// It is lowered for a moment: from what, and what was seen there.
    Probing {
        from: f64,
        seen: Seen,
    },
    /// It is raised for a moment: from what, and what was seen there.
    Raised {
        from: f64,
        seen: Seen,
    },
}

/// Between floor and ceiling, which were numbers of this type.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(places: f64) -> usize {
    places as usize
}

impl Limit {
    /// Between these two, both included, whatever happens. Waits of about the allowance are nobody's concern.
    pub(super) fn new(floor: usize, ceiling: usize, allowance: Duration) -> Self {
        let ceiling = as_f64(ceiling as u64);
        // With none at all nobody could show that it is over.
        let floor = as_f64(floor as u64).max(1.0).min(ceiling);
        let current = BEGIN_WITH.clamp(floor, ceiling);
        Self {
            floor,
            ceiling,
            current,
            known: current,
            needed: 0.0,
            in_use: false,
            baselines: Baselines::new(allowance),
            overdue: Overdue::new(),
            window: Window::default(),
            mode: Mode::Steady,
            fresh_from: 0,
            usual: 0,
            suspected: false,
            found_none: false,
            at_floor: 0,
            probe_at: 0,
            probe_pause: PROBE_SOON_US,
            raise_at: 0,
            raise_pause: PROBE_SOON_US,
            stalled_since: None,
            step_at: 0,
            came_back: [0; STALL_STEPS],
            inflation: 1.0,
        }
    }

    /// How many at once.
    pub(super) fn places(&self) -> usize {
        whole(self.current)
    }

    /// Is it lower, or about to be, to see whether that helps?
    pub(super) fn is_tried(&self) -> bool {
        self.stalled_since.is_none() && (self.suspected && self.current > self.floor || !matches!(self.mode, Mode::Steady))
    }

    /// How many there are soon, if they are wanted: as many as were good before.
    pub(super) fn places_in_sight(&self) -> usize {
        let down = self.stalled_since.is_some() || self.current <= self.floor && self.suspected;
        whole(if down { self.current } else { self.known.max(self.current) })
    }

    /// A request is worked on, now one of this many.
    pub(super) fn begin(&mut self, kind: usize, now: Micros, in_flight: usize) -> Due {
        self.window.peak = self.window.peak.max(in_flight);
        self.overdue.enter(now + self.baselines.overdue_after(kind), now)
    }

    /// It is no longer, for the time being or for good.
    pub(super) fn leave(&mut self, due: Due) {
        self.overdue.leave(due);
    }

    /// A request of this kind took from `began` to `now`, beside this many others; `alone` if nobody was there when it came. What failed can have been too slow, never fast: a refusal by the
    /// database takes no time at all, and says nothing of how long an answer takes.
    pub(super) fn sample(&mut self, kind: usize, began: Micros, now: Micros, good: bool, alone: bool, in_flight: usize) {
        self.came_back[0] += usize::from(good);
        let took = now.saturating_sub(began);
        if !good && took < self.baselines.overdue_after(kind) / 4 {
            return;
        }
        // Also from those that are not fresh, if nothing else is known.
        let Some(far) = self.baselines.distance(kind, took, now) else { return };
        if began < self.fresh_from || now < self.window.began {
            return;
        }
        if !good && far < 0.0 {
            return;
        }
        let distance = far.min(FAR_ABOVE);
        self.baselines.note(kind, far);
        if alone && good {
            self.baselines.seen_alone(kind, distance);
        }
        self.window.add(distance, far, took, in_flight);
    }

    /// Somebody found no place.
    pub(super) fn wanted(&mut self, now: Micros) {
        // Those who came while there was room for all do not show how it is without.
        if !self.in_use && !self.window.wanted && matches!(self.mode, Mode::Steady) && self.stalled_since.is_none() {
            self.fresh_from = now;
            self.turn(now.max(self.window.began));
        }
        self.window.wanted = true;
    }

    /// Decides what is due to be decided. Says whether there may be more places than before.
    pub(super) fn look(&mut self, now: Micros, in_flight: usize) -> bool {
        let before = self.current;
        if now >= self.step_at {
            self.step_at = now + STALL_STEP_US;
            self.watch(now, in_flight);
        }
        let length = now.saturating_sub(self.window.began);
        let full = self.window.full(now, matches!(self.mode, Mode::Steady));
        if full || length > WINDOW_MAX_US {
            self.needed = (self.needed * (-as_f64(length) / LATELY_US).exp()).max(as_f64(self.window.peak as u64));
            self.in_use = self.window.wanted;
        }
        if full {
            self.decide(now);
        } else if length > WINDOW_MAX_US {
            // An experiment without samples shows nothing.
            if let Mode::Probing { from, .. } | Mode::Raised { from, .. } = self.mode {
                self.current = from;
            }
            self.mode = Mode::Steady;
            self.suspected = false;
            self.take_back();
            self.turn(now);
        }
        self.current > before
    }

    /// Is the most of what is in flight overdue?
    fn watch(&mut self, now: Micros, in_flight: usize) {
        let overdue = self.overdue.count(now);
        let came_back: usize = self.came_back.iter().sum();
        self.came_back.rotate_right(1);
        self.came_back[0] = 0;
        let stalled = overdue >= STALL_MIN && overdue * 2 > in_flight && came_back * STALL_FLOW <= in_flight;
        match self.stalled_since {
            None if stalled => {
                let before = match self.mode {
                    Mode::Probing { from, .. } | Mode::Falling { from, .. } | Mode::Raised { from, .. } => from,
                    Mode::Steady => self.current,
                };
                // It may have begun before, and be interrupted by refusals.
                self.known = self.known.max(before);
                self.mode = Mode::Steady;
                self.stalled_since = Some(now);
                if self.current > self.floor {
                    self.suspected = false;
                    self.set(self.current * HALF, now);
                }
            }
            Some(_) if stalled => self.current = (self.current * HALF).max(self.floor),
            Some(_) => {
                self.stalled_since = None;
                if self.current > self.floor {
                    self.set(self.current, now);
                }
            }
            None => {}
        }
    }

    /// What nobody needs.
    fn take_back(&mut self) {
        if !self.in_use && matches!(self.mode, Mode::Steady) && self.stalled_since.is_none() {
            let least = REST.max(self.floor);
            self.current = self.current.min(self.needed.max(least));
            if !self.suspected {
                // Nobody wants them, so nothing is known against them.
                self.current = self.current.max(least.min(self.ceiling));
            }
        }
    }

    fn decide(&mut self, now: Micros) {
        let seen = self.window.seen();
        self.inflation = seen.distance.exp();
        if self.stalled_since.is_some() {
            // What was begun since it stalled does come back, and again: it is slow, and not stalled. Once is how a stall ends.
            if std::mem::replace(&mut self.suspected, true) {
                self.baselines.move_to(seen.far);
            }
            return self.turn(now);
        }
        match self.mode {
            Mode::Steady => self.steady(seen, now),
            Mode::Falling { from, seen: before } => self.fallen(from, before, seen, now),
            Mode::Probing { from, seen: before } => self.probed(from, before, seen, now),
            Mode::Raised { from, seen: before } => self.raised(from, before, seen, now),
        }
    }

    fn steady(&mut self, seen: Seen, now: Micros) {
        if seen.distance <= TOLERANCE || self.usual == 0 {
            self.usual = self.window.mean_time();
        }
        // As few as the floor would let in do not stand in each other's way, whatever they show.
        let few = seen.together <= self.floor && self.current > self.floor;
        if seen.distance - seen.error > TOLERANCE && !few {
            // One such window is a pause of the machine, after which all that was in flight comes back late. Two are congestion.
            if std::mem::replace(&mut self.suspected, true) {
                return self.fall(seen, now);
            }
            return self.turn(now);
        }
        self.suspected = false;
        if !self.window.wanted {
            if as_f64(self.window.peak as u64) <= self.current * CALM && seen.distance <= TOLERANCE * DOUBT {
                let length = as_f64(now.saturating_sub(self.window.began));
                self.baselines.follow(1.0 - (-length / CALM_US).exp());
            }
            self.take_back();
            self.at_floor = 0;
            return self.turn(now);
        }
        if self.current * FEWER < self.floor && self.floor < self.ceiling && seen.distance > TOLERANCE * DOUBT {
            return self.near_floor(seen, now);
        }
        self.at_floor = 0;
        if self.probe_at == 0 {
            self.probe_at = now + self.probe_pause;
        }
        // While it grows there is nothing to be doubted.
        if now >= self.probe_at && self.current > self.floor && seen.distance > TOLERANCE * DOUBT {
            self.mode = Mode::Probing { from: self.current, seen };
            return self.set(self.current * HALF, now);
        }
        let room = ((TOLERANCE - seen.distance) / TOLERANCE).clamp(0.0, 1.0);
        if self.current < self.known {
            self.set((self.current * (1.0 + room)).min(self.known), now);
        } else {
            // As far as a Poisson stream scatters around so many.
            let next = self.current + room * self.current.sqrt();
            self.set(next, now);
            self.known = self.current;
        }
    }

    /// Another limit, and a window that judges it.
    fn set(&mut self, to: f64, now: Micros) {
        self.current = to.clamp(self.floor, self.ceiling);
        self.found_none = false;
        self.fresh_from = now;
        self.turn(now + (SETTLE_TIMES * self.usual).min(SETTLE_MAX_US));
    }

    /// Another window at the same limit, of requests that did not wait in the same queue.
    fn look_again(&mut self, now: Micros) {
        self.fresh_from = now;
        self.turn(now);
    }

    fn turn(&mut self, now: Micros) {
        self.window = Window::beginning(now);
        self.baselines.turn();
    }

    /// Since when nothing comes back.
    pub(super) fn stalled_since(&self) -> Option<Micros> {
        self.stalled_since
    }

    /// How far times are from the usual, as a factor, in the last window.
    pub(super) fn inflation(&self) -> f64 {
        self.inflation
    }

    /// The usual time of a kind in seconds, once it is known.
    pub(super) fn baseline_s(&self, kind: usize) -> Option<f64> {
        self.baselines.seconds(kind)
    }
}
