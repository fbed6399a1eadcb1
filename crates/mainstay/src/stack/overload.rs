//! Overload: a bound on the requests worked on at once, which may be learnt from how long they take. One more is told so, with a 503, instead of making all the
//! others slower.
//!
//! - **How many** is said, or learnt between a [floor](Overload::floor) and that: `limit`, and what is compared with what, `baseline` (decision 26).
//! - **Who** is refused first: strangers before those who are signed in, and among the same people dear requests before cheap ones ([`Cost`]). A class that is
//!   always refused is let in now and then. Who is signed in is asked only when it matters, and a token says so only if it is verified and this instance
//!   remembers that its session stands: no text that anybody can make up buys a place.
//! - **Waiting** for a place is for bursts and for few, and takes half a second at most, and two while the limit is being tried: `gate`. It happens before the rate limit counts, so a refusal costs no quota.
//! - **Beside it** pass the routes that no limit may refuse, and what is answered from memory at once: it holds a place no longer than a core. Where answers are
//!   [kept](crate::cache) a request asks for a place when its answer is not there.
//! - **Refusals** are told at once while they are few; those who come again as soon as they are refused are told at a `pace` that costs next to nothing.
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
mod later;
mod limit;
mod overdue;
mod pace;
mod places;
mod rank;
mod retry;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
mod waits;
mod window;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Request, header};
use http_body::Body as _;

use super::{Layer, Outgoing};
use crate::auth::Auth;
use crate::context::Context;
use crate::error::{Error, codes};
use crate::routes::{Cost, RouteTable};

use body::Arriving;
use gate::{Arrival, Held};
use later::Later;
use pace::Refusal;
use places::Places;
use rank::Rank;
use waits::Waits;

pub(crate) use places::{Lendable, Lent, admitted};

/// Microseconds since a beginning.
type Micros = u64;

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
    /// At most this many requests at once. Routes that are never limited pass beside.
    pub fn new(concurrency_max: usize) -> Self {
        Self { places: Arc::new(Places::new(concurrency_max, concurrency_max)), auth: None }
    }

    /// As few as this many at once when it has to be: between both the limit is learnt. 4 is a good floor: a few for the smallest machine that is worth
    /// it, enough to keep a database busy over a round trip, and so few do a database no harm that has just come back. To be said before the first request.
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

    /// Who asks, as far as that may matter.
    fn claim(&self, request: &Request<Body>, cost: Cost) -> Claim {
        let mut given = request.headers().get_all(header::AUTHORIZATION).iter();
        // Two credentials are none.
        let credential = given.next().filter(|_| given.next().is_none());
        Claim { credential: self.auth.clone().zip(credential.cloned()), dear: cost == Cost::Dear }
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
    /// It has none yet.
    Waits(Waits, Option<Arc<Lendable>>),
    /// It gets none, and will be told.
    Refused(Later),
}

/// What may tell whose a request is, to be looked at when it matters.
#[derive(Debug)]
struct Claim {
    credential: Option<(Auth, HeaderValue)>,
    dear: bool,
}

impl Claim {
    fn rank(&self) -> Rank {
        let known = |(auth, value): &(Auth, HeaderValue)| auth.account_of(&HeaderMap::from_iter([(header::AUTHORIZATION, value.clone())])).is_some();
        Rank::new(self.credential.as_ref().is_some_and(known), self.dear)
    }
}

impl Layer for Overload {
    type Visit = Place;

    fn request(&self, request: &mut Request<Body>, context: &Arc<Context>) -> ControlFlow<Response, Place> {
        let place = |stand| ControlFlow::Continue(Place { places: self.places.clone(), stand });
        let (kind, cost) = (kind(context), context.route.cost(&context.method));
        if context.route.unlimited() || cost == Cost::Memory {
            return place(Stand::None);
        }
        if cost == Cost::Kept {
            let lendable = Arc::new(Lendable::later(self.places.clone(), kind, self.claim(request, cost)));
            context.set_place(lendable.clone());
            return place(Stand::Lent(lendable));
        }
        let arrival = match self.places.enter_freely(kind, context.started) {
            Some(held) => Arrival::In(held),
            None => self.places.arrive(kind, self.claim(request, cost).rank(), Waker::noop(), context.started),
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
            Arrival::Refused(Refusal { after_s, hold: 0 }) => ControlFlow::Break(overloaded(after_s).into_response()),
            Arrival::Refused(refusal) => {
                context.set_waits();
                place(Stand::Refused(Later::new(&self.places, refusal)))
            }
            Arrival::In(held) if body => place(Stand::Lent(lendable(Some(held)))),
            Arrival::In(held) => place(Stand::Firm(held)),
            Arrival::Waits(ticket) => {
                context.set_waits();
                place(Stand::Waits(Waits::new(self.places.clone(), ticket, context.started), body.then(|| lendable(None))))
            }
        }
    }

    fn wait(&self, place: &mut Place, task: &mut Task<'_>, inside: impl FnOnce(&mut Task<'_>) -> Poll<Response>) -> Poll<Response> {
        if let Stand::Waits(waits, lendable) = &mut place.stand {
            match waits.poll(task) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(held)) => {
                    place.stand = match lendable.take() {
                        Some(lendable) => {
                            lendable.begin(held);
                            Stand::Lent(lendable)
                        }
                        None => Stand::Firm(held),
                    };
                }
                Poll::Ready(Err(refusal)) => place.stand = Stand::Refused(Later::new(&self.places, refusal)),
            }
        }
        if let Stand::Refused(later) = &mut place.stand {
            return Poll::Ready(overloaded(ready!(later.poll(task))).into_response());
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

impl Place {
    fn end(&mut self, good: bool) {
        match std::mem::replace(&mut self.stand, Stand::None) {
            Stand::None => {}
            Stand::Firm(held) => self.places.leave(&held, good),
            // A handler may have handed the body on to a task that outlives the request; the place is not its own.
            Stand::Lent(lendable) => lendable.end(good),
            // Who waits is told by the drop, and so is who is waited for.
            Stand::Waits(..) | Stand::Refused(_) => {}
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Its client has left.
        self.end(false);
    }
}
