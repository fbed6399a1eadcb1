//! Overload: a bound on the requests worked on at once, learnt from how long they take. One more is told so, with a 503, instead of making all the others slower.
//!
//! - **How many** is learnt between a floor and a ceiling: `limit`, and what is compared with what, `baseline` (decision 26).
//! - **Who** is refused first: strangers before those who are signed in, and among the same people dear requests before cheap ones ([`Cost`]). A class that is
//!   always refused is let in now and then. Who is signed in is asked only when it matters, and a token says so only if it is verified and this instance
//!   remembers that its session stands: no text that anybody can make up buys a place.
//! - **Waiting** for a place is for bursts and takes a tenth of a second at most: `gate`. It happens before the rate limit counts, so a refusal costs no quota.
//! - **Beside it** pass the routes that no limit may refuse, and those that are answered from memory at once: they hold a place no longer than a core.
//!
//! A request that waits for its own client is not worked on: while its body does not come it gives its place to another, so that slow clients, however
//! many, make nobody see a 503. It takes a place again with the next bytes, or is refused like any other. What it waited is no part of how long it took. The same is
//! true of a password that waits for a core: there is a room for that, with turns of its own.
//!
//! What this layer cannot see is a request before its head was read. A machine whose cores are all taken by answers that wait for nothing shows in those that do
//! wait; where there are none, a refusal would cost as much as the answer.

mod baseline;
mod body;
mod gate;
mod limit;
mod overdue;
mod places;
mod rank;
mod retry;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::Request;
use http_body::Body as _;
use tokio::time::{Sleep, sleep_until};

use super::{Layer, Outgoing};
use crate::auth::Auth;
use crate::context::Context;
use crate::error::{Error, codes};
use crate::routes::{Cost, RouteTable};

use body::Arriving;
use gate::{Arrival, Held, Look, WAIT_BURST_US};
use places::Places;
use rank::Rank;

pub(crate) use places::{Lendable, Lent};

/// Microseconds since a beginning.
type Micros = u64;

/// As few requests at once as there ever may be, unless said otherwise. Two for each core of the smallest machine that is worth it, and enough to keep a
/// database busy over a round trip; so few do a database no harm that has just come back.
const FLOOR: usize = 8;

/// A timer of the runtime may ring a little early by another clock.
const AGAIN: Duration = Duration::from_millis(1);

/// What a client is told that came at a bad time, and may come again after this many seconds.
pub(crate) fn overloaded(after_s: u64) -> Error {
    Error::new(&codes::OVERLOADED).retry_after(Duration::from_secs(after_s))
}

/// The layer.
#[derive(Debug, Clone)]
pub struct Overload {
    places: Arc<Places>,
    auth: Option<Auth>,
}

impl Overload {
    /// At most this many requests at once, and as few as 8 when it has to be. Routes that are never limited pass beside.
    pub fn new(concurrency_max: usize) -> Self {
        Self { places: Arc::new(Places::new(FLOOR, concurrency_max)), auth: None }
    }

    /// Never fewer than this many at once; as many as the most make it a fixed limit. To be said before the first request.
    #[must_use]
    pub fn floor(self, concurrency_min: usize) -> Self {
        Self { places: Arc::new(Places::new(concurrency_min, self.places.ceiling())), ..self }
    }

    /// Those who are signed in here come before strangers.
    #[must_use]
    pub fn knowing(self, auth: Auth) -> Self {
        Self { auth: Some(auth), ..self }
    }

    /// The metrics call requests by these routes. What is said first stands.
    #[must_use]
    pub fn naming(self, table: &RouteTable) -> Self {
        self.places.name(table);
        self
    }

    /// Sets the metrics `mainstay_overload_*`; call it when the metrics are read.
    pub fn record_metrics(&self) {
        self.places.record_metrics();
    }

    /// The class of a request.
    fn rank(&self, request: &Request<Body>, context: &Context) -> Rank {
        let known = |auth: &Auth| auth.account_of(request.headers()).is_some();
        let signed_in = context.credentials && self.auth.as_ref().is_some_and(known);
        Rank::new(signed_in, context.route.cost(&context.method) == Cost::Dear)
    }
}

/// The place of a request that is worked on, or its wait for one. It goes back with the request's end, however that comes.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    stand: Stand,
}

