//! The peer without a stack: axum's router behind `axum::serve` as axum's manual shows it, and nothing else. No log, no
//! header, no limit, no token check. What it serves in a second is the ceiling that the stack is measured against.

use mainstay_bench::{routes, serve};

// The allocator of the service, in both axum peers: the difference between them is to be the stack alone.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let routes = routes::all(serve::database()?);
    axum::serve(serve::listener().await?, routes).await?;
    Ok(())
}
