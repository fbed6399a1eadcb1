//! A TCP proxy before a database or a Redis: it is late, silent or gone on command, and counts what is asked.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Connections that wait to be carried.
const BACKLOG: u32 = 1024;

/// What holds for all connections, old and new, until another is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is wrong.
    None,
    /// Whatever is sent arrives this much later, on each way.
    Late(Duration),
    /// Nothing arrives until the fault is over.
    Silent,
    /// Connections are closed, and new ones refused.
    Refuse,
}

/// It listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    counts: Counts,
    listening: AbortHandle,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
struct Counts {
    /// How often a client has sent something.
    asked: Arc<AtomicU64>,
    /// Connections that are carried.
    open: Arc<AtomicU64>,
}

/// A connection that is carried.
struct Carried(Arc<AtomicU64>);

impl Carried {
    fn new(open: &Arc<AtomicU64>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open.clone())
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Proxy {
    /// Stands before the host of a URL; the URL that leads through it.
    ///
    /// # Errors
    /// When the URL names nobody, or no port can be had.
    pub(crate) async fn before(url: &str, usual_port: u16) -> Result<(Self, String), String> {
        let (scheme, rest) = url.split_once("://").ok_or("no URL")?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (user, host) = authority.rsplit_once('@').map_or((String::new(), authority), |(user, host)| (format!("{user}@"), host));
        let named = if host.rsplit(']').next().is_some_and(|end| end.contains(':')) { host.to_owned() } else { format!("{host}:{usual_port}") };
        let upstream = lookup_host(&named).await.map_err(|error| format!("{named}: {error}"))?.next().ok_or("the URL names nobody")?;
        let proxy = Self::start(upstream).await.map_err(|error| error.to_string())?;
        let url = format!("{scheme}://{user}{}{path}", proxy.address);
        Ok((proxy, url))
    }

    async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let place = bound(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = place.local_addr()?;
        let listener = bound(address)?.listen(BACKLOG)?;
        let (fault, faults) = watch::channel(Fault::None);
        let counts = Counts::default();
        let listening = tokio::spawn(listen((place, listener), address, upstream, faults, counts.clone())).abort_handle();
        Ok(Self { address, fault, counts, listening })
    }

    /// From now on it is like this.
    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// How often somebody has sent something so far: a question to a database is sent at once, so this counts its round trips.
    pub(crate) fn asked(&self) -> u64 {
        self.counts.asked.load(Ordering::Relaxed)
    }

    /// Connections that it carries now.
    pub(crate) fn open(&self) -> u64 {
        self.counts.open.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// A socket that has this address and does not listen: nobody else gets the port, and whoever connects is refused.
fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn listen(
    (_place, listener): (TcpSocket, TcpListener),
    address: SocketAddr,
    upstream: SocketAddr,
    mut faults: watch::Receiver<Fault>,
    counts: Counts,
) {
    let mut listener = Some(listener);
    loop {
        let refuses = *faults.borrow_and_update() == Fault::Refuse;
        match &listener {
            Some(_) if refuses => listener = None,
            None if refuses => {
                if faults.changed().await.is_err() {
                    return;
                }
            }
            // Connections that close may hold it for a moment.
            None => match bound(address).and_then(|socket| socket.listen(BACKLOG)) {
                Ok(bound) => listener = Some(bound),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            },
            Some(listening) => tokio::select! {
                accepted = listening.accept() => {
                    if let Ok((client, _)) = accepted {
                        tokio::spawn(carry(client, upstream, faults.clone(), counts.clone()));
                    }
                }
                changed = faults.changed() => if changed.is_err() { return },
            },
        }
    }
}

/// Carries a connection until either side ends it, or a fault, or the proxy is gone.
async fn carry(mut client: TcpStream, upstream: SocketAddr, mut faults: watch::Receiver<Fault>, counts: Counts) {
    let _carried = Carried::new(&counts.open);
    let mut waiting = faults.clone();
    let connected = tokio::select! {
        connected = async { passable(&mut waiting).await; TcpStream::connect(upstream).await } => connected,
        _ = faults.wait_for(|fault| *fault == Fault::Refuse) => return,
    };
    let Ok(mut server) = connected else { return };
    // Without these options the carrying is only slower.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let answered = AtomicU64::new(0);
    let ((client_reads, client_writes), (server_reads, server_writes)) = (client.split(), server.split());
    tokio::select! {
        () = copy(client_reads, server_writes, faults.clone(), &counts.asked) => {}
        () = copy(server_reads, client_writes, faults.clone(), &answered) => {}
        _ = faults.wait_for(|fault| *fault == Fault::Refuse) => {}
    }
}

/// Waits until something may pass; how long it is held back.
async fn passable(faults: &mut watch::Receiver<Fault>) -> Duration {
    match faults.wait_for(|fault| *fault != Fault::Silent).await.map(|fault| *fault) {
        Ok(Fault::Late(late)) => late,
        _ => Duration::ZERO,
    }
}

async fn copy(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut faults: watch::Receiver<Fault>, pieces: &AtomicU64) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        pieces.fetch_add(1, Ordering::Relaxed);
        let late = passable(&mut faults).await;
        if !late.is_zero() {
            tokio::time::sleep(late).await;
            passable(&mut faults).await;
        }
        // `read` filled exactly this much.
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::time::timeout;

    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reads, mut writes) = stream.split();
                    let _ = tokio::io::copy(&mut reads, &mut writes).await;
                });
            }
        });
        address
    }

    async fn say(stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(b"word").await?;
        stream.read_exact(&mut [0; 4]).await.map(|_| ())
    }

    #[tokio::test]
    async fn it_carries_is_late_is_silent_refuses_and_is_back() {
        let (proxy, url) = Proxy::before(&format!("redis://:secret@{}/0", echo().await), 6379).await.unwrap();
        assert_eq!(url, format!("redis://:secret@{}/0", proxy.address));
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        say(&mut stream).await.unwrap();
        assert_eq!(proxy.asked(), 1);
        proxy.set(Fault::Late(Duration::from_millis(40)));
        let begun = Instant::now();
        say(&mut stream).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(80), "late on both ways: {:?}", begun.elapsed());
        proxy.set(Fault::Silent);
        assert!(timeout(Duration::from_millis(100), say(&mut stream)).await.is_err());
        proxy.set(Fault::None);
        stream.read_exact(&mut [0; 4]).await.unwrap();
        proxy.set(Fault::Refuse);
        assert!(timeout(Duration::from_secs(10), say(&mut stream)).await.unwrap().is_err());
        proxy.set(Fault::None);
        let again = async {
            loop {
                if let Ok(mut stream) = TcpStream::connect(proxy.address).await
                    && say(&mut stream).await.is_ok()
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(10), again).await.unwrap();
    }
}
