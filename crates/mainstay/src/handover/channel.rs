//! The line between two processes: messages of a few words, with descriptors beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The longest message is a tenth of it.
const WORDS_BYTES_MAX: usize = 512;
/// Two listening sockets travel together at most.
const DESCRIPTORS_MAX: usize = 4;

/// What has arrived.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) words: String,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Both ends. Messages keep their borders and their order, and an end that closes is seen by the other.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message.
pub(super) fn send(end: impl AsFd, words: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(end, &[IoSlice::new(words.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message; nothing when the other end is closed. Descriptors are closed to programs that this process may start.
pub(super) fn receive(end: impl AsFd) -> io::Result<Option<Message>> {
    let mut bytes = [0; WORDS_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(end, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            descriptors.extend(sent);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let words = std::str::from_utf8(bytes.get(..received.bytes).unwrap_or_default()).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Some(Message { words: words.to_owned(), descriptors }))
}

/// One end, in a runtime. To the runtime a socket of the system's is like any other: that it keeps the borders of messages is between the two who use it.
#[derive(Debug)]
pub(super) struct Channel(UnixStream);

impl Channel {
    /// # Panics
    /// Outside of a tokio runtime.
    pub(super) fn new(end: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&end, true)?;
        Ok(Self(UnixStream::from_std(end.into())?))
    }

    /// Sends one message, and waits for room.
    pub(super) async fn send(&self, words: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.0.async_io(Interest::WRITABLE, || send(&self.0, words, descriptors)).await
    }

    /// Receives one message; nothing when the other end is closed. What was not waited for to its end is received the next time.
    pub(super) async fn receive(&self) -> io::Result<Option<Message>> {
        self.0.async_io(Interest::READABLE, || receive(&self.0)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn words_and_descriptors_arrive_together_and_the_end_is_seen() {
        let (ours, theirs) = pair().unwrap();
        let (ours, theirs) = (Channel::new(ours).unwrap(), Channel::new(theirs).unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        ours.send("take", &[listener.as_fd()]).await.unwrap();
        ours.send("yours", &[]).await.unwrap();
        let first = theirs.receive().await.unwrap().unwrap();
        assert_eq!((first.words.as_str(), first.descriptors.len()), ("take", 1));
        let same = std::net::TcpListener::from(first.descriptors.into_iter().next().unwrap());
        assert_eq!(same.local_addr().unwrap(), listener.local_addr().unwrap());
        assert!(rustix::io::fcntl_getfd(&same).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        assert_eq!(theirs.receive().await.unwrap().unwrap().words, "yours");
        drop(ours);
        assert!(theirs.receive().await.unwrap().is_none());
    }
}
