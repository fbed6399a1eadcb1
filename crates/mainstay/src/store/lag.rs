//! How far a replica is behind, and what follows from it: pure, the tasks that look are in `watch`.
//!
//! The measure is the primary's own log. Every instance remembers where that log ended and when it asked; a replica that has replayed as far as it ended
//! then has everything that was committed by then. No clock of a server takes part, and a primary that nobody writes to lets nobody look old: the time since
//! the last replayed commit would grow there, and a replica that lost its primary would look level by what it received.

use super::replica::Out;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often the primary is asked where its log ends. It is the grain of the measure, a quarter of the least `lag_max`; it costs one short question.
pub(super) const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// A replica that was left out must be well this many times in a row: one that comes and goes would cost every time what it had in hand.
const GOOD_LOOKS: u32 = 3;

/// Where the primary's log ended, and when that was asked. It holds one entry a [`SAMPLE_EVERY`], as far back as a replica may lag.
pub(super) struct History {
    samples: VecDeque<(Instant, i64)>,
    keep: Duration,
}

impl History {
    pub(super) fn new(lag_max: Duration) -> History {
        History { samples: VecDeque::new(), keep: lag_max + SAMPLE_EVERY * 2 }
    }

    /// The log ended at `end` when it was asked at `asked`, or a little after.
    pub(super) fn note(&mut self, asked: Instant, end: i64) {
        if self.samples.back().is_some_and(|(_, newest)| end < *newest) {
            // The log became shorter: another server took over. What the old one had says nothing of this one.
            self.forget();
        }
        self.samples.push_back((asked, end));
        while self.samples.front().is_some_and(|(oldest, _)| *oldest + self.keep < asked) {
            self.samples.pop_front();
        }
    }

    pub(super) fn forget(&mut self) {
        self.samples.clear();
    }

    /// When the primary was last asked with success.
    pub(super) fn seen(&self) -> Option<Instant> {
        self.samples.back().map(|(asked, _)| *asked)
    }

    /// At most this old is what a replica shows that has replayed up to `replayed`. None: older than the history goes.
    ///
    /// One that has everything the primary was last seen to have is not old, however long ago that was: while the primary is silent nobody can have more.
    fn lag(&self, replayed: i64, now: Instant) -> Option<Duration> {
        let (_, newest) = self.samples.back()?;
        if *newest <= replayed {
            return Some(Duration::ZERO);
        }
        let (asked, _) = self.samples.iter().rev().find(|(_, end)| *end <= replayed)?;
        Some(now.saturating_duration_since(*asked))
    }

    /// Did the primary have less than `replayed` after `at`? A replica with more than its primary follows another one.
    fn has_less(&self, at: Instant, replayed: i64) -> bool {
        self.samples.back().is_some_and(|(asked, end)| *asked > at && *end < replayed)
    }
}

/// What a replica says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Does it replay somebody's log?
    pub(super) recovering: bool,
    /// Up to where.
    pub(super) replayed: i64,
}

/// What is held of a replica after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Why nothing is read from it; nothing if it is in use.
    pub(super) out: Option<Out>,
    /// What it shows is at most this old.
    pub(super) lag: Option<Duration>,
}

/// Judges one replica, look by look.
pub(super) struct Judge {
    lag_max: Duration,
    good_looks: u32,
    last: Option<(Instant, i64)>,
}

impl Judge {
    pub(super) fn new(lag_max: Duration) -> Judge {
        Judge { lag_max, good_looks: 0, last: None }
    }

    /// One bad look and it is out; it comes back after [`GOOD_LOOKS`].
    pub(super) fn judge(&mut self, look: Result<Look, Out>, history: &History, now: Instant) -> Verdict {
        let lag = look.as_ref().ok().and_then(|look| history.lag(look.replayed, now));
        let flaw = match look {
            Err(out) => Some(out),
            Ok(look) => self.flaw(look, lag, history),
        };
        self.last = look.ok().map(|look| (now, look.replayed));
        if flaw.is_some() {
            self.good_looks = 0;
            return Verdict { out: flaw, lag };
        }
        self.good_looks = self.good_looks.saturating_add(1).min(GOOD_LOOKS);
        Verdict { out: (self.good_looks < GOOD_LOOKS).then_some(Out::Returning), lag }
    }

