//! Twenty times the load that the service sustains, all at once.
//!
//! What it sustains is measured first, with requests that cost it some milliseconds each: of requests that cost it nothing, a client on the same machine cannot
//! send twenty times as many as it serves. The service and its clients keep to different cores where there are two, so that the harm is done to the service
//! and not to the measurement.

use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::{latencies, memory, rates, watch};
use crate::Plan;
use crate::client::{self, Connection, request};
use crate::load::Load;
use crate::outcome::{Outcome, time};
use crate::record::Record;
use crate::target::Running;

const TIMES: f64 = 20.0;
/// Enough to keep every core of the service busy, and few enough that nobody waits long.
const FULL: usize = 4;
/// Connections of the surge: each carries a part of it, and more than the service works on at once.
const CLIENTS: usize = 400;
const PEAK: Duration = Duration::from_secs(12);
const SURGE: Duration = Duration::from_secs(60);
const AFTER: Duration = Duration::from_secs(6);
/// The service is itself again this long after the surge.
const RECOVERY: Duration = Duration::from_secs(1);
/// Fewer could not be twenty-folded by one core of clients.
const WORK: Duration = Duration::from_millis(4);
/// Four at a time; with more the target would be longer than servers read.
const WORDS_MAX: usize = 150;
/// What is not the service's: twice of little is little.
const NOISE: Duration = Duration::from_millis(100);
const MEMORY_MIB: f64 = 96.0;

/// Keeps the service to one core and us to the others, as long as it lives.
struct Apart {
    service: Option<Pid>,
    all: Option<CpuSet>,
}

impl Apart {
    fn new(pid: Option<u32>) -> Self {
        let service = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let all = sched_getaffinity(None).ok();
        if let (Some(service), Some(all)) = (service, all) {
            let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
            if let Some((first, rest)) = cores.split_first().filter(|(_, rest)| !rest.is_empty()) {
                let (mut theirs, mut ours) = (CpuSet::new(), CpuSet::new());
                theirs.set(*first);
                rest.iter().for_each(|core| ours.set(*core));
                place(service, &theirs);
                place_us(&ours);
            }
        }
        Self { service, all }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(all) = self.all {
            if let Some(service) = self.service {
                place(service, &all);
            }
            place_us(&all);
        }
    }
}

/// Every thread of a process.
fn place(process: Pid, cores: &CpuSet) {
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero())).into_iter().flatten().flatten();
    for thread in threads {
        let id = thread.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?));
        // A thread that has ended meanwhile runs nowhere.
        let _ = id.map(|id| sched_setaffinity(Some(id), cores));
    }
}

fn place_us(cores: &CpuSet) {
    if let Some(us) = Pid::from_raw(i32::try_from(std::process::id()).unwrap_or(0)) {
        place(us, cores);
    }
}

/// A target that costs the service some milliseconds: the one that it names for it, with as many words as that takes.
async fn work(running: &Running) -> Result<(String, Duration), String> {
    if running.works == running.reads {
        return Ok((running.works.clone(), Duration::ZERO));
    }
    let words = ["wireless", "headphones", "steel", "garden", "lamp", "cotton", "shirt", "kitchen", "small", "light", "travel", "sound"];
    let mut target = running.works.clone();
    let mut connection = Connection::open(running.address, None).await.map_err(super::words)?;
    let mut last = None;
    for number in 0.. {
        // The least: what else the machine does makes none cheaper.
        let mut least = Duration::MAX;
        for _ in 0..9 {
            let begun = Instant::now();
            let answer = connection.ask(&request("GET", &target, &[], b"")).await.map_err(super::words)?;
            if answer.status != 200 {
                // More words than it takes: it was asked for as much as can be asked for.
                return last.ok_or_else(|| format!("{target}: {}", answer.status));
            }
            least = least.min(begun.elapsed());
        }
        if least >= WORK || number == WORDS_MAX {
            return Ok((target, least));
        }
        last = Some((target.clone(), least));
        for _ in 0..4 {
            // Words that are typed wrong are looked for in several ways.
            let word = words[(number * 4 + target.len()) % words.len()];
            target += &format!("{}{}+", &word[1..], &word[..1]);
        }
    }
    Err("no target costs enough".to_owned())
}

