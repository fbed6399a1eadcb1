//! The accept loop: from a listening socket to connections, and the end of both.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

use super::answer::Stack;
use super::connection::{self, Common};
use super::deadline::Cause;
use super::drain::Drain;
use super::limits::Limits;
use super::registry::Registry;
use super::shared::Shared;

/// Connections that the kernel holds for us between two accepts. 4,096, which Linux cuts to `somaxconn` (also 4,096).
const BACKLOG: u32 = 4096;

/// The first and the longest pause after an accept that failed for want of something. 5 ms lets a connection end; more than a
/// second would be an outage of its own.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Accepts that fail for want of something are told this often: in a rush there are two hundred a second, each with a connection that gives way.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// How a [`serve`] ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Connections accepted and admitted.
    pub accepted: usize,
    /// Connections refused by a cap.
    pub refused: usize,
    /// Requests received in full whose answer was cut by the hard phase of the drain: work was lost.
    pub cut: usize,
    /// Half-sent requests dropped during the drain: nothing was lost that the client does not know of.
    pub unfinished: usize,
}

#[derive(Default)]
pub(crate) struct Tally {
    accepted: AtomicUsize,
    refused: AtomicUsize,
    cut: AtomicUsize,
    unfinished: AtomicUsize,
}

impl Tally {
    /// Notes the end of a connection; `cause` is `None` when the protocol ended it.
    pub(crate) fn closed(&self, cause: Option<Cause>) {
        counter!("mainstay_connections_closed_total", "reason" => cause.map_or("finished", Cause::label)).increment(1);
        gauge!("mainstay_connections_open").decrement(1.0);
    }

    /// Notes what a connection takes with it that ends for `cause`; called while it is still there.
    pub(crate) fn lost(&self, cause: Cause, draining: bool, shared: &Shared) {
        let half_sent = shared.bodies_open.load(Relaxed) as usize;
        let unfinished = match cause {
            Cause::Cut => {
                let whole = (shared.in_flight.load(Relaxed) as usize).saturating_sub(half_sent);
                self.cut.fetch_add(whole, Relaxed);
                half_sent.max(usize::from(shared.head_began.load(Relaxed) != 0))
            }
            Cause::DrainStalled => half_sent,
            Cause::Head if draining => 1,
            _ => 0,
        };
        self.unfinished.fetch_add(unfinished, Relaxed);
    }

    fn report(&self) -> Report {
        Report {
            accepted: self.accepted.load(Relaxed),
            refused: self.refused.load(Relaxed),
            cut: self.cut.load(Relaxed),
            unfinished: self.unfinished.load(Relaxed),
        }
    }
}

/// What may lie unsent in the kernel before a socket counts as full, in bytes: enough to keep a fast client busy while we are woken, little enough for ten
/// thousand slow ones.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// What the kernel may hold of what a client sends and we have not read, in bytes: a quarter of a body, and 2.5 MB/s over a path of 100 ms. Left to
/// itself, the kernel takes megabytes of a body that is too large. (`net.core.rmem_max` may make it less: 208 KiB where nobody changed it.)
const UNREAD_BYTES_MAX: u32 = 256 * 1024;

/// A listening socket at `addr`, with `SO_REUSEADDR`, so that a restart need not wait for old connections to fade.
///
/// # Errors
/// The address is taken, not ours, or needs a privilege.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    bound_buffers(&socket2::SockRef::from(&socket))?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// A socket that listens already, as [`bind`] would have made it.
///
/// # Errors
/// It cannot be watched, or not be changed.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn adopt(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    let socket = socket2::SockRef::from(&listener);
    bound_buffers(&socket)?;
    // To listen again changes the length of the queue and nothing else. A supervisor's may be short.
    socket.listen(BACKLOG.cast_signed())?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Accepted sockets inherit both. The window is agreed on in the handshake, so an accepted socket would be too late.
fn bound_buffers(socket: &socket2::SockRef<'_>) -> io::Result<()> {
    socket.set_recv_buffer_size(UNREAD_BYTES_MAX as usize)?;
    // Without it the kernel takes megabytes of answers for a client that does not read, and we make them all before we notice.
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    Ok(())
}

/// Serves `service` on `listener` until `drain` is begun and every connection has ended or was cut.
///
/// Each request carries a [`Peer`](super::Peer). A service must answer a fault without waiting; it should answer everything else as
/// it likes. Several listeners may share one `drain`.
pub async fn serve<S: Stack>(listener: TcpListener, service: S, limits: Limits, drain: Drain) -> Report {
    let (_, nobody) = mpsc::unbounded_channel();
    serve_with(listener, nobody, service, limits, drain).await
}

