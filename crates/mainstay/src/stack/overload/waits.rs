//! A request that waits for a place: a future by hand, because one of its two owners is a layer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use super::gate::{Held, Look, Ticket, WAIT_BURST_US};
use super::pace::Refusal;
use super::places::Places;

/// Who may wait longer, because the limit is being tried, asks so often whether it is over.
const AGAIN: Duration = Duration::from_millis(20);

/// The wait. Its drop leaves the queue.
#[derive(Debug)]
pub(super) struct Waits {
    places: Arc<Places>,
    ticket: Option<Ticket>,
    until: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Waits {
    /// Since this time.
    pub(super) fn new(places: Arc<Places>, ticket: Ticket, since: Instant) -> Self {
        Self { places, ticket: Some(ticket), until: since + Duration::from_micros(WAIT_BURST_US), timer: None }
    }

    /// The place, or that there is none.
    pub(super) fn poll(&mut self, task: &mut Task<'_>) -> Poll<Result<Held, Refusal>> {
        loop {
            // Polled after completion, which no owner does.
            let Some(ticket) = self.ticket else { return Poll::Pending };
            match self.places.ask(ticket, task.waker()) {
                Look::Waits => {}
                Look::In(held) => {
                    self.ticket = None;
                    return Poll::Ready(Ok(held));
                }
                Look::Refused(refusal) => {
                    self.ticket = None;
                    return Poll::Ready(Err(refusal));
                }
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(self.until.into())));
            if timer.as_mut().poll(task).is_pending() {
                return Poll::Pending;
            }
            timer.as_mut().reset((Instant::now() + AGAIN).into());
        }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.places.cancel(ticket);
        }
    }
}
