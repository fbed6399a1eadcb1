//! API keys: made, used, bounded, and refused everywhere once they have ended. Who may do what by which scope stands in `strangers.rs`.

use std::sync::Arc;
use std::time::Duration;

use mainstay::auth::Role;
use mainstay_app::api_keys::KEYS;
use ring::rand::SystemRandom;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::client::Client;
use crate::ground::{Account, Ground, Time, within};

on_both! {
    a_key_is_shown_once_used_seen_and_revoked
    a_key_does_no_more_than_its_account_and_stops_with_it
    a_key_ends_when_it_was_said
    what_is_no_key_is_refused_in_one_way
    an_account_has_fifty_keys_also_when_they_are_made_at_once
    what_a_key_is_made_of_is_checked
    a_key_makes_sees_and_revokes_no_key_and_ends_no_session
    many_requests_by_a_key_cost_about_one_query
}

through_pooler! {
    a_key_is_shown_once_used_seen_and_revoked
    an_account_has_fifty_keys_also_when_they_are_made_at_once
}

mod only {
    use super::*;
    on_postgres! {
        a_key_that_is_revoked_on_one_instance_is_refused_by_the_other_at_once
    }
}

/// Makes a key of an account; its id, and a client that has it.
pub(crate) async fn key(account: &Account, scopes: &[&str]) -> (String, Client) {
    let made = account.client.post("/api/auth/keys", &json!({"name": "A machine", "scopes": scopes})).await.expect(201).data();
    (made["id"].as_str().unwrap().to_owned(), account.client.with_token(made["key"].as_str().unwrap()))
}

