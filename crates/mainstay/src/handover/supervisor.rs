//! What a supervisor is told: the protocol of `sd_notify(3)`, which is a datagram with lines.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::config::Birth;

/// The supervisor of this process, if it has one that wants to hear.
#[derive(Debug, Clone)]
pub struct Supervisor(Option<OsString>);

impl Supervisor {
    /// The one that `NOTIFY_SOCKET` names.
    pub fn of(birth: &Birth) -> Self {
        Self(birth.notify_socket.clone().filter(|name| !name.is_empty()))
    }

    /// Tells it: `READY=1` and the like, with a line break between them. That nobody listens is no reason to serve worse.
    pub fn tell(&self, state: &str) {
        if let Some(name) = &self.0
            && let Err(error) = send(name, state)
        {
            tracing::warn!(%error, state, "the supervisor (NOTIFY_SOCKET) could not be told");
        }
    }
}

fn send(name: &OsString, state: &str) -> io::Result<()> {
    // `@` stands for the zero byte of an abstract name.
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A supervisor that does not read must not hold the service.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_names_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("mainstay-notify-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&abstract_name).unwrap()).unwrap();
        for (socket, name) in [(by_path, path.into_os_string()), (by_name, format!("@{abstract_name}").into())] {
            Supervisor(Some(name)).tell("READY=1\nMAINPID=7");
            let mut bytes = [0; 64];
            let count = socket.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..count], b"READY=1\nMAINPID=7");
        }
        Supervisor(None).tell("READY=1");
        Supervisor(Some("/nowhere/notify".into())).tell("READY=1");
    }
}
