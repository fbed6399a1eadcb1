//! Clients that are silent, drip or do not read, and how many there may be.

use std::time::{Duration, Instant};

use mainstay::serve::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::server::{GET, PATIENCE, Server, closed_after, one_answer, short, to_end};

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
    server.reached("/slow").await;
    assert_eq!(server.exchange(GET.as_bytes()).await, "");
    assert!(one_answer(&mut busy).await.ends_with("slow"));
    drop(busy);
    let report = server.end(PATIENCE).await;
    assert_eq!((report.accepted, report.refused), (1, 1));
}
