//! How requests and connections end: long bodies, refusals, drains.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mainstay::serve::{Limits, Report};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::{GET, PATIENCE, Server, closed_after, one_answer, to_end};

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
    server.reached("/slow").await;
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
    server.reached("/echo").await;
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
    server.reached("/never").await;
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
