//! The machine under the benchmark: its cores, and what the kernel counted for a process.

use std::fs;

use anyhow::Context as _;

/// Length of a tick of `/proc`: Linux reports 100 a second to every process, whatever the kernel's own clock (proc(5)).
const TICK_US: u64 = 10_000;

/// The cores that this process may use.
pub(crate) struct Machine {
    /// The core of the server and the core of the load generator; `None` with fewer than two cores.
    pub(crate) cores: Option<(u32, u32)>,
    pub(crate) cores_allowed: usize,
}

impl Machine {
    /// Reads the cores that the scheduler allows this process.
    pub(crate) fn look() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("0");
        let cores = core_list(list.trim());
        let pair = match cores.as_slice() {
            [server, load, ..] => Some((*server, *load)),
            _ => None,
        };
        Self { cores: pair, cores_allowed: cores.len() }
    }

    /// CPU time of everything on the server's core so far, in microseconds; `None` when the server has no core of its own.
    pub(crate) fn server_core_busy_us(&self) -> Option<u64> {
        let (server, _) = self.cores?;
        let stat = fs::read_to_string("/proc/stat").ok()?;
        core_busy_ticks(&stat, server).map(|ticks| ticks * TICK_US)
    }
}

/// `0-2,5` as numbers (the list format of cpuset(7)).
fn core_list(text: &str) -> Vec<u32> {
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse::<u32>().ok()?..=last.trim().parse().ok()?)
        })
        .flatten()
        .collect()
}

/// user, nice, system, irq, softirq and steal of one core; idle and iowait are columns 4 and 5 and left out (proc(5)).
fn core_busy_ticks(stat: &str, core: u32) -> Option<u64> {
    let name = format!("cpu{core}");
    let line = stat.lines().find(|line| line.split(' ').next() == Some(name.as_str()))?;
    let columns: Vec<u64> = line.split_ascii_whitespace().skip(1).filter_map(|column| column.parse().ok()).collect();
    Some(columns.iter().take(8).enumerate().filter(|(place, _)| ![3, 4].contains(place)).map(|(_, ticks)| ticks).sum())
}

/// CPU time of a process and all its threads so far, user and system, in microseconds.
pub(crate) fn cpu_us(pid: u32) -> anyhow::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("a peer ended while it was measured")?;
    cpu_ticks(&stat).map(|ticks| ticks * TICK_US).context("/proc/PID/stat has another form than expected")
}

/// utime and stime: fields 14 and 15, counted after the name, which may hold spaces and brackets itself (proc(5)).
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Makes the kernel forget the peak so far, so that [`rss_peak_kib`] is the peak of what follows (proc(5), `clear_refs`).
pub(crate) fn forget_rss_peak(pid: u32) {
    // Refused in some containers: then the figure is the peak since the start, which is larger and never flatters.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// Largest resident set of a process, in KiB; 0 when the kernel does not tell.
pub(crate) fn rss_peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|value| value.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_list_is_read_with_its_ranges() {
        assert_eq!(core_list("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(core_list("3"), [3]);
    }

    #[test]
    fn cpu_time_is_found_behind_a_name_with_brackets() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 100 1 1";
        assert_eq!(cpu_ticks(stat), Some(300));
    }

    #[test]
    fn idle_time_is_not_busy_time() {
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 1000 1000 4 5 6 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\n";
        assert_eq!(core_busy_ticks(stat, 0), Some(21));
    }

    #[test]
    fn this_process_has_used_memory() {
        assert!(rss_peak_kib(std::process::id()) > 0);
    }
}
