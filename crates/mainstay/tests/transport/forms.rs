//! What is not well-formed is refused, in the form of the service, and what is legal is served.

use std::time::Duration;

use futures_util::future::join_all;
use mainstay::serve::Limits;
use tokio::io::AsyncWriteExt;

use crate::server::{GET, SECOND, Server, to_end};

/// Requests that must be refused: `{H}` stands for a good Host line.
fn malformed() -> Vec<String> {
    let mut cases: Vec<String> = Vec::new();
    for line in [
        "GET /x",
        "GET  /x HTTP/1.1",
        "GET /x  HTTP/1.1",
        "GET /x HTTP/1.1 ",
        " GET /x HTTP/1.1",
        "GET /x HTTP/1.2",
        "GET /x HTTP/2.0",
        "GET /x HTTP/0.9",
        "GET /x HTTP/11",
        "GET /x http/1.1",
        "GET /x HTP/1.1",
        "GET /x HTTP/1.1x",
        "GET /x HTTP 1.1",
        "G\0T /x HTTP/1.1",
        "GET /x\0 HTTP/1.1",
        "GET /x y HTTP/1.1",
        "GET\t/x HTTP/1.1",
        "GET /x\tHTTP/1.1",
        "GET /x\x7f HTTP/1.1",
        "G(T /x HTTP/1.1",
        "GET x HTTP/1.1",
        "GET * HTTP/1.1",
        "GET ftp://a/x HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET http://u@a/x HTTP/1.1",
        "CONNECT a:80 HTTP/1.1",
        "CONNECT /x HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET /x#f HTTP/1.1",
        "GET HTTP/1.1",
        "/x HTTP/1.1",
        ": /x HTTP/1.1",
        "GET /x\r HTTP/1.1",
        "GET \r/x HTTP/1.1",
        "GET /x HTTP/1.1\r",
    ] {
        cases.push(format!("{line}\r\n{{H}}\r\n"));
    }
    for fields in [
        // Host
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nhost: b\r\n",
        "Host:\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: u@a\r\n",
        "Host: a,b:c\r\n",
        "Host: a:x\r\n",
        "Host: [::1\r\n",
        "Host: a\\b\r\n",
        "Host: a?b\r\n",
        // Lines
        "Host : a\r\n",
        "Host\t: a\r\n",
        "{H}X : y\r\n",
        " X: y\r\n{H}",
        "{H}X: y\r\n z\r\n",
        "{H}X: y\r\n\tz\r\n",
        "{H}: y\r\n",
        "{H}X y: z\r\n",
        "{H}X\0: y\r\n",
        "{H}X: a\0b\r\n",
        "{H}X: a\rb\r\n",
        "{H}X\r\n",
        "{H}X(: y\r\n",
        "{H}\u{e9}: y\r\n",
        "{H}X: a\u{1}b\r\n",
        "{H}X: a\u{7f}b\r\n",
        "{H}X: y\n",
        "Host: a\nX: y\r\n",
        "{H}X: y\r\n\r",
        "{H}\r",
        // Lengths
        "{H}Content-Length: -1\r\n",
        "{H}Content-Length: +1\r\n",
        "{H}Content-Length: 1a\r\n",
        "{H}Content-Length: 0x1\r\n",
        "{H}Content-Length: 1 2\r\n",
        "{H}Content-Length: 1, 2\r\n",
        "{H}Content-Length: 1.0\r\n",
        "{H}Content-Length:\r\n",
        "{H}Content-Length: 99999999999999999999\r\n",
        "{H}Content-Length: 1\r\nContent-Length: 2\r\n",
        "{H}Content-Length: ,1\r\n",
        // Transfer codings
        "{H}Transfer-Encoding: gzip\r\n",
        "{H}Transfer-Encoding: chunked, chunked\r\n",
        "{H}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "{H}Transfer-Encoding: gzip, chunked\r\n",
        "{H}Transfer-Encoding: chunked, gzip\r\n",
        "{H}Transfer-Encoding: identity\r\n",
        "{H}Transfer-Encoding:\r\n",
        "{H}Transfer-Encoding: xchunked\r\n",
        "{H}Transfer-Encoding: chunked;q=1\r\n",
        "{H}Transfer-Encoding: \"chunked\"\r\n",
        "{H}Transfer-Encoding: \u{b}chunked\r\n",
        "{H}Transfer-Encoding : chunked\r\n",
        "{H}Transfer-Encoding:\r\n chunked\r\n",
        "{H}Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "{H}Transfer-Encoding: ,chunked\r\n",
        "{H}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "{H}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\n{H}Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\n{H}Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\ncontent-length:5\r\n{H}",
        "{H}Transfer-Encoding: chunked\r\nContent-Length: x\r\n",
        "{H}Content-Length: 5\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        cases.push(format!("POST /x HTTP/1.1\r\n{fields}\r\n"));
    }
    cases.push("GET /x HTTP/1.1\n{H}\r\n".into());
    cases.push("GET /x HTTP/1.1\r\n{H}\n".into());
    cases.push("GET /x HTTP/1.1\nHost: a\n\n".into());
    cases.push("POST /x HTTP/1.0\r\n{H}Transfer-Encoding: chunked\r\n\r\n".into());
    cases.push(format!("GET /x HTTP/1.1\r\n{{H}}X: {}\r\n\r\n", "a".repeat(17_000)));
    cases.push(format!("GET /x HTTP/1.1\r\n{{H}}{}\r\n", "X: y\r\n".repeat(100)));
    cases.push(format!("GET /{} HTTP/1.1\r\n{{H}}\r\n", "a".repeat(8_200)));
    cases.into_iter().map(|case| case.replace("{H}", "Host: a\r\n")).collect()
}

