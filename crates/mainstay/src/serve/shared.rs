//! What the parts of one connection (bytes, requests, deadlines) know together.
//!
//! Everything here is written on the connection's own task (HTTP/1.1) or on that of one of its streams (HTTP/2), and read by the
//! former, so relaxed atomics are enough: they cost what plain fields cost.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Instant;

use hyper::body::Incoming;

use super::deadline::{Ms, Sight, Stall};
use super::drain::Drain;
use super::lines::Lines;
use super::raw::Tail;

/// The state of one connection.
pub(crate) struct Shared {
    pub(crate) addr: SocketAddr,
    pub(crate) trusted: bool,
    pub(crate) drain: Drain,
    opened: Instant,
    pub(crate) http2: AtomicBool,
    pub(crate) in_flight: AtomicU32,
    pub(crate) bodies_open: AtomicU32,
    pub(crate) served: AtomicU32,
    /// Times that the client came back after an answer (HTTP/1.1): requests sent in one piece with the first one do not count.
    returned: AtomicU32,
    /// A request was taken, and the client had sent nothing behind it when we looked: what comes next was not sent in one piece with it.
    waits: AtomicBool,
    /// Bytes have been read that no request has claimed.
    pub(crate) unparsed: AtomicBool,
    pub(crate) head_began: AtomicU64,
    idle_since: AtomicU64,
    /// The socket takes no more.
    blocked: Stalling,
    /// HTTP/2: pieces of answers that have not been sent.
    unsent: AtomicU32,
    unsent_stall: Stalling,
    linger_since: AtomicU64,
    pub(crate) reads: AtomicU64,
    /// Bytes of an answer may lie in hyper's buffer, unwritten.
    pub(crate) dirty: AtomicBool,
    /// Something has happened that may bring a deadline nearer.
    pub(crate) attention: AtomicBool,
    pub(crate) evicted: AtomicBool,
    /// End with a reset, so that the kernel does not go on sending to a client that does not read.
    pub(crate) reset: AtomicBool,
    tail: Mutex<Tail>,
    /// What the next write of hyper, which begins with a status line, shall carry behind it (HTTP/1.1).
    lines: Mutex<Option<Lines>>,
    /// The request body that the service dropped unread (HTTP/1.1).
    pub(crate) unread: Mutex<Option<Incoming>>,
    /// The waker of the connection's task: a task has one for life.
    pub(crate) waker: OnceLock<Waker>,
}

/// Something that waits for the client to read: since when (0: nothing does), its last byte, and its bytes.
#[derive(Default)]
struct Stalling {
    since: AtomicU64,
    progress: AtomicU64,
    bytes: AtomicU64,
}

impl Stalling {
    fn begin(&self, now: Ms) {
        self.bytes.store(0, Relaxed);
        self.progress.store(now, Relaxed);
        self.since.store(now, Relaxed);
    }

