//! What the axum peers do before they serve: read the benchmark's settings and open the pool.
//!
//! The benchmark starts its peers with these variables; they are the rig's own and not Mainstay's configuration.

use std::env;

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::database::Database;

/// Binds the loopback address at the port in `PORT`.
///
/// # Errors
/// When `PORT` is missing, is no port number, or is taken.
pub async fn listener() -> anyhow::Result<TcpListener> {
    let port: u16 = env::var("PORT").context("PORT is not set: `bench` starts this program")?.parse()?;
    TcpListener::bind(("127.0.0.1", port)).await.with_context(|| format!("port {port} cannot be bound"))
}

/// The pool behind `DATABASE_URL`, or `None` when the variable is not set and the product route is left out.
///
/// # Errors
/// When `DATABASE_URL` is no PostgreSQL address.
pub fn database() -> anyhow::Result<Option<Database>> {
    env::var("DATABASE_URL").ok().map(|url| Database::open(&url)).transpose()
}
