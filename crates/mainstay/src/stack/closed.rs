//! The closed stack: all layers around the routes, as one service with one future.

use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};

use super::layer::{Blanks, Chain, Outgoing};
use super::secure::nothing_of_the_software;
use crate::client::Networks;
use crate::context::Context;
use crate::routes::{Routed, Routes};
use crate::serve::{self, Peer};

/// The service. A copy has a router of its own, which is what a connection needs.
pub(super) struct Closed<C> {
    whole: Arc<Whole<C>>,
    routes: Routes,
}

struct Whole<C> {
    chain: C,
    trusted: Networks,
    /// Laid under the answers of the routes.
    usual: HeaderMap,
}

impl<C: Chain> Closed<C> {
    pub(super) fn new(chain: C, trusted: Networks, routes: Routes) -> Self {
        let mut usual = HeaderMap::new();
        // What handlers say themselves, nearly all of them: the first two blanks.
        usual.insert(header::CONTENT_TYPE, HeaderValue::from_static(""));
        usual.insert(header::CONTENT_LENGTH, HeaderValue::from_static(""));
        chain.blanks(&mut usual);
        chain.constants(&mut usual);
        Self { whole: Arc::new(Whole { chain, trusted, usual }), routes }
    }
}

impl<C> Clone for Closed<C> {
    fn clone(&self) -> Self {
        Self { whole: self.whole.clone(), routes: self.routes.clone() }
    }
}

impl<C> fmt::Debug for Closed<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closed").field("routes", &self.routes).finish_non_exhaustive()
    }
}

impl<C: Chain> serve::Stack for Closed<C> {
    type Future = Answering<C>;

    fn call(&mut self, peer: Peer, mut request: Request<Body>) -> Answering<C> {
        let context = Arc::new(Context::arriving(&peer, &request, &self.whole.trusted, self.routes.table()));
        match self.whole.chain.request(&mut request, &context) {
            ControlFlow::Break(answer) => Answering(State::Answered(Some(answer.into_response()))),
            ControlFlow::Continue(visit) => {
                let inside = self.routes.call(request, &context);
                Answering(State::Waiting { visit: Some(visit), inside: Some(inside), whole: self.whole.clone() })
            }
        }
    }
}

/// An answer in the making.
pub(super) struct Answering<C: Chain>(State<C>);

enum State<C: Chain> {
    /// A layer answered.
    Answered(Option<Response>),
    /// The routes were asked. Both are there until the answer is.
    Waiting { visit: Option<C::Visit>, inside: Option<Routed>, whole: Arc<Whole<C>> },
}

// Nothing in it is pinned: the handler's future is boxed.
impl<C: Chain> Unpin for Answering<C> {}

impl<C: Chain> Future for Answering<C> {
    type Output = Response;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Response> {
        let (visit, inside, whole) = match &mut self.get_mut().0 {
            // Polled after completion, which no caller does; waiting for ever is what a fused future would do.
            State::Answered(response) => return response.take().map_or(Poll::Pending, Poll::Ready),
            State::Waiting { visit, inside, whole } => (visit, inside, whole),
        };
        let (Some(kept), Some(routed)) = (visit.as_mut(), inside.as_mut()) else { return Poll::Pending };
        let mut of_the_routes = false;
        let response = ready!(whole.chain.wait(kept, task, |task| {
            let polled = routed.poll(task);
            of_the_routes = polled.is_ready();
            polled
        }));
        // What the handler held is free before anything that counts it says so.
        *inside = None;
        let Some(visit) = visit.take() else { return Poll::Ready(response) };
        let mut answer = if of_the_routes { whole.begin(&visit, response) } else { Outgoing::new(response) };
        whole.chain.answer(visit, &mut answer);
        Poll::Ready(answer.into_response())
    }
}

impl<C: Chain> Whole<C> {
    /// Lays an answer of the routes over the usual fields; its own values stand.
    fn begin(&self, visit: &C::Visit, mut response: Response) -> Outgoing {
        let own = std::mem::replace(response.headers_mut(), self.usual.clone());
        let headers = response.headers_mut();
        let (mut media, mut length) = (None, None);
        lay_over(own, headers, |name, value| {
            match *name {
                header::CONTENT_TYPE => media = Some(value),
                header::CONTENT_LENGTH => length = Some(value),
                _ => return Some(value),
            }
            None
        });
        let (typed, measured) = (media.is_some(), length.is_some());
        let mut blanks = Blanks(headers.values_mut());
        for own in [media, length] {
            blanks.set(own.unwrap_or(HeaderValue::from_static("")));
        }
        self.chain.fill(visit, &mut blanks);
        if !typed {
            headers.remove(header::CONTENT_TYPE);
        }
        if !measured {
            headers.remove(header::CONTENT_LENGTH);
        }
        Outgoing::with_usual_fields(response)
    }
}

/// Puts fields over others, all values of each name, but for those that `take` keeps for itself.
pub(super) fn lay_over(fields: HeaderMap, headers: &mut HeaderMap, mut take: impl FnMut(&HeaderName, HeaderValue) -> Option<HeaderValue>) {
    let mut last = None;
    for (name, value) in fields {
        match (name, &last) {
            (Some(name), _) if nothing_of_the_software(&name) => last = None,
            (Some(name), _) => {
                last = None;
                let Some(value) = take(&name, value) else { continue };
                // `Vary` is a list: what a layer says stands beside what the handler says (RFC 9110, 12.5.5).
                if name == header::VARY {
                    headers.append(name.clone(), value);
                } else {
                    headers.insert(name.clone(), value);
                }
                last = Some(name);
            }
            // `None` means a further value of the last name.
            (None, Some(name)) => drop(headers.append(name.clone(), value)),
            (None, None) => {}
        }
    }
}
