//! A client of HTTP/2 that writes frames by hand, wrong ones too, and reads what comes one frame at a time.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use mainstay::serve::Limits;
use mainstay::testing::{StackSettings, TestServer, request, routes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::raw;

/// Longer than any answer takes: what is not there by then never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

pub(crate) use crate::raw::PREFACE;

/// The largest frame that a peer takes before it has said otherwise (RFC 9113, section 6.5.2).
pub(crate) const FRAME_BYTES_MAX: usize = 16_384;

/// The types of frames (section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
    /// Of no extension that anybody knows.
    pub(crate) const UNKNOWN: u8 = 0x7f;
}

/// Their flags.
pub(crate) mod flag {
    pub(crate) const NONE: u8 = 0;
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITY: u8 = 0x20;
    /// A whole request without a body.
    pub(crate) const WHOLE: u8 = END_STREAM | END_HEADERS;
}

/// The codes of errors (section 7).
pub(crate) mod code {
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
    pub(crate) const STREAM_CLOSED: u32 = 5;
    pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
    pub(crate) const REFUSED_STREAM: u32 = 7;
    pub(crate) const CANCEL: u32 = 8;
    pub(crate) const COMPRESSION_ERROR: u32 = 9;
    pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    raw::frame(kind, flags, stream, payload.as_ref())
}

pub(crate) fn data(stream: u32, flags: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(kind::DATA, flags, stream, payload)
}

pub(crate) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, flag::NONE, stream, increment.to_be_bytes())
}

pub(crate) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, flag::NONE, stream, code.to_be_bytes())
}

/// SETTINGS of these identifiers and values.
pub(crate) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = values.iter().flat_map(|(name, value)| [name.to_be_bytes().as_slice(), &value.to_be_bytes()].concat()).collect();
    frame(kind::SETTINGS, flag::NONE, 0, payload)
}

/// A block of fields, each written out and put into no table (RFC 7541, section 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// The pseudo-fields of a request.
pub(crate) fn pseudo<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")]
}

/// A request without a body.
pub(crate) fn get_of(stream: u32, path: &str) -> Vec<u8> {
    frame(kind::HEADERS, flag::WHOLE, stream, block(&pseudo("GET", path)))
}

/// The head of a request whose body follows.
pub(crate) fn post_of(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS, stream, block(&[&pseudo("POST", "/echo"), fields].concat()))
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Headers {
        stream: u32,
        status: u16,
    },
    Data {
        stream: u32,
        bytes: Vec<u8>,
    },
    Reset {
        stream: u32,
        code: u32,
    },
    GoAway {
        code: u32,
    },
    Settings,
    SettingsAck,
    Ping,
    PingAck {
        payload: Vec<u8>,
    },
    WindowUpdate,
    /// Something else.
    Other {
        kind: u8,
    },
    /// Nothing more: the connection has ended.
    Closed,
}

/// The status that a block of h2's begins with: an entry of the static table, or three digits.
fn status(mut block: &[u8]) -> u16 {
    // Changes of the size of the table come first (RFC 7541, section 6.3).
    while let [0x20..=0x3f, rest @ ..] = block {
        block = rest;
    }
    match block {
        [index @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
        [0x48, length, rest @ ..] => {
            let text = &rest[..usize::from(length & 0x7f)];
            let digits = if length & 0x80 == 0 { text.iter().map(|digit| u16::from(digit - b'0')).collect() } else { digits(text) };
            digits.into_iter().fold(0, |number, digit| number * 10 + digit)
        }
        _ => panic!("{block:?} begins with no status"),
    }
}

/// Three digits in Huffman's code (RFC 7541, appendix B): five bits up to 2, six beyond.
fn digits(text: &[u8]) -> Vec<u16> {
    let bits: Vec<u16> = text.iter().flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1))).collect();
    let (mut rest, mut digits) = (bits.as_slice(), Vec::new());
    while digits.len() < 3 {
        let number = |length: usize| rest[..length].iter().fold(0, |number, bit| number << 1 | bit);
        let (digit, length) = if number(5) < 3 { (number(5), 5) } else { (number(6) - 0x19 + 3, 6) };
        digits.push(digit);
        rest = &rest[length..];
    }
    digits
}

/// One connection, whose preface and SETTINGS are sent.
pub(crate) struct Connection {
    stream: TcpStream,
}

impl Connection {
    /// Connects and sends nothing.
    pub(crate) async fn silent(server: &TestServer) -> Connection {
        let stream = TcpStream::connect(server.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Connection { stream }
    }

    pub(crate) async fn open(server: &TestServer) -> Connection {
        let mut connection = Connection::silent(server).await;
        connection.send([PREFACE, &settings(&[])].concat()).await;
        connection
    }

    /// Sends bytes. A server that has ended the connection takes them no more, which is seen when it is read.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.expect("the server reads");
    }

    /// The same, for as long as it takes them. Gives whether it took them all.
    pub(crate) async fn flood(&mut self, bytes: &[u8]) -> bool {
        timeout(PATIENCE * 4, self.stream.write_all(bytes)).await.is_ok_and(|sent| sent.is_ok())
    }

