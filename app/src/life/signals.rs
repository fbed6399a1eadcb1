//! What the process is asked from outside, in two words: end, or hand over.

use std::fs::File;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// What is asked, with the name of who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// End in order.
    End(&'static str),
    /// Start the program anew and leave it everything.
    HandOver(&'static str),
}

/// The signals of this process. From their making on none of them kills it.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    user: Signal,
    hang_up: Signal,
    terminal: bool,
    called_off: Option<oneshot::Receiver<()>>,
}

impl Signals {
    /// Begins to watch them.
    ///
    /// # Errors
    /// When the system refuses.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            user: signal(SignalKind::user_defined2())?,
            hang_up: signal(SignalKind::hangup())?,
            // A process has a terminal of its own or it has none: that is what this name stands for.
            terminal: File::open("/dev/tty").is_ok(),
            called_off: None,
        })
    }

    /// Hears the process before as well, as long as it may call this one off.
    pub(super) fn hear(&mut self, called_off: oneshot::Receiver<()>) {
        self.called_off = Some(called_off);
    }

    /// The next one. A wait that is given up loses none.
    pub async fn next(&mut self) -> Ask {
        loop {
            let called_off = async {
                match &mut self.called_off {
                    Some(told) => told.await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            return tokio::select! {
                _ = self.terminate.recv() => Ask::End("SIGTERM"),
                _ = self.interrupt.recv() => Ask::End("SIGINT"),
                _ = self.user.recv() => Ask::HandOver("SIGUSR2"),
                // To a service it says: read your settings again. To what runs in a terminal: the terminal is gone.
                _ = self.hang_up.recv() => if self.terminal { Ask::End("SIGHUP") } else { Ask::HandOver("SIGHUP") },
                told = called_off => {
                    // Said or not, nothing more comes from there.
                    self.called_off = None;
                    if !told {
                        continue;
                    }
                    Ask::End("the process before")
                }
            };
        }
    }
}
