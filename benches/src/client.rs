//! A client for the check before the measurement: one request on one connection, the whole answer, nothing hidden.

use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long an answer may take: far more than any peer needs, so that a hanging one ends the run.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// An answer with its body as the application made it: unchunked and uncompressed.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first value of a header, by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether a header's lower-case name begins so.
    pub(crate) fn has_header_like(&self, prefix: &str) -> bool {
        self.headers.iter().any(|(known, _)| known.starts_with(prefix))
    }
}

/// Sends one request to the loopback port and reads its answer to the end.
///
/// # Errors
/// When the connection fails, the answer does not come in time, or is not HTTP/1.1 as this client knows it.
pub(crate) async fn send(port: u16, method: &str, path: &str, headers: &[(&str, String)], body: Option<&str>) -> anyhow::Result<Answer> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    request.push_str(body.unwrap_or_default());
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        anyhow::Ok(bytes)
    };
    let bytes = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.context("no answer in time")??;
    answer(&bytes)
}

fn answer(bytes: &[u8]) -> anyhow::Result<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").context("an answer without an end of its head")?;
    let (head, body) = bytes.split_at(end);
    let body = body.get(4..).unwrap_or_default();
    let head = str::from_utf8(head)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.parse()?;
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let mut answer = Answer { status, headers, body: Vec::new() };
    let body = match answer.header("transfer-encoding") {
        Some("chunked") => unchunked(body)?,
        _ => body.to_vec(),
    };
    answer.body = match answer.header("content-encoding") {
        None | Some("identity") => body,
        Some("gzip") => {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut plain)?;
            plain
        }
        Some(other) => bail!("an encoding that was not asked for: {other}"),
    };
    Ok(answer)
}

/// The chunks of RFC 9112 section 7.1 put together; trailers are not expected.
fn unchunked(mut rest: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").context("a chunk without its size")?;
        let (size, data) = rest.split_at(end);
        let size = usize::from_str_radix(str::from_utf8(size)?.trim(), 16)?;
        if size == 0 {
            return Ok(whole);
        }
        let data = data.get(2..).unwrap_or_default();
        whole.extend_from_slice(data.get(..size).context("a chunk cut short")?);
        rest = data.get(size + 2..).context("a chunk cut short")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_answer_is_put_together() {
        let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let answer = answer(bytes).expect("a whole answer");
        assert_eq!((answer.status, answer.body.as_slice(), answer.header("x-a")), (200, b"abcde".as_slice(), Some("b")));
    }

    #[test]
    fn an_answer_cut_short_is_an_error() {
        assert!(answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc\r\n").is_err());
        assert!(answer(b"HTTP/1.1 200 OK\r\n").is_err());
    }
}