/// As [`serve`], with connections beside those that are accepted: another process had them, and nobody is asking on them.
pub async fn serve_with<S: Stack>(
    listener: TcpListener,
    mut passed_on: mpsc::UnboundedReceiver<std::net::TcpStream>,
    service: S,
    limits: Limits,
    drain: Drain,
) -> Report {
    let common = Arc::new(Common::new(limits, drain.clone()));
    let registry = Arc::new(Registry::default());
    // Accepted sockets inherit it (Linux, BSD): one system call instead of one per connection. A listener that refuses it still serves.
    let _ = socket2::SockRef::from(&listener).set_tcp_nodelay(true);
    let mut shortage = Shortage::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.begun() => break,
            // Their clients were served before; there are no more of them than the process before had.
            Some(stream) = passed_on.recv() => {
                go_on(stream, &service, &common, &registry);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, addr)) => {
                shortage.pause = PAUSE.0;
                admit(stream, addr, &service, &common, &registry, false);
                registry.relieved(common.limits.connections_max).await;
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                // No descriptors, no memory: an idle connection gives its own back, and the rest waits in the kernel's queue.
                counter!("mainstay_connections_accept_errors_total").increment(1);
                registry.evict_any();
                tokio::select! {
                    () = drain.begun() => break,
                    () = tokio::time::sleep(shortage.note(&error, Instant::now())) => {}
                }
            }
        }
    }
    // What the kernel has accepted for us already was promised: it is served, then the door closes. Where it stays open, the queue is the next process's,
    // and under load we would never get to its end.
    if let Ok(queue) = listener.into_std()
        && !drain.leaves()
    {
        while let Ok((stream, addr)) = queue.accept() {
            if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                admit(stream, addr, &service, &common, &registry, false);
            }
        }
    }
    registry.wake_all();
    loop {
        tokio::select! {
            biased;
            // What the process before still passes on is passed on again, or closed when its client is told.
            Some(stream) = passed_on.recv() => go_on(stream, &service, &common, &registry),
            () = registry.empty() => break,
            () = drain.hard() => {
                cut(&registry, &common.tally).await;
                break;
            }
        }
    }
    common.tally.report()
}

/// Accepts that fail for want of something: no descriptors, no memory.
struct Shortage {
    /// Before the next accept.
    pause: Duration,
    told: Option<Instant>,
    /// Since it was told.
    failed: u64,
}

impl Default for Shortage {
    fn default() -> Self {
        Self { pause: PAUSE.0, told: None, failed: 0 }
    }
}

impl Shortage {
    /// Notes a failure; the pause before the next accept, which is twice the one before unless something was accepted between them.
    fn note(&mut self, error: &io::Error, now: Instant) -> Duration {
        self.failed += 1;
        if self.told.is_none_or(|told| now.saturating_duration_since(told) >= TOLD_EVERY) {
            tracing::warn!(%error, times = self.failed, "accept failed");
            (self.told, self.failed) = (Some(now), 0);
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE.1);
        pause
    }
}

/// Serves a connection on that another process had. One that is gone by now is nobody's loss.
fn go_on<S: Stack>(stream: std::net::TcpStream, service: &S, common: &Arc<Common>, registry: &Arc<Registry>) {
    let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
    if let Ok((stream, addr)) = stream.and_then(|stream| stream.peer_addr().map(|addr| (stream, addr))) {
        admit(stream, addr, service, common, registry, true);
    }
}

fn admit<S: Stack>(stream: TcpStream, addr: SocketAddr, service: &S, common: &Arc<Common>, registry: &Arc<Registry>, goes_on: bool) {
    match registry.admit(addr, &common.limits, &common.drain) {
        Ok(seat) => {
            if goes_on {
                seat.shared.goes_on();
            }
            common.tally.accepted.fetch_add(1, Relaxed);
            counter!("mainstay_connections_accepted_total").increment(1);
            gauge!("mainstay_connections_open").increment(1.0);
            tokio::spawn(connection::run(stream, seat, service.clone(), Arc::clone(common)));
        }
        Err(refusal) => {
            common.tally.refused.fetch_add(1, Relaxed);
            counter!("mainstay_connections_refused_total", "reason" => refusal.label()).increment(1);
        }
    }
}

/// The hard phase: every connection is told, and one whose task is stuck in a handler that blocks is not waited for.
async fn cut(registry: &Registry, tally: &Tally) {
    const STUCK: Duration = Duration::from_secs(1);
    registry.wake_all();
    if tokio::time::timeout(STUCK, registry.empty()).await.is_err() {
        tally.cut.fetch_add(registry.open(), Relaxed);
    }
}

/// Errors of `accept` that concern the one connection that failed and say nothing about the next (accept(2), "Error handling").
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_sockets_do_not_delay_small_writes() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket2::SockRef::from(&listener).set_tcp_nodelay(true).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert!(accepted.nodelay().unwrap());
    }

    #[test]
    fn the_pauses_of_a_shortage_grow_to_a_second_and_a_rush_of_failures_is_one_line_a_second() {
        let (error, begun) = (io::Error::from_raw_os_error(24), Instant::now());
        let mut shortage = Shortage::default();
        let pauses: Vec<u128> = (0..10).map(|_| shortage.note(&error, begun).as_millis()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(shortage.failed, 9, "the first was told");
        shortage.note(&error, begun + TOLD_EVERY);
        assert_eq!(shortage.failed, 0, "and the rest a second later");
    }

    #[test]
    fn running_out_of_descriptors_is_not_the_connections_fault() {
        const EMFILE: i32 = 24;
        assert!(!is_of_the_connection(&io::Error::from_raw_os_error(EMFILE)));
        assert!(is_of_the_connection(&io::ErrorKind::ConnectionAborted.into()));
    }
}
