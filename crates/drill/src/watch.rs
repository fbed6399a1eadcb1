//! The memory, the descriptors and the time of a process, looked at from outside.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

/// How often its memory is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// And its descriptors: listing thousands of them costs the kernel some milliseconds, which the service would feel.
const COUNT: Duration = Duration::from_secs(1);

/// A process that is watched until this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: Arc<Mutex<Vec<(f64, f64)>>>,
    task: AbortHandle,
}

impl Watch {
    /// Begins to look at its resident memory, in MiB.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub(crate) fn new(pid: u32, begun: Instant) -> Self {
        Self::of(begun, LOOK, move || memory_mib(pid))
    }

    /// Begins to look at how many files and sockets it has open.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub(crate) fn descriptors(pid: u32, begun: Instant) -> Self {
        Self::of(begun, COUNT, move || Some(count(look(pid)?.descriptors)))
    }

    fn of(begun: Instant, every: Duration, look: impl Fn() -> Option<f64> + Send + 'static) -> Self {
        let seen: Arc<Mutex<Vec<(f64, f64)>>> = Arc::default();
        let kept = seen.clone();
        let task = tokio::spawn(async move {
            loop {
                if let Some(seen) = look() {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push((begun.elapsed().as_secs_f64(), seen));
                }
                tokio::time::sleep(every).await;
            }
        });
        Self { seen, task: task.abort_handle() }
    }

    /// What was seen, by seconds after the beginning.
    pub(crate) fn seen(&self) -> Vec<(f64, f64)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The most that was seen, and the most before this moment.
    pub(crate) fn most(&self, before: Duration) -> (f64, f64) {
        let all = self.seen();
        let most = |until: f64| all.iter().filter(|(at, _)| *at <= until).map(|(_, seen)| *seen).fold(0.0, f64::max);
        (most(f64::MAX), most(before.as_secs_f64()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a process has taken of the cores so far (`utime` and `stime` of proc(5), in ticks of which every Linux that this runs on has 100 a second).
pub(crate) fn cpu(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program stands in brackets, and may have spaces.
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks()? + ticks()?) * 10))
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Resident memory in MiB.
    pub(crate) mib: f64,
    /// Open descriptors.
    pub(crate) descriptors: u64,
    /// Threads.
    pub(crate) threads: u64,
}

/// What it holds now; nothing if it has ended.
pub(crate) fn look(pid: u32) -> Option<Look> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    Some(Look { mib: mib(&status)?, descriptors, threads: field(&status, "Threads:")?.parse().ok()? })
}

fn count(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// Resident memory now (`VmRSS` of proc(5)).
fn memory_mib(pid: u32) -> Option<f64> {
    mib(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn mib(status: &str) -> Option<f64> {
    let kib: f64 = field(status, "VmRSS:")?.strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}
