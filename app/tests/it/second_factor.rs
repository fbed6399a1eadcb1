//! The second factor: begun, confirmed, asked for, replaced, removed, and no code taken twice.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::auth::{AccountKey, Role, Totp};
use mainstay::clock::Clock;
use mainstay::config::Reader;
use mainstay_app::life;
use mainstay_app::settings::Settings;
use secrecy::{ExposeSecret, SecretSlice};
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::ground::{Account, Ground, PASSWORD, Service, Time, within};

on_both! {
    a_second_factor_is_begun_confirmed_asked_for_and_removed
    one_code_at_eight_sign_ins_at_once_opens_one_session
    one_recovery_code_at_eight_sign_ins_at_once_opens_one_session
    a_recovery_code_is_good_once_and_new_ones_end_the_old
    nothing_changes_without_the_password_and_a_code
    enabling_ends_the_sessions_that_were_opened_without
    what_is_not_confirmed_in_time_is_asked_of_nobody
    wrong_codes_slow_down_and_only_for_their_account
    an_administrator_removes_the_second_factor_of_another
    the_secret_is_shown_once_and_kept_sealed
    secrets_of_the_service_are_exchanged_without_locking_anybody_out
    production_without_a_secret_offers_no_second_factor_and_does_not_start_if_there_are_any
}

/// As an authenticator app holds it.
pub(crate) struct Authenticator {
    totp: Totp,
    clock: Clock,
}

impl Authenticator {
    pub(crate) fn new(secret: &str, clock: Clock) -> Self {
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let bits: String = secret.bytes().map(|byte| format!("{:05b}", letters.iter().position(|letter| *letter == byte).unwrap())).collect();
        let bytes: Vec<u8> = bits.as_bytes().chunks_exact(8).map(|bits| u8::from_str_radix(std::str::from_utf8(bits).unwrap(), 2).unwrap()).collect();
        Self { totp: Totp::from_bytes(SecretSlice::from(bytes)).unwrap(), clock }
    }

    pub(crate) fn code(&self) -> String {
        self.totp.code_at(self.clock.now()).expose_secret().to_owned()
    }

    /// A code that is wrong now.
    fn wrong(&self) -> String {
        let codes: HashSet<_> = [-30, 0, 30]
            .map(|second| self.totp.code_at(self.clock.now() + jiff::Span::new().seconds(second)))
            .iter()
            .map(|code| code.expose_secret().to_owned())
            .collect();
        (0..).map(|number| format!("{number:06}")).find(|code| !codes.contains(code)).unwrap()
    }
}

async fn begin(client: &Client) -> Answer {
    client.post("/api/auth/totp", &json!({"password": PASSWORD})).await
}

/// Enables a second factor; time passes, so its next code is a new one.
async fn enable(account: &Account, time: &Time) -> (Authenticator, Vec<String>) {
    let begun = begin(&account.client).await.expect(200).data();
    let authenticator = Authenticator::new(begun["secret"].as_str().unwrap(), time.clock());
    let confirmed = account.client.post("/api/auth/totp/confirm", &json!({"code": authenticator.code()})).await.expect(200);
    time.pass(30);
    (authenticator, recovery_codes(&confirmed))
}

fn recovery_codes(answer: &Answer) -> Vec<String> {
    let codes = answer.data()["recovery_codes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(codes.len(), 10);
    codes
}

async fn email(account: &Account) -> String {
    account.client.get("/api/users/me").await.expect(200).data()["email"].as_str().unwrap().to_owned()
}

async fn sign_in(client: &Client, email: &str, code: Option<&str>) -> Answer {
    let mut body = json!({"email": email, "password": PASSWORD});
    if let Some(code) = code {
        body["code"] = json!(code);
    }
    client.post("/api/auth/login", &body).await
}

#[track_caller]
fn refused(answer: Answer, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (401, code), "{}", answer.text());
    assert!(answer.header("www-authenticate").is_some());
}

