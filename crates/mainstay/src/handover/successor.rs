//! The new process, as the old one sees it.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::channel::{self, Channel};
use crate::config::{Birth, HANDOVER, LISTEN};

/// A new process that is about to serve. It goes on when this is dropped.
#[derive(Debug)]
pub struct Successor {
    child: Child,
    pid: u32,
    channel: Channel,
}

/// A new process that ended before it served.
#[derive(Debug)]
pub struct Died(pub ExitStatus);

impl fmt::Display for Died {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the new process ended before it served: {}", self.0)
    }
}

/// The new process, which has everything: what is left of the old one's connections goes there.
#[derive(Debug)]
pub struct Heir(Channel);

impl Successor {
    /// Starts the program of this process anew, as its file is now, and gives it these sockets: name, whether a supervisor holds it as well, and the socket.
    ///
    /// # Errors
    /// When it cannot be started.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(birth: &Birth, sockets: &[(&str, bool, BorrowedFd<'_>)]) -> io::Result<Self> {
        let (ours, theirs) = channel::pair()?;
        let child = spawn(birth, theirs)?;
        let pid = child.id().unwrap_or_default();
        let names: String = sockets.iter().map(|(name, held, _)| format!(" {name}:{}", if *held { "held" } else { "own" })).collect();
        let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, _, socket)| *socket).collect();
        // A process that has ended already is told apart by its exit code.
        let _ = channel::send(&ours, &format!("take 1{names}"), &descriptors);
        Ok(Self { child, pid, channel: Channel::new(ours)? })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until it serves. A wait that is given up loses nothing.
    ///
    /// # Errors
    /// When it ends instead.
    pub async fn ready(&mut self) -> Result<(), Died> {
        let ready = async {
            loop {
                match self.channel.receive().await {
                    Ok(Some(message)) if message.words == "ready" => return,
                    Ok(Some(_)) => {}
                    // No Mainstay, or one that is about to end: its exit code says more, and whoever waits has a limit.
                    Ok(None) | Err(_) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            biased;
            () = ready => Ok(()),
            status = self.child.wait() => Err(Died(status.unwrap_or_default())),
        }
    }

    /// Leaves everything to it. The sender of the last word is the last one who knows its end of the line.
    pub async fn take_over(self) -> Heir {
        // One that is gone is seen by whoever looks after it, and this process has to end either way: it accepts nothing any more.
        let _ = self.channel.send("yours", &[]).await;
        Heir(self.channel)
    }

    /// Has it end as well: it is told, and serves to its end what it may have begun. What does not listen within `grace` is killed.
    pub async fn end(mut self, grace: Duration) {
        let _ = self.channel.send("end", &[]).await;
        if tokio::time::timeout(grace, self.child.wait()).await.is_err() {
            tracing::error!(pid = self.pid, "the new process did not end when it was told, and is killed");
            self.kill().await;
        }
    }

    /// Ends a process of which nothing is known any more: SIGTERM, and SIGKILL after `grace`.
    pub async fn give_up(mut self, grace: Duration) {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // It may just have ended.
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(grace, self.child.wait()).await.is_err() {
            self.kill().await;
        }
    }

    async fn kill(&mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::error!(%error, pid = self.pid, "the new process cannot be killed");
        }
    }
}

impl Heir {
    /// Passes on a connection on which nobody is asking. What its client sends meanwhile waits in the kernel.
    ///
    /// # Errors
    /// When the new process is gone.
    pub async fn pass_on(&self, connection: TcpStream) -> io::Result<()> {
        self.0.send("connection", &[connection.as_fd()]).await
    }
}

fn spawn(birth: &Birth, line: OwnedFd) -> io::Result<Child> {
    let mut command = Command::new(&birth.program);
    command.args(&birth.arguments).env(HANDOVER, "1").stdin(Stdio::from(line));
    for name in LISTEN {
        command.env_remove(name);
    }
    // Dropped here, and with it our copy of the other end: else nobody would see it close.
    command.spawn()
}
