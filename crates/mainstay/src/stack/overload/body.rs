//! A body on its way in: while it does not come, its request's place is another's.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::places::Lendable;
use crate::stack::body_limit::BodyFault;

/// The body.
pub(super) struct Arriving {
    body: Body,
    place: Arc<Lendable>,
}

impl Arriving {
    pub(super) fn new(body: Body, place: Arc<Lendable>) -> Self {
        Self { body, place }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(task);
        if polled.is_pending() {
            self.place.lend();
        } else if let Err(after_s) = self.place.take_back(false) {
            return Poll::Ready(Some(Err(axum::Error::new(BodyFault::Overloaded { after_s }))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