async fn a_second_factor_is_begun_confirmed_asked_for_and_removed(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[("MAIL_FROM", "Shop <no-reply@example.com>")]).await;
    let account = service.account(Role::User).await;
    let (email, stranger) = (email(&account).await, service.stranger());
    let state = async || account.client.get("/api/auth/totp").await.expect(200).data();
    assert_eq!(state().await, json!({"enabled": false, "enabled_at": null, "recovery_codes_left": 0}));
    let begun = begin(&account.client).await.expect(200).data();
    let uri = begun["uri"].as_str().unwrap();
    assert!(uri.starts_with("otpauth://totp/Shop:user-0%40example.com?secret=") && uri.contains(begun["secret"].as_str().unwrap()), "{uri}");
    sign_in(&stranger, &email, None).await.expect(200);
    let authenticator = Authenticator::new(begun["secret"].as_str().unwrap(), time.clock());
    refused(account.client.post("/api/auth/totp/confirm", &json!({"code": authenticator.wrong()})).await, "invalid_second_factor");
    account.client.post("/api/auth/totp/confirm", &json!({"code": authenticator.code()})).await.expect(200);
    assert_eq!((state().await["enabled"].clone(), state().await["recovery_codes_left"].clone()), (json!(true), json!(10)));
    assert_eq!(begin(&account.client).await.expect(409).code(), "second_factor_enabled");
    // The code that confirmed is used.
    refused(sign_in(&stranger, &email, Some(&authenticator.code())).await, "invalid_second_factor");
    time.pass(30);
    refused(sign_in(&stranger, &email, None).await, "second_factor_required");
    refused(sign_in(&stranger, &email, Some(&authenticator.wrong())).await, "invalid_second_factor");
    let wrong_password = json!({"email": email, "password": "another sentence of mine", "code": authenticator.code()});
    refused(stranger.post("/api/auth/login", &wrong_password).await, "invalid_credentials");
    sign_in(&stranger, &email, Some(&authenticator.code())).await.expect(200);
    time.pass(30);
    let both = json!({"password": PASSWORD, "code": authenticator.code()}).to_string();
    account.client.raw("DELETE", "/api/auth/totp", both.as_bytes()).await.expect(204);
    assert_eq!(account.client.raw("DELETE", "/api/auth/totp", both.as_bytes()).await.expect(404).code(), "second_factor_not_found");
    sign_in(&stranger, &email, None).await.expect(200);
    assert_eq!(
        ground
            .number("SELECT count(*) AS n FROM audit WHERE action IN ('second_factor.enabled', 'second_factor.removed') AND actor_kind = 'person'")
            .await,
        2
    );
    // Enabled and removed.
    assert_eq!(ground.number("SELECT count(*) AS n FROM jobs WHERE unique_key LIKE 'second_factor_changed:%'").await, 2);
    assert_eq!(ground.number("SELECT count(*) AS n FROM recovery_codes").await, 0);
}

/// Eight sign-ins with one code, all at once. As many tries as are free where the account is known.
async fn race(service: &Service, email: &str, code: &str) {
    let home = std::net::IpAddr::from([127, 0, 0, 1]);
    service.app.throttle.vouch(AccountKey::of(email), home.into(), Instant::now());
    let asked = (0..8).map(|_| {
        let (client, email, code) = (service.stranger(), email.to_owned(), code.to_owned());
        tokio::spawn(async move { sign_in(&client, &email, Some(&code)).await })
    });
    let mut statuses = Vec::new();
    for asked in asked.collect::<Vec<_>>() {
        let answer = asked.await.unwrap();
        if answer.status != 200 {
            refused(answer.clone(), "invalid_second_factor");
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
}

async fn one_code_at_eight_sign_ins_at_once_opens_one_session(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[]).await;
    let account = service.account(Role::User).await;
    let (authenticator, _) = enable(&account, &time).await;
    race(&service, &email(&account).await, &authenticator.code()).await;
    let open = format!("SELECT count(*) AS n FROM sessions WHERE user_id = '{}' AND revoked_at IS NULL", account.id);
    assert_eq!(ground.number(&open).await, 2, "the one that enabled it, and one of eight");
}

async fn one_recovery_code_at_eight_sign_ins_at_once_opens_one_session(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[]).await;
    let account = service.account(Role::User).await;
    let (_, codes) = enable(&account, &time).await;
    race(&service, &email(&account).await, &codes[3]).await;
    assert_eq!(account.client.get("/api/auth/totp").await.data()["recovery_codes_left"], 9);
}