/// Bodies that end in error; the service is asked, but never for what follows.
fn malformed_chunks() -> Vec<String> {
    let long = "a".repeat(17_000);
    let mut bodies: Vec<String> = [
        "xyz\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5;e\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "3\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
        "5\r\nhello\r\n0\r\nX\r\n\r\n",
        "5\r\nhello\r\n0\n\n",
        "5,5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\rX",
    ]
    .map(String::from)
    .to_vec();
    bodies.push(format!("5;{long}\r\nhello\r\n0\r\n\r\n"));
    bodies.push(format!("5\r\nhello\r\n0\r\nX: {long}\r\n\r\n"));
    bodies.iter().map(|body| format!("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")).collect()
}

#[tokio::test]
async fn nothing_malformed_is_served_and_nothing_behind_it_either() {
    let server = Server::start(Limits::default());
    let (cases, bodies) = (malformed(), malformed_chunks());
    assert!(cases.len() + bodies.len() >= 100, "{}", cases.len() + bodies.len());
    let server = &server;
    let tries = cases.iter().chain(&bodies).map(|case| async move {
        let answer = server.exchange(format!("{case}{SECOND}").as_bytes()).await;
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 501 ");
        let once = answer.matches("HTTP/1.1 ").count() <= 1;
        (!refused || !once).then(|| format!("{:?}: {answer:?}", case.chars().take(200).collect::<String>()))
    });
    let wrong: Vec<String> = join_all(tries).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((server.hits("/x"), server.hits("/second")), (0, 0));
}

