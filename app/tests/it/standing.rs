//! What ends on one instance ends on all of them at once, and costs the requests in between no query.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::auth::Role;
use mainstay::news::Hearing;
use mainstay::testing::{Fault, FaultProxy};
use serde_json::json;
use uuid::Uuid;

use crate::client::Client;
use crate::ground::{ADMIN, Account, Ground, PASSWORD, Service, server_address, within};
use crate::process::Server;

on_both! {
    a_thousand_signed_in_requests_ask_for_their_standing_about_once
}

mod only {
    use super::*;
    on_postgres! {
        what_ends_on_one_instance_is_refused_by_the_other_at_once
        one_token_used_on_two_instances_at_once_has_one_successor
        an_instance_that_is_cut_off_believes_nothing_for_long
        an_instance_behind_a_silent_connection_believes_nothing_for_long
        a_listener_that_is_killed_comes_back_and_has_missed_nothing
    }
}

const RECOVERY: Duration = Duration::from_secs(10);

/// Two instances over one database.
pub(crate) async fn two(ground: &Ground) -> (Service, Service) {
    let folder = ground.file("other").display().to_string();
    let (one, other) = (ground.start(&[]).await, ground.start(&[("DATA_DIR", &folder)]).await);
    for service in [&one, &other] {
        hears(service).await;
    }
    (one, other)
}

async fn hears(service: &Service) {
    within(RECOVERY, "the instance hears", || async { service.app.auth.hearing() == Hearing::Live }).await;
}

async fn a_thousand_signed_in_requests_ask_for_their_standing_about_once(ground: Arc<Ground>) {
    let server = Server::start(&ground.pairs(&[]));
    let signed = server.client().post("/api/auth/login", &json!({"email": ADMIN, "password": PASSWORD})).await.expect(200).data();
    let me = server.client().with_token(signed["access_token"].as_str().unwrap());
    let management = Client::new(server.management);
    let counted = async |name: &str| {
        let text = management.get("/metrics").await.expect(200).text();
        let values = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum::<f64>()
    };
    let before = (counted("mainstay_standing_reads_total").await, counted("mainstay_db_acquired_total").await);
    let begun = Instant::now();
    for _ in 0..1_000 {
        // Who is asking is asked first; what it is that is asked for needs no database.
        me.get("/api/users/none").await.expect(400);
    }
    let took_s = begun.elapsed().as_secs_f64();
    let (reads, acquired) = (counted("mainstay_standing_reads_total").await - before.0, counted("mainstay_db_acquired_total").await - before.1);
    // Once in five seconds; and on a machine that is too busy for heartbeats, once in a quarter of a second.
    assert!(reads >= 1.0 && reads <= 2.0 + took_s * 4.0 && reads < 100.0, "{reads} reads in {took_s} s");
    // The search index looks for changes with two connections every fifth of a second.
    assert!(acquired - reads <= 20.0 + took_s * 20.0, "{acquired} connections in {took_s} s, {reads} for standings");
}

async fn what_ends_on_one_instance_is_refused_by_the_other_at_once(ground: Arc<Ground>) {
    let (one, other) = two(&ground).await;
    let admin = one.admin().await.client;
    let elsewhere = |account: &Account| other.stranger().with_token(account.client.token());
    for round in 0..5 {
        for way in ["logout", "logout-all", "session", "sessions", "account", "reuse"] {
            let account = one.account(Role::User).await;
            let there = elsewhere(&account);
            there.get("/api/users/me").await.expect(200);
            account.client.get("/api/users/me").await.expect(200);
            match way {
                "logout" | "logout-all" => account.client.ask("POST", &format!("/api/auth/{way}"), &[], b"").await.expect(204),
                "session" => account.client.delete(&format!("/api/auth/sessions/{}", account.session)).await.expect(204),
                "sessions" => admin.delete(&format!("/api/users/{}/sessions", account.id)).await.expect(204),
                "account" => admin.delete(&format!("/api/users/{}", account.id)).await.expect(204),
                _ => one.stranger().post("/api/auth/logout", &json!({"refresh_token": account.refresh_token})).await.expect(204),
            };
            // PostgreSQL signals both listeners together and one has heard: what is left is that the other's task is run.
            let begun = Instant::now();
            within(Duration::from_millis(250), way, || async { there.get("/api/users/me").await.status == 401 }).await;
            assert!(begun.elapsed() < Duration::from_millis(500), "round {round}, {way}: {:?}", begun.elapsed());
            account.client.get("/api/users/me").await.expect(401);
        }
    }
    // A role is a standing too, and a change by hand is heard like any other.
    let account = one.account(Role::User).await;
    let there = elsewhere(&account);
    there.post("/api/products", &json!({"name": "x"})).await.expect(403);
    admin.patch(&format!("/api/users/{}", account.id), &json!({"role": "editor"})).await.expect(200);
    within(Duration::from_millis(250), "the role", || async { there.post("/api/products", &json!({"name": "x"})).await.status == 201 }).await;
    ground.execute(&format!("UPDATE users SET disabled_at = now() WHERE id = '{}'", account.id)).await;
    within(Duration::from_millis(250), "disabled", || async { there.get("/api/users/me").await.status == 401 }).await;
    // Long after the wait, nothing that was known before has come back.
    there.get("/api/users/me").await.expect(401);
}

