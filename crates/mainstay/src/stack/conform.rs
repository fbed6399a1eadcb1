//! Requests that are not HTTP as the RFC has it leave here, in the one error form.
//!
//! The transport sees the faults of a head ([`crate::serve`]) and notes them on the request; this layer answers, inside the layers that give every
//! answer its id and its headers, and before any budget is spent.

use std::convert::Infallible;
use std::task::{Context as Task, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::Request;
use tower::{Layer, Service};

use super::shortcut::Shortcut;
use crate::error::{Error, codes};
use crate::serve::Peer;

/// The layer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conform;

impl<S> Layer<S> for Conform {
    type Service = Conforming<S>;
    fn layer(&self, inner: S) -> Conforming<S> {
        Conforming { inner }
    }
}

/// The service of [`Conform`].
#[derive(Debug, Clone)]
pub struct Conforming<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Conforming<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Shortcut<S::Future>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match request.extensions().get::<Peer>().and_then(|peer| peer.fault) {
            None => Shortcut::later(self.inner.call(request)),
            // What follows a malformed head cannot be told from the next request (RFC 9112, 2.2 and 6.3): the connection ends.
            Some(fault) => Shortcut::now(
                Error::new(codes::for_status(fault.status))
                    .with_message(fault.message)
                    .with_field("head", fault.code, fault.message)
                    .closing()
                    .into_response(),
            ),
        }
    }
}
