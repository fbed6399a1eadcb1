//! A database that answers in five seconds, then not at all, then again, under three instances. What was read before is read on.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use super::{latencies, rates};
use crate::Plan;
use crate::caller::{Caller, until};
use crate::client::{Answer, request};
use crate::fleet::{Fleet, INSTANCES, POOL};
use crate::load::Load;
use crate::outcome::{Outcome, time};
use crate::proxy::{Fault, Proxy};
use crate::record::Record;
use crate::sql::{self, Database};
use crate::target::{ADMIN, PASSWORD, Program};

const ACQUIRE: &str = "500ms";
const STATEMENT: &str = "1s";
/// Both of them, and what the service adds to the latter where the database does not end a statement itself.
const LIMITS: Duration = Duration::from_millis(500 + 1_000 + 250);
/// What was gone serves again within this time of its return.
const RECOVERY: Duration = Duration::from_secs(1);
/// What a busy machine may add for one that meets it beside the fault; the median must hold the figure.
const BUSY: Duration = Duration::from_secs(1);
/// Until changes are heard again: the longest pause between two attempts, and a busy machine.
const HEARD: Duration = Duration::from_secs(8);
const CALM: Duration = Duration::from_secs(2);
const FAULT: Duration = Duration::from_secs(24);
/// The first reader of an answer in memory waits 250 ms for a newer one, then one in half a second; most do not wait.
const READ_MEDIAN: Duration = Duration::from_millis(50);
/// Of three instances: their pools, and for each the connection that listens and the one before it.
const BACKENDS: i64 = (INSTANCES * (POOL + 2)) as i64;
/// Questions to each instance while the database is away.
const QUESTIONS: usize = 8;

/// One of the two faults, and what came of it.
struct Weather {
    word: &'static str,
    span: (Duration, Duration),
    refusals: Refusals,
    /// On each instance, of ten reads from memory.
    stale: [usize; INSTANCES],
    /// What needs no database and was not answered.
    silent: Vec<String>,
    back: Vec<Option<Duration>>,
    idle: bool,
    backends: i64,
}

/// Answers to what cannot be done without a database.
#[derive(Default)]
struct Refusals {
    count: usize,
    longest: Duration,
    wrong: Vec<String>,
}

pub(super) async fn run(plan: &Plan, program: Program, database: &Database) -> Result<Outcome, String> {
    let (proxy, url) = Proxy::before(&database.url, 5432).await?;
    let own = [("DATABASE_URL", url.as_str()), ("DB_ACQUIRE_TIMEOUT", ACQUIRE), ("DB_STATEMENT_TIMEOUT", STATEMENT)];
    let fleet = Fleet::start(program, database, plan.redis.as_deref(), &own).await?;
    let admins = fleet.admins().await?;
    let path = admins[0].product().await?;
    for admin in &admins {
        until(HEARD, async || admin.get(&path).await.is_ok_and(|answer| answer.status == 200)).await;
    }
    let begun = Instant::now();
    let readers: Vec<_> =
        fleet.addresses().into_iter().map(|address| Load::of(address, request("GET", &path, &[], b""), 1).at_rate(25.0).go(begun)).collect();
    tokio::time::sleep(CALM).await;
    let mut weathers = Vec::new();
    // Half of the five seconds on each way.
    for (word, fault) in [("late", Fault::Late(Duration::from_millis(2_500))), ("silent", Fault::Silent)] {
        weathers.push(weather(plan, &fleet, &admins, &path, (&proxy, database), (word, fault), begun).await?);
    }
    let mut record = Record::new(begun);
    for reader in readers {
        record.merge(reader.stop().await?);
    }
    Ok(judged(&record, &weathers))
}