    fn flaw(&self, look: Look, lag: Option<Duration>, history: &History) -> Option<Out> {
        if !look.recovering {
            return Some(Out::NoReplica);
        }
        if history.seen().is_none() {
            return Some(Out::PrimaryUnseen);
        }
        if self.last.is_some_and(|(at, replayed)| history.has_less(at, replayed)) {
            return Some(Out::Ahead);
        }
        lag.is_none_or(|lag| lag > self.lag_max).then_some(Out::Lagging)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG_MAX: Duration = Duration::from_secs(2);

    /// A primary that writes ten bytes every quarter of a second, for five seconds.
    fn busy(begun: Instant) -> History {
        let mut history = History::new(LAG_MAX);
        (0..20).for_each(|number| history.note(begun + SAMPLE_EVERY * number, 1_000 + i64::from(number) * 10));
        history
    }

    fn look(replayed: i64) -> Result<Look, Out> {
        Ok(Look { recovering: true, replayed })
    }

    #[test]
    fn lag_is_the_age_of_the_newest_end_that_was_reached() {
        let begun = Instant::now();
        let (history, now) = (busy(begun), begun + SAMPLE_EVERY * 20);
        assert_eq!(history.lag(1_190, now), Some(Duration::ZERO));
        assert_eq!(history.lag(1_189, now), Some(SAMPLE_EVERY * 2));
        assert_eq!(history.lag(1_155, now), Some(SAMPLE_EVERY * 5));
        assert_eq!(history.lag(999, now), None, "older than the history goes");
        assert!(history.samples.len() <= 12, "{} samples for two seconds", history.samples.len());
    }

    #[test]
    fn a_primary_that_is_idle_or_gone_lets_nobody_look_old() {
        let begun = Instant::now();
        let (history, later) = (busy(begun), begun + Duration::from_secs(3600));
        assert_eq!(history.lag(1_190, later), Some(Duration::ZERO));
        assert_eq!(history.lag(1_180, later), Some(Duration::from_secs(3600) - SAMPLE_EVERY * 18));
    }

    #[test]
    fn one_bad_look_is_enough_and_three_good_ones_are_needed() {
        let begun = Instant::now();
        let (history, now) = (busy(begun), begun + SAMPLE_EVERY * 20);
        let mut judge = Judge::new(LAG_MAX);
        let mut out = |look| judge.judge(look, &history, now).out;
        assert_eq!(
            [out(look(1_190)), out(look(1_190)), out(look(1_190)), out(look(1_180))],
            [Some(Out::Returning), Some(Out::Returning), None, None]
        );
        assert_eq!(out(Err(Out::Silent)), Some(Out::Silent));
        assert_eq!(out(look(1_190)), Some(Out::Returning));
        assert_eq!(out(look(1_000)), Some(Out::Lagging));
        assert_eq!([out(look(1_190)), out(look(1_190)), out(look(1_190))], [Some(Out::Returning), Some(Out::Returning), None]);
    }

    #[test]
    fn a_server_that_follows_another_primary_is_no_replica() {
        let begun = Instant::now();
        let (mut history, mut judge) = (busy(begun), Judge::new(LAG_MAX));
        assert_eq!(judge.judge(Ok(Look { recovering: false, replayed: 1_190 }), &history, begun).out, Some(Out::NoReplica));
        let now = begun + SAMPLE_EVERY * 20;
        judge.judge(look(5_000), &history, now);
        history.note(now + SAMPLE_EVERY, 1_200);
        assert_eq!(judge.judge(look(5_000), &history, now + SAMPLE_EVERY * 2).out, Some(Out::Ahead));
    }

    #[test]
    fn nothing_is_known_before_the_primary_was_seen_nor_after_another_took_over() {
        let begun = Instant::now();
        let mut history = History::new(LAG_MAX);
        assert_eq!(Judge::new(LAG_MAX).judge(look(1_000), &history, begun).out, Some(Out::PrimaryUnseen));
        history.note(begun, 2_000);
        history.note(begun + SAMPLE_EVERY, 1_500);
        assert_eq!(history.lag(1_400, begun + SAMPLE_EVERY), None, "an end of the old primary's log proves nothing");
    }
}
