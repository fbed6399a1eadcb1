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
    /// Not if whoever started this process has it ignore that (`nohup`): then it stays ignored, here and in the next process.
    hang_up: Option<Signal>,
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
        // A file that may not grow is the failure of a write, which is told to whoever asked for it, and not the end of the process.
        let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            user: signal(SignalKind::user_defined2())?,
            hang_up: if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) },
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
            let hang_up = async {
                match &mut self.hang_up {
                    Some(hang_up) => hang_up.recv().await,
                    None => std::future::pending().await,
                }
            };
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
                _ = hang_up => if self.terminal { Ask::End("SIGHUP") } else { Ask::HandOver("SIGHUP") },
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

/// Was this process started with SIGHUP ignored? (`SigIgn` of proc(5); SIGHUP is its first bit.)
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|ignored| ignored & 1 == 1)
}
