//! Accounts: opening one, signing in, and who may see and change whom.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::auth::Role;
use mainstay::testing::{Pairs, Verdict};
use serde_json::json;
use uuid::Uuid;

use crate::client::Client;
use crate::ground::{ADMIN, Ground, PASSWORD};

/// Pairs of sign-ins before times are judged: on a quiet machine they show a difference of about a tenth.
const PAIRS: usize = 40;
/// On a busy one they may not, and more are made, up to this many times as many.
const ROUNDS_MAX: usize = 5;
/// The difference that counts: less of it drowns in what a network adds.
const TOLERANCE: f64 = 0.3;

on_both! {
    an_account_is_opened_signs_in_and_sees_itself
    of_a_hundred_simultaneous_registrations_of_one_address_one_is_made
    a_field_that_a_stranger_may_not_set_is_refused_by_name
    everything_wrong_with_a_registration_is_told_at_once
    an_administrator_creates_accounts_of_any_role
    the_list_shows_every_account_once_while_others_are_opened
    a_role_takes_effect_at_the_next_request
    the_last_administrator_stays_however_two_remove_each_other
    the_last_administrator_cannot_give_up_the_role
    a_user_sees_and_changes_only_itself
    the_token_of_a_removed_account_is_refused
    an_unknown_account_and_a_wrong_password_cannot_be_told_apart
    an_id_that_is_none_says_so
    closed_registration_refuses_strangers
}

through_pooler! {
    an_account_is_opened_signs_in_and_sees_itself
    of_a_hundred_simultaneous_registrations_of_one_address_one_is_made
    a_role_takes_effect_at_the_next_request
    the_last_administrator_stays_however_two_remove_each_other
}

