//! The transport over real sockets: what it refuses, how long it waits, how it ends.

// A test fails by panicking, in its helpers too.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use mainstay::serve::{Drain, Limits, Peer, Plain, Report, bind, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than any test should need: what is not there by then never comes.
const PATIENCE: Duration = Duration::from_secs(8);

/// A transport in front of a small service that counts what reaches it.
struct Server {
    addr: SocketAddr,
    drain: Drain,
    task: JoinHandle<Report>,
    hits: Arc<Mutex<HashMap<String, usize>>>,
}

impl Server {
    fn start(limits: Limits) -> Server {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let (drain, hits) = (Drain::new(), Arc::<Mutex<HashMap<String, usize>>>::default());
        let counted = Arc::clone(&hits);
        let service = tower::service_fn(move |request: Request<Body>| {
            let counted = Arc::clone(&counted);
            async move { Ok::<_, Infallible>(respond(request, &counted).await) }
        });
        let task = tokio::spawn(serve(listener, Plain(service), limits, drain.clone()));
        Server { addr, drain, task, hits }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    fn hits(&self, path: &str) -> usize {
        self.hits.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    /// Sends `bytes` and reads until the server closes.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // A server that has refused already may have closed.
        let _ = stream.write_all(bytes).await;
        to_end(&mut stream).await
    }

    async fn end(self, grace: Duration) -> Report {
        self.drain.begin(grace);
        timeout(PATIENCE, self.task).await.expect("the drain ends").unwrap()
    }
}

async fn respond(request: Request<Body>, hits: &Mutex<HashMap<String, usize>>) -> Response<Body> {
    let peer = *request.extensions().get::<Peer>().expect("every request has its peer");
    if let Some(fault) = peer.fault {
        let body = format!("{{\"code\":\"{}\"}}", fault.code);
        return Response::builder().status(fault.status).header("x-request-id", "1").body(body.into()).unwrap();
    }
    let path = request.uri().path().to_owned();
    *hits.lock().unwrap().entry(path.clone()).or_insert(0) += 1;
    match path.as_str() {
        "/echo" => match request.into_body().collect().await {
            Ok(body) => Response::new(Body::from(body.to_bytes())),
            Err(_) => answer(StatusCode::BAD_REQUEST, "bad body"),
        },
        "/measure" => {
            let (mut body, mut length) = (request.into_body(), 0);
            // Each piece is let go before the next one comes, so that the memory in which it was read serves again, and grows.
            while let Some(piece) = body.frame().await {
                length += piece.ok().and_then(|piece| piece.into_data().ok()).map_or(0, |piece| piece.len());
            }
            Response::new(length.to_string().into())
        }
        "/ignore" => answer(StatusCode::PAYLOAD_TOO_LARGE, "too large"),
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(600)).await;
            answer(StatusCode::OK, "slow")
        }
        "/never" => std::future::pending().await,
        "/endless" => {
            Response::new(Body::from_stream(futures_util::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 16 * 1024])))))
        }
        "/empty-400" => answer(StatusCode::BAD_REQUEST, ""),
        _ => answer(StatusCode::OK, "fine"),
    }
}

fn answer(status: StatusCode, text: &'static str) -> Response<Body> {
    Response::builder().status(status).body(text.into()).unwrap()
}

/// Everything until the server closes; a reset counts as an end.
async fn to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = async {
        let mut piece = [0; 16 * 1024];
        while let Ok(n @ 1..) = stream.read(&mut piece).await {
            all.extend_from_slice(&piece[..n]);
        }
    };
    timeout(PATIENCE, read).await.expect("the server closes the connection");
    String::from_utf8_lossy(&all).into_owned()
}

