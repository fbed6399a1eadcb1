//! The body's bounds: its size, its coding, and the pace at which it comes.
//!
//! A body announced as too large is refused before a byte of it is read, and before `100 Continue` is sent; one that is sent in chunks is counted
//! while it streams. A body that comes too slowly is a 408. What a handler reads through [`crate::extract`] becomes the one error form.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context as Task, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{Request, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};
use tower::{Layer, Service};

use super::shortcut::{Amend, Amendment, Shortcut};
use crate::error::{Error, Report, codes};

/// A body may rest this long in all before its pace counts: longer than any honest stall of a mobile network that recovers.
const GRACE: Duration = Duration::from_secs(10);
/// After the grace a body needs a second for each of these bytes at most: 500 B/s is what Apache's mod_reqtimeout asks for by default.
const BYTES_PER_S_MIN: u64 = 500;

/// What a chunk costs on the wire beside its data: a digit and two line ends at least (RFC 9112, 7.1).
const CHUNK_OVERHEAD_BYTES: u64 = 5;
/// A body of chunks of a byte each is six times its size on the wire. What comes may be a quarter over the limit and this much more, which chunks of
/// 32 bytes still keep to; then it is too large.
const CHUNK_OVERHEAD_FREE: u64 = 64 * 1024;

/// The layer.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimit {
    bytes_max: u64,
    pace: Pace,
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    grace: Duration,
    bytes_per_s_min: u64,
}

impl BodyLimit {
    /// Bodies of at most this many bytes, at 500 bytes a second or more after a grace of 10 s.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max: bytes_max as u64, pace: Pace { grace: GRACE, bytes_per_s_min: BYTES_PER_S_MIN } }
    }

    /// Another pace: a body that is still not there after `grace`, and a second more for each `bytes_per_s_min` bytes (at least 1) that have come, is a 408.
    #[must_use]
    pub fn with_pace(self, grace: Duration, bytes_per_s_min: u64) -> Self {
        Self { pace: Pace { grace, bytes_per_s_min: bytes_per_s_min.max(1) }, ..self }
    }
}

impl<S> Layer<S> for BodyLimit {
    type Service = BodyLimited<S>;
    fn layer(&self, inner: S) -> BodyLimited<S> {
        BodyLimited { inner, limit: *self }
    }
}

/// The service of [`BodyLimit`].
#[derive(Debug, Clone)]
pub struct BodyLimited<S> {
    inner: S,
    limit: BodyLimit,
}

impl<S> Service<Request<Body>> for BodyLimited<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Shortcut<Amend<S::Future, Option<Noted>>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.body().is_end_stream() {
            return Shortcut::later(Amend::new(self.inner.call(request), None));
        }
        // hyper refuses a `Content-Length` that is no number, so the hint is the header's word.
        if request.body().size_hint().lower() > self.limit.bytes_max {
            return Shortcut::now(BodyFault::TooLarge.into_error().into_response());
        }
        if let Some(coding) = request.headers().get(header::CONTENT_ENCODING)
            && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            let error = Error::new(&codes::UNSUPPORTED_MEDIA_TYPE).with_message("Compressed request bodies are not supported");
            // RFC 9110, 12.5.3: the answer says which codings would do.
            return Shortcut::now(error.with_header(header::ACCEPT_ENCODING, header::HeaderValue::from_static("identity")).closing().into_response());
        }
        let (limit, noted) = (self.limit, Noted::default());
        let fault = noted.0.clone();
        let chunk_overhead = if request.body().size_hint().exact().is_some() { 0 } else { CHUNK_OVERHEAD_BYTES };
        let measured = |body| Measured { body, bytes: 0, wire: 0, chunk_overhead, limit, fault, begun: None, timer: None };
        Shortcut::later(Amend::new(self.inner.call(request.map(|body| Body::new(measured(body)))), Some(noted)))
    }
}

/// Why a body could not be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// More bytes than the limit.
    TooLarge,
    /// Fewer bytes a second than the least.
    TooSlow,
}

impl BodyFault {
    /// The answer. The connection ends with it: the rest of the body is not worth reading.
    pub fn into_error(self) -> Error {
        Error::new(match self {
            Self::TooLarge => &codes::PAYLOAD_TOO_LARGE,
            Self::TooSlow => &codes::REQUEST_TIMEOUT,
        })
        .closing()
    }
}

impl fmt::Display for BodyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the body is larger than the limit",
            Self::TooSlow => "the body comes too slowly",
        })
    }
}

impl std::error::Error for BodyFault {}

/// Why the body was cut off, for handlers that read it with something else than [`crate::extract`]: axum's own extractors call every failure a 400.
#[derive(Debug, Default)]
pub struct Noted(Arc<OnceLock<BodyFault>>);

impl Amendment for Option<Noted> {
    fn amend(self, response: &mut Response) {
        let failed = response.status().is_client_error() || response.status().is_server_error();
        // An answer that is one of our errors already says what its handler wants to say.
        if let Some(fault) = self.as_ref().and_then(|noted| noted.0.get())
            && failed
            && response.extensions().get::<Report>().is_none()
        {
            *response = fault.into_error().into_response();
        }
    }
}

pin_project! {
    /// A body that is counted and timed while it streams.
    struct Measured {
        #[pin] body: Body,
        bytes: u64,
        wire: u64,
        chunk_overhead: u64,
        limit: BodyLimit,
        fault: Arc<OnceLock<BodyFault>>,
        begun: Option<Instant>,
        #[pin] timer: Option<Sleep>,
    }
}

fn note(noted: &OnceLock<BodyFault>, fault: BodyFault) -> axum::Error {
    // The first fault stands.
    let _ = noted.set(fault);
    axum::Error::new(fault)
}

impl HttpBody for Measured {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut this = self.project();
        match this.body.poll_frame(task) {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                *this.bytes += length;
                *this.wire += length + *this.chunk_overhead;
                let bytes_max = this.limit.bytes_max;
                let within = *this.bytes <= bytes_max && *this.wire <= bytes_max.saturating_add(bytes_max / 4).saturating_add(CHUNK_OVERHEAD_FREE);
                Poll::Ready(Some(if within { Ok(frame) } else { Err(note(this.fault, BodyFault::TooLarge)) }))
            }
            Poll::Ready(end) => Poll::Ready(end),
            Poll::Pending => {
                let begun = *this.begun.get_or_insert_with(Instant::now);
                let Pace { grace, bytes_per_s_min } = this.limit.pace;
                let due = begun + grace + Duration::from_secs(*this.bytes / bytes_per_s_min);
                if this.timer.is_none() {
                    this.timer.set(Some(sleep_until(due.into())));
                }
                while let Some(timer) = this.timer.as_mut().as_pin_mut() {
                    if timer.poll(task).is_pending() {
                        return Poll::Pending;
                    }
                    // The timer was set when fewer bytes had come: it is due again later, or the body is too slow.
                    if due <= Instant::now() {
                        return Poll::Ready(Some(Err(note(this.fault, BodyFault::TooSlow))));
                    }
                    this.timer.set(Some(sleep_until(due.into())));
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
