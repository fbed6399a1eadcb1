//! A query without an index, over so many rows that it must be ended. It is ended in time, and nobody else notices.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::sleep_until;

use super::{AFTER, CALM, memory, noticed, ours, watch};
use crate::Plan;
use crate::client::{Connection, request};
use crate::load::Load;
use crate::outcome::{Line, Outcome, Plot, time};
use crate::sql::{self, Database};
use crate::target::{Program, Running};

const ROWS: u32 = 2_000_000;
/// As many as are made in a few seconds and still take longer than anything that others ask.
const ROWS_SHORT: u32 = 400_000;
const HARM: Duration = Duration::from_secs(60);
/// Who asks for it, each a second apart: somebody who reloads a page that does not come.
const ASKING: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);
/// What the service may add to the limit of a statement.
const ADDED: Duration = Duration::from_millis(250);
/// And a busy machine.
const BUSY: Duration = Duration::from_millis(250);
const MEMORY_MIB: f64 = 64.0;
/// As the list asks.
const SCAN: &str =
    "SELECT count(*) FROM (SELECT id FROM products WHERE deleted_at IS NULL AND manufacturer = 'nobody' ORDER BY created_at, id LIMIT 21) AS page";

/// Rows as the service would have written them. What follows changes is not told: the search would index them for minutes.
fn filling(rows: u32) -> String {
    format!(
        "ALTER TABLE products DISABLE TRIGGER products_note_change;
         DROP INDEX products_by_manufacturer, products_by_name, products_by_price, products_by_category, products_sku_key, products_by_age;
         INSERT INTO products (id, name, name_folded, manufacturer, category, category_path, tags, attributes, version, created_at, updated_at)
         SELECT lpad(to_hex(n), 32, '0')::uuid, 'Product ' || n, 'product ' || n, 'Somebody ' || n % 1000, '[]', '', '[]', '{{}}', 1, at, at
         FROM (SELECT n, timestamptz '2026-01-01' + n * interval '1 second' AS at FROM generate_series(1, {rows}) AS n) AS made;
         CREATE INDEX products_by_age ON products (created_at, id) WHERE deleted_at IS NULL;
         ALTER TABLE products ENABLE TRIGGER products_note_change;
         VACUUM (ANALYZE) products"
    )
}

/// What came of asking.
#[derive(Default)]
struct Asked {
    answers: BTreeMap<String, u64>,
    /// Seconds after the beginning, and milliseconds until the answer.
    took: Vec<(f64, f64)>,
}

pub(super) async fn run(plan: &Plan, program: &Program, database: &Database) -> Result<Outcome, String> {
    let rows = if plan.short { ROWS_SHORT } else { ROWS };
    let url = ("DATABASE_URL", database.url.as_str());
    program.run(&program.settings("migrating", &[url]), &["migrate"]).await?;
    // One core a query: two would end it sooner on one machine than on another.
    sql::execute(&database.url, &format!("ALTER DATABASE {} SET max_parallel_workers_per_gather = 0", database.name)).await?;
    // Each on its own: VACUUM stands in no transaction, and statements that are sent together are one.
    for statement in filling(rows).split(";\n") {
        sql::execute(&database.url, statement.trim()).await?;
    }
    sql::number(&database.url, SCAN).await?;
    let alone = Instant::now();
    sql::number(&database.url, SCAN).await?;
    let alone = alone.elapsed();
    // So small that it must be ended on any machine, and far more than what others ask takes.
    let limit = Duration::from_millis(u64::try_from(alone.as_millis() / 3).unwrap_or(u64::MAX)).max(Duration::from_millis(20));
    let limit_ms = format!("{}ms", limit.as_millis());
    let service = program.start(&program.settings("one", &[url, ("DB_STATEMENT_TIMEOUT", &limit_ms)])).await?;
    let running = ours(&service).await?;
    let begun = Instant::now();
    let harm = (CALM, CALM + plan.length(HARM));
    let watch = watch(&running, begun);
    let others = bystanders(&running).go(begun);
    sleep_until((begun + harm.0).into()).await;
    let asking = (0..ASKING).map(|number| ask(&running, number, begun, begun + harm.1));
    let mut asked = Asked::default();
    for one in join_all(asking).await {
        one.answers.into_iter().for_each(|(answer, count)| *asked.answers.entry(answer).or_default() += count);
        asked.took.extend(one.took);
    }
    tokio::time::sleep(AFTER).await;
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%manufacturer%'";
    let left = sql::number(&database.url, left).await?;
    let record = others.stop().await?;
    let mut outcome = Outcome::default();
    outcome.note("rows", rows);
    outcome.note("the query alone, without a limit", time(Some(alone)));
    outcome.note("its limit: DB_STATEMENT_TIMEOUT", limit_ms);
    judge(&mut outcome, &asked, limit, left);
    noticed(&mut outcome, &record, harm, 2);
    memory(&mut outcome, watch.as_ref(), harm, MEMORY_MIB);
    asked.took.sort_by(|one, other| one.0.total_cmp(&other.0));
    let lines = vec![
        Line { name: "answered after".to_owned(), points: asked.took },
        Line { name: "the limit".to_owned(), points: [harm.0, harm.1].map(|at| (at.as_secs_f64(), limit.as_secs_f64() * 1e3)).to_vec() },
    ];
    outcome.plots.insert(0, Plot { title: "the slow query: latency, ms".to_owned(), lines, logarithmic: false, harm: vec![super::seconds(harm)] });
    Ok(outcome)
}

