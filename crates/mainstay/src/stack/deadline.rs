//! One time budget per request. Past it the answer is 504, and everything that the handler still waits for is dropped with it.
//!
//! The deadline is also handed down ([`crate::context::Context::deadline`]): waits for a connection and statements end there too.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::Request;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};
use tower::{Layer, Service};

use crate::context::Context;
use crate::error::{Error, codes};

/// The layer.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    budget: Duration,
}

impl Deadline {
    /// This much time for each request, from its head to its answer.
    pub fn new(budget: Duration) -> Self {
        Self { budget }
    }
}

impl<S> Layer<S> for Deadline {
    type Service = Bounded<S>;
    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded { inner, budget: self.budget }
    }
}

/// The service of [`Deadline`].
#[derive(Debug, Clone)]
pub struct Bounded<S> {
    inner: S,
    budget: Duration,
}

impl<S> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoundedFuture<S::Future>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let context = request.extensions().get::<Arc<Context>>();
        let deadline = context.map_or_else(Instant::now, |context| context.started) + self.budget;
        if let Some(context) = context {
            context.set_deadline(deadline);
        }
        BoundedFuture { future: self.inner.call(request), deadline, timer: None }
    }
}

pin_project! {
    /// An answer, or a 504 when its time is over.
    pub struct BoundedFuture<F> {
        #[pin] future: F,
        deadline: Instant,
        // Set only when the answer does not come at once: most do, and a timer costs more than the rest of this layer.
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for BoundedFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(answer) = this.future.poll(task) {
            return Poll::Ready(answer);
        }
        let deadline = *this.deadline;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
        match timer.as_mut().poll(task) {
            Poll::Ready(()) => Poll::Ready(Ok(Error::new(&codes::DEADLINE_EXCEEDED).into_response())),
            Poll::Pending => Poll::Pending,
        }
    }
}
