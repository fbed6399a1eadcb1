//! Overload: a bound on the requests worked on at once. One more is told so at once, with a 503, instead of making all the others slower.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::Request;
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};

use super::shortcut::Shortcut;
use crate::context::Context;
use crate::error::{Error, codes};

/// Work turns over in well under a second, so a second is when asking again is worth it.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The layer.
#[derive(Debug, Clone)]
pub struct Overload {
    permits: Arc<Semaphore>,
}

impl Overload {
    /// At most this many requests at once. Routes that are never limited pass beside.
    pub fn new(concurrency_max: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(concurrency_max.min(Semaphore::MAX_PERMITS))) }
    }
}

impl<S> Layer<S> for Overload {
    type Service = Shedding<S>;
    fn layer(&self, inner: S) -> Shedding<S> {
        Shedding { inner, permits: self.permits.clone() }
    }
}

/// The service of [`Overload`].
#[derive(Debug, Clone)]
pub struct Shedding<S> {
    inner: S,
    permits: Arc<Semaphore>,
}

impl<S> Service<Request<Body>> for Shedding<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Shortcut<Admitted<S::Future>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let unlimited = request.extensions().get::<Arc<Context>>().is_some_and(|context| context.route.unlimited());
        let permit = if unlimited { None } else { self.permits.clone().try_acquire_owned().ok() };
        if unlimited || permit.is_some() {
            return Shortcut::later(Admitted { future: self.inner.call(request), _permit: permit });
        }
        Shortcut::now(Error::new(&codes::OVERLOADED).retry_after(RETRY_AFTER).into_response())
    }
}

pin_project! {
    /// A request that is worked on; its permit goes back when it ends or is dropped.
    pub struct Admitted<F> {
        #[pin] future: F,
        _permit: Option<OwnedSemaphorePermit>,
    }
}

impl<F: Future> Future for Admitted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<F::Output> {
        self.project().future.poll(task)
    }
}
