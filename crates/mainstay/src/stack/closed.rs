//! The closed stack: all layers around the routes, as one service with one future.

use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, Request, header};
use pin_project_lite::pin_project;

use super::Outgoing;
use super::layer::Chain;
use super::secure::nothing_of_the_software;
use crate::client::Networks;
use crate::context::Context;
use crate::routes::{Routed, Routes};
use crate::serve::{self, Constant, Lines, Peer, Reply};

/// The service. A copy has a router of its own, which is what a connection needs.
pub(super) struct Closed<C> {
    whole: Arc<Whole<C>>,
    routes: Routes,
}

struct Whole<C> {
    chain: C,
    trusted: Networks,
    /// Lines under the answers of the routes, for every form that they take.
    usual: Box<[Arc<Constant>]>,
    /// What the layers say in any form: an answer that says such a thing itself is treated field by field.
    theirs: HeaderMap,
}

impl<C: Chain> Closed<C> {
    pub(super) fn new(chain: C, trusted: Networks, routes: Routes) -> Self {
        let mut theirs = HeaderMap::new();
        let constants = |form| {
            let mut fields = HeaderMap::new();
            chain.constants(form, &mut fields);
            theirs.extend(fields.clone());
            Arc::new(Constant::new(fields))
        };
        let usual = (0..chain.forms()).map(constants).collect();
        chain.names(&mut theirs);
        // `Vary` is a list: what a layer says stands beside what the handler says (RFC 9110, 12.5.5).
        theirs.remove(header::VARY);
        Self { whole: Arc::new(Whole { chain, trusted, usual, theirs }), routes }
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
            ControlFlow::Break(answer) => Answering { state: State::Answered { reply: Some(answer.into_reply()) } },
            ControlFlow::Continue(visit) => {
                let inside = self.routes.call(request, &context);
                Answering { state: State::Waiting { visit: Some(visit), inside: Some(inside), whole: self.whole.clone() } }
            }
        }
    }
}

pin_project! {
    /// An answer in the making.
    pub(super) struct Answering<C: Chain> {
        #[pin]
        state: State<C>,
    }
}

pin_project! {
    #[project = StateNow]
    enum State<C: Chain> {
        // A layer answered.
        Answered { reply: Option<Reply<Body>> },
        // The routes were asked. Both are there until the answer is.
        Waiting { visit: Option<C::Visit>, #[pin] inside: Option<Routed>, whole: Arc<Whole<C>> },
    }
}

impl<C: Chain> Future for Answering<C> {
    type Output = Reply<Body>;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Reply<Body>> {
        let (visit, mut inside, whole) = match self.project().state.project() {
            // Polled after completion, which no caller does; waiting for ever is what a fused future would do.
            StateNow::Answered { reply } => return reply.take().map_or(Poll::Pending, Poll::Ready),
            StateNow::Waiting { visit, inside, whole } => (visit, inside, whole),
        };
        let (Some(kept), Some(routed)) = (visit.as_mut(), inside.as_mut().as_pin_mut()) else { return Poll::Pending };
        let mut of_the_routes = false;
        let response = ready!(whole.chain.wait(kept, task, |task| {
            let polled = routed.poll(task);
            of_the_routes = polled.is_ready();
            polled
        }));
        // What the handler held is free before anything that counts it says so.
        inside.set(None);
        let Some(visit) = visit.take() else { return Poll::Ready(response.into()) };
        let mut answer = if of_the_routes { whole.begin(&visit, response) } else { Outgoing::new(response) };
        whole.chain.answer(visit, &mut answer);
        Poll::Ready(answer.into_reply())
    }
}

impl<C: Chain> Whole<C> {
    /// Gives an answer of the routes the usual fields, unless it says something of that kind itself.
    fn begin(&self, visit: &C::Visit, response: Response) -> Outgoing {
        let plain = |name: &HeaderName| {
            // What nearly all handlers say is looked at first.
            *name == header::CONTENT_TYPE || *name == header::CONTENT_LENGTH || !(self.theirs.contains_key(name) || nothing_of_the_software(name))
        };
        match self.usual.get(self.chain.form(visit)) {
            Some(constant) if response.headers().keys().all(plain) => {
                let mut lines = Lines::new(constant.clone());
                self.chain.fill(visit, &mut lines);
                Outgoing::with_usual_fields(response, lines)
            }
            _ => Outgoing::new(response),
        }
    }
}