async fn a_recovery_code_is_good_once_and_new_ones_end_the_old(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[]).await;
    let (account, other) = (service.account(Role::User).await, service.account(Role::User).await);
    let (email, stranger) = (email(&account).await, service.stranger());
    let (authenticator, codes) = enable(&account, &time).await;
    let (_, of_other) = enable(&other, &time).await;
    sign_in(&stranger, &email, Some(&codes[0].to_uppercase().replace('-', " "))).await.expect(200);
    refused(sign_in(&stranger, &email, Some(&codes[0])).await, "invalid_second_factor");
    refused(sign_in(&stranger, &email, Some(&of_other[0])).await, "invalid_second_factor");
    let renew = json!({"password": PASSWORD, "code": authenticator.code()});
    let renewed = account.client.post("/api/auth/totp/recovery-codes", &renew).await.expect(200);
    let new = recovery_codes(&renewed);
    refused(sign_in(&stranger, &email, Some(&codes[1])).await, "invalid_second_factor");
    sign_in(&stranger, &email, Some(&new[0])).await.expect(200);
    // A lost authenticator is replaced with a recovery code.
    let remove = json!({"password": PASSWORD, "code": new[1]}).to_string();
    account.client.raw("DELETE", "/api/auth/totp", remove.as_bytes()).await.expect(204);
    begin(&account.client).await.expect(200);
}

async fn nothing_changes_without_the_password_and_a_code(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[]).await;
    let account = service.account(Role::User).await;
    let client = &account.client;
    let wrong = client.post("/api/auth/totp", &json!({"password": "another sentence of mine"})).await;
    assert_eq!(wrong.expect(403).code(), "wrong_password", "a 401 would say that the session is over");
    assert_eq!(client.post("/api/auth/totp/confirm", &json!({"code": "000000"})).await.expect(404).code(), "second_factor_not_found");
    let (authenticator, codes) = enable(&account, &time).await;
    for (method, path) in [("DELETE", "/api/auth/totp"), ("POST", "/api/auth/totp/recovery-codes")] {
        let ask =
            async |password: &str, code: &str| client.raw(method, path, json!({"password": password, "code": code}).to_string().as_bytes()).await;
        assert_eq!(ask("another sentence of mine", &authenticator.code()).await.expect(403).code(), "wrong_password");
        refused(ask(PASSWORD, &authenticator.wrong()).await, "invalid_second_factor");
        client.raw(method, path, json!({"password": PASSWORD}).to_string().as_bytes()).await.names("code");
        client.raw(method, path, json!({"code": codes[0]}).to_string().as_bytes()).await.names("password");
    }
    assert_eq!(client.get("/api/auth/totp").await.data()["recovery_codes_left"], 10, "what was refused has used nothing");
}

async fn enabling_ends_the_sessions_that_were_opened_without(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[]).await;
    let account = service.account(Role::User).await;
    let other = service.signed_in(account.id).await;
    other.client.get("/api/users/me").await.expect(200);
    let (authenticator, _) = enable(&account, &time).await;
    other.client.get("/api/users/me").await.expect(401);
    let refresh = json!({"refresh_token": other.refresh_token});
    assert_eq!(service.stranger().post("/api/auth/refresh", &refresh).await.expect(401).code(), "invalid_refresh_token");
    account.client.get("/api/users/me").await.expect(200);
    let signed = sign_in(&service.stranger(), &email(&account).await, Some(&authenticator.code())).await.expect(200).data();
    // A refresh is no sign-in: it asks for nothing.
    service.stranger().post("/api/auth/refresh", &json!({"refresh_token": signed["refresh_token"]})).await.expect(200);
}

