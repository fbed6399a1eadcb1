//! HTTP/2 as the transport sees it: waits and drains. Its frames, and floods of them, are in tests/http2.

use std::time::Duration;

use mainstay::serve::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::{PATIENCE, Server, closed_after, short};

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
