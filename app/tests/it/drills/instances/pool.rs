//! The drill of `pool`: a database that answers in five seconds, then not at all, then again. What was read before is read on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::testing::{Fault, FaultProxy};
use serde_json::json;
use uuid::Uuid;

use super::fleet::{BUSY, Fleet, INSTANCES, POOL, admin, assert_back, assert_refused, product, sign_in};
use crate::client::{Answer, Client};
use crate::ground::{ADMIN, Ground, PASSWORD, server_address, within};

/// `DB_ACQUIRE_TIMEOUT`, `DB_STATEMENT_TIMEOUT`, and what the client of the database adds to the latter when the server does not end a statement itself.
const LIMITS: Duration = Duration::from_millis(500 + 1_000 + 250);
/// For this long the first reader of an answer in memory waits for a newer one, and after that one reader in a while.
const PATIENCE: Duration = Duration::from_millis(250);
/// For this long the answers in memory are read while the database is away: several times what it takes to notice.
const READ_ON: Duration = Duration::from_secs(3);
/// Until changes are heard again: the longest pause between two attempts, and a busy machine.
const HEARD: Duration = Duration::from_secs(5);

pub(super) async fn reads_from_memory_go_on_without_a_database_the_rest_is_503_in_time_and_it_is_back_within_a_second(ground: Arc<Ground>) {
    let proxy = FaultProxy::start(server_address()).await.unwrap();
    let url = ground.url.replacen(&server_address().to_string(), &proxy.address().to_string(), 1);
    let pairs = [("DATABASE_URL", url.as_str()), ("DB_ACQUIRE_TIMEOUT", "500ms"), ("DB_STATEMENT_TIMEOUT", "1s")];
    let fleet = Fleet::start(&ground, &pairs).await;
    let editors: Vec<_> = {
        let token = admin(&fleet.client(0)).await.token().to_owned();
        fleet.clients().iter().map(|client| client.with_token(token.as_str())).collect()
    };
    let path = product(&editors[0]).await;
    // Half of it on each way.
    for fault in [Fault::Latency(Duration::from_millis(2_500)), Fault::Blackhole] {
        for client in fleet.clients() {
            within(HEARD, "a read comes from memory", || async { client.get(&path).await.status == 200 }).await;
        }
        proxy.set(fault);
        memory_goes_on(&fleet, &path, fault).await;
        everything_is_refused_in_time(&fleet, &editors, &path, fault).await;
        memory_goes_on(&fleet, &path, fault).await;
        what_needs_no_database_goes_on(&fleet).await;
        proxy.set(Fault::Ok);
        comes_back(&editors, &path, fault).await;
        fleet.all_say("ok", HEARD).await;
        fleet.no_connection_in_use(HEARD).await;
        // Beside each pool there is one that listens and, until the server has seen its end, the one before it.
        let most = INSTANCES as i64 * (POOL + 2);
        let backends = format!("SELECT count(*) AS n FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()", ground.name());
        within(HEARD, "the server has lost sight of the connections that were given up", || async { ground.number(&backends).await <= most }).await;
    }
}

/// A product that all instances have in memory is read from there, and the answer says that it may be old: one of the others might have changed it.
async fn memory_goes_on(fleet: &Fleet, path: &str, fault: Fault) {
    let begun = Instant::now();
    let reading = fleet.clients().into_iter().map(|client| async move {
        let (mut times, mut stale) = (Vec::new(), 0);
        while begun.elapsed() < READ_ON {
            let asked = Instant::now();
            let answer = client.get(path).await.expect(200);
            times.push(asked.elapsed());
            stale += usize::from(answer.header("cache-status").is_some_and(|says| says.starts_with("mainstay; hit; ttl=-")));
        }
        times.sort_unstable();
        let (median, last) = (times[times.len() / 2], times[times.len() - 1]);
        assert!(median < PATIENCE / 5 && last < PATIENCE + BUSY, "{fault:?}: {median:?}, at most {last:?}");
        assert!(stale > times.len() / 2, "{fault:?}: {stale} of {} say that they may be old", times.len());
    });
    futures_util::future::join_all(reading).await;
}

async fn everything_is_refused_in_time(fleet: &Fleet, editors: &[Client], path: &str, fault: Fault) {
    let asked = (0..INSTANCES * 8).map(|number| {
        let (client, editor) = (fleet.client(number), &editors[number % INSTANCES]);
        async move {
            let begun = Instant::now();
            let (what, answer): (_, Answer) = match number / INSTANCES % 4 {
                0 => ("show", client.get(&format!("/api/products/{}", Uuid::new_v4())).await),
                1 => ("list", client.get("/api/products?limit=1").await),
                2 => ("update", editor.patch(path, &json!({"name": "Changed"})).await),
                _ => ("sign in", client.post("/api/auth/login", &json!({"email": ADMIN, "password": PASSWORD})).await),
            };
            (what, answer, begun.elapsed())
        }
    });
    let answers = futures_util::future::join_all(asked).await;
    let times: Vec<_> = answers.iter().map(|(what, _, took)| (what, took)).collect();
    for (what, answer, took) in &answers {
        assert_refused(answer, &format!("{fault:?}: {what}"));
        assert!(*took < LIMITS + BUSY, "{fault:?}: {what} took {took:?} of {LIMITS:?}: {times:?}");
    }
}

async fn what_needs_no_database_goes_on(fleet: &Fleet) {
    for client in fleet.clients() {
        for path in ["/health/live", "/health/ready", "/openapi.json", "/.well-known/jwks.json"] {
            let begun = Instant::now();
            client.get(path).await.expect(200);
            assert!(begun.elapsed() < BUSY, "{path} asks no database: {:?}", begun.elapsed());
        }
        client.get("/health").await.expect(503);
    }
}

async fn comes_back(editors: &[Client], path: &str, fault: Fault) {
    let begun = Instant::now();
    let coming = editors.iter().map(|editor| async move {
        let fresh = || async {
            let answer = editor.get(path).await.expect(200);
            answer.header("cache-status").is_none()
        };
        within(HEARD, "reads come back", fresh).await;
        let read = begun.elapsed();
        within(HEARD, "writes come back", || async { editor.patch(path, &json!({"name": "Mended"})).await.status == 200 }).await;
        (read, begun.elapsed())
    });
    let back = futures_util::future::join_all(coming).await;
    assert_back(back.into_iter().flat_map(|(read, written)| [read, written]).collect(), &format!("{fault:?}, reads and writes"));
    sign_in(&editors[0], ADMIN, PASSWORD).await;
}
