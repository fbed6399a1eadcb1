//! The places and who waits for one: one state behind one lock, which is held for less than a tenth of a microsecond.
//!
//! Nobody waits while there is a place. Who waits does so shortly: a queue is there for a burst, not for a surplus (K. Nichols, V. Jacobson, "Controlling
//! Queue Delay", ACM Queue 10(5), 2012; B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015). As long as all who come find room in it, it is worked off in the
//! order of arrival, with half a second for each, two while the limit is being tried: sixty clients who share four connections wait for each other, and that is no overload. When somebody found
//! none, and it has not been empty for 100 ms, it is a crowd for a second, also where it has gaps: the newest is first, with 20 ms for each. Those who came first have
//! waited in vain anyway, and somebody is answered fast.
//!
//! Pure but for the wakers: the time is an argument, and those to be woken are handed out, to be woken when the lock is gone.

use std::collections::VecDeque;
use std::ops::Range;
use std::task::Waker;
use std::time::Duration;

use super::Micros;
use super::limit::Limit;
use super::overdue::Due;
use super::pace::{Pace, Refusal};
use super::rank::{Patience, RANKS, Rank};
use super::retry::Pressure;

/// The longest wait while there is room for all. Whoever waits longer would rather be told.
pub(super) const WAIT_BURST_US: Micros = 500_000;
/// And while the limit is being tried, which takes some tenths of a second, and more where requests take as long: nobody is refused for an experiment, and the least class
/// waits for all others meanwhile.
const WAIT_TRIED_US: Micros = 2_000_000;
/// The longest wait in a crowd: what is left of the queue when it is over is this short.
const WAIT_CROWDED_US: Micros = 20_000;
/// A queue that is younger is a burst, however many are in it.
const CROWDED_AFTER_US: Micros = 100_000;
/// Then it is tried whether there is room for all again: a surge shows that there is none within some milliseconds.
const CROWDED_FOR_US: Micros = 1_000_000;

/// Those who wait in a burst: twice those who are served, now or soon, and what a page of a browser opens at once.
const QUEUE_FACTOR: usize = 2;
const QUEUE_MIN: usize = 64;
/// Those who wait in a crowd: a few more than become free in their time. One more is refused at once, which costs less than to let him wait.
const QUEUE_CROWDED_MIN: usize = 8;

/// A place that is taken.
#[derive(Debug)]
pub(super) struct Held {
    kind: usize,
    /// When it was taken; later by the time for which it was lent.
    began: Micros,
    /// Nobody else was there then.
    alone: bool,
    due: Due,
}

impl Held {
    /// The kind of its request.
    pub(super) fn kind(&self) -> usize {
        self.kind
    }
}

/// By which a request that waits is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    number: u64,
    rank: Rank,
}

/// What becomes of a request that comes.
#[derive(Debug)]
pub(super) enum Arrival {
    /// It is worked on.
    In(Held),
    /// It waits.
    Waits(Ticket),
    /// It may come again later.
    Refused(Refusal),
}

/// What has become of a request that waits.
#[derive(Debug)]
pub(super) enum Look {
    In(Held),
    Waits,
    Refused(Refusal),
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    kind: usize,
    since: Micros,
    waker: Waker,
}

/// The places.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) limit: Limit,
    ceiling: usize,
    in_flight: usize,
    lines: [VecDeque<Waiter>; RANKS],
    /// Those who have a place and do not know it yet.
    granted: Vec<(u64, Held)>,
    next_number: u64,
    queued_since: Option<Micros>,
    /// From when until when those who wait are a crowd.
    crowded: Range<Micros>,
    patience: Patience,
    pressure: Pressure,
    pace: Pace,
    refused: [u64; RANKS],
}

/// Figures of the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) places: usize,
    pub(super) in_flight: usize,
    pub(super) waiting: usize,
    /// Refusals that are kept back.
    pub(super) held_back: usize,
    pub(super) refused: [u64; RANKS],
}

/// Those to be woken.
pub(super) type Wakers = Vec<Waker>;

