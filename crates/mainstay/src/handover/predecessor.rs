//! The process before, as the new one sees it.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use super::channel::Channel;

/// The process that makes room for this one.
#[derive(Debug)]
pub struct Predecessor {
    end: OwnedFd,
    channel: OnceLock<Channel>,
}

/// What it says.
#[derive(Debug)]
pub enum Word {
    /// It accepts nothing more.
    Yours,
    /// A connection on which nobody is asking.
    Connection(TcpStream),
    /// It was asked to end, and so is this one.
    End,
    /// It has ended. Before [`Word::Yours`]: it died, and this process is all there is.
    Gone,
}

impl Predecessor {
    pub(super) fn new(end: OwnedFd) -> Self {
        Self { end, channel: OnceLock::new() }
    }

    fn channel(&self) -> io::Result<&Channel> {
        match self.channel.get() {
            Some(channel) => Ok(channel),
            None => {
                let channel = Channel::new(self.end.try_clone()?)?;
                Ok(self.channel.get_or_init(|| channel))
            }
        }
    }

    /// Says that this process serves.
    ///
    /// # Errors
    /// When the process before is gone.
    ///
    /// # Panics
    /// Outside of a tokio runtime, as the other.
    pub async fn ready(&self) -> io::Result<()> {
        self.channel()?.send("ready", &[]).await
    }

    /// Waits for the next word. A wait that is given up loses none.
    pub async fn word(&self) -> Word {
        loop {
            let Ok(channel) = self.channel() else { return Word::Gone };
            let Ok(Some(message)) = channel.receive().await else { return Word::Gone };
            match (message.words.as_str(), message.descriptors.into_iter().next()) {
                ("yours", None) => return Word::Yours,
                ("end", None) => return Word::End,
                ("connection", Some(descriptor)) => return Word::Connection(descriptor.into()),
                // Of a later release: what must be understood has another number behind `take`.
                (words, _) => tracing::debug!(words, "the process before says something unknown"),
            }
        }
    }
}
