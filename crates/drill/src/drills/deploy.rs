//! One release after the other takes over (SIGUSR2) while clients keep their connections and ask without a pause, and between the good ones come some that cannot
//! serve.

mod http1;
mod http2;
mod lineage;
mod releases;
mod tally;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use self::lineage::{Ended, Lineage};
use self::releases::Releases;
use self::tally::Tally;
use super::{latencies, rates, seconds};
use crate::Plan;
use crate::caller::{Caller, text};
use crate::outcome::{Outcome, time};
use crate::sql;
use crate::target::{ADMIN, Program};

const DEPLOYMENTS: u32 = 50;
const DEPLOYMENTS_SHORT: u32 = 4;
/// In all, while nobody takes over; those meanwhile come on top.
const REQUESTS: u64 = 1_000_000;
const REQUESTS_SHORT: u64 = 5_000;
/// After so many good releases comes one that cannot serve.
const GOOD_ONES: u32 = 3;
/// Clients that keep one connection of HTTP/1.1 and ask without a pause.
const BUSY: u32 = 16;
/// Clients that keep one and rest between two requests, each for a time of its own: from a blink to longer than a drain waits for idle connections.
const RESTING: u32 = 16;
const REST: Duration = Duration::from_millis(20);
const REST_LONGEST: Duration = Duration::from_millis(1_700);
/// Connections of HTTP/2, and the requests at once on each.
const CONNECTIONS: u32 = 4;
const STREAMS: u32 = 8;
/// A service that is asked by so many and answers nothing for so long has stopped.
const STANDSTILL: Duration = Duration::from_secs(90);

/// What became of the releases.
#[derive(Default)]
struct Deployed {
    good: u32,
    unfit: u32,
    /// What was not as it should be with one of either.
    wrong: Vec<String>,
    /// When the signal came, and when the process before had ended.
    spans: Vec<(Duration, Duration)>,
}

pub(super) async fn run(plan: &Plan, program: &Program, database: &str) -> Result<Outcome, String> {
    let (deployments, requests) = if plan.short { (DEPLOYMENTS_SHORT, REQUESTS_SHORT) } else { (DEPLOYMENTS, REQUESTS) };
    let mut releases = Releases::new(&plan.binary, program.file("releases")).map_err(super::words)?;
    let configuration = releases.configuration().display().to_string();
    let own = [
        ("DATABASE_URL", database),
        ("MAINSTAY_CONFIG", &configuration),
        ("LOG_LEVEL", "info,mainstay::access=off"),
        // Longer than it all takes.
        ("JWT_EXPIRY", "12h"),
    ];
    let mut lineage = Lineage::start(program, &releases.current(), &program.settings("one", &own)).await?;
    let token = text(&Caller::stranger(lineage.address()).sign_in(ADMIN).await?, "access_token");
    let begun = Instant::now();
    let tally = Arc::new(Tally::new(begun));
    let load = load(lineage.address(), &token, &tally);
    let pauses = u64::from(deployments + deployments / GOOD_ONES + 1);
    let mut deployed = Deployed::default();
    let deploying = async {
        for number in 1..=deployments {
            settle(&tally, requests / pauses).await?;
            hand_over(&mut releases, &mut lineage, begun, &mut deployed).await?;
            if number.is_multiple_of(GOOD_ONES) {
                settle(&tally, requests / pauses).await?;
                refuse(&mut releases, &mut lineage, &mut deployed).await?;
            }
        }
        settle(&tally, requests / pauses).await
    };
    // A service that has stopped is what the drill is there to find.
    let stopped = deploying.await.err();
    deployed.wrong.extend(stopped);
    tally.stop();
    for client in load {
        client.await.map_err(|error| error.to_string())?;
    }
    match lineage.end().await? {
        0 => {}
        code => deployed.wrong.push(format!("the last process ended with {code}")),
    }
    let found = sql::number(database, "SELECT count(*) FROM products").await?;
    let distinct = sql::number(database, "SELECT count(DISTINCT name) FROM products").await?;
    Ok(judged(requests, &deployed, &tally, (found, distinct)))
}

