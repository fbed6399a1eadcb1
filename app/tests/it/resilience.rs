//! A database that misbehaves, behind a proxy that breaks on command: clear refusals in time, and service again by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::auth::Role;
use mainstay::store::query;
use mainstay::testing::{Fault, FaultProxy, Side};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::ground::{Ground, Service, server_address, within};

/// `DB_ACQUIRE_TIMEOUT` of these tests, and `REQUEST_TIMEOUT` where the database breaks.
const ACQUIRE: Duration = Duration::from_secs(1);
/// What an answer may take beyond its limit.
const BEYOND: Duration = Duration::from_millis(250);
/// A request that meets a busy machine beside the fault; the median must hold `BEYOND`.
const BUSY: Duration = Duration::from_secs(1);
const RECOVERY: Duration = Duration::from_secs(5);

on_postgres! {
    a_database_that_refuses_costs_a_refusal_in_time_and_comes_back
    a_database_that_is_silent_costs_a_refusal_in_time_and_comes_back
    a_database_that_resets_costs_a_refusal_in_time_and_comes_back
    a_network_that_halves_questions_costs_a_refusal_in_time_and_comes_back
    a_network_that_halves_answers_costs_a_refusal_in_time_and_comes_back
    a_network_that_corrupts_questions_holds_nobody_and_heals
    a_network_that_corrupts_answers_holds_nobody_and_heals
    a_statement_over_its_time_is_ended
    a_client_that_leaves_frees_its_connection
}

through_pooler! {
    a_statement_over_its_time_is_ended
    a_client_that_leaves_frees_its_connection
}

async fn a_database_that_refuses_costs_a_refusal_in_time_and_comes_back(ground: Arc<Ground>) {
    broken(ground, Fault::Refuse).await;
}

async fn a_database_that_is_silent_costs_a_refusal_in_time_and_comes_back(ground: Arc<Ground>) {
    broken(ground, Fault::Blackhole).await;
}

async fn a_database_that_resets_costs_a_refusal_in_time_and_comes_back(ground: Arc<Ground>) {
    broken(ground, Fault::Reset).await;
}

async fn a_network_that_halves_questions_costs_a_refusal_in_time_and_comes_back(ground: Arc<Ground>) {
    broken(ground, Fault::Halve(Side::Client)).await;
}

async fn a_network_that_halves_answers_costs_a_refusal_in_time_and_comes_back(ground: Arc<Ground>) {
    broken(ground, Fault::Halve(Side::Server)).await;
}

async fn a_network_that_corrupts_questions_holds_nobody_and_heals(ground: Arc<Ground>) {
    corrupted(ground, Side::Client).await;
}

async fn a_network_that_corrupts_answers_holds_nobody_and_heals(ground: Arc<Ground>) {
    corrupted(ground, Side::Server).await;
}

/// What comes of a question or an answer with a byte changed, nobody can say beforehand, and only TLS can tell (a number may be another one): but somebody says
/// something in time, and afterwards all is as before.
async fn corrupted(ground: Arc<Ground>, side: Side) {
    let proxy = FaultProxy::start(server_address()).await.unwrap();
    let service = through(&ground, &proxy, &[("REQUEST_TIMEOUT", "1s")]).await;
    let editor = service.account(Role::Editor).await.client;
    let path = editor.post("/api/products", &json!({"name": "Fragile"})).await.expect(201).header("location").unwrap().to_owned();

    proxy.set(Fault::Corrupt(side));
    for number in 0..30 {
        service.app.cache.forget_all();
        let begun = Instant::now();
        let answer = match number % 3 {
            0 => service.stranger().get(&path).await,
            1 => service.stranger().get("/api/products?limit=1").await,
            _ => editor.patch(&path, &json!({"name": format!("Changed {number}")})).await,
        };
        let took = begun.elapsed();
        assert!(took < ACQUIRE + BUSY, "{side:?}: {took:?} for {} {}", answer.status, answer.text());
        service.stranger().get("/health/live").await.expect(200);
    }

    proxy.set(Fault::Ok);
    let client = service.stranger();
    within(RECOVERY, "reads come back", || async { client.get(&path).await.status == 200 }).await;
    within(RECOVERY, "writes come back", || async { editor.patch(&path, &json!({"name": "Mended"})).await.status == 200 }).await;
    within(RECOVERY, "all is well", || async { client.get("/health").await.json()["status"] == "ok" }).await;
    within(RECOVERY, "no connection stays in use", || async { service.app.database.stats().in_use == 0 }).await;
    assert_eq!(client.get(&path).await.expect(200).data()["name"], "Mended");
}

async fn through(ground: &Ground, proxy: &FaultProxy, pairs: &[(&str, &str)]) -> Service {
    let url = ground.url.replacen(&server_address().to_string(), &proxy.address().to_string(), 1);
    assert_ne!(url, ground.url, "TEST_POSTGRES_URL must name 127.0.0.1 and a port");
    ground.start(&[&[("DATABASE_URL", url.as_str()), ("DB_ACQUIRE_TIMEOUT", "1s")], pairs].concat()).await
}

