//! The gate shared by all requests, and places that are lent.

use std::future::{Future, poll_fn};
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Instant;

use super::baseline::ALLOWANCE;
use super::gate::{Arrival, Gate, Held, Look, Ticket, Wakers};
use super::later::Later;
use super::pace::Refusal;
use super::rank::Rank;
use super::waits::Waits;
use super::{Claim, Micros, overloaded};
use crate::context;
use crate::error::Error;
use crate::routes::RouteTable;

/// The gate behind its lock, and the clock by which it is told the time.
#[derive(Debug)]
pub(super) struct Places {
    gate: Mutex<Gate>,
    ceiling: usize,
    begun: Instant,
    /// How kinds are called, for the metrics.
    table: OnceLock<RouteTable>,
}

impl Places {
    pub(super) fn new(floor: usize, ceiling: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { gate: Mutex::new(Gate::new(floor, ceiling, ALLOWANCE, cores)), ceiling, begun: Instant::now(), table: OnceLock::new() }
    }

    pub(super) fn ceiling(&self) -> usize {
        self.ceiling
    }

    fn micros(&self, at: Instant) -> Micros {
        // 584,000 years.
        u64::try_from(at.saturating_duration_since(self.begun).as_micros()).unwrap_or(Micros::MAX)
    }

    fn now(&self) -> Micros {
        self.micros(Instant::now())
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        // Nothing under the lock panics.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something under the lock, and wakes those whom it concerns when the lock is gone.
    fn with<T>(&self, work: impl FnOnce(&mut Gate, &mut Wakers) -> T) -> T {
        let mut wakers = Wakers::new();
        let done = work(&mut self.gate(), &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
        done
    }

    pub(super) fn enter_freely(&self, kind: usize, at: Instant) -> Option<Held> {
        let now = self.micros(at);
        self.gate().enter_freely(kind, now)
    }

    pub(super) fn arrive(&self, kind: usize, rank: Rank, waker: &Waker, at: Instant) -> Arrival {
        let now = self.micros(at);
        self.with(|gate, wakers| gate.arrive(kind, rank, waker, now, wakers))
    }

    pub(super) fn ask(&self, ticket: Ticket, waker: &Waker) -> Look {
        let now = self.now();
        self.with(|gate, wakers| gate.ask(ticket, waker, now, wakers))
    }

    pub(super) fn cancel(&self, ticket: Ticket) {
        let now = self.now();
        self.with(|gate, wakers| gate.cancel(ticket, now, wakers));
    }

    pub(super) fn leave(&self, held: &Held, good: bool) {
        let now = self.now();
        self.with(|gate, wakers| gate.leave(held, good, now, wakers));
    }

    /// A refusal that was kept back is told, or nobody is there any more to be told.
    pub(super) fn told(&self) {
        self.gate().told();
    }

    /// Notes how kinds are called.
    pub(super) fn name(&self, table: &RouteTable) {
        let _ = self.table.set(table.clone());
    }

    #[allow(clippy::cast_precision_loss)] // Exact up to 2^53.
    pub(super) fn record_metrics(&self) {
        let (figures, inflation) = {
            let gate = self.gate();
            (gate.figures(), gate.limit.inflation())
        };
        metrics::gauge!("mainstay_overload_limit").set(figures.places as f64);
        metrics::gauge!("mainstay_overload_in_flight").set(figures.in_flight as f64);
        metrics::gauge!("mainstay_overload_waiting").set(figures.waiting as f64);
        metrics::gauge!("mainstay_overload_refusals_held").set(figures.held_back as f64);
        metrics::gauge!("mainstay_overload_inflation").set(inflation);
        for (class, refused) in Rank::names().into_iter().zip(figures.refused) {
            metrics::counter!("mainstay_overload_refused_total", "class" => class).absolute(refused);
        }
        for route in self.table.get().iter().flat_map(|table| table.all.iter()) {
            for (kind, methods) in [(2 * route.index, "safe"), (2 * route.index + 1, "other")] {
                let known = self.gate().limit.baseline_s(kind);
                if let Some(seconds) = known {
                    let route = route.pattern.clone();
                    metrics::gauge!("mainstay_overload_baseline_seconds", "route" => route, "methods" => methods).set(seconds);
                }
            }
        }
    }
}

/// A place that is given back and taken again.
#[derive(Debug)]
pub(crate) struct Lendable {
    places: Arc<Places>,
    stand: Mutex<Stand>,
}

#[derive(Debug)]
enum Stand {
    /// The request waits for its first place.
    None,
    /// It has not asked for one yet.
    Unasked {
        kind: usize,
        claim: Claim,
    },
    Here(Held),
    Lent {
        kind: usize,
        spent: Micros,
    },
    /// The request has ended.
    Over,
}

impl Lendable {
    pub(super) fn new(places: Arc<Places>, held: Option<Held>) -> Self {
        Self { places, stand: Mutex::new(held.map_or(Stand::None, Stand::Here)) }
    }

    /// For a request that may do without.
    pub(super) fn later(places: Arc<Places>, kind: usize, claim: Claim) -> Self {
        Self { places, stand: Mutex::new(Stand::Unasked { kind, claim }) }
    }

    /// Asks for the first place, if that was not done yet.
    async fn ask(&self) -> Result<(), u64> {
        let since = Instant::now();
        let arrival = {
            let mut stand = self.stand();
            if !matches!(*stand, Stand::Unasked { .. }) {
                return Ok(());
            }
            let Stand::Unasked { kind, claim } = std::mem::replace(&mut *stand, Stand::None) else { return Ok(()) };
            match self.places.enter_freely(kind, since) {
                Some(held) => Arrival::In(held),
                None => self.places.arrive(kind, claim.rank(), Waker::noop(), since),
            }
        };
        let held = match arrival {
            Arrival::In(held) => held,
            Arrival::Refused(refusal) => return Err(self.refused(refusal).await),
            Arrival::Waits(ticket) => {
                let mut waits = Waits::new(self.places.clone(), ticket, since);
                match poll_fn(|task| waits.poll(task)).await {
                    Ok(held) => held,
                    Err(refusal) => return Err(self.refused(refusal).await),
                }
            }
        };
        self.begin(held);
        Ok(())
    }

    async fn refused(&self, refusal: Refusal) -> u64 {
        let mut later = Later::new(&self.places, refusal);
        poll_fn(|task| later.poll(task)).await
    }

    fn stand(&self) -> MutexGuard<'_, Stand> {
        // Nothing panics while it is held.
        self.stand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has its first place.
    pub(super) fn begin(&self, held: Held) {
        *self.stand() = Stand::Here(held);
    }

    pub(super) fn end(&self, good: bool) {
        if let Stand::Here(held) = std::mem::replace(&mut *self.stand(), Stand::Over) {
            self.places.leave(&held, good);
        }
    }

    pub(super) fn lend(&self) {
        let mut stand = self.stand();
        if let Stand::Here(held) = &*stand {
            let now = self.places.now();
            let spent = self.places.with(|gate, wakers| gate.lend(held, now, wakers));
            *stand = Stand::Lent { kind: held.kind(), spent };
        }
    }

    /// Takes a place again, if there is one or `surely`. `Err`: there is none; after so many seconds there may be.
    pub(super) fn take_back(&self, surely: bool) -> Result<(), u64> {
        let mut stand = self.stand();
        if let Stand::Lent { kind, spent } = *stand {
            let now = self.places.now();
            *stand = Stand::Here(self.places.gate().take_back(kind, spent, surely, now)?);
        }
        Ok(())
    }
}

/// Waits for a place for the request that this thread works on, if it could do without one so far.
///
/// # Errors
/// [`codes::OVERLOADED`](crate::error::codes::OVERLOADED).
pub(crate) async fn admitted() -> Result<(), Error> {
    match context::current().and_then(|context| context.place().cloned()) {
        Some(place) => place.ask().await.map_err(overloaded),
        None => Ok(()),
    }
}

/// While this lives, the place of the current request is another's.
pub(crate) struct Lent(Option<Arc<Lendable>>);

impl Lent {
    /// Lends the place of the request that this thread works on, if it has one that can be lent.
    pub(crate) fn out() -> Self {
        let lendable = context::current().and_then(|context| context.place().cloned());
        lendable.iter().for_each(|lendable| lendable.lend());
        Self(lendable)
    }

    /// Waits without a place, and goes on with one. Whoever has its own bound for those who wait may say so: what was done meanwhile is not thrown away.
    pub(crate) async fn during<T>(work: impl Future<Output = T>) -> T {
        let lent = Self::out();
        let done = work.await;
        drop(lent);
        done
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(lendable) = &self.0 {
            // Surely is never refused.
            let _ = lendable.take_back(true);
        }
    }
}