pub(super) async fn run(plan: &Plan, running: &Running) -> Result<Outcome, String> {
    let _apart = Apart::new(running.pid);
    let (target, alone) = work(running).await?;
    let asks = request("GET", &target, &[], b"");
    let begun = Instant::now();
    let watch = watch(running, begun);
    let ready = health(running);
    let peaking = plan.length(PEAK).max(Duration::from_secs(5));
    let full = Load::of(running.address, asks.clone(), FULL);
    let mut record = full.run(begun, begun + peaking).await;
    // The first second warms up.
    let peak = record.between(Duration::from_secs(1), peaking);
    let (sustained, calm) = (peak.goodput(), peak.p99());
    let harm = (peaking, peaking + plan.length(SURGE));
    let surge = Load::of(running.address, asks.clone(), CLIENTS).at_rate(sustained * TIMES);
    let asking = tokio::spawn(async move { ready.run(begun, begun + harm.1).await });
    record.merge(surge.run(begun, begun + harm.1).await);
    let healthy: Record = asking.await.map_err(|error| error.to_string())?;
    // As before: the same clients as at the beginning.
    let after = full.run(begun, begun + harm.1 + AFTER).await;
    let recovered = after.between(harm.1 + RECOVERY, harm.1 + AFTER);
    record.merge(after);
    let under = record.between(harm.0 + Duration::from_secs(1), harm.1);
    let mut outcome = Outcome::default();
    outcome.note("a request alone", format!("{}: {}", time(Some(alone)), target.chars().take(60).collect::<String>()));
    outcome.note("served a second, at full load", format!("{sustained:.0}"));
    outcome.note("99th percentile, at full load", time(calm));
    let offered = (under.sum.served.count() + under.sum.refused + under.sum.failed) as f64 / (harm.1 - harm.0 - Duration::from_secs(1)).as_secs_f64();
    outcome.note("asked for a second, in the surge", format!("{offered:.0}, {:.1} times as much", offered / sustained));
    let share = under.goodput() / sustained;
    outcome.want("served a second, in the surge", format!("{:.0}, {:.0} %", under.goodput(), share * 100.0), "at least 95 %", share >= 0.95);
    let most = calm.map_or(NOISE, |calm| (calm * 2).max(NOISE));
    let slowest = under.p99();
    outcome.want(
        "99th percentile of what was served, in the surge",
        time(slowest),
        format!("at most {}", time(Some(most))),
        slowest.is_some_and(|slowest| slowest <= most),
    );
    outcome.want("failed, not refused", under.sum.failed, "none", under.sum.failed == 0);
    if let Some(failure) = &record.failure {
        outcome.note("the first failure", failure);
    }
    let seen = healthy.all().sum;
    let lost = seen.refused + seen.failed;
    outcome.want(
        "health: questions that were not answered",
        format!("{lost} of {}", seen.served.count() + lost),
        "at most 1 in 100",
        100 * lost <= seen.served.count(),
    );
    let back = recovered.goodput() / sustained;
    outcome.want("a second after: served a second", format!("{:.0} %", back * 100.0), "at least 90 %", back >= 0.9);
    memory(&mut outcome, watch.as_ref(), harm, MEMORY_MIB);
    outcome.plots.insert(0, rates("requests a second", &record, harm));
    outcome.plots.insert(1, latencies("latency of what was served, ms", &[("", &record)], harm));
    Ok(outcome)
}

/// Somebody who asks whether it is well.
fn health(running: &Running) -> Load {
    Load::of(running.address, client::request("GET", if running.searches.is_some() { "/health" } else { &running.reads }, &[], b""), 2).at_rate(20.0)
}