async fn one_token_used_on_two_instances_at_once_has_one_successor(ground: Arc<Ground>) {
    let (one, other) = two(&ground).await;
    let account = one.account(Role::User).await;
    let asked = (0..20).map(|number| {
        let client = if number % 2 == 0 { one.stranger() } else { other.stranger() };
        let given = json!({"refresh_token": account.refresh_token});
        tokio::spawn(async move { client.post("/api/auth/refresh", &given).await.expect(200).data()["refresh_token"].as_str().unwrap().to_owned() })
    });
    let mut successors = std::collections::HashSet::new();
    for asked in asked.collect::<Vec<_>>() {
        successors.insert(asked.await.unwrap());
    }
    assert_eq!(successors.len(), 1);
    assert_eq!(ground.number("SELECT count(*) AS n FROM refresh_tokens WHERE used_at IS NULL").await, 1);
}

async fn an_instance_that_is_cut_off_believes_nothing_for_long(ground: Arc<Ground>) {
    cut_off(ground, Fault::Reset).await;
}

async fn an_instance_behind_a_silent_connection_believes_nothing_for_long(ground: Arc<Ground>) {
    cut_off(ground, Fault::Blackhole).await;
}

/// Two instances over one database, of which the other reaches it through a network that can fail.
pub(crate) async fn one_behind_a_proxy(ground: &Ground, pairs: &[(&str, &str)]) -> (Service, Service, FaultProxy) {
    let proxy = FaultProxy::start(server_address()).await.unwrap();
    let url = ground.url.replacen(&server_address().to_string(), &proxy.address().to_string(), 1);
    let folder = ground.file("other").display().to_string();
    let one = ground.start(&[]).await;
    let own = [("DATA_DIR", folder.as_str()), ("DATABASE_URL", url.as_str()), ("REQUEST_TIMEOUT", "1s"), ("DB_ACQUIRE_TIMEOUT", "1s")];
    let other = ground.start(&[&own, pairs].concat()).await;
    hears(&other).await;
    (one, other, proxy)
}

async fn cut_off(ground: Arc<Ground>, fault: Fault) {
    let (one, other, proxy) = one_behind_a_proxy(&ground, &[]).await;
    let account = one.account(Role::User).await;
    let there = other.stranger().with_token(account.client.token());
    // Without a database: an id that is none is refused after the caller is known.
    let known = || async { there.get("/api/users/none").await.status };
    assert_eq!(known().await, 400);
    proxy.set(fault);
    account.client.ask("POST", "/api/auth/logout", &[], b"").await.expect(204);
    let begun = Instant::now();
    let mut last = None;
    while begun.elapsed() < Duration::from_secs(4) {
        let asked = begun.elapsed();
        match known().await {
            400 => last = Some(asked),
            503 | 504 => {}
            other => panic!("{other}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A proof of life is good for a second.
    assert!(last.is_none_or(|last| last < Duration::from_millis(1_500)), "{fault:?}: believed for {last:?}");
    assert_eq!(other.app.auth.hearing(), Hearing::Lost);
    proxy.set(Fault::Ok);
    hears(&other).await;
    within(RECOVERY, "it knows", || async { known().await == 401 }).await;
}

async fn a_listener_that_is_killed_comes_back_and_has_missed_nothing(ground: Arc<Ground>) {
    let (one, other) = two(&ground).await;
    for _ in 0..3 {
        let account = one.account(Role::User).await;
        let there = other.stranger().with_token(account.client.token());
        there.get("/api/users/me").await.expect(200);
        // The listeners of both; and the change in the moment in which nobody listens, by a hand that waits for nobody.
        let killed = ground
            .execute(&format!(
                "UPDATE sessions SET revoked_at = now(), revoked_because = 'by hand' WHERE id = '{}' AND 0 < (SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE datname = current_database() AND (query LIKE 'SELECT pg_current_snapshot%' OR query LIKE 'LISTEN%') AND pid <> pg_backend_pid())",
                account.session
            ))
            .await;
        assert_eq!(killed, 1, "there were listeners");
        within(Duration::from_secs(2), "it is refused", || async { there.get("/api/users/me").await.status == 401 }).await;
        for service in [&one, &other] {
            hears(service).await;
        }
    }
    let nobody = one.app.auth.tokens().issue(Uuid::new_v4(), Uuid::new_v4(), Role::Admin, one.app.clock().now());
    let nobody = other.stranger().with_token(secrecy::ExposeSecret::expose_secret(&nobody));
    nobody.get("/api/users/me").await.expect(401);
}