#[tokio::test]
async fn every_refusal_of_a_head_has_the_form_of_the_service() {
    let server = Server::start(Limits::default());
    let tries = malformed().into_iter().map(|case| {
        let server = &server;
        async move {
            let answer = server.exchange(case.as_bytes()).await;
            let formed = answer.contains("\r\nx-request-id: 1\r\n")
                && answer.contains("\r\nconnection: close\r\n")
                && answer.contains("\r\ndate: ")
                && answer.contains("{\"code\":\"");
            (!formed).then(|| format!("{:?}: {answer:?}", case.chars().take(200).collect::<String>()))
        }
    });
    let wrong: Vec<String> = join_all(tries).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn sizes_have_their_own_statuses() {
    let server = Server::start(Limits::default());
    let (long, huge) = ("a".repeat(8_200), "a".repeat(40_000));
    for (request, status) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), "414"),
        (format!("GET /{huge} HTTP/1.1\r\nHost: a\r\n\r\n"), "414"),
        (format!("GET /x HTTP/1.1\r\nHost: a\r\nX: {huge}\r\n\r\n"), "431"),
        (format!("GET /x HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100)), "431"),
        (format!("GET /x HTTP/1.1\r\nHost: a\r\n{}\r\n", format!("X: {}\r\n", "a".repeat(200)).repeat(90)), "431"),
        (format!("GET /x HTTP/1.1\r\nHost: a\r\n{}Connection: close\r\n\r\n", "X: y\r\n".repeat(98)), "200"),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "a".repeat(8_000)), "200"),
    ] {
        let answer = server.exchange(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
    }
}

#[tokio::test]
async fn what_is_legal_is_served() {
    let server = Server::start(Limits::default());
    let last = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let legal = [
        GET.to_owned(),
        "\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET http://a.example/x HTTP/1.1\r\nHost: other\r\n\r\n".into(),
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET /x?a=b&c=%20 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n".into(),
        "GET /x HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n".into(),
        "GET /x HTTP/1.1\r\nHost:a\r\nX:   y   \r\n\r\n".into(),
        "GET /x HTTP/1.1\r\nHost: a\r\nX: \u{e9}\r\n\r\n".into(),
        "M-SEARCH /x HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".into(),
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello".into(),
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".into(),
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:  Chunked \r\n\r\n005;a=\"b\"\r\nhello\r\n0\r\nX: y\r\n\r\n".into(),
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\n\r\n1a\r\n\nContent-Length: 5\r\nX: y\n\n\r\n0\r\n\r\n".into(),
        "POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".into(),
        "POST /ignore HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".into(),
        "GET /empty-400 HTTP/1.1\r\nHost: a\r\n\r\n".into(),
    ];
    for case in &legal {
        // Twice, so that each also stands behind itself.
        let answer = server.exchange(format!("{case}{case}{last}").as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 3, "{case:?}: {answer}");
        assert!(!answer.contains("code"), "{case:?}: {answer}");
    }
    assert_eq!(server.hits("/last"), legal.len());
    let old = server.exchange(b"GET /x HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 "), "{old}");
}

#[tokio::test]
async fn a_length_beside_a_transfer_coding_is_seen_behind_a_chunked_request_too() {
    let server = Server::start(Limits::default());
    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let smuggled = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n";
    let all = format!("{chunked}{chunked}{smuggled}{SECOND}");
    for cut in [all.len(), 1, 70, 76, 100, 150, 200, 250] {
        let mut stream = server.connect().await;
        for piece in all.as_bytes().chunks(cut) {
            if stream.write_all(piece).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(if cut == 1 { 1 } else { 20 })).await;
        }
        let answer = to_end(&mut stream).await;
        assert_eq!(answer.matches("hello").count(), 2, "{cut}: {answer}");
        assert!(answer.contains("length_ambiguous"), "{cut}: {answer}");
    }
    assert_eq!((server.hits("/x"), server.hits("/second")), (0, 0));
}

#[tokio::test]
async fn an_error_behind_good_requests_replaces_nothing_of_their_answers() {
    let server = Server::start(Limits::default());
    let bad = "BROKEN\r\n\r\n";
    for good in [GET, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", "GET /empty-400 HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let alone = server.exchange(format!("{}Connection: close\r\n\r\n", good.strip_suffix("\r\n").unwrap()).as_bytes()).await;
        let body = alone.rsplit("\r\n\r\n").next().unwrap();
        let answer = server.exchange(format!("{good}{good}{bad}").as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 3, "{answer}");
        assert_eq!(answer.matches("request_malformed").count(), 1, "{answer}");
        let first = answer.split("\r\n\r\n").nth(1).unwrap();
        assert!(first.starts_with(body), "{answer}");
    }
}
