//! Every way out of the stack, over a real socket: each answer has its id, its headers and its one form, and is logged once and counted once.

// A test fails by panicking, in its helpers too.
#![allow(clippy::unwrap_used)]

#[path = "exits/forms.rs"]
mod forms;
#[path = "exits/service.rs"]
mod service;

use std::time::Duration;

use mainstay::client::Networks;
use mainstay::stack::BodyLimit;
use mainstay::testing::{Answer, StackSettings, TestServer, request};
use serde_json::Value;

use service::{ORIGIN, bearer, start};

/// What helmet 8 sends, and nothing else says.
const HELMET: [(&str, &str); 12] = [
    (
        "content-security-policy",
        "default-src 'self';base-uri 'self';font-src 'self' https: data:;form-action 'self';frame-ancestors 'self';img-src 'self' data:;object-src 'none';script-src 'self';script-src-attr 'none';style-src 'self' 'unsafe-inline';upgrade-insecure-requests",
    ),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("origin-agent-cluster", "?1"),
    ("referrer-policy", "no-referrer"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
    ("x-content-type-options", "nosniff"),
    ("x-dns-prefetch-control", "off"),
    ("x-download-options", "noopen"),
    ("x-frame-options", "SAMEORIGIN"),
    ("x-permitted-cross-domain-policies", "none"),
    ("x-xss-protection", "0"),
];

/// What the server is doing when the request comes.
#[derive(Clone, Copy, PartialEq)]
enum Scene {
    Idle,
    /// It works on as many requests as it takes.
    Busy,
    /// This client has used its quota up.
    Spent,
}

/// One way out.
struct Exit {
    name: &'static str,
    request: String,
    status: u16,
    code: Option<&'static str>,
    route: &'static str,
    scene: Scene,
    settings: StackSettings,
    /// The head never became a request, so nobody knows its origin or its id.
    unparsed: bool,
    /// Fields that this answer has beside all others.
    fields: &'static [(&'static str, &'static str)],
}

/// A request as a page of the allowed origin sends it.
fn from_page(name: &str, method: &str, target: &str, fields: &[(&str, &str)], body: &str) -> String {
    let own = [("Origin", ORIGIN), ("X-Request-Id", name)];
    request(method, target, &[&own, fields].concat(), body)
}

fn exit(name: &'static str, status: u16, code: &'static str, route: &'static str, request: String) -> Exit {
    let settings = StackSettings::default();
    Exit { name, request, status, code: Some(code), route, scene: Scene::Idle, settings, unparsed: false, fields: &[] }
}

fn get(name: &'static str, target: &str, status: u16, code: &'static str, route: &'static str) -> Exit {
    exit(name, status, code, route, from_page(name, "GET", target, &[], ""))
}

fn post(name: &'static str, fields: &[(&str, &str)], body: &str, status: u16, code: &'static str) -> Exit {
    exit(name, status, code, "/items", from_page(name, "POST", "/items", fields, body))
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Answers that a handler or the table of routes gives.
fn exits_of_routes() -> Vec<Exit> {
    let (user, as_user) = (bearer(), "you");
    vec![
        Exit { code: None, ..get("ok", "/ok", 200, "", "/ok") },
        Exit { request: from_page("head", "HEAD", "/ok", &[], ""), code: None, ..get("head", "/ok", 200, "", "/ok") },
        get("unknown-route", "/nope", 404, "route_not_found", "unknown"),
        exit("head-unknown", 404, "route_not_found", "unknown", from_page("head-unknown", "HEAD", "/nope", &[], "")),
        Exit {
            fields: &[("allow", "GET, HEAD, OPTIONS")],
            ..exit("other-method", 405, "method_not_allowed", "/ok", from_page("other-method", "DELETE", "/ok", &[], ""))
        },
        get("bad-id", "/items/7", 400, "invalid_path_parameter", "/items/{id}"),
        post("bad-json", &[JSON], "{", 400, "invalid_json"),
        post("wrong-field", &[JSON], r#"{"name":1}"#, 400, "validation_failed"),
        post("no-body", &[JSON], "", 400, "missing_body"),
        post("wrong-type", &[("Content-Type", "text/plain")], "name", 415, "unsupported_media_type"),
        Exit {
            fields: &[("accept-encoding", "identity"), ("connection", "close")],
            ..post("coded-body", &[JSON, ("Content-Encoding", "gzip")], "name", 415, "unsupported_media_type")
        },
        Exit { fields: &[("www-authenticate", "Bearer")], ..get("stranger", "/me", 401, "authentication_required", "/me") },
        Exit {
            request: from_page("bad-token", "GET", "/me", &[("Authorization", "Bearer x.y.z")], ""),
            fields: &[("www-authenticate", r#"Bearer error="invalid_token""#)],
            ..get("bad-token", "", 401, "invalid_token", "/me")
        },
        Exit { request: from_page(as_user, "GET", "/admin", &[("Authorization", &user)], ""), ..get(as_user, "", 403, "forbidden", "/admin") },
        get("panic-at-once", "/panic/at-once", 500, "internal_error", "/panic/at-once"),
        get("panic-later", "/panic/later", 500, "internal_error", "/panic/later"),
        get("fault", "/fault", 500, "internal_error", "/fault"),
    ]
}

/// Answers that a layer gives.
fn exits_of_layers() -> Vec<Exit> {
    let small = || StackSettings { body: BodyLimit::new(100).with_pace(Duration::from_millis(30), u64::MAX), ..StackSettings::default() };
    let announced = |name, bytes: usize| from_page(name, "POST", "/items", &[JSON, ("Content-Length", &bytes.to_string())], "");
    let chunked = from_page("chunked-body", "POST", "/items", &[JSON, ("Transfer-Encoding", "chunked")], "");
    let closes: &[_] = &[("connection", "close")];
    vec![
        Exit { request: announced("slow-body", 50), settings: small(), fields: closes, ..post("slow-body", &[], "", 408, "request_timeout") },
        Exit { request: announced("large-body", 101), settings: small(), fields: closes, ..post("large-body", &[], "", 413, "payload_too_large") },
        Exit {
            request: format!("{chunked}65\r\n{}\r\n", "x".repeat(0x65)),
            settings: small(),
            fields: closes,
            ..post("chunked-body", &[], "", 413, "payload_too_large")
        },
        Exit {
            scene: Scene::Spent,
            settings: StackSettings { rate_limit_max: 1, ..StackSettings::default() },
            fields: &[("ratelimit-policy", r#""address";q=1;w=900"#)],
            ..get("limited", "/ok", 429, "rate_limited", "/ok")
        },
        Exit {
            scene: Scene::Busy,
            settings: StackSettings { concurrency_max: 1, ..StackSettings::default() },
            fields: &[("retry-after", "1")],
            ..get("busy", "/ok", 503, "overloaded", "/ok")
        },
        Exit {
            settings: StackSettings { budget: Duration::from_millis(30), ..StackSettings::default() },
            ..get("too-late", "/never", 504, "deadline_exceeded", "/never")
        },
        Exit {
            request: from_page("preflight", "OPTIONS", "/items", &[("Access-Control-Request-Method", "POST")], ""),
            fields: &[("access-control-allow-methods", "GET, HEAD, POST, PUT, PATCH, DELETE"), ("access-control-max-age", "86400")],
            code: None,
            ..get("preflight", "", 204, "", "/items")
        },
        Exit {
            request: from_page("options", "OPTIONS", "/items", &[], ""),
            fields: &[("allow", "POST, OPTIONS")],
            code: None,
            ..get("options", "", 204, "", "/items")
        },
    ]
}

/// Answers to heads that are not HTTP, or too much of it.
fn exits_of_the_transport() -> Vec<Exit> {
    let long = "a".repeat(9000);
    let without_host = from_page("no-host", "GET", "/ok", &[], "").replace("Host: test.example\r\n", "");
    let preflight = [("Access-Control-Request-Method", "GET")];
    let many = [("X", "1"); 150];
    let at = |name, request, status, code, route| Exit { fields: &[("connection", "close")], ..exit(name, status, code, route, request) };
    let unparsed = |name, request, status, code| Exit { unparsed: true, ..at(name, request, status, code, "unknown") };
    vec![
        at("no-host", without_host, 400, "malformed_request", "/ok"),
        at(
            "no-host-preflight",
            from_page("no-host-preflight", "OPTIONS", "/ok", &preflight, "").replace("Host: test.example\r\n", ""),
            400,
            "malformed_request",
            "/ok",
        ),
        at(
            "two-lengths",
            from_page("two-lengths", "POST", "/items", &[("Content-Length", "4"), ("Transfer-Encoding", "chunked")], ""),
            400,
            "malformed_request",
            "/items",
        ),
        at("connect", from_page("connect", "CONNECT", "test.example:443", &[], ""), 501, "not_implemented", "unknown"),
        at("long-target", from_page("long-target", "GET", &format!("/{long}"), &[], ""), 414, "uri_too_long", "unknown"),
        unparsed("garbage", "\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), 400, "malformed_request"),
        unparsed("longer-target", format!("GET /{long}{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, "uri_too_long"),
        // What can be read of such a head counts all the same.
        at("large-field", from_page("large-field", "GET", "/ok", &[("X", &format!("{long}{long}"))], ""), 431, "headers_too_large", "unknown"),
        at("many-fields", from_page("many-fields", "GET", "/ok", &many, ""), 431, "headers_too_large", "unknown"),
    ]
}

#[tokio::test]
async fn every_answer_of_a_route_is_complete() {
    for exit in exits_of_routes() {
        leaves_complete(exit).await;
    }
}

#[tokio::test]
async fn every_answer_of_a_layer_is_complete() {
    for exit in exits_of_layers() {
        leaves_complete(exit).await;
    }
}

#[tokio::test]
async fn every_answer_of_the_transport_is_complete() {
    for exit in exits_of_the_transport() {
        leaves_complete(exit).await;
    }
}

async fn leaves_complete(exit: Exit) {
    let server = start(exit.settings.clone());
    let mut others = 0;
    let mut busy = server.connect().await;
    if exit.scene == Scene::Spent {
        assert_eq!(server.exchange(request("GET", "/ok", &[], "")).await.status, 200);
        others = 1;
    }
    if exit.scene == Scene::Busy {
        busy.write(request("GET", "/never", &[], "")).await.unwrap();
        service::wait_until(|| server.metrics().contains("mainstay_http_requests_in_flight 1")).await;
    }
    let answer = server.exchange(&exit.request).await;
    assert_eq!(answer.status, exit.status, "{}: {}", exit.name, answer.text());
    has_every_header(&exit, &answer);
    has_the_one_form(&exit, &answer);
    is_logged_once(&exit, &answer, &server).await;
    assert_eq!(server.count(exit.route, exit.status), 1, "{}: {}", exit.name, server.metrics());
    let all: u64 = server
        .metrics()
        .lines()
        .filter(|line| line.starts_with("mainstay_http_requests_total{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    assert_eq!(all, others + 1, "{}: counted once", exit.name);
}

fn has_every_header(exit: &Exit, answer: &Answer) {
    let name = exit.name;
    for (field, value) in HELMET.iter().chain(exit.fields) {
        assert_eq!(answer.all(field), [*value], "{name}: {field}");
    }
    for absent in ["server", "x-powered-by"] {
        assert_eq!(answer.header(absent), None, "{name}");
    }
    let ids = answer.all("x-request-id");
    assert_eq!(ids.len(), 1, "{name}: {ids:?}");
    assert!(answer.lists("vary", "Origin"), "{name}: {:?}", answer.all("vary"));
    if exit.unparsed {
        assert!(ids[0].len() == 32, "{name}: {ids:?}");
        return;
    }
    assert_eq!(ids, [name]);
    assert_eq!(answer.all("access-control-allow-origin"), [ORIGIN], "{name}");
    assert_eq!(answer.all("access-control-allow-credentials"), ["true"], "{name}");
    if name != "preflight" {
        assert!(answer.lists("access-control-expose-headers", "x-request-id"), "{name}");
    }
    if exit.status == 429 {
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((890..=908).contains(&wait), "{wait}");
        assert_eq!(answer.all("ratelimit"), [format!("\"address\";r=0;t={wait}")]);
    }
}

fn has_the_one_form(exit: &Exit, answer: &Answer) {
    let (name, Some(code)) = (exit.name, exit.code) else { return };
    assert_eq!(answer.all("content-type"), ["application/json"], "{name}");
    assert_eq!(answer.all("cache-control"), ["no-store"], "{name}");
    if exit.request.starts_with("HEAD") {
        assert!(answer.body.is_empty() && answer.header("content-length").is_some_and(|length| length != "0"), "{name}");
        return;
    }
    let body = answer.json();
    let mut members: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["code", "errors", "message", "request_id", "status", "timestamp"], "{name}");
    assert_eq!((body["status"].as_str(), body["code"].as_str()), (Some("error"), Some(code)), "{name}");
    assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"), "{name}");
    assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{name}");
    assert!(body["errors"].is_array(), "{name}");
    assert!(body["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{name}");
}

async fn is_logged_once(exit: &Exit, answer: &Answer, server: &TestServer) {
    let name = exit.name;
    let lines = server.logged(answer.header("x-request-id").unwrap()).await;
    assert_eq!(lines.len(), 1, "{name}: {lines:?}");
    let level = if exit.status >= 500 {
        "error"
    } else if exit.status >= 400 {
        "warn"
    } else {
        "info"
    };
    let line = &lines[0];
    assert_eq!((line["level"].as_str(), line["status"].as_u64()), (Some(level), Some(u64::from(exit.status))), "{name}");
    assert_eq!((line["route"].as_str(), line["code"].as_str()), (Some(exit.route), exit.code), "{name}");
    assert_eq!((line["message"].as_str(), line["address"].as_str()), (Some("request"), Some("127.0.0.1")), "{name}");
    let causes = &line["causes"];
    match name {
        "panic-at-once" => assert_eq!(causes[0], "panic: at once"),
        "panic-later" => assert_eq!(causes[0], "panic: later"),
        "fault" => assert_eq!(causes[0], "the disk is on fire"),
        "bad-token" => assert!(causes[0].as_str().is_some_and(|cause| cause.starts_with("access token: ")), "{causes}"),
        _ => assert_eq!(*causes, Value::Null, "{name}"),
    }
}

#[tokio::test]
async fn a_page_of_another_origin_gets_the_answer_without_leave_to_read_it() {
    let server = start(StackSettings::default());
    for method in ["GET", "OPTIONS"] {
        let fields = [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "GET")];
        let answer = server.exchange(request(method, "/ok", &fields, "")).await;
        assert!(matches!(answer.status, 200 | 204));
        assert!(answer.lists("vary", "Origin"), "{method}");
        let granted: Vec<_> = answer.headers.iter().filter(|(name, _)| name.starts_with("access-control-")).collect();
        assert!(granted.is_empty(), "{method}: {granted:?}");
        assert_eq!(server.count("/ok", answer.status), 1);
    }
}

#[tokio::test]
async fn whoever_waits_as_long_as_a_429_says_is_let_in() {
    let server = start(StackSettings { rate_limit_max: 1, rate_limit_window: Duration::from_millis(900), ..StackSettings::default() });
    assert_eq!(server.exchange(request("GET", "/ok", &[], "")).await.status, 200);
    let refused = server.exchange(request("GET", "/ok", &[], "")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let admitted = server.exchange(request("GET", "/ok", &[], "")).await;
    assert_eq!((admitted.status, admitted.header("ratelimit-policy")), (200, Some(r#""address";q=1;w=1"#)));
}

#[tokio::test]
async fn a_client_that_leaves_before_its_answer_is_seen_once_as_499() {
    let server = start(StackSettings { trusted: Networks::default(), ..StackSettings::default() });
    let mut client = server.connect().await;
    client.write(from_page("gone", "GET", "/never", &[], "")).await.unwrap();
    service::wait_until(|| server.metrics().contains("mainstay_http_requests_in_flight 1")).await;
    assert_eq!(server.log(), Vec::<Value>::new());
    drop(client);
    let lines = server.logged("gone").await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((lines[0]["status"].as_u64(), lines[0]["route"].as_str()), (Some(499), Some("/never")));
    assert_eq!(server.count("/never", 499), 1);
    assert!(server.metrics().contains("mainstay_http_requests_in_flight 0"));
}
