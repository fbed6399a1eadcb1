//! Clients of HTTP/2: many requests at once on a connection, and another one when the server says GOAWAY. Only what the server says it has not begun (RFC 9113,
//! 6.8) is sent again, and counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::tally::Tally;

/// Longer than any limit of the service; past it the request is lost.
const PATIENCE: Duration = Duration::from_secs(40);

/// What a stream of requests has come to when its connection takes no more.
enum Outcome {
    Answered,
    /// The connection takes no new request: nothing was sent.
    Closed,
    /// It was sent, and the server says that it has not begun it.
    NotBegun,
}

/// Asks on one connection after the other, `streams` at once.
pub(super) async fn ask(address: SocketAddr, token: String, number: u32, streams: u32, tally: Arc<Tally>) {
    let (token, next) = (Arc::new(token), Arc::new(AtomicU64::new(0)));
    // What was not begun is the first thing that the next connection is asked.
    let mut left: Vec<u64> = Vec::new();
    while !tally.is_over() {
        tally.connections.fetch_add(1, Ordering::Relaxed);
        let (sender, connection) = match connect(address).await {
            Ok(connected) => connected,
            Err(error) => {
                tally.fail(format!("a new connection of HTTP/2: {error}"));
                continue;
            }
        };
        let driver = tokio::spawn(connection);
        let mut running = JoinSet::new();
        for _ in 0..streams {
            let (sender, token, next, tally, first) = (sender.clone(), token.clone(), next.clone(), tally.clone(), left.pop());
            running.spawn(async move { stream(sender, &token, number, first, &next, &tally).await });
        }
        drop(sender);
        left.extend(running.join_all().await.into_iter().flatten());
        driver.abort();
    }
    if !left.is_empty() {
        tally.fail(format!("{} requests of HTTP/2 were not begun and never sent again", left.len()));
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<(SendRequest<Bytes>, h2::client::Connection<TcpStream, Bytes>)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    h2::client::handshake(stream).await.map_err(std::io::Error::other)
}

/// One request after the other, until the connection takes no more; gives the one that is to be sent again.
async fn stream(sender: SendRequest<Bytes>, token: &str, number: u32, first: Option<u64>, next: &AtomicU64, tally: &Tally) -> Option<u64> {
    let mut waiting = first;
    while !tally.is_over() || waiting.is_some() {
        let request = waiting.take().unwrap_or_else(|| next.fetch_add(1, Ordering::Relaxed));
        let body = tally.body(&format!("streamed {number}"), request);
        match tokio::time::timeout(PATIENCE, exchange(sender.clone(), token, body, tally)).await {
            Ok(Ok(Outcome::Answered)) => {}
            Ok(Ok(Outcome::Closed)) => return Some(request),
            Ok(Ok(Outcome::NotBegun)) => {
                tally.again.fetch_add(1, Ordering::Relaxed);
                return Some(request);
            }
            Ok(Err(error)) => {
                tally.fail(format!("request {request} of HTTP/2: {error}"));
                return None;
            }
            Err(_) => tally.fail(format!("request {request} of HTTP/2: no answer in time")),
        }
    }
    None
}

async fn exchange(sender: SendRequest<Bytes>, token: &str, body: Option<Vec<u8>>, tally: &Tally) -> Result<Outcome, h2::Error> {
    let Ok(mut sender) = sender.ready().await else { return Ok(Outcome::Closed) };
    let (method, path) = if body.is_some() { (Method::POST, "/api/products") } else { (Method::GET, "/api/products?limit=5") };
    let head = Request::builder().method(method).uri(format!("http://localhost{path}")).header("authorization", format!("Bearer {token}"));
    let head = head.header("content-type", "application/json").body(()).unwrap();
    let wrote = body.is_some();
    let Ok((answer, mut sending)) = sender.send_request(head, !wrote) else { return Ok(Outcome::Closed) };
    if let Some(body) = body {
        // A stream that has ended meanwhile says why below.
        let _ = sending.send_data(body.into(), true);
    }
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(error) if not_begun(&error) => return Ok(Outcome::NotBegun),
        Err(error) => return Err(error),
    };
    let (status, mut stream) = (answer.status().as_u16(), answer.into_body());
    let mut bytes = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    tally.answer(wrote, status, &bytes);
    Ok(Outcome::Answered)
}

/// A stream above the last one of a GOAWAY, or one that was refused.
fn not_begun(error: &h2::Error) -> bool {
    let gone = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    gone || (error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}
