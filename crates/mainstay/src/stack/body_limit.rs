//! The body's bounds: its size, its coding, and the pace at which it comes.
//!
//! A body announced as too large is refused before a byte of it is read, and before `100 Continue` is sent; one that is sent in chunks is counted
//! while it streams. A body that comes too slowly is a 408. What a handler reads through [`crate::extract`] becomes the one error form.

use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
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

use super::overload::overloaded;
use super::{Layer, Outgoing};
use crate::context::Context;
use crate::error::{Error, Report, codes};

/// A body that waits is looked at over spans of this length: longer than any honest stall of a mobile network that recovers.
const GRACE: Duration = Duration::from_secs(10);
/// In each span it has to come at this pace: 500 B/s is what Apache's mod_reqtimeout asks for by default. What came in a rush earlier earns no
/// patience: a body sent all but its last byte would otherwise hold its memory for half an hour.
const BYTES_PER_S_MIN: u64 = 500;

/// Whole bodies whose bytes may be held at once while they arrive; with the limit of 1 MB that is 256 MB, and the next bytes are a 503. Places in the
/// overload layer bound the bodies that have arrived, connections those that have not; this bounds what the latter can make us hold.
const ARRIVING_MAX: u64 = 256;

/// Bodies come and go within seconds.
const ROOM_AFTER_S: u64 = 1;

/// What a chunk costs on the wire beside its data: a digit and two line ends at least (RFC 9112, 7.1).
const CHUNK_OVERHEAD_BYTES: u64 = 5;
/// A body of chunks of a byte each is six times its size on the wire. What chunks may cost is a quarter of the limit and this much more, which a whole
/// body in chunks of 32 bytes still keeps to; then it is too large.
const CHUNK_OVERHEAD_FREE: u64 = 64 * 1024;

/// The layer.
#[derive(Debug, Clone)]
pub struct BodyLimit {
    bytes_max: u64,
    pace: Pace,
    /// Bytes of bodies that are still on their way in.
    arriving: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    grace: Duration,
    bytes_per_s_min: u64,
}

impl BodyLimit {
    /// Bodies of at most this many bytes, which come at 500 bytes a second or more in any 10 s.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max: bytes_max as u64, pace: Pace { grace: GRACE, bytes_per_s_min: BYTES_PER_S_MIN }, arriving: Arc::default() }
    }

    /// Another pace: a body that waits, and of which in a span of `grace` fewer bytes come than `bytes_per_s_min` (at least 1) asks for, is a 408.
    #[must_use]
    pub fn with_pace(self, grace: Duration, bytes_per_s_min: u64) -> Self {
        Self { pace: Pace { grace, bytes_per_s_min: bytes_per_s_min.max(1) }, ..self }
    }
}

impl Layer for BodyLimit {
    type Visit = Option<Noted>;

    fn request(&self, request: &mut Request<Body>, _: &Arc<Context>) -> ControlFlow<Response, Option<Noted>> {
        if request.body().is_end_stream() {
            return ControlFlow::Continue(None);
        }
        // hyper refuses a `Content-Length` that is no number, so the hint is the header's word.
        if request.body().size_hint().lower() > self.bytes_max {
            return ControlFlow::Break(BodyFault::TooLarge.into_error().into_response());
        }
        if let Some(coding) = request.headers().get(header::CONTENT_ENCODING)
            && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            let error = Error::new(&codes::UNSUPPORTED_MEDIA_TYPE).with_message("Compressed request bodies are not supported");
            // RFC 9110, 12.5.3: the answer says which codings would do.
            let error = error.with_header(header::ACCEPT_ENCODING, header::HeaderValue::from_static("identity")).closing();
            return ControlFlow::Break(error.into_response());
        }
        let noted = Noted::default();
        let chunk_overhead = if request.body().size_hint().exact().is_some() { 0 } else { CHUNK_OVERHEAD_BYTES };
        let body = std::mem::take(request.body_mut());
        let (limit, fault) = (self.clone(), noted.0.clone());
        *request.body_mut() =
            Body::new(Measured { body, count: Count { bytes: 0, overhead: 0, chunk_overhead, limit }, fault, span: None, timer: None });
        ControlFlow::Continue(Some(noted))
    }

    fn answer(&self, noted: Option<Noted>, answer: &mut Outgoing) {
        let failed = answer.status().is_client_error() || answer.status().is_server_error();
        // An answer that is one of our errors already says what its handler wants to say.
        if let Some(fault) = noted.as_ref().and_then(|noted| noted.0.get())
            && failed
            && answer.extensions().get::<Report>().is_none()
        {
            answer.replace(fault.into_error().into_response());
        }
    }
}

