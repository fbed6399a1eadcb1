//! Doors for the fuzz targets of `fuzz/` to what parses and is private. Nothing here decides anything: each function calls what a request would meet.

use std::net::SocketAddr;

use axum::response::Response;
use http::{HeaderMap, Method, Request, Uri};

use crate::cache::Output;
use crate::client::Networks;
use crate::context::Context;
use crate::routes::RouteTable;
use crate::serve::chunks::{Chunks, Piece};
use crate::serve::head::{self, Framing};
use crate::serve::raw::Tail;
use crate::serve::{HeadFault, Limits, Peer};
use crate::stack::compress;

pub use crate::cache::tier::rewritten;
pub use crate::redis::measure::measured;

/// What is wrong with a head of HTTP/1.1 that came in these bytes.
pub fn head_fault(read: &[u8], request: &Request<()>) -> Option<HeadFault> {
    let mut tail = Tail::default();
    // There is no body before it.
    let _ = tail.push(read);
    let framing = Framing::of(request.headers());
    let raw = tail.claim(&framing);
    head::check(request, &framing, raw, &Limits::default())
}

/// Where a chunked body ends that comes in these pieces: not in them (`None`), or behind so many of their bytes.
///
/// # Errors
/// When it is no chunked body.
#[allow(clippy::result_unit_err, reason = "there is nothing more to say of it")]
pub fn end_of_chunks<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<usize>, ()> {
    let (mut chunks, mut before) = (Chunks::default(), 0);
    for piece in pieces {
        match chunks.read(piece) {
            Piece::Open => before += piece.len(),
            Piece::Ended(bytes) => return Ok(Some(before + bytes)),
            Piece::Broken => return Err(()),
        }
    }
    Ok(None)
}

/// What the layers know of a GET with these fields that this peer sent.
pub fn arriving(peer: SocketAddr, fields: HeaderMap, trusted: &Networks) -> Context {
    let mut request = Request::new(());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = Uri::from_static("/");
    *request.headers_mut() = fields;
    Context::arriving(&Peer { addr: peer, http2: false, fault: None }, &request, trusted, &RouteTable::default())
}

/// The coding in which an answer to this request would leave.
pub fn coding(context: &Context) -> Option<&'static str> {
    Some(compress::wished(context)?.as_str())
}

/// The answer to this request, of an output that is kept.
pub fn respond(output: &Output, context: &Context) -> Response {
    output.respond(None, Some(context))
}
