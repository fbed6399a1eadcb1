//! A small HTTP/1.1 client: JSON in and out, connections kept, and no cleverness that could hide what the server did.
//!
//! It promises to show every answer as it came: no redirects, no retries, no decoding.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longer than any limit that a test waits for; past it the server hangs.
const PATIENCE: Duration = Duration::from_secs(20);

type Connection = BufReader<TcpStream>;

/// Asks one server, as one caller. Clones share the kept connections.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    token: Option<String>,
    kept: Arc<Mutex<Vec<Connection>>>,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first field of this name (lower case).
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// Passes on an answer of this status, and shows any other.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// `data` of a success.
    #[track_caller]
    pub(crate) fn data(&self) -> Value {
        let body = self.json();
        assert_eq!(body["status"], "success", "{body}");
        body["data"].clone()
    }

    /// `code` of a failure.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_else(|| panic!("no code: {}", self.text())).to_owned()
    }

    /// The fields that a failure names, with the code of each.
    #[track_caller]
    pub(crate) fn flaws(&self) -> Vec<(String, String)> {
        let body = self.json();
        let text = |flaw: &Value, member: &str| flaw[member].as_str().unwrap_or_default().to_owned();
        body["errors"].as_array().map(|flaws| flaws.iter().map(|flaw| (text(flaw, "field"), text(flaw, "code"))).collect()).unwrap_or_default()
    }

    /// Passes on a 400 that names this field.
    #[track_caller]
    pub(crate) fn names(self, field: &str) -> Self {
        assert_eq!(self.status, 400, "{}", self.text());
        assert!(self.flaws().iter().any(|(named, _)| named == field), "`{field}` is not named: {}", self.text());
        self
    }
}

impl Client {
    /// A stranger at this address.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, token: None, kept: Arc::default() }
    }

    /// The same server, asked with this token.
    pub(crate) fn with_token(&self, token: impl Into<String>) -> Self {
        Self { address: self.address, token: Some(token.into()), kept: Arc::default() }
    }

    /// The token it asks with, or nothing.
    pub(crate) fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"").await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, &[], b"").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.raw("POST", path, body.to_string().as_bytes()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.raw("PUT", path, body.to_string().as_bytes()).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.raw("PATCH", path, body.to_string().as_bytes()).await
    }

    /// A body that says it is JSON, whatever it is.
    pub(crate) async fn raw(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.ask(method, path, &[("content-type", "application/json")], body).await
    }

    /// Any request.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.attempt(method, path, headers, body).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Any request, whose connection may fail.
    pub(crate) async fn attempt(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<Answer> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        if let Some(token) = &self.token {
            head += &format!("authorization: Bearer {token}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() || method != "GET" {
            head += &format!("content-length: {}\r\n", body.len());
        }
        head += "\r\n";
        let late = || std::io::Error::other("no answer in time");
        tokio::time::timeout(PATIENCE, self.exchange(method, head, body)).await.map_err(|_| late())?
    }

    async fn exchange(&self, method: &str, head: String, body: &[u8]) -> std::io::Result<Answer> {
        let kept = self.kept.lock().unwrap().pop();
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        connection.get_mut().write_all(head.as_bytes()).await?;
        // A server that refuses a body by its length answers and closes before all of it was sent: the answer counts.
        let _ = connection.get_mut().write_all(body).await;
        let answer = read_answer(&mut connection, method).await?;
        if answer.header("connection") != Some("close") {
            self.kept.lock().unwrap().push(connection);
        }
        Ok(answer)
    }
}

/// Reads one answer (RFC 9112, 6).
pub(crate) async fn read_answer(connection: &mut Connection, method: &str) -> std::io::Result<Answer> {
    let wrong = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let mut line = String::new();
    if connection.read_line(&mut line).await? == 0 {
        return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "closed without an answer"));
    }
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| wrong(&line))?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    if method == "HEAD" || status == 204 || status == 304 {
        return Ok(answer);
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        loop {
            let mut size = String::new();
            connection.read_line(&mut size).await?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(|_| wrong("chunk size"))?;
            let mut chunk = vec![0; size + 2];
            connection.read_exact(&mut chunk).await?;
            answer.body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return Ok(answer);
            }
        }
    }
    let length = answer.header("content-length").and_then(|length| length.parse().ok()).ok_or_else(|| wrong("neither length nor chunks"))?;
    answer.body = vec![0; length];
    connection.read_exact(&mut answer.body).await?;
    Ok(answer)
}

/// Percent-encodes a value of a query.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
