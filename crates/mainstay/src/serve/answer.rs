//! The service's own answer to what never became a request.
//!
//! hyper answers what it cannot parse with a bare status line. The service is asked instead, with a made-up request that carries
//! the fault, so that even that answer has the one error form, a request id, the headers and a line in the log.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use http::header::{ACCEPT, CONNECTION, CONTENT_LENGTH, DATE, ORIGIN, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body as _;
use pin_project_lite::pin_project;
use tower::ServiceExt as _;
use tower::util::Oneshot;

use super::{Peer, Reply};
use crate::context::REQUEST_ID;

/// The most that an answer to a fault may hold, in bytes: an error in the one form is a few hundred.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What [`serve`](super::serve) asks of a service: an answer to each request, and to each fault of a head at once.
pub trait Stack: Clone + Send + 'static {
    /// An answer in the making.
    type Future: Future<Output = Reply<Body>> + Send + 'static;

    /// A request has come. Each connection has a copy of the service of its own.
    fn call(&mut self, peer: Peer, request: Request<Body>) -> Self::Future;
}

/// A service of tower's, such as a bare router, without a stack around it. It finds the [`Peer`] in the request's extensions.
#[derive(Debug, Clone)]
pub struct Plain<S>(pub S);

impl<S> Stack for Plain<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    type Future = PlainFuture<S>;

    fn call(&mut self, peer: Peer, mut request: Request<Body>) -> PlainFuture<S> {
        request.extensions_mut().insert(peer);
        PlainFuture { future: self.0.clone().oneshot(request) }
    }
}

pin_project! {
    /// The answer of a [`Plain`] service.
    pub struct PlainFuture<S: tower::Service<Request<Body>>> {
        #[pin] future: Oneshot<S, Request<Body>>,
    }
}

impl<S> Future for PlainFuture<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Output = Reply<Body>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply<Body>> {
        self.project().future.poll(cx).map(|Ok(response)| response.into())
    }
}

/// What is still legible of a head that could not be parsed and shapes its answer: whose page asks (a browser hides an answer without its CORS
/// headers), in which form, under which id.
pub(crate) fn legible(unparsed: &[u8]) -> HeaderMap {
    let fields = unparsed.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        let name = [ORIGIN, ACCEPT, REQUEST_ID].into_iter().find(|known| name.eq_ignore_ascii_case(known.as_str().as_bytes()))?;
        Some((name, HeaderValue::from_bytes(value.get(1..)?.trim_ascii()).ok()?))
    });
    fields.collect()
}

/// The bytes of the service's answer to `peer.fault`, or `None` if it does not have it at once.
pub(crate) fn to_fault<S: Stack>(service: &S, peer: Peer, legible: HeaderMap) -> Option<Vec<u8>> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut request = Request::new(Body::empty());
    *request.headers_mut() = legible;
    let Poll::Ready(answer) = pin!(service.clone().call(peer, request)).poll(&mut cx) else {
        return None;
    };
    let (mut head, body) = answer.into_response().into_parts();
    let mut body = pin!(body);
    let mut content = Vec::new();
    loop {
        match body.as_mut().poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => content.extend_from_slice(frame.data_ref()?),
            Poll::Ready(None) => break,
            Poll::Ready(Some(Err(_))) | Poll::Pending => return None,
        }
        if content.len() > BODY_BYTES_MAX {
            return None;
        }
    }
    head.headers.remove(TRANSFER_ENCODING);
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(content.len()));
    head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(now) = date() {
        head.headers.entry(DATE).or_insert(now);
    }
    let reason = head.status.canonical_reason().unwrap_or("Refused");
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", head.status.as_str()).into_bytes();
    for (name, value) in &head.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&content);
    Some(bytes)
}

/// The `Date` of an answer that hyper does not write (RFC 9110 section 6.6.1).
fn date() -> Option<HeaderValue> {
    let now = jiff::Timestamp::now();
    let text = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok()?;
    HeaderValue::from_str(&text).ok()
}