/// Others read a product, the first page of the list, and who they are.
fn bystanders(running: &Running) -> Load {
    let fields: Vec<_> = running.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let requests = [running.reads.as_str(), "/api/products?limit=5", "/api/users/me"].map(|target| request("GET", target, &fields, b""));
    Load::of(running.address, Vec::new(), 4).asking(requests.to_vec()).at_rate(60.0)
}

async fn ask(running: &Running, number: u32, begun: Instant, until: Instant) -> Asked {
    let mut asked = Asked::default();
    let mut connection: Option<Connection> = None;
    // Not all in one moment.
    let mut due = Instant::now() + PAUSE * number / ASKING;
    for turn in 0.. {
        sleep_until(due.into()).await;
        if due >= until {
            break;
        }
        let sent = Instant::now();
        // A manufacturer of its own each time: nobody is served what somebody else waits for.
        let question = request("GET", &format!("/api/products?manufacturer=nobody-{number}-{turn}"), &[], b"");
        let answer = match &mut connection {
            Some(connection) => connection.ask(&question).await,
            none => match Connection::open(running.address, None).await {
                Ok(opened) => none.insert(opened).ask(&question).await,
                Err(error) => Err(error),
            },
        };
        if !answer.as_ref().is_ok_and(|answer| !answer.closes()) {
            connection = None;
        }
        let said = answer.map_or_else(
            |error| error.to_string(),
            |answer| format!("{} {}", answer.status, answer.json()["code"].as_str().unwrap_or("without a code")),
        );
        *asked.answers.entry(said).or_default() += 1;
        asked.took.push(((sent - begun).as_secs_f64(), sent.elapsed().as_secs_f64() * 1e3));
        due = (due + PAUSE).max(Instant::now());
    }
    asked
}

fn judge(outcome: &mut Outcome, asked: &Asked, limit: Duration, left: i64) {
    let said: Vec<String> = asked.answers.iter().map(|(answer, count)| format!("{count} x {answer}")).collect();
    let holds = !asked.answers.is_empty() && asked.answers.keys().all(|answer| answer == "503 database_timeout");
    outcome.want("the slow query: answers", said.join(", "), "503 database_timeout", holds);
    let longest = asked.took.iter().map(|(_, ms)| Duration::from_secs_f64(ms / 1e3)).max();
    let most = limit + ADDED + BUSY;
    outcome.want(
        "the slow query: the longest wait",
        time(longest),
        format!("at most {} after its limit, and {} on a busy machine", time(Some(ADDED)), time(Some(BUSY))),
        longest.is_some_and(|longest| longest <= most),
    );
    outcome.want("the slow query: still running in the database afterwards", left, "none", left == 0);
}
