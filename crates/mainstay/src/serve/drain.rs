//! The end of serving, in two phases: soft (nothing is lost), then hard (what is left is cut).
//!
//! Three ends begin alike and differ in what becomes of the socket: it is closed ([`Drain::begin`]), it outlives the process ([`Drain::leave`]), or another
//! process serves on it already ([`Drain::hand_over`]).

use std::net::TcpStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

const SERVING: u8 = 0;
const SOFT: u8 = 1;
const HARD: u8 = 2;

/// The switch that ends [`serve`](super::serve). Cheap to clone; one switch may end several listeners.
#[derive(Clone, Default)]
pub struct Drain(Arc<Switch>);

#[derive(Default)]
struct Switch {
    phase: AtomicU8,
    soft: OnceLock<Soft>,
    turned: Notify,
}

struct Soft {
    at: Instant,
    grace: Duration,
    /// The socket outlives this process, with what waits in its queue.
    leaves: bool,
    /// Who goes on with connections on which nobody is asking.
    heir: Option<UnboundedSender<TcpStream>>,
}

impl Drain {
    /// A switch that has not been turned.
    pub fn new() -> Drain {
        Drain::default()
    }

    /// Begins the soft phase: no new connections once the accept queue is empty, answers say `Connection: close` (HTTP/2:
    /// GOAWAY), kept connections close after a second of idleness. After `grace` the rest is cut. Only the first call counts.
    pub fn begin(&self, grace: Duration) {
        self.soft(grace, false, None);
    }

    /// As [`begin`](Drain::begin), for a socket that somebody else holds as well: what waits in its queue is the next process's.
    pub fn leave(&self, grace: Duration) {
        self.soft(grace, true, None);
    }

    /// As [`leave`](Drain::leave), while another process serves on the same socket: it gets the connections of HTTP/1.1 on which nobody is asking, so that
    /// none has to be closed under a client that is about to. There are no more of them than were open, so their queue needs no bound.
    pub fn hand_over(&self, grace: Duration, heir: UnboundedSender<TcpStream>) {
        self.soft(grace, true, Some(heir));
    }

    fn soft(&self, grace: Duration, leaves: bool, heir: Option<UnboundedSender<TcpStream>>) {
        if self.0.soft.set(Soft { at: Instant::now(), grace, leaves, heir }).is_ok() {
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
        self.0.soft.get().map(|soft| soft.at)
    }

    /// Is the accept queue somebody else's?
    pub(crate) fn leaves(&self) -> bool {
        self.0.soft.get().is_some_and(|soft| soft.leaves)
    }

    /// Who goes on with connections on which nobody is asking.
    pub(crate) fn heir(&self) -> Option<&UnboundedSender<TcpStream>> {
        self.0.soft.get().and_then(|soft| soft.heir.as_ref())
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.0.phase.load(Ordering::SeqCst) == HARD
    }

    /// Returns when the hard phase has begun, and begins it itself when the grace is over.
    pub(crate) async fn hard(&self) {
        self.begun().await;
        let Some((at, grace)) = self.0.soft.get().map(|soft| (soft.at, soft.grace)) else {
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
