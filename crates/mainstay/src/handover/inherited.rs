//! The sockets that were there before the process.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::predecessor::Predecessor;
use super::{MANAGEMENT, PUBLIC, channel};
use crate::config::Birth;

/// The first descriptor of a supervisor (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// The process before sends right after it has started this one; longer than that takes on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// A listening socket that was there before the process.
#[derive(Debug)]
pub struct Socket {
    /// The socket.
    pub listener: TcpListener,
    /// A supervisor holds it as well: what waits in its queue when this process ends is the next one's.
    pub held: bool,
}

/// What this process was given.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The socket for everybody.
    pub public: Option<Socket>,
    /// The socket for the operator.
    pub management: Option<Socket>,
    /// The process that makes room for this one.
    pub predecessor: Option<Predecessor>,
}

/// A supervisor's descriptors are claimed once.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Something was given that cannot be used, in words.
#[derive(Debug)]
pub struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl Inherited {
    /// Takes what this process was given. To be called once, before it has opened anything itself.
    ///
    /// # Errors
    /// When something was given that is not what it should be. To go on without it would mean a service that listens elsewhere than its operator thinks. Also
    /// when a supervisor's sockets were taken before: they are this process's own by then.
    pub fn take(birth: &Birth) -> Result<Self, Refused> {
        if birth.handover.is_some() { Self::from_predecessor() } else { Self::from_supervisor(birth) }
    }

    fn from_predecessor() -> Result<Self, Refused> {
        let unusable =
            |error: io::Error| Refused(format!("MAINSTAY_HANDOVER is set, and standard input leads to no process that hands over: {error}"));
        let end = std::io::stdin().as_fd().try_clone_to_owned().map_err(unusable)?;
        sockopt::set_socket_timeout(&end, sockopt::Timeout::Recv, Some(PATIENCE)).map_err(|error| unusable(error.into()))?;
        let message = channel::receive(&end).map_err(unusable)?.ok_or_else(|| unusable(io::ErrorKind::UnexpectedEof.into()))?;
        // From here on the line has one end in this process, and standard input is what it is for a service.
        std::fs::File::open("/dev/null").and_then(|null| Ok(rustix::stdio::dup2_stdin(null)?)).map_err(unusable)?;
        let mut words = message.words.split(' ');
        if (words.next(), words.next()) != (Some("take"), Some("1")) {
            return Err(Refused(format!("the process before speaks of a handover in words that this release does not know: `{}`", message.words)));
        }
        let mut inherited = Self { predecessor: Some(Predecessor::new(end)), ..Self::default() };
        let names: Vec<&str> = words.collect();
        if names.len() != message.descriptors.len() {
            return Err(Refused(format!("the process before named {} sockets and sent {}", names.len(), message.descriptors.len())));
        }
        for (name, descriptor) in names.into_iter().zip(message.descriptors) {
            let (name, held) = name.split_once(':').unwrap_or((name, "own"));
            inherited.place(name, descriptor, held == "held")?;
        }
        Ok(inherited)
    }

    fn from_supervisor(birth: &Birth) -> Result<Self, Refused> {
        let mut inherited = Self::default();
        // Variables of another process, which this one got from it: not meant for us (sd_listen_fds(3)).
        if birth.listen_pid.as_deref().and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
            return Ok(inherited);
        }
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Err(Refused("the sockets of LISTEN_FDS were taken already".to_owned()));
        }
        let names = names(birth.listen_fds.as_deref().unwrap_or_default(), birth.listen_fdnames.as_deref())?;
        for (name, number) in names.into_iter().zip(FIRST..) {
            inherited.place(&name, claim(number)?, true)?;
        }
        Ok(inherited)
    }

    fn place(&mut self, name: &str, descriptor: OwnedFd, held: bool) -> Result<(), Refused> {
        let place = match name {
            PUBLIC => &mut self.public,
            MANAGEMENT => &mut self.management,
            _ => return Err(Refused(format!("a socket named `{name}` was handed over; there are `{PUBLIC}` and `{MANAGEMENT}`"))),
        };
        let listener = listening(descriptor).map_err(|why| Refused(format!("what was handed over as `{name}` {why}")))?;
        if place.replace(Socket { listener, held }).is_some() {
            return Err(Refused(format!("two sockets named `{name}` were handed over")));
        }
        Ok(())
    }
}

