//! What tests of a service need: a server around its routes ([`TestServer`]), a client that sends exactly the bytes it is given ([`Client`]), and a
//! network that breaks on command ([`FaultProxy`]).

mod client;
mod fault_proxy;
mod server;

pub use client::{Answer, Client, request};
pub use fault_proxy::{Fault, FaultProxy};
pub use server::{StackSettings, TestServer, routes};
