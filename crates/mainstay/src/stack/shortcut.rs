//! The future of a layer that may answer at once instead of asking what is inside it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::response::Response;
use pin_project_lite::pin_project;

pin_project! {
    /// An answer that is already there, or one to wait for. The former is boxed: the future is moved once per layer on the way out of the calls, and
    /// must be small on the way that most requests take.
    #[project = Projected]
    pub enum Shortcut<F> {
        /// Answered by the layer itself.
        Now { response: Option<Box<Response>> },
        /// Answered from inside.
        Later { #[pin] future: F },
    }
}

impl<F> Shortcut<F> {
    pub(crate) fn now(response: Response) -> Self {
        Self::Now { response: Some(Box::new(response)) }
    }

    pub(crate) fn later(future: F) -> Self {
        Self::Later { future }
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for Shortcut<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::Later { future } => future.poll(task),
            Projected::Now { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(*response)),
                // Polled after completion, which no caller does; waiting for ever is what a fused future would do.
                None => Poll::Pending,
            },
        }
    }
}

pin_project! {
    /// Waits for the answer from inside and changes it on the way out.
    pub struct Amend<F, A> {
        #[pin] future: F,
        amend: Option<A>,
    }
}

impl<F, A> Amend<F, A> {
    pub(crate) fn new(future: F, amend: A) -> Self {
        Self { future, amend: Some(amend) }
    }
}

/// A change to an answer, kept in a named type so that the future of a layer has a name.
pub trait Amendment {
    /// Changes the answer.
    fn amend(self, response: &mut Response);
}

impl<F: Future<Output = Result<Response, Infallible>>, A: Amendment> Future for Amend<F, A> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.future.poll(task));
        if let Some(amendment) = this.amend.take() {
            amendment.amend(&mut response);
        }
        Poll::Ready(Ok(response))
    }
}
