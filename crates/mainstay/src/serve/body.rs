//! The two bodies of a request, each telling the connection when it ends.

use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::shared::Shared;

/// A request whose answer has not ended. Ends with its drop, so that no path forgets it.
pub(crate) struct Flight(pub(crate) Arc<Shared>);

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.0.is_http2() && self.0.bodies_open.load(Relaxed) > 0 {
            self.0.bodies_open.store(0, Relaxed);
            drop(unread(&self.0));
        }
        self.0.request_ended();
    }
}

/// The request body that the service dropped before its end, if it did.
pub(crate) fn unread(shared: &Shared) -> Option<Incoming> {
    shared.unread.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// What the client sends.
pub(crate) struct RequestBody {
    incoming: Option<Incoming>,
    shared: Arc<Shared>,
    /// Reading would ask the client for the body (`Expect: 100-continue`).
    asks: bool,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, shared: Arc<Shared>, asks: bool) -> RequestBody {
        shared.bodies_open.fetch_add(1, Relaxed);
        RequestBody { incoming: Some(incoming), shared, asks }
    }

    fn end(&mut self) {
        if self.incoming.take().is_some() {
            self.shared.unparsed.store(false, Relaxed);
            self.shared.bodies_open.fetch_sub(1, Relaxed);
        }
    }
}

/// A piece is a slice of the buffer it was read into. A client that sends a body byte by byte would have whoever collects it hold 8 KiB
/// for each; a small piece is therefore copied out.
fn detached(piece: Bytes) -> Bytes {
    /// An eighth of hyper's smallest read: what is held is at most eight times what was sent.
    const SMALL_BYTES: usize = 1024;
    if piece.len() < SMALL_BYTES { Bytes::copy_from_slice(&piece) } else { piece }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = self.incoming.as_mut() else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
        if frame.is_none() || incoming.is_end_stream() {
            self.end();
        }
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(detached))))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.shared.is_http2() {
            self.end();
        } else if self.shared.in_flight.load(Relaxed) > 0
            && !self.asks
            && let Some(incoming) = self.incoming.take()
        {
            // Kept for the answer, which must know whether the connection can go on behind it.
            *self.shared.unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(incoming);
        }
    }
}

/// Whether a body is left that nobody will read, so that the connection must close (HTTP/1.1). What is small and has arrived
/// already is read here and thrown away; hyper hands it over piece by piece, so it gets `turns` of its loop to do so.
pub(crate) fn poll_left_unread(shared: &Shared, turns: &mut u8, cx: &mut Context<'_>) -> Poll<bool> {
    /// As much as hyper reads with a head at first.
    const SMALL_BYTES: usize = 8 * 1024;
    if shared.bodies_open.load(Relaxed) == 0 {
        return Poll::Ready(false);
    }
    let Some(mut incoming) = unread(shared) else {
        return Poll::Ready(true);
    };
    let mut bytes = 0;
    while bytes <= SMALL_BYTES {
        match http_body::Body::poll_frame(Pin::new(&mut incoming), cx) {
            Poll::Ready(Some(Ok(frame))) => bytes += frame.data_ref().map_or(0, Bytes::len),
            Poll::Ready(None) => {
                shared.bodies_open.store(0, Relaxed);
                return Poll::Ready(false);
            }
            Poll::Pending if *turns > 0 => {
                *turns -= 1;
                *shared.unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(incoming);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => break,
        }
    }
    Poll::Ready(true)
}

/// What the service answers.
pub(crate) struct AnswerBody {
    inner: Body,
    /// HTTP/2: goes with the last piece.
    flight: Option<Flight>,
    http2: bool,
}

impl AnswerBody {
    pub(crate) fn new(inner: Body, flight: Flight) -> AnswerBody {
        let http2 = flight.0.is_http2();
        AnswerBody { inner, flight: Some(flight), http2 }
    }

    /// A piece for hyper. Over HTTP/2 it lies with the library for as long as the client gives no window, and hyper is done with a body whose last piece it has handed
    /// on: so the piece says when it has been sent, and the answer has ended no sooner.
    fn piece(&mut self, bytes: Bytes) -> Piece {
        let unsent = match &self.flight {
            Some(flight) if self.http2 && !bytes.is_empty() => {
                let shared = Arc::clone(&flight.0);
                let flight = if http_body::Body::is_end_stream(&self.inner) { self.flight.take() } else { None };
                Some(Unsent::new(shared, flight))
            }
            _ => None,
        };
        Piece { bytes, unsent }
    }
}

impl http_body::Body for AnswerBody {
    type Data = Piece;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|bytes| self.piece(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A piece of an answer.
pub(crate) struct Piece {
    bytes: Bytes,
    /// HTTP/2: until its last byte has gone.
    unsent: Option<Unsent>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(unsent) = &self.unsent {
            unsent.shared.sent(count);
            if self.bytes.is_empty() {
                self.unsent = None;
            }
        }
    }
}

/// Something of an answer waits for the client's window, with the request if it is the answer's end.
struct Unsent {
    shared: Arc<Shared>,
    _flight: Option<Flight>,
}

impl Unsent {
    fn new(shared: Arc<Shared>, flight: Option<Flight>) -> Unsent {
        shared.unsent_began();
        Unsent { shared, _flight: flight }
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.shared.unsent_ended();
    }
}
