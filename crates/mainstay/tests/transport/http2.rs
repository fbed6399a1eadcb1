//! HTTP/2 as the transport sees it: waits and drains. Its frames, and floods of them, are in tests/http2.

use std::time::{Duration, Instant};

use mainstay::serve::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::raw::{PREFACE, frame};
use crate::server::{GET, PATIENCE, Server, closed_after, one_answer, short};

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
    server.reached("/slow").await;
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

/// More room for the whole connection, or for a stream.
fn window(stream: u32, bytes: u32) -> Vec<u8> {
    frame(8, 0, stream, &bytes.to_be_bytes())
}

#[tokio::test]
async fn giving_up_one_stream_buys_the_others_no_time() {
    let server = Server::start(short());
    let mut stream = server.connect().await;
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let asked: Vec<u8> = (0..100).flat_map(|number| get(2 * number + 1, "/x")).collect();
    stream.write_all(&[PREFACE, &settings, &asked].concat()).await.unwrap();
    let (mut read, mut write) = stream.split();
    let begun = Instant::now();
    let resets = async {
        for number in 0..100 {
            if write.write_all(&frame(3, 0, 2 * number + 1, &[0, 0, 0, 8])).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let mut all = Vec::new();
    tokio::select! {
        () = resets => {}
        read = timeout(PATIENCE, read.read_to_end(&mut all)) => { read.expect("closed in spite of resets").unwrap_or(0); }
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(server.hits("/x"), 100);
}

#[tokio::test]
async fn a_connection_whose_client_takes_no_answer_gives_way() {
    let server = Server::start(Limits { connections_max: 1, ..Limits::default() });
    let mut stream = server.connect().await;
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    stream.write_all(&[PREFACE, &settings, &get(1, "/x")].concat()).await.unwrap();
    server.reached("/x").await;
    // Its answer's head comes, and then it waits.
    while next_frame(&mut stream).await.is_some_and(|(kind, ..)| kind != 1) {}
    let mut new = server.connect().await;
    new.write_all(GET.as_bytes()).await.unwrap();
    assert!(one_answer(&mut new).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn an_answer_longer_than_the_window_outlives_a_drain() {
    let server = Server::start(Limits { drain_idle: Duration::from_millis(50), ..Limits::default() });
    let mut stream = server.connect().await;
    stream.write_all(&[hello(), get(1, "/long")].concat()).await.unwrap();
    let (mut bytes, mut begun) = (0, false);
    while let Some((kind, flags, _, payload)) = next_frame(&mut stream).await {
        match kind {
            0 => bytes += payload.len(),
            6 if flags == 0 => stream.write_all(&frame(6, 1, 0, &payload)).await.unwrap(),
            _ => {}
        }
        // What a window holds that nobody has widened.
        if bytes == 65_535 && !begun {
            begun = true;
            server.drain.begin(PATIENCE);
            tokio::time::sleep(Duration::from_millis(700)).await;
            stream.write_all(&[window(0, 200_000), window(1, 200_000)].concat()).await.unwrap();
        }
    }
    assert_eq!(bytes, 200_000);
    let report = server.end(PATIENCE).await;
    assert_eq!((report.cut, report.unfinished), (0, 0));
}

#[tokio::test]
async fn a_request_that_crosses_the_goodbye_is_answered() {
    let server = Server::start(short());
    let mut stream = server.connect().await;
    stream.write_all(&[hello(), get(1, "/x")].concat()).await.unwrap();
    let (mut body, mut crossed) = (Vec::new(), false);
    while let Some((kind, flags, of, payload)) = next_frame(&mut stream).await {
        match kind {
            0 if of == 3 => body.extend(payload),
            7 if !crossed => {
                crossed = true;
                stream.write_all(&get(3, "/slower")).await.unwrap();
            }
            6 if flags == 0 => stream.write_all(&frame(6, 1, 0, &payload)).await.unwrap(),
            _ => {}
        }
    }
    assert_eq!(String::from_utf8_lossy(&body), "slower");
}
