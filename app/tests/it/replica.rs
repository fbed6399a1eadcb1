//! Read replicas, with a real one beside the test server: who reads from it, when it is left out, and that nobody waits for it.

mod held;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mainstay::auth::Role;
use mainstay::store::{self, Database, Out, query};
use mainstay::testing::{Fault, FaultProxy};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use self::held::{Replica, on_replica, replica_url};
use crate::client::Client;
use crate::ground::{Ground, Service, address, server_address, server_url, within};
use crate::process::{Server, run};

/// A busy machine replays, looks and answers late.
const PATIENCE: Duration = Duration::from_secs(30);
/// What it takes at most to notice that a replica is behind or gone: a verdict holds for so long.
const NOTICE: Duration = Duration::from_millis(1_500);
/// What an answer may take beside that on a busy machine.
const BUSY: Duration = Duration::from_secs(1);

on_postgres! {
    strangers_read_from_the_replica_and_whoever_signs_in_from_the_primary
    a_replica_that_falls_behind_is_left_out_and_comes_back
    a_replica_that_refuses_costs_nobody_an_answer_and_comes_back
    a_replica_that_is_silent_costs_nobody_an_answer_and_comes_back
    a_replica_that_resets_costs_nobody_an_answer_and_comes_back
    reads_are_shared_by_the_replicas_that_are_well
    a_replica_far_away_gets_its_connections_all_the_same
    what_a_replica_lacks_is_asked_of_the_primary
    strangers_are_served_while_the_primary_is_gone
    what_is_no_replica_of_this_database_is_never_read_from
    a_replica_that_is_down_keeps_nobody_from_starting
    each_server_has_to_have_room
}

async fn start(ground: &Ground, urls: &str, lag_max: &str) -> Service {
    ground.start(&[("DATABASE_REPLICA_URL", urls), ("REPLICA_LAG_MAX", lag_max), ("CACHE_SIZE", "0")]).await
}

fn out(service: &Service) -> Vec<Option<Out>> {
    service.app.database.replicas().iter().map(|replica| replica.out).collect()
}

fn reads(service: &Service) -> Vec<u64> {
    service.app.database.replicas().iter().map(|replica| replica.reads).collect()
}

/// Waits until every replica is in use.
async fn in_use(service: &Service) {
    within(PATIENCE, "the replicas are in use", || async { out(service).iter().all(Option::is_none) }).await;
}

/// What `ask` gives when the replica answered all its reads: on a busy machine a look may be late, and the primary answers some.
async fn from_replica<T, F: Future<Output = T>>(service: &Service, all: u64, ask: impl Fn() -> F) -> T {
    let begun = Instant::now();
    loop {
        in_use(service).await;
        let before = reads(service)[0];
        let got = ask().await;
        if reads(service)[0] - before == all {
            return got;
        }
        assert!(begun.elapsed() < PATIENCE, "the replica does not answer {all} reads");
    }
}

/// A new product, once the replica has it; its path.
async fn product(service: &Service, editor: &Client, name: &str) -> String {
    let path = editor.post("/api/products", &json!({"name": name})).await.expect(201).header("location").unwrap().to_owned();
    in_use(service).await;
    let stranger = service.stranger();
    within(PATIENCE, "the replica has the product", || async { stranger.get(&path).await.status == 200 }).await;
    path
}

async fn strangers_read_from_the_replica_and_whoever_signs_in_from_the_primary(ground: Arc<Ground>) {
    let replica = Replica::hold().await;
    let service = start(&ground, &on_replica(&ground, None), "60s").await;
    let elsewhere = start(&ground, &on_replica(&ground, None), "60s").await;
    let editor = service.account(Role::Editor).await.client;
    let path = product(&service, &editor, "Kettle of old").await;
    in_use(&elsewhere).await;
    let stranger = service.stranger();
    replica.pause().await;
    editor.patch(&path, &json!({"name": "Kettle of today"})).await.expect(200);

    let shown = async |client: &Client| {
        let name = |product: &Value| product["name"].as_str().unwrap().to_owned();
        let listed = client.get("/api/products").await.expect(200).data();
        let found = client.get("/api/products/search?q=kettle").await.expect(200).data();
        [name(&client.get(&path).await.expect(200).data()), name(&listed[0]), name(&found[0])]
    };
    assert_eq!(from_replica(&service, 3, || shown(&stranger)).await, ["Kettle of old"; 3], "a stranger reads what the replica has");
    let before = reads(&service);
    assert_eq!(shown(&editor).await, ["Kettle of today"; 3], "whoever wrote reads what was written");
    let there = Client::new(elsewhere.address).with_token(editor.token());
    let there_first = there.get(&path).await.expect(200).data();
    assert_eq!(there_first["name"], "Kettle of today", "on every instance");
    assert_eq!((reads(&service), reads(&elsewhere)), (before, vec![0]), "the replica is not asked");
    // What is made while the replica stands still is not there for strangers, and is for its maker.
    let made = editor.post("/api/products", &json!({"name": "Brand new"})).await.expect(201).header("location").unwrap().to_owned();
    editor.get(&made).await.expect(200);
    from_replica(&service, 1, || stranger.get(&made)).await.expect(404);
    editor.delete(&made).await.expect(204);
    editor.get(&made).await.expect(404);

    replica.resume().await;
    within(PATIENCE, "the stranger reads the new name", || async { shown(&stranger).await == ["Kettle of today"; 3] }).await;
}

