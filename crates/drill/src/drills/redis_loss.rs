//! Redis silent, refused, slow, and back, under a steady load on three instances.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use serde_json::json;

use super::{latencies, seconds};
use crate::Plan;
use crate::caller::text;
use crate::client::{Connection, request};
use crate::fleet::{Fleet, INSTANCES};
use crate::load::{Going, Load};
use crate::outcome::{Outcome, time};
use crate::proxy::{Fault, Proxy};
use crate::record::Record;
use crate::sql::Database;
use crate::target::{PASSWORD, Program};

const LIMIT: usize = 150;
/// What one instance admits by itself.
const PART: usize = LIMIT / INSTANCES;
/// How long each weather is watched, beside what it takes to notice it.
const CALM: Duration = Duration::from_secs(3);
const FAULT: Duration = Duration::from_secs(20);
/// What a request may take longer because of Redis: `REDIS_TIMEOUT` is 100 ms, the rest is for a busy machine.
const LONGER: Duration = Duration::from_millis(250);
/// Until an instance has found out, and until it is itself again: the figures of the product.
const NOTICED: Duration = Duration::from_secs(2);
const RECOVERY: Duration = Duration::from_secs(2);
/// What is waited for before the drill goes on without it.
const DEADLINE: Duration = Duration::from_secs(10);
/// Each request comes from one of many homes, so that the limit of an address is asked about and meets nobody.
const HOMES: usize = 500;
const READS: f64 = 40.0;
const SIGN_INS: f64 = 2.0;

/// A fault, and what came of it.
struct Weather {
    word: &'static str,
    calm: (Duration, Duration),
    foul: (Duration, Duration),
    together: usize,
    apart: usize,
    noticed: Option<Duration>,
    back: Option<Duration>,
}

pub(super) async fn run(plan: &Plan, program: Program, database: &Database, redis: &str) -> Result<Outcome, String> {
    let (proxy, url) = Proxy::before(redis, 6379).await?;
    let limit = LIMIT.to_string();
    let own = [("RATE_LIMIT_MAX", limit.as_str()), ("REDIS_TIMEOUT", "100ms")];
    let fleet = Fleet::start(program, database, Some(&url), &own).await?;
    for email in ["reader@example.com", "steady@example.com"] {
        fleet.stranger(0).register(email).await?;
    }
    let token = text(&fleet.stranger(0).sign_in("reader@example.com").await?, "access_token");
    let begun = Instant::now();
    let (reads, sign_ins) = steady(&fleet.addresses(), &token, begun);
    let mut weathers = Vec::new();
    for (number, (word, fault)) in
        [("silent", Fault::Silent), ("gone", Fault::Refuse), ("300 ms late", Fault::Late(Duration::from_millis(300)))].into_iter().enumerate()
    {
        let from = begun.elapsed();
        tokio::time::sleep(CALM).await;
        let together = admitted(&[fleet.address(0)], &format!("192.0.2.{}", number + 100)).await?;
        let calm = (from, begun.elapsed());
        proxy.set(fault);
        let noticed = fleet.all_say("degraded", DEADLINE).await;
        tokio::time::sleep(plan.length(FAULT)).await;
        // A home that nobody has seen before.
        let apart = admitted(&fleet.addresses(), &format!("192.0.2.{}", number + 10)).await?;
        let foul = (calm.1, begun.elapsed());
        proxy.set(Fault::None);
        let back = fleet.all_say("ok", DEADLINE).await;
        weathers.push(Weather { word, calm, foul, together, apart, noticed, back });
    }
    tokio::time::sleep(CALM).await;
    let again = admitted(&[fleet.address(0)], "192.0.2.99").await?;
    Ok(judged(&merged(begun, reads).await?, &merged(begun, sign_ins).await?, &weathers, again))
}

/// On each instance somebody reads as the owner of this token, and somebody signs in.
fn steady(addresses: &[SocketAddr], token: &str, begun: Instant) -> (Vec<Going>, Vec<Going>) {
    let homes = |number: usize| (0..HOMES).map(move |home| format!("10.{number}.{}.{}", home / 256, home % 256));
    let bearer = format!("Bearer {token}");
    let body = json!({"email": "steady@example.com", "password": PASSWORD}).to_string();
    let loads = addresses.iter().enumerate().map(|(number, address)| {
        let reads = homes(2 * number).map(|home| request("GET", "/api/users/me", &[("authorization", &bearer), ("x-forwarded-for", &home)], b""));
        let sign_ins = homes(2 * number + 1).map(|home| request("POST", "/api/auth/login", &[("x-forwarded-for", &home)], body.as_bytes()));
        let load = |requests, rate| Load::of(*address, Vec::new(), 2).asking(requests).at_rate(rate).go(begun);
        (load(reads.collect(), READS), load(sign_ins.collect(), SIGN_INS))
    });
    loads.unzip()
}