async fn an_account_is_opened_signs_in_and_sees_itself(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let stranger = service.stranger();
    let given = json!({"email": "Ada@Example.com", "name": "Ada Lovelace", "password": PASSWORD});
    let account = stranger.post("/api/auth/register", &given).await.expect(201).data();
    assert_eq!((&account["email"], &account["name"], &account["role"]), (&json!("Ada@Example.com"), &json!("Ada Lovelace"), &json!("user")));
    assert!(account.get("password").is_none() && account.get("password_hash").is_none(), "{account}");
    let answer = stranger.post("/api/auth/login", &json!({"email": "ada@EXAMPLE.com", "password": PASSWORD})).await.expect(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let signed = answer.data();
    assert_eq!((&signed["token_type"], &signed["expires_in"], &signed["user"]["id"]), (&json!("Bearer"), &json!(900), &account["id"]));
    let me = stranger.with_token(signed["access_token"].as_str().unwrap());
    assert_eq!(me.get("/api/users/me").await.expect(200).data(), account);
    let refused = stranger.get("/api/users/me").await.expect(401);
    assert_eq!((refused.code().as_str(), refused.header("www-authenticate").is_some()), ("authentication_required", true));
}

async fn of_a_hundred_simultaneous_registrations_of_one_address_one_is_made(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let asked = (0..100).map(|number: u32| {
        let client = service.stranger();
        // Every try writes the letters in a case of its own.
        let letters = "simultaneous@example.com".char_indices();
        let email: String = letters.map(|(at, c)| if (number >> (at % 7)) & 1 == 1 { c.to_ascii_uppercase() } else { c }).collect();
        tokio::spawn(async move {
            loop {
                let answer = client.post("/api/auth/register", &json!({"email": email, "name": "Twin", "password": PASSWORD})).await;
                // The crowd before the hashing is bounded: who is told to come back does.
                if answer.status != 503 {
                    return answer;
                }
                assert!(answer.header("retry-after").is_some(), "{}", answer.text());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    });
    let (mut made, mut refused) = (0, 0);
    for answer in asked.collect::<Vec<_>>() {
        let answer = answer.await.unwrap();
        match answer.status {
            201 => made += 1,
            409 => {
                assert_eq!((answer.code().as_str(), answer.flaws()[0].0.as_str()), ("email_taken", "email"));
                refused += 1;
            }
            _ => panic!("{} {}", answer.status, answer.text()),
        }
    }
    assert_eq!((made, refused), (1, 99));
    assert_eq!(ground.number("SELECT count(*) AS n FROM users WHERE email_folded = 'simultaneous@example.com'").await, 1);
    // The first administrator is the other one.
    assert_eq!(ground.number("SELECT count(*) AS n FROM users").await, 2);
    assert_eq!(ground.number("SELECT count(*) AS n FROM profiles").await, 2);
}

async fn a_field_that_a_stranger_may_not_set_is_refused_by_name(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let stranger = service.stranger();
    for (field, value) in
        [("role", json!("admin")), ("id", json!(Uuid::new_v4())), ("created_at", json!("2020-01-01T00:00:00Z")), ("is_admin", json!(true))]
    {
        let mut given = json!({"email": "mallory@example.com", "name": "Mallory", "password": PASSWORD});
        given[field] = value;
        stranger.post("/api/auth/register", &given).await.names(field);
    }
    assert_eq!(ground.number("SELECT count(*) AS n FROM users").await, 1, "only the first administrator");
    let user = service.account(Role::User).await;
    let path = format!("/api/users/{}", user.id);
    for (field, value) in [("email", json!("other@example.com")), ("password", json!("x")), ("disabled_at", json!(null))] {
        user.client.patch(&path, &json!({field: value})).await.names(field);
    }
    let refused = user.client.patch(&path, &json!({"role": "admin"})).await.expect(403);
    assert_eq!(refused.code(), "forbidden");
    assert_eq!(user.client.get(&path).await.expect(200).data()["role"], "user");
}

async fn everything_wrong_with_a_registration_is_told_at_once(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let stranger = service.stranger();
    let answer = stranger.post("/api/auth/register", &json!({"email": "nobody", "name": " ", "password": "short"})).await.expect(400);
    assert_eq!(answer.code(), "validation_failed");
    let named: Vec<_> = answer.flaws().into_iter().map(|(field, _)| field).collect();
    assert_eq!(named, ["email", "name", "password"]);
    for field in ["email", "name", "password"] {
        let mut given = json!({"email": "a@example.com", "name": "A", "password": PASSWORD});
        given[field] = json!("a\u{0}b@example.com");
        stranger.post("/api/auth/register", &given).await.names(field);
        given[field] = json!(7);
        stranger.post("/api/auth/register", &given).await.names(field);
        given.as_object_mut().unwrap().remove(field);
        stranger.post("/api/auth/register", &given).await.names(field);
    }
}

async fn an_administrator_creates_accounts_of_any_role(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let admin = service.admin().await.client;
    for role in ["user", "editor", "admin"] {
        let given = json!({"email": format!("{role}@example.org"), "name": "New", "password": PASSWORD, "role": role});
        let account = admin.post("/api/users", &given).await.expect(201).data();
        assert_eq!(account["role"], role);
        assert_eq!(admin.post("/api/users", &given).await.expect(409).code(), "email_taken");
        let shown = admin.get(&format!("/api/users/{}", account["id"].as_str().unwrap())).await.expect(200).data();
        assert_eq!(shown, account);
    }
    let given = json!({"email": "x@example.org", "name": "New", "password": PASSWORD, "role": "emperor"});
    admin.post("/api/users", &given).await.names("role");
}

async fn the_list_shows_every_account_once_while_others_are_opened(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let admin = service.admin().await;
    let mut expected = HashSet::from([admin.id.to_string()]);
    for _ in 0..7 {
        expected.insert(service.account(Role::User).await.id.to_string());
    }
    let (mut seen, mut path) = (Vec::new(), "/api/users?limit=3".to_owned());
    loop {
        let answer = admin.client.get(&path).await.expect(200);
        seen.extend(answer.data().as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap().to_owned()));
        let body = answer.json();
        let Some(cursor) = body["meta"]["next_cursor"].as_str() else {
            assert_eq!(answer.header("link"), None);
            break;
        };
        let link = answer.header("link").unwrap();
        assert_eq!(link, format!("</api/users?limit=3&cursor={cursor}>; rel=\"next\""));
        path = link[1..link.find('>').unwrap()].to_owned();
        if seen.len() < 9 {
            service.account(Role::User).await;
        }
    }
    let distinct: HashSet<_> = seen.iter().cloned().collect();
    assert_eq!(distinct.len(), seen.len(), "no row twice");
    assert!(distinct.is_superset(&expected), "no row missing");
    for (query, field) in [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("colour=red", "colour"), ("cursor=bent!", "cursor")] {
        admin.client.get(&format!("/api/users?{query}")).await.names(field);
    }
}

async fn a_role_takes_effect_at_the_next_request(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (admin, user) = (service.admin().await, service.account(Role::User).await);
    let product = json!({"name": "Made by an editor"});
    user.client.post("/api/products", &product).await.expect(403);
    let path = format!("/api/users/{}", user.id);
    assert_eq!(admin.client.patch(&path, &json!({"role": "editor"})).await.expect(200).data()["role"], "editor");
    user.client.post("/api/products", &product).await.expect(201);
    admin.client.patch(&path, &json!({"role": "user"})).await.expect(200);
    user.client.post("/api/products", &product).await.expect(403);
    admin.client.patch(&path, &json!({"role": null})).await.names("role");
    let missing = admin.client.patch(&format!("/api/users/{}", Uuid::new_v4()), &json!({"role": "user"})).await.expect(404);
    assert_eq!(missing.code(), "user_not_found");
}

async fn the_last_administrator_stays_however_two_remove_each_other(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let mut last = service.admin().await;
    for _ in 0..5 {
        let other = service.account(Role::Admin).await;
        let (a, b) = ((&last, format!("/api/users/{}", other.id)), (&other, format!("/api/users/{}", last.id)));
        let (first, second) = tokio::join!(a.0.client.delete(&a.1), b.0.client.delete(&b.1));
        let mut statuses = [first.status, second.status];
        statuses.sort_unstable();
        // The second one is refused: as the last administrator, or because its own account is gone by then.
        assert!(statuses[0] == 204 && [401, 404, 409].contains(&statuses[1]), "{statuses:?} {} {}", first.text(), second.text());
        assert_eq!(ground.number("SELECT count(*) AS n FROM users WHERE role = 'admin'").await, 1);
        if second.status == 204 {
            last = other.clone();
        }
    }
    let refused = last.client.delete(&format!("/api/users/{}", last.id)).await.expect(409);
    assert_eq!(refused.code(), "last_admin");
    assert_eq!(ground.number("SELECT count(*) AS n FROM profiles").await, 1, "profiles go with their accounts");
}

async fn the_last_administrator_cannot_give_up_the_role(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let admin = service.admin().await;
    let path = format!("/api/users/{}", admin.id);
    assert_eq!(admin.client.patch(&path, &json!({"role": "user"})).await.expect(409).code(), "last_admin");
    let other = service.account(Role::Admin).await;
    let others = format!("/api/users/{}", other.id);
    let (down, up) = (json!({"role": "user"}), json!({"role": "admin"}));
    for _ in 0..5 {
        let (first, second) = tokio::join!(admin.client.patch(&others, &down), other.client.patch(&path, &down));
        assert_eq!(ground.number("SELECT count(*) AS n FROM users WHERE role = 'admin'").await, 1, "{} {}", first.text(), second.text());
        let (stays, target) = if first.status == 200 { (&admin, &others) } else { (&other, &path) };
        stays.client.patch(target, &up).await.expect(200);
    }
}

async fn a_user_sees_and_changes_only_itself(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (user, other) = (service.account(Role::User).await, service.account(Role::Editor).await);
    let (own, others) = (format!("/api/users/{}", user.id), format!("/api/users/{}", other.id));
    user.client.get(&own).await.expect(200);
    let renamed = user.client.patch(&own, &json!({"name": "Grace Hopper"})).await.expect(200).data();
    assert_eq!((&renamed["name"], &renamed["role"]), (&json!("Grace Hopper"), &json!("user")));
    assert_ne!(renamed["updated_at"], renamed["created_at"]);
    for client in [&user.client, &other.client] {
        client.get("/api/users").await.expect(403);
        client.post("/api/users", &json!({"email": "n@example.com", "name": "N", "password": PASSWORD})).await.expect(403);
    }
    for path in [&others, &format!("/api/users/{}", Uuid::new_v4())] {
        user.client.get(path).await.expect(403);
        user.client.patch(path, &json!({"name": "Mine"})).await.expect(403);
        user.client.delete(path).await.expect(403);
    }
    other.client.get(&others).await.expect(200);
}

async fn the_token_of_a_removed_account_is_refused(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (admin, user) = (service.admin().await, service.account(Role::User).await);
    user.client.get("/api/users/me").await.expect(200);
    admin.client.delete(&format!("/api/users/{}", user.id)).await.expect(204);
    let refused = user.client.get("/api/users/me").await.expect(401);
    assert_eq!(refused.code(), "invalid_token");
    assert!(refused.header("www-authenticate").unwrap().starts_with("Bearer"), "{refused:?}");
    admin.client.get(&format!("/api/users/{}", user.id)).await.expect(404);
    let leaving = service.account(Role::Editor).await;
    leaving.client.delete(&format!("/api/users/{}", leaving.id)).await.expect(204);
    leaving.client.post("/api/products", &json!({"name": "x"})).await.expect(401);
}

async fn an_unknown_account_and_a_wrong_password_cannot_be_told_apart(ground: Arc<Ground>) {
    let service = ground.start_unthrottled().await;
    let stranger = service.stranger();
    let (mut pairs, mut words) = (Pairs::default(), HashSet::new());
    // `cargo run -p mainstay-app --example timing` makes a thousand pairs and sees smaller differences.
    for round in 0..ROUNDS_MAX {
        for number in 0..PAIRS {
            let nobody = format!("nobody-{round}-{number}@example.com");
            let (known, unknown) = if number % 2 == 0 {
                let known = wrong_sign_in(&stranger, ADMIN).await;
                (known, wrong_sign_in(&stranger, &nobody).await)
            } else {
                let unknown = wrong_sign_in(&stranger, &nobody).await;
                (wrong_sign_in(&stranger, ADMIN).await, unknown)
            };
            pairs.push(known.0, unknown.0);
            words.extend([known.1, unknown.1]);
        }
        if pairs.compare().within(TOLERANCE) != Verdict::Unclear {
            break;
        }
    }
    assert_eq!(words.len(), 1, "{words:?}");
    let comparison = pairs.compare();
    assert_eq!(comparison.within(TOLERANCE), Verdict::Same, "{comparison}");
}

/// A sign-in with a wrong password: how long it took, and what it was told but for what is always new.
async fn wrong_sign_in(stranger: &Client, email: &str) -> (Duration, String) {
    let begun = Instant::now();
    let answer = stranger.post("/api/auth/login", &json!({"email": email, "password": "not the password"})).await.expect(401);
    let took = begun.elapsed();
    let mut body = answer.json();
    for changing in ["request_id", "timestamp"] {
        body.as_object_mut().unwrap().remove(changing).unwrap();
    }
    (took, body.to_string())
}

async fn an_id_that_is_none_says_so(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let admin = service.admin().await.client;
    // The last two are UUIDs of another version, and one with braces.
    for id in [
        "1",
        "me2",
        "%00",
        "..%2f",
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "00000000-0000-0000-0000-000000000000",
        "%7B3f2c1b9e-8a47-4c6d-9e21-5b7f0a1c2d3e%7D",
    ] {
        let answer = admin.get(&format!("/api/users/{id}")).await.expect(400);
        assert_eq!(answer.json()["message"], "Invalid user ID format", "{id}");
        assert_eq!(answer.code(), "invalid_path_parameter");
    }
}

async fn closed_registration_refuses_strangers(ground: Arc<Ground>) {
    let service = ground.start(&[("REGISTRATION", "closed")]).await;
    let given = json!({"email": "ada@example.com", "name": "Ada", "password": PASSWORD});
    assert_eq!(service.stranger().post("/api/auth/register", &given).await.expect(403).code(), "registration_closed");
    service.admin().await.client.post("/api/users", &given).await.expect(201);
}
