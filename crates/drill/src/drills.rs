//! The drills, a file each, and what they share.

mod bruteforce;
mod deploy;
mod orphans;
mod payload;
mod pool;
mod preflight;
mod redis_loss;
mod regex;
mod sessions;
mod slow_query;
mod slowloris;
mod surge;

use std::io;
use std::time::{Duration, Instant};

use crate::caller::{Caller, text};
use crate::client;
use crate::load::Load;
use crate::outcome::{Line, Outcome, Plot, time};
use crate::record::{Record, SLOT};
use crate::sql::Database;
use crate::target::{ADMIN, Program, Running, Service};
use crate::watch::Watch;
use crate::{Name, Plan};

/// How long a service is looked at before any harm is done.
const CALM: Duration = Duration::from_secs(4);
/// And afterwards.
const AFTER: Duration = Duration::from_secs(3);
/// Latencies below this are the machine's and not the service's: twice of nothing is nothing.
const NOISE: Duration = Duration::from_millis(25);

pub(crate) async fn on_our_own(name: Name, plan: &Plan) -> Result<Outcome, String> {
    match name {
        Name::Surge => {
            let program = Program::new(plan.binary.clone()).map_err(|error| error.to_string())?;
            let service = surge::start(&program).await?;
            on_running(name, plan, &Running { works: surge::SCANS.to_owned(), ..ours(&service).await? }).await
        }
        Name::Payload | Name::Regex | Name::Preflight | Name::Slowloris => {
            let program = Program::new(plan.binary.clone()).map_err(|error| error.to_string())?;
            let service = program.start(&program.settings("one", &[("ALLOWED_ORIGINS", preflight::ALLOWED)])).await?;
            let running = ours(&service).await?;
            on_running(name, plan, &running).await
        }
        Name::Deploy => {
            on_any(plan, async |program, url| {
                let sqlite = format!("sqlite:{}", program.file("deploy.db").display());
                deploy::run(plan, program, url.unwrap_or(&sqlite)).await
            })
            .await
        }
        Name::Soak => Ok(Outcome::skipped("it is a command of its own: mainstay soak")),
        Name::Bruteforce => on_any(plan, async |program, url| bruteforce::run(plan, program, url).await).await,
        Name::Orphans => {
            on_any(plan, async |program, url| {
                let sqlite = format!("sqlite:{}", program.file("orphans.db").display());
                orphans::run(plan, program, url.unwrap_or(&sqlite)).await
            })
            .await
        }
        Name::Pool => on_postgres(plan, async |program, database| pool::run(plan, program, database).await).await,
        Name::SlowQuery => on_postgres(plan, async |program, database| slow_query::run(plan, &program, database).await).await,
        Name::Sessions => on_postgres(plan, async |program, database| sessions::run(plan, program, database).await).await,
        Name::RedisLoss => match &plan.redis {
            Some(redis) => on_postgres(plan, async |program, database| redis_loss::run(plan, program, database, redis).await).await,
            None => Ok(Outcome::skipped("it needs a Redis: --redis")),
        },
    }
}

/// With a database of the drill's own on the PostgreSQL of the plan; it is gone afterwards, whatever came of the drill.
async fn on_postgres(plan: &Plan, drill: impl AsyncFnOnce(Program, &Database) -> Result<Outcome, String>) -> Result<Outcome, String> {
    let Some(server) = &plan.postgres else { return Ok(Outcome::skipped("it needs a PostgreSQL: --postgres")) };
    let program = Program::new(plan.binary.clone()).map_err(|error| error.to_string())?;
    let database = Database::create(server).await?;
    let outcome = drill(program, &database).await;
    let removed = database.remove().await;
    outcome.and_then(|outcome| removed.map(|()| outcome))
}

/// The same where there is a PostgreSQL, and without one where there is none: the service then keeps its own SQLite.
async fn on_any(plan: &Plan, drill: impl AsyncFnOnce(&Program, Option<&str>) -> Result<Outcome, String>) -> Result<Outcome, String> {
    if plan.postgres.is_some() {
        return on_postgres(plan, async |program, database| drill(&program, Some(&database.url)).await).await;
    }
    let program = Program::new(plan.binary.clone()).map_err(|error| error.to_string())?;
    drill(&program, None).await
}

pub(crate) async fn on_running(name: Name, plan: &Plan, running: &Running) -> Result<Outcome, String> {
    let answer = client::ask(running.address, "GET", &running.reads, &[], b"").await.map_err(|error| format!("{}: {error}", running.reads))?;
    if answer.status != 200 {
        return Err(format!("{}: {}", running.reads, answer.status));
    }
    match name {
        Name::Surge => surge::run(plan, running).await,
        Name::Payload => payload::run(plan, running).await,
        Name::Regex => regex::run(plan, running).await,
        Name::Preflight => preflight::run(running).await,
        Name::Slowloris => slowloris::run(plan, running).await,
        _ => Ok(Outcome::skipped("it starts, stops or starves the service, and is not done to one that runs already")),
    }
}