    fn moved(&self, now: Ms, bytes: usize) {
        self.progress.store(now, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    fn sight(&self) -> Stall {
        Stall { since: self.since.load(Relaxed), progress: self.progress.load(Relaxed), bytes: self.bytes.load(Relaxed) }
    }
}

impl Shared {
    pub(crate) fn new(addr: SocketAddr, trusted: bool, drain: Drain) -> Shared {
        Shared {
            addr,
            trusted,
            drain,
            opened: Instant::now(),
            http2: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            bodies_open: AtomicU32::new(0),
            served: AtomicU32::new(0),
            returned: AtomicU32::new(0),
            waits: AtomicBool::new(false),
            unparsed: AtomicBool::new(false),
            head_began: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            blocked: Stalling::default(),
            unsent: AtomicU32::new(0),
            unsent_stall: Stalling::default(),
            linger_since: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            dirty: AtomicBool::new(false),
            attention: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            reset: AtomicBool::new(false),
            tail: Mutex::new(Tail::default()),
            lines: Mutex::new(None),
            unread: Mutex::new(None),
            waker: OnceLock::new(),
        }
    }

    pub(crate) fn now(&self) -> Ms {
        self.at(Instant::now())
    }

    /// `instant` in milliseconds since the connection was opened, at least 1.
    pub(crate) fn at(&self, instant: Instant) -> Ms {
        let passed = instant.saturating_duration_since(self.opened);
        passed.as_secs() * 1000 + u64::from(passed.subsec_millis()) + 1
    }

    pub(crate) fn instant(&self, at: Ms) -> Instant {
        self.opened + std::time::Duration::from_millis(at)
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.http2.load(Relaxed)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.load(Relaxed) > 0 || self.bodies_open.load(Relaxed) > 0
    }

    /// Whether nothing can be lost of an answer: none is being made, none waits in a buffer.
    pub(crate) fn is_clean(&self) -> bool {
        !self.is_busy() && !self.dirty.load(Relaxed) && self.blocked.since.load(Relaxed) == 0
    }

    pub(crate) fn tail(&self) -> MutexGuard<'_, Tail> {
        // Nothing panics while it is held; if it did, the bytes would still only be compared.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the wire put these lines behind the status line of the answer that hyper gets now. Gives them back when it cannot: over HTTP/2, and when
    /// something of an earlier answer may lie in hyper's buffer, so that its next write would begin with that.
    pub(crate) fn write_behind_status(&self, lines: Lines) -> Option<Lines> {
        if self.is_http2() || self.dirty.load(Relaxed) {
            return Some(lines);
        }
        self.set_lines(Some(lines));
        None
    }

    pub(crate) fn set_lines(&self, lines: Option<Lines>) {
        *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = lines;
    }

    pub(crate) fn take_lines(&self) -> Option<Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// There was nothing to read.
    pub(crate) fn nothing_to_read(&self) {
        if self.served.load(Relaxed) > 0 && self.bodies_open.load(Relaxed) == 0 {
            self.waits.store(true, Relaxed);
        }
    }

    /// Bytes were read.
    pub(crate) fn read(&self) {
        if self.waits.load(Relaxed) {
            self.waits.store(false, Relaxed);
            self.returned.store(self.returned.load(Relaxed).saturating_add(1), Relaxed);
        }
        self.unparsed.store(true, Relaxed);
        self.reads.store(self.reads.load(Relaxed) + 1, Relaxed);
    }

    /// A request reached the service.
    pub(crate) fn request_began(&self) {
        self.served.store(self.served.load(Relaxed) + 1, Relaxed);
        if self.is_http2() {
            self.in_flight.fetch_add(1, Relaxed);
        } else {
            self.in_flight.store(1, Relaxed);
        }
        self.unparsed.store(false, Relaxed);
        self.head_began.store(0, Relaxed);
    }

    /// An answer has ended, sent or given up.
    pub(crate) fn request_ended(&self) {
        self.dirty.store(true, Relaxed);
        self.unparsed.store(false, Relaxed);
        self.idle_since.store(self.now(), Relaxed);
        if self.is_http2() {
            self.in_flight.fetch_sub(1, Relaxed);
        } else {
            self.in_flight.store(0, Relaxed);
        }
    }

    /// Another process had it, and what its client has earned there holds here: a proxy counts on the idle time that it knows.
    pub(crate) fn goes_on(&self) {
        self.served.store(1, Relaxed);
        self.returned.store(1, Relaxed);
        self.idle_again();
    }

    /// Somebody may be about to ask.
    pub(crate) fn idle_again(&self) {
        self.idle_since.store(self.now(), Relaxed);
    }

    /// The socket takes no more bytes for now.
    pub(crate) fn write_blocked(&self) {
        if self.blocked.since.load(Relaxed) == 0 {
            self.blocked.begin(self.now());
            self.attention.store(true, Relaxed);
        }
    }

    /// The socket took `n` bytes.
    pub(crate) fn written(&self, n: usize) {
        if self.blocked.since.load(Relaxed) != 0 && n > 0 {
            self.blocked.moved(self.now(), n);
        }
    }

    /// Everything that was to be written has been.
    pub(crate) fn flushed(&self) {
        self.dirty.store(false, Relaxed);
        if self.blocked.since.load(Relaxed) != 0 {
            // Time spent blocked was not idle time.
            self.idle_since.store(self.now(), Relaxed);
            self.blocked.since.store(0, Relaxed);
        }
    }

    /// HTTP/2: a piece of an answer was handed on. Streams are tasks of their own: whoever sees the piece sees since when.
    pub(crate) fn unsent_began(&self) {
        if self.unsent.load(Relaxed) == 0 {
            self.unsent_stall.begin(self.now());
        }
        self.unsent.fetch_add(1, Release);
    }

    /// Bytes of one were sent. That one is given up is no progress of the others.
    pub(crate) fn sent(&self, bytes: usize) {
        self.unsent_stall.moved(self.now(), bytes);
    }

    /// One was sent in full, or given up.
    pub(crate) fn unsent_ended(&self) {
        self.unsent.fetch_sub(1, Relaxed);
    }

    pub(crate) fn linger_began(&self) {
        if self.linger_since.load(Relaxed) == 0 {
            self.linger_since.store(self.now(), Relaxed);
            self.attention.store(true, Relaxed);
        }
    }

    /// Wakes the connection's task to look at its deadlines.
    pub(crate) fn wake(&self) {
        self.attention.store(true, std::sync::atomic::Ordering::SeqCst);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// How willingly this connection gives way to another: the lower the sooner; `None` while we owe it an answer.
    pub(crate) fn standing(&self) -> Option<(u8, Ms)> {
        if self.evicted.load(Relaxed) {
            return None;
        }
        let unsent = self.unsent.load(Relaxed);
        let all_unsent = unsent > 0 && unsent >= self.in_flight.load(Relaxed);
        let waits_for_client = self.bodies_open.load(Relaxed) > 0 || self.blocked.since.load(Relaxed) != 0 || all_unsent;
        let class = match (self.is_busy(), waits_for_client, self.served.load(Relaxed)) {
            (false, _, 0) => 0,
            (false, _, _) => 1,
            (true, true, _) => 2,
            (true, false, _) => return None,
        };
        // Older first; ages, because each connection counts from its own beginning.
        let age = self.now() - self.idle_since.load(Relaxed).min(self.now());
        Some((class, u64::MAX - age))
    }

    /// How often the client came: what earns a connection its long idle time.
    fn came(&self) -> u32 {
        let served = self.served.load(Relaxed);
        if self.is_http2() { served } else { served.min(1).saturating_add(self.returned.load(Relaxed)) }
    }

    pub(crate) fn sight(&self, drain_began: Ms, last_read: Ms) -> Sight {
        Sight {
            in_flight: self.in_flight.load(Relaxed),
            bodies_open: self.bodies_open.load(Relaxed),
            served: self.came(),
            trusted: self.trusted,
            head_began: self.head_began.load(Relaxed),
            idle_since: self.idle_since.load(Relaxed),
            blocked: self.blocked.sight(),
            unsent: if self.unsent.load(Acquire) > 0 { self.unsent_stall.sight() } else { Stall::default() },
            linger_since: self.linger_since.load(Relaxed),
            drain_began,
            heir: !self.is_http2() && !self.dirty.load(Relaxed) && self.drain.heir().is_some(),
            last_read,
        }
    }
}