async fn broken(ground: Arc<Ground>, fault: Fault) {
    let proxy = FaultProxy::start(server_address()).await.unwrap();
    let service = through(&ground, &proxy, &[("REQUEST_TIMEOUT", "1s")]).await;
    let editor = service.account(Role::Editor).await.client;
    let path = editor.post("/api/products", &json!({"name": "Fragile"})).await.expect(201).header("location").unwrap().to_owned();
    let client = service.stranger();
    client.get(&path).await.expect(200);
    // What was read a moment ago may come from memory for another second.
    service.app.cache.forget_all();

    proxy.set(fault);
    let asked = (0..9).map(|number| {
        let (client, editor, path) = (service.stranger(), editor.clone(), path.clone());
        tokio::spawn(async move {
            let begun = Instant::now();
            let answer = match number % 3 {
                0 => client.get(&path).await,
                1 => client.get("/api/products?limit=1").await,
                _ => editor.patch(&path, &json!({"name": "Changed"})).await,
            };
            (answer, begun.elapsed())
        })
    });
    let mut times = Vec::new();
    for asked in asked.collect::<Vec<_>>() {
        let (answer, took) = asked.await.unwrap();
        match answer.status {
            503 => {
                // A statement that was sent before, or on a connection that nobody knows to be silent, has the time of its request.
                assert!(["database_unavailable", "database_timeout"].contains(&answer.code().as_str()), "{answer:?}");
                let seconds = answer.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
                assert!(seconds.is_some_and(|seconds| seconds > 0), "{answer:?}");
            }
            other => panic!("{fault:?}: {other} {}", answer.text()),
        }
        assert!(took < ACQUIRE + BUSY, "{fault:?}: {took:?}");
        times.push(took);
    }
    times.sort_unstable();
    assert!(times[times.len() / 2] < ACQUIRE + BEYOND, "{fault:?}: {times:?}");
    let begun = Instant::now();
    client.get("/health/live").await.expect(200);
    client.get("/health/ready").await.expect(200);
    assert!(begun.elapsed() < BUSY, "liveness and readiness ask no database: {:?}", begun.elapsed());
    client.get("/health").await.expect(503);
    // What needs no database goes on.
    client.get("/api/products/search?limit=0").await.expect(400);
    client.get("/openapi.json").await.expect(200);

    proxy.set(Fault::Ok);
    within(RECOVERY, "reads come back", || async { client.get(&path).await.status == 200 }).await;
    within(RECOVERY, "writes come back", || async { editor.patch(&path, &json!({"name": "Mended"})).await.status == 200 }).await;
    within(RECOVERY, "health comes back", || async { client.get("/health").await.status == 200 }).await;
    within(RECOVERY, "no connection stays in use", || async { service.app.database.stats().in_use == 0 }).await;
    let backends =
        ground.number(&format!("SELECT count(*) AS n FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()", ground.name())).await;
    // Beside the pool there are the one that listens and, until the server has seen its end, the one before it.
    assert!(backends <= 6 + 4, "{backends} backends for a pool of 6");
}

async fn a_statement_over_its_time_is_ended(ground: Arc<Ground>) {
    let service = ground.start(&[("DB_STATEMENT_TIMEOUT", "400ms")]).await;
    let editor = service.account(Role::Editor).await.client;
    let path = editor.post("/api/products", &json!({"name": "Locked"})).await.expect(201).header("location").unwrap().to_owned();
    let database = ground.database().await;
    let mut transaction = database.begin(None).await.unwrap();
    query("UPDATE products SET type = 'held'").execute(&mut transaction).await.unwrap();
    let begun = Instant::now();
    let answer = editor.patch(&path, &json!({"name": "Changed"})).await.expect(503);
    let took = begun.elapsed();
    assert_eq!(answer.code(), "database_timeout");
    assert!(took >= Duration::from_millis(400) && took < Duration::from_millis(400) + BUSY, "{took:?}");
    transaction.rollback().await.unwrap();
    let product = editor.patch(&path, &json!({"name": "Changed"})).await.expect(200).data();
    assert_eq!(product["version"], 2, "the ended statement left nothing behind");
}

async fn a_client_that_leaves_frees_its_connection(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    let mut paths = Vec::new();
    // One less than a pooler lends: the search index reads as well.
    let clients = if ground.is_pooled() { 3 } else { 5 };
    for _ in 0..clients {
        paths.push(editor.post("/api/products", &json!({"name": "Wanted"})).await.expect(201).header("location").unwrap().to_owned());
    }
    let database = ground.database().await;
    let mut transaction = database.begin(None).await.unwrap();
    query("LOCK TABLE products IN ACCESS EXCLUSIVE MODE").execute(&mut transaction).await.unwrap();
    // The reads of one product. The search index reads too, whenever the log has something for it.
    let waiting = format!(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = '{}' AND wait_event_type = 'Lock' AND query LIKE '%WHERE id = $1 AND%'",
        ground.name()
    );
    let mut connected = Vec::new();
    for path in &paths {
        let mut client = TcpStream::connect(service.address).await.unwrap();
        client.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        connected.push(client);
    }
    within(RECOVERY, "their statements wait", || async { ground.number(&waiting).await == clients }).await;
    drop(connected);
    within(RECOVERY, "the statements of clients that left are ended", || async { ground.number(&waiting).await == 0 }).await;
    within(RECOVERY, "their connections are free", || async { service.app.database.stats().in_use <= 1 }).await;
    transaction.rollback().await.unwrap();
    service.stranger().get(&paths[0]).await.expect(200);
}
