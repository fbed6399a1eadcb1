//! Who may read our answers from a page of another origin.

use axum::Router;
use axum::routing::post;
use mainstay::config::Origins;
use mainstay::testing::{Answer, StackSettings, TestServer, request, routes};

fn start(any: bool, list: &[&str], credentials: bool) -> TestServer {
    let origins = Origins { any, list: list.iter().map(|origin| (*origin).to_owned()).collect() };
    let router = Router::new().route("/items", post(async || "made"));
    // One request in 15 min: a preflight that were counted would be seen at once.
    let settings = StackSettings { origins, credentials, rate_limit_max: 1, ..StackSettings::default() };
    TestServer::start(routes(router, &["POST /items"], &[]), settings)
}

fn listed() -> TestServer {
    start(false, &["https://app.example.com", "http://localhost:5173"], true)
}

async fn preflight(server: &TestServer, fields: &[(&str, &str)]) -> Answer {
    server.exchange(request("OPTIONS", "/items", &[&[("Access-Control-Request-Method", "POST")], fields].concat(), "")).await
}

fn granted(answer: &Answer) -> Vec<&str> {
    answer.all("access-control-allow-origin")
}

#[tokio::test]
async fn an_origin_is_compared_whole() {
    let server = listed();
    for origin in ["https://app.example.com", "http://localhost:5173"] {
        let answer = preflight(&server, &[("Origin", origin)]).await;
        assert_eq!((answer.status, granted(&answer)), (204, vec![origin]));
        assert_eq!(answer.all("access-control-allow-credentials"), ["true"]);
        let answer = server.exchange(request("POST", "/items", &[("Origin", origin)], "")).await;
        assert_eq!(granted(&answer), [origin], "{}", answer.status);
    }
    for stranger in [
        "http://app.example.com",
        "https://example.com",
        "https://sub.app.example.com",
        "https://evilapp.example.com",
        "https://app.example.com.evil.example",
        "https://app.example.comm",
        "https://appXexample.com",
        "https://app.example.com:443",
        "https://app.example.com:8443",
        "https://app.example.com/",
        "https://app.example.com@evil.example",
        // What browsers send is in lower case: this was sent by something else.
        "https://APP.example.com",
        "HTTPS://app.example.com",
        "http://localhost",
        "http://localhost:517",
        "http://localhost:51730",
        "https://app.example.com, https://evil.example",
        "https://evil.example https://app.example.com",
        "app.example.com",
        "null",
        "*",
        "",
    ] {
        for answer in
            [preflight(&server, &[("Origin", stranger)]).await, server.exchange(request("POST", "/items", &[("Origin", stranger)], "")).await]
        {
            let told: Vec<_> = answer.headers.iter().filter(|(name, _)| name.starts_with("access-control-")).collect();
            assert!(told.is_empty(), "{stranger}: {told:?}");
            assert!(answer.lists("vary", "Origin"), "{stranger}: a cache must not give this to the origin that is let in");
        }
    }
}

#[tokio::test]
async fn without_an_origin_nothing_is_granted_and_caches_are_told() {
    let answer = listed().exchange(request("POST", "/items", &[], "")).await;
    assert_eq!((granted(&answer), answer.lists("vary", "Origin")), (Vec::new(), true));
}

#[tokio::test]
async fn a_star_lets_everyone_read_and_nobody_send_credentials() {
    // Configuration refuses `*` with credentials; the layer by itself does not grant it either.
    for credentials in [false, true] {
        let server = start(true, &[], credentials);
        for origin in ["https://anything.example", "null"] {
            for answer in
                [preflight(&server, &[("Origin", origin)]).await, server.exchange(request("POST", "/items", &[("Origin", origin)], "")).await]
            {
                assert_eq!((granted(&answer), answer.header("access-control-allow-credentials")), (vec!["*"], None));
                assert!(!answer.lists("vary", "Origin"), "the answer is the same for every origin");
            }
        }
        assert_eq!(granted(&server.exchange(request("POST", "/items", &[], "")).await), Vec::<&str>::new());
    }
}

#[tokio::test]
async fn credentials_are_granted_only_when_they_are_set() {
    let server = start(false, &["https://app.example.com"], false);
    let answer = preflight(&server, &[("Origin", "https://app.example.com")]).await;
    assert_eq!((granted(&answer), answer.header("access-control-allow-credentials")), (vec!["https://app.example.com"], None));
}

#[tokio::test]
async fn a_preflight_is_told_the_methods_and_the_headers_it_asked_for() {
    let server = listed();
    let origin = ("Origin", "https://app.example.com");
    let long = "x-a,".repeat(300);
    for (asked, allowed) in [(Some("content-type, x-team"), Some("content-type, x-team")), (Some(long.as_str()), None), (None, None)] {
        let asked = asked.map(|names| ("Access-Control-Request-Headers", names));
        let answer = preflight(&server, &[&[origin], asked.as_slice()].concat()).await;
        assert_eq!(answer.header("access-control-allow-headers"), allowed);
        assert_eq!(answer.all("access-control-allow-methods"), ["GET, HEAD, POST, PUT, PATCH, DELETE"]);
        assert_eq!(answer.all("access-control-max-age"), ["86400"]);
        for part in ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"] {
            assert!(answer.lists("vary", part), "{part}");
        }
        assert!(answer.body.is_empty());
    }
}

#[tokio::test]
async fn a_preflight_costs_no_quota_and_reaches_no_route() {
    let server = listed();
    let origin = ("Origin", "https://app.example.com");
    for _ in 0..5 {
        let answer = preflight(&server, &[origin]).await;
        assert_eq!((answer.status, answer.header("ratelimit"), answer.header("allow")), (204, None, None));
    }
    assert_eq!(server.exchange(request("POST", "/items", &[origin], "")).await.status, 200);
    let refused = server.exchange(request("POST", "/items", &[origin], "")).await;
    assert_eq!((refused.status, granted(&refused)), (429, vec!["https://app.example.com"]));
    assert_eq!(preflight(&server, &[origin]).await.status, 204, "and passes while its client is limited");
    // Without the method it asks for, or without an origin, it is an ordinary OPTIONS, and counted.
    assert_eq!(server.exchange(request("OPTIONS", "/items", &[origin], "")).await.status, 429);
    assert_eq!(preflight(&server, &[]).await.status, 429);
}
