//! Overload: a bound on the requests worked on at once. One more is told so at once, with a 503, instead of making all the others slower.
//!
//! A request that waits for its own client is not worked on: while its body does not come it gives its place to another, so that slow clients, however
//! many, make nobody see a 503. It takes a place again with the next bytes, or is refused like any other.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::body_limit::BodyFault;
use super::{Layer, Outgoing};
use crate::context::Context;
use crate::error::{Error, codes};

/// Work turns over in well under a second, so a second is when asking again is worth it.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a client is told that came at a bad time.
pub(crate) fn overloaded() -> Error {
    Error::new(&codes::OVERLOADED).retry_after(RETRY_AFTER)
}

/// The layer.
#[derive(Debug, Clone)]
pub struct Overload {
    places: Arc<Places>,
}

impl Overload {
    /// At most this many requests at once. Routes that are never limited pass beside.
    pub fn new(concurrency_max: usize) -> Self {
        Self { places: Arc::new(Places { max: concurrency_max, taken: AtomicUsize::new(0) }) }
    }
}

/// A count with a bound. Nobody waits for a place, so it needs no queue.
#[derive(Debug)]
struct Places {
    max: usize,
    taken: AtomicUsize,
}

impl Places {
    fn take(self: &Arc<Self>) -> Option<Taken> {
        let more = |taken| (taken < self.max).then_some(taken + 1);
        self.taken.try_update(AcqRel, Relaxed, more).ok().map(|_| Taken(self.clone()))
    }
}

/// One place, given back by its drop.
#[derive(Debug)]
struct Taken(Arc<Places>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, AcqRel);
    }
}

/// The place of a request that is worked on. It goes back with the request's end, however that comes.
#[derive(Debug)]
pub struct Place(Kept);

#[derive(Debug)]
enum Kept {
    /// Passed beside.
    None,
    /// To the end.
    Firm { _taken: Taken },
    /// Shared with the body, which lends it out while it waits for the client.
    Lent(Arc<Lendable>),
}

impl Layer for Overload {
    type Visit = Place;

    fn request(&self, request: &mut Request<Body>, context: &Arc<Context>) -> ControlFlow<Response, Place> {
        if context.route.unlimited() {
            return ControlFlow::Continue(Place(Kept::None));
        }
        let Some(taken) = self.places.take() else {
            return ControlFlow::Break(overloaded().into_response());
        };
        if request.body().is_end_stream() {
            return ControlFlow::Continue(Place(Kept::Firm { _taken: taken }));
        }
        let place = Arc::new(Lendable { places: self.places.clone(), held: Mutex::new(Held::Here { _taken: taken }) });
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = Body::new(Arriving { body, place: place.clone() });
        ControlFlow::Continue(Place(Kept::Lent(place)))
    }

    fn answer(&self, _: Place, _: &mut Outgoing) {}
}

impl Drop for Place {
    fn drop(&mut self) {
        // A handler may have handed the body on to a task that outlives the request; the place is not its own.
        if let Kept::Lent(place) = &self.0 {
            place.set(Held::Over);
        }
    }
}

/// A place that is given back and taken again.
#[derive(Debug)]
struct Lendable {
    places: Arc<Places>,
    held: Mutex<Held>,
}

#[derive(Debug)]
enum Held {
    Here {
        _taken: Taken,
    },
    Lent,
    /// The request has ended.
    Over,
}

impl Lendable {
    fn set(&self, held: Held) {
        // Nothing panics while it is held.
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    fn lend(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*held, Held::Here { .. }) {
            *held = Held::Lent;
        }
    }

    /// Whether the request may go on.
    fn take_back(&self) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*held, Held::Lent) {
            match self.places.take() {
                Some(taken) => *held = Held::Here { _taken: taken },
                None => return false,
            }
        }
        true
    }
}

/// A body on its way in.
struct Arriving {
    body: Body,
    place: Arc<Lendable>,
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(task);
        if polled.is_pending() {
            self.place.lend();
        } else if !self.place.take_back() {
            return Poll::Ready(Some(Err(axum::Error::new(BodyFault::Overloaded))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
