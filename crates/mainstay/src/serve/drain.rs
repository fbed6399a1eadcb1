//! The end of serving, in two phases: soft (nothing is lost), then hard (what is left is cut).

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

const SERVING: u8 = 0;
const SOFT: u8 = 1;
const HARD: u8 = 2;

/// The switch that ends [`serve`](super::serve). Cheap to clone; one switch may end several listeners.
#[derive(Clone, Default)]
pub struct Drain(Arc<Switch>);

#[derive(Default)]
struct Switch {
    phase: AtomicU8,
    soft_at: OnceLock<(Instant, Duration)>,
    turned: Notify,
}

impl Drain {
    /// A switch that has not been turned.
    pub fn new() -> Drain {
        Drain::default()
    }

    /// Begins the soft phase: no new connections once the accept queue is empty, answers say `Connection: close` (HTTP/2:
    /// GOAWAY), kept connections close after a second of idleness. After `grace` the rest is cut. Only the first call counts.
    pub fn begin(&self, grace: Duration) {
        if self.0.soft_at.set((Instant::now(), grace)).is_ok() {
            self.0.phase.fetch_max(SOFT, Ordering::SeqCst);
            self.0.turned.notify_waiters();
        }
    }

    /// Cuts every connection now, begun or not: the second signal.
    pub fn cut(&self) {
        self.begin(Duration::ZERO);
        self.0.phase.store(HARD, Ordering::SeqCst);
        self.0.turned.notify_waiters();
    }

    /// Whether [`begin`](Drain::begin) or [`cut`](Drain::cut) was called.
    pub fn has_begun(&self) -> bool {
        self.0.phase.load(Ordering::Relaxed) != SERVING
    }

    /// Returns when the drain has begun.
    pub async fn begun(&self) {
        self.reached(SOFT).await;
    }

    /// When the soft phase began.
    pub(crate) fn began_at(&self) -> Option<Instant> {
        self.0.soft_at.get().map(|(at, _)| *at)
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.0.phase.load(Ordering::SeqCst) == HARD
    }

    /// Returns when the hard phase has begun, and begins it itself when the grace is over.
    pub(crate) async fn hard(&self) {
        self.begun().await;
        let Some((at, grace)) = self.0.soft_at.get().copied() else {
            return;
        };
        if tokio::time::timeout_at((at + grace).into(), self.reached(HARD)).await.is_err() {
            self.cut();
        }
    }

    async fn reached(&self, phase: u8) {
        loop {
            // Registered before the look, so that a turn in between is not missed.
            let turned = self.0.turned.notified();
            tokio::pin!(turned);
            turned.as_mut().enable();
            if self.0.phase.load(Ordering::SeqCst) >= phase {
                return;
            }
            turned.await;
        }
    }
}