    /// The next frame, or the end.
    pub(crate) async fn next(&mut self) -> Said {
        timeout(PATIENCE, self.read()).await.expect("a frame or an end in time").unwrap_or(Said::Closed)
    }

    async fn read(&mut self) -> std::io::Result<Said> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.stream.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        Ok(match (head[3], head[4]) {
            (kind::DATA, _) => Said::Data { stream, bytes: payload },
            (kind::HEADERS, _) => Said::Headers { stream, status: status(&payload) },
            (kind::RST_STREAM, _) => Said::Reset { stream, code: number(0) },
            (kind::SETTINGS, flag::NONE) => Said::Settings,
            (kind::SETTINGS, _) => Said::SettingsAck,
            (kind::PING, flag::NONE) => Said::Ping,
            (kind::PING, _) => Said::PingAck { payload },
            (kind::GOAWAY, _) => Said::GoAway { code: number(4) },
            (kind::WINDOW_UPDATE, _) => Said::WindowUpdate,
            (kind, _) => Said::Other { kind },
        })
    }

    /// Reads until `wanted` says what was waited for; an end in between is given as it is.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Said) -> bool) -> Said {
        loop {
            let said = self.next().await;
            if wanted(&said) || matches!(said, Said::GoAway { .. } | Said::Closed) {
                return said;
            }
        }
    }

    /// Reads to the end.
    pub(crate) async fn read_to_end(&mut self) -> Vec<Said> {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                Said::Closed => return all,
                said => all.push(said),
            }
        }
    }

    /// What becomes of a stream: its status, or its end.
    pub(crate) async fn fate(&mut self, stream: u32) -> Said {
        self.until(|said| matches!(said, Said::Headers { stream: of, .. } | Said::Reset { stream: of, .. } if *of == stream)).await
    }

    /// Asks on this stream, and expects an answer.
    pub(crate) async fn serves(&mut self, stream: u32) {
        self.send(get_of(stream, "/")).await;
        assert_eq!(self.fate(stream).await, Said::Headers { stream, status: 200 });
    }
}

/// The whole stack before a few routes.
pub(crate) fn start() -> TestServer {
    start_with(Limits::default())
}

pub(crate) fn start_with(limits: Limits) -> TestServer {
    let router = Router::new()
        .route("/", get(async || "fine"))
        .route("/long", get(async || "x".repeat(20_000)))
        .route("/echo", post(async |body: Bytes| body))
        .route("/never", get(async || std::future::pending::<()>().await));
    let listed = ["GET /", "GET /long", "POST /echo", "GET /never"];
    TestServer::start(routes(router, &listed, &[]), StackSettings { limits, ..StackSettings::default() })
}

/// The service has taken no harm: a new connection of either protocol is served.
pub(crate) async fn serves_others(server: &TestServer) {
    assert_eq!(server.exchange(request("GET", "/", &[], "")).await.status, 200);
    Connection::open(server).await.serves(1).await;
}

/// These frames end the connection with this code.
pub(crate) async fn connection_error(frames: &[Vec<u8>], code: u32) {
    let server = start();
    let mut connection = Connection::open(&server).await;
    connection.send(frames.concat()).await;
    let said = connection.read_to_end().await;
    let last = said.iter().rfind(|said| matches!(said, Said::GoAway { .. }));
    assert_eq!(last, Some(&Said::GoAway { code }), "{said:?}");
    serves_others(&server).await;
}

/// These frames end the connection, with PROTOCOL_ERROR where the RFC has the more specific `code`: see [`deviations`](super::deviations).
pub(crate) async fn connection_error_in_general(frames: &[Vec<u8>], code: u32) {
    assert_ne!(code, code::PROTOCOL_ERROR);
    connection_error(frames, code::PROTOCOL_ERROR).await;
}

/// These frames end stream 1 with this code, and no other one.
pub(crate) async fn stream_error(frames: &[Vec<u8>], code: u32) {
    let server = start();
    let mut connection = Connection::open(&server).await;
    connection.send(frames.concat()).await;
    let said = connection.until(|said| matches!(said, Said::Reset { stream: 1, .. })).await;
    assert_eq!(said, Said::Reset { stream: 1, code });
    connection.serves(101).await;
    serves_others(&server).await;
}

/// The request on stream 1 is refused by the transport, and the connection goes on.
pub(crate) async fn refused(frames: &[Vec<u8>]) {
    let server = start();
    let mut connection = Connection::open(&server).await;
    connection.send(frames.concat()).await;
    assert_eq!(connection.fate(1).await, Said::Headers { stream: 1, status: 400 });
    connection.serves(101).await;
    serves_others(&server).await;
}

/// Stream 1 is answered with 200 in spite of these frames, and the connection goes on.
pub(crate) async fn fine(frames: &[Vec<u8>]) {
    let server = start();
    let mut connection = Connection::open(&server).await;
    connection.send(frames.concat()).await;
    assert_eq!(connection.fate(1).await, Said::Headers { stream: 1, status: 200 });
    connection.serves(101).await;
    serves_others(&server).await;
}
