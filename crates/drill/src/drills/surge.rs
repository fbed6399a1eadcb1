//! Twenty times the load that the service sustains, all at once; and then as many clients who never pause.
//!
//! What it sustains is measured first, with requests that cost it some milliseconds each: of requests that cost it nothing, a client on the same machine cannot
//! send twenty times as many as it serves, and refusing one would cost as much as serving it. The service and its clients keep to different cores where there are two, so
//! that the harm is done to the service and not to the measurement. People come independently of each other: at four fifths of what can be served some of them wait
//! already, and that is the usual which the surge is compared with.

use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::{NOISE, latencies, memory, rates, watch};
use crate::Plan;
use crate::client::{self, Connection, request};
use crate::load::Load;
use crate::outcome::{Outcome, Plot, time};
use crate::record::{Record, Stretch};
use crate::sql;
use crate::target::{Program, Running, Service};

const TIMES: f64 = 20.0;
/// The load of a good day, of what can be served at most.
const NORMAL: f64 = 0.8;
/// Enough to keep every core of the service busy, and few enough that nobody waits long.
const FULL: usize = 4;
/// Connections of the surge: each carries a part of it, and more than the service works on at once.
const CLIENTS: usize = 400;
const PEAK: Duration = Duration::from_secs(12);
/// Also in short: its first second is a sixtieth of it, and a 99th percentile of less would be that of the first second.
const SURGE: Duration = Duration::from_secs(60);
const AFTER: Duration = Duration::from_secs(6);
/// The service is itself again this long after the surge.
const RECOVERY: Duration = Duration::from_secs(1);
/// What begins is not looked at for so long.
const WARMING: Duration = Duration::from_secs(1);
/// So many that reading them all takes some 25 ms. A refusal costs 20 to 50 us, more where it wakes a core that is at work: nineteen of them are a fortieth of that.
const PRODUCTS: usize = 300_000;
/// Different requests. Those who come back to the first find nobody who remembers it.
const TARGETS: usize = 10_000;
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
        if let (Some(service), Some((theirs, ours))) = (service, all.as_ref().and_then(divided)) {
            place(service, &theirs);
            place_us(&ours);
        }
        Self { service, all }
    }
}

