//! Log lines: one JSON object each in production, readable ones in development, written by one thread so that a slow terminal slows no request.
//!
//! There are two kinds of lines. The access line, one per request, is written straight from [`crate::stack::Observe`]; events of `tracing` pass through
//! [`Events`] and carry the id of the request they belong to. Control characters are always escaped: no input can begin a line of its own.

mod access;
mod events;

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use access::Access;
pub use events::Events;

use crate::config::LogFormat;

/// Lines waiting to be written, in bytes. Two seconds of 50,000 requests/s at 160 bytes; past it lines are dropped and counted, because waiting for a full disk would stop the service.
const PENDING_BYTES_MAX: usize = 16 << 20;
/// Lines are written in bunches of this much time: a wake-up and a system call per line would cost more than the request it tells of.
const BUNCH: Duration = Duration::from_millis(5);
/// The target under which access lines are switched by `LOG_LEVEL`.
pub(crate) const ACCESS: &str = "mainstay::access";

/// Where log lines go.
#[derive(Debug, Clone)]
pub struct Sink(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    format: LogFormat,
    pending: Mutex<Pending>,
    more: Condvar,
    written: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// The thread sleeps until it is woken. Otherwise it writes, or lets a bunch gather, and looks again by itself.
    asleep: bool,
    /// Lines were taken that are not written yet.
    writing: bool,
}

impl Sink {
    /// Lines to `out`, by a thread of their own that lives as long as the process.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn to(mut out: impl Write + Send + 'static, format: LogFormat) -> std::io::Result<Self> {
        let sink = Self::memory(format);
        let shared = sink.0.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            let mut batch = Vec::new();
            loop {
                let mut pending = shared.lock();
                pending.writing = false;
                shared.written.notify_all();
                while pending.bytes.is_empty() {
                    pending.asleep = true;
                    pending = shared.more.wait(pending).unwrap_or_else(PoisonError::into_inner);
                }
                pending.asleep = false;
                drop(pending);
                std::thread::sleep(BUNCH);
                let mut pending = shared.lock();
                std::mem::swap(&mut batch, &mut pending.bytes);
                pending.writing = true;
                drop(pending);
                // A reader that went away is no reason to stop serving.
                let _ = out.write_all(&batch).and_then(|()| out.flush());
                batch.clear();
                // What one burst needed is not kept for ever.
                batch.shrink_to(1 << 20);
            }
        })?;
        Ok(sink)
    }

    /// Lines kept until they are taken, for tests.
    pub fn memory(format: LogFormat) -> Self {
        let shared = Shared { format, pending: Mutex::default(), more: Condvar::new(), written: Condvar::new(), dropped: AtomicU64::new(0) };
        Self(Arc::new(shared))
    }

    /// How its lines are written.
    pub fn format(&self) -> LogFormat {
        self.0.format
    }

    /// Adds a line, which must end with a line feed.
    pub(crate) fn write(&self, line: &[u8]) {
        let mut pending = self.0.lock();
        if pending.bytes.len() + line.len() > PENDING_BYTES_MAX {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        pending.bytes.extend_from_slice(line);
        let asleep = std::mem::replace(&mut pending.asleep, false);
        drop(pending);
        if asleep {
            self.0.more.notify_one();
        }
    }

    /// Takes what has not been written yet.
    pub fn take(&self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.0.lock().bytes)).into_owned()
    }

    /// Lines that were dropped because their reader was too slow.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, at most `patience`: the last lines before the end of the process matter most.
    pub fn flush(&self, patience: Duration) {
        let pending = self.0.lock();
        let busy = |pending: &mut Pending| pending.writing || !pending.bytes.is_empty();
        drop(self.0.written.wait_timeout_while(pending, patience, busy));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // A panic while a line was added leaves at worst half a line.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Is the text a level, or a list of them by target?
///
/// # Errors
/// What is wrong with it, in words that follow the setting's name.
pub fn check_level(level: &str) -> Result<(), String> {
    targets(level).map(drop)
}

fn targets(level: &str) -> Result<Targets, String> {
    let known = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word.to_ascii_lowercase().as_str());
    // `Targets` takes a bare unknown word for the name of a target and logs everything of it: a typo would go unnoticed.
    if let Some(wrong) = level.split(',').map(str::trim).find(|item| !item.contains('=') && !known(item)) {
        return Err(format!("has `{wrong}`; it must be one of `off`, `error`, `warn`, `info`, `debug`, `trace`"));
    }
    let targets = level.parse::<Targets>().map_err(|error| format!("is `{level}`: {error}"))?;
    // The driver tells at `info` every notice of the database, such as a table that is there already.
    Ok(if level.contains("sqlx") { targets } else { targets.with_target("sqlx", Level::WARN) })
}

/// Sends the events of the whole process to the sink, from this level on. Does nothing when that was done before.
pub fn init(sink: &Sink, level: &str) {
    let targets = targets(level).unwrap_or_default();
    let _ = tracing_subscriber::registry().with(targets).with(Events::new(sink.clone())).try_init();
}
