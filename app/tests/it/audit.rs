//! The audit trail: what happened to accounts stands in it with whoever did it, and nobody takes it out.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mainstay::auth::Role;
use mainstay::store::query;
use mainstay_app::audit::{self, Actor, Entry, actions};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::ground::{Ground, PASSWORD, device};

on_both! {
    what_happens_to_an_account_is_told_with_whoever_did_it
    an_entry_exists_if_what_it_tells_was_committed
    the_trail_is_read_by_page_and_by_filter
    nobody_changes_an_entry_or_takes_a_young_one_out
    what_is_older_than_its_retention_is_swept
}

async fn entries(admin: &Client, filter: &str) -> Vec<Value> {
    admin.get(&format!("/api/audit?limit=100{filter}")).await.expect(200).data().as_array().unwrap().clone()
}

fn actions_of(entries: &[Value]) -> Vec<&str> {
    entries.iter().rev().map(|entry| entry["action"].as_str().unwrap()).collect()
}

async fn what_happens_to_an_account_is_told_with_whoever_did_it(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (admin, stranger) = (service.admin().await, service.stranger());
    let given = json!({"email": "ada@example.com", "name": "Ada", "password": PASSWORD}).to_string();
    let headers = [("content-type", "application/json"), ("user-agent", "Kettle/1.0"), ("x-request-id", "marked-request")];
    let id = stranger.ask("POST", "/api/auth/register", &headers, given.as_bytes()).await.expect(201).data()["id"].as_str().unwrap().to_owned();
    let sign_in = json!({"email": "ada@example.com", "password": PASSWORD});
    let signed = stranger.post("/api/auth/login", &sign_in).await.expect(200).data();
    let ada = stranger.with_token(signed["access_token"].as_str().unwrap());
    let path = format!("/api/users/{id}");
    ada.patch(&path, &json!({"name": "Ada King"})).await.expect(200);
    admin.client.patch(&path, &json!({"role": "editor"})).await.expect(200);
    admin.client.patch(&path, &json!({"role": "editor"})).await.expect(200);
    ada.ask("POST", "/api/auth/logout", &[], b"").await.expect(204);
    stranger.post("/api/auth/login", &sign_in).await.expect(200);
    admin.client.delete(&format!("{path}/sessions")).await.expect(204);
    admin.client.delete(&path).await.expect(204);

    let told = entries(&admin.client, &format!("&subject={id}")).await;
    let wanted = [
        "user.registered",
        "session.opened",
        "user.renamed",
        "user.role_changed",
        "session.ended",
        "session.opened",
        "session.all_ended",
        "user.removed",
    ];
    assert_eq!(actions_of(&told), wanted, "also after the account is gone, and a change to the same is none");
    let first = told.last().unwrap();
    assert_eq!((&first["actor_kind"], &first["actor"]), (&json!("stranger"), &Value::Null));
    assert_eq!([&first["address"], &first["user_agent"], &first["request_id"]], ["127.0.0.1", "Kettle/1.0", "marked-request"]);
    let role = told.iter().find(|entry| entry["action"] == "user.role_changed").unwrap();
    assert_eq!((&role["actor_kind"], &role["actor"]), (&json!("person"), &json!(admin.id)));
    assert_eq!(role["detail"], json!({"from": "user", "to": "editor"}));
    let text = Value::from(told).to_string();
    for secret in [PASSWORD, "ada@example.com", "Ada", signed["refresh_token"].as_str().unwrap(), "argon2"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

async fn an_entry_exists_if_what_it_tells_was_committed(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (admin, twin) = (service.admin().await.client, json!({"email": "twin@example.com", "name": "Twin", "password": PASSWORD}));
    service.stranger().post("/api/auth/register", &twin).await.expect(201);
    service.stranger().post("/api/auth/register", &twin).await.expect(409);
    assert_eq!(entries(&admin, "&action=user.registered").await.len(), 1);
    let account = service.account(Role::User).await;
    // The session cannot be ended any more, so that it was is not told again.
    for _ in 0..2 {
        service.stranger().post("/api/auth/logout", &json!({"refresh_token": account.refresh_token})).await.expect(204);
    }
    assert_eq!(entries(&admin, &format!("&action=session.ended&subject={}", account.id)).await.len(), 1);
}

async fn the_trail_is_read_by_page_and_by_filter(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let admin = service.admin().await;
    let others: Vec<_> = [service.account(Role::User).await.id, service.account(Role::User).await.id].into();
    let database = ground.database().await;
    for number in 0..25 {
        let entry = Entry::new(Actor::Key { account: others[number % 2], key: Uuid::new_v4() }, actions::USER_RENAMED)
            .about(others[0])
            .from(&device())
            .with(json!({"number": number}));
        let mut transaction = database.begin(None).await.unwrap();
        audit::record(&mut transaction, entry, Timestamp::now()).await.unwrap();
        transaction.commit().await.unwrap();
    }
    database.close(Duration::from_secs(5)).await;
    let (mut next, mut numbers) = (format!("/api/audit?limit=4&action=user.renamed&actor={}", others[1]), Vec::new());
    loop {
        let answer = admin.client.get(&next).await.expect(200);
        numbers.extend(answer.data().as_array().unwrap().iter().map(|entry| entry["detail"]["number"].as_i64().unwrap()));
        let Some(link) = answer.header("link") else { break };
        next = link.split(['<', '>']).nth(1).unwrap().to_owned();
    }
    assert_eq!(numbers, [23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1]);
    assert_eq!(actions_of(&entries(&admin.client, &format!("&subject={}", others[1])).await), ["user.created", "session.opened"]);
    assert_eq!(entries(&admin.client, &format!("&subject={}", Uuid::new_v4())).await.len(), 0);
    for (query, field) in
        [("actor=7", "actor"), ("subject=%7B%7D", "subject"), ("action=user", "action"), ("action=a.b'", "action"), ("cursor=!", "cursor")]
    {
        admin.client.get(&format!("/api/audit?{query}")).await.names(field);
    }
    service.account(Role::Editor).await.client.get("/api/audit").await.expect(403);
}

async fn nobody_changes_an_entry_or_takes_a_young_one_out(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    service.account(Role::User).await;
    let before = ground.number("SELECT count(*) AS n FROM audit").await;
    let database = ground.database().await;
    let mut statements =
        vec!["UPDATE audit SET action = 'nothing.happened'", "UPDATE audit SET detail = detail", "DELETE FROM audit", "DELETE FROM audit_horizon"];
    if ground.url.starts_with("postgres") {
        statements.extend(["TRUNCATE audit", "TRUNCATE audit_horizon", "UPDATE audit_horizon SET before = now() - interval '29 days'"]);
    } else {
        statements.push("UPDATE audit_horizon SET before = (unixepoch() - 29 * 86400) * 1000000");
    }
    for statement in statements {
        let refused = query(statement).once().execute(&mut database.writer(None).await.unwrap()).await;
        assert!(refused.is_err(), "{statement}");
    }
    assert!(audit::sweep(&database, Timestamp::now()).await.is_err(), "the sweep neither");
    database.close(Duration::from_secs(5)).await;
    assert_eq!(ground.number("SELECT count(*) AS n FROM audit").await, before);
}

async fn what_is_older_than_its_retention_is_swept(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (now, day) = (Timestamp::now(), Duration::from_secs(86_400));
    let database = &service.app.database;
    let mut transaction = database.begin(None).await.unwrap();
    for age in [400, 366, 364, 40] {
        let entry = Entry::new(Actor::CommandLine, actions::USER_REMOVED).with(json!({"age": age}));
        audit::record(&mut transaction, entry, now - day * age).await.unwrap();
    }
    transaction.commit().await.unwrap();
    assert_eq!(audit::sweep(database, now - day * 365).await.unwrap(), 2);
    // An instance that keeps more, or whose clock is behind, moves nothing back.
    assert_eq!(audit::sweep(database, now - day * 500).await.unwrap(), 0);
    assert_eq!(audit::sweep(database, now - day * 365).await.unwrap(), 0);
    let kept = entries(&service.admin().await.client, "&action=user.removed").await;
    assert_eq!(kept.iter().map(|entry| entry["detail"]["age"].as_i64().unwrap()).collect::<Vec<_>>(), [40, 364]);
}