/// The first core, and the others. None where there is only one.
fn divided(all: &CpuSet) -> Option<(CpuSet, CpuSet)> {
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
    let (first, rest) = cores.split_first().filter(|(_, rest)| !rest.is_empty())?;
    let (mut theirs, mut ours) = (CpuSet::new(), CpuSet::new());
    theirs.set(*first);
    rest.iter().for_each(|core| ours.set(*core));
    Some((theirs, ours))
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

/// A list by what has no index: the service reads all of its products to find none.
pub(super) const SCANS: &str = "/api/products?type=nobody-";

/// A service with so many products that reading them all is work, and that keeps no answers. They are written as it would have written them, but for what
/// follows changes: the search would index them for a minute.
pub(super) async fn start(program: &Program) -> Result<Service, String> {
    let settings = program.settings("surged", &[("CACHE_SIZE", "0")]);
    program.run(&settings, &["migrate"]).await?;
    let url = settings.iter().find(|(name, _)| name == "DATABASE_URL").map(|(_, url)| url.as_str()).unwrap_or_default();
    let filling = format!(
        "DROP TRIGGER products_note_insert;
         INSERT INTO products (id, name, name_folded, description, category, category_path, type, tags, attributes, version, created_at, updated_at)
         WITH RECURSIVE made (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM made WHERE n < {PRODUCTS})
         SELECT printf('00000000-0000-4000-8000-%012x', n), 'Product ' || n, 'product ' || n, 'One of many things that somebody may look for.', '[]', '',
                'kind ' || n % 100, '[]', '{{}}', 1, n, n
         FROM made"
    );
    sql::execute(url, &filling).await?;
    let Some((all, (theirs, _))) = sched_getaffinity(None).ok().and_then(|all| Some((all, divided(&all)?))) else {
        return program.start(&settings).await;
    };
    // It inherits the core that it is to keep to, and counts no others as its own.
    place_us(&theirs);
    let service = program.start(&settings).await;
    place_us(&all);
    service
}

/// How long a request takes alone. The least: what else the machine does makes none faster.
async fn alone(running: &Running, requests: &[Vec<u8>]) -> Result<Duration, String> {
    let mut connection = Connection::open(running.address, None).await.map_err(super::words)?;
    let mut least = Duration::MAX;
    for request in requests.iter().take(20) {
        let begun = Instant::now();
        let answer = connection.ask(request).await.map_err(super::words)?;
        if answer.status != 200 {
            return Err(format!("{}: {}", running.works, answer.said()));
        }
        least = least.min(begun.elapsed());
    }
    Ok(least)
}

/// When what is done, from the beginning on.
struct Hours {
    /// As much as can be served.
    peak: Duration,
    /// As on a good day.
    normal: Duration,
    surge: Duration,
    /// As on a good day again.
    after: Duration,
    /// Clients that never pause.
    impatient: Duration,
}

impl Hours {
    fn new(plan: &Plan) -> Self {
        let stretch = plan.length(PEAK).max(Duration::from_secs(5));
        let (peak, normal) = (stretch, stretch * 2);
        let surge = normal + SURGE;
        let after = surge + AFTER;
        Self { peak, normal, surge, after, impatient: after + stretch }
    }
}

pub(super) async fn run(plan: &Plan, running: &Running) -> Result<Outcome, String> {
    let _apart = Apart::new(running.pid);
    // No two alike, so that no answer serves twice.
    let get = |target: &str| request("GET", target, &[], b"");
    let requests: Vec<_> = if running.works == running.reads {
        vec![get(&running.reads)]
    } else {
        (0..TARGETS).map(|number| get(&format!("{}{number}", running.works))).collect()
    };
    let alone = alone(running, &requests).await?;
    let load = Load::of(running.address, Vec::new(), CLIENTS).asking(requests);
    let hours = Hours::new(plan);
    let begun = Instant::now();
    let watch = watch(running, begun);
    let (ready, end) = (health(running), begun + hours.impatient);
    let asking = tokio::spawn(async move { ready.run(begun, end).await });

    let mut few = load.clone();
    few.clients = FULL;
    let full = few.run(begun, begun + hours.peak).await;
    let sustained = full.between(WARMING, hours.peak).goodput();
    let (good_day, storm) = (load.clone().by_chance_at(sustained * NORMAL), load.clone().by_chance_at(sustained * TIMES));
    // Each begins at its time, whatever the one before has left behind.
    let (normal, surge, again, impatient) = tokio::join!(
        part(&good_day, begun, hours.peak, hours.normal),
        part(&storm, begun, hours.normal, hours.surge),
        part(&good_day, begun, hours.surge, hours.after),
        part(&load, begun, hours.after, hours.impatient),
    );
    let usual = normal.between(hours.peak + WARMING, hours.normal);
    let under = surge.between(hours.normal, hours.surge);
    let recovered = again.between(hours.surge + RECOVERY, hours.after);
    let hammered = impatient.between(hours.after, hours.impatient);
    let mut record = full;
    [normal, surge, again, impatient].into_iter().for_each(|part| record.merge(part));
    let healthy = asking.await.map_err(|error| error.to_string())?.all().sum;

    let mut outcome = Outcome::default();
    outcome.note("a request alone", format!("{}, GET {}...", time(Some(alone)), running.works));
    outcome.note("served a second, at most", format!("{sustained:.1}"));
    let most = usual.p99().map_or(NOISE, |usual| (usual * 2).max(NOISE));
    outcome.note("at four fifths of that: 99th percentile", time(usual.p99()));
    outcome.note("at four fifths of that: refused", format!("{:.2} %", usual.lost() * 100.0));
    outcome.note("the surge", format!("{:.1} times what can be served", under.asked() / sustained));
    served(&mut outcome, "the surge", &under, sustained, 0.95);
    quick(&mut outcome, "the surge", &under, most);
    let back = recovered.goodput() / (sustained * NORMAL);
    outcome.want("a second after: served", format!("{:.0} % of those who come", back * 100.0), "at least 90 %", back >= 0.9);
    quick(&mut outcome, "a second after", &recovered, most);
    served(&mut outcome, "clients without a pause", &hammered, sustained, 0.9);
    outcome.want("failed, not refused", record.all().sum.failed, "none", record.all().sum.failed == 0);
    if let Some(failure) = &record.failure {
        outcome.note("the first failure", failure);
    }
    let lost = healthy.refused + healthy.failed;
    outcome.want(
        "health: questions that were not answered",
        format!("{lost} of {}", healthy.served.count() + lost),
        "at most 1 in 100",
        100 * lost <= healthy.served.count(),
    );
    let harm = (hours.normal, hours.surge);
    memory(&mut outcome, watch.as_ref(), harm, MEMORY_MIB);
    // For each that is served, nineteen are not.
    outcome.plots.insert(0, Plot { logarithmic: true, ..rates("requests a second", &record, harm) });
    outcome.plots.insert(1, latencies("latency of what was served, ms", &[("", &record)], harm));
    outcome.plots.iter_mut().for_each(|plot| plot.harm.push((hours.after.as_secs_f64(), hours.impatient.as_secs_f64())));
    Ok(outcome)
}

/// One load, between these times after the beginning.
async fn part(load: &Load, begun: Instant, from: Duration, until: Duration) -> Record {
    tokio::time::sleep_until((begun + from).into()).await;
    load.run(begun, begun + until).await
}

fn served(outcome: &mut Outcome, when: &str, seen: &Stretch, sustained: f64, least: f64) {
    let share = seen.goodput() / sustained;
    let figure = format!("{:.1} a second, {:.0} %", seen.goodput(), share * 100.0);
    outcome.want(format!("{when}: served"), figure, format!("at least {:.0} %", least * 100.0), share >= least);
}

fn quick(outcome: &mut Outcome, when: &str, seen: &Stretch, most: Duration) {
    let slowest = seen.p99();
    let holds = slowest.is_some_and(|slowest| slowest <= most);
    outcome.want(format!("{when}: 99th percentile of what was served"), time(slowest), format!("at most {}", time(Some(most))), holds);
}

/// Somebody who asks whether it is well.
fn health(running: &Running) -> Load {
    Load::of(running.address, client::request("GET", if running.searches.is_some() { "/health" } else { &running.reads }, &[], b""), 2).at_rate(20.0)
}