/// One answer with a `content-length`.
async fn one_answer(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = async {
        loop {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.expect("an answer, not an end");
            all.push(byte[0]);
            if all.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        let head = String::from_utf8_lossy(&all).into_owned();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        head + &String::from_utf8_lossy(&body)
    };
    timeout(PATIENCE, read).await.expect("an answer in time")
}

/// How long it takes until the server closes, reading as it goes.
async fn closed_after(stream: &mut TcpStream) -> Duration {
    let begun = Instant::now();
    to_end(stream).await;
    begun.elapsed()
}

/// Limits short enough for a test: 300 ms for what takes ten seconds.
fn short() -> Limits {
    Limits {
        header_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(1200),
        idle_timeout_fresh: Duration::from_millis(300),
        write_stall_timeout: Duration::from_millis(300),
        linger_timeout: Duration::from_millis(500),
        ..Limits::default()
    }
}

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
const SECOND: &str = "GET /second HTTP/1.1\r\nHost: a\r\n\r\n";

// --- Slow clients ---

#[tokio::test]
async fn a_silent_connection_is_closed_when_its_time_is_up_and_not_before() {
    let server = Server::start(short());
    let waited = closed_after(&mut server.connect().await).await;
    assert!(waited >= Duration::from_millis(290) && waited < Duration::from_secs(3), "{waited:?}");
}

#[tokio::test]
async fn a_head_that_drips_is_answered_408_and_closed() {
    let server = Server::start(short());
    let mut stream = server.connect().await;
    let (mut read, mut write) = stream.split();
    let drip = async {
        let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\n".iter().chain(b"X: y\r\n".iter().cycle());
        while write.write_all(&[*bytes.next().unwrap()]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut answer = String::new();
    tokio::select! {
        () = drip => {}
        // A reset at the end is fine: the client is still sending.
        _ = timeout(PATIENCE, read.read_to_string(&mut answer)) => {}
    }
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("headers_too_slow"), "{answer}");
}

#[tokio::test]
async fn the_time_for_a_head_runs_from_its_first_byte_on_a_kept_connection_too() {
    let server = Server::start(Limits { idle_timeout: Duration::from_secs(60), ..short() });
    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream.write_all(GET.as_bytes()).await.unwrap();
        one_answer(&mut stream).await;
    }
    stream.write_all(b"GET / HT").await.unwrap();
    let rest = to_end(&mut stream).await;
    assert!(rest.starts_with("HTTP/1.1 408 "), "{rest}");
}

#[tokio::test]
async fn an_idle_connection_earns_a_longer_life_by_its_second_request() {
    let server = Server::start(short());
    let (mut once, mut twice) = (server.connect().await, server.connect().await);
    for stream in [&mut once, &mut twice] {
        stream.write_all(GET.as_bytes()).await.unwrap();
        one_answer(stream).await;
    }
    twice.write_all(GET.as_bytes()).await.unwrap();
    one_answer(&mut twice).await;
    let (short_life, long_life) = tokio::join!(closed_after(&mut once), closed_after(&mut twice));
    assert!(short_life >= Duration::from_millis(250) && short_life < Duration::from_millis(1000), "{short_life:?}");
    assert!(long_life >= Duration::from_millis(1100) && long_life < Duration::from_secs(4), "{long_life:?}");
}

#[tokio::test]
async fn a_body_in_pieces_does_not_make_the_next_wait_look_like_a_slow_head() {
    let server = Server::start(Limits { idle_timeout_fresh: Duration::from_millis(900), ..short() });
    let mut stream = server.connect().await;
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.write_all(b"body").await.unwrap();
    assert!(one_answer(&mut stream).await.ends_with("body"));
    let begun = Instant::now();
    assert_eq!(to_end(&mut stream).await, "", "closed without a word, not 408");
    assert!(begun.elapsed() >= Duration::from_millis(800), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_that_does_not_read_is_reset() {
    let server = Server::start(short());
    let stream = server.connect().await;
    let mut stream = stream;
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let reset = async {
        // `take_error` sees the reset without reading anything.
        while stream.take_error().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, reset).await.expect("a reset");
}

#[tokio::test]
async fn requests_in_one_piece_earn_no_longer_life_and_a_client_that_never_reads_their_answers_is_reset() {
    let server = Server::start(Limits { idle_timeout: PATIENCE * 10, ..short() });
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // The answers are small enough for the kernel to take them all, and too many for the client's window.
    socket.set_recv_buffer_size(1024).unwrap();
    let mut stream = socket.connect(server.addr).await.unwrap();
    stream.write_all(GET.repeat(200).as_bytes()).await.unwrap();
    let reset = async {
        while stream.take_error().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, reset).await.expect("a reset");
    assert_eq!(server.hits("/x"), 200, "all of them were answered");
}

#[tokio::test]
async fn a_half_sent_http2_preface_is_closed_on_time() {
    let server = Server::start(short());
    let mut stream = server.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    assert!(closed_after(&mut stream).await < Duration::from_secs(3));
}

// --- HTTP/2, by hand ---

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// GET with `:authority: a`; indices of HPACK's static table, then literals.
fn get(stream: u32, path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x01, 1, b'a', 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.bytes());
    frame(1, 0x5, stream, &block)
}

fn hello() -> Vec<u8> {
    [PREFACE, &frame(4, 0, 0, &[])].concat()
}

/// The next frame: kind, flags, stream, payload.
async fn next_frame(stream: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    timeout(PATIENCE, stream.read_exact(&mut head)).await.expect("a frame or an end").ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

#[tokio::test]
async fn an_http2_connection_that_says_nothing_after_its_preface_is_closed() {
    let server = Server::start(short());
    let mut stream = server.connect().await;
    stream.write_all(&hello()).await.unwrap();
    assert!(closed_after(&mut stream).await < Duration::from_secs(3));
}

#[tokio::test]
async fn pings_do_not_keep_an_http2_connection_open() {
    let server = Server::start(short());
    let mut stream = server.connect().await;
    stream.write_all(&[hello(), get(1, "/x")].concat()).await.unwrap();
    let (mut read, mut write) = stream.split();
    let pings = async {
        while write.write_all(&frame(6, 0, 0, &[0; 8])).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut all = Vec::new();
    tokio::select! {
        () = pings => {}
        read = timeout(PATIENCE, read.read_to_end(&mut all)) => { read.expect("closed in spite of pings").unwrap_or(0); }
    }
    assert_eq!(server.hits("/x"), 1);
}

#[tokio::test]
async fn an_http2_client_that_opens_no_window_is_cut() {
    let server = Server::start(short());
    let mut stream = server.connect().await;
    // SETTINGS_INITIAL_WINDOW_SIZE 0
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    stream.write_all(&[PREFACE, &settings, &get(1, "/endless")].concat()).await.unwrap();
    assert!(closed_after(&mut stream).await < Duration::from_secs(4));
}

#[tokio::test]
async fn an_http2_request_is_served_and_a_drain_says_goaway_and_lets_it_finish() {
    let server = Server::start(Limits::default());
    let mut stream = server.connect().await;
    stream.write_all(&[hello(), get(1, "/slow")].concat()).await.unwrap();
    while server.hits("/slow") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.drain.begin(PATIENCE);
    let (mut goaway, mut body) = (false, Vec::new());
    while let Some((kind, flags, _, payload)) = next_frame(&mut stream).await {
        match kind {
            0 => body.extend(payload),
            6 if flags == 0 => stream.write_all(&frame(6, 1, 0, &payload)).await.unwrap(),
            7 => goaway = true,
            _ => {}
        }
    }
    assert!(goaway);
    assert_eq!(body, b"slow");
    drop(stream);
    let report = server.end(PATIENCE).await;
    assert_eq!((report.cut, report.unfinished), (0, 0));
}

#[tokio::test]
async fn a_rapid_reset_flood_ends_the_connection() {
    let server = Server::start(Limits::default());
    let mut stream = server.connect().await;
    let mut flood = hello();
    for i in 0..4_000 {
        flood.extend(get(2 * i + 1, "/never"));
        flood.extend(frame(3, 0, 2 * i + 1, &[0, 0, 0, 8]));
    }
    let _ = stream.write_all(&flood).await;
    closed_after(&mut stream).await;
    assert!(server.hits("/never") < 3_000, "{}", server.hits("/never"));
}

#[tokio::test]
async fn a_continuation_flood_ends_the_connection() {
    let server = Server::start(Limits::default());
    let mut stream = server.connect().await;
    let mut flood = [hello(), frame(1, 0, 1, &[0x82, 0x86, 0x84])].concat();
    for _ in 0..10_000 {
        flood.extend(frame(9, 0, 1, &[0, 1, b'a', 1, b'b']));
    }
    let _ = stream.write_all(&flood).await;
    assert!(closed_after(&mut stream).await < Duration::from_secs(5));
}

// --- Caps ---

#[tokio::test]
async fn over_the_cap_of_an_address_the_longest_waiting_connection_gives_way() {
    let server = Server::start(Limits { connections_per_address_max: 2, ..Limits::default() });
    let mut oldest = server.connect().await;
    oldest.write_all(b"GET /slow-head HTTP/1.1\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut kept = server.connect().await;
    kept.write_all(GET.as_bytes()).await.unwrap();
    one_answer(&mut kept).await;
    let mut new = server.connect().await;
    new.write_all(GET.as_bytes()).await.unwrap();
    assert!(one_answer(&mut new).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(to_end(&mut oldest).await, "");
    kept.write_all(GET.as_bytes()).await.unwrap();
    one_answer(&mut kept).await;
}

#[tokio::test]
async fn when_every_connection_is_being_served_a_new_one_is_refused() {
    let server = Server::start(Limits { connections_max: 1, ..Limits::default() });
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    while server.hits("/slow") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(server.exchange(GET.as_bytes()).await, "");
    assert!(one_answer(&mut busy).await.ends_with("slow"));
    drop(busy);
    let report = server.end(PATIENCE).await;
    assert_eq!((report.accepted, report.refused), (1, 1));
}

// --- What is not well-formed ---

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

// --- Endings ---

#[tokio::test]
async fn long_bodies_leave_what_follows_on_the_connection_whole() {
    const LENGTH: usize = 400_000;
    let server = Server::start(Limits::default());
    let mut stream = server.connect().await;
    let body = vec![b'x'; LENGTH];
    for round in 0..12 {
        let (framing, head, tail) = if round % 4 < 3 {
            (format!("Content-Length: {LENGTH}"), String::new(), "")
        } else {
            ("Transfer-Encoding: chunked".to_owned(), format!("{LENGTH:x}\r\n"), "\r\n0\r\n\r\n")
        };
        let head = format!("POST /measure HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{head}");
        // Another one is behind it already, and a part of the next after that.
        let bytes = [head.as_bytes(), &body, tail.as_bytes(), GET.as_bytes(), b"GET /part HTTP/1.1\r\n"].concat();
        let (mut read, mut write) = stream.split();
        timeout(PATIENCE, write.write_all(&bytes)).await.unwrap().unwrap();
        let mut answers = String::new();
        let mut piece = [0; 4096];
        while answers.matches("HTTP/1.1 200 OK").count() < 2 || !answers.ends_with("fine") {
            let count = timeout(PATIENCE, read.read(&mut piece)).await.expect("answers").unwrap();
            assert!(count > 0, "{round}: {answers}");
            answers.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        assert!(answers.contains(&format!("\r\n\r\n{LENGTH}HTTP/1.1 200 OK")), "{round}: {answers}");
        stream.write_all(b"Host: a\r\n\r\n").await.unwrap();
        assert!(one_answer(&mut stream).await.starts_with("HTTP/1.1 200 OK"), "{round}");
    }
    assert_eq!((server.hits("/measure"), server.hits("/part")), (12, 12));
}

#[tokio::test]
async fn a_client_that_is_still_sending_reads_the_whole_refusal() {
    let server = Server::start(Limits::default());
    for framing in ["Content-Length: 5000000", "Transfer-Encoding: chunked", "Content-Length: 5000000\r\nConnection: upgrade\r\nUpgrade: h2c"] {
        let mut stream = server.connect().await;
        let (mut read, mut write) = stream.split();
        let send = async {
            write.write_all(format!("POST /ignore HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes()).await?;
            if framing.starts_with('T') {
                write.write_all(b"4c4b40\r\n").await?;
            }
            write.write_all(&vec![b'x'; 5_000_000]).await
        };
        timeout(PATIENCE, send).await.unwrap().expect("everything is taken");
        let mut answer = String::new();
        timeout(PATIENCE, read.read_to_string(&mut answer)).await.unwrap().expect("an end, not a reset");
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("too large"), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn a_refused_body_is_not_asked_for() {
    let server = Server::start(Limits::default());
    let head = "POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n";
    let mut stream = server.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && !answer.contains(" 100 "), "{answer}");
}

#[tokio::test]
async fn a_kept_connection_can_be_used_once_more_when_the_drain_has_begun() {
    let server = Server::start(Limits::default());
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = server.connect().await;
        stream.write_all(GET.as_bytes()).await.unwrap();
        assert!(!one_answer(&mut stream).await.contains("connection: close"));
        streams.push(stream);
    }
    let fresh = server.connect().await;
    server.drain.begin(PATIENCE);
    tokio::time::sleep(Duration::from_millis(300)).await;
    for stream in &mut streams {
        stream.write_all(GET.as_bytes()).await.unwrap();
        let answer = one_answer(stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
    let mut fresh = fresh;
    fresh.write_all(GET.as_bytes()).await.unwrap();
    assert!(one_answer(&mut fresh).await.contains("connection: close"));
    drop((streams, fresh));
    let report = server.end(PATIENCE).await;
    assert_eq!(report, Report { accepted: 21, ..Report::default() });
}

#[tokio::test]
async fn a_drain_closes_idle_connections_after_a_second_and_refuses_new_ones() {
    let server = Server::start(Limits::default());
    let mut idle = server.connect().await;
    idle.write_all(GET.as_bytes()).await.unwrap();
    one_answer(&mut idle).await;
    server.drain.begin(PATIENCE);
    let waited = closed_after(&mut idle).await;
    assert!(waited >= Duration::from_millis(950) && waited < Duration::from_secs(3), "{waited:?}");
    let addr = server.addr;
    server.end(PATIENCE).await;
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn a_request_in_flight_outlives_the_beginning_of_a_drain() {
    let server = Server::start(Limits { drain_idle: Duration::from_millis(50), ..Limits::default() });
    let mut stream = server.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    while server.hits("/slow") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.drain.begin(PATIENCE);
    let answer = to_end(&mut stream).await;
    assert!(answer.ends_with("slow") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert_eq!(server.end(PATIENCE).await.cut, 0);
}

#[tokio::test]
async fn half_sent_requests_do_not_hold_a_drain() {
    let server = Server::start(Limits { drain_stall: Duration::from_millis(300), ..Limits::default() });
    let (mut head, mut body) = (server.connect().await, server.connect().await);
    head.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    body.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").await.unwrap();
    while server.hits("/echo") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begun = Instant::now();
    let report = server.end(PATIENCE).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!((report.cut, report.unfinished), (0, 2));
}

#[tokio::test]
async fn what_is_left_after_the_grace_is_cut_and_counted() {
    let server = Server::start(Limits::default());
    let mut stream = server.connect().await;
    stream.write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    while server.hits("/never") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let report = server.end(Duration::from_millis(200)).await;
    assert_eq!((report.cut, report.unfinished), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_loses_no_request() {
    let server = Server::start(Limits::default());
    let addr = server.addr;
    let clients: Vec<_> = (0..16)
        .map(|_| {
            tokio::spawn(async move {
                let (mut served, mut lost) = (0, 0);
                'connections: while let Ok(mut stream) = TcpStream::connect(addr).await {
                    loop {
                        if stream.write_all(GET.as_bytes()).await.is_err() {
                            lost += 1;
                            continue 'connections;
                        }
                        let mut answer = [0; 512];
                        match timeout(PATIENCE, stream.read(&mut answer)).await {
                            Ok(Ok(n @ 1..)) => {
                                served += 1;
                                if String::from_utf8_lossy(&answer[..n]).contains("connection: close") {
                                    continue 'connections;
                                }
                            }
                            _ => {
                                lost += 1;
                                continue 'connections;
                            }
                        }
                    }
                }
                (served, lost)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let report = server.end(PATIENCE).await;
    let counts: Vec<(usize, usize)> = join_all(clients).await.into_iter().map(Result::unwrap).collect();
    let (served, lost) = counts.iter().fold((0, 0), |sum, c| (sum.0 + c.0, sum.1 + c.1));
    assert!(served > 100, "{served}");
    assert_eq!((lost, report.cut), (0, 0), "of {served}");
}
