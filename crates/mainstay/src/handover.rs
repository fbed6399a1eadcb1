//! Listening sockets that outlive their process, so that a new release loses no request: from a supervisor (systemd's socket activation), or from the process
//! before (SIGUSR2).
//!
//! It promises: the socket is one and stays open, so no connection waits in a queue that somebody closes; the process before goes on as if nothing had happened
//! until the new one says that it serves; a new one that dies, hangs or is no Mainstay at all costs nothing but a line in the log.
//!
//! The process before starts the file that it was started from, with one end of a socket pair as standard input ([`Successor`]). Over it descriptors travel
//! as messages of the kernel (`SCM_RIGHTS`): no number has to be agreed on, nothing leaks into other processes, and what arrives belongs to the receiver.
//! Words over the channel, one message each:
//!
//! | from | word | with | meaning |
//! |---|---|---|---|
//! | old | `take 1 public:own management:own` | these listening sockets | begin; `held` in place of `own`: a supervisor holds the socket as well |
//! | new | `ready` | | I serve |
//! | old | `yours` | | I accept nothing more |
//! | old | `connection` | a connection | nobody is asking on it: serve it on |
//! | old | `end` | | I was asked to end: end as well |
//!
//! A channel that closes without a word is a process that died. Releases before and after speak these words with each other: another meaning needs another
//! number behind `take`.

mod channel;
mod inherited;
mod predecessor;
mod successor;
mod supervisor;

pub use inherited::{Inherited, Refused, Socket};
pub use predecessor::{Predecessor, Word};
pub use successor::{Died, Heir, Successor};
pub use supervisor::Supervisor;

/// The name of the socket for everybody.
pub const PUBLIC: &str = "public";
/// The name of the socket for the operator.
pub const MANAGEMENT: &str = "management";
