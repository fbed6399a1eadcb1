//! The transport over real sockets: what it refuses, how long it waits, how it ends.

// A test fails by panicking, in its helpers too.
#![allow(clippy::unwrap_used)]

#[path = "transport/endings.rs"]
mod endings;
#[path = "transport/forms.rs"]
mod forms;
#[path = "transport/http2.rs"]
mod http2;
#[path = "http2/raw.rs"]
mod raw;
#[path = "transport/server.rs"]
mod server;
#[path = "transport/slow.rs"]
mod slow;