async fn what_is_not_confirmed_in_time_is_asked_of_nobody(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[]).await;
    let account = service.account(Role::User).await;
    let first = begin(&account.client).await.expect(200).data();
    let first = Authenticator::new(first["secret"].as_str().unwrap(), time.clock());
    let second = begin(&account.client).await.expect(200).data();
    let second = Authenticator::new(second["secret"].as_str().unwrap(), time.clock());
    refused(account.client.post("/api/auth/totp/confirm", &json!({"code": first.code()})).await, "invalid_second_factor");
    time.pass(15 * 60 + 1);
    // The access token has expired with it.
    let again = service.signed_in(account.id).await;
    assert_eq!(again.client.post("/api/auth/totp/confirm", &json!({"code": second.code()})).await.expect(404).code(), "second_factor_not_found");
    sign_in(&service.stranger(), &email(&again).await, None).await.expect(200);
}

async fn wrong_codes_slow_down_and_only_for_their_account(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[]).await;
    let (account, other) = (service.account(Role::User).await, service.account(Role::User).await);
    let (authenticator, _) = enable(&account, &time).await;
    let (of_other, _) = enable(&other, &time).await;
    let (address, stranger) = (email(&account).await, service.stranger());
    let mut refusals = 0;
    let late = loop {
        let answer = sign_in(&stranger, &address, Some(&authenticator.wrong())).await;
        if answer.status == 429 {
            break answer;
        }
        refused(answer, "invalid_second_factor");
        refusals += 1;
        assert!(refusals < 20, "nothing stops the guesses");
    };
    assert_eq!((late.code().as_str(), late.header("retry-after").is_some()), ("too_many_attempts", true));
    assert!(refusals >= 10, "as many are free where the account is known: {refusals}");
    let told =
        format!("SELECT count(*) AS n FROM audit WHERE action = 'second_factor.denied' AND actor_kind = 'stranger' AND subject = '{}'", account.id);
    within(Duration::from_secs(5), "whoever guesses codes has the password: each try is told", || async { ground.number(&told).await == refusals })
        .await;
    // A sign-in that shows none guesses nothing, and the account beside it is none of this.
    refused(sign_in(&stranger, &address, None).await, "second_factor_required");
    sign_in(&stranger, &email(&other).await, Some(&of_other.code())).await.expect(200);
}

async fn an_administrator_removes_the_second_factor_of_another(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[]).await;
    let (admin, account, user) = (service.admin().await.client, service.account(Role::User).await, service.account(Role::User).await);
    enable(&account, &time).await;
    let path = format!("/api/users/{}/totp", account.id);
    assert_eq!(user.client.delete(&path).await.expect(403).code(), "forbidden");
    assert_eq!(account.client.delete(&path).await.expect(403).code(), "forbidden");
    admin.delete(&path).await.expect(204);
    assert_eq!(admin.delete(&path).await.expect(404).code(), "second_factor_not_found");
    assert_eq!(admin.delete(&format!("/api/users/{}/totp", uuid::Uuid::new_v4())).await.expect(404).code(), "user_not_found");
    sign_in(&service.stranger(), &email(&account).await, None).await.expect(200);
    assert_eq!(ground.number("SELECT count(*) AS n FROM jobs WHERE unique_key LIKE 'second_factor_changed:%'").await, 2, "its owner is told");
}

