//! Drains on a socket that outlives them, over real sockets: what waits in the queue, connections on which nobody is asking, HTTP/2 that races with GOAWAY.

// A test fails by panicking, in its helpers too.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use mainstay::serve::{Drain, Limits, Plain, Report, adopt, bind, serve_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

#[path = "http2/raw.rs"]
mod raw;

use raw::{PREFACE, frame};

/// Longer than any test should need: what is not there by then never comes.
const PATIENCE: Duration = Duration::from_secs(8);

/// What a new connection has for its first byte, and one that has not come back for its second request.
const FIRST_BYTE: Duration = Duration::from_secs(1);

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// A transport on a socket that others hold as well; it answers with its name.
struct Server {
    drain: Drain,
    task: JoinHandle<Report>,
    pass: UnboundedSender<std::net::TcpStream>,
}

impl Server {
    fn start(name: &'static str, listener: &std::net::TcpListener) -> Server {
        let listener = adopt(listener.as_fd().try_clone_to_owned().unwrap().into()).unwrap();
        let service = tower::service_fn(move |_: Request<Body>| async move { Ok::<_, Infallible>(Response::new(Body::from(name))) });
        let (drain, (pass, passed_on)) = (Drain::new(), unbounded_channel());
        let limits = Limits { header_timeout: FIRST_BYTE, idle_timeout_fresh: FIRST_BYTE, ..Limits::default() };
        let task = tokio::spawn(serve_with(listener, passed_on, Plain(service), limits, drain.clone()));
        Server { drain, task, pass }
    }

    async fn ended(self) -> Report {
        timeout(PATIENCE, self.task).await.expect("the drain ends").unwrap()
    }
}

fn socket() -> (std::net::TcpListener, SocketAddr) {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap().into_std().unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Sends a request and reads its answer.
async fn asked(stream: &mut TcpStream, name: &str) -> String {
    stream.write_all(GET).await.unwrap();
    answered(stream, name).await
}

/// Reads until the answer has the name at its end.
async fn answered(stream: &mut TcpStream, name: &str) -> String {
    let mut answer = String::new();
    while !answer.ends_with(name) {
        let mut piece = [0; 1024];
        let count = timeout(PATIENCE, stream.read(&mut piece)).await.expect("an answer in time").unwrap();
        assert!(count > 0, "closed after: {answer}");
        answer += std::str::from_utf8(&piece[..count]).unwrap();
    }
    answer
}

#[tokio::test]
async fn connections_on_which_nobody_asks_go_on_with_the_heir() {
    let (listener, address) = socket();
    let first = Server::start("first", &listener);
    let (mut used, mut silent) = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
    asked(&mut used, "first").await;
    asked(&mut used, "first").await;
    // Accepted in their order, so the silent one is there when this one is answered.
    asked(&mut TcpStream::connect(address).await.unwrap(), "first").await;
    let second = Server::start("second", &listener);
    first.drain.hand_over(PATIENCE, second.pass.clone());
    assert!(timeout(2 * FIRST_BYTE, used.read_u8()).await.is_err(), "it keeps the idle time that it has earned");
    for stream in [&mut used, &mut silent] {
        let answer = asked(stream, "second").await;
        assert!(!answer.contains("connection: close"), "{answer}");
    }
    let report = first.ended().await;
    assert_eq!((report.cut, report.unfinished), (0, 0));
    drop((used, silent));
    second.drain.begin(PATIENCE);
    // Three, if the client of the third had not closed it before.
    assert!(second.ended().await.accepted >= 2);
}

#[tokio::test]
async fn a_request_that_is_already_there_is_answered_by_one_of_the_two_and_never_lost() {
    let (listener, address) = socket();
    for _ in 0..50 {
        let first = Server::start("server", &listener);
        let mut streams = Vec::new();
        for _ in 0..8 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            asked(&mut stream, "server").await;
            streams.push(stream);
        }
        let second = Server::start("server", &listener);
        for stream in &mut streams {
            stream.write_all(GET).await.unwrap();
        }
        first.drain.hand_over(PATIENCE, second.pass.clone());
        for mut stream in streams {
            let mut piece = [0; 1024];
            let count = timeout(PATIENCE, stream.read(&mut piece)).await.expect("an answer in time").unwrap();
            assert!(piece[..count].starts_with(b"HTTP/1.1 200 "));
        }
        first.ended().await;
        second.drain.leave(Duration::ZERO);
        second.ended().await;
    }
}