async fn merged(begun: Instant, loads: Vec<Going>) -> Result<Record, String> {
    let mut record = Record::new(begun);
    for load in loads {
        record.merge(load.stop().await?);
    }
    Ok(record)
}

/// How many requests of one home pass, of twice as many as may, spread over these instances?
async fn admitted(addresses: &[SocketAddr], home: &str) -> Result<usize, String> {
    let each = LIMIT * 2 / addresses.len();
    let request = request("GET", "/api/nowhere", &[("x-forwarded-for", home)], b"");
    let asking = addresses.iter().map(|address| {
        let request = &request;
        async move {
            let (mut connection, mut passed) = (Connection::open(*address, None).await.map_err(super::words)?, 0);
            for _ in 0..each {
                let answer = connection.ask(request).await.map_err(super::words)?;
                match answer.status {
                    404 => passed += 1,
                    429 => {}
                    _ => return Err(format!("of a limit: {}", answer.said())),
                }
                if answer.closes() {
                    connection = Connection::open(*address, None).await.map_err(super::words)?;
                }
            }
            Ok(passed)
        }
    });
    Ok(try_join_all(asking).await?.into_iter().sum())
}

fn judged(reads: &Record, sign_ins: &Record, weathers: &[Weather], again: usize) -> Outcome {
    let mut outcome = Outcome::default();
    for (what, record) in [("reads", reads), ("sign-ins", sign_ins)] {
        let all = record.all().sum;
        let lost = all.refused + all.failed;
        outcome.want(format!("{what} that were not served"), format!("{lost} of {}", all.served.count() + lost), "none", lost == 0);
        if let Some(failure) = &record.failure {
            outcome.note(format!("{what}: the first failure"), failure);
        }
    }
    // Where a busy machine makes answers late an instance counts by itself for a moment: so it may be some more or less.
    let (least, most) = (PART * 2, LIMIT + PART);
    for Weather { word, calm, foul, together, apart, noticed, back } in weathers {
        let wanted = format!("about {LIMIT} of {}: {least} to {most}", LIMIT * 2);
        outcome.want(
            format!("before it is {word}: requests of one address that one instance admits"),
            together,
            wanted,
            (least..=most).contains(together),
        );
        let within = |took: Option<Duration>, most: Duration| took.is_some_and(|took| took <= most);
        outcome.want(format!("{word}: noticed by all after"), time(*noticed), format!("at most {}", time(Some(NOTICED))), within(*noticed, NOTICED));
        let (before, meanwhile) = (reads.between(calm.0, calm.1).p99(), reads.between(foul.0, foul.1).p99());
        let longest = before.unwrap_or_default() + LONGER;
        let value = format!("{}, in the calm {}", time(meanwhile), time(before));
        outcome.want(format!("{word}: reads, 99th percentile"), value, format!("at most {} more", time(Some(LONGER))), within(meanwhile, longest));
        let wanted = format!("{PART} to {LIMIT}");
        outcome.want(format!("{word}: requests of one address that all admit together"), apart, wanted, (PART..=LIMIT).contains(apart));
        outcome.want(format!("{word}: all is well again after"), time(*back), format!("at most {}", time(Some(RECOVERY))), within(*back, RECOVERY));
    }
    let wanted = format!("about {LIMIT} of {}: {least} to {most}", LIMIT * 2);
    outcome.want("in the end: requests of one address that one instance admits", again, wanted, (least..=most).contains(&again));
    let harm: Vec<_> = weathers.iter().map(|weather| seconds(weather.foul)).collect();
    for (what, record) in [("reads", reads), ("sign-ins", sign_ins)] {
        let mut plot = latencies(&format!("{what}: latency, ms"), &[("", record)], (Duration::ZERO, Duration::ZERO));
        plot.harm.clone_from(&harm);
        outcome.plots.push(plot);
    }
    outcome
}