#[derive(Debug)]
enum Stand {
    /// It passed beside, was refused, or has ended.
    None,
    /// To the end.
    Firm(Held),
    /// Shared with what it may be lent by.
    Lent(Arc<Lendable>),
    Waits(Waits),
}

/// A request without a place yet.
#[derive(Debug)]
struct Waits {
    number: u64,
    rank: Rank,
    until: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    lendable: Option<Arc<Lendable>>,
}

impl Layer for Overload {
    type Visit = Place;

    fn request(&self, request: &mut Request<Body>, context: &Arc<Context>) -> ControlFlow<Response, Place> {
        let place = |stand| ControlFlow::Continue(Place { places: self.places.clone(), stand });
        if context.route.unlimited() || context.route.cost(&context.method) == Cost::Memory {
            return place(Stand::None);
        }
        let kind = kind(context);
        let mut rank = Rank::LAST;
        let arrival = match self.places.enter_freely(kind, context.started) {
            Some(held) => Arrival::In(held),
            None => {
                rank = self.rank(request, context);
                self.places.arrive(kind, rank, Waker::noop(), context.started)
            }
        };
        let body = !request.body().is_end_stream();
        let mut lendable = |held| {
            let lendable = Arc::new(Lendable::new(self.places.clone(), held));
            let body = std::mem::take(request.body_mut());
            *request.body_mut() = Body::new(Arriving::new(body, lendable.clone()));
            context.set_place(lendable.clone());
            lendable
        };
        match arrival {
            Arrival::Refused(after_s) => ControlFlow::Break(overloaded(after_s).into_response()),
            Arrival::In(held) if body => place(Stand::Lent(lendable(Some(held)))),
            Arrival::In(held) => place(Stand::Firm(held)),
            Arrival::Waits(number) => {
                context.set_waits();
                let until = context.started + Duration::from_micros(WAIT_BURST_US);
                place(Stand::Waits(Waits { number, rank, until, timer: None, lendable: body.then(|| lendable(None)) }))
            }
        }
    }

    fn wait(&self, place: &mut Place, task: &mut Task<'_>, inside: impl FnOnce(&mut Task<'_>) -> Poll<Response>) -> Poll<Response> {
        if let Stand::Waits(waits) = &mut place.stand {
            match waits.poll(&place.places, task) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(held)) => {
                    place.stand = match waits.lendable.take() {
                        Some(lendable) => {
                            lendable.begin(held);
                            Stand::Lent(lendable)
                        }
                        None => Stand::Firm(held),
                    };
                }
                Poll::Ready(Err(after_s)) => {
                    place.stand = Stand::None;
                    return Poll::Ready(overloaded(after_s).into_response());
                }
            }
        }
        inside(task)
    }

    fn answer(&self, mut place: Place, answer: &mut Outgoing) {
        place.end(answer.status().as_u16() < 400);
    }
}

/// The number under which times of such requests are compared: that of a route's reads, or of its other methods. What is no route never comes here.
fn kind(context: &Context) -> usize {
    context.route.route().map_or(0, |route| 2 * route.index + usize::from(!context.method.is_safe()))
}

impl Waits {
    /// The place, or the seconds after which to come again.
    fn poll(&mut self, places: &Places, task: &mut Task<'_>) -> Poll<Result<Held, u64>> {
        loop {
            match places.ask(self.number, self.rank, task.waker()) {
                Look::In(held) => return Poll::Ready(Ok(held)),
                Look::Refused(after_s) => return Poll::Ready(Err(after_s)),
                Look::Waits => {}
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(self.until.into())));
            if timer.as_mut().poll(task).is_pending() {
                return Poll::Pending;
            }
            timer.as_mut().reset((Instant::now() + AGAIN).into());
        }
    }
}

impl Place {
    fn end(&mut self, good: bool) {
        match std::mem::replace(&mut self.stand, Stand::None) {
            Stand::None => {}
            Stand::Firm(held) => self.places.leave(&held, good),
            // A handler may have handed the body on to a task that outlives the request; the place is not its own.
            Stand::Lent(lendable) => lendable.end(good),
            Stand::Waits(waits) => self.places.cancel(waits.number),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Its client has left.
        self.end(false);
    }
}
