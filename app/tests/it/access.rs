//! Who may sign in: accounts disabled and let in again, guesses slowed down, passwords of older hashes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::auth::{AccountKey, Allowance, Role, ThrottleLimits};
use serde_json::json;

use crate::accounts::{ADA, OTHER, ada, forgot, sign_in, signed_in, told};
use crate::client::{Answer, Client};
use crate::ground::{ADMIN, Ground, PASSWORD, Service, within};
use crate::process;

on_both! {
    a_disabled_account_is_out_everywhere_until_it_is_let_in_again
    the_last_administrator_cannot_be_disabled
    accounts_are_disabled_from_the_command_line
    guesses_slow_down_and_lock_no_owner_out
    a_flood_from_everywhere_keeps_nobody_out_who_is_at_home_or_comes_back_as_told
    a_hash_of_another_kind_is_made_anew_at_the_sign_in
}

async fn a_disabled_account_is_out_everywhere_until_it_is_let_in_again(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (id, me) = ada(&service).await;
    let (admin, stranger, path) = (service.admin().await.client, service.stranger(), format!("/api/users/{id}"));
    let refresh = sign_in(&stranger, ADA, PASSWORD).await.expect(200).data()["refresh_token"].clone();
    for own in [true, false] {
        assert_eq!(me.patch(&path, &json!({"disabled": own})).await.expect(403).code(), "forbidden");
    }
    admin.patch(&path, &json!({"disabled": null})).await.names("disabled");
    assert_eq!(admin.patch(&path, &json!({"disabled": true})).await.expect(200).data()["disabled"], true);
    admin.patch(&path, &json!({"disabled": true})).await.expect(200);
    assert_eq!(me.get("/api/users/me").await.expect(401).code(), "invalid_token");
    stranger.post("/api/auth/refresh", &json!({"refresh_token": refresh})).await.expect(401);
    assert_eq!(sign_in(&stranger, ADA, PASSWORD).await.expect(401).code(), "invalid_credentials");
    forgot(&stranger, ADA).await;
    let subjects: Vec<_> = ground.letters_to(ADA).await.into_iter().map(|letter| letter.subject).collect();
    assert_eq!(subjects, ["Confirm your e-mail address", "Your account was disabled"], "one letter, and no way around it");
    assert_eq!(admin.patch(&path, &json!({"disabled": false})).await.expect(200).data()["disabled"], false);
    me.get("/api/users/me").await.expect(401);
    sign_in(&stranger, ADA, PASSWORD).await.expect(200);
    let told = told(&service, &id).await;
    assert_eq!(told.iter().filter(|action| action.starts_with("user.")).collect::<Vec<_>>(), ["user.registered", "user.disabled", "user.enabled"]);
}

async fn the_last_administrator_cannot_be_disabled(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (first, second) = (service.admin().await, service.account(Role::Admin).await);
    first.client.patch(&format!("/api/users/{}", second.id), &json!({"disabled": true})).await.expect(200);
    let refused = first.client.patch(&format!("/api/users/{}", first.id), &json!({"disabled": true})).await.expect(409);
    assert_eq!(refused.code(), "last_admin");
    // A disabled administrator is none.
    let third = service.account(Role::Admin).await;
    let asked = [(&first, &third), (&third, &first)].map(|(by, whom)| {
        let (client, path) = (by.client.clone(), format!("/api/users/{}", whom.id));
        tokio::spawn(async move { client.patch(&path, &json!({"disabled": true})).await.status })
    });
    for asked in asked {
        asked.await.unwrap();
    }
    assert_eq!(ground.number("SELECT count(*) AS n FROM users WHERE role = 'admin' AND disabled_at IS NULL").await, 1);
}

async fn accounts_are_disabled_from_the_command_line(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (id, me) = ada(&service).await;
    let run = async |arguments: &[&str]| {
        let (settings, arguments) = (ground.pairs(&[]), arguments.iter().map(ToString::to_string).collect::<Vec<_>>());
        let run = move || process::run(&settings, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), b"");
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let (done, said) = run(&["user", "disable", "ADA@example.com"]).await;
    assert!(done && said.contains(&format!("{id} disabled\n")), "{said}");
    // SQLite has nobody who tells; there it takes five seconds at most.
    within(Duration::from_secs(10), "it is out", || async { me.get("/api/users/me").await.status == 401 }).await;
    ground.last_letter(ADA, "Your account was disabled").await;
    assert!(run(&["user", "enable", ADA]).await.0);
    sign_in(&service.stranger(), ADA, PASSWORD).await.expect(200);
    let (done, said) = run(&["user", "disable", ADMIN]).await;
    assert!(!done && said.contains("last administrator"), "{said}");
    assert!(!run(&["user", "disable", "nobody@example.com"]).await.0);
}

/// A sign-in from an address of the test's own.
async fn sign_in_from(client: &Client, address: &str, email: &str, password: &str) -> Answer {
    let body = json!({"email": email, "password": password}).to_string();
    client.ask("POST", "/api/auth/login", &[("content-type", "application/json"), ("x-forwarded-for", address)], body.as_bytes()).await
}

/// For the throttle it is `at`, ahead of the clock, and no time passes until the clock is there.
async fn stop_the_throttles_time(service: &Service, at: Instant) {
    let (nobody, nowhere) = (AccountKey::of("x"), IpAddr::from([192, 0, 2, 200]).into());
    service.app.throttle.admit(nobody, nowhere, at).await.unwrap().unused();
}

