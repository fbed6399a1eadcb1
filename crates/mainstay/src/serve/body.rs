//! The two bodies of a request, each telling the connection when it ends.

use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
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
    flight: Flight,
    /// HTTP/2: the last frame waits for the client's window.
    waits: bool,
}

impl AnswerBody {
    pub(crate) fn new(inner: Body, flight: Flight) -> AnswerBody {
        AnswerBody { inner, flight, waits: false }
    }

    fn set_waits(&mut self, waits: bool) {
        if self.waits != waits {
            self.waits = waits;
            self.flight.0.window_wait(waits);
        }
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if !this.flight.0.is_http2() {
            return Pin::new(&mut this.inner).poll_frame(cx);
        }
        this.set_waits(false);
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        this.set_waits(matches!(frame, Some(Ok(_))));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.set_waits(false);
    }
}
