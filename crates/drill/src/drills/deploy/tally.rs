//! What the clients count together, in one record: one for each of them would be large.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::json;

use crate::record::{End, Record};

/// GETs for each POST.
const READS_PER_WRITE: u64 = 9;

/// Counted by all clients.
#[derive(Debug)]
pub(super) struct Tally {
    record: Mutex<Record>,
    answered: AtomicU64,
    created: AtomicU64,
    again: AtomicU64,
    connections: AtomicU64,
    over: AtomicBool,
}

impl Tally {
    pub(super) fn new(begun: Instant) -> Self {
        let [answered, created, again, connections] = [const { AtomicU64::new(0) }; 4];
        Self { record: Mutex::new(Record::new(begun)), answered, created, again, connections, over: AtomicBool::new(false) }
    }

    pub(super) fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub(super) fn created(&self) -> u64 {
        self.created.load(Ordering::Relaxed)
    }

    /// Over HTTP/2 the server said that it had not begun it, and it is sent again.
    pub(super) fn sends_again(&self) {
        self.again.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn again(&self) -> u64 {
        self.again.load(Ordering::Relaxed)
    }

    pub(super) fn connects(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// What was seen of the requests.
    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request of this moment has failed.
    pub(super) fn fail(&self, asked: Instant, what: String) {
        let mut record = self.record();
        record.note(asked, Instant::now(), End::Failed);
        record.failure.get_or_insert(what);
    }

    /// The body of a client's request of this number, or nothing if it is one that reads.
    pub(super) fn body(client: &str, number: u64) -> Option<Vec<u8>> {
        number.is_multiple_of(READS_PER_WRITE + 1).then(|| json!({"name": format!("{client} {number}")}).to_string().into_bytes())
    }

    /// The answer to a request of this moment is here, whole.
    pub(super) fn answer(&self, asked: Instant, wrote: bool, status: u16, body: &[u8]) {
        match (wrote, status) {
            (false, 200) => {}
            (true, 201) => drop(self.created.fetch_add(1, Ordering::Relaxed)),
            _ => return self.fail(asked, format!("{status}: {}", String::from_utf8_lossy(body))),
        }
        self.record().note(asked, Instant::now(), End::Served);
        self.answered.fetch_add(1, Ordering::Relaxed);
    }
}
