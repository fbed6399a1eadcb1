//! The measurement: `wrk` loads one peer at a time, and the kernel says what it cost.
//!
//! All peers run for the whole time and idle while another is measured; within a round each route visits them one after the
//! other, so that what the machine does to one it does to all.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tempfile::TempDir;

use crate::machine::{self, Machine};
use crate::options::Options;
use crate::peer::{Name, Rig, Server, log_to};
use crate::route::Route;

/// Load before each measurement, in seconds: connections open and caches fill.
const WARM_UP_S: u32 = 1;
/// Load before a peer's first measurement on a route, as a multiple of `--seconds`, when its code is compiled as it runs.
/// Express took about six seconds of load until its CPU time per request no longer fell; 2 x 5 s covers that.
const COMPILE_WARM_UP: u32 = 2;
/// How much longer than asked for `wrk` may take before it is given up.
const WRK_GRACE: Duration = Duration::from_secs(20);

/// One measurement of one peer on one route.
#[derive(Clone, Serialize)]
pub(crate) struct Sample {
    #[serde(serialize_with = "titled")]
    pub(crate) peer: Name,
    pub(crate) route: &'static str,
    pub(crate) round: u32,
    pub(crate) requests: u64,
    pub(crate) requests_per_s: f64,
    pub(crate) cpu_us_per_request: f64,
    pub(crate) latency_p50_us: u64,
    pub(crate) latency_p99_us: u64,
    pub(crate) rss_peak_kib: u64,
    /// Share of the time in which the peer itself ran; several threads on several cores can exceed 1.
    pub(crate) core_share: f64,
    /// Share of the time in which something else ran on the server's core; `None` without a core of its own.
    pub(crate) foreign_share: Option<f64>,
}

fn titled<S: serde::Serializer>(name: &Name, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.title())
}

/// Measures all peers on all routes for all rounds.
///
/// # Errors
/// When a peer ends, `wrk` fails, or one answer was an error.
pub(crate) async fn measure(rig: &Rig, routes: &[Route], machine: &Machine, options: &Options) -> anyhow::Result<Vec<Sample>> {
    let scripts = TempDir::new()?;
    let mut servers = Vec::new();
    for peer in &rig.peers {
        servers.push(rig.start(peer, log_to(None)).await?);
    }
    let mut samples = Vec::new();
    for round in 1..=options.rounds {
        for (number, route) in routes.iter().enumerate() {
            let script = scripts.path().join(format!("{number}.lua"));
            std::fs::write(&script, route.wrk_script())?;
            for server in servers.iter().filter(|server| server.name.has_stack() || !route.compressed) {
                let first = round == 1 && server.name.is_compiled_as_it_runs();
                let warm_up_s = if first { options.seconds * COMPILE_WARM_UP } else { WARM_UP_S };
                let wrk = Wrk { rig, script: &script, connections: options.connections };
                let sample = wrk.sample(server, route, machine, (warm_up_s, options.seconds)).await;
                let sample = sample.with_context(|| format!("{}, route {}", server.name.title(), route.name))?;
                eprintln!("round {round}: {:<10} {:<10} {:>9.0} requests/s", server.name.title(), route.name, sample.requests_per_s);
                samples.push(Sample { round, ..sample });
            }
        }
    }
    for server in servers {
        server.stop().await?;
    }
    Ok(samples)
}

/// The load generator with what stays the same between warm-up and measurement.
struct Wrk<'a> {
    rig: &'a Rig,
    script: &'a std::path::Path,
    connections: u32,
}

impl Wrk<'_> {
    async fn sample(&self, server: &Server, route: &Route, machine: &Machine, (warm_up_s, seconds): (u32, u32)) -> anyhow::Result<Sample> {
        self.run(server.port, route, warm_up_s).await?;
        let pid = server.pid()?;
        machine::forget_rss_peak(pid);
        let (cpu_before_us, core_before_us) = (machine::cpu_us(pid)?, machine.server_core_busy_us());
        let outcome = self.run(server.port, route, seconds).await?;
        let cpu_us = machine::cpu_us(pid)? - cpu_before_us;
        let core_us = machine.server_core_busy_us().zip(core_before_us).map(|(after, before)| after.saturating_sub(before));
        ensure!(outcome.requests > 0, "wrk counted no request");
        ensure!(outcome.errors == 0, "{} of {} requests failed", outcome.errors, outcome.requests);
        let wall_us = outcome.duration_us as f64;
        Ok(Sample {
            peer: server.name,
            route: route.name,
            round: 0,
            requests: outcome.requests,
            requests_per_s: outcome.requests as f64 / (wall_us / 1e6),
            cpu_us_per_request: cpu_us as f64 / outcome.requests as f64,
            latency_p50_us: outcome.p50_us,
            latency_p99_us: outcome.p99_us,
            rss_peak_kib: machine::rss_peak_kib(pid),
            core_share: cpu_us as f64 / wall_us,
            foreign_share: core_us.map(|core_us| core_us.saturating_sub(cpu_us) as f64 / wall_us),
        })
    }

    async fn run(&self, port: u16, route: &Route, seconds: u32) -> anyhow::Result<Outcome> {
        let mut command = self.rig.wrk();
        command.args(["-t", "1", "-c", &self.connections.to_string(), "-d", &format!("{seconds}s"), "--timeout", "10s", "-s"]);
        command.arg(self.script).arg(format!("http://127.0.0.1:{port}{}", route.first_path())).stderr(Stdio::inherit());
        let limit = Duration::from_secs(seconds.into()) + WRK_GRACE;
        let output = tokio::time::timeout(limit, command.output()).await.context("wrk does not end")??;
        let text = String::from_utf8_lossy(&output.stdout);
        Outcome::read(&text).with_context(|| format!("wrk ended with {} and said: {text}", output.status))
    }
}

/// What the script's last line says.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    requests: u64,
    duration_us: u64,
    p50_us: u64,
    p99_us: u64,
    /// Answers of 400 and above, connections that failed, requests that took over 10 s.
    errors: u64,
}

impl Outcome {
    fn read(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("SAMPLE "))?;
        let mut numbers = line.split(' ').map_while(|number| number.parse().ok());
        let mut next = || numbers.next();
        Some(Self { requests: next()?, duration_us: next()?, p50_us: next()?, p99_us: next()?, errors: next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_the_script_is_read() {
        let text = "Running 1s test\nRequests/sec: 10\nSAMPLE 100 2000000 50 99 0\n";
        assert_eq!(Outcome::read(text), Some(Outcome { requests: 100, duration_us: 2_000_000, p50_us: 50, p99_us: 99, errors: 0 }));
        assert_eq!(Outcome::read("unable to connect"), None);
    }
}