impl Gate {
    /// On a machine of so many cores.
    pub(super) fn new(floor: usize, ceiling: usize, allowance: Duration, cores: usize) -> Self {
        Self {
            limit: Limit::new(floor, ceiling, allowance),
            ceiling,
            in_flight: 0,
            lines: Default::default(),
            granted: Vec::new(),
            next_number: 0,
            queued_since: None,
            crowded: 0..0,
            patience: Patience::default(),
            pressure: Pressure::default(),
            pace: Pace::new(cores),
            refused: [0; RANKS],
        }
    }

    /// A request comes and it does not matter whose: there is room for anybody. `None`: it does matter.
    pub(super) fn enter_freely(&mut self, kind: usize, now: Micros) -> Option<Held> {
        if self.waiting() > 0 || self.in_flight >= Rank::LAST.share(self.limit.places()) {
            return None;
        }
        Some(self.take(kind, now))
    }

    /// A request comes.
    pub(super) fn arrive(&mut self, kind: usize, rank: Rank, waker: &Waker, now: Micros, wakers: &mut Wakers) -> Arrival {
        self.look(now, wakers);
        let as_rank = self.patience.rank(rank);
        let ahead = self.lines.iter().take(as_rank.index() + 1).any(|line| !line.is_empty());
        if !ahead && self.fits(as_rank) {
            self.patience.note(rank, true);
            return Arrival::In(self.take(kind, now));
        }
        self.limit.wanted(now);
        if !self.has_room(as_rank, now, wakers) {
            self.patience.note(rank, false);
            return Arrival::Refused(self.refuse_in_turn(rank, now));
        }
        let number = self.next_number;
        self.next_number += 1;
        self.queued_since.get_or_insert(now);
        self.lines[as_rank.index()].push_back(Waiter { number, kind, since: now, waker: waker.clone() });
        Arrival::Waits(Ticket { number, rank })
    }

    /// Is there room to wait? Who comes before another takes his.
    fn has_room(&mut self, rank: Rank, now: Micros, wakers: &mut Wakers) -> bool {
        let most = if self.crowded(now) {
            (self.limit.places() / 2).max(QUEUE_CROWDED_MIN)
        } else {
            (QUEUE_FACTOR * self.limit.places_in_sight()).max(QUEUE_MIN)
        };
        if self.waiting() < most.min(self.ceiling) {
            return true;
        }
        if now >= self.crowded.end {
            self.crowded = self.queued_since.map_or(now, |since| now.max(since + CROWDED_AFTER_US))..now + CROWDED_FOR_US;
        }
        let after = self.lines.iter_mut().skip(rank.index() + 1).rev().find_map(VecDeque::pop_front);
        after.map(|waiter| wakers.push(waiter.waker)).is_some()
    }

    /// What has become of the one who waits with this ticket?
    pub(super) fn ask(&mut self, Ticket { number, rank }: Ticket, waker: &Waker, now: Micros, wakers: &mut Wakers) -> Look {
        self.look(now, wakers);
        if let Some(at) = self.granted.iter().position(|(granted, _)| *granted == number) {
            self.patience.note(rank, true);
            return Look::In(self.granted.swap_remove(at).1);
        }
        match self.lines.iter_mut().flatten().find(|waiter| waiter.number == number) {
            Some(waiter) => {
                waiter.waker.clone_from(waker);
                Look::Waits
            }
            None => {
                self.patience.note(rank, false);
                Look::Refused(self.refuse_in_turn(rank, now))
            }
        }
    }

    /// The one who waits with this ticket has left.
    pub(super) fn cancel(&mut self, Ticket { number, .. }: Ticket, now: Micros, wakers: &mut Wakers) {
        if let Some(at) = self.granted.iter().position(|(granted, _)| *granted == number) {
            let (_, held) = self.granted.swap_remove(at);
            self.lend(&held, now, wakers);
            return;
        }
        for line in &mut self.lines {
            line.retain(|waiter| waiter.number != number);
        }
        self.settle(now);
    }

    /// A request has ended; `good` if it was answered as it wished.
    pub(super) fn leave(&mut self, held: &Held, good: bool, now: Micros, wakers: &mut Wakers) {
        self.limit.sample(held.kind, held.began, now, good, held.alone, self.in_flight);
        self.lend(held, now, wakers);
    }

