//! The usual fields of an answer, which are written as lines beside its map: all of them, once, whatever a handler says and however a client reads.

use std::collections::BTreeMap;

use axum::Router;
use axum::routing::get;
use http::header;
use mainstay::testing::{StackSettings, TestServer, request, routes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

const ORIGIN: (&str, &str) = ("Origin", "https://app.example.com");

fn start() -> TestServer {
    let own = [(header::X_FRAME_OPTIONS, "DENY"), (header::VARY, "cookie"), (header::SERVER, "secret/1.0"), (header::ETAG, "\"1\"")];
    let router = Router::new()
        .route("/", get(async || "fine"))
        .route("/list", get(async || ([(header::VARY, "cookie")], "fine")))
        .route("/own", get(async move || (own, "fine")));
    TestServer::start(routes(router, &["GET /", "GET /list", "GET /own"], &[]), StackSettings::default())
}

#[tokio::test]
async fn what_a_handler_says_itself_stands_and_is_said_once() {
    let server = start();
    let answer = server.exchange(request("GET", "/own", &[ORIGIN], "")).await;
    assert_eq!((answer.all("x-frame-options"), answer.all("etag"), answer.header("server")), (vec!["DENY"], vec!["\"1\""], None));
    assert!(answer.lists("vary", "cookie") && answer.lists("vary", "origin"), "{:?}", answer.all("vary"));
    for name in ["x-content-type-options", "access-control-allow-origin", "x-request-id", "ratelimit", "ratelimit-policy", "content-security-policy"]
    {
        assert_eq!(answer.all(name).len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_list_of_a_handler_stands_beside_that_of_a_layer() {
    let answer = start().exchange(request("GET", "/list", &[ORIGIN], "")).await;
    assert!(answer.lists("vary", "cookie") && answer.lists("vary", "origin"), "{:?}", answer.all("vary"));
    assert_eq!((answer.all("x-frame-options").len(), answer.all("access-control-allow-origin")), (1, vec![ORIGIN.1]));
}

/// The fields of each answer in `bytes`, by name, and its body behind an empty name; without what differs from one to the next.
fn answers(mut bytes: &[u8]) -> Vec<BTreeMap<String, String>> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
        let mut lines = std::str::from_utf8(&bytes[..end]).unwrap().split("\r\n");
        assert_eq!(lines.next(), Some("HTTP/1.1 200 OK"));
        let mut fields = BTreeMap::new();
        for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
            let value = if ["date", "x-request-id", "ratelimit"].contains(&name) { "" } else { value };
            assert_eq!(fields.insert(name.to_owned(), value.to_owned()), None, "{name} stands twice");
        }
        let (body, rest) = bytes[end + 4..].split_at(fields["content-length"].parse().unwrap());
        fields.insert(String::new(), String::from_utf8(body.to_vec()).unwrap());
        fields.remove("connection");
        answers.push(fields);
        bytes = rest;
    }
    answers
}

#[tokio::test]
async fn answers_are_whole_for_a_client_that_reads_them_in_drops() {
    const REQUESTS: usize = 1000;
    let server = start();
    let socket = TcpSocket::new_v4().unwrap();
    // So small that the server's socket is full again and again, in the middle of an answer.
    socket.set_recv_buffer_size(2048).unwrap();
    let (mut read, mut write) = socket.connect(server.address()).await.unwrap().into_split();
    let sending = tokio::spawn(async move {
        for _ in 1..REQUESTS {
            write.write_all(request("GET", "/", &[ORIGIN], "").as_bytes()).await.unwrap();
        }
        write.write_all(request("GET", "/", &[ORIGIN, ("Connection", "close")], "").as_bytes()).await.unwrap();
        write
    });
    let mut bytes = Vec::new();
    let mut drop = [0; 997];
    while let got @ 1.. = read.read(&mut drop).await.unwrap() {
        bytes.extend_from_slice(&drop[..got]);
    }
    sending.await.unwrap();
    let answers = answers(&bytes);
    assert_eq!(answers.len(), REQUESTS);
    assert!(answers.iter().all(|answer| answer == &answers[0]), "all alike");
    assert_eq!(answers[0][""], "fine");
}
