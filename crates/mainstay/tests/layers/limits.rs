//! Who is counted as whom, what is counted, and who passes all the same.

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use mainstay::client::Networks;
use mainstay::testing::{Answer, StackSettings, TestServer, request, routes};

fn networks(list: &[&str]) -> Networks {
    Networks::new(list.iter().map(|network| network.parse().unwrap()).collect())
}

/// Two requests of a client in 15 min; the test is a proxy that is believed, so it can be any client.
fn two_each() -> StackSettings {
    let (trusted, exempt) = (networks(&["127.0.0.0/8", "10.0.0.0/8"]), networks(&["198.51.100.0/24", "2001:db8:ee::/48"]));
    StackSettings { trusted, exempt, rate_limit_max: 2, ..StackSettings::default() }
}

fn start(settings: StackSettings) -> TestServer {
    let router = Router::new()
        .route("/", get(async || "fine"))
        .route("/items", post(async || "made"))
        .route("/health", get(async || "well"))
        .route("/never", get(async || std::future::pending::<()>().await));
    TestServer::start(routes(router, &["GET /", "POST /items", "GET /health", "GET /never"], &["/health"]), settings)
}

async fn ask(server: &TestServer, method: &str, target: &str, forwarded: &str) -> Answer {
    server.exchange(request(method, target, &[("X-Forwarded-For", forwarded)], "")).await
}

async fn statuses(server: &TestServer, forwarded: &[&str]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for client in forwarded {
        statuses.push(ask(server, "GET", "/", client).await.status);
    }
    statuses
}

#[tokio::test]
async fn one_client_is_one_whatever_it_writes_of_itself() {
    let server = start(two_each());
    assert_eq!(statuses(&server, &["203.0.113.1", "203.0.113.1", "203.0.113.1"]).await, [200, 200, 429]);
    let other_spellings = ["6.6.6.6, 203.0.113.1", "198.51.100.7, 203.0.113.1", "203.0.113.1, 10.0.0.9", "::ffff:203.0.113.1", "203.0.113.1:4711"];
    assert_eq!(statuses(&server, &other_spellings).await, [429; 5]);
    assert_eq!(statuses(&server, &["203.0.113.2", "203.0.113.2", "203.0.113.2"]).await, [200, 200, 429], "another client has a quota of its own");
}

#[tokio::test]
async fn an_ipv6_network_of_one_customer_is_one_client() {
    let server = start(two_each());
    assert_eq!(statuses(&server, &["2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "[2001:db8:1:2::3]:443"]).await, [200, 200, 429]);
    assert_eq!(statuses(&server, &["2001:db8:1:3::1"]).await, [200]);
}

#[tokio::test]
async fn without_a_trusted_proxy_the_header_is_hearsay() {
    let server = start(StackSettings { trusted: networks(&["10.0.0.0/8"]), ..two_each() });
    assert_eq!(statuses(&server, &["203.0.113.1", "203.0.113.2", "198.51.100.7"]).await, [200, 200, 429]);
}

#[tokio::test]
async fn who_is_on_the_list_has_no_limit_and_is_told_of_none() {
    let server = start(two_each());
    for client in ["198.51.100.7", "2001:db8:ee:1::1"] {
        for _ in 0..5 {
            let answer = ask(&server, "GET", "/", client).await;
            assert_eq!((answer.status, answer.header("ratelimit"), answer.header("ratelimit-policy")), (200, None, None), "{client}");
        }
    }
    // The same by its own address, without a proxy.
    let server = start(StackSettings { exempt: networks(&["127.0.0.1/32"]), trusted: Networks::default(), ..two_each() });
    assert_eq!(statuses(&server, &["203.0.113.1"; 5]).await, [200; 5]);
}

#[tokio::test]
async fn every_request_counts_whatever_it_was_and_the_rest_is_told() {
    for (method, target, status) in
        [("HEAD", "/", 200), ("POST", "/items", 200), ("GET", "/nope", 404), ("DELETE", "/", 405), ("OPTIONS", "/", 204), ("POST", "/health", 405)]
    {
        let server = start(two_each());
        for rest in [1, 0] {
            let answer = ask(&server, method, target, "203.0.113.1").await;
            assert_eq!((answer.status, answer.all("ratelimit-policy")), (status, vec![r#""address";q=2;w=900"#]), "{method} {target}");
            assert!(answer.header("ratelimit").unwrap().starts_with(&format!("\"address\";r={rest};t=")), "{method} {target}");
        }
        assert_eq!(ask(&server, method, target, "203.0.113.1").await.status, 429, "{method} {target}");
    }
}

#[tokio::test]
async fn health_passes_while_its_client_is_limited_and_costs_nothing() {
    let server = start(two_each());
    for round in 0..3 {
        for method in ["GET", "HEAD"] {
            let answer = ask(&server, method, "/health", "203.0.113.1").await;
            assert_eq!((answer.status, answer.header("ratelimit")), (200, None), "{round}");
        }
        assert_eq!(ask(&server, "GET", "/", "203.0.113.1").await.status, if round < 2 { 200 } else { 429 });
    }
}

#[tokio::test]
async fn a_refusal_for_overload_costs_no_quota_and_health_passes_it_too() {
    let server = start(StackSettings { concurrency_max: 1, ..two_each() });
    let mut busy = server.connect().await;
    busy.write(request("GET", "/never", &[("X-Forwarded-For", "203.0.113.9")], "")).await.unwrap();
    let working = || server.metrics().contains("mainstay_http_requests_in_flight 1");
    tokio::time::timeout(Duration::from_secs(10), async {
        while !working() {
            tokio::time::sleep(Duration::from_millis(1)).await
        }
    })
    .await
    .unwrap();
    for _ in 0..5 {
        let answer = ask(&server, "GET", "/", "203.0.113.1").await;
        assert_eq!((answer.status, answer.header("ratelimit")), (503, None));
        let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=30).contains(&after), "{after}");
        assert_eq!(ask(&server, "GET", "/health", "203.0.113.1").await.status, 200);
    }
    drop(busy);
    // The place is free again when the end of the one who left has been counted.
    tokio::time::timeout(Duration::from_secs(10), async {
        while server.count("/never", 499) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await
        }
    })
    .await
    .unwrap();
    assert_eq!(statuses(&server, &["203.0.113.1"; 3]).await, [200, 200, 429]);
}