async fn guesses_slow_down_and_lock_no_owner_out(ground: Arc<Ground>) {
    let service = ground.start(&[("TRUSTED_PROXIES", "127.0.0.1/32"), ("RATE_LIMIT_MAX", "10000")]).await;
    ada(&service).await;
    let client = service.stranger();
    stop_the_throttles_time(&service, Instant::now() + Duration::from_secs(3600)).await;
    sign_in_from(&client, "192.0.2.1", ADA, PASSWORD).await.expect(200);
    for email in [ADA, "nobody@example.com"] {
        let mut statuses = Vec::new();
        // From one address, then from many: the account slows down, whether it exists or not.
        for number in 0..24 {
            let address = if number < 8 { "198.51.100.1".to_owned() } else { format!("203.0.113.{number}") };
            let answer = sign_in_from(&client, &address, email, "not the password").await;
            if answer.status == 429 {
                assert_eq!(answer.code(), "too_many_attempts");
                assert_eq!(answer.header("retry-after"), Some("1"), "the first pause");
            }
            statuses.push(answer.status);
        }
        assert_eq!(statuses[..5], [401; 5], "{email}");
        assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 10, "{email}: {statuses:?}");
    }
    // A right password from a stranger's address waits as well, else the answer would tell.
    sign_in_from(&client, "203.0.113.99", ADA, PASSWORD).await.expect(429);
    sign_in_from(&client, "192.0.2.1", ADA, PASSWORD).await.expect(200);
    let denied = "SELECT count(*) AS n FROM audit WHERE action = 'session.denied'";
    within(Duration::from_secs(20), "each wrong password is told once, of an account", || async { ground.number(denied).await == 10 }).await;
    // Whoever reads the mailbox gets in from anywhere.
    forgot(&client, ADA).await;
    let token = ground.last_letter(ADA, "Choose").await.token();
    let body = json!({"token": token, "password": OTHER}).to_string();
    client
        .ask("POST", "/api/auth/reset-password", &[("content-type", "application/json"), ("x-forwarded-for", "203.0.113.99")], body.as_bytes())
        .await
        .expect(204);
    sign_in_from(&client, "203.0.113.99", ADA, OTHER).await.expect(200);
}

async fn a_flood_from_everywhere_keeps_nobody_out_who_is_at_home_or_comes_back_as_told(ground: Arc<Ground>) {
    // Half of the eight are for whoever comes.
    let limits = ThrottleLimits { strangers: Some(Allowance { per_second: 1, at_once: 8 }), ..ThrottleLimits::default() };
    let service = ground.start_throttled(&[("TRUSTED_PROXIES", "127.0.0.1/32"), ("RATE_LIMIT_MAX", "10000")], limits).await;
    ada(&service).await;
    let (client, later) = (service.stranger(), Instant::now() + Duration::from_secs(3600));
    sign_in_from(&client, "192.0.2.1", ADA, PASSWORD).await.expect(200);
    let flood = async |network: &str, length: u8, let_in: usize| {
        for number in 0..length {
            // Whether there is such an account makes no difference.
            let email = if number % 2 == 0 { ADA.to_owned() } else { format!("nobody-{network}-{number}@example.com") };
            let answer = sign_in_from(&client, &format!("{network}.{number}"), &email, "not the password").await;
            if usize::from(number) < let_in {
                answer.expect(401);
            } else {
                let answer = answer.expect(429);
                assert_eq!((answer.code().as_str(), answer.header("retry-after")), ("too_many_attempts", Some("2")), "{email}");
            }
        }
    };
    stop_the_throttles_time(&service, later).await;
    flood("198.51.100", 12, 4).await;
    sign_in_from(&client, "192.0.2.1", ADA, PASSWORD).await.expect(200);
    sign_in_from(&client, "203.0.113.1", ADMIN, PASSWORD).await.expect(429);
    // It goes on, and takes what there is for whoever comes.
    stop_the_throttles_time(&service, later + Duration::from_secs(3)).await;
    flood("198.51.101", 12, 3).await;
    sign_in_from(&client, "203.0.113.2", ADMIN, PASSWORD).await.expect(429);
    sign_in_from(&client, "203.0.113.1", ADMIN, PASSWORD).await.expect(200);
    // From there it is known now.
    sign_in_from(&client, "203.0.113.1", ADMIN, PASSWORD).await.expect(200);
}

async fn a_hash_of_another_kind_is_made_anew_at_the_sign_in(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    ada(&service).await;
    // bcrypt, cost 5, of the password of all tests.
    let imported = "$2b$05$abcdefghijklmnopqrstuuFiPhXf1sVd3pCCRO.uVh34H/qI/ZsuS";
    assert_eq!(ground.execute(&format!("UPDATE users SET password_hash = '{imported}' WHERE email_folded = '{ADA}'")).await, 1);
    let ours = format!("SELECT count(*) AS n FROM users WHERE email_folded = '{ADA}' AND password_hash LIKE '$argon2id$%'");
    sign_in(&service.stranger(), ADA, OTHER).await.expect(401);
    assert_eq!(ground.number(&ours).await, 0);
    let me = signed_in(&service.stranger(), ADA, PASSWORD).await;
    assert_eq!(ground.number(&ours).await, 1);
    assert_eq!(me.get("/api/users/me").await.expect(200).data()["email"], ADA);
    sign_in(&service.stranger(), ADA, PASSWORD).await.expect(200);
}
