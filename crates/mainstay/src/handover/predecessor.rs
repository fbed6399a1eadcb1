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
            let message = match channel.receive().await {
                Ok(Some(message)) => message,
                // Received and given up, for want of a descriptor say; what follows it is whole.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::warn!(%error, "a connection of the process before could not be taken");
                    continue;
                }
                _ => return Word::Gone,
            };
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::channel::{pair, send};
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_received_whole_is_not_taken_for_the_end() {
        let (before, end) = pair().unwrap();
        let predecessor = Predecessor::new(end);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        send(&before, &"too long ".repeat(100), &[connection.as_fd()]).unwrap();
        send(&before, "connection", &[connection.as_fd()]).unwrap();
        send(&before, "yours", &[]).unwrap();
        assert!(matches!(predecessor.word().await, Word::Connection(_)));
        assert!(matches!(predecessor.word().await, Word::Yours));
        drop(before);
        assert!(matches!(predecessor.word().await, Word::Gone));
    }
}
