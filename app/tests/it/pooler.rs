//! The service behind PgBouncer: in transaction mode as declared, and what happens when nobody declared it. The tests of the resources that must hold there
//! stand beside them (`through_pooler!`).

use std::sync::Arc;
use std::time::Duration;

use mainstay::auth::Role;
use serde_json::json;

use crate::client::Client;
use crate::ground::{Ground, within};
use crate::process::{Server, run};

const PATIENCE: Duration = Duration::from_secs(10);

through_pooler! {
    sixty_four_clients_share_four_connections_of_the_server
    only_what_goes_past_the_pooler_counts_for_the_server
}

on_postgres! {
    a_pooler_without_a_way_past_it_does_not_start
    a_pooler_that_nobody_declared_is_told_of
}

async fn sixty_four_clients_share_four_connections_of_the_server(ground: Arc<Ground>) {
    let service = ground.start(&[("DB_POOL_MAX", "64"), ("CACHE_SIZE", "0")]).await;
    let editor = service.account(Role::Editor).await.client;
    let clients = (0..64).map(|client| {
        let editor = editor.clone();
        tokio::spawn(async move {
            for round in 0..5 {
                let name = format!("Kettle {client} {round}");
                let path = editor.post("/api/products", &json!({"name": name})).await.expect(201).header("location").unwrap().to_owned();
                editor.get("/api/products?limit=5").await.expect(200);
                let changed = editor.patch(&path, &json!({"manufacturer": "Somebody"})).await.expect(200).data();
                assert_eq!((&changed["name"], &changed["version"]), (&json!(name), &json!(2)));
                assert_eq!(editor.get(&path).await.expect(200).data()["name"], name.as_str());
                editor.delete(&path).await.expect(204);
                editor.get(&path).await.expect(404);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let backends = format!("SELECT count(*) AS n FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()", ground.name());
    // Beside the pooler's four there is the one that listens.
    assert!(ground.number(&backends).await <= 5);
    within(PATIENCE, "nothing is left in a transaction", || async { ground.number(&format!("{backends} AND state LIKE 'idle in%'")).await == 0 })
        .await;
    within(PATIENCE, "all connections are back", || async { service.app.database.stats().in_use == 0 }).await;
}

async fn only_what_goes_past_the_pooler_counts_for_the_server(ground: Arc<Ground>) {
    // Twenty times fifty connections to the pooler are no matter of a server that has a hundred.
    drop(ground.start(&[("INSTANCES", "20"), ("DB_POOL_MAX", "50")]).await);
    let output = run(&ground.pairs(&[("INSTANCES", "10000")]), &["serve"], b"");
    assert_eq!(output.status.code(), Some(69));
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("10000 instances x (0 connections + 1 that listens) = 10000"), "{said}");
}

async fn a_pooler_without_a_way_past_it_does_not_start(ground: Arc<Ground>) {
    let output = run(&ground.pairs(&[("DATABASE_POOLER", "transaction")]), &["serve"], b"");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("DATABASE_DIRECT_URL is required with DATABASE_POOLER=transaction"), "{said}");
}

async fn a_pooler_that_nobody_declared_is_told_of(ground: Arc<Ground>) {
    let pooler = std::env::var("TEST_PGBOUNCER_SESSION_URL").expect("TEST_PGBOUNCER_SESSION_URL is not set: scripts/test starts a PgBouncer");
    let url = format!("{}/{}", pooler.rsplit_once('/').unwrap().0, ground.name());
    let server = Server::start(&ground.pairs(&[("DATABASE_URL", &url), ("LOG_FORMAT", "json")]));
    let warned = "the database does not keep the limits of our connections";
    within(PATIENCE, "the log tells of it", || async { server.log().contains(warned) }).await;
    let management = Client::new(server.management);
    within(PATIENCE, "news are heard", || async { management.get("/health").await.text().contains("\"standing\":\"live\"") }).await;
    let details = management.get("/health").await;
    let details: serde_json::Value = serde_json::from_str(&details.text()).unwrap();
    assert_eq!(details["database"]["limits_hold"], false, "{details}");
    assert_eq!(details["status"], "degraded", "{details}");
    // This one has sessions, so all is right but the limits.
    assert_eq!(details["standing"], "live", "{details}");
    server.client().get("/api/products").await.expect(200);
}