async fn weather(
    plan: &Plan,
    fleet: &Fleet,
    admins: &[Caller],
    path: &str,
    (proxy, database): (&Proxy, &Database),
    (word, fault): (&'static str, Fault),
    begun: Instant,
) -> Result<Weather, String> {
    let from = begun.elapsed();
    proxy.set(fault);
    let refusals = asked_of_the_database(fleet, admins, path).await;
    let (stale, silent) = (stale(fleet, path).await, without_a_database(fleet).await);
    tokio::time::sleep((from + plan.length(FAULT)).saturating_sub(begun.elapsed())).await;
    proxy.set(Fault::None);
    let span = (from, begun.elapsed());
    let back = comes_back(admins, path).await;
    fleet.all_say("ok", HEARD).await;
    let idle = fleet.all_idle(HEARD).await.is_some();
    let text = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()", database.name);
    let mut backends = i64::MAX;
    let gone = Instant::now();
    while backends > BACKENDS && gone.elapsed() < HEARD {
        backends = sql::number(&database.url, &text).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(CALM).await;
    Ok(Weather { word, span, refusals, stale, silent, back, idle, backends })
}

/// Questions of every kind, all at once.
async fn asked_of_the_database(fleet: &Fleet, admins: &[Caller], path: &str) -> Refusals {
    let asked = (0..INSTANCES * QUESTIONS).map(|number| {
        let (stranger, admin) = (fleet.stranger(number), &admins[number % INSTANCES]);
        async move {
            let begun = Instant::now();
            let (what, answer) = match number / INSTANCES % 4 {
                0 => ("show", stranger.get(&format!("/api/products/00000000-0000-4000-8000-{number:012}")).await),
                1 => ("list", stranger.get("/api/products?limit=1").await),
                2 => ("update", admin.ask("PATCH", path, Some(&json!({"name": "Changed"}))).await),
                _ => ("sign in", stranger.ask("POST", "/api/auth/login", Some(&json!({"email": ADMIN, "password": PASSWORD}))).await),
            };
            (what, answer, begun.elapsed())
        }
    });
    let mut refusals = Refusals::default();
    for (what, answer, took) in join_all(asked).await {
        refusals.count += 1;
        refusals.longest = refusals.longest.max(took);
        let known = |answer: &Answer| {
            answer.status == 503 && answer.refuses() && answer.json()["code"].as_str().is_some_and(|code| code.starts_with("database_"))
        };
        match answer {
            Ok(answer) if known(&answer) => {}
            Ok(answer) => refusals.wrong.push(format!("{what}: {}", answer.said())),
            Err(error) => refusals.wrong.push(format!("{what}: {error}")),
        }
    }
    refusals
}

/// Of ten reads from memory on each instance: how many say that they may be old, because another one might have changed it?
async fn stale(fleet: &Fleet, path: &str) -> [usize; INSTANCES] {
    let mut stale = [0; INSTANCES];
    for number in 0..INSTANCES * 10 {
        let answer = fleet.stranger(number).get(path).await;
        let says = answer.is_ok_and(|answer| answer.field("cache-status").is_some_and(|says| says.starts_with("mainstay; hit; ttl=-")));
        stale[number % INSTANCES] += usize::from(says);
    }
    stale
}

/// What is not answered though it asks no database. That nothing is well is said, too.
async fn without_a_database(fleet: &Fleet) -> Vec<String> {
    let mut silent = Vec::new();
    for (path, status) in [("/health/live", 200), ("/health/ready", 200), ("/openapi.json", 200), ("/.well-known/jwks.json", 200), ("/health", 503)] {
        for number in 0..INSTANCES {
            let begun = Instant::now();
            let answer = fleet.stranger(number).get(path).await.map_or(0, |answer| answer.status);
            if answer != status || begun.elapsed() > BUSY {
                silent.push(format!("{path}: {answer} after {}", time(Some(begun.elapsed()))));
            }
        }
    }
    silent
}

/// After which times each instance reads what is new, and writes.
async fn comes_back(admins: &[Caller], path: &str) -> Vec<Option<Duration>> {
    let begun = Instant::now();
    let coming = admins.iter().map(|admin| async move {
        let fresh = async || admin.get(path).await.is_ok_and(|answer| answer.status == 200 && answer.field("cache-status").is_none());
        let read = until(HEARD, fresh).await;
        let writes = async || admin.ask("PATCH", path, Some(&json!({"name": "Mended"}))).await.is_ok_and(|answer| answer.status == 200);
        let written = until(HEARD, writes).await.map(|_| begun.elapsed());
        [read, written]
    });
    join_all(coming).await.into_iter().flatten().collect()
}

fn judged(record: &Record, weathers: &[Weather]) -> Outcome {
    let mut outcome = Outcome::default();
    let all = record.all().sum;
    let lost = all.refused + all.failed;
    outcome.want("reads of what was read before: not served", format!("{lost} of {}", all.served.count() + lost), "none", lost == 0);
    if let Some(failure) = &record.failure {
        outcome.note("the first that was not", failure);
    }
    outcome.note("such reads, in the calm: median", time(record.between(Duration::ZERO, CALM).sum.served.quantile(0.5)));
    for Weather { word, span, refusals, stale, silent, back, idle, backends } in weathers {
        let median = record.between(span.0, span.1).sum.served.quantile(0.5);
        let wanted = format!("at most {}", time(Some(READ_MEDIAN)));
        outcome.want(format!("{word}: such reads, median"), time(median), wanted, median.is_some_and(|median| median <= READ_MEDIAN));
        let said = format!("{} of 10", stale.map(|count| count.to_string()).join(", "));
        outcome.want(format!("{word}: reads that say they may be old, of each instance"), said, "most of them", stale.iter().all(|count| *count > 5));
        let wrong = refusals.wrong.first().map_or(String::new(), |first| format!("; {first}"));
        let said = format!("{} of {}{wrong}", refusals.count - refusals.wrong.len(), refusals.count);
        outcome.want(format!("{word}: what needs the database is a 503 that says when to come back"), said, "all", refusals.wrong.is_empty());
        let wanted = format!("at most {}, and {} on a busy machine", time(Some(LIMITS)), time(Some(BUSY)));
        outcome.want(format!("{word}: the longest wait for it"), time(Some(refusals.longest)), wanted, refusals.longest <= LIMITS + BUSY);
        let said = if silent.is_empty() { "as always".to_owned() } else { silent.join(", ") };
        outcome.want(format!("{word}: what needs no database"), said, "as always", silent.is_empty());
        let mut times: Vec<Duration> = back.iter().map(|back| back.unwrap_or(Duration::MAX)).collect();
        times.sort_unstable();
        let (median, last) = (times.get(times.len() / 2).copied().unwrap_or_default(), times.last().copied().unwrap_or_default());
        let shown = |back: Duration| if back == Duration::MAX { "never".to_owned() } else { time(Some(back)) };
        outcome.want(
            format!("{word}: reads and writes are back after"),
            format!("{}, the last {}", shown(median), shown(last)),
            "most within 1 s, all within 2 s",
            median <= RECOVERY && last <= RECOVERY + BUSY,
        );
        outcome.want(format!("{word}: connections in use afterwards"), if *idle { "none" } else { "some" }, "none", *idle);
        outcome.want(format!("{word}: connections that the server sees afterwards"), backends, format!("at most {BACKENDS}"), *backends <= BACKENDS);
    }
    let harm: Vec<_> = weathers.iter().map(|weather| weather.span).collect();
    outcome.plots.push(latencies("reads of what was read before: latency, ms", &[("", record)], harm[0]));
    outcome.plots.push(rates("reads of what was read before, a second", record, harm[0]));
    for plot in &mut outcome.plots {
        plot.harm = harm.iter().copied().map(super::seconds).collect();
    }
    outcome
}
