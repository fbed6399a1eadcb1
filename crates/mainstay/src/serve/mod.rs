//! Sockets to requests: our own accept loop on hyper, with every limit of the transport.
//!
//! It promises: nobody holds a connection by doing nothing (deadlines for the first byte, for a head, for an idle
//! connection, for a reader that does not read); connections are capped, in all and per address, and under attack those
//! that wait for their client give way first; a request whose head could be understood in two ways reaches the service only as a
//! [`HeadFault`]; whatever cannot be parsed at all is still answered by the service, in its one error form; and a drain
//! loses no request.
//!
//! Read from the top down: `accept` takes a socket, `registry` decides whether it may stay, `connection` drives it
//! through `wire` (bytes) and `door` (requests), `deadline` says when its time is up, `drain` ends it all.
//!
//! Deliberately absent: TLS (a balancer's work here), HTTP/2 upgrade from HTTP/1.1 (RFC 9113 dropped it), timers per
//! request (bodies and handlers have deadlines of their own in the stack).

mod accept;
mod answer;
mod body;
pub(crate) mod chunks;
mod connection;
mod deadline;
mod door;
mod drain;
pub(crate) mod head;
mod limits;
mod lines;
pub(crate) mod raw;
mod registry;
mod shared;
mod wire;

pub use accept::{Report, adopt, bind, serve, serve_with};
pub use answer::{Plain, Stack};
pub use drain::Drain;
pub use head::HeadFault;
pub use limits::Limits;
pub use lines::{Constant, Lines, Reply};

use std::net::SocketAddr;

/// Where a request came from and what is wrong with its head.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The other end of the socket; behind a proxy that is the proxy.
    pub addr: SocketAddr,
    /// Whether the request came over HTTP/2.
    pub http2: bool,
    /// What is wrong with the head. The service answers it in its own error form and routes nothing; the transport
    /// closes the connection afterwards.
    pub fault: Option<HeadFault>,
}
