//! Sessions and their refresh tokens: opened, kept alive, seen, ended, and never two tokens waiting in one of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use mainstay::auth::Role;
use mainstay_app::sessions;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::ground::{ADMIN, Ground, PASSWORD, Time, device};

mod model;

on_both! {
    a_session_is_opened_refreshed_seen_and_ended
    twenty_uses_of_one_refresh_token_at_once_leave_one_successor
    a_lost_answer_signs_nobody_out_and_a_late_reuse_ends_the_session
    whoever_signs_out_is_out_with_both_tokens
    nobody_sees_or_ends_the_session_of_another_but_an_administrator
    the_session_used_longest_ago_gives_way_to_one_too_many
    a_session_ends_when_it_is_not_refreshed_and_at_its_greatest_age
    a_rotation_that_dies_between_its_steps_has_not_happened
    what_is_no_refresh_token_is_refused_in_one_way
    ended_sessions_are_swept_and_living_ones_are_not
}

through_pooler! {
    a_session_is_opened_refreshed_seen_and_ended
    twenty_uses_of_one_refresh_token_at_once_leave_one_successor
    a_lost_answer_signs_nobody_out_and_a_late_reuse_ends_the_session
    whoever_signs_out_is_out_with_both_tokens
    nobody_sees_or_ends_the_session_of_another_but_an_administrator
    the_session_used_longest_ago_gives_way_to_one_too_many
    a_session_ends_when_it_is_not_refreshed_and_at_its_greatest_age
    a_rotation_that_dies_between_its_steps_has_not_happened
    what_is_no_refresh_token_is_refused_in_one_way
    ended_sessions_are_swept_and_living_ones_are_not
}

async fn refresh(client: &Client, token: &str) -> Answer {
    client.post("/api/auth/refresh", &json!({"refresh_token": token})).await
}

async fn refreshed(client: &Client, token: &str) -> (Client, String) {
    let signed = refresh(client, token).await.expect(200).data();
    (client.with_token(signed["access_token"].as_str().unwrap()), signed["refresh_token"].as_str().unwrap().to_owned())
}

#[track_caller]
fn refused(answer: Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_refresh_token"), "{}", answer.text());
    assert!(answer.header("www-authenticate").is_some());
}

