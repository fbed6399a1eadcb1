//! May traffic come? What the process says of itself at the public port.
//!
//! Liveness is the process and nothing else. Readiness is its phase of life, not the state of the database: that is shared by all instances, and a
//! readiness that follows it takes the whole fleet out at the first hiccup, cached answers and clear refusals with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// A phase of the process's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not yet serving.
    Starting,
    /// Serving.
    Ready,
    /// Asked to end; still serving, and no new traffic should come.
    Draining,
}

/// The phase, shared between the life of the process and its health routes.
#[derive(Debug, Clone)]
pub struct Health(Arc<AtomicU8>);

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(AtomicU8::new(0)))
    }
}

impl Health {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// Traffic may come.
    pub fn ready(&self) {
        // From the start only: once draining, always draining.
        let _ = self.0.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire);
    }

    /// No more traffic should come.
    pub fn draining(&self) {
        self.0.store(2, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_drains_never_becomes_ready_again() {
        let health = Health::default();
        assert_eq!(health.phase(), Phase::Starting);
        health.ready();
        assert_eq!(health.phase(), Phase::Ready);
        health.draining();
        health.ready();
        assert_eq!(health.phase(), Phase::Draining);
    }
}