/// The names of `count` sockets. One alone is the public one, whatever a supervisor calls it: systemd gives it the name of its unit.
fn names(count: &str, names: Option<&str>) -> Result<Vec<String>, Refused> {
    let count: usize = count.parse().ok().filter(|count| (1..=2).contains(count)).ok_or_else(|| {
        Refused(format!(
            "LISTEN_FDS is `{count}`; it must be 1 or 2: the public address, and the one of management (FileDescriptorName={MANAGEMENT})"
        ))
    })?;
    let names: Vec<String> = names.map(|names| names.split(':').map(str::to_owned).collect()).unwrap_or_default();
    match (count, names.as_slice()) {
        (1, [name]) if name == MANAGEMENT => Ok(names),
        (1, [] | [_]) => Ok(vec![PUBLIC.to_owned()]),
        (_, named) if named.len() == count => Ok(names),
        (_, named) => Err(Refused(format!("LISTEN_FDS is {count} and LISTEN_FDNAMES has {} names; each socket needs one", named.len()))),
    }
}

/// Makes descriptor `number`, which a supervisor has left open for this process, its own.
#[expect(unsafe_code, reason = "the one place where a socket changes hands by its number")]
fn claim(number: RawFd) -> Result<OwnedFd, Refused> {
    let closed = |error: rustix::io::Errno| Refused(format!("LISTEN_FDS counts descriptor {number}, which is not open: {error}"));
    // SAFETY: it lives for two system calls that take any number: of one that is not open the first says so, and nothing more is done with it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = fcntl_getfd(borrowed).map_err(closed)?;
    // It came without, or it would not have come; a process that this one starts shall not have it.
    fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC).map_err(closed)?;
    // SAFETY: it is open, as we have just seen, and nobody else's in this process. LISTEN_PID named this process, so its supervisor has left numbers 3 and up
    // open for it and for nothing else (sd_listen_fds(3)); this runs before the process opens anything, and once for each number ([`TAKEN`]).
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// `descriptor` as what it must be: a TCP socket that listens.
fn listening(descriptor: OwnedFd) -> Result<TcpListener, String> {
    let no_socket = |error: rustix::io::Errno| format!("is no socket: {error}");
    let stream = sockopt::socket_type(&descriptor).map_err(no_socket)? == SocketType::STREAM;
    let domain = sockopt::socket_domain(&descriptor).map_err(no_socket)?;
    if !stream || (domain != AddressFamily::INET && domain != AddressFamily::INET6) {
        return Err("is no TCP socket".to_owned());
    }
    if !sockopt::socket_acceptconn(&descriptor).map_err(no_socket)? {
        return Err("does not listen (Accept=no is needed)".to_owned());
    }
    Ok(descriptor.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(count: &str, list: Option<&str>) -> Result<Vec<String>, String> {
        names(count, list).map_err(|refused| refused.to_string())
    }

    #[test]
    fn one_socket_is_the_public_one_and_two_need_their_names() {
        assert_eq!(named("1", None).unwrap(), ["public"]);
        assert_eq!(named("1", Some("mainstay.socket")).unwrap(), ["public"]);
        assert_eq!(named("1", Some("management")).unwrap(), ["management"]);
        assert_eq!(named("2", Some("management:public")).unwrap(), ["management", "public"]);
        for (count, list) in
            [("0", None), ("3", None), ("many", None), ("", None), ("-1", None), ("2", None), ("2", Some("public")), ("1", Some("a:b"))]
        {
            assert!(named(count, list).is_err(), "{count} {list:?}");
        }
    }

    #[test]
    fn only_a_listening_tcp_socket_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(listening(std::fs::File::open("/dev/null").unwrap().into()).unwrap_err().contains("no socket"));
        assert!(listening(stream.into()).unwrap_err().contains("does not listen"));
        assert!(listening(datagram.into()).unwrap_err().contains("no TCP socket"));
        let address = listener.local_addr().unwrap();
        assert_eq!(listening(listener.into()).unwrap().local_addr().unwrap(), address);
    }

    #[test]
    fn variables_that_are_meant_for_another_process_are_not_ours() {
        let birth = Birth { listen_pid: Some("1".to_owned()), listen_fds: Some("nonsense".to_owned()), ..Birth::default() };
        let inherited = Inherited::take(&birth).unwrap();
        assert!(inherited.public.is_none() && inherited.management.is_none());
        let ours = Birth { listen_pid: Some(std::process::id().to_string()), ..birth };
        assert!(Inherited::take(&ours).unwrap_err().to_string().contains("LISTEN_FDS is `nonsense`"));
        assert!(Inherited::take(&ours).unwrap_err().to_string().contains("taken already"));
    }
}