#[tokio::test]
async fn a_request_that_came_in_part_behind_another_is_answered_by_whoever_has_its_beginning() {
    // Its body looks like a request: to whoever gets only the rest it would be one.
    let next = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 35\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    for hands_over in [true, false] {
        for cut in [1, 20, 44, 46, 47] {
            let (listener, address) = socket();
            let first = Server::start("first", &listener);
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&[GET, &next[..cut]].concat()).await.unwrap();
            answered(&mut stream, "first").await;
            let heir = Server::start("heir", &listener);
            match hands_over {
                true => first.drain.hand_over(PATIENCE, heir.pass.clone()),
                false => first.drain.begin(PATIENCE),
            }
            stream.write_all(&next[cut..]).await.unwrap();
            let rest = answered(&mut stream, "first").await;
            assert!(rest.starts_with("HTTP/1.1 200 ") && rest.matches("HTTP/1.1").count() == 1, "{hands_over} {cut}: {rest}");
            assert!(rest.contains("connection: close"), "{hands_over} {cut}: {rest}");
            drop(stream);
            assert_eq!(first.ended().await.cut, 0);
        }
    }
}

#[tokio::test]
async fn a_connection_that_comes_to_one_that_leaves_itself_goes_on_to_the_next() {
    let ((own, address), (elsewhere, other)) = (socket(), socket());
    let (second, third) = (Server::start("second", &own), Server::start("third", &elsewhere));
    // It has begun to ask, so the second stays for it.
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(&[GET, &GET[..10]].concat()).await.unwrap();
    answered(&mut slow, "second").await;
    second.drain.hand_over(PATIENCE, third.pass.clone());
    let between = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(between.local_addr().unwrap()).await.unwrap();
    second.pass.send(between.accept().unwrap().0).unwrap();
    asked(&mut client, "third").await;
    slow.write_all(&GET[10..]).await.unwrap();
    answered(&mut slow, "second").await;
    assert_eq!(second.ended().await.cut, 0);
    assert!(TcpStream::connect(other).await.is_ok());
}

#[tokio::test]
async fn what_waits_in_the_queue_of_a_socket_that_is_left_is_the_next_ones() {
    let (listener, address) = socket();
    let first = Server::start("first", &listener);
    asked(&mut TcpStream::connect(address).await.unwrap(), "first").await;
    first.drain.leave(PATIENCE);
    first.ended().await;
    let mut waiting = TcpStream::connect(address).await.unwrap();
    waiting.write_all(GET).await.unwrap();
    let _second = Server::start("second", &listener);
    let mut piece = [0; 1024];
    let count = timeout(PATIENCE, waiting.read(&mut piece)).await.expect("an answer in time").unwrap();
    assert!(piece[..count].ends_with(b"second"));
}

/// GET of `/` with `:authority: a`, from HPACK's static table and one literal.
fn get(stream: u32) -> Vec<u8> {
    frame(1, 0x5, stream, &[0x82, 0x86, 0x84, 0x01, 1, b'a'])
}

#[tokio::test]
async fn an_http2_request_that_crosses_with_goaway_is_served() {
    let (listener, address) = socket();
    let first = Server::start("first", &listener);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[PREFACE, &frame(4, 0, 0, &[]), &get(1)].concat()).await.unwrap();
    let (mut last_streams, mut bodies) = (Vec::new(), Vec::new());
    loop {
        let mut head = [0; 9];
        if timeout(PATIENCE, stream.read_exact(&mut head)).await.expect("a frame or an end").is_err() {
            break;
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match (head[3], head[4]) {
            (0, _) if !payload.is_empty() => {
                bodies.push((id, payload));
                if id == 1 {
                    first.drain.hand_over(PATIENCE, unbounded_channel().0);
                }
            }
            // The client has not heard of the end yet: its request goes out before its answer to the ping.
            (6, 0) => stream.write_all(&[get(3), frame(6, 1, 0, &payload)].concat()).await.unwrap(),
            (7, _) => last_streams.push(u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]])),
            _ => {}
        }
    }
    assert_eq!(last_streams, [(1 << 31) - 1, 3], "first a warning, then what was served");
    assert_eq!(bodies, [(1, b"first".to_vec()), (3, b"first".to_vec())]);
    let report = first.ended().await;
    assert_eq!((report.cut, report.unfinished), (0, 0));
}
