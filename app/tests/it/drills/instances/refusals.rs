//! A database that is there and refuses: read-only after a failover, all connections closed, none to be had. Each is a 503 that says when to come back.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use super::fleet::{BUSY, Fleet, POOL, RECOVERY, access, admin, assert_back, assert_refused, product, register, sign_in};
use super::load::Load;
use crate::client::{Answer, Client};
use crate::ground::{ADMIN, Ground, PASSWORD, on_server, within};

/// Until a fault has reached everybody, and until an instance hears of the others again.
const SOON: Duration = Duration::from_secs(10);
/// How often all connections are closed.
const CLOSINGS: usize = 5;

/// Each instance asked by the administrator.
async fn editors(fleet: &Fleet) -> Vec<Client> {
    let token = admin(&fleet.client(0)).await.token().to_owned();
    fleet.clients().iter().map(|client| client.with_token(token.as_str())).collect()
}

/// Closes every connection to the database but the one that does it; how many?
async fn close_all(ground: &Ground) -> i64 {
    let others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    ground.number(&format!("SELECT count(pg_terminate_backend(pid)) AS n {others}")).await
}

/// Writes of every kind: one statement, a transaction, and those that hash before they write.
async fn writes(editor: &Client, path: &str) -> Vec<(&'static str, Answer)> {
    let email = format!("{}@example.com", Uuid::new_v4().simple());
    let mut answers = products(editor, path).await;
    answers.push(("register", editor.post("/api/auth/register", &json!({"email": email, "name": "Somebody", "password": PASSWORD})).await));
    answers.push(("sign in", editor.post("/api/auth/login", &json!({"email": ADMIN, "password": PASSWORD})).await));
    answers
}

/// Of these, those of which there may be many at once.
async fn products(editor: &Client, path: &str) -> Vec<(&'static str, Answer)> {
    vec![
        ("create", editor.post("/api/products", &json!({"name": "New"})).await),
        ("update", editor.patch(path, &json!({"name": Uuid::new_v4().to_string()})).await),
    ]
}

/// Waits until a write succeeds on every instance; how long it took. Until then they are refused clearly.
async fn written_again(editors: &[Client], path: &str, place: &str) -> Vec<Duration> {
    let coming = editors.iter().map(|editor| async move {
        let begun = Instant::now();
        loop {
            let answer = editor.patch(path, &json!({"name": Uuid::new_v4().to_string()})).await;
            if answer.status == 200 {
                return begun.elapsed();
            }
            assert_refused(&answer, place);
            assert!(begun.elapsed() < SOON, "{place}: no write in {SOON:?}");
        }
    });
    futures_util::future::join_all(coming).await
}