    /// A place is given back, with nothing to be learnt from how long it was taken. Gives back how long that was.
    pub(super) fn lend(&mut self, held: &Held, now: Micros, wakers: &mut Wakers) -> Micros {
        self.limit.leave(held.due);
        self.in_flight -= 1;
        self.look(now, wakers);
        now.saturating_sub(held.began)
    }

    /// A request that lent its place wants one again, after `spent` with one. Once let in it comes before anybody new, so it may go beyond the limit by half: a
    /// client that sends its body late gains no more than that by it. `surely`: whatever the limit.
    ///
    /// # Errors
    /// After how many seconds there may be one.
    pub(super) fn take_back(&mut self, kind: usize, spent: Micros, surely: bool, now: Micros) -> Result<Held, u64> {
        // It cannot wait here, so it may have a place that will soon be there.
        let places = self.limit.places_in_sight();
        if !surely && self.in_flight >= (places + places.div_ceil(2)).min(self.ceiling) {
            self.limit.wanted(now);
            return Err(self.refuse(Rank::FIRST, now));
        }
        let mut held = self.take(kind, now);
        // Others may have been there before.
        (held.began, held.alone) = (now.saturating_sub(spent), false);
        Ok(held)
    }

    fn take(&mut self, kind: usize, now: Micros) -> Held {
        self.in_flight += 1;
        self.pressure.admitted(now);
        Held { kind, began: now, alone: self.in_flight == 1, due: self.limit.begin(kind, now, self.in_flight) }
    }

    fn fits(&self, rank: Rank) -> bool {
        self.in_flight < rank.share(self.limit.places())
    }

    /// Figures of the moment.
    pub(super) fn figures(&self) -> Figures {
        Figures {
            places: self.limit.places(),
            in_flight: self.in_flight,
            waiting: self.waiting(),
            held_back: self.pace.held(),
            refused: self.refused,
        }
    }

    /// A refusal that was kept back is told, or nobody is there any more to be told.
    pub(super) fn told(&mut self) {
        self.pace.told();
    }

    fn refuse_in_turn(&mut self, rank: Rank, now: Micros) -> Refusal {
        Refusal { after_s: self.refuse(rank, now), hold: self.pace.refuse(now) }
    }

    fn refuse(&mut self, rank: Rank, now: Micros) -> u64 {
        self.refused[rank.index()] += 1;
        let stalled = self.limit.stalled_since().map(|since| now.saturating_sub(since));
        self.pressure.refused(now, stalled)
    }

    fn waiting(&self) -> usize {
        self.lines.iter().map(VecDeque::len).sum()
    }

    /// Was there no room for all, and somebody waiting all the time for so long that it was no burst?
    fn crowded(&self, now: Micros) -> bool {
        self.crowded.contains(&now)
    }

    /// The first class of which one waits and may have a place.
    fn next_rank(&self) -> Option<usize> {
        Rank::all().into_iter().find(|rank| !self.lines[rank.index()].is_empty() && self.fits(*rank)).map(Rank::index)
    }

    /// Notes that nobody waits. What was a burst is over then; a crowd leaves gaps.
    fn settle(&mut self, now: Micros) {
        if self.waiting() == 0 {
            self.queued_since = None;
            if now < self.crowded.start {
                self.crowded = 0..0;
            }
        }
    }

    /// Gives away what is free, sends away who has waited too long, learns.
    fn look(&mut self, now: Micros, wakers: &mut Wakers) {
        self.limit.look(now, self.in_flight);
        if self.waiting() == 0 {
            return;
        }
        let crowded = self.crowded(now);
        let wait = match (crowded, self.limit.is_tried()) {
            (true, _) => WAIT_CROWDED_US,
            (false, true) => WAIT_TRIED_US,
            (false, false) => WAIT_BURST_US,
        };
        for line in &mut self.lines {
            while line.front().is_some_and(|waiter| now.saturating_sub(waiter.since) >= wait) {
                wakers.extend(line.pop_front().map(|waiter| waiter.waker));
            }
        }
        while let Some(rank) = self.next_rank() {
            let line = &mut self.lines[rank];
            let Some(waiter) = (if crowded { line.pop_back() } else { line.pop_front() }) else { break };
            let held = self.take(waiter.kind, now);
            self.granted.push((waiter.number, held));
            wakers.push(waiter.waker);
        }
        self.settle(now);
    }
}
