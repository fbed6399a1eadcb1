//! A database that takes no writes, and when it takes them again: it was made read-only, or is what a failover left behind, or SQLite's disk is full.
//!
//! A connection of PostgreSQL says all its life what it said when it was made. So whether the time is over is asked of new connections, in the background, and those from
//! before are given up together: else each of them would refuse a write first.

use super::error::Error;
use super::pool::{CHECK_TIMEOUT, Connector};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Whether the connections of a pool take writes.
pub(super) struct Writes {
    origin: Instant,
    refused: AtomicBool,
    /// Microseconds after `origin` since which they are taken again; 0 before they were ever refused.
    again_us: AtomicU64,
    turns: AtomicU64,
}

impl Writes {
    /// They do.
    pub(super) fn new(now: Instant) -> Writes {
        Writes { origin: now, refused: AtomicBool::new(false), again_us: AtomicU64::new(0), turns: AtomicU64::new(0) }
    }

    /// One was refused.
    pub(super) fn refuse(&self) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            tracing::warn!("the database takes no writes; reads go on");
        }
    }

    /// Has the database refused writes, and was not found to take them again?
    pub(super) fn are_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// They are taken from now on, by connections that are made from now on.
    pub(super) fn take_again(&self) {
        let after_us = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.again_us.store(after_us, Ordering::Relaxed);
        self.refused.store(false, Ordering::Relaxed);
        self.turns.fetch_add(1, Ordering::Release);
    }

    /// How often they were taken again.
    pub(super) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Acquire)
    }

    /// Was a connection that was made at this time made while writes were refused?
    pub(super) fn outlive(&self, opened_at: Instant) -> bool {
        opened_at < self.origin + Duration::from_micros(self.again_us.load(Ordering::Relaxed))
    }
}

/// Asks a new connection whether writes are taken: after a failover it may lead to another server. It comes on top of the pool for that moment.
///
/// # Errors
/// When no connection can be had.
pub(super) async fn look(connector: &Connector) -> Result<bool, Error> {
    let mut asked = connector.connect().await?;
    let taken = match asked.link() {
        Some(link) => matches!(timeout(CHECK_TIMEOUT, link.takes_writes()).await, Ok(Ok(true))),
        None => false,
    };
    asked.retire("asked").await;
    if taken {
        connector.writes.take_again();
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_before_writes_were_taken_again_is_outlived() {
        let begun = Instant::now();
        let writes = Writes::new(begun);
        assert!(!writes.are_refused() && !writes.outlive(begun));
        writes.refuse();
        assert!(writes.are_refused() && writes.turns() == 0);
        assert!(!writes.outlive(begun), "until it is known to be over, the connections are good for reads");
        // As coarse as the count.
        while begun.elapsed() < Duration::from_micros(2) {}
        writes.take_again();
        assert_eq!(writes.turns(), 1);
        assert!(!writes.are_refused() && writes.outlive(begun) && !writes.outlive(Instant::now()));
    }
}
