//! What the clients of the drill count together.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;

/// Counted by all clients.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) answered: AtomicU64,
    pub(super) created: AtomicU64,
    pub(super) again: AtomicU64,
    pub(super) connections: AtomicU64,
    failures: Mutex<Vec<String>>,
    over: AtomicBool,
    reads_per_write: u64,
}

impl Tally {
    pub(super) fn new(reads_per_write: u64) -> Self {
        Self {
            answered: AtomicU64::new(0),
            created: AtomicU64::new(0),
            again: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            failures: Mutex::default(),
            over: AtomicBool::new(false),
            reads_per_write,
        }
    }

    pub(super) fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }

    pub(super) fn fail(&self, what: String) {
        self.failures.lock().unwrap().push(what);
    }

    /// The body of a client's request of this number, or nothing if it is one that reads.
    pub(super) fn body(&self, client: &str, number: u64) -> Option<Vec<u8>> {
        number.is_multiple_of(self.reads_per_write + 1).then(|| json!({"name": format!("{client} {number}")}).to_string().into_bytes())
    }

    /// An answer is here, whole.
    pub(super) fn answer(&self, wrote: bool, status: u16, body: &[u8]) {
        match (wrote, status) {
            (false, 200) => {}
            (true, 201) => drop(self.created.fetch_add(1, Ordering::Relaxed)),
            _ => return self.fail(format!("{status}: {}", String::from_utf8_lossy(body))),
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
    }
}
