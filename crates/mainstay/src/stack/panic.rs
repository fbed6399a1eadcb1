//! The panic barrier: a panic costs one request its answer, a 500, and nobody else anything.
//!
//! It stands twice. Around the router ([`crate::routes::Routes`]), so that the 500 of a handler leaves through every layer with all its headers;
//! and here, second from outside, for a fault in a layer of the stack itself.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::Request;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::shortcut::Shortcut;
use crate::error::{Error, codes};

/// The layer.
#[derive(Debug, Clone, Copy, Default)]
pub struct PanicBarrier;

impl<S> Layer<S> for PanicBarrier {
    type Service = Barrier<S>;
    fn layer(&self, inner: S) -> Barrier<S> {
        Barrier { inner }
    }
}

/// The service of [`PanicBarrier`].
#[derive(Debug, Clone)]
pub struct Barrier<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Barrier<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Shortcut<Caught<S::Future>>;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match catch(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(future) => Shortcut::later(Caught { future }),
            Err(error) => Shortcut::now(error.into_response()),
        }
    }
}

/// Runs `work`; a panic becomes an error.
pub(crate) fn catch<T>(work: AssertUnwindSafe<impl FnOnce() -> T>) -> Result<T, Error> {
    catch_unwind(work).map_err(|payload| {
        metrics::counter!("mainstay_panics_total").increment(1);
        Error::new(&codes::INTERNAL).caused_by(format!("panic: {}", words(&*payload)))
    })
}

fn words(payload: &(dyn Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(words), _) => words,
        (_, Some(words)) => words,
        _ => "without words",
    }
}

pin_project! {
    /// A future whose panic is an answer.
    pub struct Caught<F> {
        #[pin] future: F,
    }
}

impl<F> Caught<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future }
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for Caught<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.project().future;
        // Unwind safe: after a panic the future is not polled again, only dropped.
        match catch(AssertUnwindSafe(|| future.poll(task))) {
            Ok(poll) => poll,
            Err(error) => Poll::Ready(Ok(error.into_response())),
        }
    }
}