async fn a_session_is_opened_refreshed_seen_and_ended(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let stranger = service.stranger();
    let given = json!({"email": ADMIN, "password": PASSWORD}).to_string();
    let headers = [("content-type", "application/json"), ("user-agent", "Kettle/1.0")];
    let signed = stranger.ask("POST", "/api/auth/login", &headers, given.as_bytes()).await.expect(200).data();
    // A second may pass between the sign-in and its answer.
    let left_s = signed["refresh_expires_in"].as_u64().unwrap();
    assert!((30 * 86_400 - 1..=30 * 86_400).contains(&left_s), "{left_s}");
    let first = signed["refresh_token"].as_str().unwrap();
    assert!(first.starts_with("mrt_") && first.len() == 47, "{first}");
    let answer = refresh(&stranger, first).await.expect(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let (again, before) = (answer.data(), stranger.with_token(signed["access_token"].as_str().unwrap()));
    assert_eq!((&again["user"], &again["token_type"], &again["expires_in"]), (&signed["user"], &json!("Bearer"), &json!(900)));
    let me = stranger.with_token(again["access_token"].as_str().unwrap());
    before.get("/api/users/me").await.expect(200);
    let listed = me.get("/api/auth/sessions").await.expect(200).data();
    assert_eq!(listed.as_array().unwrap().len(), 1, "refreshing makes no session: {listed}");
    assert_eq!((&listed[0]["current"], &listed[0]["address"], &listed[0]["user_agent"]), (&json!(true), &json!("127.0.0.1"), &Value::Null));
    let other = stranger.post("/api/auth/login", &json!({"email": ADMIN, "password": PASSWORD})).await.expect(200).data();
    let other = stranger.with_token(other["access_token"].as_str().unwrap());
    let listed = other.get("/api/auth/sessions").await.expect(200).data();
    let current: Vec<_> = listed.as_array().unwrap().iter().map(|session| session["current"].as_bool().unwrap()).collect();
    assert_eq!(current, [true, false], "the one used last first");
    let ended = format!("/api/auth/sessions/{}", listed[1]["id"].as_str().unwrap());
    other.delete(&ended).await.expect(204);
    assert_eq!(other.delete(&ended).await.expect(404).code(), "session_not_found");
    for client in [&before, &me] {
        assert_eq!(client.get("/api/users/me").await.expect(401).code(), "invalid_token");
    }
    refused(refresh(&stranger, again["refresh_token"].as_str().unwrap()).await);
    other.get("/api/users/me").await.expect(200);
    let hidden = ground.number("SELECT count(*) AS n FROM refresh_tokens WHERE hash LIKE 'mrt%' OR successor LIKE 'mrt%'").await;
    assert_eq!(hidden, 0, "no token is stored");
}

async fn twenty_uses_of_one_refresh_token_at_once_leave_one_successor(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let account = service.account(Role::User).await;
    let mut token = account.refresh_token;
    for _ in 0..3 {
        let asked = (0..20).map(|_| {
            let (client, token) = (service.stranger(), token.clone());
            tokio::spawn(async move { refreshed(&client, &token).await })
        });
        let mut successors = HashSet::new();
        for asked in asked.collect::<Vec<_>>() {
            let (client, successor) = asked.await.unwrap();
            client.get("/api/users/me").await.expect(200);
            successors.insert(successor);
        }
        assert_eq!(successors.len(), 1);
        token = successors.into_iter().next().unwrap();
        assert_eq!(ground.number("SELECT count(*) AS n FROM refresh_tokens WHERE used_at IS NULL").await, 1);
        assert_eq!(ground.number("SELECT count(*) AS n FROM sessions WHERE revoked_at IS NULL").await, 1);
    }
}

async fn a_lost_answer_signs_nobody_out_and_a_late_reuse_ends_the_session(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[]).await;
    let (account, client) = (service.account(Role::User).await, service.stranger());
    let (_, second) = refreshed(&client, &account.refresh_token).await;
    time.pass(9);
    let (me, again) = refreshed(&client, &account.refresh_token).await;
    assert_eq!(again, second);
    let (_, third) = refreshed(&client, &second).await;
    // The first one's window has ended, whatever happened in it.
    time.pass(1);
    refused(refresh(&client, &account.refresh_token).await);
    for token in [&account.refresh_token, &second, &third] {
        refused(refresh(&client, token).await);
    }
    me.get("/api/users/me").await.expect(401);
    account.client.get("/api/users/me").await.expect(401);
    assert_eq!(ground.number("SELECT count(*) AS n FROM sessions WHERE revoked_because = 'token_reused'").await, 1);
    let letters = ground.letters_to("user-0@example.com").await;
    assert_eq!(letters.iter().map(|letter| letter.subject.as_str()).collect::<Vec<_>>(), ["You were signed out for your safety"]);
    // A copy of a token whose row is long gone is noticed as well.
    let account = service.account(Role::User).await;
    let mut newest = account.refresh_token.clone();
    for _ in 0..4 {
        time.pass(61);
        newest = refreshed(&client, &newest).await.1;
    }
    let rows = ground.number(&format!("SELECT count(*) AS n FROM refresh_tokens WHERE session_id = '{}'", account.session)).await;
    assert_eq!(rows, 2, "used tokens are not kept");
    refused(refresh(&client, &account.refresh_token).await);
    refused(refresh(&client, &newest).await);
}

