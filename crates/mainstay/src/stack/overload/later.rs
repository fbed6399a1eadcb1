//! A refusal that is told later: a future by hand, because one of its two owners is a layer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use super::pace::Refusal;
use super::places::Places;

/// The refusal on its way. Gives way to another when it is told, and when its client has left.
#[derive(Debug)]
pub(super) struct Later {
    /// As long as it is kept back.
    held: Option<(Arc<Places>, Pin<Box<Sleep>>)>,
    after_s: u64,
}

impl Later {
    pub(super) fn new(places: &Arc<Places>, refusal: Refusal) -> Self {
        let held = (refusal.hold > 0).then(|| (places.clone(), Box::pin(sleep(Duration::from_micros(refusal.hold)))));
        Self { held, after_s: refusal.after_s }
    }

    /// The seconds after which to come again, when it is time to say so.
    pub(super) fn poll(&mut self, task: &mut Task<'_>) -> Poll<u64> {
        if let Some((_, turn)) = &mut self.held {
            ready!(turn.as_mut().poll(task));
            self.let_go();
        }
        Poll::Ready(self.after_s)
    }

    fn let_go(&mut self) {
        if let Some((places, _)) = self.held.take() {
            places.told();
        }
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        self.let_go();
    }
}
