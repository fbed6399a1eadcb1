//! One time budget per request. Past it the answer is 504, and everything that the handler still waits for is dropped with it.
//!
//! The deadline is also handed down ([`crate::context::Context::deadline`]): waits for a connection, statements and questions to Redis end there too.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::Request;
use tokio::time::{Sleep, sleep_until};

use super::{Layer, Outgoing};
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

/// The end of a request's time.
#[derive(Debug)]
pub struct Due {
    at: Instant,
    // Set only when the answer does not come at once: most do, and a timer costs more than the rest of this layer.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Layer for Deadline {
    type Visit = Due;

    fn request(&self, _: &mut Request<Body>, context: &Arc<Context>) -> ControlFlow<Response, Due> {
        context.set_budget(self.budget);
        ControlFlow::Continue(Due { at: context.started + self.budget, timer: None })
    }

    fn wait(&self, due: &mut Due, task: &mut Task<'_>, inside: impl FnOnce(&mut Task<'_>) -> Poll<Response>) -> Poll<Response> {
        if let Poll::Ready(answer) = inside(task) {
            return Poll::Ready(answer);
        }
        let at = due.at;
        let timer = due.timer.get_or_insert_with(|| Box::pin(sleep_until(at.into())));
        timer.as_mut().poll(task).map(|()| Error::new(&codes::DEADLINE_EXCEEDED).into_response())
    }

    fn answer(&self, _: Due, _: &mut Outgoing) {}
}
