//! Where hyper's requests become the service's: the head is checked, the peer put in, the answer told when to close.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use super::answer::Stack;
use super::body::{AnswerBody, Flight, RequestBody, poll_left_unread};
use super::head::{self, Framing, check};
use super::limits::Limits;
use super::raw::RawHead;
use super::shared::Shared;
use super::{Peer, Reply};

/// Turns of hyper's loop that an unread body gets to show its end: a few chunks and the last one.
const TURNS: u8 = 4;

/// The service as hyper sees it, one per connection.
pub(crate) struct Door<S> {
    /// One for the whole connection: a copy per request would touch the counts of everything that the layers share. The lock is never waited
    /// for, because a connection is one task.
    pub(crate) service: Mutex<S>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) limits: Arc<Limits>,
}

impl<S: Stack> hyper::service::Service<Request<Incoming>> for Door<S> {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answer<S>;

    fn call(&self, request: Request<Incoming>) -> Answer<S> {
        let shared = &self.shared;
        shared.request_began();
        let flight = Flight(Arc::clone(shared));
        let http2 = shared.is_http2();
        let framing = Framing::of(request.headers());
        let raw = if http2 { RawHead::default() } else { shared.tail().claim(&framing) };
        let fault = check(&request, &framing, raw, &self.limits);
        let peer = Peer { addr: shared.addr, http2, fault };
        let closes = fault.is_some() || framing.closes;
        let asks = !request.body().is_end_stream() && head::expects_continue(request.headers());
        let request = request.map(|incoming| {
            if fault.is_some() || incoming.is_end_stream() { Body::empty() } else { Body::new(RequestBody::new(incoming, Arc::clone(shared), asks)) }
        });
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner);
        let state = State::Running { future: service.call(peer, request) };
        Answer { state, flight: Some(flight), closes, asks, turns: TURNS }
    }
}

pin_project! {
    /// An answer in the making.
    pub(crate) struct Answer<S: Stack> {
        #[pin]
        state: State<S>,
        // Ends with the answer's body, or here if there never is one.
        flight: Option<Flight>,
        closes: bool,
        // hyper may have written `100 Continue`, which has a status line, too.
        asks: bool,
        turns: u8,
    }
}

pin_project! {
    #[project = StateNow]
    enum State<S: Stack> {
        Running { #[pin] future: S::Future },
        // The answer is there; the end of the request is not.
        Unread { reply: Option<Reply<Body>> },
    }
}

impl<S: Stack> Future for Answer<S> {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut reply = match this.state.as_mut().project() {
            StateNow::Running { future } => Some(ready!(future.poll(cx))),
            StateNow::Unread { reply } => reply.take(),
        };
        // Both are there until the future has ended, and it is not polled afterwards.
        let (Some(answer), Some(flight)) = (reply.as_mut(), this.flight.as_ref()) else {
            return Poll::Pending;
        };
        if !flight.0.is_http2() {
            let closes = *this.closes || flight.0.drain.has_begun();
            match if closes { Poll::Ready(true) } else { poll_left_unread(&flight.0, this.turns, cx) } {
                Poll::Ready(true) => {
                    answer.response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Poll::Ready(false) => {}
                Poll::Pending => {
                    this.state.set(State::Unread { reply });
                    return Poll::Pending;
                }
            }
        }
        match (reply, this.flight.take()) {
            (Some(mut reply), Some(flight)) => {
                if !*this.asks {
                    reply.lines = reply.lines.and_then(|lines| flight.0.write_behind_status(lines));
                }
                Poll::Ready(Ok(reply.into_response().map(|body| AnswerBody::new(body, flight))))
            }
            _ => Poll::Pending,
        }
    }
}
