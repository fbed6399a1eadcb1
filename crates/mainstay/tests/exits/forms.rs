//! The forms that a failure takes: problem details on request, causes in development only, and nobody else's words.

use mainstay::error::Detail;
use mainstay::stack::BodyLimit;
use mainstay::testing::{Answer, StackSettings, request};

use super::service::{ORIGIN, start};

const PROBLEM: (&str, &str) = ("Accept", "application/problem+json");

#[tokio::test]
async fn who_asks_for_problem_details_gets_rfc_9457() {
    let server = start(StackSettings::default());
    for (target, status, code, title) in [
        ("/nope", 404, "route_not_found", "Route not found"),
        ("/items/7", 400, "invalid_path_parameter", "Invalid path parameter"),
        ("/panic/later", 500, "internal_error", "Internal server error"),
        ("/teapot", 418, "malformed_request", "Malformed request"),
    ] {
        let answer = server.exchange(request("GET", target, &[PROBLEM], "")).await;
        assert_eq!((answer.status, answer.all("content-type")), (status, vec!["application/problem+json"]), "{target}");
        let body = answer.json();
        assert_eq!(body["type"], format!("urn:mainstay:error:{code}"));
        assert_eq!((body["title"].as_str(), body["code"].as_str()), (Some(title), Some(code)), "{target}");
        assert_eq!(body["status"], status, "RFC 9457, 3.1.2: the member says what the status line says");
        assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"), "{target}");
        assert!(body["detail"].is_string() && body["errors"].is_array(), "{target}");
    }
}

#[tokio::test]
async fn causes_are_told_in_development_and_to_nobody_else() {
    for (detail, told) in [(Detail::Causes, true), (Detail::Message, false)] {
        let server = start(StackSettings { detail, ..StackSettings::default() });
        for (target, cause) in [("/fault", "the disk is on fire"), ("/panic/at-once", "panic: at once"), ("/panic/later", "panic: later")] {
            for fields in [&[][..], &[PROBLEM]] {
                let answer = server.exchange(request("GET", target, fields, "")).await;
                assert_eq!(answer.json()["causes"][0] == cause, told, "{target} {detail:?}");
                assert_eq!(answer.text().contains(cause), told, "{target} {detail:?}");
                assert!(answer.text().contains("Internal server error"), "{target}");
            }
        }
    }
}

fn is_ours(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.all("content-type")), (status, vec!["application/json"]));
    assert_eq!(answer.json()["code"], code, "{}", answer.text());
    assert_eq!(answer.json()["request_id"].as_str(), answer.header("x-request-id"));
}

#[tokio::test]
async fn an_error_in_other_words_comes_out_in_ours() {
    let server = start(StackSettings::default());
    is_ours(&server.exchange(request("GET", "/teapot", &[], "")).await, 418, "malformed_request");
    let json = [("Content-Type", "application/json")];
    let rejected = server.exchange(request("POST", "/rejected", &json, r#"{"name":7}"#)).await;
    is_ours(&rejected, 422, "malformed_request");
    assert!(!rejected.text().contains("deserialize"), "{}", rejected.text());
    is_ours(&server.exchange(request("POST", "/rejected", &json, "{")).await, 400, "malformed_request");
    is_ours(&server.exchange(request("POST", "/rejected", &[], "{}")).await, 415, "unsupported_media_type");
}

#[tokio::test]
async fn the_fields_of_other_words_stay_and_what_described_those_words_goes() {
    let server = start(StackSettings::default());
    for coding in ["identity", "gzip", "zstd"] {
        let answer = server.exchange(request("GET", "/foreign", &[("Origin", ORIGIN), ("Accept-Encoding", coding)], "")).await;
        is_ours(&answer, 409, "malformed_request");
        assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"], "{coding}");
        assert!(answer.lists("vary", "Accept-Language") && answer.lists("vary", "Origin"), "{coding}: {:?}", answer.all("vary"));
        assert_eq!(answer.header("content-encoding"), None, "{coding}: the new words are not compressed");
        assert_eq!(answer.header("etag"), None, "{coding}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_whoever_reads_it() {
    let server = start(StackSettings { body: BodyLimit::new(100), ..StackSettings::default() });
    let fields = [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")];
    for target in ["/items", "/rejected"] {
        let answer = server.exchange(request("POST", target, &fields, "") + "65\r\n" + &" ".repeat(0x65) + "\r\n").await;
        is_ours(&answer, 413, "payload_too_large");
        assert_eq!(answer.header("connection"), Some("close"), "{target}");
    }
}
