//! Clients of HTTP/1.1: they go to a new connection only when an answer says `Connection: close`, and repeat nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::tally::Tally;
use crate::client::Client;

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// Asks again and again, with a rest of `pause`.
pub(super) async fn ask(address: SocketAddr, token: String, number: u32, pause: Duration, tally: Arc<Tally>) {
    let (client, name) = (Client::new(address).with_token(token), format!("kept {number}"));
    tally.connections.fetch_add(1, Ordering::Relaxed);
    for request in 0.. {
        let body = tally.body(&name, request);
        let asked = match &body {
            Some(body) => client.attempt("POST", "/api/products", JSON, body).await,
            None => client.attempt("GET", "/api/products?limit=5", &[], b"").await,
        };
        match asked {
            Ok(answer) => {
                if answer.header("connection") == Some("close") {
                    tally.connections.fetch_add(1, Ordering::Relaxed);
                }
                tally.answer(body.is_some(), answer.status, &answer.body);
            }
            Err(error) => tally.fail(format!("{name}, request {request}, after a rest of {pause:?}: {error}")),
        }
        if tally.is_over() {
            return;
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Asks on a new connection each time: one that the kernel has accepted must be served by somebody.
pub(super) async fn connect_each_time(address: SocketAddr, tally: Arc<Tally>) {
    while !tally.is_over() {
        tally.connections.fetch_add(1, Ordering::Relaxed);
        match Client::new(address).attempt("GET", "/health/ready", &[], b"").await {
            Ok(answer) => tally.answer(false, answer.status, &answer.body),
            Err(error) => tally.fail(format!("a new connection: {error}")),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