#[track_caller]
fn refused(answer: &crate::client::Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_token"), "{}", answer.text());
    assert_eq!(answer.header("www-authenticate"), Some(r#"Bearer error="invalid_token""#));
}

async fn a_key_is_shown_once_used_seen_and_revoked(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let account = service.account(Role::User).await;
    let given = json!({"name": "Nightly import", "scopes": ["account:write", "read"]});
    let made = account.client.post("/api/auth/keys", &given).await.expect(201);
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let (key, id) = (made.data()["key"].as_str().unwrap().to_owned(), made.data()["id"].as_str().unwrap().to_owned());
    assert!(KEYS.parse(&key).is_some() && key.starts_with(made.data()["begins"].as_str().unwrap()), "{key}");
    let listed = async || account.client.get("/api/auth/keys").await.expect(200).data();
    let shown = listed().await;
    assert_eq!(
        (shown.as_array().unwrap().len(), &shown[0]["name"], &shown[0]["scopes"]),
        (1, &json!("Nightly import"), &json!(["read", "account:write"]))
    );
    assert!(shown[0]["last_used_at"].is_null() && shown[0]["key"].is_null());
    assert!(!shown.to_string().contains(&key[13..]), "{shown}");
    let machine = account.client.with_token(&key);
    assert_eq!(machine.get("/api/users/me").await.expect(200).data()["id"], json!(account.id));
    within(Duration::from_secs(5), "the use is noted", || async { listed().await[0]["last_used_at"].is_string() }).await;
    assert_eq!(ground.number("SELECT count(*) AS n FROM api_keys WHERE length(hash) = 64").await, 1);
    assert_eq!(ground.number("SELECT count(*) AS n FROM jobs WHERE unique_key LIKE 'key_made:%'").await, 1, "its owner is told");
    let somebody = service.account(Role::Admin).await.client;
    let path = format!("/api/auth/keys/{id}");
    assert_eq!(somebody.delete(&path).await.expect(404).code(), "key_not_found");
    account.client.delete(&path).await.expect(204);
    refused(&machine.get("/api/users/me").await);
    assert_eq!(account.client.delete(&path).await.expect(404).code(), "key_not_found");
    assert_eq!(listed().await, json!([]));
    let told = format!("SELECT count(*) AS n FROM audit WHERE action IN ('key.made', 'key.revoked') AND subject = '{}'", account.id);
    assert_eq!(ground.number(&told).await, 2);
}

async fn a_key_does_no_more_than_its_account_and_stops_with_it(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let admin = service.admin().await.client;
    let account = service.account(Role::Editor).await;
    let (_, machine) = key(&account, &["read", "products:write"]).await;
    let write = async || machine.post("/api/products", &json!({"name": "x"})).await;
    write().await.expect(201);
    let path = format!("/api/users/{}", account.id);
    admin.patch(&path, &json!({"role": "user"})).await.expect(200);
    assert_eq!(write().await.expect(403).code(), "forbidden");
    admin.patch(&path, &json!({"role": "admin"})).await.expect(200);
    write().await.expect(201);
    // An administrator's key without that scope sees what a user sees.
    assert_eq!(machine.get("/api/users").await.expect(403).code(), "insufficient_scope");
    let other = service.account(Role::User).await;
    assert_eq!(machine.get(&format!("/api/users/{}", other.id)).await.expect(403).code(), "forbidden");
    assert_eq!(ground.number("SELECT count(*) AS n FROM audit WHERE action = 'user.role_changed' AND actor_kind = 'person'").await, 2);
    // Signing out is for sessions; an account that is taken out of the wrong hands loses its keys too.
    account.client.ask("POST", "/api/auth/logout-all", &[], b"").await.expect(204);
    write().await.expect(201);
    admin.delete(&format!("{path}/sessions")).await.expect(204);
    refused(&write().await);
    let again = service.signed_in(account.id).await;
    let (_, machine) = key(&again, &["read"]).await;
    machine.get("/api/users/me").await.expect(200);
    admin.delete(&path).await.expect(204);
    refused(&machine.get("/api/users/me").await);
    assert_eq!(ground.number("SELECT count(*) AS n FROM api_keys").await, 0);
}

async fn a_key_ends_when_it_was_said(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[]).await;
    let account = service.account(Role::User).await;
    let given = json!({"name": "Short", "scopes": ["read"], "expires_in_days": 1});
    let made = account.client.post("/api/auth/keys", &given).await.expect(201).data();
    let (short, (_, usual)) = (account.client.with_token(made["key"].as_str().unwrap()), key(&account, &["read"]).await);
    short.get("/api/users/me").await.expect(200);
    time.pass(86_400 - 1);
    short.get("/api/users/me").await.expect(200);
    time.pass(1);
    refused(&short.get("/api/users/me").await);
    usual.get("/api/users/me").await.expect(200);
    time.pass(89 * 86_400);
    refused(&usual.get("/api/users/me").await);
}

async fn what_is_no_key_is_refused_in_one_way(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let account = service.account(Role::User).await;
    let (id, machine) = key(&account, &["read"]).await;
    let right = machine.token().to_owned();
    machine.get("/api/users/me").await.expect(200);
    let unknown = KEYS.make(&SystemRandom::new()).unwrap().text().expose_secret().to_owned();
    for bad in [unknown.as_str(), "msk_", "msk_4fGh71Lp", &right[..61], &right.replace("msk_", "mrt_"), &format!("{right}0"), &right.to_lowercase()] {
        refused(&account.client.with_token(bad).get("/api/users/me").await);
    }
    service.stranger().ask("GET", "/api/users/me", &[("authorization", &format!("Basic {right}"))], b"").await.expect(401);
    // Revoked, remembered or not.
    account.client.delete(&format!("/api/auth/keys/{id}")).await.expect(204);
    refused(&machine.get("/api/users/me").await);
    service.end().await;
    let service = ground.start(&[]).await;
    refused(&service.stranger().with_token(right).get("/api/users/me").await);
}

async fn an_account_has_fifty_keys_also_when_they_are_made_at_once(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let account = service.account(Role::User).await;
    let given = json!({"name": "One of many", "scopes": ["read"]});
    for _ in 0..48 {
        account.client.post("/api/auth/keys", &given).await.expect(201);
    }
    let asked = (0..6).map(|_| {
        let (client, given) = (account.client.clone(), given.clone());
        tokio::spawn(async move { client.post("/api/auth/keys", &given).await })
    });
    let mut made = 0;
    for asked in asked.collect::<Vec<_>>() {
        let answer = asked.await.unwrap();
        if answer.status == 201 {
            made += 1;
        } else {
            assert_eq!(answer.expect(409).code(), "too_many_keys");
        }
    }
    assert_eq!(made, 2);
    let listed: Value = account.client.get("/api/auth/keys").await.expect(200).data();
    assert_eq!(listed.as_array().unwrap().len(), 50);
    // Who revokes one has room for another, and what has ended does not pile up.
    for _ in 0..60 {
        let id = account.client.get("/api/auth/keys").await.data()[0]["id"].as_str().unwrap().to_owned();
        account.client.delete(&format!("/api/auth/keys/{id}")).await.expect(204);
        account.client.post("/api/auth/keys", &given).await.expect(201);
    }
    assert_eq!(ground.number("SELECT count(*) AS n FROM api_keys").await, 100);
}

async fn what_a_key_is_made_of_is_checked(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let user = service.account(Role::User).await.client;
    for (field, value) in [
        ("name", json!(" ")),
        ("name", json!("x".repeat(101))),
        ("name", json!("a\u{1b}b")),
        ("scopes", json!([])),
        ("scopes", json!(["read", "read", "read", "read", "read"])),
        ("scopes", json!(["products:write"])),
        ("scopes", json!(["read", "admin"])),
        ("scopes[0]", json!(["write"])),
        ("expires_in_days", json!(0)),
        ("expires_in_days", json!(366)),
        ("expires_in_days", json!(-1)),
        ("colour", json!("red")),
    ] {
        let mut given = json!({"name": "A machine", "scopes": ["read"]});
        given[field.split('[').next().unwrap()] = value;
        user.post("/api/auth/keys", &given).await.names(field);
    }
    let editor = service.account(Role::Editor).await.client;
    editor.post("/api/auth/keys", &json!({"name": "x", "scopes": ["products:write"], "expires_in_days": null})).await.expect(201);
    assert_eq!(editor.delete("/api/auth/keys/7").await.expect(400).json()["message"], "Invalid key ID format");
}

async fn a_key_makes_sees_and_revokes_no_key_and_ends_no_session(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let account = service.account(Role::Admin).await;
    let (id, machine) = key(&account, &["read", "account:write", "products:write", "admin"]).await;
    let (keys, sessions) = ("/api/auth/keys", "/api/auth/sessions");
    let answers = [
        machine.get(keys).await,
        machine.post(keys, &json!({"name": "Another", "scopes": ["read"]})).await,
        machine.delete(&format!("{keys}/{id}")).await,
        machine.get(sessions).await,
        machine.delete(&format!("{sessions}/{}", account.session)).await,
        machine.ask("POST", "/api/auth/logout", &[], b"").await,
        machine.ask("POST", "/api/auth/logout-all", &[], b"").await,
        machine.get("/api/auth/totp").await,
    ];
    for answer in answers {
        assert_eq!(answer.expect(403).code(), "person_required");
    }
    account.client.get("/api/users/me").await.expect(200);
}

async fn many_requests_by_a_key_cost_about_one_query(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let account = service.account(Role::User).await;
    let (_, machine) = key(&account, &["read"]).await;
    let before = service.app.auth.asked();
    let begun = std::time::Instant::now();
    for _ in 0..200 {
        // Who is asking is asked first; what it is that is asked for needs no database.
        machine.get("/api/users/none").await.expect(400);
    }
    let asked = service.app.auth.asked() - before;
    // Once in five seconds; and on a machine that is too busy for heartbeats, once in a quarter of a second.
    assert!(asked as f64 <= 2.0 + begun.elapsed().as_secs_f64() * 4.0 && asked < 100, "{asked} in {:?}", begun.elapsed());
    assert_eq!(ground.number("SELECT count(*) AS n FROM api_keys WHERE last_used_at IS NOT NULL").await, 1);
}

async fn a_key_that_is_revoked_on_one_instance_is_refused_by_the_other_at_once(ground: Arc<Ground>) {
    let (one, other) = crate::standing::two(&ground).await;
    let admin = one.admin().await.client;
    for way in ["key", "sessions", "role", "account"] {
        let account = one.account(Role::Editor).await;
        let (id, here) = key(&account, &["read", "products:write"]).await;
        let there = other.stranger().with_token(here.token());
        let write = async |client: &Client| client.post("/api/products", &json!({"name": "x"})).await.status;
        assert_eq!((write(&here).await, write(&there).await), (201, 201));
        let path = format!("/api/users/{}", account.id);
        match way {
            "key" => account.client.delete(&format!("/api/auth/keys/{id}")).await.expect(204),
            "sessions" => admin.delete(&format!("{path}/sessions")).await.expect(204),
            "account" => admin.delete(&path).await.expect(204),
            _ => admin.patch(&path, &json!({"role": "user"})).await.expect(200),
        };
        let wanted = if way == "role" { 403 } else { 401 };
        assert_eq!(write(&here).await, wanted, "{way}");
        within(Duration::from_millis(250), way, || async { write(&there).await == wanted }).await;
    }
}
