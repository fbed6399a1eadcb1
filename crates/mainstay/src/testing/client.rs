//! A small HTTP/1.1 client that sends exactly the bytes it is given, malformed ones too, and keeps the answer as it came.
//!
//! Every wait has an end, so a server that says nothing fails a test instead of hanging it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any test should need: an answer that is not there by then never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer as it came over the wire.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The fields in their order: the names as they came, repeated ones repeated.
    pub headers: Vec<(String, String)>,
    /// The content, without the framing of chunks; still compressed if it was.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a field, the first if there are several.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every value of a field.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    /// Is this one of the members of a field that holds a list, such as `Vary`? Case does not count.
    #[must_use]
    pub fn lists(&self, name: &str, member: &str) -> bool {
        self.all(name).iter().flat_map(|value| value.split(',')).any(|known| known.trim().eq_ignore_ascii_case(member))
    }

    /// The content as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The content as JSON, or `null` if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// The bytes of a request with a `Host`, these fields, and a `Content-Length` if there is a body.
#[must_use]
pub fn request(method: &str, target: &str, fields: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: test.example\r\n");
    for (name, value) in fields {
        text.extend([name, ": ", value, "\r\n"]);
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text + "\r\n" + body
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, unread: Vec::new() })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the other side has closed.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Sends nothing more. The other side sees the end, and can still answer.
    ///
    /// # Errors
    /// When it has not.
    pub async fn finish(&mut self) -> io::Result<()> {
        match self.stream.shutdown().await {
            // The other side has ended the connection first, which is an end, too.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            ended => ended,
        }
    }

    /// Reads the next answer; interim ones (1xx) are passed over. `to_head`: the request was a HEAD, so no content follows.
    ///
    /// # Errors
    /// When the connection ends in the middle, what comes is no HTTP, or nothing comes for 20 s.
    pub async fn read(&mut self, to_head: bool) -> io::Result<Answer> {
        timeout(PATIENCE, self.read_final(to_head)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// Waits until the other side closes, and gives what it still said.
    ///
    /// # Errors
    /// When it does neither for 20 s. A reset is an end like any other.
    pub async fn read_to_end(mut self) -> io::Result<Vec<u8>> {
        let all = async { while let Ok(1..) = self.fill().await {} };
        timeout(PATIENCE, all).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        Ok(self.unread)
    }

    async fn read_final(&mut self, to_head: bool) -> io::Result<Answer> {
        loop {
            let (status, headers) = self.read_head().await?;
            if (100..200).contains(&status) {
                continue;
            }
            let mut answer = Answer { status, headers, body: Vec::new() };
            answer.body = if to_head || matches!(status, 204 | 304) {
                Vec::new()
            } else if answer.lists("transfer-encoding", "chunked") {
                self.read_chunks().await?
            } else {
                let length = answer.header("content-length").map_or(Ok(0), str::parse).map_err(malformed)?;
                self.take(length).await?
            };
            return Ok(answer);
        }
    }

    async fn read_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let line = self.line().await?;
        let status = line.split(' ').nth(1).unwrap_or_default().parse().map_err(malformed)?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| malformed("a field without a colon"))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    async fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let length = usize::from_str_radix(&self.line().await?, 16).map_err(malformed)?;
            body.extend(self.take(length).await?);
            if !self.line().await?.is_empty() {
                return Err(malformed("a chunk that does not end where it said"));
            }
            if length == 0 {
                return Ok(body);
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.take(end + 2).await?;
                return Ok(String::from_utf8_lossy(line.strip_suffix(b"\r\n").unwrap_or_default()).into_owned());
            }
            self.more().await?;
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < length {
            self.more().await?;
        }
        Ok(self.unread.drain(..length).collect())
    }

    async fn more(&mut self) -> io::Result<()> {
        if self.fill().await? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.unread).await
    }
}

fn malformed(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}
