//! A balancer of connections: each new one goes to the next instance in turn, and on to the one after if that refuses it.
//!
//! It knows nothing of HTTP and repeats no request, so a drill sees every failure that a client would see.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// It listens until it is dropped.
pub(super) struct Balancer {
    pub(super) address: SocketAddr,
    carried: Carried,
    listening: JoinHandle<()>,
}

/// By the client's address of a connection, the instance that got it.
type Carried = Arc<Mutex<HashMap<SocketAddr, usize>>>;

impl Balancer {
    pub(super) async fn start(instances: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, carried) = (listener.local_addr().unwrap(), Carried::default());
        let listening = tokio::spawn(listen(listener, Arc::new(instances), carried.clone()));
        Self { address, carried, listening }
    }

    /// Which instance got the connection of the client at this address? None if no instance took it.
    pub(super) fn instance_of(&self, client: SocketAddr) -> Option<usize> {
        self.carried.lock().unwrap().get(&client).copied()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, instances: Arc<Vec<SocketAddr>>, carried: Carried) {
    for turn in 0_usize.. {
        let (mut client, from) = listener.accept().await.unwrap();
        let (instances, carried) = (instances.clone(), carried.clone());
        tokio::spawn(async move {
            for number in (turn..).take(instances.len()).map(|number| number % instances.len()) {
                let Ok(mut server) = TcpStream::connect(instances[number]).await else { continue };
                carried.lock().unwrap().insert(from, number);
                // Without these options the carrying is only slower.
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                // However it ends, both ends are closed, and the client sees it.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                return;
            }
        });
    }
}
