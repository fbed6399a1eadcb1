//! What tests of a service need: a server around its routes ([`TestServer`]), a client that sends exactly the bytes it is given ([`Client`]), and a
//! network that breaks on command ([`FaultProxy`]), a database server to break ([`PostgresServer`]), chance that can be repeated ([`Chance`]), and a fair judgement of whether two things take the same time ([`Pairs`]).

mod chance;
mod client;
mod fault_proxy;
mod postgres;
mod server;
mod timing;

pub use chance::Chance;
pub use client::{Answer, Client, request};
pub use fault_proxy::{Fault, FaultProxy, Side};
pub use postgres::PostgresServer;
pub use server::{StackSettings, TestServer, routes};
pub use timing::{Comparison, Pairs, Verdict};
