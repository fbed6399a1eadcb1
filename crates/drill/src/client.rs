//! An HTTP/1.1 client of one connection that shows every answer as it came: no redirects, no retries, no decoding, no pool.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// The longest head and the longest body that are read: an answer beyond is a fault of whoever sent it.
const HEAD_MAX: usize = 64 * 1024;
const BODY_MAX: usize = 16 * 1024 * 1024;
/// Longer than any limit that a drill waits for; past it the service hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that is kept between requests.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// The fields, names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Its status and the beginning of its body, for people.
    pub(crate) fn said(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.body).chars().take(300).collect::<String>())
    }

    /// Does the connection end with it?
    pub(crate) fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// Was the request refused for now, as a client can act on: 429 or 503, with the seconds to wait?
    pub(crate) fn refuses(&self) -> bool {
        matches!(self.status, 429 | 503) && self.field("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0))
    }
}

/// A request as bytes. A body is JSON.
pub(crate) fn request(method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n").into_bytes();
    for (name, value) in fields {
        bytes.extend([name.as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        if fields.iter().all(|(name, _)| *name != "content-type") {
            bytes.extend(b"content-type: application/json\r\n");
        }
        bytes.extend(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}

impl Connection {
    /// Connects, from this local address if one is named.
    ///
    /// # Errors
    /// Those of connecting.
    pub(crate) async fn open(address: SocketAddr, from: Option<IpAddr>) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(from) = from {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::with_capacity(4096) })
    }

    /// Sends a request, and waits for its answer.
    ///
    /// # Errors
    /// When the connection ends, or what comes is no answer, or nothing comes in a minute.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.send(request).await?;
        self.answer(request.starts_with(b"HEAD ")).await
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When the connection ends, or nobody takes them in a minute.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.map_err(|_| late())?
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// As for [`Connection::ask`].
    pub(crate) async fn answer(&mut self, to_head: bool) -> io::Result<Answer> {
        timeout(PATIENCE, self.read_answer(to_head)).await.map_err(|_| late())?
    }

    async fn read_answer(&mut self, to_head: bool) -> io::Result<Answer> {
        let mut answer = loop {
            let answer = self.head().await?;
            if !matches!(answer.status, 100..=199) {
                break answer;
            }
        };
        if to_head || matches!(answer.status, 204 | 304) {
            return Ok(answer);
        }
        answer.body = match answer.field("content-length") {
            Some(length) => {
                let length = length.parse().map_err(|_| odd("no length"))?;
                self.take(length).await?
            }
            None if answer.field("transfer-encoding").is_some() => self.chunks().await?,
            None => self.rest().await?,
        };
        Ok(answer)
    }

    async fn head(&mut self) -> io::Result<Answer> {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if self.read.len() > HEAD_MAX {
                return Err(odd("a head without an end"));
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.read[..end]).into_owned();
        self.read.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()).ok_or_else(|| odd("no status line"))?;
        let fields =
            lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Ok(Answer { status, fields, body: Vec::new() })
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        if length > BODY_MAX {
            return Err(odd("a body without an end"));
        }
        while self.read.len() < length {
            self.more().await?;
        }
        Ok(self.read.drain(..length).collect())
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&self.read[..end]).into_owned();
                self.read.drain(..end + 2);
                return Ok(line);
            }
            if self.read.len() > HEAD_MAX {
                return Err(odd("a line without an end"));
            }
            self.more().await?;
        }
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16).map_err(|_| odd("no chunk"))?;
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(body);
            }
            if body.len() + size > BODY_MAX {
                return Err(odd("a body without an end"));
            }
            body.extend(self.take(size).await?);
            self.line().await?;
        }
    }

    async fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.read.len() <= BODY_MAX {
            match self.more().await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(std::mem::take(&mut self.read)),
                other => other?,
            }
        }
        Err(odd("a body without an end"))
    }

    /// The two halves of the connection, for who sends and reads at paces of his own.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

/// Asks once, on a connection of its own.
///
/// # Errors
/// As for [`Connection::ask`].
pub(crate) async fn ask(address: SocketAddr, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
    Connection::open(address, None).await?.ask(&request(method, target, fields, body)).await
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in a minute")
}
