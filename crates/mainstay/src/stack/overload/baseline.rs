//! What a request of each kind takes when nobody is in its way, and how far the present is from it.
//!
//! All is measured in one way, [`Baselines::pace`]: the logarithm of a time to which an allowance was added. In logarithms ten times the usual is as far above as a
//! tenth is below, so one outlier among many says little, and a kind that is now fast and now slow (kept answers and made ones) has a middle that means
//! something. The mean of such distances is the logarithm of a geometric mean.

use std::time::Duration;

use super::Micros;

/// What the service adds to every time before it is compared: up to here a wait is nobody's concern, and whoever would be refused for less is worse off than who
/// waits. Without it an answer from memory of 50 µs that took 500 would count like a query of 50 ms that took 500.
pub(super) const ALLOWANCE: Duration = Duration::from_millis(50);

/// A kind is judged behind its sixteenth request: its first ones open connections and fill caches, and those that come back first are the fast ones. Up to the 64th its
/// baseline is the mean of all.
const LEARNT_FROM: u32 = 16;
const LEARNT: u32 = 64;
/// What comes back in the first half second of a kind is not learnt from: what takes longer is not among it.
const FIRST_US: Micros = 500_000;

/// One sample is at most a factor of e³ = 20 above the usual, and of e = 2.7 below it: many fast refusals among slow answers must not hide them.
pub(super) const FAR_ABOVE: f64 = 3.0;
const FAR_BELOW: f64 = -1.0;

/// Who found nobody there waited for nobody, and whoever came later had to share with him at most. A baseline goes so much of the way there.
const ALONE_GAIN: f64 = 1.0 / 16.0;

/// Weight of what all kinds show together beside the samples of a single one, when baselines are moved at once.
const TOGETHER_WEIGHT: f64 = 8.0;

/// A request is overdue at four times its usual, and not before half a second: longer than Redis may be waited for, and more than a machine that others
/// share pauses a process for. Meanwhile the limit holds as it is, so waiting costs nothing.
const OVERDUE_FACTOR: f64 = 4.0;
pub(super) const OVERDUE_MIN_US: f64 = 500_000.0;
/// A kind that nobody knows yet is overdue after a second.
const OVERDUE_UNKNOWN_US: Micros = 1_000_000;
/// As far ahead as is looked.
const OVERDUE_MAX_US: f64 = 10_000_000.0;

/// Times here are far below 2^53 µs, 285 years.
#[allow(clippy::cast_precision_loss)]
pub(super) const fn as_f64(number: u64) -> f64 {
    number as f64
}

#[derive(Debug, Clone, Copy)]
struct Baseline {
    pace: f64,
    /// Worked out from it once, and not for every request.
    overdue_after: Micros,
    seen: u32,
    first_at: Option<Micros>,
    /// Distances in the present window.
    sum: f64,
    count: u32,
}

impl Baseline {
    const NEW: Self = Self { pace: 0.0, overdue_after: OVERDUE_UNKNOWN_US, seen: 0, first_at: None, sum: 0.0, count: 0 };

    fn move_by(&mut self, distance: f64) {
        self.pace += distance;
        if self.seen > LEARNT_FROM {
            // Between half a second and ten.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            {
                self.overdue_after = (OVERDUE_FACTOR * self.pace.exp()).clamp(OVERDUE_MIN_US, OVERDUE_MAX_US) as Micros;
            }
        }
    }
}

/// The baselines of all kinds of requests, by number.
#[derive(Debug)]
pub(super) struct Baselines {
    kinds: Vec<Baseline>,
    allowance_us: f64,
}

impl Baselines {
    pub(super) fn new(allowance: Duration) -> Self {
        Self { kinds: Vec::new(), allowance_us: allowance.as_secs_f64() * 1e6 }
    }

    /// What is added to every time before it is compared.
    pub(super) fn allowance_us(&self) -> f64 {
        self.allowance_us
    }

    /// The measure of a time.
    fn pace(&self, took: Micros) -> f64 {
        (as_f64(took) + self.allowance_us).ln()
    }

    fn of(&mut self, kind: usize) -> &mut Baseline {
        if self.kinds.len() <= kind {
            self.kinds.resize(kind + 1, Baseline::NEW);
        }
        &mut self.kinds[kind]
    }

    /// How far this time is from the usual of its kind, as a logarithm without a bound above. `None`: not known yet; it is learnt from.
    pub(super) fn distance(&mut self, kind: usize, took: Micros, now: Micros) -> Option<f64> {
        let pace = self.pace(took);
        let baseline = self.of(kind);
        if now.saturating_sub(*baseline.first_at.get_or_insert(now)) < FIRST_US {
            return None;
        }
        let distance = (pace - baseline.pace).max(FAR_BELOW);
        if baseline.seen < LEARNT {
            baseline.seen += 1;
            let way = if baseline.seen < LEARNT_FROM { pace - baseline.pace } else { distance.min(FAR_ABOVE) };
            baseline.move_by(way / f64::from(baseline.seen));
        }
        (baseline.seen > LEARNT_FROM).then_some(distance)
    }

    /// A sample of the present window.
    pub(super) fn note(&mut self, kind: usize, distance: f64) {
        let baseline = self.of(kind);
        baseline.sum += distance;
        baseline.count += 1;
    }

    /// One that found nobody there was this far from the usual.
    pub(super) fn seen_alone(&mut self, kind: usize, distance: f64) {
        self.of(kind).move_by(ALONE_GAIN * distance);
    }

    /// The window was calm: each kind comes nearer to what it showed, by this part of the way.
    pub(super) fn follow(&mut self, gain: f64) {
        for baseline in self.kinds.iter_mut().filter(|baseline| baseline.count > 0) {
            baseline.move_by(gain * baseline.sum / f64::from(baseline.count));
        }
    }

    /// What the window showed is the usual from now on. Kinds with few samples follow the others that were seen; `all` is the mean of all.
    pub(super) fn move_to(&mut self, all: f64) {
        for baseline in self.kinds.iter_mut().filter(|baseline| baseline.count > 0) {
            baseline.move_by((baseline.sum + TOGETHER_WEIGHT * all) / (f64::from(baseline.count) + TOGETHER_WEIGHT));
        }
    }

    /// The next window begins.
    pub(super) fn turn(&mut self) {
        for baseline in &mut self.kinds {
            (baseline.sum, baseline.count) = (0.0, 0);
        }
    }

    /// When a request of this kind, begun now, is overdue: so much later.
    pub(super) fn overdue_after(&self, kind: usize) -> Micros {
        self.kinds.get(kind).map_or(OVERDUE_UNKNOWN_US, |baseline| baseline.overdue_after)
    }

    /// The usual time of a kind in seconds, once it is known.
    pub(super) fn seconds(&self, kind: usize) -> Option<f64> {
        let baseline = self.kinds.get(kind).filter(|baseline| baseline.seen > LEARNT_FROM)?;
        Some((baseline.pace.exp() - self.allowance_us).max(0.0) / 1e6)
    }
}
