//! The bytes of one connection: a socket that notes what its deadlines need to know.
//!
//! It also does what must happen below hyper: it replays the bytes read to tell the protocol, keeps the raw tail, replaces the
//! bodiless errors that hyper writes by itself with the service's own answer, and closes without losing that answer.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::Peer;
use super::answer::{self, Stack};
use super::head::{self, HeadFault};
use super::limits::Limits;
use super::lines::Lines;
use super::shared::Shared;

/// What is copied together before it is written, in bytes: most answers with their heads.
const GATHERED_BYTES_MAX: usize = 2048;
/// Pieces of one write that begins an answer: a head in four, and more of its body than hyper gathers before it writes.
const PIECES_MAX: usize = 16;

/// What is thrown away, after the first rush, in each pause: 2.5 MB/s, of which the time to linger leaves 5 MB.
const SLOW_BYTES: usize = 64 * 1024;
const SLOW_PAUSE: Duration = Duration::from_millis(25);

thread_local! {
    /// What is being gathered; its memory serves the next answer.
    static GATHERED: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(GATHERED_BYTES_MAX));
}

/// The socket under hyper.
pub(crate) struct Wire<S> {
    stream: TcpStream,
    /// Read already, to be read again by hyper.
    replay: Bytes,
    /// The service's answer in place of hyper's, not yet written.
    out: Bytes,
    shared: Arc<Shared>,
    limits: Arc<Limits>,
    service: S,
    eof: bool,
    finished: bool,
    discarded_bytes: usize,
    /// Before more is thrown away.
    pause: Option<Pin<Box<Sleep>>>,
}

// Nothing in it is pinned; the service is only ever cloned.
impl<S> Unpin for Wire<S> {}

impl<S: Stack> Wire<S> {
    pub(crate) fn new(stream: TcpStream, replay: Bytes, shared: Arc<Shared>, limits: Arc<Limits>, service: S) -> Wire<S> {
        Wire { stream, replay, out: Bytes::new(), shared, limits, service, eof: false, finished: false, discarded_bytes: 0, pause: None }
    }

    /// Reads these bytes before any others: they were read before, and nobody has made a request of them.
    pub(crate) fn read_again(&mut self, bytes: Bytes) {
        self.shared.tail().forget();
        self.replay = if self.replay.is_empty() { bytes } else { [bytes, std::mem::take(&mut self.replay)].concat().into() };
    }

    /// Has our side ended?
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// The socket, for who looks at it beside hyper.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Queues the service's answer to `fault`; `false` if it has none at once. Only right when nothing of another answer
    /// is unwritten ([`Shared::is_clean`]).
    pub(crate) fn refuse(&mut self, fault: HeadFault) -> bool {
        let peer = Peer { addr: self.shared.addr, http2: false, fault: Some(fault) };
        let legible = answer::legible(self.shared.tail().unclaimed());
        match answer::to_fault(&self.service, peer, legible) {
            Some(bytes) => {
                self.out = bytes.into();
                true
            }
            None => false,
        }
    }

    /// Whether hyper is about to write an error of its own. Certain, not likely: with no request in flight and everything
    /// flushed, hyper can have nothing else to say, and it says it in one piece.
    fn is_error_of_hyper(&self, bytes: &[u8]) -> bool {
        (bytes.starts_with(b"HTTP/1.1 4") || bytes.starts_with(b"HTTP/1.0 4"))
            && bytes.ends_with(b"\r\n\r\n")
            && self.shared.is_clean()
            && !self.shared.is_http2()
    }