pub(super) async fn a_read_only_database_is_read_from_and_writes_are_503_until_it_takes_them_again(ground: Arc<Ground>) {
    let fleet = Fleet::start(&ground, &[]).await;
    let editors = editors(&fleet).await;
    let path = product(&editors[0]).await;
    on_server(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", ground.name())).await;
    close_all(&ground).await;
    for editor in &editors {
        within(SOON, "reads go on", || async { editor.get(&path).await.status == 200 }).await;
        for _ in 0..3 {
            for path in [&path, "/api/products?limit=3", "/api/products/search?q=shared", "/api/users/me", "/api/users"] {
                editor.get(path).await.expect(200);
            }
            for (what, answer) in writes(editor, &path).await {
                assert_refused(&answer, &format!("read-only: {what}"));
            }
        }
    }
    // The connections that are open stay read-only: an instance must find out by itself that they do, and not by as many refusals as it has connections.
    let filling = (0..editors.len() * POOL as usize).map(|number| editors[number % editors.len()].get("/api/users/me"));
    for answer in futures_util::future::join_all(filling).await {
        answer.expect(200);
    }
    on_server(&format!("ALTER DATABASE {} RESET default_transaction_read_only", ground.name())).await;
    // As many at once as there are connections, so that none of before can hide. One that is made now takes writes while others still refuse them.
    let begun = Instant::now();
    let burst = async || {
        let writing = (0..editors.len() * POOL as usize).map(|number| products(&editors[number % editors.len()], &path));
        let answers = futures_util::future::join_all(writing).await.into_iter().flatten();
        answers.filter(|(_, answer)| !matches!(answer.status, 200 | 201)).collect::<Vec<_>>()
    };
    within(SOON, "writes come back", || async {
        let refused = burst().await;
        refused.iter().for_each(|(what, answer)| assert_refused(answer, &format!("no longer read-only: {what}")));
        refused.is_empty()
    })
    .await;
    let back = begun.elapsed();
    assert!(back < RECOVERY + BUSY, "writes were back on all connections after {back:?}");
    let refused = burst().await;
    assert!(refused.is_empty(), "after all was well: {refused:?}");
    for (what, answer) in writes(&editors[0], &path).await {
        assert!(matches!(answer.status, 200 | 201), "{what}, after all was well: {} {}", answer.status, answer.text());
    }
}

pub(super) async fn a_database_that_closes_all_connections_costs_no_500_and_is_back_within_a_second(ground: Arc<Ground>) {
    let fleet = Fleet::start(&ground, &[]).await;
    let editors = editors(&fleet).await;
    let path = product(&editors[0]).await;
    register(&fleet.client(0), "closed@example.com").await;
    let signed = sign_in(&fleet.client(0), "closed@example.com", PASSWORD).await;
    let addresses: Vec<_> = fleet.servers.iter().map(|server| server.public).collect();
    let load = Load::start(&addresses, "/api/users/me", access(&signed), "closed@example.com");
    let mut asked = Vec::new();
    for closing in 0..CLOSINGS {
        load.reaches(30).await;
        asked.extend(load.take());
        assert!(close_all(&ground).await > 0);
        let back = written_again(&editors, &path, &format!("closing {closing}")).await;
        assert_back(back, &format!("closing {closing}, writes"));
    }
    asked.extend(load.stop().await);
    let wrong: Vec<_> = asked.iter().filter(|asked| !matches!(asked.status, 200 | 503)).collect();
    assert!(wrong.is_empty(), "{} of {}: {wrong:?}", wrong.len(), asked.len());
    let refused = asked.iter().filter(|asked| asked.status == 503).count();
    // What was under way on a connection that was closed, of six clients and five closings, and nothing beside it.
    assert!(refused <= CLOSINGS * addresses.len() * 2, "{refused} of {} were refused for {CLOSINGS} closings", asked.len());
    fleet.all_say("ok", SOON).await;
    fleet.no_connection_in_use(SOON).await;
}

pub(super) async fn a_database_without_a_free_connection_costs_503_in_time_and_is_back_within_a_second(ground: Arc<Ground>) {
    with_a_role(ground, |ground, role, url| async move {
        let fleet = Fleet::start(&ground, &[("DATABASE_URL", url.as_str())]).await;
        let editors = editors(&fleet).await;
        let path = product(&editors[0]).await;
        on_server(&format!("ALTER ROLE {role} CONNECTION LIMIT 0")).await;
        close_all(&ground).await;
        for editor in &editors {
            within(SOON, "it is noticed", || async { editor.get("/health").await.status == 503 }).await;
            for (what, answer) in writes(editor, &path).await {
                assert_refused(&answer, &format!("no connection: {what}"));
            }
            for read in [&path, "/api/products?limit=3", "/api/users/me"] {
                let begun = Instant::now();
                assert_refused(&editor.get(read).await, &format!("no connection: {read}"));
                // The server says no at once, so nobody waits for what it might say later.
                assert!(begun.elapsed() < RECOVERY + BUSY, "{read} waited {:?}", begun.elapsed());
            }
        }
        on_server(&format!("ALTER ROLE {role} CONNECTION LIMIT -1")).await;
        let back = written_again(&editors, &path, "connections again").await;
        assert_back(back, "writes");
        fleet.all_say("ok", SOON).await;
        fleet.no_connection_in_use(SOON).await;
    })
    .await;
}

/// Runs a drill as a role that owns the database and is no administrator, for whom limits of connections hold. It is gone afterwards.
async fn with_a_role<F>(ground: Arc<Ground>, drill: impl FnOnce(Arc<Ground>, String, String) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (role, password) = (format!("role_{}", ground.name()), Uuid::new_v4().simple().to_string());
    on_server(&format!("CREATE ROLE {role} LOGIN PASSWORD '{password}'")).await;
    on_server(&format!("ALTER DATABASE {} OWNER TO {role}", ground.name())).await;
    let (_, place) = ground.url.rsplit_once('@').unwrap();
    let outcome = tokio::spawn(drill(ground.clone(), role.clone(), format!("postgres://{role}:{password}@{place}"))).await;
    ground.execute(&format!("REASSIGN OWNED BY {role} TO CURRENT_USER")).await;
    on_server(&format!("DROP ROLE {role}")).await;
    if let Err(failure) = outcome {
        std::panic::resume_unwind(failure.into_panic());
    }
}
