//! The built binary from its start to its end: what it refuses to start with, what it says, and that nobody loses an answer when it goes.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mainstay::store::query;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::Client;
use crate::ground::{ADMIN, Ground, PASSWORD, within};
use crate::process::{self, Server};

/// A debug build on a busy machine drains in well under this; what would hold it has limits of 30 s.
const PROMPT: Duration = Duration::from_secs(10);

on_both! {
    sigterm_under_load_loses_no_request
    a_request_in_flight_is_answered_before_the_end
    a_half_sent_request_does_not_hold_the_end
    a_second_signal_ends_at_once
    readiness_fails_during_the_drain_delay_while_requests_are_served
    a_restart_keeps_everything_and_tells_the_made_up_password_once
    logs_of_production_are_json_lines_without_secrets
    a_taken_port_is_told
}

mod only {
    use super::*;
    on_postgres! { a_start_whose_pools_do_not_fit_is_refused_with_the_sum }

    async fn a_start_whose_pools_do_not_fit_is_refused_with_the_sum(ground: Arc<Ground>) {
        let max_connections = ground.number("SELECT CAST(setting AS bigint) AS n FROM pg_settings WHERE name = 'max_connections'").await;
        let instances = (max_connections / 20 + 1).to_string();
        let output = process::run(&ground.pairs(&[("INSTANCES", &instances), ("DB_POOL_MAX", "20")]), &["serve"], b"");
        assert_eq!(output.status.code(), Some(69), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        // Each instance has one more that listens.
        let sum = ((max_connections / 20 + 1) * 21).to_string();
        for word in [instances.as_str(), "20", &sum, &max_connections.to_string()] {
            assert!(told.contains(word), "`{word}` is not told: {told}");
        }
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn everything_wrong_with_the_settings_is_told_at_once_and_no_secret() {
    let wrong = [
        ("APP_ENV", "produktion"),
        ("PORT", "99999"),
        ("REQUEST_TIMEOUT", "soon"),
        ("BODY_LIMIT", "huge"),
        ("ALLOWED_ORIGINS", "not an origin"),
        ("TRUSTED_PROXIES", "10.0.0.0/99"),
        ("DB_POOL_MAX", "0"),
        ("LOG_LEVEL", "loud"),
        ("JWT_SECRET", "marked-secret-1"),
        ("DATABASE_URL", "mysql://root:marked-secret-2@example.com/db"),
        ("REGISTRATION", "maybe"),
        ("ADMIN_EMAIL", "nobody"),
    ];
    let output = process::run(&pairs(&[&wrong[..], &[("ADMIN_PASSWORD", "marked3")]].concat()), &["serve"], b"");
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    for (name, _) in wrong {
        assert!(told.contains(&format!("\n  {name} ")), "{name} is not told: {told}");
    }
    assert!(told.contains("\n  ADMIN_PASSWORD "), "too short: {told}");
    assert!(!told.contains("marked") && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn production_without_a_key_does_not_start() {
    let output = process::run(&pairs(&[("APP_ENV", "production")]), &[], b"");
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("JWT_SECRET or JWT_KEYS_DIR is required in production"), "{output:?}");
}

/// Signs the first administrator in.
async fn signed_in(server: &Server) -> Client {
    let client = server.client();
    let signed = client.post("/api/auth/login", &json!({"email": ADMIN, "password": PASSWORD})).await.expect(200).data();
    client.with_token(signed["access_token"].as_str().unwrap())
}

async fn sigterm_under_load_loses_no_request(ground: Arc<Ground>) {
    let mut server = Server::start(&ground.pairs(&[]));
    let admin = signed_in(&server).await;
    let (answered, created, ending) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let clients = (0..8).map(|number| {
        // Each keeps a connection of its own.
        let client = server.client().with_token(admin.token());
        let (answered, created, ending) = (answered.clone(), created.clone(), ending.clone());
        tokio::spawn(async move {
            loop {
                let body = json!({"name": format!("By {number}")}).to_string();
                let (method, body) = if number % 2 == 0 { ("POST", body.as_bytes()) } else { ("GET", &b""[..]) };
                match client.attempt(method, "/api/products", &[("content-type", "application/json")], body).await {
                    Ok(answer) => {
                        assert!(answer.status == 200 || answer.status == 201, "{}", answer.text());
                        answered.fetch_add(1, Ordering::Relaxed);
                        created.fetch_add(usize::from(answer.status == 201), Ordering::Relaxed);
                    }
                    // Nobody listens any more: that is how a client learns of the end.
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused && ending.load(Ordering::Relaxed) => return,
                    Err(error) => panic!("a request was lost: {error}"),
                }
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    within(PROMPT, "the load runs", || async { answered.load(Ordering::Relaxed) > 100 }).await;
    ending.store(true, Ordering::Relaxed);
    server.signal(Signal::TERM);
    let (status, _) = server.wait(PROMPT);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(status.code(), Some(0), "{}", server.output());
    let products = ground.number("SELECT count(*) AS n FROM products").await;
    assert_eq!(products, created.load(Ordering::Relaxed) as i64, "what was answered was done, and what was done was answered");
}

/// A product whose row somebody else holds, and a client that waits to change it.
struct Held {
    transaction: mainstay::store::Transaction,
    waiting: tokio::task::JoinHandle<std::io::Result<crate::client::Answer>>,
    path: String,
}

async fn held(ground: &Ground, server: &Server) -> Held {
    let admin = signed_in(server).await;
    let path = admin.post("/api/products", &json!({"name": "Held"})).await.expect(201).header("location").unwrap().to_owned();
    let mut transaction = ground.database().await.begin(None).await.unwrap();
    query("UPDATE products SET type = 'held'").execute(&mut transaction).await.unwrap();
    let waiting = tokio::spawn({
        let path = path.clone();
        async move { admin.attempt("PATCH", &path, &[("content-type", "application/json")], br#"{"manufacturer":"Changed"}"#).await }
    });
    let management = Client::new(server.management);
    within(PROMPT, "the change waits", || async { management.get("/health").await.json()["writes_in_progress"] == 1 }).await;
    Held { transaction, waiting, path }
}

async fn a_request_in_flight_is_answered_before_the_end(ground: Arc<Ground>) {
    let mut server = Server::start(&ground.pairs(&[]));
    let Held { transaction, waiting, .. } = held(&ground, &server).await;
    server.signal(Signal::TERM);
    within(PROMPT, "nobody listens any more", || async { TcpStream::connect(server.public).await.is_err() }).await;
    assert!(!waiting.is_finished(), "the change is still waiting");
    transaction.commit().await.unwrap();
    let answer = waiting.await.unwrap().unwrap().expect(200);
    assert_eq!((&answer.data()["manufacturer"], answer.header("connection")), (&json!("Changed"), Some("close")));
    assert_eq!(server.wait(PROMPT).0.code(), Some(0), "{}", server.output());
    assert_eq!(ground.number("SELECT count(*) AS n FROM products WHERE manufacturer = 'Changed'").await, 1);
}

async fn a_half_sent_request_does_not_hold_the_end(ground: Arc<Ground>) {
    let mut server = Server::start(&ground.pairs(&[]));
    let mut head = TcpStream::connect(server.public).await.unwrap();
    head.write_all(b"GET /api/products HTTP/1.1\r\nhost: x\r\naccept").await.unwrap();
    let mut body = TcpStream::connect(server.public).await.unwrap();
    body.write_all(b"POST /api/auth/register HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"email\"")
        .await
        .unwrap();
    let silent = TcpStream::connect(server.public).await.unwrap();
    // Whoever is answered now came after them.
    server.client().get("/health/live").await.expect(200);
    server.signal(Signal::TERM);
    let (status, took) = server.wait(PROMPT);
    assert_eq!(status.code(), Some(0), "after {took:?}: {}", server.output());
    drop((head, body, silent));
}

async fn a_second_signal_ends_at_once(ground: Arc<Ground>) {
    let mut server = Server::start(&ground.pairs(&[]));
    let Held { transaction, waiting, path } = held(&ground, &server).await;
    server.signal(Signal::TERM);
    within(PROMPT, "the first signal was seen", || async { TcpStream::connect(server.public).await.is_err() }).await;
    server.signal(Signal::INT);
    let (status, took) = server.wait(PROMPT);
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(status.code(), Some(1), "something was cut: {}", server.output());
    assert!(waiting.await.unwrap().is_err(), "{path} was not answered");
    transaction.rollback().await.unwrap();
}

async fn readiness_fails_during_the_drain_delay_while_requests_are_served(ground: Arc<Ground>) {
    let mut server = Server::start(&ground.pairs(&[("DRAIN_DELAY", "2s")]));
    let client = server.client();
    client.get("/health/ready").await.expect(200);
    let begun = Instant::now();
    server.signal(Signal::TERM);
    within(Duration::from_secs(1), "readiness fails", || async { client.get("/health/ready").await.status == 503 }).await;
    let refused = client.get("/health/ready").await.expect(503);
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    while begun.elapsed() < Duration::from_millis(1500) {
        // On a kept connection and on a new one.
        client.get("/api/products").await.expect(200);
        server.client().get("/health/live").await.expect(200);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (status, _) = server.wait(PROMPT);
    assert_eq!(status.code(), Some(0), "{}", server.output());
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
}

async fn a_restart_keeps_everything_and_tells_the_made_up_password_once(ground: Arc<Ground>) {
    let settings = ground.pairs(&[("ADMIN_EMAIL", ""), ("ADMIN_PASSWORD", ""), ("JWT_SECRET", "")]);
    let mut server = Server::start(&settings);
    within(PROMPT, "the password is told", || async { server.output().contains(ADMIN) }).await;
    let told = server.output();
    let words: Vec<_> = told.lines().find(|line| line.contains(ADMIN)).unwrap().split_whitespace().collect();
    let password = (*words.last().unwrap()).to_owned();
    assert!(!server.log().contains(&password), "it is told to the terminal and not to the log");
    let sign_in = json!({"email": ADMIN, "password": password});
    let token = server.client().post("/api/auth/login", &sign_in).await.expect(200).data()["access_token"].as_str().unwrap().to_owned();
    let created = server.client().with_token(&token).post("/api/products", &json!({"name": "Lasting"})).await.expect(201).data();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(PROMPT).0.code(), Some(0));

    let server = Server::start(&settings);
    let client = server.client();
    let shown = client.get(&format!("/api/products/{}", created["id"].as_str().unwrap())).await.expect(200).data();
    assert_eq!(shown, created);
    assert_eq!(client.get("/api/products/search?q=lasting").await.expect(200).data()[0]["id"], created["id"]);
    client.post("/api/auth/login", &sign_in).await.expect(200);
    client.with_token(&token).get("/api/users/me").await.expect(200);
    assert!(!server.output().contains(ADMIN) && !server.output().contains(&password), "{}", server.output());
}

async fn logs_of_production_are_json_lines_without_secrets(ground: Arc<Ground>) {
    let mut server = Server::start(&ground.pairs(&[("APP_ENV", "production"), ("LOG_LEVEL", "debug")]));
    let client = server.client();
    let marked = "marked-password-8c1f";
    let account = json!({"email": "marked-address@example.com", "name": "N", "password": marked});
    client.post("/api/auth/register", &account).await.expect(201);
    client.post("/api/auth/register", &account).await.expect(409);
    client.raw("POST", "/api/auth/register", format!("{{\"password\":\"{marked}\",").as_bytes()).await.expect(400);
    client.post("/api/auth/register", &json!({"email": "x", "name": "N", "password": marked, "colour": marked})).await.expect(400);
    client.post("/api/auth/login", &json!({"email": "nobody@example.com", "password": marked})).await.expect(401);
    let sign_in = json!({"email": "marked-address@example.com", "password": marked});
    let token = client.post("/api/auth/login", &sign_in).await.expect(200).data()["access_token"].as_str().unwrap().to_owned();
    let signed = client.with_token(&token);
    signed.get("/api/users/me").await.expect(200);
    signed.get("/api/users").await.expect(403);
    signed.get(&format!("/api/products?access_token={token}")).await.expect(400);
    client.with_token(format!("{token}x")).get("/api/users/me").await.expect(401);
    signed.ask("GET", "/api/products", &[("cookie", "session=marked-cookie"), ("x-api-key", "marked-key")], b"").await.expect(200);
    client.ask("GET", "/nowhere%0aforged", &[("user-agent", "a\tb")], b"").await.expect(404);
    server.signal(Signal::TERM);
    assert_eq!(server.wait(PROMPT).0.code(), Some(0));
    // The lines come through a pipe, read by a thread.
    within(PROMPT, "the last line", || async { server.log().contains("\"ended\"") }).await;
    let log = server.log();
    let mut statuses = HashSet::new();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
        statuses.extend(line["status"].as_u64());
    }
    assert!([200, 201, 400, 401, 403, 404, 409].iter().all(|status| statuses.contains(status)), "{statuses:?}");
    for secret in [
        marked,
        token.as_str(),
        token.rsplit_once('.').unwrap().1,
        "marked-cookie",
        "marked-key",
        crate::ground::JWT_SECRET,
        PASSWORD,
        "marked-address",
    ] {
        assert!(
            !server.output().contains(secret),
            "`{secret}` is in the log: {}",
            log.lines().find(|line| line.contains(secret)).unwrap_or_default()
        );
    }
}

async fn a_taken_port_is_told(ground: Arc<Ground>) {
    let server = Server::start(&ground.pairs(&[]));
    let settings = ground.pairs(&[("PORT", &server.public.port().to_string())]);
    let output = tokio::task::spawn_blocking(move || process::run(&settings, &["serve"], b"")).await.unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("Cannot listen on {}", server.public)), "{output:?}");
    server.client().get("/health/live").await.expect(200);
}
