//! Where hyper's requests become the service's: the head is checked, the peer put in, the answer told when to close.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use super::Peer;
use super::answer::Stack;
use super::body::{AnswerBody, Flight, RequestBody, poll_left_unread};
use super::drain::Drain;
use super::head::{self, check};
use super::limits::Limits;
use super::raw::RawHead;
use super::shared::Shared;

/// Turns of hyper's loop that an unread body gets to show its end: a few chunks and the last one.
const TURNS: u8 = 4;

/// The service as hyper sees it, one per connection.
pub(crate) struct Door<S> {
    pub(crate) service: S,
    pub(crate) shared: Arc<Shared>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) drain: Drain,
}

impl<S: Stack> hyper::service::Service<Request<Incoming>> for Door<S> {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answer<S>;

    fn call(&self, request: Request<Incoming>) -> Answer<S> {
        let shared = &self.shared;
        shared.request_began();
        let flight = Flight(Arc::clone(shared));
        let (mut head, incoming) = request.into_parts();
        let http2 = shared.is_http2();
        let raw = if http2 { RawHead::default() } else { shared.tail().claim(&head.headers, head.headers.contains_key(TRANSFER_ENCODING)) };
        let fault = check(&head, raw, &self.limits);
        let body = if fault.is_some() || incoming.is_end_stream() {
            Body::empty()
        } else {
            let asks = head::expects_continue(&head.headers);
            Body::new(RequestBody::new(incoming, Arc::clone(shared), asks))
        };
        head.extensions.insert(Peer { addr: shared.addr, http2, fault });
        Answer {
            state: State::Waiting { service: self.service.clone(), request: Some(Request::from_parts(head, body)) },
            flight: Some(flight),
            drain: self.drain.clone(),
            closes: fault.is_some(),
            turns: TURNS,
            shared: Arc::clone(shared),
        }
    }
}

pin_project! {
    /// An answer in the making.
    pub(crate) struct Answer<S: Stack> {
        #[pin]
        state: State<S>,
        // Ends with the answer's body, or here if there never is one.
        flight: Option<Flight>,
        drain: Drain,
        closes: bool,
        turns: u8,
        shared: Arc<Shared>,
    }
}

pin_project! {
    #[project = StateNow]
    enum State<S: Stack> {
        Waiting { service: S, request: Option<Request<Body>> },
        Running { #[pin] future: S::Future },
        // The answer is there; what is left of the request is looked at.
        Done { response: Option<Response<Body>> },
    }
}

impl<S: Stack> Future for Answer<S> {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let response = loop {
            match this.state.as_mut().project() {
                StateNow::Waiting { service, request } => {
                    let Ok(()) = ready!(service.poll_ready(cx));
                    // Taken once: the state changes in the next line.
                    let future = service.call(request.take().unwrap_or_default());
                    this.state.set(State::Running { future });
                }
                StateNow::Running { future } => {
                    let Ok(response) = ready!(future.poll(cx));
                    this.state.set(State::Done { response: Some(response) });
                }
                StateNow::Done { response } => {
                    if !*this.closes && !this.shared.is_http2() {
                        *this.closes = this.drain.has_begun() || ready!(poll_left_unread(this.shared, this.turns, cx));
                    }
                    break response.take();
                }
            }
        };
        // Both are there until the future has ended, and it is not polled afterwards.
        let (Some(mut response), Some(flight)) = (response, this.flight.take()) else {
            return Poll::Pending;
        };
        if *this.closes && !this.shared.is_http2() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response.map(|body| AnswerBody::new(body, flight))))
    }
}
