//! Clients of HTTP/2: many requests at once on a connection, and another one when the server says GOAWAY. Only what the server says it has not begun (RFC 9113,
//! 6.8) is sent again, and counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::tally::Tally;

/// Longer than any limit of the service; past it the request is lost.
const PATIENCE: Duration = Duration::from_secs(40);
/// Where nobody listens, a client without a pause would only heat the room.
const PAUSE: Duration = Duration::from_millis(5);

/// What a stream of requests has come to when its connection takes no more.
enum End {
    /// With this status and this body.
    Answered(u16, Vec<u8>),
    /// The connection takes no new request: nothing was sent.
    Closed,
    /// It was sent, and the server says that it has not begun it.
    NotBegun,
}

/// Who asks on a connection.
struct Asker {
    bearer: String,
    name: String,
    next: AtomicU64,
    tally: Arc<Tally>,
}

/// Asks on one connection after the other, `streams` at once.
pub(super) async fn ask(address: SocketAddr, token: String, number: u32, streams: u32, tally: Arc<Tally>) {
    let asker =
        Arc::new(Asker { bearer: format!("Bearer {token}"), name: format!("streamed {number}"), next: AtomicU64::new(0), tally: tally.clone() });
    // What was not begun is the first thing that the next connection is asked.
    let mut left: Vec<u64> = Vec::new();
    while !tally.is_over() || !left.is_empty() {
        tally.connects();
        let asked = Instant::now();
        let (sender, connection) = match connect(address).await {
            Ok(connected) => connected,
            Err(error) => {
                tally.fail(asked, format!("a new connection of HTTP/2: {error}"));
                if tally.is_over() {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let driver = tokio::spawn(connection);
        let mut running = JoinSet::new();
        for _ in 0..streams {
            let (sender, asker, first) = (sender.clone(), asker.clone(), left.pop());
            running.spawn(async move { asker.stream(sender, first).await });
        }
        drop(sender);
        left.extend(running.join_all().await.into_iter().flatten());
        driver.abort();
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<(SendRequest<Bytes>, h2::client::Connection<TcpStream, Bytes>)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    h2::client::handshake(stream).await.map_err(std::io::Error::other)
}

impl Asker {
    /// One request after the other, until the connection takes no more; gives the one that is to be sent again.
    async fn stream(&self, sender: SendRequest<Bytes>, first: Option<u64>) -> Option<u64> {
        let (tally, mut waiting) = (&self.tally, first);
        while !tally.is_over() || waiting.is_some() {
            let request = waiting.take().unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed));
            let body = Tally::body(&self.name, request);
            let (asked, wrote) = (Instant::now(), body.is_some());
            match tokio::time::timeout(PATIENCE, exchange(sender.clone(), &self.bearer, body)).await {
                Ok(Ok(End::Answered(status, body))) => tally.answer(asked, wrote, status, &body),
                Ok(Ok(End::Closed)) => return Some(request),
                Ok(Ok(End::NotBegun)) => {
                    tally.sends_again();
                    return Some(request);
                }
                Ok(Err(error)) => {
                    tally.fail(asked, format!("{}, request {request}: {error}", self.name));
                    return None;
                }
                Err(_) => tally.fail(asked, format!("{}, request {request}: no answer in time", self.name)),
            }
        }
        None
    }
}

async fn exchange(sender: SendRequest<Bytes>, bearer: &str, body: Option<Vec<u8>>) -> Result<End, Box<dyn std::error::Error + Send + Sync>> {
    let Ok(mut sender) = sender.ready().await else { return Ok(End::Closed) };
    let (method, path) = if body.is_some() { (Method::POST, "/api/products") } else { (Method::GET, "/api/products?limit=5") };
    let head = Request::builder().method(method).uri(format!("http://localhost{path}")).header("authorization", bearer);
    let head = head.header("content-type", "application/json").body(())?;
    let Ok((answer, mut sending)) = sender.send_request(head, body.is_none()) else { return Ok(End::Closed) };
    if let Some(body) = body {
        // A stream that has ended meanwhile says why below.
        let _ = sending.send_data(body.into(), true);
    }
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(error) if not_begun(&error) => return Ok(End::NotBegun),
        Err(error) => return Err(error.into()),
    };
    let (status, mut stream) = (answer.status().as_u16(), answer.into_body());
    let mut bytes = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    Ok(End::Answered(status, bytes))
}

/// A stream above the last one of a GOAWAY, or one that was refused.
fn not_begun(error: &h2::Error) -> bool {
    let gone = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    gone || (error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}