async fn the_secret_is_shown_once_and_kept_sealed(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[]).await;
    let account = service.account(Role::User).await;
    let headers = [("content-type", "application/json"), ("accept-encoding", "gzip")];
    let body = json!({"password": PASSWORD}).to_string();
    let begun = account.client.ask("POST", "/api/auth/totp", &headers, body.as_bytes()).await.expect(200);
    let authenticator = Authenticator::new(begun.data()["secret"].as_str().unwrap(), time.clock());
    let body = json!({"code": authenticator.code()}).to_string();
    let confirmed = account.client.ask("POST", "/api/auth/totp/confirm", &headers, body.as_bytes()).await.expect(200);
    for answer in [&begun, &confirmed] {
        assert_eq!((answer.header("cache-control"), answer.header("content-encoding")), (Some("no-store"), None));
    }
    let shown = account.client.get("/api/auth/totp").await.expect(200).text();
    assert!(!shown.contains(begun.data()["secret"].as_str().unwrap()), "{shown}");
    assert_eq!(ground.number("SELECT count(*) AS n FROM second_factors WHERE sealed LIKE 's1.%'").await, 1);
    assert_eq!(ground.number("SELECT count(*) AS n FROM recovery_codes WHERE length(hash) = 64").await, 10);
    // One account's secret does not open for another.
    let thief = service.account(Role::User).await;
    let copied = "INSERT INTO second_factors (user_id, sealed, last_used_step, created_at, enabled_at) SELECT";
    ground.execute(&format!("{copied} '{}', sealed, 0, created_at, enabled_at FROM second_factors", thief.id)).await;
    time.pass(30);
    let answer = sign_in(&service.stranger(), &email(&thief).await, Some(&authenticator.code())).await.expect(503);
    assert_eq!(answer.code(), "second_factor_unavailable");
}

const SECRETS: [&str; 2] = ["the first secret of the tests 0123456789", "the second secret of the tests 012345678"];

async fn secrets_of_the_service_are_exchanged_without_locking_anybody_out(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[("SEAL_SECRET", SECRETS[0])]).await;
    let account = service.account(Role::User).await;
    let (authenticator, _) = enable(&account, &time).await;
    let email = email(&account).await;
    service.end().await;
    for secrets in [format!("{}, {}", SECRETS[1], SECRETS[0]), SECRETS[1].to_owned()] {
        let service = ground.start_at(time.clock(), &[("SEAL_SECRET", &secrets)]).await;
        sign_in(&service.stranger(), &email, Some(&authenticator.code())).await.expect(200);
        time.pass(30);
        service.end().await;
    }
}

async fn prepared(ground: &Ground, pairs: &[(&str, &str)]) -> Result<(), String> {
    let pairs = ground.pairs(pairs);
    let (settings, _) = Settings::read(Reader::from_pairs(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))).unwrap();
    life::prepare(settings, Clock::system()).await.map(drop).map_err(|error| error.to_string())
}

async fn production_without_a_secret_offers_no_second_factor_and_does_not_start_if_there_are_any(ground: Arc<Ground>) {
    let production = ("APP_ENV", "production");
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[production]).await;
    let account = service.account(Role::User).await;
    assert_eq!(begin(&account.client).await.expect(503).code(), "second_factor_unavailable");
    let none: Value = account.client.get("/api/auth/totp").await.expect(200).data();
    assert_eq!(none["enabled"], false);
    service.end().await;
    let service = ground.start_at(time.clock(), &[production, ("SEAL_SECRET", SECRETS[0])]).await;
    enable(&service.signed_in(account.id).await, &time).await;
    service.end().await;
    for (pairs, word) in [(vec![production], "is not set"), (vec![production, ("SEAL_SECRET", SECRETS[1])], "lacks")] {
        let refusal = prepared(&ground, &pairs).await.unwrap_err();
        assert!(refusal.contains("SEAL_SECRET") && refusal.contains(word), "{refusal}");
    }
    prepared(&ground, &[production, ("SEAL_SECRET", SECRETS[0])]).await.unwrap();
    let short = format!("{},a short one", SECRETS[0]);
    let pairs = ground.pairs(&[("SEAL_SECRET", &short)]);
    let problems = Settings::read(Reader::from_pairs(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))).unwrap_err().to_string();
    assert!(problems.contains("SEAL_SECRET") && !problems.contains("a short one"), "{problems}");
}