async fn a_replica_that_falls_behind_is_left_out_and_comes_back(ground: Arc<Ground>) {
    let replica = Replica::hold().await;
    let lag_max = Duration::from_secs(1);
    let service = start(&ground, &on_replica(&ground, None), "1s").await;
    let editor = service.account(Role::Editor).await.client;
    let path = product(&service, &editor, "Version 0").await;
    let stranger = service.stranger();
    replica.pause().await;
    for round in 1..=3 {
        let name = format!("Version {round}");
        editor.patch(&path, &json!({"name": name})).await.expect(200);
        let written = Instant::now();
        // No answer that began after this may be older.
        let bound = lag_max + NOTICE;
        loop {
            let begun = written.elapsed();
            let shown = stranger.get(&path).await.expect(200).data()["name"].clone();
            assert_eq!(editor.get(&path).await.expect(200).data()["name"], name.as_str(), "the writer reads what it wrote");
            if shown == name.as_str() {
                break;
            }
            assert!(begun < bound + BUSY, "{shown} after {begun:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    within(PATIENCE, "the reason is told", || async { out(&service) == [Some(Out::Lagging)] }).await;
    let before = reads(&service);
    for _ in 0..5 {
        stranger.get(&path).await.expect(200);
    }
    assert_eq!(reads(&service), before, "nothing is read from it");

    replica.resume().await;
    let shown = from_replica(&service, 1, || stranger.get(&path)).await.expect(200).data();
    assert_eq!(shown["name"], "Version 3");
}

async fn a_replica_that_refuses_costs_nobody_an_answer_and_comes_back(ground: Arc<Ground>) {
    broken(ground, Fault::Refuse).await;
}

async fn a_replica_that_is_silent_costs_nobody_an_answer_and_comes_back(ground: Arc<Ground>) {
    broken(ground, Fault::Blackhole).await;
}

async fn a_replica_that_resets_costs_nobody_an_answer_and_comes_back(ground: Arc<Ground>) {
    broken(ground, Fault::Reset).await;
}

async fn broken(ground: Arc<Ground>, fault: Fault) {
    let _replica = Replica::hold().await;
    let proxy = FaultProxy::start(address(&replica_url())).await.unwrap();
    let service = start(&ground, &on_replica(&ground, Some(&proxy)), "60s").await;
    let editor = service.account(Role::Editor).await.client;
    let path = product(&service, &editor, "Wanted").await;
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|number| {
            let (client, over) = (service.stranger(), over.clone());
            let path = if number % 2 == 0 { path.clone() } else { "/api/products?limit=1".to_owned() };
            tokio::spawn(async move {
                let (mut answers, mut longest) = (0, Duration::ZERO);
                while !over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    client.get(&path).await.expect(200);
                    longest = longest.max(begun.elapsed());
                    answers += 1;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                (answers, longest)
            })
        })
        .collect();
    let calm = reads(&service)[0];
    within(PATIENCE, "it is read from", || async { reads(&service)[0] > calm + 20 }).await;
    proxy.set(fault);
    within(PATIENCE, "it is left out", || async { out(&service) == [Some(Out::Silent)] }).await;
    let before = reads(&service);
    // Longer than anybody may wait: whoever still waits for it then is found out below.
    tokio::time::sleep(NOTICE + BUSY).await;
    assert_eq!(reads(&service), before, "nobody tries it meanwhile");

    proxy.set(Fault::Ok);
    in_use(&service).await;
    within(PATIENCE, "it is read from again", || async { reads(&service) > before }).await;
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        let (answers, longest) = reader.await.unwrap();
        assert!(answers > 10, "{answers} answers");
        assert!(longest < NOTICE + BUSY, "{fault:?}: somebody waited {longest:?}");
    }
    within(PATIENCE, "no connection stays in use", || async { service.app.database.replicas()[0].pool.in_use == 0 }).await;
}

async fn reads_are_shared_by_the_replicas_that_are_well(ground: Arc<Ground>) {
    let _replica = Replica::hold().await;
    let proxies = [FaultProxy::start(address(&replica_url())).await.unwrap(), FaultProxy::start(address(&replica_url())).await.unwrap()];
    let urls = format!("{}, {}", on_replica(&ground, Some(&proxies[0])), on_replica(&ground, Some(&proxies[1])));
    let service = start(&ground, &urls, "60s").await;
    let editor = service.account(Role::Editor).await.client;
    let path = product(&service, &editor, "Shared").await;
    let stranger = service.stranger();
    let ask = async |count| {
        let before = reads(&service);
        for _ in 0..count {
            stranger.get(&path).await.expect(200);
        }
        reads(&service).into_iter().zip(before).map(|(now, before)| now - before).collect::<Vec<_>>()
    };
    // A look may be late on a busy machine.
    let shared = async |shares: [u64; 2]| within(PATIENCE, "reads are shared so", || async { ask(20).await == shares }).await;
    shared([10, 10]).await;
    proxies[0].set(Fault::Refuse);
    within(PATIENCE, "one is left out", || async { out(&service) == [Some(Out::Silent), None] }).await;
    shared([0, 20]).await;
    proxies[0].set(Fault::Ok);
    in_use(&service).await;
    shared([10, 10]).await;
}

async fn a_replica_far_away_gets_its_connections_all_the_same(ground: Arc<Ground>) {
    let _replica = Replica::hold().await;
    let proxy = FaultProxy::start(address(&replica_url())).await.unwrap();
    // A connection takes two exchanges, so longer than any reader waits.
    proxy.set(Fault::Latency(Duration::from_millis(40)));
    let url = on_replica(&ground, Some(&proxy));
    let service =
        ground.start(&[("DATABASE_REPLICA_URL", url.as_str()), ("REPLICA_LAG_MAX", "60s"), ("DB_POOL_MIN", "0"), ("CACHE_SIZE", "0")]).await;
    in_use(&service).await;
    let stranger = service.stranger();
    let pool = || service.app.database.replicas()[0].pool;
    // The start has made one to ask what the server allows, if the replica had the database by then.
    let mut held = service.app.database.acquire_tolerant(None).await.unwrap();
    let begun = Instant::now();
    while pool().in_use == 0 {
        assert!(begun.elapsed() < PATIENCE, "no connection is made for the first reader");
        tokio::time::sleep(Duration::from_millis(20)).await;
        held = service.app.database.acquire_tolerant(None).await.unwrap();
    }
    let before = pool().size;
    within(PATIENCE, "a connection is made for the next reader", || async {
        stranger.get("/api/products").await.expect(200);
        pool().size > before
    })
    .await;
    drop(held);
}

async fn what_a_replica_lacks_is_asked_of_the_primary(ground: Arc<Ground>) {
    let replica = Replica::hold().await;
    let service = start(&ground, &on_replica(&ground, None), "60s").await;
    in_use(&service).await;
    replica.pause().await;
    // As after a migration that the replica has not replayed.
    ground.execute("CREATE TABLE brand_new AS SELECT 7::bigint AS n").await;
    let found = from_replica(&service, 1, || async {
        let mut connection = service.app.database.acquire_tolerant(None).await.unwrap();
        query("SELECT n FROM brand_new").fetch_one(&mut connection).await.unwrap().get::<i64>("n").unwrap()
    });
    assert_eq!(found.await, 7, "the replica was asked first");
    assert_eq!(service.app.database.replicas()[0].pool.in_use, 0, "and has its connection back");
    replica.resume().await;
}

async fn strangers_are_served_while_the_primary_is_gone(ground: Arc<Ground>) {
    let _replica = Replica::hold().await;
    let proxy = FaultProxy::start(server_address()).await.unwrap();
    let primary = ground.url.replacen(&server_address().to_string(), &proxy.address().to_string(), 1);
    let settings =
        [("DATABASE_URL", primary.as_str()), ("DATABASE_REPLICA_URL", &on_replica(&ground, None)), ("DB_ACQUIRE_TIMEOUT", "1s"), ("CACHE_SIZE", "0")];
    let service = ground.start(&settings).await;
    let editor = service.account(Role::Editor).await.client;
    let path = product(&service, &editor, "Still there").await;
    let stranger = service.stranger();
    // What the primary writes by itself must have arrived before it goes.
    in_use(&service).await;
    proxy.set(Fault::Refuse);
    // Longer than a verdict holds and the primary counts as seen. A look that is late on a busy machine begins it anew.
    let (gone, mut served) = (Instant::now(), Instant::now());
    while served.elapsed() < Duration::from_secs(4) {
        if stranger.get(&path).await.status != 200 {
            served = Instant::now();
        }
        assert!(gone.elapsed() < PATIENCE, "strangers are not served: {:?}", out(&service));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(editor.get(&path).await.expect(503).code(), "database_unavailable", "whoever signs in is not shown what may be old");
    proxy.set(Fault::Ok);
    within(PATIENCE, "the primary is back", || async { editor.get(&path).await.status == 200 }).await;
}

async fn what_is_no_replica_of_this_database_is_never_read_from(ground: Arc<Ground>) {
    let _replica = Replica::hold().await;
    // The primary itself, and another database of the replica.
    let urls = format!("{},{}", ground.url, replica_url());
    let service = start(&ground, &urls, "60s").await;
    within(PATIENCE, "both are known", || async { out(&service) == [Some(Out::NoReplica), Some(Out::Foreign)] }).await;
    service.stranger().get("/api/products").await.expect(200);
    assert_eq!(reads(&service), [0, 0]);
}

async fn a_replica_that_is_down_keeps_nobody_from_starting(ground: Arc<Ground>) {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("postgres://u:hunter2@{nobody}/shop");
    let server = Server::start(&ground.pairs(&[("DATABASE_REPLICA_URL", &url), ("CACHE_SIZE", "0")]));
    server.client().get("/api/products").await.expect(200);
    let management = Client::new(server.management);
    let health = management.get("/health").await.expect(200).json();
    assert_eq!((health["healthy"].clone(), health["status"].clone()), (json!(true), json!("degraded")));
    let replica = &health["replicas"][0];
    assert_eq!((&replica["address"], &replica["in_use"], &replica["answers"]), (&json!(nobody.to_string()), &json!(false), &json!(false)));
    let metrics = management.get("/metrics").await.expect(200).text();
    for line in [
        r#"mainstay_replica_in_use{replica="replica_1"} 0"#,
        r#"mainstay_replica_answers{replica="replica_1"} 0"#,
        r#"mainstay_replica_reads_total{replica="replica_1"} 0"#,
        r#"mainstay_replica_fallbacks_total{reason="none_in_use"} 1"#,
        "mainstay_replica_primary_seen 1",
    ] {
        assert!(metrics.contains(line), "{line} is missing in: {metrics}");
    }
    assert!(!server.output().contains("hunter2"), "{}", server.output());
}

async fn each_server_has_to_have_room(ground: Arc<Ground>) {
    let _replica = Replica::hold().await;
    let room = async |url: &str| {
        let limits = Database::open(&store::Settings::new(url)).await.unwrap().connection_limits().await.unwrap().unwrap();
        limits.max_connections - limits.reserved
    };
    let (primary, replica) = (room(&server_url()).await, room(&replica_url()).await);
    assert!(replica < primary, "scripts/test gives the replica less room");
    within(PATIENCE, "the replica has the database", || async { Database::open(&store::Settings::new(on_replica(&ground, None))).await.is_ok() })
        .await;
    let refused = |pool_max: u64| {
        let url = on_replica(&ground, None);
        let pairs = ground.pairs(&[("DATABASE_REPLICA_URL", &url), ("DB_POOL_MAX", &pool_max.to_string()), ("DB_POOL_MIN", "0")]);
        let output = tokio::task::block_in_place(|| run(&pairs, &["serve"], b""));
        assert_eq!(output.status.code(), Some(69));
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let told = refused(replica);
    assert!(told.contains(&format!("1 instances x ({replica} connections + 1 that watches)")) && told.contains("but the replica allows"), "{told}");
    let told = refused(primary - 1);
    assert!(told.contains("+ 2 that listen and watch") && told.contains("but the database allows"), "{told}");
}
