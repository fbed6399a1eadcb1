//! Before anything is measured: every peer gives the same answers, and a peer with a stack really has one.
//!
//! A benchmark rewards whoever leaves work out. So each peer answers every route once, its answers are compared member by
//! member, its refusals are tried, and its headers and its log lines are looked for. One gap ends the run.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::client::{self, Answer};
use crate::peer::{Name, Peer, Rig, Server, log_to};
use crate::route::{ORIGIN, Route};

/// Headers that every answer of a stack carries: request id, what helmet sends, CORS for the one allowed origin.
const STACK_HEADERS: [(&str, Option<&str>); 11] = [
    ("x-request-id", None),
    ("content-security-policy", None),
    ("cross-origin-opener-policy", Some("same-origin")),
    ("cross-origin-resource-policy", Some("same-origin")),
    ("referrer-policy", Some("no-referrer")),
    ("strict-transport-security", Some("max-age=31536000; includeSubDomains; preload")),
    ("x-content-type-options", Some("nosniff")),
    ("x-frame-options", Some("SAMEORIGIN")),
    ("access-control-allow-origin", Some(ORIGIN)),
    ("access-control-allow-credentials", Some("true")),
    ("vary", None),
];

/// How long a peer may take to write its log out after the answer.
const LOG_TIMEOUT: Duration = Duration::from_secs(3);

/// Compares all peers on all routes.
///
/// # Errors
/// Names the peer, the route and what differs.
pub(crate) async fn same_work(rig: &Rig, routes: &[Route]) -> anyhow::Result<()> {
    let mut expected: Vec<Option<Value>> = routes.iter().map(|_| None).collect();
    for peer in &rig.peers {
        let mut log = tempfile::NamedTempFile::new()?;
        let server = rig.start(peer, log_to(Some(log.reopen()?))).await?;
        let mut sent = 0;
        for (route, expected) in routes.iter().zip(&mut expected) {
            if route.compressed && !peer.name.has_stack() {
                continue;
            }
            let context = || format!("{}, route {}", peer.name.title(), route.name);
            let value = right_answer(&server, route).await.with_context(context)?;
            match expected {
                Some(expected) => ensure!(*expected == value, "{}: answers {value}, the peer before {expected}", context()),
                None => *expected = Some(value),
            }
            sent += 1;
        }
        sent += refusals(&server, routes).await.with_context(|| peer.name.title().to_owned())?;
        if peer.name.has_stack() {
            wait_for_log(&mut log, sent, peer).await?;
        }
        server.stop().await?;
    }
    println!("Checked ({}): the same answers; stacks send their headers, refuse what they must and log every request.", titles(rig));
    Ok(())
}

fn titles(rig: &Rig) -> String {
    rig.peers.iter().map(|peer| peer.name.title()).collect::<Vec<_>>().join(", ")
}

/// The answer to the route's first request, if it is what it must be.
async fn right_answer(server: &Server, route: &Route) -> anyhow::Result<Value> {
    let answer = client::send(server.port, route.method, route.first_path(), &route.headers, route.body).await?;
    ensure!(answer.status == 200, "status {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    ensure!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")), "the answer is not JSON");
    let compressed = answer.header("content-encoding") == Some("gzip");
    ensure!(compressed == route.compressed, "compressed: {compressed}, asked for: {}", route.compressed);
    stack_headers(server.name, &answer)?;
    let value: Value = serde_json::from_slice(&answer.body)?;
    ensure!(value.get("status").and_then(Value::as_str) == Some("success"), "not the envelope: {value}");
    Ok(value)
}

fn stack_headers(name: Name, answer: &Answer) -> anyhow::Result<()> {
    if !name.has_stack() {
        return Ok(());
    }
    for (header, expected) in STACK_HEADERS {
        let found = answer.header(header).with_context(|| format!("a {} without {header}", answer.status))?;
        ensure!(expected.is_none_or(|expected| found == expected), "{header}: {found}, expected {expected:?}");
    }
    ensure!(answer.has_header_like("ratelimit"), "the answer says nothing of the rate limit");
    Ok(())
}

/// What every peer must refuse; returns how many requests that took.
async fn refusals(server: &Server, routes: &[Route]) -> anyhow::Result<usize> {
    let json = [("content-type", "application/json".to_owned()), ("origin", ORIGIN.to_owned())];
    let invalid = r#"{"email":"nobody","sku":"SKU-1","quantity":1,"price":"1.20","note":"","tags":[]}"#;
    let mut tries = vec![("GET", "/api/nope", None, 404), ("POST", "/api/echo", Some("{"), 400), ("POST", "/api/echo", Some(invalid), 400)];
    if server.name.has_stack() {
        let signed_in = routes.iter().filter(|route| route.signed_in);
        tries.extend(signed_in.map(|route| (route.method, route.first_path(), None, 401)));
    }
    for (method, path, body, status) in &tries {
        let answer = client::send(server.port, method, path, &json, *body).await?;
        ensure!(answer.status == *status, "{method} {path} is {} and not {status}", answer.status);
        // The rate limit is not asked here: a stack may answer a stranger's route before it counts.
        if server.name.has_stack() {
            ensure!(answer.header("strict-transport-security").is_some(), "{method} {path}: a {status} without security headers");
        }
    }
    Ok(tries.len())
}

async fn wait_for_log(log: &mut tempfile::NamedTempFile, lines_least: usize, peer: &Peer) -> anyhow::Result<()> {
    let deadline = Instant::now() + LOG_TIMEOUT;
    loop {
        let text = std::fs::read_to_string(log.path())?;
        let lines = text.lines().filter(|line| line.starts_with('{') && line.contains("/api/")).count();
        if lines >= lines_least {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{} logged {lines} of {lines_least} requests", peer.name.title());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
