//! Clients of HTTP/1.1: they go to a new connection only when an answer says `Connection: close`, and repeat nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tally::Tally;
use crate::client::{Connection, request};

/// Asks again and again, with a rest after each answer.
pub(super) async fn ask(address: SocketAddr, token: String, number: u32, rest: Duration, tally: Arc<Tally>) {
    let (bearer, name) = (format!("Bearer {token}"), format!("kept {number}"));
    let fields = [("authorization", bearer.as_str())];
    let read = request("GET", "/api/products?limit=5", &fields, b"");
    let mut kept: Option<Connection> = None;
    for count in 0.. {
        let body = Tally::body(&name, count);
        let write = body.as_ref().map(|body| request("POST", "/api/products", &fields, body));
        let asked = Instant::now();
        let connection = match kept.take() {
            Some(connection) => Ok(connection),
            None => {
                tally.connects();
                Connection::open(address, None).await
            }
        };
        let answer = match connection {
            Ok(mut connection) => connection.ask(write.as_ref().unwrap_or(&read)).await.map(|answer| (answer, connection)),
            Err(error) => Err(error),
        };
        match answer {
            Ok((answer, connection)) => {
                tally.answer(asked, write.is_some(), answer.status, &answer.body);
                kept = Some(connection).filter(|_| !answer.closes());
            }
            Err(error) => tally.fail(asked, format!("{name}, request {count}, after a rest of {rest:?}: {error}")),
        }
        if tally.is_over() {
            return;
        }
        // Even none would be a millisecond.
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
    }
}

/// Asks on a new connection each time: one that the kernel has accepted must be served by somebody.
pub(super) async fn connect_each_time(address: SocketAddr, tally: Arc<Tally>) {
    let request = request("GET", "/health/ready", &[], b"");
    while !tally.is_over() {
        tally.connects();
        let asked = Instant::now();
        let answer = match Connection::open(address, None).await {
            Ok(mut connection) => connection.ask(&request).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => tally.answer(asked, false, answer.status, &answer.body),
            Err(error) => tally.fail(asked, format!("a new connection: {error}")),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