/// Why a body could not be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// More bytes than the limit.
    TooLarge,
    /// Fewer bytes a second than the least.
    TooSlow,
    /// It came when there was no place for its request, or no room for its bytes.
    Overloaded {
        /// After so many seconds there may be.
        after_s: u64,
    },
}

impl BodyFault {
    /// The answer. The connection ends with it: the rest of the body is not worth reading.
    pub fn into_error(self) -> Error {
        match self {
            Self::TooLarge => Error::new(&codes::PAYLOAD_TOO_LARGE),
            Self::TooSlow => Error::new(&codes::REQUEST_TIMEOUT),
            Self::Overloaded { after_s } => overloaded(after_s),
        }
        .closing()
    }
}

impl fmt::Display for BodyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the body is larger than the limit",
            Self::TooSlow => "the body comes too slowly",
            Self::Overloaded { .. } => "the body came when there was no room for it",
        })
    }
}

impl std::error::Error for BodyFault {}

/// Why the body was cut off, for handlers that read it with something else than [`crate::extract`]: axum's own extractors call every failure a 400.
#[derive(Debug, Default)]
pub struct Noted(Arc<OnceLock<BodyFault>>);

pin_project! {
    /// A body that is counted and timed while it streams.
    struct Measured {
        #[pin] body: Body,
        count: Count,
        fault: Arc<OnceLock<BodyFault>>,
        // While it waits: since when it is looked at, and how much had come by then.
        span: Option<(Instant, u64)>,
        #[pin] timer: Option<Sleep>,
    }
}

/// What has come of a body. Its drop gives the room back.
struct Count {
    bytes: u64,
    overhead: u64,
    chunk_overhead: u64,
    limit: BodyLimit,
}

impl Count {
    fn add(&mut self, length: u64) -> Result<(), BodyFault> {
        self.bytes += length;
        self.overhead += self.chunk_overhead;
        let BodyLimit { bytes_max, arriving, .. } = &self.limit;
        let arriving = arriving.fetch_add(length, Relaxed) + length;
        if self.bytes > *bytes_max || self.overhead > (bytes_max / 4).saturating_add(CHUNK_OVERHEAD_FREE) {
            return Err(BodyFault::TooLarge);
        }
        if arriving > bytes_max.saturating_mul(ARRIVING_MAX) { Err(BodyFault::Overloaded { after_s: ROOM_AFTER_S }) } else { Ok(()) }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.limit.arriving.fetch_sub(self.bytes, Relaxed);
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
                let added = this.count.add(frame.data_ref().map_or(0, |data| data.len() as u64));
                Poll::Ready(Some(added.map(|()| frame).map_err(|fault| note(this.fault, fault))))
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(fault) = fault_of(&error) {
                    let _ = this.fault.set(fault);
                }
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let Pace { grace, bytes_per_s_min } = this.count.limit.pace;
                let wanted = bytes_per_s_min.saturating_mul(grace.as_millis().try_into().unwrap_or(u64::MAX)) / 1000;
                let (mut since, mut had) = *this.span.get_or_insert_with(|| (Instant::now(), this.count.bytes));
                if this.count.bytes - had >= wanted.max(1) {
                    (since, had) = (Instant::now(), this.count.bytes);
                    *this.span = Some((since, had));
                }
                let due = since + grace;
                if this.timer.is_none() {
                    this.timer.set(Some(sleep_until(due.into())));
                }
                while let Some(timer) = this.timer.as_mut().as_pin_mut() {
                    if timer.poll(task).is_pending() {
                        return Poll::Pending;
                    }
                    // The timer was set for an earlier span: it is due again later, or the body is too slow.
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

/// The fault behind an error of a body, whoever wrapped it.
pub(crate) fn fault_of(error: &axum::Error) -> Option<BodyFault> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(fault) = error.downcast_ref::<BodyFault>() {
            return Some(*fault);
        }
        next = error.source();
    }
    None
}