/// A service of our own as one to be drilled: with a product to read, and an editor's token to write.
async fn ours(service: &Service) -> Result<Running, String> {
    let stranger = Caller::stranger(service.public);
    let token = text(&stranger.sign_in(ADMIN).await?, "access_token");
    let (bearer, reads) = (format!("Bearer {token}"), stranger.with(&token).product().await?);
    Ok(Running {
        service: "Mainstay".to_owned(),
        address: service.public,
        pid: Some(service.pid()),
        reads,
        works: "/api/products/search?q=".to_owned(),
        posts: "/api/products".to_owned(),
        searches: Some("/api/products/search?q=".to_owned()),
        fields: vec![("authorization".to_owned(), bearer)],
    })
}

#[allow(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn words(error: io::Error) -> String {
    error.to_string()
}

/// A few honest readers at an unhurried pace: what others notice.
fn bystanders(running: &Running) -> Load {
    let request = client::request("GET", &running.reads, &[], b"");
    Load::of(running.address, request, 4).at_rate(100.0)
}

/// What bystanders noticed of a harm between these moments, against the calm before it: figures that decide, and a plot.
fn noticed(outcome: &mut Outcome, record: &Record, harm: (Duration, Duration), factor: u32) {
    let (calm, under) = (record.between(Duration::ZERO, harm.0), record.between(harm.0, harm.1));
    let (before, meanwhile) = (calm.p99(), under.p99());
    let most = before.map_or(NOISE, |before| (before * factor).max(NOISE));
    outcome.note("others, in the calm: 99th percentile", time(before));
    let holds = meanwhile.is_some_and(|meanwhile| meanwhile <= most);
    outcome.want("others, meanwhile: 99th percentile", time(meanwhile), format!("at most {}", time(Some(most))), holds);
    if let (Some(before), Some(meanwhile)) = (before, meanwhile) {
        outcome.note("others, meanwhile: of the calm", format!("{:.2} times", meanwhile.as_secs_f64() / before.as_secs_f64().max(f64::EPSILON)));
    }
    let all = record.all().sum;
    let lost = all.failed + all.refused;
    let share = 1_000 * lost <= all.served.count();
    outcome.want("others: requests that were not served", format!("{lost} of {}", all.served.count() + lost), "at most 1 in 1,000", share);
    if let Some(failure) = &record.failure {
        outcome.note("others: the first failure", failure);
    }
    outcome.plots.push(latencies("others: latency of reads, ms", &[("", record)], harm));
}

/// Latencies over time: the median and the 99th percentile of each half second.
fn latencies(title: &str, records: &[(&str, &Record)], harm: (Duration, Duration)) -> Plot {
    let mut lines = Vec::new();
    for (name, record) in records {
        for (share, word) in [(0.5, "median"), (0.99, "99th percentile")] {
            let points = halves(record).filter_map(|(at, half)| Some((at, half.sum.served.quantile(share)?.as_secs_f64() * 1e3))).collect();
            lines.push(Line { name: format!("{name} {word}").trim().to_owned(), points });
        }
    }
    Plot { title: title.to_owned(), lines, logarithmic: true, harm: vec![seconds(harm)] }
}

/// What was served, refused and failed over time, a second.
fn rates(title: &str, record: &Record, harm: (Duration, Duration)) -> Plot {
    #[allow(clippy::cast_precision_loss)] // Counts of half a second.
    let line = |name: &str, count: fn(&crate::record::Slot) -> u64| Line {
        name: name.to_owned(),
        points: halves(record).map(|(at, half)| (at, count(&half.sum) as f64 * 2.0)).collect(),
    };
    let lines = vec![
        line("served", |slot| slot.served.count()),
        line("refused, told when to come back", |slot| slot.refused),
        line("failed", |slot| slot.failed),
    ];
    Plot { title: title.to_owned(), lines, logarithmic: false, harm: vec![seconds(harm)] }
}

fn halves(record: &Record) -> impl Iterator<Item = (f64, crate::record::Stretch)> {
    let half = SLOT * 5;
    let count = u32::try_from(record.slots.len() / 5).unwrap_or(0);
    (0..count).map(move |number| ((half * number).as_secs_f64(), record.between(half * number, half * (number + 1))))
}

fn seconds((from, to): (Duration, Duration)) -> (f64, f64) {
    (from.as_secs_f64(), to.as_secs_f64())
}

/// The memory of the service under the harm: a figure that decides, and a plot.
fn memory(outcome: &mut Outcome, watch: Option<&Watch>, harm: (Duration, Duration), most_mib: f64) {
    let Some(watch) = watch else { return };
    let (most, before) = watch.most(harm.0);
    let grown = most - before;
    outcome.want(
        "memory: more than in the calm",
        format!("{grown:.0} MiB over {before:.0}"),
        format!("at most {most_mib:.0} MiB"),
        grown <= most_mib,
    );
    let line = Line { name: "resident".to_owned(), points: watch.seen() };
    outcome.plots.push(Plot { title: "memory, MiB".to_owned(), lines: vec![line], logarithmic: false, harm: vec![seconds(harm)] });
}

fn watch(running: &Running, begun: Instant) -> Option<Watch> {
    running.pid.map(|pid| Watch::new(pid, begun))
}