async fn whoever_signs_out_is_out_with_both_tokens(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[]).await;
    let stranger = service.stranger();
    let gone = async |account: &crate::ground::Account| {
        account.client.get("/api/users/me").await.expect(401);
        refused(refresh(&stranger, &account.refresh_token).await);
    };
    let by_access = service.account(Role::User).await;
    by_access.client.ask("POST", "/api/auth/logout", &[], b"").await.expect(204);
    gone(&by_access).await;
    assert_eq!(by_access.client.ask("POST", "/api/auth/logout", &[], b"").await.expect(401).code(), "invalid_token");
    assert_eq!(stranger.ask("POST", "/api/auth/logout", &[], b"").await.expect(401).code(), "authentication_required");
    stranger.post("/api/auth/logout", &json!({})).await.expect(401);

    let by_refresh = service.account(Role::User).await;
    let out = json!({"refresh_token": by_refresh.refresh_token});
    // The access token has expired, or is nonsense: that keeps nobody signed in.
    stranger.with_token("expired").post("/api/auth/logout", &out).await.expect(204);
    gone(&by_refresh).await;
    stranger.post("/api/auth/logout", &out).await.expect(204);
    stranger.post("/api/auth/logout", &json!({"refresh_token": "unknown"})).await.expect(204);

    let first = service.account(Role::User).await;
    let (second, bystander) = (service.signed_in(first.id).await, service.account(Role::User).await);
    second.client.ask("POST", "/api/auth/logout-all", &[], b"").await.expect(204);
    gone(&first).await;
    gone(&second).await;
    bystander.client.get("/api/users/me").await.expect(200);
}

async fn nobody_sees_or_ends_the_session_of_another_but_an_administrator(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (admin, user, other) = (service.admin().await, service.account(Role::User).await, service.account(Role::User).await);
    let path = format!("/api/auth/sessions/{}", user.session);
    for client in [&other.client, &admin.client] {
        assert_eq!(client.delete(&path).await.expect(404).code(), "session_not_found");
    }
    assert_eq!(other.client.delete("/api/auth/sessions/7").await.expect(400).json()["message"], "Invalid session ID format");
    let listed = other.client.get("/api/auth/sessions").await.expect(200).data();
    assert_eq!(listed.as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap()).collect::<Vec<_>>(), [other.session.to_string()]);
    let all = format!("/api/users/{}/sessions", user.id);
    other.client.delete(&all).await.expect(403);
    user.client.get("/api/users/me").await.expect(200);
    admin.client.delete(&all).await.expect(204);
    admin.client.delete(&all).await.expect(204);
    user.client.get("/api/users/me").await.expect(401);
    other.client.get("/api/users/me").await.expect(200);
    let nobody = format!("/api/users/{}/sessions", uuid::Uuid::new_v4());
    assert_eq!(admin.client.delete(&nobody).await.expect(404).code(), "user_not_found");
}

async fn the_session_used_longest_ago_gives_way_to_one_too_many(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[("SESSIONS_MAX", "3")]).await;
    let first = service.account(Role::User).await;
    let mut sessions = Vec::new();
    for _ in 0..2 {
        time.pass(1);
        sessions.push(service.signed_in(first.id).await);
    }
    time.pass(1);
    let (kept, _) = refreshed(&service.stranger(), &first.refresh_token).await;
    time.pass(1);
    service.signed_in(first.id).await;
    sessions[0].client.get("/api/users/me").await.expect(401);
    sessions[1].client.get("/api/users/me").await.expect(200);
    assert_eq!(kept.get("/api/auth/sessions").await.expect(200).data().as_array().unwrap().len(), 3);
    let at_once = (0..8).map(|_| {
        let (app, id) = (service.app.clone(), first.id);
        tokio::spawn(async move { sessions::open(&app, id, None, device()).await.map(drop) })
    });
    for opened in at_once.collect::<Vec<_>>() {
        opened.await.unwrap().unwrap();
    }
    let living = format!("SELECT count(*) AS n FROM sessions WHERE user_id = '{}' AND revoked_at IS NULL", first.id);
    assert_eq!(ground.number(&living).await, 3);
}

