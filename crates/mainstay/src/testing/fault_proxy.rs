//! A TCP proxy that breaks on command: put it before a real server to see what its clients do.
//!
//! One fault holds for all connections, old and new, until another is set. Nothing it does depends on chance.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How the network misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not at all.
    Ok,
    /// Every piece of data is held back for this long, in each direction.
    Latency(Duration),
    /// Nobody listens; connections that exist are closed in order.
    Refuse,
    /// Nothing arrives and nothing is said; what was sent arrives once the fault is over.
    Blackhole,
    /// Connections, old and new, are reset.
    Reset,
    /// Of the next piece of data that this side sends, the first half arrives; then the connection is closed in order.
    Halve(Side),
    /// In every piece of data that this side sends, one byte is another one. Which, moves on from piece to piece, from the first byte on.
    Corrupt(Side),
}

/// Whose words arrive otherwise than they were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Questions.
    Client,
    /// Answers.
    Server,
}

/// A TCP proxy on a free port of the loopback interface. Dropping it closes everything.
pub struct FaultProxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    upstream: watch::Sender<SocketAddr>,
    open: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts before `upstream`, without a fault.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(upstream: SocketAddr) -> io::Result<FaultProxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (fault, faults) = watch::channel(Fault::Ok);
        let (upstream, upstreams) = watch::channel(upstream);
        let open = Arc::new(AtomicUsize::new(0));
        let listening = tokio::spawn(listen(listener, upstreams, faults, Arc::clone(&open)));
        Ok(FaultProxy { address, fault, upstream, open, listening })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the network behaves like this.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// New connections lead to this server: its address has moved. Those that are open stay where they are.
    pub fn redirect(&self, upstream: SocketAddr) {
        self.upstream.send_replace(upstream);
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, upstreams: watch::Receiver<SocketAddr>, mut faults: watch::Receiver<Fault>, open: Arc<AtomicUsize>) {
    let Ok(address) = listener.local_addr() else { return };
    let mut listener = Some(listener);
    loop {
        if *faults.borrow_and_update() == Fault::Refuse {
            listener = None;
            if faults.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Some(current) = &listener else {
            // The port was ours a moment ago; closing connections may hold it for as long again.
            match TcpListener::bind(address).await {
                Ok(bound) => listener = Some(bound),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
            continue;
        };
        tokio::select! {
            accepted = current.accept() => {
                if let Ok((client, _)) = accepted {
                    tokio::spawn(carry(client, upstreams.clone(), faults.clone(), Counted::new(&open)));
                }
            }
            changed = faults.changed() => if changed.is_err() { return },
        }
    }
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Counted {
        open.fetch_add(1, Ordering::AcqRel);
        Counted(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Carries one connection until either side ends it or a fault does.
async fn carry(mut client: TcpStream, upstream: watch::Receiver<SocketAddr>, mut faults: watch::Receiver<Fault>, _counted: Counted) {
    let mut waiting = faults.clone();
    let connected = tokio::select! {
        connected = async { passable(&mut waiting).await; let to = *upstream.borrow(); TcpStream::connect(to).await } => connected,
        fault = broken(&mut faults) => return end(&client, fault),
    };
    let Ok(mut server) = connected else { return };
    // Without these options the carrying is only slower.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let fault = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        tokio::select! {
            () = copy(client_read, server_write, faults.clone(), Side::Client) => return,
            () = copy(server_read, client_write, faults.clone(), Side::Server) => return,
            fault = broken(&mut faults) => fault,
        }
    };
    end(&client, fault);
    end(&server, fault);
}

/// A linger time of zero turns the close that follows into a reset (socket(7)).
fn end(stream: &TcpStream, fault: Fault) {
    if fault == Fault::Reset {
        let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
}

/// Waits for a fault that ends connections.
async fn broken(faults: &mut watch::Receiver<Fault>) -> Fault {
    match faults.wait_for(|fault| matches!(fault, Fault::Refuse | Fault::Reset)).await {
        Ok(fault) => *fault,
        // The proxy is gone, and its connections go with it.
        Err(_) => Fault::Reset,
    }
}

/// Waits until data may pass; gives how long it is held back.
async fn passable(faults: &mut watch::Receiver<Fault>) -> Duration {
    match faults.wait_for(|fault| *fault != Fault::Blackhole).await.map(|fault| *fault) {
        Ok(Fault::Latency(latency)) => latency,
        _ => Duration::ZERO,
    }
}

async fn copy(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut faults: watch::Receiver<Fault>, side: Side) {
    let mut buffer = vec![0; 16 * 1024];
    let mut corrupted = 0;
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        let latency = passable(&mut faults).await;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
            passable(&mut faults).await;
        }
        // `read` filled exactly this much.
        let piece = &mut buffer[..length];
        let fault = *faults.borrow();
        match fault {
            Fault::Halve(of) if of == side => {
                // Whoever reads it or not: the connection ends.
                let _ = to.write_all(&piece[..length / 2]).await;
                return;
            }
            Fault::Corrupt(of) if of == side => {
                piece[corrupted % length] ^= 0x80;
                corrupted += 1;
            }
            _ => {}
        }
        if to.write_all(piece).await.is_err() {
            return;
        }
    }
}