    fn replaces(&mut self, bytes: &[u8]) -> bool {
        if !self.is_error_of_hyper(bytes) {
            return false;
        }
        let status = bytes.get(9..12).unwrap_or_default();
        let fault = head::fault_of(status, self.shared.tail().unclaimed(), &self.limits);
        self.refuse(fault)
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.out.has_remaining() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.out);
            match ready!(self.note(written)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => self.out.advance(n),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => self.shared.write_blocked(),
            Poll::Ready(Ok(n)) => self.shared.written(*n),
            Poll::Ready(Err(_)) => {}
        }
        written
    }

    fn poll_write_all(&mut self, bufs: &[IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // A gathered copy of a small answer costs less than the kernel's work on a list of pieces.
        let bytes: usize = bufs.iter().map(|slice| slice.len()).sum();
        let written = if bytes <= GATHERED_BYTES_MAX {
            GATHERED.with_borrow_mut(|gathered| {
                gathered.clear();
                bufs.iter().for_each(|slice| gathered.extend_from_slice(slice));
                Pin::new(&mut self.stream).poll_write(cx, gathered)
            })
        } else {
            Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
        };
        self.note(written)
    }

    /// Writes `bufs`, which begin with a status line, and `lines` behind it. What is told to be written are the bytes of `bufs` alone.
    fn poll_write_with(&mut self, lines: Lines, bufs: &[IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some((first, rest)) = bufs.split_first() else { return Poll::Ready(Ok(0)) };
        let Some(feed) = first.iter().position(|byte| *byte == b'\n') else {
            // hyper's head lies in one piece, and an answer without its lines must not leave.
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        };
        let (status, head) = first.split_at(feed + 1);
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        let [constant, own] = lines.bytes();
        let all = [status, constant, own, head].into_iter().chain(rest.iter().map(|slice| &**slice));
        let count = pieces.iter_mut().zip(all).map(|(piece, bytes)| *piece = IoSlice::new(bytes)).count();
        let Poll::Ready(written) = self.poll_write_all(pieces.get(..count).unwrap_or_default(), cx) else {
            // hyper comes again with the same bytes.
            self.shared.set_lines(Some(lines));
            return Poll::Pending;
        };
        let (written, added) = (written?, constant.len() + own.len());
        Poll::Ready(Ok(if written < status.len() + added {
            // The socket took a part of them: the rest goes before anything else, and hyper's own bytes up to there are done.
            self.out = Bytes::from([status, constant, own].concat()).split_off(written);
            status.len()
        } else {
            written - added
        }))
    }

    /// Reads and throws away until the client has closed, too: closing with unread bytes would send a reset, which may destroy
    /// the answer on its way (RFC 9112 section 9.6). The driver ends it by time, this by size.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        const PIECE_BYTES: usize = 16 * 1024;
        let mut piece = [0; PIECE_BYTES];
        while !self.eof {
            if self.discarded_bytes >= self.limits.linger_bytes_max {
                // A client that looks has found the answer by now. One that sends everything first gets there, if it is not too much, at a pace that costs us little.
                let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(SLOW_PAUSE)));
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
                self.discarded_bytes = self.discarded_bytes.saturating_sub(SLOW_BYTES);
            }
            let mut buf = ReadBuf::new(&mut piece);
            if ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)).is_err() {
                return Poll::Ready(Ok(()));
            }
            self.eof = buf.filled().is_empty();
            self.discarded_bytes += buf.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Stack> AsyncRead for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = if this.replay.is_empty() {
            Pin::new(&mut this.stream).poll_read(cx, buf)
        } else {
            let n = this.replay.len().min(buf.remaining());
            buf.put_slice(&this.replay.split_to(n));
            Poll::Ready(Ok(()))
        };
        let new = buf.filled().get(before..).unwrap_or_default();
        if !this.shared.is_http2() {
            let whole = this.shared.tail().push(new);
            if !whole {
                // As when the client had gone in the middle of its body: whoever reads it is told, and nothing behind it counts.
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
        if polled.is_pending() {
            this.shared.nothing_to_read();
        } else if !new.is_empty() {
            this.shared.read();
        } else if polled.is_ready() && buf.remaining() > 0 {
            this.eof = true;
        }
        polled
    }
}

impl<S: Stack> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        // An error of hyper's is a head without a body: one slice, or one followed by empty ones.
        if let Some((first, rest)) = bufs.split_first()
            && rest.iter().all(|slice| slice.is_empty())
            && this.replaces(first)
        {
            return Poll::Ready(Ok(first.len()));
        }
        match this.shared.take_lines() {
            Some(lines) => this.poll_write_with(lines, bufs, cx),
            None => this.poll_write_all(bufs, cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // hyper flushes only when its own buffer is empty; a socket has none.
        ready!(this.poll_out(cx))?;
        this.shared.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        if !this.finished {
            // An error means that the client is gone already.
            let _ = ready!(Pin::new(&mut this.stream).poll_shutdown(cx));
            this.finished = true;
            this.shared.flushed();
            if !this.eof {
                this.shared.linger_began();
            }
        }
        this.poll_discard(cx)
    }
}

impl<S> Drop for Wire<S> {
    fn drop(&mut self) {
        if self.shared.reset.load(Relaxed) {
            // Fails only on a socket that is gone, which is what is wanted.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}