fn load(address: SocketAddr, token: &str, tally: &Arc<Tally>) -> Vec<JoinHandle<()>> {
    let busy = (0..BUSY).map(|number| tokio::spawn(http1::ask(address, token.to_owned(), number, Duration::ZERO, tally.clone())));
    let resting = (0..RESTING).map(|number| {
        let rest = REST + (REST_LONGEST - REST) * number / RESTING;
        tokio::spawn(http1::ask(address, token.to_owned(), BUSY + number, rest, tally.clone()))
    });
    let streaming = (0..CONNECTIONS).map(|number| tokio::spawn(http2::ask(address, token.to_owned(), number, STREAMS, tally.clone())));
    let connecting = tokio::spawn(http1::connect_each_time(address, tally.clone()));
    busy.chain(resting).chain(streaming).chain([connecting]).collect()
}

/// Waits until so many more requests were answered.
async fn settle(tally: &Tally, requests: u64) -> Result<(), String> {
    let enough = tally.answered() + requests;
    let (mut last, mut since) = (tally.answered(), Instant::now());
    while tally.answered() < enough {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if tally.answered() > last {
            (last, since) = (tally.answered(), Instant::now());
        } else if since.elapsed() > STANDSTILL {
            return Err(format!("the load has come to a standstill after {last} answers: {}", tally.record().failure.clone().unwrap_or_default()));
        }
    }
    Ok(())
}

async fn hand_over(releases: &mut Releases, lineage: &mut Lineage, begun: Instant, deployed: &mut Deployed) -> Result<(), String> {
    releases.next().map_err(super::words)?;
    let signalled = begun.elapsed();
    match lineage.hand_over().await? {
        Ended::HandedOver(0) => {}
        Ended::HandedOver(code) => deployed.wrong.push(format!("a process that had handed over ended with {code}")),
        Ended::GoesOn(line) => deployed.wrong.push(format!("a good release was refused: {line}")),
    }
    deployed.good += 1;
    deployed.spans.push((signalled, begun.elapsed()));
    Ok(())
}

/// Tries a release that cannot serve, and looks that nothing has changed.
async fn refuse(releases: &mut Releases, lineage: &mut Lineage, deployed: &mut Deployed) -> Result<(), String> {
    let before = lineage.pid();
    let expected = releases.unfit(deployed.unfit).map_err(super::words)?;
    match lineage.hand_over().await? {
        Ended::GoesOn(line) if line.contains(expected) => {}
        Ended::GoesOn(line) => deployed.wrong.push(format!("`{expected}` is not told: {line}")),
        Ended::HandedOver(_) => deployed.wrong.push(format!("a release that cannot serve has taken over: {expected}")),
    }
    if lineage.pid() != before {
        deployed.wrong.push("another process serves after a release that cannot".to_owned());
    }
    deployed.unfit += 1;
    releases.fit_again().map_err(super::words)
}

fn judged(requests: u64, deployed: &Deployed, tally: &Tally, (found, distinct): (i64, i64)) -> Outcome {
    let mut outcome = Outcome::default();
    let record = &*tally.record();
    let all = record.all().sum;
    outcome.note("releases that took over", deployed.good);
    outcome.note("releases that cannot serve, tried in between", deployed.unfit);
    let first = deployed.wrong.first().cloned().unwrap_or_else(|| "none".to_owned());
    outcome.want("releases: what was not as it should be", first, "none", deployed.wrong.is_empty());
    outcome.want("requests answered", all.served.count(), format!("at least {requests}"), all.served.count() >= requests);
    outcome.want("requests that failed", all.failed, "none", all.failed == 0 && all.refused == 0);
    if let Some(failure) = &record.failure {
        outcome.note("the first failure", failure);
    }
    let created = tally.created();
    let once = u64::try_from(found).is_ok_and(|found| found == created) && found == distinct;
    outcome.want("products created, in the database, different ones there", format!("{created}, {found}, {distinct}"), "the same", once);
    outcome.note("sent again over HTTP/2, as not begun", tally.again());
    outcome.note("connections", tally.connections());
    let longest = deployed.spans.iter().map(|(from, to)| *to - *from).max();
    outcome.note("from the signal to the end of the process before, the longest", time(longest));
    outcome.note("latency: median, 99th percentile", format!("{}, {}", time(all.served.quantile(0.5)), time(all.served.quantile(0.99))));
    let whole = (Duration::ZERO, Duration::ZERO);
    outcome.plots.push(rates("requests a second", record, whole));
    outcome.plots.push(latencies("latency, ms", &[("", record)], whole));
    for plot in &mut outcome.plots {
        plot.harm = deployed.spans.iter().copied().map(seconds).collect();
    }
    outcome
}
