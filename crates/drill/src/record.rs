//! What was measured, by the time at which it happened: counts and latencies in slots of a tenth of a second.

use std::time::{Duration, Instant};

/// The width of a slot.
pub(crate) const SLOT: Duration = Duration::from_millis(100);
/// Buckets for each doubling: a quantile is at most 4.4 % too long.
const FINE: f64 = 16.0;
/// Buckets up to 2^26 us, a minute.
const BUCKETS: usize = 26 * 16 + 1;

/// Latencies, counted by their logarithm.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    counts: Box<[u32]>,
    count: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into_boxed_slice(), count: 0 }
    }
}

impl Latencies {
    /// Counts one.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // From 0 to 416.
    pub(crate) fn add(&mut self, latency: Duration) {
        let us = (latency.as_micros().max(1)) as f64;
        let bucket = ((us.log2() * FINE).ceil() as usize).min(BUCKETS - 1);
        self.counts[bucket] += 1;
        self.count += 1;
    }

    /// Counts those of another.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.count += other.count;
    }

    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The latency that this share of them did not exceed; nothing of none.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // Counts are far below 2^53.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        })?;
        Some(Duration::from_secs_f64((bucket as f64 / FINE).exp2() / 1e6))
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As it should.
    Served,
    /// Refused for now, and told when to come back.
    Refused,
    /// Anything else: another status, a broken connection.
    Failed,
}

/// A tenth of a second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    /// Requests that were served, by when their answer came.
    pub(crate) served: Latencies,
    /// Requests that were refused.
    pub(crate) refused: u64,
    /// Requests that failed.
    pub(crate) failed: u64,
}

/// What one who asks, or all of them together, saw.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    begun: Instant,
    /// The slots, from the beginning on.
    pub(crate) slots: Vec<Slot>,
    /// The first failure, in words.
    pub(crate) failure: Option<String>,
}

impl Record {
    /// Begins at this moment.
    pub(crate) fn new(begun: Instant) -> Self {
        Self { begun, slots: Vec::new(), failure: None }
    }

    /// Notes a request that was due at one moment and answered now.
    pub(crate) fn note(&mut self, due: Instant, now: Instant, end: End) {
        let number = usize::try_from(now.saturating_duration_since(self.begun).as_millis() / SLOT.as_millis()).unwrap_or(usize::MAX).min(1 << 20);
        if self.slots.len() <= number {
            self.slots.resize_with(number + 1, Slot::default);
        }
        let slot = &mut self.slots[number];
        match end {
            End::Served => slot.served.add(now.saturating_duration_since(due)),
            End::Refused => slot.refused += 1,
            End::Failed => slot.failed += 1,
        }
    }

    /// Adds what another one saw from the same moment on.
    pub(crate) fn merge(&mut self, other: Self) {
        if self.slots.len() < other.slots.len() {
            self.slots.resize_with(other.slots.len(), Slot::default);
        }
        for (sum, slot) in self.slots.iter_mut().zip(&other.slots) {
            sum.served.merge(&slot.served);
            sum.refused += slot.refused;
            sum.failed += slot.failed;
        }
        self.failure = self.failure.take().or(other.failure);
    }

    /// All of a stretch of time, after the beginning.
    pub(crate) fn between(&self, from: Duration, to: Duration) -> Stretch {
        let number = |at: Duration| usize::try_from(at.as_millis() / SLOT.as_millis()).unwrap_or(usize::MAX);
        let mut sum = Slot::default();
        for slot in self.slots.iter().take(number(to)).skip(number(from)) {
            sum.served.merge(&slot.served);
            sum.refused += slot.refused;
            sum.failed += slot.failed;
        }
        Stretch { sum, length: to.saturating_sub(from) }
    }

    /// All of it.
    pub(crate) fn all(&self) -> Stretch {
        self.between(Duration::ZERO, SLOT * u32::try_from(self.slots.len()).unwrap_or(u32::MAX))
    }
}

/// A stretch of time.
#[derive(Debug)]
pub(crate) struct Stretch {
    /// What happened in it.
    pub(crate) sum: Slot,
    length: Duration,
}

impl Stretch {
    /// Requests served in a second.
    #[allow(clippy::cast_precision_loss)] // Counts are far below 2^53.
    pub(crate) fn goodput(&self) -> f64 {
        self.sum.served.count() as f64 / self.length.as_secs_f64().max(0.001)
    }

    /// Requests in a second, however they ended.
    #[allow(clippy::cast_precision_loss)] // Counts are far below 2^53.
    pub(crate) fn asked(&self) -> f64 {
        (self.sum.served.count() + self.sum.refused + self.sum.failed) as f64 / self.length.as_secs_f64().max(0.001)
    }

    /// The part of them that was not served.
    pub(crate) fn lost(&self) -> f64 {
        1.0 - self.goodput() / self.asked().max(f64::MIN_POSITIVE)
    }

    /// The latency that 99 of 100 served requests did not exceed; nothing if none was served.
    pub(crate) fn p99(&self) -> Option<Duration> {
        self.sum.served.quantile(0.99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_to_a_sixteenth_of_a_doubling() {
        let mut latencies = Latencies::default();
        (1..=1_000_u64).for_each(|us| latencies.add(Duration::from_micros(us)));
        for (share, us) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0), (0.0, 1.0)] {
            let quantile = latencies.quantile(share).unwrap().as_secs_f64() * 1e6;
            assert!((us * 0.999..=us * 1.05).contains(&quantile), "{share}: {quantile}");
        }
        assert_eq!(Latencies::default().quantile(0.5), None);
        latencies.add(Duration::from_secs(1_000_000));
        assert!(latencies.quantile(1.0).unwrap() > Duration::from_secs(60));
    }

    #[test]
    fn a_record_knows_what_happened_when_and_adds_up() {
        let begun = Instant::now();
        let (mut one, mut other) = (Record::new(begun), Record::new(begun));
        let at = |ms| begun + Duration::from_millis(ms);
        one.note(at(0), at(50), End::Served);
        one.note(at(200), at(250), End::Refused);
        other.note(at(210), at(260), End::Served);
        other.note(at(100), at(1_000), End::Failed);
        one.merge(other);
        let all = one.all().sum;
        assert_eq!((all.served.count(), all.refused, all.failed), (2, 1, 1));
        let second = one.between(Duration::from_millis(200), Duration::from_millis(300));
        assert_eq!((second.sum.served.count(), second.sum.refused), (1, 1));
        assert!((second.goodput() - 10.0).abs() < 1e-9);
    }
}
