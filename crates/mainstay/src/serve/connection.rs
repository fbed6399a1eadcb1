//! One connection from its first byte to its last: which protocol, and until when.
//!
//! The driver polls hyper and, beside it, one timer per connection that is armed again only when it fires or when something
//! happened that brings a deadline nearer; a request in the ordinary course touches no timer.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::accept::Tally;
use super::answer::Stack;
use super::deadline::{Cause, Ms, deadline};
use super::door::Door;
use super::drain::Drain;
use super::head::HeadFault;
use super::limits::Limits;
use super::raw::BUFFER_BYTES_MAX;
use super::registry::Seat;
use super::shared::Shared;
use super::wire::Wire;

/// What HTTP/2 begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How often a draining connection looks at itself: a quarter of the shortest wait of a drain.
const DRAIN_LOOK: Duration = Duration::from_millis(250);

/// What all connections of a listener have in common.
pub(crate) struct Common {
    pub(crate) limits: Arc<Limits>,
    pub(crate) drain: Drain,
    pub(crate) tally: Tally,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Common {
    pub(crate) fn new(limits: Limits, drain: Drain) -> Common {
        let mut http1 = http1::Builder::new();
        http1
            // The deadlines are ours: hyper's timer would also run while a connection is idle.
            .header_read_timeout(None)
            .max_header_size(limits.header_bytes_max)
            .max_buf_size(BUFFER_BYTES_MAX.max(limits.header_bytes_max));
        if limits.header_count_max != Limits::default().header_count_max {
            http1.max_headers(limits.header_count_max);
        }
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .max_concurrent_streams(limits.http2_streams_max)
            .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
            .max_send_buf_size(BUFFER_BYTES_MAX)
            // h2's own figures, stated: resets of streams not yet accepted (rapid reset, CVE-2023-44487), resets that our side
            // had to send. CONTINUATION frames are bounded by h2 from the size of the header list (0.4.4 and later).
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(1024);
        Common { limits: Arc::new(limits), drain, tally: Tally::default(), http1, http2 }
    }
}

/// Serves one connection to its end.
pub(crate) async fn run<S: Stack>(mut stream: TcpStream, seat: Seat, service: S, common: Arc<Common>) {
    let shared = &seat.shared;
    let mut watch = Watch::new(shared, &common);
    let mut seen = BytesMut::new();
    let protocol = watch.drive(|cx| poll_protocol(&mut stream, &mut seen, shared, cx)).await;
    let cause = match protocol {
        Ok(protocol) => {
            shared.http2.store(protocol == Protocol::Http2, Relaxed);
            let limits = Arc::clone(&common.limits);
            let wire = Wire::new(stream, seen.freeze(), Arc::clone(shared), Arc::clone(&limits), service.clone());
            let door = Door { service: std::sync::Mutex::new(service), shared: Arc::clone(shared), limits };
            match protocol {
                Protocol::Http1 => http1(wire, door, &mut watch, &common).await,
                Protocol::Http2 => http2(wire, door, &mut watch, &common).await,
            }
        }
        // What was read to tell the protocol would be missing there; but then a head has begun, and its cause is another.
        Err(Cause::PassedOn) => Some(pass_on(&stream, shared)),
        Err(cause) => Some(cause),
    };
    common.tally.closed(cause);
}

async fn http1<S: Stack>(mut wire: Wire<S>, mut door: Door<S>, watch: &mut Watch<'_>, common: &Common) -> Option<Cause> {
    let shared = watch.shared;
    let (connection, cause) = loop {
        let mut connection = common.http1.serve_connection(TokioIo::new(wire), door);
        let Err(cause) = watch.drive(|cx| Pin::new(&mut connection).poll(cx)).await else {
            let mut wire = connection.into_parts().io.into_inner();
            // hyper leaves the end of a connection on which somebody asked for another protocol (RFC 9110, 7.8) to whoever would speak it.
            if !wire.is_finished() {
                let _ = watch.drive(|cx| Pin::new(&mut wire).poll_shutdown(cx)).await;
            }
            return None;
        };
        if !matches!(cause, Cause::DrainIdle | Cause::PassedOn) {
            break (connection, cause);
        }
        let parts = connection.into_parts();
        (wire, door) = (parts.io.into_inner(), parts.service);
        // Behind the last request another one had begun (RFC 9112, 9.3.2): whoever has read a part of it answers it. To the next process the rest would be
        // a request of its own.
        if !parts.read_buf.is_empty() {
            wire.read_again(parts.read_buf);
            shared.idle_again();
            continue;
        }
        if cause == Cause::PassedOn {
            return Some(pass_on(wire.stream(), shared));
        }
        if !has_unread(wire.stream()) {
            return Some(cause);
        }
        // The runtime has not told us yet of what the kernel has: a request, which is answered and told to close.
        shared.idle_again();
    };
    prepare_end(cause, shared, common);
    if cause == Cause::Idle {
        let mut wire = connection.into_parts().io.into_inner();
        // A client that is there says goodbye too. One that has not even read its answers does not: a FIN waits behind them for ever, so it gets a reset.
        if watch.drive(|cx| Pin::new(&mut wire).poll_shutdown(cx)).await.is_err() {
            shared.reset.store(true, Relaxed);
        }
    } else if cause == Cause::Head && shared.is_clean() {
        let mut wire = connection.into_parts().io.into_inner();
        if wire.refuse(HeadFault::HEADERS_TOO_SLOW) {
            shared.head_began.store(0, Relaxed);
            shared.unparsed.store(false, Relaxed);
            // However it ends, the connection was closed for its head.
            let _ = watch.drive(|cx| Pin::new(&mut wire).poll_shutdown(cx)).await;
        }
    }
    Some(cause)
}

async fn http2<S: Stack>(wire: Wire<S>, door: Door<S>, watch: &mut Watch<'_>, common: &Common) -> Option<Cause> {
    /// How long a client may take to acknowledge that an idle connection ends.
    const GOODBYE: Duration = Duration::from_secs(1);
    let shared = watch.shared;
    let mut connection = std::pin::pin!(common.http2.serve_connection(TokioIo::new(wire), door));
    let mut told = false;
    let driven = watch.drive(|cx| {
        if !told && common.drain.has_begun() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    });
    let cause = driven.await.err()?;
    prepare_end(cause, shared, common);
    if cause == Cause::Idle {
        connection.as_mut().graceful_shutdown();
        if tokio::time::timeout(GOODBYE, connection.as_mut()).await.is_err() && shared.is_busy() {
            // A request has crossed the goodbye, and its client may not send it again: it is answered, and that is the end.
            let cause = watch.drive(|cx| connection.as_mut().poll(cx)).await.err()?;
            prepare_end(cause, shared, common);
            return Some(cause);
        }
    }
    Some(cause)
}

/// Gives a connection on which nobody is asking to the process that goes on with it. What the client sends meanwhile waits in the kernel; all this process
/// knows of the connection is its address, which the socket knows as well.
fn pass_on(stream: &TcpStream, shared: &Shared) -> Cause {
    let copy = stream.as_fd().try_clone_to_owned().map(std::net::TcpStream::from);
    let sent = copy.is_ok_and(|copy| shared.drain.heir().is_some_and(|heir| heir.send(copy).is_ok()));
    if sent { Cause::PassedOn } else { Cause::DrainIdle }
}

/// Has the kernel bytes for us?
fn has_unread(stream: &TcpStream) -> bool {
    socket2::SockRef::from(stream).peek(&mut [MaybeUninit::uninit(); 1]).is_ok_and(|count| count > 0)
}

/// Counts what is lost. A client that does not read, or is cut, is sent a reset: a FIN would wait behind bytes that nobody takes.
fn prepare_end(cause: Cause, shared: &Shared, common: &Common) {
    common.tally.lost(cause, common.drain.has_begun(), shared);
    let cut = matches!(cause, Cause::WriteStall | Cause::Cut | Cause::DrainStalled | Cause::Evicted);
    if cut && !shared.is_clean() {
        shared.reset.store(true, Relaxed);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// Reads until the first bytes say which protocol it is: the first that differs from HTTP/2's preface decides. (hyper-util's
/// own detection waits for all 24 bytes without a deadline, hyper #3962.)
fn poll_protocol(stream: &mut TcpStream, seen: &mut BytesMut, shared: &Shared, cx: &mut Context<'_>) -> Poll<std::io::Result<Protocol>> {
    /// Holds the first head of almost every client.
    const PIECE_BYTES: usize = 2048;
    loop {
        let mut piece = [0; PIECE_BYTES];
        let mut buf = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
        seen.extend_from_slice(buf.filled());
        if seen.starts_with(PREFACE) {
            return Poll::Ready(Ok(Protocol::Http2));
        }
        if buf.filled().is_empty() || !PREFACE.starts_with(seen) {
            return Poll::Ready(Ok(Protocol::Http1));
        }
        shared.read();
    }
}

/// The eye on one connection's deadlines.
struct Watch<'a> {
    shared: &'a Shared,
    common: &'a Common,
    sleep: Pin<Box<Sleep>>,
    armed: bool,
    reads: u64,
    last_read: Ms,
}

impl<'a> Watch<'a> {
    fn new(shared: &'a Shared, common: &'a Common) -> Watch<'a> {
        Watch { shared, common, sleep: Box::pin(tokio::time::sleep(common.limits.heartbeat())), armed: false, reads: 0, last_read: 1 }
    }

    /// Polls `work` to its end, or until the connection's time is up. An error of `work` is the client's doing and an end like
    /// any other; it must run directly on the connection's task, whose waker is kept.
    async fn drive<T, E: std::fmt::Debug>(&mut self, mut work: impl FnMut(&mut Context<'_>) -> Poll<Result<T, E>>) -> Result<T, Cause> {
        poll_fn(|cx| {
            if let Poll::Ready(done) = work(cx) {
                return Poll::Ready(done.map_err(|error| {
                    tracing::debug!(?error, "connection ended");
                    Cause::Broken
                }));
            }
            self.poll(cx).map(Err)
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        let shared = self.shared;
        let head_waits = shared.unparsed.load(Relaxed) && shared.head_began.load(Relaxed) == 0 && !shared.is_busy() && !shared.is_http2();
        if self.armed && !head_waits && !shared.attention.load(Relaxed) && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        if !self.armed {
            self.armed = true;
            if shared.waker.set(cx.waker().clone()).is_ok() {
                // Whoever turns the drain either finds the waker or is seen below.
                fence(SeqCst);
            }
        }
        shared.attention.store(false, SeqCst);
        if head_waits {
            shared.head_began.store(shared.now(), Relaxed);
        }
        self.look(cx)
    }

    /// Works out the deadline anew and arms the timer for it.
    fn look(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        let shared = self.shared;
        if self.common.drain.is_cut() {
            return Poll::Ready(Cause::Cut);
        }
        if shared.evicted.load(Relaxed) {
            return Poll::Ready(Cause::Evicted);
        }
        loop {
            let now = shared.now();
            let reads = shared.reads.load(Relaxed);
            if self.reads != reads {
                (self.reads, self.last_read) = (reads, now);
            }
            let drain = self.common.drain.began_at();
            let sight = shared.sight(drain.map_or(0, |at| shared.at(at)), self.last_read);
            let due = deadline(&sight, &self.common.limits);
            if let Some((_, cause)) = due.filter(|(at, _)| *at <= now) {
                return Poll::Ready(cause);
            }
            if matches!(due, Some((_, Cause::Idle))) && !shared.is_http2() {
                shared.tail().rest();
            }
            let look = if drain.is_some() { DRAIN_LOOK } else { self.common.limits.heartbeat() };
            let next = now + u64::try_from(look.as_millis()).unwrap_or(u64::MAX / 4).max(1);
            let at = due.map_or(next, |(at, _)| at.min(next));
            self.sleep.as_mut().reset(shared.instant(at).into());
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