async fn a_session_ends_when_it_is_not_refreshed_and_at_its_greatest_age(ground: Arc<Ground>) {
    let time = Time::new();
    let pairs = [("REFRESH_EXPIRY", "1h"), ("SESSION_MAX_AGE", "3h"), ("JWT_EXPIRY", "1h")];
    let service = ground.start_at(time.clock(), &pairs).await;
    let client = service.stranger();
    let idle = service.account(Role::User).await;
    time.pass(3_600);
    refused(refresh(&client, &idle.refresh_token).await);
    let account = service.account(Role::User).await;
    let (mut me, mut token) = (account.client, account.refresh_token);
    for _ in 0..5 {
        time.pass(2_000);
        (me, token) = refreshed(&client, &token).await;
    }
    let left = refresh(&client, &token).await.expect(200).data();
    assert_eq!(left["refresh_expires_in"], 3 * 3_600 - 5 * 2_000);
    me.get("/api/users/me").await.expect(200);
    time.pass(3 * 3_600 - 5 * 2_000);
    refused(refresh(&client, left["refresh_token"].as_str().unwrap()).await);
    // Not before the memory of its standing is as old as it may be: the access token itself is still young.
    crate::ground::within(Duration::from_secs(8), "the access token ends with its session", || async { me.get("/api/users/me").await.status == 401 })
        .await;
}

async fn a_rotation_that_dies_between_its_steps_has_not_happened(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (account, client) = (service.account(Role::User).await, service.stranger());
    let sqlite = ground.url.starts_with("sqlite");
    if !sqlite {
        ground.execute("CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'died'; END $$").await;
    }
    let mut token = account.refresh_token;
    for (when, table) in [("UPDATE", "refresh_tokens"), ("INSERT", "refresh_tokens"), ("UPDATE", "sessions")] {
        let body = if sqlite { "BEGIN SELECT RAISE(ABORT, 'died'); END" } else { "FOR EACH ROW EXECUTE FUNCTION die()" };
        ground.execute(&format!("CREATE TRIGGER die AFTER {when} ON {table} {body}")).await;
        refresh(&client, &token).await.expect(500);
        refresh(&client, &token).await.expect(500);
        ground.execute(&if sqlite { "DROP TRIGGER die".to_owned() } else { format!("DROP TRIGGER die ON {table}") }).await;
        assert_eq!(ground.number("SELECT count(*) AS n FROM refresh_tokens WHERE used_at IS NULL").await, 1);
        token = refreshed(&client, &token).await.1;
    }
    account.client.get("/api/users/me").await.expect(200);
}

async fn what_is_no_refresh_token_is_refused_in_one_way(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (account, client) = (service.account(Role::User).await, service.stranger());
    let access = account.client.token().to_owned();
    let (token, unknown) = (&account.refresh_token, format!("mrt_{}", "A".repeat(43)));
    for bent in [unknown.as_str(), &access, "", "mrt_", &token[..46], &format!("{token}A"), &token.to_uppercase(), &format!("{token} ")] {
        refused(refresh(&client, bent).await);
    }
    for body in [json!({}), json!({"refresh_token": 7}), json!({"refresh_token": null}), json!([])] {
        client.post("/api/auth/refresh", &body).await.expect(400);
    }
    assert_eq!(client.with_token(token).get("/api/users/me").await.expect(401).code(), "invalid_token", "it is no access token");
    refreshed(&client, token).await;
}

async fn ended_sessions_are_swept_and_living_ones_are_not(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[]).await;
    let (out, idle) = (service.account(Role::User).await, service.account(Role::User).await);
    out.client.ask("POST", "/api/auth/logout", &[], b"").await.expect(204);
    let swept = async || sessions::sweep(&service.app.database, service.app.clock().now()).await.unwrap();
    assert_eq!(swept().await, 0);
    time.pass(8 * 86_400);
    let living = service.account(Role::User).await;
    assert_eq!(swept().await, 1, "the one that signed out a week ago");
    time.pass(29 * 86_400);
    let (_, token) = refreshed(&service.stranger(), &living.refresh_token).await;
    assert_eq!(swept().await, 0, "the idle one ended a week ago, not longer: {}", idle.session);
    time.pass(86_400);
    assert_eq!(swept().await, 1);
    refreshed(&service.stranger(), &token).await;
    assert_eq!(ground.number("SELECT count(*) AS n FROM refresh_tokens t LEFT JOIN sessions s ON s.id = t.session_id WHERE s.id IS NULL").await, 0);
}
